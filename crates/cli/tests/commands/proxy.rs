#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::Folder;

/// What the API answers.
fn ask(api: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(api).expect("the API listens");
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn it_serves_the_proxies_of_a_file_until_it_is_told_to_stop() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let upstream = server.local_addr().expect("an address");
    let folder = Folder::new();
    folder.write("proxies.json", format!("[{{ \"name\": \"db\", \"upstream\": \"{upstream}\" }}]"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["proxy", "--listen", "127.0.0.1:0", "--config", "proxies.json", "--seed", "7"])
        .current_dir(folder.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("standard error")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let first = line();
    let (listens, leads) =
        first.strip_prefix("db on ").and_then(|rest| rest.split_once(" leads to ")).expect("a proxy");
    assert_eq!(leads, upstream.to_string());
    let second = line();
    let (api, seed) = second
        .strip_prefix("proxies are controlled on ")
        .and_then(|rest| rest.split_once(", with seed "))
        .expect("the API");
    assert_eq!(seed, "7");
    let client = TcpStream::connect(listens).expect("the proxy listens");
    server.accept().expect("and connects");
    let added = ask(api, "POST /proxies/db/toxics", "{ \"type\": \"latency\", \"attributes\": { \"latency\": 5 } }");
    assert!(added.starts_with("HTTP/1.1 200 ") && added.contains("\"latency_downstream\""), "{added}");
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
    assert!(child.wait().expect("it ends").success());
    drop(client);
    assert!(TcpStream::connect(listens).is_err());
}

#[test]
fn what_cannot_be_served_is_refused() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    folder.write("no.json", "[{ \"name\": \"db\"");
    folder.write("object.json", "{}");
    folder.write("field.json", "[{ \"name\": \"db\", \"upstream\": \"127.0.0.1:1\", \"lissen\": \"127.0.0.1:0\" }]");
    folder.write(
        "taken.json",
        format!("[{{ \"name\": \"db\", \"upstream\": \"127.0.0.1:1\", \"listen\": \"{address}\" }}]"),
    );
    for (config, why) in [
        ("missing.json", "missing.json: cannot be read"),
        ("no.json", "no.json: bad request body: EOF"),
        ("object.json", "object.json: bad request body: expected a list of proxies"),
        (
            "field.json",
            "unknown field `lissen` of a proxy: expected name, listen, upstream, enabled, toxics at proxy 1",
        ),
        ("taken.json", &format!("taken.json: cannot listen on {address}: ")),
    ] {
        folder.run(["proxy", "--listen", "127.0.0.1:0", "--config", config]).refused(why);
    }
    folder.run(["proxy", "--listen", &address]).refused(&format!("cannot listen on {address}"));
    let ended = folder.run(["proxy", "--listen", "nowhere"]).with(2);
    assert!(ended.err.contains("invalid value 'nowhere' for '--listen <ADDRESS>'"), "{}", ended.err);
}
