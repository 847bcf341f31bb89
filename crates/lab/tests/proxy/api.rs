use std::io::{Read, Write};

use http::Method;
use plimsoll_lab::proxy::{Proxies, answer};
use serde_json::{Value, json};

use plimsoll_model::draw::{Draw, scale};

use crate::{connect, echo, proxies, round_trip};

#[track_caller]
fn ask(proxies: &Proxies, request: &str, body: Value, status: u16) -> Value {
    let (method, path) = request.split_once(' ').expect("a method");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (found, answer) = answer(proxies.set(), &method.parse::<Method>().expect("a method"), path, body.as_bytes());
    assert_eq!(found, status, "{request} {body}: {answer:?}");
    answer.unwrap_or_default()
}

#[test]
fn proxies_are_created_shown_changed_and_deleted() {
    let proxies = proxies();
    let server = echo().to_string();
    let none = Value::Null;
    assert_eq!(ask(&proxies, "GET /proxies", none.clone(), 200), json!({}));
    let created =
        ask(&proxies, "POST /proxies", json!({ "name": "db", "listen": "localhost:0", "upstream": server }), 201);
    let listen = created["listen"].as_str().expect("an address").to_owned();
    assert!(listen.starts_with("127.0.0.1:") && !listen.ends_with(":0"), "{listen}");
    assert_eq!(created, json!({ "name": "db", "listen": listen, "upstream": server, "enabled": true, "toxics": [] }));
    assert_eq!(ask(&proxies, "GET /proxies/db", none.clone(), 200), created);
    assert_eq!(ask(&proxies, "GET /proxies", none.clone(), 200), json!({ "db": created }));
    let again = ask(&proxies, "POST /proxies", json!({ "name": "db", "upstream": server }), 409);
    assert_eq!(again, json!({ "error": "proxy already exists", "status": 409 }));
    for method in ["POST", "PATCH"] {
        let down = ask(&proxies, &format!("{method} /proxies/db"), json!({ "enabled": false }), 200);
        assert_eq!((&down["enabled"], &down["listen"]), (&json!(false), &json!(listen)));
        // Clients send all that they know.
        let up = ask(&proxies, &format!("{method} /proxies/db"), json!(created), 200);
        assert_eq!(up, created);
    }
    let other = echo().to_string();
    let moved = ask(&proxies, "PATCH /proxies/db", json!({ "upstream": other }), 200);
    assert_eq!((&moved["upstream"], &moved["listen"]), (&json!(other), &json!(listen)));
    round_trip(&mut connect(listen.parse().expect("an address")), "moved").expect("an echo");
    ask(&proxies, "DELETE /proxies/db", none.clone(), 204);
    let gone = json!({ "error": "proxy not found", "status": 404 });
    assert_eq!(ask(&proxies, "GET /proxies/db", none.clone(), 404), gone);
    assert_eq!(ask(&proxies, "DELETE /proxies/db", none, 404), gone);
}

#[test]
fn toxics_are_added_shown_changed_and_removed() {
    let proxies = proxies();
    ask(&proxies, "POST /proxies", json!({ "name": "db", "upstream": echo().to_string() }), 201);
    let none = Value::Null;
    let added =
        ask(&proxies, "POST /proxies/db/toxics", json!({ "type": "latency", "attributes": { "latency": 5 } }), 200);
    let expected = json!({
        "name": "latency_downstream", "type": "latency", "stream": "downstream", "toxicity": 1,
        "attributes": { "latency": 5, "jitter": 0 }
    });
    assert_eq!(added, expected);
    let path = "/proxies/db/toxics/latency_downstream";
    assert_eq!(ask(&proxies, &format!("GET {path}"), none.clone(), 200), expected);
    assert_eq!(ask(&proxies, "GET /proxies/db/toxics", none.clone(), 200), json!([expected]));
    assert_eq!(ask(&proxies, "GET /proxies/db", none.clone(), 200)["toxics"], json!([expected]));
    let twice = ask(&proxies, "POST /proxies/db/toxics", json!({ "type": "latency" }), 409);
    assert_eq!(twice["error"], "toxic already exists");
    for method in ["POST", "PATCH"] {
        let change = json!({ "attributes": { "jitter": 2 }, "toxicity": 0.25 });
        let changed = ask(&proxies, &format!("{method} {path}"), change, 200);
        assert_eq!(
            (&changed["attributes"], &changed["toxicity"]),
            (&json!({ "latency": 5, "jitter": 2 }), &json!(0.25))
        );
    }
    let up = json!({ "name": "slow", "type": "bandwidth", "stream": "upstream", "attributes": { "rate": 10.5 } });
    assert_eq!(ask(&proxies, "POST /proxies/db/toxics", up, 200)["attributes"], json!({ "rate": 10.5 }));
    ask(&proxies, &format!("DELETE {path}"), none.clone(), 204);
    assert_eq!(ask(&proxies, &format!("GET {path}"), none.clone(), 404)["error"], "toxic not found");
    ask(&proxies, "PATCH /proxies/db", json!({ "enabled": false }), 200);
    ask(&proxies, "POST /reset", none.clone(), 204);
    let shown = ask(&proxies, "GET /proxies/db", none, 200);
    assert_eq!((&shown["toxics"], &shown["enabled"]), (&json!([]), &json!(true)));
}

