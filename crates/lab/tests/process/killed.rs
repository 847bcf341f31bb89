//! Plimsoll, killed with SIGKILL at any moment: nothing is left.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_lab::process::{Port, Spec};

use crate::{marked, shell, start, until};

const TIMES: u64 = 20;
/// Where the victim finds its folder.
const BASE: &str = "PLIMSOLL_TEST_BASE";
const MARK: &str = "PLIMSOLL_TEST_MARK";

/// What is killed: it starts one process after another, of all sorts, and ends some.
#[test]
#[ignore = "the test below starts it, and kills it"]
fn victim() {
    let base = PathBuf::from(std::env::var(BASE).expect("a folder"));
    let supervisor = start(&base);
    println!("directory {}", supervisor.directory().display());
    let port = Port::free().expect("a port");
    println!("port {}", port.number());
    let server = std::env::current_exe().expect("this").display().to_string();
    let arguments = ["--exact", "killed::server", "--ignored"].map(str::to_owned).to_vec();
    let environment = BTreeMap::from([(BASE.to_owned(), Some(port.number().to_string()))]);
    supervisor
        .spawn(Spec { name: "server".to_owned(), program: server, arguments, environment, ..Spec::default() })
        .expect("a server");
    let lines = [
        "sleep 1000",
        "trap '' TERM INT HUP; while :; do sleep 1; done",
        "setsid sh -c 'sleep 1000 & setsid sleep 1000 &' & sleep 1000",
        "while :; do sleep 0.01; echo more; done",
        "mkdir data; i=0; while :; do i=$((i+1)); echo $i > data/$i; done",
    ];
    for (number, line) in (0..).zip(lines.iter().cycle()) {
        let process = supervisor.spawn(shell(&format!("process-{number}"), line)).expect("started");
        println!("started {number}");
        match number % 4 {
            0 => drop(process.pause().expect("paused")),
            1 if number > 5 => drop(process.kill().expect("killed")),
            _ => {}
        }
        if number == 40 {
            break;
        }
    }
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
#[ignore = "the victim starts it"]
fn server() {
    let port: u16 = std::env::var(BASE).expect("a port").parse().expect("a number");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("its port");
    loop {
        drop(listener.accept());
    }
}

#[test]
fn nothing_is_left_of_a_run_that_was_killed() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for time in 0..TIMES {
        let moment = Duration::from_micros(plimsoll_gateway::random::mix(seed + time) % 700_000);
        one(&format!("{MARK}={seed}-{time}"), moment);
    }
}

fn one(mark: &str, moment: Duration) {
    let base = tempfile::tempdir().expect("a folder");
    let (name, value) = mark.split_once('=').expect("a variable");
    let mut victim = Command::new(std::env::current_exe().expect("this"))
        .args(["--exact", "killed::victim", "--ignored", "--nocapture"])
        .env(name, value)
        .env(BASE, base.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("a victim");
    let lines = BufReader::new(victim.stdout.take().expect("its output")).lines();
    let reading = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
    std::thread::sleep(moment);
    victim.kill().expect("killed");
    victim.wait().expect("it ends");
    let said = reading.join().expect("its words");
    until(&format!("every process of {mark} ends, killed after {moment:?}"), || marked(mark).is_empty());
    let port = said.iter().find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok());
    if let Some(port) = port {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port} is taken after {moment:?}");
    }
    // A folder of this user is there, once the keeper was; in it no run's.
    let left: Vec<PathBuf> = std::fs::read_dir(base.path())
        .expect("the folder")
        .flat_map(|folder| std::fs::read_dir(folder.expect("an entry").path()).expect("the user's folder"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with("lock"))
        .collect();
    assert!(left.is_empty(), "{left:?} are left, killed after {moment:?}, having said {said:?}");
}
