//! Those that are compared: each a process that makes requests at a rate for a while, and says what came of them.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::server::Server;

/// Connections that each may have: those that oha holds, and the most that ours opens.
const CONNECTIONS: u32 = 64;
/// A generator that takes so much longer than it was told to has failed.
const GRACE: Duration = Duration::from_secs(60);

/// A load generator.
pub struct Generator {
    pub name: &'static str,
    program: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Plimsoll,
    Oha,
}

/// What came of one run.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Requests answered in the time that there was, in % of those wanted.
    pub rate_percent: f64,
    /// CPU time of the process, user's and system's, by answered requests.
    pub cpu_us: f64,
    /// Response time from when a request was due.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What a generator says of itself.
struct Said {
    /// Answers in the time that there was.
    in_time: f64,
    /// All answers.
    answers: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Generator {
    pub fn plimsoll(name: &'static str, program: &str) -> Generator {
        Generator { name, program: program.to_owned(), kind: Kind::Plimsoll }
    }

    pub fn oha(program: &str) -> Generator {
        Generator { name: "oha", program: program.to_owned(), kind: Kind::Oha }
    }

    /// What it calls itself.
    pub fn version(&self) -> Result<String, Box<dyn Error>> {
        let output = Command::new(&self.program).arg("--version").output().map_err(|error| {
            let hint = match self.kind {
                Kind::Oha => "; `cargo install oha --locked` installs it, and `--oha PATH` says where it is",
                Kind::Plimsoll => "",
            };
            format!("{} does not start: {error}{hint}", self.program)
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// Makes load and says what came of it.
    pub fn run(&self, server: &Server, folder: &Path, rate: u32, seconds: u32) -> Result<Seen, Box<dyn Error>> {
        let (json, log) = (folder.join("result.json"), folder.join("generator.log"));
        let _ = fs::remove_file(&json);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", &self.program]);
        match self.kind {
            Kind::Plimsoll => {
                let file = folder.join("load.yaml");
                fs::write(&file, system_file(server, rate, seconds))?;
                command.arg("run").arg(file).arg("--json").arg(&json);
            }
            Kind::Oha => {
                command.args(["--no-tui", "--latency-correction", "--output-format", "json", "--output"]).arg(&json);
                command.args(["-z", &format!("{seconds}s"), "-q", &rate.to_string(), "-c", &CONNECTIONS.to_string()]);
                command.arg(format!("http://{}/", server.address));
            }
        }
        let output = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let before = (server.count()?, cpu_us()?);
        let failed = wait(command, Duration::from_secs(u64::from(seconds)) + GRACE)?;
        let after = (server.count()?, cpu_us()?);
        let log = fs::read_to_string(&log).unwrap_or_default();
        let invalid = log.lines().find(|line| line.starts_with("INVALID"));
        if let Some(line) = invalid {
            eprintln!("{} at {rate}/s: {line}", self.name);
        } else if failed {
            return Err(format!("{} at {rate}/s has failed:\n{log}", self.name).into());
        }
        let result: Value = serde_json::from_slice(&fs::read(&json)?)?;
        let said = match self.kind {
            Kind::Plimsoll => of_plimsoll(&result),
            Kind::Oha => of_oha(&result, seconds),
        };
        let said = said.ok_or_else(|| format!("{} has written other figures than are known here", self.name))?;
        // The second look at the count is one itself.
        let counted = (after.0 - before.0 - 1) as f64;
        if (counted - said.answers).abs() > said.answers / 100.0 {
            eprintln!("{} at {rate}/s: it says {} answers, nginx {counted}", self.name, said.answers);
        }
        Ok(Seen {
            rate_percent: said.in_time / (f64::from(rate) * f64::from(seconds)) * 100.0,
            cpu_us: (after.1 - before.1) / said.answers,
            p50_ms: said.p50_ms,
            p99_ms: said.p99_ms,
        })
    }
}

/// As much as oha knows of its load: a constant rate, no network but loopback, as many connections at most, no retries.
fn system_file(server: &Server, rate: u32, seconds: u32) -> String {
    format!(
        "system: load\nnetwork: {{ same_zone: 0ms }}\nclients:\n  generator:\n    rate: {rate}/s\n\
         \x20   arrivals: constant\n    max_connections: {CONNECTIONS}\n    max_pending: 10000000\n\
         \x20   calls: [ server GET / ]\nservices:\n  server:\n    at: [\"{}\"]\n    endpoints: {{ GET /: [] }}\n\
         experiments:\n  load: {{ for: {seconds}s, warmup: 0s, expect: [ errors < 1% ] }}\n",
        server.address
    )
}

fn of_plimsoll(result: &Value) -> Option<Said> {
    let all = result.get("subjects")?.as_array()?.iter().find(|subject| subject["kind"] == "all")?;
    let figures = all.get("figures")?.as_array()?;
    let figure = |name: &str| figures.iter().find(|figure| figure["name"] == name)?.get("mean")?.as_f64();
    Some(Said {
        // By second in which they ended, each a rate.
        in_time: all.get("series")?.get("ok")?.as_array()?.iter().filter_map(Value::as_f64).sum(),
        answers: all.get("totals")?.get("ok")?.as_f64()?,
        p50_ms: figure("latency_ms_p50")?,
        p99_ms: figure("latency_ms_p99")?,
    })
}

fn of_oha(result: &Value, seconds: u32) -> Option<Said> {
    let answers = result.get("statusCodeDistribution")?.get("200")?.as_f64()?;
    let total = result.get("summary")?.get("total")?.as_f64()?;
    let times = result.get("latencyPercentiles")?;
    Some(Said {
        in_time: answers * (f64::from(seconds) / total).min(1.0),
        answers,
        p50_ms: times.get("p50")?.as_f64()? * 1e3,
        p99_ms: times.get("p99")?.as_f64()? * 1e3,
    })
}

/// Waits for a process, and says whether it has failed.
fn wait(mut command: Command, most: Duration) -> Result<bool, Box<dyn Error>> {
    let mut child = command.spawn()?;
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(!status.success());
        }
        if since.elapsed() > most {
            child.kill()?;
            child.wait()?;
            return Err(format!("{command:?} does not end").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// CPU time of all children that have ended, theirs included, us: generators, one after the other.
fn cpu_us() -> Result<f64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Ok(us(usage.user_time()) + us(usage.system_time()))
}
