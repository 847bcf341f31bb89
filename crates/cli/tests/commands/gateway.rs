#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::Folder;

/// A backend that answers every request with 200, and its address.
fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    address
}

fn file(listen: &str, at: &str, timeout: &str) -> String {
    format!(
        "system: test\nclients: {{ web: {{ rate: 1/s, calls: [ edge GET / ] }} }}\nservices:\n  edge:\n    kind: gateway\n    \
         upstream: api\n    listen: [\"{listen}\"]\n    timeout: {timeout}\n  api:\n    {at}\n    endpoints: {{ GET /: [] }}\n"
    )
}

struct Running {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
    address: String,
}

impl Running {
    fn start(folder: &Folder, arguments: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["gateway"])
            .args(arguments)
            .current_dir(folder.path("."))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut errors = BufReader::new(child.stderr.take().expect("standard error"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("edge listens on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Running { child, errors, address }
    }

    /// The next line that it says, but for how many files it may open: that is the machine's affair.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.errors.read_line(&mut line).expect("a line");
            if !line.contains(": may open ") {
                return line.trim().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    fn get(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_reloads_and_stops() {
    let folder = Folder::new();
    let at = format!("at: [{}]", backend());
    folder.write("system.yaml", file("127.0.0.1:0", &at, "5s"));
    let mut running = Running::start(&folder, &["system.yaml"]);
    assert!(running.get().ends_with("\r\n\r\nok"));
    folder.write("system.yaml", file("127.0.0.1:0", &at, "6s"));
    running.signal("-HUP");
    assert_eq!(running.line(), "edge: reloaded");
    folder.write("system.yaml", file("127.0.0.1:0", &at, "sometime"));
    running.signal("-HUP");
    assert!(running.line().starts_with("edge: not reloaded: "));
    assert!(running.get().ends_with("\r\n\r\nok"));
    running.signal("-INT");
    assert!(running.child.wait().expect("it ends").success());
}

/// The old process ends, the new one has its address, and whoever asks meanwhile is answered.
#[test]
fn a_new_process_takes_over() {
    let folder = Folder::new();
    let at = format!("at: [{}]", backend());
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    folder.write("system.yaml", file(&free, &at, "5s").replace("    upstream", "    drain: 1s\n    upstream"));
    let mut old = Running::start(&folder, &["system.yaml"]);
    folder.run(["gateway", "system.yaml"]).refused("to replace the gateway that listens there: --take-over");
    let new = Running::start(&folder, &["system.yaml", "--take-over"]);
    assert_eq!((new.address.as_str(), old.address.as_str()), (free.as_str(), free.as_str()));
    old.signal("-TERM");
    let mut asked = 0;
    let status = loop {
        assert!(new.get().ends_with("\r\n\r\nok"), "request {asked}");
        asked += 1;
        if let Some(status) = old.child.try_wait().expect("its state") {
            break status;
        }
    };
    assert!(status.success());
    assert!(new.get().ends_with("\r\n\r\nok"), "after {asked}");
}

#[test]
fn what_cannot_be_served_is_said_before_anything_listens() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (text, why) in [
        (file("127.0.0.1:0", "at: [nowhere]", "5s"), "the port is missing"),
        (
            file("127.0.0.1:0", "owner: nobody", "5s"),
            "system.yaml:9: `api` has no addresses: give it some, as `at: [127.0.0.1:3000]`",
        ),
        (file(":8080", "at: [127.0.0.1:1]", "5s"), "the address is missing"),
        (file(&address, "at: [127.0.0.1:1]", "5s"), "cannot listen on"),
        (
            file("127.0.0.1:0", "at: [127.0.0.1:1]", "5s").replace("GET /:", "any:").replace("edge GET /", "edge any"),
            "system.yaml:11: `any` is no method and path, such as `GET /notes/:id`",
        ),
        (
            file("127.0.0.1:0", "at: [127.0.0.1:1]", "5s")
                .replace("    upstream", "    tls: { certificate: a.pem, key: a.key }\n    upstream"),
            "a.pem: No such file",
        ),
    ] {
        folder.write("system.yaml", &text);
        folder.run(["gateway", "system.yaml"]).refused(why);
    }
    folder.run(["gateway", "system.yaml", "other"]).refused("no gateway `other`; expected one of: edge");
    folder.write("plain.yaml", crate::SMALL);
    folder.run(["gateway", "plain.yaml"]).refused("the system has no gateway");
}

#[test]
fn checks_without_serving() {
    let folder = Folder::new();
    folder.write("system.yaml", file("127.0.0.1:1", "at: [127.0.0.1:1]", "5s"));
    let checked = folder.run(["gateway", "system.yaml", "--check"]).with(0);
    assert_eq!(checked.out, "edge: 1 endpoints, answered by api\n");
}
