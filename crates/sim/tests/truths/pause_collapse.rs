//! A pause of a second that never ends: nothing here is random, so that every number is exact.
//!
//! 7 requests a second for a server that does 10, half a second of patience, three retries after
//! 50 ms. What queues up during the pause is stale when its turn comes; by then each request has become
//! four, 28 a second, and the queue grows by 18.

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{between, experiment, system};

fn run(attempts: u32) -> Run {
    let file = format!(
        "
system: pause
network: {{ same_zone: 0s }}
clients:
  web:
    rate: 7/s
    arrivals: constant
    timeout: none
    per_try_timeout: 500ms
    retry: {{ attempts: {attempts}, backoff: 50ms..50ms, jitter: none, when: [timeout] }}
    calls: [api GET /]
services:
  api: {{ workers: 1, cores: 1, queue: 1M, endpoints: {{ GET /: [{{ work: 100ms }}] }} }}
experiments:
  pause: {{ for: 120s, warmup: 5s, faults: [{{ at: 10s, pause: api, for: 1s }}] }}
"
    );
    experiment(&system(&file))
}

#[test]
fn retries_turn_a_second_into_for_ever() {
    let run = run(4);
    let ok = &run.subject(SubjectKind::All, "all").unwrap().series.ok;
    assert_eq!(between(ok, 2, 9), 7.0);
    assert_eq!(between(ok, 60, 120), 0.0, "{ok:?}");
    let queue = &run.subject(SubjectKind::Service, "api").unwrap().series.queue;
    let growth = (f64::from(queue[110]) - f64::from(queue[50])) / 60.0;
    assert!((growth - 18.0).abs() < 0.02, "the queue grows by {growth} a second");
}

#[test]
fn without_retries_it_is_over_soon() {
    let run = run(1);
    let ok = &run.subject(SubjectKind::All, "all").unwrap().series.ok;
    assert_eq!(between(ok, 60, 120), 7.0);
    let queue = &run.subject(SubjectKind::Service, "api").unwrap().series.queue;
    assert_eq!(between(queue, 60, 120), 0.0);
}
