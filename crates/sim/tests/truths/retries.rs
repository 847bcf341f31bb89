//! Retries: attempts are a geometric sum, and layers multiply.

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{calm, figure, holds, overall, system, within};

/// A service that fails every other time, called with so many attempts.
pub(crate) fn even_odds(attempts: u32) -> Run {
    let file = format!(
        "
system: retries
network: {{ same_zone: 0s }}
clients:
  web:
    rate: 500/s
    retry: {{ attempts: {attempts}, backoff: 1ms..1ms, when: [500] }}
    calls: [api GET /]
services: {{ api: {{ async: true, endpoints: {{ GET /: [{{ fail: 50% }}] }} }} }}
"
    );
    calm(&system(&file), 1.0, 60.0)
}

/// Three retries at even odds: 1 + 1/2 + 1/4 + 1/8 attempts, of which none succeeds in 1/16.
pub(crate) fn three_retries(run: &Run) -> Vec<Result<(), String>> {
    vec![
        within("attempts a call", &figure(run, SubjectKind::Edge, "web -> api", "amplification"), 1.875),
        within("calls that fail", &overall(run, "errors"), 0.0625),
    ]
}

#[test]
fn three_retries_at_even_odds() {
    for result in three_retries(&even_odds(4)) {
        result.unwrap();
    }
}

#[test]
fn layers_multiply() {
    let retry = "retry: { attempts: 4, backoff: 1ms..1ms, when: [500] }";
    let file = format!(
        "
system: layers
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 10/s, arrivals: constant, {retry}, calls: [a GET /] }} }}
services:
  a: {{ async: true, endpoints: {{ GET /: [{{ call: b GET / }}] }}, calls: {{ b: {{ {retry} }} }} }}
  b: {{ async: true, endpoints: {{ GET /: [{{ call: c GET / }}] }}, calls: {{ c: {{ {retry} }} }} }}
  c: {{ async: true, endpoints: {{ GET /: [{{ fail: 100% }}] }} }}
"
    );
    let run = calm(&system(&file), 0.0, 20.0);
    let asked = overall(&run, "offered_per_s");
    let reached = figure(&run, SubjectKind::Service, "c", "offered_per_s");
    let calls: Vec<f64> = reached.iter().zip(asked).map(|(c, web)| c / web).collect();
    holds("calls at the bottom for one at the top", &calls, 64.0);
}