#[test]
fn a_list_of_proxies_can_be_asked_for_again_and_again() {
    let proxies = proxies();
    let [one, two] = [echo(), echo()].map(|address| address.to_string());
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let list = json!([
        { "name": "one", "upstream": one, "listen": port },
        { "name": "two", "upstream": two, "enabled": false },
    ]);
    let done = ask(&proxies, "POST /populate", list.clone(), 201);
    assert_eq!(done["proxies"][0]["listen"], json!(port));
    assert_eq!(done["proxies"][1]["enabled"], json!(false));
    let mut stream = connect(port.parse().expect("an address"));
    round_trip(&mut stream, "one").expect("an echo");
    ask(&proxies, "POST /populate", list, 201);
    round_trip(&mut stream, "untouched").expect("an echo");
    let elsewhere = json!([{ "name": "one", "upstream": two, "listen": port }]);
    ask(&proxies, "POST /populate", elsewhere, 201);
    assert!(round_trip(&mut stream, "replaced").is_err());
    round_trip(&mut connect(port.parse().expect("an address")), "two").expect("an echo");
    // Those before the one that cannot be had are there, and told.
    let list = json!([{ "name": "three", "upstream": one }, { "name": "four", "upstream": one, "listen": port }]);
    let failed = ask(&proxies, "POST /populate", list, 500);
    assert_eq!(failed["proxies"].as_array().map(Vec::len), Some(1));
    assert!(
        failed["error"].as_str().is_some_and(|why| why.starts_with(&format!("cannot listen on {port}: "))),
        "{failed}"
    );
    // None, where one of them makes no sense.
    let list = json!([{ "name": "five", "upstream": one }, { "name": "six" }]);
    let refused = ask(&proxies, "POST /populate", list, 400);
    assert_eq!(
        refused,
        json!({ "error": "missing required field: upstream at proxy 2", "status": 400, "proxies": [] })
    );
    ask(&proxies, "GET /proxies/five", Value::Null, 404);
}

#[test]
fn a_proxy_and_its_toxics_are_created_as_one() {
    let proxies = proxies();
    let server = echo().to_string();
    let toxics =
        json!([{ "type": "timeout" }, { "type": "latency", "stream": "upstream", "attributes": { "latency": 1 } }]);
    let new = json!({ "name": "db", "upstream": server, "toxics": toxics });
    let created = ask(&proxies, "POST /proxies", new, 201);
    assert_eq!(created["toxics"][0]["name"], "timeout_downstream");
    assert_eq!(created["toxics"][1]["name"], "latency_upstream");
    for (toxics, status) in [
        (json!([{ "type": "latency" }, { "type": "latency" }]), 409),
        (json!([{ "type": "latency" }, { "type": "late" }]), 400),
        (json!({}), 400),
    ] {
        ask(&proxies, "POST /proxies", json!({ "name": "other", "upstream": server, "toxics": toxics }), status);
        ask(&proxies, "GET /proxies/other", Value::Null, 404);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let proxies = proxies();
    let server = echo().to_string();
    ask(&proxies, "POST /proxies", json!({ "name": "db", "upstream": server }), 201);
    for (request, body, status, why) in [
        ("POST /proxies", json!({ "upstream": server }), 400, "missing required field: name"),
        ("POST /proxies", json!({ "name": "a", "upstream": "db" }), 400, "upstream: expected HOST:PORT, found db"),
        (
            "POST /proxies",
            json!({ "name": "a", "upstream": server, "enable": true }),
            400,
            "unknown field `enable` of a proxy",
        ),
        ("POST /proxies", json!([1]), 400, "expected a proxy as an object"),
        ("POST /proxies", json!({ "name": "a", "upstream": 5 }), 400, "upstream: expected text, found 5"),
        ("POST /proxies", json!({ "name": "a/b", "upstream": server }), 400, "name: expected one without `/`"),
        ("POST /populate", json!({}), 400, "expected a list of proxies"),
        ("PATCH /proxies/db", json!({ "name": "other" }), 400, "a proxy's name cannot be changed"),
        (
            "PATCH /proxies/db",
            json!({ "toxics": [{ "type": "latency" }] }),
            400,
            "toxics are changed at /proxies/db/toxics",
        ),
        (
            "POST /proxies/db/toxics",
            json!({ "type": "slow" }),
            400,
            "invalid toxic type `slow`: expected one of latency, ",
        ),
        ("POST /proxies/db/toxics", json!({ "type": "latency", "stream": "up" }), 400, "either upstream or downstream"),
        (
            "POST /proxies/db/toxics",
            json!({ "type": "latency", "toxicity": 2 }),
            400,
            "toxicity: expected a number from 0 to 1",
        ),
        (
            "POST /proxies/db/toxics",
            json!({ "type": "latency", "attributes": { "delay": 1 } }),
            400,
            "unknown attribute `delay`",
        ),
        ("POST /proxies/no/toxics", json!({ "type": "latency" }), 404, "proxy not found"),
        ("PATCH /proxies/db/toxics/no", json!({}), 404, "toxic not found"),
        ("DELETE /proxies", Value::Null, 405, "/proxies does not take DELETE"),
        ("GET /toxics", Value::Null, 404, "nothing is at /toxics"),
    ] {
        let answer = ask(&proxies, request, body, status);
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(why)), "{request}: {answer}, not {why}");
        assert_eq!(answer["status"], status);
    }
    let (status, answer) = answer(proxies.set(), &Method::POST, "/proxies", b"{\"name\": ");
    assert_eq!(status, 400);
    assert!(
        answer.is_some_and(|answer| answer["error"].as_str().unwrap_or_default().starts_with("bad request body: "))
    );
}

