//! Retries: attempts are a geometric sum, and layers multiply.

use plimsoll_model::run::SubjectKind;

use crate::check::{Truth, calm, figure, overall, within};

/// Three retries at even odds: 1 + 1/2 + 1/4 + 1/8 attempts, of which none succeeds in 1/16.
pub(crate) fn three_retries() -> Truth {
    let file = "
system: retries
network: { same_zone: 0s }
clients: { web: { rate: 500/s, retry: { attempts: 4, backoff: 1ms..1ms, when: [500] }, calls: [api GET /] } }
services: { api: { async: true, endpoints: { GET /: [{ fail: 50% }] } } }
";
    Truth::new(file, |system| {
        let run = calm(system, 1.0, 60.0);
        vec![
            within("attempts a call", &figure(&run, SubjectKind::Edge, "web -> api", "amplification"), 1.875),
            within("calls that fail", &overall(&run, "errors"), 0.0625),
        ]
    })
}

#[test]
fn three_retries_at_even_odds() {
    three_retries().holds();
}

/// Three layers over something that always fails: so many calls at the bottom for one at the top.
pub(crate) fn layers(attempts: u32, calls: f64) -> Truth {
    let retry = format!("retry: {{ attempts: {attempts}, backoff: 1ms..1ms, when: [500] }}");
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
    Truth::new(file, move |system| {
        let run = calm(system, 0.0, 20.0);
        let asked = overall(&run, "offered_per_s");
        let reached = figure(&run, SubjectKind::Service, "c", "offered_per_s");
        let found: Vec<f64> = reached.iter().zip(asked).map(|(c, web)| c / web).collect();
        vec![within("calls at the bottom for one at the top", &found, calls)]
    })
}

#[test]
fn layers_multiply() {
    layers(4, 64.0).holds();
    layers(3, 27.0).holds();
}
