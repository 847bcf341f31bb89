//! Single flight: of those who come while a call takes T, one makes it. The cycle of a key is T and
//! then the wait for the next who wants it, so that one of 1 + rate T requests is a call.

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{calm, figure, holds, overall, system};

fn run(method: &str, coalesce: bool) -> Run {
    let text = format!(
        "
system: crowd
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 100/s, calls: [ {{ endpoint: edge {method} /hot, key: uniform(1) }} ] }} }}
services:
  edge: {{ kind: gateway, upstream: api, coalesce: {coalesce} }}
  api: {{ async: true, endpoints: {{ {method} /hot: [ {{ wait: 100ms }} ] }} }}
"
    );
    calm(&system(&text), 5.0, 200.0)
}

#[test]
fn one_call_is_made_for_all_who_wait() {
    let run = run("GET", true);
    let calls = figure(&run, SubjectKind::Edge, "edge -> api", "offered_per_s");
    holds("calls a second", &calls, 100.0 / 11.0);
    // Who begins waits for all of it, the ten who join for half of it on average.
    holds("mean, ms", &overall(&run, "latency_ms_mean"), (100.0 + 10.0 * 50.0) / 11.0);
    let joined = figure(&run, SubjectKind::Edge, "edge -> api", "coalesced");
    let share: Vec<f64> = joined.iter().zip(&calls).map(|(joined, calls)| joined / (200.0 * calls)).collect();
    holds("joined for each call", &share, 10.0);
}

#[test]
fn what_changes_something_is_never_shared() {
    let run = run("PUT", true);
    let calls = figure(&run, SubjectKind::Edge, "edge -> api", "offered_per_s");
    assert!(calls.iter().all(|calls| *calls > 90.0), "{calls:?}");
    holds("mean, ms", &overall(&run, "latency_ms_mean"), 100.0);
}

/// Who gives up leaves the call to the others; with the last of them it is called off.
#[test]
fn a_flight_lasts_as_long_as_somebody_waits() {
    let text = "
system: impatient
network: { same_zone: 0s }
clients: { web: { rate: 100/s, timeout: 60ms, calls: [ { endpoint: edge GET /hot, key: uniform(1) } ] } }
services:
  edge: { kind: gateway, upstream: api, coalesce: true }
  api: { async: true, endpoints: { GET /hot: [ { wait: 100ms } ] } }
";
    let run = calm(&system(text), 5.0, 200.0);
    // A flight that lands does so for those who came in its last 60 ms.
    let ok = figure(&run, SubjectKind::All, "all", "goodput_per_s");
    let mean = ok.iter().sum::<f64>() / ok.len() as f64;
    assert!((40.0..70.0).contains(&mean), "{mean}/s are answered");
}
