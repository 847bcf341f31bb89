//! One of three instances dies, hangs, slows down or fails under load. Instances are processes of Node, so that they
//! are killed and stopped as processes are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::process::*;
use crate::support::*;

/// Retries may be a fifth of the requests, and nothing on top. A request may have both its retries on the bad instance:
/// then it is the third that is answered by another one.
const POLICIES: &str = "balance: least_connections
per_try_timeout: 500ms
timeout: 10s
retry: { attempts: 3, backoff: 1ms..5ms, when: [connect_error, reset, timeout, 500, 503], budget: { share: 20%, min_per_second: 0/s } }
outliers: { consecutive_failures: 3, eject_for: 500ms, max_ejected: 50%, panic_below: 10%, slow_start: 0s }";

/// Says its port, then answers every request, and says so with a byte on standard output before. A word on standard input
/// changes how.
const SCRIPT: &str = r#"
let how = 'well';
process.stdin.on('data', (word) => { how = String(word).trim(); });
process.stdin.on('end', () => process.exit());
const answer = (response, status) => { response.statusCode = status; response.end(how); };
require('http').createServer((request, response) => {
  process.stdout.write('.');
  request.resume();
  if (how === 'slow') setTimeout(answer, 2000, response, 200);
  else answer(response, how === 'failing' ? 503 : 200);
}).listen(Number(process.argv[1]), '127.0.0.1', function () { process.stdout.write(`${this.address().port}\n`); });
"#;

struct Instance {
    address: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    /// Requests that it got, in all its lives.
    requests: Arc<AtomicUsize>,
}

impl Instance {
    fn start() -> Instance {
        let requests = Arc::default();
        let (child, input, port) = Instance::run(0, &requests).expect("node listens");
        Instance { address: ([127, 0, 0, 1], port).into(), child, input: Some(input), requests }
    }

    /// A process that listens on this port, or on any with 0. None if somebody else has the port.
    fn run(port: u16, requests: &Arc<AtomicUsize>) -> Option<(Child, ChildStdin, u16)> {
        let mut child = Command::new("node")
            .args(["-e", SCRIPT, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: install it with ./scripts/packages (Debian's package nodejs)");
        let mut output = BufReader::new(child.stdout.take().expect("standard output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("standard output");
        let Ok(port) = line.trim().parse() else {
            let _ = child.wait();
            return None;
        };
        let requests = requests.clone();
        std::thread::spawn(move || {
            let mut dots = [0; 256];
            while let Ok(count @ 1..) = output.read(&mut dots) {
                requests.fetch_add(count, SeqCst);
            }
        });
        let input = child.stdin.take().expect("standard input");
        Some((child, input, port))
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input.as_mut().expect("standard input"), "{word}").expect("it listens");
    }

    fn goes_bad(&mut self, how: &str) {
        match how {
            "killed" => {
                self.signal("-KILL");
                let _ = self.child.wait();
            }
            "paused" => self.signal("-STOP"),
            word => self.tell(word),
        }
    }

    fn is_well_again(&mut self, how: &str) {
        match how {
            "killed" => {
                // A client somewhere may have the port in the meantime.
                let mut again = None;
                within(Duration::from_secs(60), "it listens again", || {
                    again = Instance::run(self.address.port(), &self.requests);
                    again.is_some()
                });
                let (child, input, _) = again.expect("it listens");
                (self.child, self.input) = (child, Some(input));
            }
            "paused" => self.signal("-CONT"),
            _ => self.tell("well"),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many requests are answered while an instance is bad.
const MEANWHILE: usize = 2_000;

fn one_of_three_is(how: &str) {
    let mut instances = [Instance::start(), Instance::start(), Instance::start()];
    let addresses = instances.each_ref().map(|instance| instance.address);
    let running = Running::start(&file(&addresses, POLICIES, ""));
    let load = Load::start(running.address, 6);
    let patience = Duration::from_secs(120);
    within(patience, "all is well", || instances.iter().all(|instance| instance.requests() > 100));
    instances[1].goes_bad(how);
    let then = load.answered.load(SeqCst);
    within(patience, "the others answer", || load.answered.load(SeqCst) > then + MEANWHILE);
    instances[1].is_well_again(how);
    let before = instances[1].requests();
    within(patience, "traffic returns", || instances[1].requests() > before + 200);
    let (answered, failed) = load.end();
    // All of it is said before the answer is; what a process that was stopped has read comes when it goes on.
    let asked = || instances.iter().map(Instance::requests).sum::<usize>();
    within(patience, "what was asked is counted", || asked() >= answered);
    println!("{how}: {answered} answered, {failed} failed, {} asked", asked());
    assert_eq!(failed, 0, "of {answered}");
    // The budget's window may hold what was asked before: a fifth of all, and what six clients have out.
    assert!(asked() <= answered * 12 / 10 + 12, "{} requests behind for {answered} in front", asked());
}

#[test]
fn a_killed_process_costs_no_request() {
    one_of_three_is("killed");
}

#[test]
fn a_stopped_process_costs_no_request() {
    one_of_three_is("paused");
}

#[test]
fn a_slow_process_costs_no_request() {
    one_of_three_is("slow");
}

#[test]
fn a_failing_process_costs_no_request() {
    one_of_three_is("failing");
}
