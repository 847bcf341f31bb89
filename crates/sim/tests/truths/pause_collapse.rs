//! A pause of a second that never ends: nothing here is random, so that every number is exact.
//!
//! 7 requests a second for a server that does 10, half a second of patience, three retries after
//! 50 ms. What queues up during the pause is stale when its turn comes; by then each request has become
//! four, 28 a second, and the queue grows by 18.

use plimsoll_model::run::SubjectKind;

use crate::check::{Truth, between, ensure, experiment};

/// Goodput before the pause and from fifty seconds after it, and how the queue grows by then, a second.
pub(crate) fn pause(attempts: u32, goodput: f64, growth: f64) -> Truth {
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
    Truth::new(file, move |system| {
        let run = experiment(system);
        let ok = &run.subjects[0].series.ok;
        let queue = &run.subject(SubjectKind::Service, "api").unwrap().series.queue;
        let (before, after) = (between(ok, 2, 9), between(ok, 60, 120));
        // The mean queue of a second, fifty seconds apart, differs by a fiftieth of a request at most.
        let grows = (f64::from(queue[110]) - f64::from(queue[60])) / 50.0;
        vec![
            ensure(before == 7.0, format!("goodput before the pause: {before}, truth 7")),
            ensure(after == goodput, format!("goodput after the pause: {after}, truth {goodput}")),
            ensure((grows - growth).abs() <= 0.02, format!("the queue grows by {grows} a second, truth {growth}")),
        ]
    })
}

#[test]
fn retries_turn_a_second_into_for_ever() {
    pause(4, 0.0, 18.0).holds();
}

#[test]
fn without_retries_it_is_over_soon() {
    pause(1, 7.0, 0.0).holds();
}
