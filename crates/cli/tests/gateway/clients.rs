//! Clients that others have written: each has its own idea of HTTP.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::process::*;
use crate::support::*;

/// Echoes bodies, says what was asked otherwise, and has something large.
fn backend() -> Backend {
    let large = ok(&"x".repeat(10_000_000));
    Backend::new(move |received| {
        let mut words = received.head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        match (method, path) {
            ("GET", "/items/hints") => {
                let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
                Does::Answer([&hints[..], &ok("hinted")].concat())
            }
            ("GET", "/large") => Does::Answer(large.clone()),
            ("HEAD", _) => Does::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()),
            ("GET", _) => Does::Answer(ok(&format!("{method} {path}"))),
            _ => {
                let body = content(received);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                Does::Answer([head.as_bytes(), &body].concat())
            }
        }
    })
}

/// A body without its framing.
fn content(received: &Received) -> Vec<u8> {
    if received.field("transfer-encoding").is_none() {
        return received.body.clone();
    }
    let (mut rest, mut content) = (&received.body[..], Vec::new());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("digits"), 16).expect("a size");
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

const ENDPOINTS: &str =
    "endpoints: { GET /items/:id: [], PUT /items/:id: [], POST /items: [], GET /large: [], GET /ws: [] }";

fn running(backend: std::net::SocketAddr, keys: &str) -> Running {
    let text = file(&[backend], &format!("limits: {{ body: 16MiB }}\n{keys}"), ENDPOINTS);
    Running::start(&text.replace("edge GET /", "edge GET /large"))
}

const TLS: &str = "tls: { certificate: test.pem, key: test.key }";

/// What a program of another's says.
#[track_caller]
fn run(command: &mut Command, install: &str) -> String {
    let output = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}: install {install} with ./scripts/packages"));
    let (out, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{errors}");
    out.into_owned()
}

/// Where scripts/packages puts what Python and Node need: a folder in the target directory.
fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(what);
    assert!(path.exists(), "{} is not there: ./scripts/packages puts it there", path.display());
    path
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/clients").join(name)
}

/// curl's answers, as `VERSION STATUS LENGTH` a line. `many`: it asks for a hundred more on as few connections as it can.
fn curl(arguments: &[&str], many: bool, url: &str, running: &Running) -> Vec<String> {
    let folder = running.path("");
    let certificate = running.path("test.pem");
    std::fs::write(running.path("body"), "0123456789".repeat(100_000)).expect("a file");
    let ask = |more: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.current_dir(&folder).args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--cacert",
        ]);
        command.arg(&certificate).args(arguments).args(more);
        command.args(["--output", "got", "--write-out", "%{http_version} %{http_code} %{size_download}"]);
        let line = run(command.arg(format!("{url}{path}")), "curl");
        (line, std::fs::read(running.path("got")).unwrap_or_default())
    };
    let (line, got) = ask(&[], "/items/7");
    assert_eq!(String::from_utf8_lossy(&got), "GET /items/7");
    let mut lines = vec![line];
    lines.push(ask(&[], "/large").0);
    let (line, got) = ask(&["--data-binary", "@body", "--header", "Expect: 100-continue"], "/items");
    assert_eq!(got, std::fs::read(running.path("body")).expect("the file"));
    lines.push(line);
    // With chunks, or streamed.
    lines.push(ask(&["--upload-file", "body", "--header", "Transfer-Encoding: chunked"], "/items/1").0);
    lines.push(ask(&["--head"], "/items/1").0);
    lines.push(ask(&[], "/nowhere").0);
    let (_, got) = ask(&["--include"], "/items/hints");
    let got = String::from_utf8_lossy(&got).to_ascii_lowercase();
    let heads: Vec<&str> = got.split("\r\n\r\n").collect();
    assert!(heads[0].contains(" 103") && heads[0].contains("\r\nlink: </a.css>; rel=preload"), "{got}");
    assert!(heads[1].contains(" 200") && heads[2] == "hinted", "{got}");
    if many {
        let all = ask(&["--parallel", "--parallel-max", "50"], "/items/[1-100]").0;
        let each = all.matches(&lines[0][..lines[0].rfind(' ').unwrap()]).count();
        assert_eq!(each, 100, "{all}");
    }
    lines
}

