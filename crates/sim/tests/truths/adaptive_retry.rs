//! Retries while every other attempt fails: plain, within a budget, and behind a breaker.
//!
//! Brooker, "Fixing retries with token buckets and circuit breakers" (2022), and `retry_sim` of
//! github.com/mbrooker/simulator_example: 1.88 attempts a call with three plain retries, 1.12 with a
//! bucket into which every call puts a tenth of a retry (1.1 in the long run, and what the buckets hold at
//! the start over twenty seconds), 1.0 with a breaker.

use plimsoll_model::run::SubjectKind;
use plimsoll_model::system::System;
use plimsoll_policy::retry_budget::{self, Rule};

use crate::check::{Truth, calm, ensure, figure, overall, within};

fn file(retry: &str, policies: &str) -> String {
    format!(
        "
system: adaptive
network: {{ same_zone: 0s }}
clients:
  web:
    rate: 1000/s
    retry: {{ attempts: 4, backoff: 1ms..1ms, when: [500]{retry} }}
    {policies}
    calls: [api GET /]
services: {{ api: {{ async: true, endpoints: {{ GET /: [{{ fail: 50% }}] }} }} }}
"
    )
}

/// Requests that reach the service for one that a client makes.
fn load(system: &System) -> Vec<f64> {
    let run = calm(system, 12.0, 60.0);
    let asked = overall(&run, "offered_per_s");
    figure(&run, SubjectKind::Service, "api", "offered_per_s").iter().zip(asked).map(|(api, web)| api / web).collect()
}

/// A tenth of the calls, and ten retries a second beside a thousand calls. The window moves by tenths:
/// what was paid counts over eleven of them, so that no window of ten sees more than its share.
pub(crate) fn budget() -> Truth {
    Truth::new(file(", budget: 10%", ""), |system| {
        vec![within("load with a budget of 10%", &load(system), 1.0 + (0.1 + 10.0 / 1_000.0) * 10.0 / 11.0)]
    })
}

#[test]
fn a_budget_pays_for_a_few_retries() {
    budget().holds();
}

/// Each success pays a fifth of a retry: 1 / (1 - 0.2 x 0.5), which is 1.11.
#[test]
fn a_bucket_pays_for_a_few_retries() {
    let truth = Truth::new(file("", ""), |system| {
        let mut system = system.clone();
        for edge in &mut system.edges {
            let rule = Rule::adaptive(10.0, 0.2);
            edge.policies.pipeline.budget = Some(retry_budget::Config { rule, ..retry_budget::Config::default() });
        }
        vec![within("load with a token bucket", &load(&system), 1.0 / (1.0 - 0.2 * 0.5))]
    });
    truth.holds();
}

#[test]
fn plain_retries_nearly_double_the_load() {
    let truth = Truth::new(file("", ""), |system| vec![within("load with three plain retries", &load(system), 1.875)]);
    truth.holds();
}

/// Brooker's breaker stops retries alone, so that its load is that of the calls; ours stops first
/// attempts as well, and its load is less.
#[test]
fn a_breaker_adds_no_load() {
    let truth = Truth::new(file("", "breaker: { failure_rate: 40% }"), |system| {
        let loads = load(system);
        vec![ensure(loads.iter().all(|&load| load <= 1.0), format!("loads behind a breaker: {loads:?}"))]
    });
    truth.holds();
}
