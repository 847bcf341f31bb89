//! M/M/c with waiting (Erlang C) and without (Erlang B).

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{calm, figure, holds, overall, system, within};

/// Requests that each take 10 ms of a worker, exponentially distributed.
pub(crate) fn file(servers: u32, rate: f64, queue: &str, time: &str) -> String {
    format!(
        "
system: erlang
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: {rate}/s, timeout: none, calls: [api GET /] }} }}
services:
  api: {{ workers: {servers}, cores: {servers}, queue: {queue}, endpoints: {{ GET /: [{{ work: {time} }}] }} }}
"
    )
}

fn scaled(values: Vec<f64>, by: f64) -> Vec<f64> {
    values.into_iter().map(|value| value * by).collect()
}

/// The share of requests that wait, from the mean number that do: `Lq = C a / (c - a)`.
fn wait_share(run: &Run, servers: f64, load: f64) -> Vec<f64> {
    scaled(figure(run, SubjectKind::Service, "api", "queue_mean"), (servers - load) / load)
}

/// Figures of M/M/8 at 6.4 erlangs, in units of the mean service time.
pub(crate) fn eight_servers(run: &Run) -> Vec<Result<(), String>> {
    let times = |name| scaled(overall(run, name), 0.1);
    vec![
        within("M/M/8 wait", &times("latency_ms_mean").iter().map(|r| r - 1.0).collect::<Vec<_>>(), 0.286_028),
        within("M/M/8 p50", &times("latency_ms_p50"), 0.986_33),
        within("M/M/8 p99", &times("latency_ms_p99"), 5.152_18),
        within("M/M/8 share that waits", &wait_share(run, 8.0, 6.4), 0.457_645),
    ]
}

#[test]
fn eight_servers_at_four_fifths() {
    let run = calm(&system(&file(8, 640.0, "100k", "exp(10ms)")), 5.0, 200.0);
    for result in eight_servers(&run) {
        result.unwrap();
    }
    holds("utilization", &figure(&run, SubjectKind::Service, "api", "utilization"), 0.8);
}

#[test]
fn more_servers_wait_less_at_the_same_utilization() {
    for (servers, load, share) in [(5, 2.5, 0.130_37), (10, 5.0, 0.036_11)] {
        let run = calm(&system(&file(servers, load * 100.0, "100k", "exp(10ms)")), 5.0, 300.0);
        holds(&format!("M/M/{servers} share that waits"), &wait_share(&run, servers as f64, load), share);
    }
}

#[test]
fn without_a_queue_erlang_b_is_turned_away() {
    let run = calm(&system(&file(10, 700.0, "0", "exp(10ms)")), 5.0, 100.0);
    holds("Erlang B", &overall(&run, "errors"), 0.078_74);
    holds("Erlang B, rejected", &figure(&run, SubjectKind::Service, "api", "rejected"), 0.078_74);
}

/// Erlang B depends on the mean service time alone.
#[test]
fn erlang_b_is_insensitive() {
    let run = calm(&system(&file(10, 700.0, "0", "10ms")), 5.0, 100.0);
    holds("Erlang B, constant service", &overall(&run, "errors"), 0.078_74);
}
