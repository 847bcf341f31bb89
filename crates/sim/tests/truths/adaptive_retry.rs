//! Retries while every other attempt fails: plain, from a bucket of tokens, and behind a breaker.
//!
//! Brooker, "Fixing retries with token buckets and circuit breakers" (2022).

use plimsoll_model::run::SubjectKind;
use plimsoll_model::system::System;
use plimsoll_policy::retry_budget::{self, Rule};

use crate::check::{calm, figure, holds, overall, system};

fn file(policies: &str) -> System {
    system(&format!(
        "
system: adaptive
network: {{ same_zone: 0s }}
clients:
  web:
    rate: 1000/s
    retry: {{ attempts: 4, backoff: 1ms..1ms, when: [500] }}
    {policies}
    calls: [api GET /]
services: {{ api: {{ async: true, endpoints: {{ GET /: [{{ fail: 50% }}] }} }} }}
"
    ))
}

/// Requests that reach the service for one that a client makes.
fn load(system: &System) -> Vec<f64> {
    let run = calm(system, 5.0, 60.0);
    let asked = overall(&run, "offered_per_s");
    figure(&run, SubjectKind::Service, "api", "offered_per_s").iter().zip(asked).map(|(api, web)| api / web).collect()
}

#[test]
fn a_bucket_pays_for_a_few_retries() {
    // Each success pays a fifth of a retry: 1 / (1 - 0.2 x 0.5).
    let mut system = file("");
    for edge in &mut system.edges {
        let rule = Rule::adaptive(10.0, 0.2);
        edge.policies.pipeline.budget = Some(retry_budget::Config { rule, ..retry_budget::Config::default() });
    }
    holds("load with a token bucket", &load(&system), 1.0 / (1.0 - 0.2 * 0.5));
}

#[test]
fn plain_retries_nearly_double_the_load() {
    holds("load with three plain retries", &load(&file("")), 1.875);
}

#[test]
fn a_breaker_adds_no_load() {
    let loads = load(&file("breaker: { failure_rate: 40% }"));
    assert!(loads.iter().all(|&load| load <= 1.0), "{loads:?}");
}