#[test]
fn it_is_spoken_over_http() {
    let proxies = proxies();
    let mut stream = connect(proxies.api().expect("an API"));
    let mut ask = |head: &str, body: &str| {
        write!(stream, "{head} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("sent");
        let mut answer = String::new();
        while !answer.contains("\r\n\r\n") || answer.contains("200") && !answer.ends_with("}\n") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).expect("an answer");
            assert!(count > 0, "{answer}");
            answer += std::str::from_utf8(&bytes[..count]).expect("text");
        }
        answer
    };
    let version = ask("GET /version", "");
    assert!(version.starts_with("HTTP/1.1 200 OK\r\n") && version.contains("application/json"), "{version}");
    assert!(version.ends_with("{\"version\":\"2.12.0\"}\n"), "{version}");
    assert!(ask("POST /reset", "").starts_with("HTTP/1.1 204 "));
    let browser = ask("GET /proxies HTTP/1.1\r\nuser-agent: Mozilla/5.0\r\nx: y\r\nz:", "");
    assert!(browser.starts_with("HTTP/1.1 403 "), "{browser}");
}

/// What makes another value of JSON, or none.
const BYTES: &[u8] = b"0123456789-.eE\"{}[],: \xff";

/// What `fuzz/fuzz_targets/proxy_api.rs` does for longer: bodies with some bytes changed are done or refused with a
/// reason, and what is done shows as what can be asked for again.
#[test]
fn mutated_requests_are_done_or_refused() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let proxies = proxies();
    ask(&proxies, "POST /proxies", json!({ "name": "p", "upstream": "127.0.0.1:9", "enabled": false }), 201);
    let bodies = [
        json!({ "type": "latency", "stream": "upstream", "toxicity": 0.5, "attributes": { "latency": 100, "jitter": 5 } }),
        json!({ "name": "x", "type": "slicer", "attributes": { "average_size": 10, "size_variation": 3, "delay": 1 } }),
        json!({ "type": "loss", "attributes": { "probability": 0.1, "rto": 200, "reset": 0.01 } }),
        json!({ "type": "partition" }),
    ];
    let (mut done, mut refused) = (0, 0);
    for round in 0..5_000 {
        let draw = Draw::root(seed, round);
        let pick = |purpose: u64, count: usize| scale(draw.bits(purpose), count as u32) as usize;
        let mut body = bodies[pick(0, bodies.len())].to_string().into_bytes();
        for change in 0..=pick(1, 3) as u64 {
            if body.is_empty() {
                break;
            }
            let at = pick(10 * change + 2, body.len());
            match pick(10 * change + 3, 12) {
                0 => drop(body.remove(at)),
                1 => body.insert(at, BYTES[pick(10 * change + 4, BYTES.len())]),
                2 => body[at] = draw.bits(10 * change + 5) as u8,
                3 => body.truncate(at),
                // Another number, which may be one too large.
                _ if body[at].is_ascii_digit() => body[at] = b'0' + pick(10 * change + 6, 10) as u8,
                _ => {}
            }
        }
        let (status, said) = answer(proxies.set(), &Method::POST, "/proxies/p/toxics", &body);
        let said = said.expect("an answer");
        if status != 200 {
            assert!(status == 400 && said["error"].is_string(), "{status} {said}");
            refused += 1;
            continue;
        }
        let name = said["name"].as_str().expect("a name");
        let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/proxies/p/toxics/{escaped}");
        let same = answer(proxies.set(), &Method::PATCH, &path, said.to_string().as_bytes());
        assert_eq!(same, (200, Some(said)));
        assert_eq!(answer(proxies.set(), &Method::DELETE, &path, b""), (204, None));
        done += 1;
    }
    assert!(done > 50 && refused > 50, "{done} done, {refused} refused");
}
