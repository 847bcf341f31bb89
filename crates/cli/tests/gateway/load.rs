//! Signals under load: no request is lost.

use std::time::Duration;

use crate::http2::Streams;
use crate::process::*;
use crate::support::*;

/// Takes a moment, so that requests are under way whenever a signal comes.
fn backend() -> Backend {
    Backend::new(|_| {
        pause(20);
        Does::Answer(ok("ok"))
    })
}

/// A gateway under load from clients of both protocols.
fn loaded(text: &str) -> (Running, Load, Streams) {
    let running = Running::start(text);
    let load = Load::start(running.address, 8);
    let streams = Streams::start(running.address, 4);
    more(&load, &streams);
    (running, load, streams)
}

/// Waits until clients of both protocols have had more answers.
fn more(load: &Load, streams: &Streams) {
    use std::sync::atomic::Ordering::SeqCst;
    let (one, two) = (load.answered.load(SeqCst), streams.answered());
    let answered = || load.answered.load(SeqCst) > one + 100 && streams.answered() > two + 100;
    within(Duration::from_secs(60), "requests are answered", answered);
}

#[test]
fn a_stop_under_load_loses_no_request() {
    let backend = backend();
    let (mut running, load, streams) = loaded(&file(&[backend.address], "drain: 10s", ""));
    running.signal("-TERM");
    running.until("it says so", |lines| lines.iter().any(|line| line.contains("stopping")));
    // For a fifth of the drain time it still takes requests, old connections' and new ones'.
    more(&load, &streams);
    running.ends();
    let (answered, failed) = load.end();
    assert_eq!(failed, 0, "of {answered} with HTTP/1.1");
    let (answered, failed) = streams.end();
    assert!(failed.is_empty(), "of {answered} with HTTP/2: {failed:?}");
}

#[test]
fn an_interrupt_under_load_ends_what_is_under_way() {
    let backend = backend();
    let (mut running, load, streams) = loaded(&file(&[backend.address], "drain: 10s", ""));
    running.signal("-INT");
    running.ends();
    // Who was just about to ask on a connection that is closed may have to ask elsewhere; each request that reached an
    // instance has been answered.
    let (one, _) = load.end();
    let (two, _) = streams.end();
    let asked = backend.requests();
    assert!(asked <= one + two + 8, "{asked} requests behind, {one} and {two} answers in front");
}

#[test]
fn reloads_under_load_lose_no_request() {
    let backend = backend();
    let text = |round: usize| {
        let balance = ["round_robin", "least_connections", "p2c"][round % 3];
        file(&[backend.address], &format!("balance: {balance}\ntimeout: {}s", 10 + round % 2), "")
    };
    let (mut running, load, streams) = loaded(&text(0));
    for round in 1..=40 {
        running.write(&text(round));
        running.signal("-HUP");
        let reloads = |lines: &[String]| lines.iter().filter(|line| line.ends_with(": reloaded")).count();
        running.until("it reloads", |lines| reloads(lines) == round);
    }
    more(&load, &streams);
    let (answered, failed) = load.end();
    assert_eq!(failed, 0, "of {answered} with HTTP/1.1");
    let (answered, failed) = streams.end();
    assert!(failed.is_empty(), "of {answered} with HTTP/2: {failed:?}");
}
