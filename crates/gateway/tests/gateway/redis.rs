//! Several gateways that share a quota in a real Redis.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::*;

pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        Redis::with(&[])
    }

    /// With further arguments; `PORT` stands for its port.
    fn with(arguments: &[&str]) -> Redis {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let mut all: Vec<String> = ["--save", "", "--bind", "127.0.0.1"].map(str::to_owned).to_vec();
        if !arguments.contains(&"--tls-port") {
            all.extend(["--port".to_owned(), port.clone()]);
        }
        all.extend(arguments.iter().map(|argument| argument.replace("PORT", &port)));
        let mut redis = Redis { address, arguments: all, child: None };
        redis.run();
        redis
    }

    #[track_caller]
    fn run(&mut self) {
        let child =
            Command::new("redis-server").args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("redis-server: install it with ./scripts/packages (Debian's package redis-server)");
        self.child = Some(child);
        eventually("the server answers", || std::net::TcpStream::connect(self.address).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn text(backend: &Backend, redis: SocketAddr, quota: &str) -> String {
    // A busy machine takes its time, and what is counted here are answers.
    let keys = format!(
        "rate_limit: {{ {quota}, per: user, store: counts }}\nheaders: {{ user: X-User }}\ntimeout: 20s\n\
         calls: {{ counts: {{ timeout: 10s }} }}"
    );
    let stores = format!("stores:\n  counts: {{ kind: redis, at: \"{redis}\" }}\n");
    file(&[backend.address], &keys, "") + &stores
}

fn ask(client: &mut Client, user: &str) -> Got {
    client.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"))
}

#[test]
fn two_gateways_admit_one_quota() {
    let mut redis = Redis::start();
    let backend = Backend::ok("ok");
    let text = text(&backend, redis.address, "quota: 60/min, burst: 20");
    let gateways = [start(&text), start(&text)];
    let mut clients = [Client::of(&gateways[0]), Client::of(&gateways[1])];
    let admitted = (0..60).filter(|i| ask(&mut clients[i % 2], "ann").status == 200).count();
    // What comes back while the test runs is one a second.
    assert!((20..=22).contains(&admitted), "{admitted}");
    let refused = ask(&mut clients[0], "ann");
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    assert_eq!(ask(&mut clients[1], "bob").status, 200);
    // With the server gone requests pass; once it is back the quota holds again.
    redis.stop();
    assert!((0..40).all(|i| ask(&mut clients[i % 2], "ann").status == 200));
    redis.run();
    eventually("the quota holds again", || ask(&mut clients[0], "cid").status == 429);
    gateways.into_iter().for_each(|gateway| gateway.stop(true));
}

/// What all keys of an algorithm may hold, however it counts.
const ALGORITHMS: [&str; 3] = ["gcra, burst: 500", "sliding_window", "fixed_window"];

#[test]
fn two_gateways_under_load_admit_one_quota() {
    let redis = Redis::start();
    let backend = Backend::ok("ok");
    for algorithm in ALGORITHMS {
        let text = text(&backend, redis.address, &format!("quota: 500/h, algorithm: {algorithm}"));
        let gateways = [start(&text), start(&text)];
        let hour = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            since.as_secs() / 3_600
        };
        let (started, first) = (std::time::Instant::now(), hour());
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let address = gateways[i % 2].addresses()[0];
                std::thread::spawn(move || {
                    let mut client = Client::new(address);
                    (0..150).filter(|_| ask(&mut client, "ann").status == 200).count()
                })
            })
            .collect();
        let admitted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let comes_back = match algorithm {
            "fixed_window" => 500 * (hour() - first) as usize,
            "sliding_window" => 0,
            _ => (started.elapsed().as_secs() / 7) as usize + 1,
        };
        // Of the 500, 2% may be too many or too few.
        assert!((490..=510 + comes_back).contains(&admitted), "{algorithm}: {admitted}");
        let refused = ask(&mut Client::of(&gateways[0]), "ann");
        let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        let most = if algorithm.starts_with("gcra") { 8 } else { 3_960 };
        assert!(refused.status == 429 && (1..=most).contains(&after), "{algorithm}: {refused:?}");
        assert_eq!(ask(&mut Client::of(&gateways[1]), "bob").status, 200);
        gateways.into_iter().for_each(|gateway| gateway.stop(true));
    }
}

