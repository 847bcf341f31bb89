use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use plimsoll_lab::process::{Exit, Port, ProcessError, Signal, Spec};

use crate::{launch, marked, shell, start, until};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_process_is_started_and_its_end_is_told() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let process = supervisor.spawn(shell("greets", "echo out; echo err >&2; pwd; exit 3")).expect("started");
    assert_eq!(process.wait(LONG), Some(Exit::Code(3)));
    until("its output", || process.last_words(9).lines().count() == 3);
    assert_eq!(process.last_words(9), format!("out\nerr\n{}", supervisor.directory().display()));
    assert_eq!(process.last_words(1), format!("{}", supervisor.directory().display()));
    let why = process.signal(Signal::Hangup).expect_err("it has ended").to_string();
    assert_eq!(why, "greets: it has ended: exit code 3");
    assert_eq!(process.kill().expect("nothing to do"), Exit::Code(3));
    let directory = supervisor.directory().to_owned();
    supervisor.end(Duration::from_secs(5));
    assert!(!directory.exists());
}

#[test]
fn what_it_is_given_is_what_it_has() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let environment = BTreeMap::from([("GIVEN".to_owned(), Some("a b".to_owned())), ("PATH".to_owned(), None)]);
    let folder = Some("/".to_owned());
    let spec =
        Spec { environment, folder, ..shell("asked", "echo \"$GIVEN\"; /usr/bin/env | /bin/grep -c ^PATH=; pwd") };
    let process = supervisor.spawn(spec).expect("started");
    assert_eq!(process.wait(LONG), Some(Exit::Code(0)));
    until("its output", || process.last_words(9).lines().count() == 3);
    let words = process.last_words(9);
    assert!(words.starts_with("a b\n") && words.ends_with("\n/"), "{words}");
}

#[test]
fn what_cannot_be_started_is_refused_by_name() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let missing = Spec { program: "/no/such/program".to_owned(), ..shell("missing", "") };
    let why = supervisor.spawn(missing).expect_err("no program").to_string();
    assert!(why.starts_with("cannot start missing (/no/such/program): "), "{why}");
    let why = supervisor.spawn(shell("../up", "true")).expect_err("a path").to_string();
    assert!(why.contains("letters, digits"), "{why}");
    let data = base.path().join("data");
    std::fs::write(&data, "no program").expect("a file");
    let spec = Spec { program: data.display().to_string(), arguments: Vec::new(), ..shell("data", "") };
    let process = supervisor.spawn(spec).expect("it is there");
    assert_eq!(process.wait(LONG), Some(Exit::Code(127)));
    until("its reason", || process.last_words(1).contains("denied"));
    let other = plimsoll_lab::process::Launch { program: "/bin/false".into(), arguments: Vec::new() };
    let error = plimsoll_lab::process::Supervisor::start(&other, base.path()).expect_err("no keeper");
    assert!(matches!(error, ProcessError::Keeper { .. }), "{error}");
    let error = plimsoll_lab::process::Supervisor::start(&launch(), &data).expect_err("no folder");
    assert!(matches!(error, ProcessError::Directory { .. }), "{error}");
}

/// It heeds no request to end, and has a child in another session that heeds none either.
const STUBBORN: &str =
    "trap '' TERM INT; setsid sh -c \"trap '' TERM; echo away; sleep 1000\" & echo here; sleep 1000; wait";

#[test]
fn what_does_not_heed_is_killed_with_all_that_it_started() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    for grace in [Duration::ZERO, Duration::from_millis(100)] {
        let mark = format!("{}-{}", std::process::id(), grace.as_millis());
        let environment = BTreeMap::from([("STUBBORN".to_owned(), Some(mark.clone()))]);
        let name = format!("stubborn-{}", grace.as_millis());
        let process = supervisor.spawn(Spec { environment, ..shell(&name, STUBBORN) }).expect("started");
        until("both are there", || process.last_words(9).lines().count() == 2);
        assert!(marked(&format!("STUBBORN={mark}")).len() >= 4);
        assert_eq!(process.stop(grace).expect("stopped"), Exit::Signal(9));
        assert_eq!(marked(&format!("STUBBORN={mark}")), [""; 0]);
    }
}

