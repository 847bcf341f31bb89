//! What operators see.

use std::collections::BTreeMap;

use serde_json::Value;

use super::world::{until, with};

#[test]
fn logs_are_json_with_the_request_and_the_instance() {
    with(0, |world| {
        let notes = world.start(&["--log", "info"]);
        let made = notes.ask("POST", "/notes", &[("x-request-id", "abc-123")], "").expect(201);
        assert_eq!(made.header("x-request-id"), "abc-123");
        // What would break a line or a log is replaced.
        let replaced = notes.ask("GET", "/notes", &[("x-request-id", "a b\"c")], "").expect(200);
        assert_eq!(replaced.header("x-request-id").len(), 32);
        let log = || std::fs::read_to_string(notes.process.log()).expect("a log");
        until("the requests are logged", || {
            log().contains("abc-123") && log().contains(replaced.header("x-request-id"))
        });
        let mut requests = 0;
        // Before its own lines stand those of the test harness, which has become it.
        for line in log().lines().skip_while(|line| !line.starts_with('{')) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(line["instance"], "1", "{line}");
            assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
            if line["request_id"] == "abc-123" && line["message"] == "request" {
                let said = (&line["method"], &line["route"], &line["status"]);
                assert_eq!(said, (&"POST".into(), &"/notes".into(), &201.into()));
                assert!(line["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
                requests += 1;
            }
        }
        assert_eq!(requests, 1);
    });
}

#[test]
fn metrics_are_what_prometheus_reads() {
    with(1, |world| {
        let notes = world.start(&[]);
        let id = notes.note("a", &[]).id();
        notes.get(&format!("/notes/{id}")).expect(200);
        notes.get("/notes/999999").expect(404);
        let answer = notes.get("/metrics").expect(200);
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
        let series = parse(&answer.body);
        let node = world.cluster.address(0).to_string();
        for (name, value) in [
            ("notes_requests_total{method=\"POST\",route=\"/notes\",status=\"201\"}".to_owned(), 1.0),
            ("notes_requests_total{method=\"GET\",route=\"/notes/{id}\",status=\"404\"}".to_owned(), 1.0),
            ("notes_request_duration_seconds_count{method=\"GET\",route=\"/notes/{id}\"}".to_owned(), 2.0),
            (format!("notes_db_primary{{node=\"{node}\"}}"), 1.0),
            (format!("notes_db_up{{node=\"{node}\"}}"), 1.0),
            (format!("notes_db_lag_seconds{{node=\"{node}\"}}"), 0.0),
            (format!("notes_breaker_state{{target=\"write {node}\"}}"), 0.0),
            ("notes_breaker_state{target=\"sessions\"}".to_owned(), 0.0),
            ("notes_cache_total{result=\"hit\"}".to_owned(), 1.0),
            ("notes_requests_in_flight".to_owned(), 1.0),
        ] {
            assert_eq!(series.get(&name), Some(&value), "{name}\n{}", answer.body);
        }
        assert!(series[&format!("notes_db_pool{{node=\"{node}\",state=\"open\"}}")] >= 1.0);
    });
}

/// The text format of Prometheus, strictly: each family has its help and its type before its samples, every sample is a
/// number, none is there twice, and buckets only grow.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut series, mut family, mut kind) = (BTreeMap::new(), String::new(), String::new());
    let mut bucket = (String::new(), 0.0);
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().expect("a name").to_owned();
            kind.clear();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("a type");
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            kind = of.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let (base, labels) = name.split_once('{').unwrap_or((name, "}"));
            assert!(labels.ends_with('}') && base.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
            let part = base.strip_prefix(&family).unwrap_or_else(|| panic!("not of {family}: {line}"));
            match kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}"),
                _ => assert_eq!(part, "", "{line}"),
            }
            if part == "_bucket" {
                let of = labels.split("le=").next().expect("labels").to_owned();
                assert!(bucket.0 != of || bucket.1 <= value, "{line}");
                bucket = (of, value);
            }
            assert!(series.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    series
}

#[test]
fn the_document_is_served_and_says_what_a_note_has() {
    with(0, |world| {
        let notes = world.start(&[]);
        let document = notes.get("/openapi.json").expect(200).json();
        assert_eq!(document["openapi"], "3.1.0");
        let note = notes.note("a", &[]).json();
        let fields: Vec<&String> = note.as_object().expect("a note").keys().collect();
        let schema = &document["components"]["schemas"]["Note"];
        let documented: Vec<&String> = schema["properties"].as_object().expect("properties").keys().collect();
        assert_eq!(fields, documented);
        assert_eq!(schema["required"].as_array().map(Vec::len), Some(fields.len()));
    });
}

#[test]
fn wrong_arguments_end_it_with_code_2() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_notes"));
        let command = command.args(arguments).env_remove("PLIMSOLL_DB").env_remove("PLIMSOLL_SESSIONS");
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, said) in [
        (&["--sessions", "127.0.0.1:1"][..], "--db is missing, and so is PLIMSOLL_DB"),
        (&["--db", "127.0.0.1:1"], "--sessions is missing"),
        (&["--db", "nowhere"], "`nowhere` is no HOST:PORT"),
        (&["--db", "127.0.0.1:1", "--sessions", "127.0.0.1:1", "--workers", "0"], "--workers"),
        (&["--no-such-option"], "--no-such-option"),
    ] {
        let (code, words) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {words}");
        assert!(words.contains(said), "{arguments:?}: {words}");
    }
}
