//! The supermarket model: each of many servers has a queue of its own, and a request joins the shortest of
//! d that are picked at random.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001: in the limit of
//! many servers, a request takes `sum rho^((d^i - d) / (d - 1))` service times. Of n servers it is
//! V / (rho n) more, with V from the linearised dynamics (Gast and Van Houdt, "A Refined Mean Field
//! Approximation", SIGMETRICS 2018; their 3.986 for rho .9 and d 2 is with replacement, ours without).

use crate::check::{calm, holds, overall, system};

/// Latencies are always taken to be what the seed says, so that P2C goes by requests in flight alone.
fn file(instances: u32, per_server: u32, choices: u32) -> String {
    format!(
        "
system: supermarket
network: {{ same_zone: 0s }}
clients:
  web:
    rate: {}/s
    timeout: none
    balance: {{ algorithm: p2c, choices: {choices}, ewma_seed: 1000s, ewma_decay: 1000000000s }}
    calls: [api GET /]
services:
  api:
    instances: {instances}
    workers: 1
    cores: 1
    queue: 10k
    endpoints: {{ GET /: [{{ work: exp(10ms) }}] }}
",
        instances * per_server
    )
}

/// Mean time in the system, in service times, by replication.
fn times(instances: u32, per_server: u32, choices: u32, warmup_s: f64, seconds: f64) -> Vec<f64> {
    let run = calm(&system(&file(instances, per_server, choices)), warmup_s, seconds);
    overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect()
}

/// One random queue: M/M/1, however many servers there are.
#[test]
fn one_choice() {
    holds("one choice", &times(50, 90, 1, 20.0, 40.0), 10.0);
}

#[test]
fn two_choices() {
    holds("two choices", &times(500, 90, 2, 2.0, 6.0), 2.6141 * (1.0 + 1.179 / 500.0));
}

#[test]
fn three_choices() {
    holds("three choices", &times(500, 90, 3, 2.0, 4.0), 2.0279 * (1.0 + 1.642 / 500.0));
}

/// The slowest part of the way from empty queues takes 142 service times to fall by e: after 900, less
/// than 0.1% is missing.
#[test]
fn two_choices_near_saturation() {
    holds("two choices at .99", &times(200, 99, 2, 9.0, 12.0), 5.4320 * (1.0 + 8.434 / 200.0));
}