#[test]
fn windows_open_again() {
    let redis = Redis::start();
    let backend = Backend::ok("ok");
    for algorithm in ["sliding_window", "fixed_window"] {
        let gateway = start(&text(&backend, redis.address, &format!("quota: 3/s, algorithm: {algorithm}")));
        let mut client = Client::of(&gateway);
        let started = std::time::Instant::now();
        let mut admitted = 0;
        while started.elapsed() < std::time::Duration::from_secs(3) {
            admitted += usize::from(ask(&mut client, "ann").status == 200);
            pause(10);
        }
        // In three seconds and a bit: the quota of each second that has begun, and not that of one alone.
        let most = 3 * (started.elapsed().as_secs() as usize + 2);
        assert!((6..=most).contains(&admitted), "{algorithm}: {admitted}");
        gateway.stop(true);
    }
}

/// Keys are gone once they say nothing any more, and those of two algorithms never meet.
#[test]
fn a_reload_may_count_in_another_way() {
    let redis = Redis::start();
    let backend = Backend::ok("ok");
    let quota = |algorithm: &str| text(&backend, redis.address, &format!("quota: 2/h, algorithm: {algorithm}"));
    let gateway = start(&quota("gcra, burst: 2"));
    let mut client = Client::of(&gateway);
    let mut statuses = || [0; 3].map(|_| ask(&mut client, "ann").status);
    assert_eq!(statuses(), [200, 200, 429]);
    for algorithm in ["sliding_window", "fixed_window"] {
        gateway.reload(plan(&quota(algorithm))).unwrap();
        assert_eq!(statuses(), [200, 200, 429], "{algorithm}");
    }
    gateway.reload(plan(&quota("gcra, burst: 2"))).unwrap();
    assert_eq!(statuses(), [429, 429, 429]);
    gateway.stop(true);
}

/// A file with a quota of two, and a Redis of which more is said than where it is.
fn locked(backend: &Backend, at: &str, more: &str) -> String {
    let text = text(backend, nobody(), "quota: 2/h, burst: 2, store_down: closed");
    let at_nobody = text.lines().find(|line| line.contains("kind: redis")).unwrap().to_owned();
    text.replace(&at_nobody, &format!("  counts: {{ kind: redis, at: \"{at}\", {more} }}"))
}

fn statuses(gateway: &plimsoll_gateway::Gateway) -> [u16; 3] {
    let mut client = Client::of(gateway);
    [0; 3].map(|_| ask(&mut client, "ann").status)
}

fn folder_with_password(password: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), password).unwrap();
    folder
}

#[test]
fn passwords_users_and_databases() {
    let backend = Backend::ok("ok");
    let redis = Redis::with(&["--requirepass", "s3cret word", "--user", "bob", "on", ">bobs", "~plimsoll*", "+@all"]);
    let at = redis.address.to_string();
    for (password, more) in [
        ("s3cret word\n", "password_file: password"),
        ("bobs", "password_file: password, user: bob"),
        // Another database has other counts.
        ("s3cret word\r\nand a remark", "password_file: password, database: 3"),
    ] {
        let folder = folder_with_password(password);
        let gateway = plimsoll_gateway::Gateway::start(plan(&locked(&backend, &at, more)), folder.path()).unwrap();
        let expected = if more.contains("user") { [429, 429, 429] } else { [200, 200, 429] };
        assert_eq!(statuses(&gateway), expected, "{more}");
        gateway.stop(true);
    }
    for (password, more, said) in [
        ("wrong", "password_file: password", "does not take the password: WRONGPASS"),
        ("bobs", "password_file: password, user: eve", "does not take the password: WRONGPASS"),
        ("s3cret word", "password_file: password, database: 99", "does not have the database: ERR DB index"),
        ("", "", "does not take the quota's script: NOAUTH"),
    ] {
        let folder = folder_with_password(password);
        let gateway = plimsoll_gateway::Gateway::start(plan(&locked(&backend, &at, more)), folder.path()).unwrap();
        let mut notices = Vec::new();
        eventually("it is said why", || {
            assert_eq!(statuses(&gateway), [429; 3], "{more}");
            notices.extend(gateway.notices());
            notices.iter().any(|notice| notice.contains(said) && notice.starts_with(&at))
        });
        // Once, however often it is tried.
        pause(300);
        statuses(&gateway);
        notices.extend(gateway.notices());
        assert_eq!(notices.iter().filter(|notice| notice.contains(said)).count(), 1, "{notices:?}");
        gateway.stop(true);
    }
    let folder = folder_with_password("\nsecond line");
    let text = locked(&backend, &at, "password_file: password");
    let error = plimsoll_gateway::Gateway::start(plan(&text), folder.path()).unwrap_err().to_string();
    assert!(
        error.starts_with("redis: ") && error.ends_with("its first line is the password, and it is empty"),
        "{error}"
    );
    let text = locked(&backend, &at, "password_file: nowhere");
    let error = plimsoll_gateway::Gateway::start(plan(&text), folder.path()).unwrap_err().to_string();
    assert!(error.contains("nowhere: No such file"), "{error}");
}

