//! The supermarket model: the better of two random queues.

use crate::check::{calm, holds, overall, system};

fn file(instances: u32, balance: &str) -> String {
    format!(
        "
system: supermarket
network: {{ same_zone: 0s }}
clients:
  web:
    rate: {}/s
    users: 100M
    timeout: none
    balance: {balance}
    calls: [api GET /]
services:
  api:
    instances: {instances}
    workers: 1
    cores: 1
    queue: 10k
    endpoints: {{ GET /: [{{ work: exp(10ms) }}] }}
",
        instances * 90
    )
}

/// One random queue: M/M/1.
#[test]
fn one_choice() {
    let run = calm(&system(&file(50, "ip_hash")), 20.0, 40.0);
    let times: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
    holds("one choice", &times, 10.0);
}

/// Two: with latencies that are always taken to be what the seed says, P2C goes by requests in flight
/// alone. The limit for many queues is 2.6141; with 500 it is .3% more.
#[test]
fn two_choices() {
    let run = calm(&system(&file(500, "{ algorithm: p2c, ewma_seed: 1000s, ewma_decay: 1000000000s }")), 3.0, 10.0);
    let times: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
    holds("two choices", &times, 2.6141 * 1.003);
}