#[test]
fn what_heeds_has_time_to_end() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let line = "trap 'echo bye; exit 7' INT; echo here; while :; do sleep 0.01; done";
    let process = supervisor.spawn(Spec { stop: Signal::Interrupt, ..shell("heeds", line) }).expect("started");
    until("it is there", || process.last_words(1) == "here");
    assert_eq!(process.stop(LONG).expect("stopped"), Exit::Code(7));
    until("its last words", || process.last_words(1) == "bye");
}

#[test]
fn a_pause_takes_in_every_process_of_it() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let mark = format!("paused-{}", std::process::id());
    let environment = BTreeMap::from([("PAUSED".to_owned(), Some(mark.clone()))]);
    // Forks all the time, below itself and in another session.
    let line = "setsid sh -c 'while :; do sleep 0.001; done' & echo here; while :; do sleep 0.001; done";
    let process = supervisor.spawn(Spec { environment, ..shell("forks", line) }).expect("started");
    until("it is there", || process.last_words(1) == "here");
    for _ in 0..10 {
        assert!(process.pause().expect("paused") >= 2);
        let states = marked(&format!("PAUSED={mark}"));
        // The shell forks with vfork: it waits within the kernel while the child is stopped.
        let stands = |state: &String| state.ends_with(" T") || state.ends_with(" D");
        assert!(states.len() >= 2 && states.iter().all(stands), "{states:?}");
        process.resume().expect("resumed");
        until("they go on", || marked(&format!("PAUSED={mark}")).iter().any(|state| state.ends_with(" S")));
    }
    // What is paused can be asked to end all the same.
    process.pause().expect("paused");
    assert_eq!(process.stop(LONG).expect("stopped"), Exit::Signal(15));
    assert_eq!(marked(&format!("PAUSED={mark}")), [""; 0]);
}

#[test]
fn a_log_keeps_its_end() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = start(base.path());
    let line = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let spec = Spec { log_bytes: Some(40_000), ..shell("talks", line) };
    let process = supervisor.spawn(spec).expect("started");
    assert_eq!(process.wait(LONG), Some(Exit::Code(0)));
    until("all of it", || process.last_words(1) == "line 19999");
    let bytes: u64 = std::fs::read_dir(supervisor.directory())
        .expect("the directory")
        .map(|entry| entry.expect("a file").metadata().expect("its size").len())
        .sum();
    assert!(bytes < 100_000, "{bytes}");
}

#[test]
fn a_user_of_its_own_can_do_no_more_than_that_user() {
    if !plimsoll_lab::process::user::is_root() {
        return assert!(std::fs::metadata("/proc/self/stat").is_ok(), "only root can change users");
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("users");
    let user = plimsoll_lab::process::user::find(&passwd, "nobody").expect("nobody");
    let base = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let supervisor = start(base.path());
    let line = "id -u; id -G; touch here 2>/dev/null || echo no; sleep 1000";
    let process = supervisor.spawn(Spec { user: Some(user), ..shell("nobody", line) }).expect("started");
    until("its words", || process.last_words(9).lines().count() == 3);
    assert_eq!(process.last_words(9), format!("{}\n{}\nno", user.0, user.1));
    // The death signal is there although the user was changed: the keeper's end is its end.
    let keeper = supervisor.keeper().to_string();
    assert!(std::process::Command::new("kill").args(["-9", &keeper]).status().expect("kill").success());
    assert_eq!(process.wait(LONG), Some(Exit::Lost));
    let stat = format!("/proc/{}", process.pid());
    until("it is gone", || !std::path::Path::new(&stat).exists());
    let directory = supervisor.directory().to_owned();
    drop(supervisor);
    assert!(!directory.exists());
}

#[test]
fn the_port_of_a_server_that_died_stays_its_own() {
    let port = Port::free().expect("a port");
    let address = ("127.0.0.1", port.number());
    drop(TcpListener::bind(address).expect("a server"));
    assert!(TcpStream::connect(address).is_err());
    drop(TcpListener::bind(address).expect("a server again"));
}
