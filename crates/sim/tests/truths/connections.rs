//! A bound on connections is a queue with as many servers: requests wait for one as in M/M/c, and
//! where none may wait they are lost as in M/M/c/c.

use crate::check::{calm, holds, overall, system};

fn file(rate: u32, bound: &str) -> String {
    format!(
        "
system: bounded
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: {rate}/s, {bound}, calls: [api GET /] }} }}
services: {{ api: {{ async: true, endpoints: {{ GET /: [ {{ wait: exp(10ms) }} ] }} }} }}
"
    )
}

#[test]
fn who_finds_no_connection_waits_for_one() {
    let run = calm(&system(&file(640, "max_connections: 8")), 5.0, 200.0);
    let waits: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|ms| ms / 10.0 - 1.0).collect();
    holds("wait for one of eight connections", &waits, 0.286_028);
    holds("errors", &overall(&run, "errors"), 0.0);
}

#[test]
fn who_may_not_wait_is_refused() {
    let run = calm(&system(&file(700, "max_connections: 10, max_pending: 0")), 5.0, 100.0);
    holds("refused at ten connections", &overall(&run, "errors"), 0.078_741);
}

#[test]
fn who_waits_gives_up_at_the_timeout() {
    // One connection, held for a second: the second request never has it.
    let text = file(10, "max_connections: 1, timeout: 500ms").replace("exp(10ms)", "1s");
    holds("errors", &overall(&calm(&system(&text), 5.0, 20.0), "errors"), 1.0);
}
