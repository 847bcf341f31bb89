//! Hedging (Dean and Barroso, "The Tail at Scale", CACM 2013): a second request after the usual time
//! cuts the tail for a few percent more load.

use plimsoll_model::run::{Run, SubjectKind};
use plimsoll_model::system::System;

use crate::check::{Truth, calm, ensure, figure, overall, system, within};

fn file(hedge: &str, time: &str) -> String {
    format!(
        "
system: hedging
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 200/s, {hedge} timeout: 500ms, calls: [leaf GET /] }} }}
services: {{ leaf: {{ instances: 3, async: true, endpoints: {{ GET /: [{time}] }} }} }}
"
    )
}

fn run(system: &System) -> Run {
    calm(system, 10.0, 60.0)
}

/// One call in fifty takes a second, the others 5 ms, and after 10 ms another is sent: 2% more load, as
/// in their measurement, and a slow answer only where both are slow, in 1 of 2500.
pub(crate) fn two_percent() -> Truth {
    let time = "{ choice: [{ weight: 98, do: [{ wait: 5ms }] }, { weight: 2, do: [{ wait: 1s }] }] }";
    Truth::new(file("hedge: { percentile: 50%, min_delay: 10ms },", time), |system| {
        let run = run(system);
        vec![
            within("attempts a call", &figure(&run, SubjectKind::Edge, "web -> leaf", "amplification"), 1.02),
            within("calls of a second", &overall(&run, "errors"), 0.02 * 0.02),
            ensure(
                overall(&run, "latency_ms_p99").iter().all(|p99| (p99 - 15.0).abs() < 0.1),
                format!("p99 {:?} ms, truth 15", overall(&run, "latency_ms_p99")),
            ),
        ]
    })
}

#[test]
fn two_percent_more_load_cut_the_tail() {
    two_percent().holds();
}

#[test]
fn the_tail_shrinks_for_a_little_load() {
    let wait = "{ wait: { p50: 5ms, p99: 100ms } }";
    let (plain, hedged) = (run(&system(&file("", wait))), run(&system(&file("hedge: { percentile: 95% },", wait))));
    let pairs = |name| overall(&plain, name).into_iter().zip(overall(&hedged, name)).collect::<Vec<_>>();
    for (before, after) in pairs("latency_ms_p99") {
        assert!(after < 0.6 * before, "p99 {before} ms, hedged {after} ms");
    }
    for amplification in figure(&hedged, SubjectKind::Edge, "web -> leaf", "amplification") {
        assert!((1.02..1.07).contains(&amplification), "{amplification}");
    }
}
