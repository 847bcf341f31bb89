//! The supermarket model: each of many servers has a queue of its own, and a request joins the shortest of
//! d that are picked at random.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001: in the limit of
//! many servers, a request takes `sum rho^((d^i - d) / (d - 1))` service times. Of n servers it is
//! V / (rho n) more, with V from the linearised dynamics (Gast and Van Houdt, "A Refined Mean Field
//! Approximation", SIGMETRICS 2018; their 3.986 for rho .9 and d 2 is with replacement, ours without).

use crate::check::{Truth, calm, overall, within};

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

/// So many servers, each with so many requests a second, that compare so many queues: mean time in the
/// system, in service times.
pub(crate) fn supermarket(
    instances: u32,
    per_server: u32,
    choices: u32,
    warmup_s: f64,
    seconds: f64,
    time: f64,
) -> Truth {
    Truth::new(file(instances, per_server, choices), move |system| {
        let run = calm(system, warmup_s, seconds);
        let times: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
        vec![within(&format!("{choices} choices of {instances} at {per_server}%"), &times, time)]
    })
}

/// One random queue: M/M/1, however many servers there are.
#[test]
fn one_choice() {
    supermarket(50, 90, 1, 12.0, 30.0, 10.0).holds();
}

#[test]
fn two_choices() {
    supermarket(500, 50, 2, 0.5, 1.5, 1.265_69 * (1.0 + 0.145 / 500.0)).holds();
    supermarket(500, 90, 2, 1.2, 2.8, 2.6141 * (1.0 + 1.179 / 500.0)).holds();
}

pub(crate) fn three_choices() -> Truth {
    supermarket(500, 90, 3, 1.2, 1.8, 2.0279 * (1.0 + 1.642 / 500.0))
}

#[test]
fn a_third_choice_gains_little() {
    three_choices().holds();
}

/// The slowest part of the way from empty queues takes 142 service times to fall by e: after 800, 0.1% is
/// missing.
#[test]
fn two_choices_near_saturation() {
    supermarket(200, 99, 2, 8.0, 6.0, 5.4320 * (1.0 + 8.434 / 200.0)).holds();
}