#[test]
fn a_redis_behind_tls() {
    let backend = Backend::ok("ok");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/data");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (pem, key) = (file("test.pem"), file("test.key"));
    let shown = ["--tls-port", "PORT", "--port", "0", "--tls-cert-file", &pem, "--tls-key-file", &key];
    let trusting = [&shown[..], &["--tls-ca-cert-file", &pem, "--tls-auth-clients", "no"]].concat();
    let asking = [&shown[..], &["--tls-ca-cert-file", &pem, "--tls-auth-clients", "yes"]].concat();
    let (trusting, asking) = (Redis::with(&trusting), Redis::with(&asking));
    let localhost = format!("localhost:{}", trusting.address.port());
    let start =
        |at: &str, more: &str| plimsoll_gateway::Gateway::start(plan(&locked(&backend, at, more)), &folder).unwrap();
    for (at, more) in [
        (&localhost, "tls: { ca: test.pem }"),
        (&asking.address.to_string(), "tls: { ca: test.pem, certificate: test.pem, key: test.key }"),
    ] {
        let gateway = start(at, more);
        assert_eq!(statuses(&gateway), [200, 200, 429], "{more}");
        gateway.stop(true);
    }
    for (at, more, said) in [
        (&asking.address, "tls: { ca: test.pem }", ""),
        (&trusting.address, "tls: { ca: test.pem, name: elsewhere }", "cannot be trusted: invalid peer certificate"),
        (&trusting.address, "database: 0", ""),
    ] {
        let gateway = start(&at.to_string(), more);
        eventually("it is said why", || {
            assert_eq!(statuses(&gateway), [429; 3], "{more}");
            gateway.notices().iter().any(|notice| notice.contains(said) && notice.starts_with(&at.to_string()))
        });
        gateway.stop(true);
    }
    let text = locked(&backend, &localhost, "tls: { ca: test.key }");
    let error = plimsoll_gateway::Gateway::start(plan(&text), &folder).unwrap_err().to_string();
    assert_eq!(error, "redis: test.key: there is no certificate in it");
}

#[test]
fn a_quota_without_its_store_fails_as_the_file_says() {
    let backend = Backend::ok("ok");
    for algorithm in ["gcra", "sliding_window", "fixed_window"] {
        for (down, status) in [("open", 200), ("closed", 429)] {
            let quota = format!("quota: 1/min, algorithm: {algorithm}, store_down: {down}");
            let gateway = start(&text(&backend, nobody(), &quota));
            let mut client = Client::of(&gateway);
            for _ in 0..5 {
                assert_eq!(ask(&mut client, "ann").status, status, "{quota}");
            }
            gateway.stop(true);
        }
    }
}

#[test]
fn a_store_that_is_silent_is_down() {
    let backend = Backend::ok("ok");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = text(&backend, silent.local_addr().unwrap(), "quota: 1/min");
    let calls = text.lines().find(|line| line.trim().starts_with("calls:")).unwrap().to_owned();
    let gateway = start(&text.replace(&calls, ""));
    let mut client = Client::of(&gateway);
    let started = std::time::Instant::now();
    assert_eq!(ask(&mut client, "ann").status, 200);
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
    gateway.stop(true);
}