/// What curl should have got with a version.
fn expected(version: &str) -> Vec<String> {
    [(200, 12), (200, 10_000_000), (200, 1_000_000), (200, 1_000_000), (200, 0), (404, 10)]
        .map(|(status, length)| format!("{version} {status} {length}"))
        .into()
}

#[test]
fn curl_with_each_version() {
    let backend = backend();
    let plain = running(backend.address, "");
    let url = format!("http://{}", plain.address);
    assert_eq!(curl(&["--http1.1"], true, &url, &plain), expected("1.1"));
    // curl 7.88 fails when it uses a connection without TLS for a second stream, with nginx too.
    assert_eq!(curl(&["--http2-prior-knowledge"], false, &url, &plain), expected("2"));
    // An offer to change to HTTP/2 later may be passed over (RFC 9113 has done away with it).
    assert_eq!(curl(&["--http2"], true, &url, &plain)[0], "1.1 200 12");
    let tls = running(backend.address, TLS);
    let url = format!("https://localhost:{}", tls.address.port());
    assert_eq!(curl(&["--http2"], true, &url, &tls), expected("2"));
    assert_eq!(curl(&["--http1.1"], true, &url, &tls), expected("1.1"));
}

#[test]
fn h2load_loses_no_request() {
    let backend = backend();
    for (keys, scheme) in [("", "http"), (TLS, "https")] {
        let running = running(backend.address, keys);
        let url = format!("{scheme}://localhost:{}/items/1", running.address.port());
        let mut command = Command::new("h2load");
        command.args(["--requests", "3000", "--clients", "10", "--max-concurrent-streams", "20"]);
        let said = run(command.arg(&url), "nghttp2-client");
        let line = "requests: 3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(line) && said.contains("status codes: 3000 2xx"), "{said}");
    }
}

#[test]
fn httpx_with_http2() {
    let backend = backend();
    let running = running(backend.address, TLS);
    let url = format!("https://localhost:{}", running.address.port());
    let mut command = Command::new(installed("python/bin/python"));
    command.env_remove("PYTHONPATH").arg(script("httpx_client.py")).arg(url).arg(running.path("test.pem"));
    assert_eq!(run(&mut command, "httpx"), "ok\n");
}

#[test]
fn node_with_http2() {
    let backend = backend();
    let plain = running(backend.address, "");
    let mut command = Command::new("node");
    command.arg(script("node_client.js")).arg(format!("http://{}", plain.address));
    assert_eq!(run(&mut command, "nodejs"), "ok\n");
    let tls = running(backend.address, TLS);
    let mut command = Command::new("node");
    command.arg(script("node_client.js")).arg(format!("https://localhost:{}", tls.address.port()));
    assert_eq!(run(command.arg(tls.path("test.pem")), "nodejs"), "ok\n");
}

/// A process that ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn websockets_of_the_package_ws() {
    let modules = installed("node/node_modules");
    let node = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &modules).arg(script("websocket.js"));
        command
    };
    let server = node().stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut server = Served(server.expect("node: install it with ./scripts/packages (Debian's package nodejs)"));
    let mut line = String::new();
    let output = server.0.stdout.take().expect("standard output");
    BufReader::new(output).read_line(&mut line).expect("its port");
    let address = ([127, 0, 0, 1], line.trim().parse().expect("a port")).into();
    let plain = running(address, "");
    assert_eq!(run(node().arg(format!("ws://{}/ws", plain.address)), "ws"), "ok\n");
    let tls = running(address, TLS);
    let url = format!("wss://localhost:{}/ws", tls.address.port());
    assert_eq!(run(node().arg(url).arg(tls.path("test.pem")), "ws"), "ok\n");
}
