//! Hysteresis: a system that carries a load well, and does not come back to it after an outage.
//!
//! Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021: with a capacity of C, and
//! callers who time out and retry r times, an outage that outlasts the timeout is never recovered from
//! above C / (1 + r).

use crate::check::{between, experiment, system};

/// Goodput at the end as a share of the load: 300/s of capacity, a 10 s outage, an 1 s timeout.
fn goodput_after(rate: f64, attempts: u32, outage: bool) -> f64 {
    let faults = if outage { "{ at: 10s, slow: api, by: 100x, for: 10s }" } else { "" };
    let file = format!(
        "
system: hysteresis
network: {{ same_zone: 0s }}
clients:
  web:
    rate: {rate}/s
    timeout: none
    per_try_timeout: 1s
    retry: {{ attempts: {attempts}, backoff: 1ms..1ms, when: [timeout] }}
    calls: [api GET /]
services:
  api: {{ workers: 3, cores: 3, queue: 10M, endpoints: {{ GET /: [{{ work: exp(10ms) }}] }} }}
experiments:
  outage: {{ for: 260s, warmup: 5s, faults: [{faults}] }}
"
    );
    let run = experiment(&system(&file));
    let ok = &run.subject(plimsoll_model::run::SubjectKind::All, "all").unwrap().series.ok;
    between(ok, 200, 250) / rate
}

#[test]
fn it_comes_back_only_below_the_capacity_over_the_attempts() {
    for (attempts, recovers, stays_down) in [(2, 130.0, 170.0), (3, 85.0, 115.0)] {
        let below = goodput_after(recovers, attempts, true);
        let above = goodput_after(stays_down, attempts, true);
        println!("{attempts} attempts: goodput {below:.3} of {recovers}/s, {above:.3} of {stays_down}/s");
        assert!(below > 0.98, "{below} of {recovers}/s with {attempts} attempts");
        assert!(above < 0.05, "{above} of {stays_down}/s with {attempts} attempts");
    }
}

#[test]
fn it_carries_that_load_until_the_outage() {
    let share = goodput_after(170.0, 2, false);
    assert!((share - 1.0).abs() < 0.02, "{share}");
}
