//! A real Redis: started, emptied, killed, frozen. ./scripts/packages installs it.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_lab::process::{Launch, Supervisor};
use plimsoll_lab::redis::{Options, Redis, RedisError};

const LONG: Duration = Duration::from_secs(60);

fn supervisor(base: &tempfile::TempDir) -> Arc<Supervisor> {
    let launch = Launch { program: env!("CARGO_BIN_EXE_plimsoll-keeper").into(), arguments: Vec::new() };
    Arc::new(Supervisor::start(&launch, base.path()).expect("a keeper"))
}

fn options() -> Options {
    Options { name: "sessions".to_owned(), ..Options::default() }
}

#[test]
fn it_is_emptied_killed_and_started_again_empty() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = supervisor(&base);
    let settings = vec![("maxmemory".to_owned(), "64mb".to_owned())];
    let mut redis = Redis::start(&supervisor, Options { settings, ..options() }).expect("started");
    let ask = |redis: &Redis, command: &[&str]| redis.ask(command, LONG).expect("an answer");
    assert_eq!(ask(&redis, &["SET", "a", "x\r\ny"]), "OK");
    assert_eq!(ask(&redis, &["GET", "a"]), "x\r\ny");
    assert!(ask(&redis, &["INFO", "memory"]).contains("\r\nmaxmemory:67108864\r\n"));
    redis.flush().expect("emptied");
    assert_eq!(ask(&redis, &["DBSIZE"]), "0");
    assert_eq!(ask(&redis, &["GET", "a"]), "");
    ask(&redis, &["SET", "b", "1"]);
    let address = redis.address();
    redis.kill().expect("killed");
    assert!(!redis.lives());
    let error = redis.ask(&["PING"], LONG).expect_err("nobody is there");
    assert!(
        matches!(&error, RedisError::Silent { why, .. } if why.kind() == std::io::ErrorKind::ConnectionRefused),
        "{error}"
    );
    redis.restart().expect("started again");
    assert_eq!((redis.address(), ask(&redis, &["DBSIZE"]).as_str()), (address, "0"));
    let error = redis.ask(&["NONSENSE"], LONG).expect_err("no command").to_string();
    assert!(error.starts_with("sessions: ERR unknown command"), "{error}");
}

#[test]
fn frozen_it_takes_connections_and_answers_none() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = supervisor(&base);
    let redis = Redis::start(&supervisor, options()).expect("started");
    assert_eq!(redis.freeze().expect("frozen"), 1);
    std::net::TcpStream::connect(redis.address()).expect("the kernel takes it");
    let error = redis.ask(&["PING"], Duration::from_millis(100)).expect_err("no answer");
    assert!(
        matches!(&error, RedisError::Silent { why, .. } if why.kind() == std::io::ErrorKind::WouldBlock),
        "{error}"
    );
    redis.thaw().expect("thawed");
    assert_eq!(redis.ask(&["PING"], LONG).expect("an answer"), "PONG");
}

#[test]
fn what_cannot_start_says_why() {
    let base = tempfile::tempdir().expect("a folder");
    let supervisor = supervisor(&base);
    let missing =
        Redis::start_from(&["/no/such/redis-server"], &supervisor, options()).expect_err("missing").to_string();
    assert!(
        missing.contains("install the package `redis-server`") && missing.contains("--emulate-stores"),
        "{missing}"
    );
    let settings = vec![("no-such-setting".to_owned(), "1".to_owned())];
    let error = Redis::start(&supervisor, Options { settings, ..options() }).expect_err("no server").to_string();
    assert!(error.contains("it ended with exit code 1") && error.contains("no-such-setting"), "{error}");
}
