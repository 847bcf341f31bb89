//! Hysteresis: a system that carries a load well, and does not come back to it after an outage.
//!
//! Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021: with a capacity of C, and
//! callers who time out and retry r times, an outage that outlasts the timeout is never recovered from
//! above C / (1 + r).

use crate::check::{Truth, between, ensure, experiment};

/// 300/s of capacity, a timeout of 1 s and an outage of 10 s: whether goodput comes back to the load.
pub(crate) fn outage(attempts: u32, rate: u32, comes_back: bool) -> Truth {
    run(attempts, rate, "{ at: 10s, slow: api, by: 100x, for: 10s }", comes_back)
}

fn run(attempts: u32, rate: u32, fault: &str, comes_back: bool) -> Truth {
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
  outage: {{ for: 260s, warmup: 5s, faults: [{fault}] }}
"
    );
    Truth::new(file, move |system| {
        let ok = &experiment(system).subjects[0].series.ok;
        let share = between(ok, 200, 250) / rate as f64;
        let what = format!("{attempts} attempts: goodput {share:.3} of {rate}/s");
        vec![ensure(if comes_back { share > 0.98 } else { share < 0.05 }, what)]
    })
}

/// 150/s with one retry.
#[test]
fn it_comes_back_only_below_half_of_its_capacity() {
    outage(2, 135, true).holds();
    outage(2, 165, false).holds();
}

/// 100/s with two.
#[test]
fn it_comes_back_only_below_a_third_of_its_capacity() {
    outage(3, 90, true).holds();
    outage(3, 110, false).holds();
}

#[test]
fn it_carries_that_load_until_the_outage() {
    run(2, 165, "", true).holds();
}
