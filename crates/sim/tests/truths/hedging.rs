//! Hedging (Dean and Barroso, "The Tail at Scale", CACM 2013): a second request after the usual time
//! cuts the tail for a few percent more load.

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{calm, figure, overall, system};

fn run(hedge: &str) -> Run {
    let file = format!(
        "
system: hedging
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 200/s, {hedge} calls: [leaf GET /] }} }}
services:
  leaf: {{ instances: 3, async: true, endpoints: {{ GET /: [{{ wait: {{ p50: 5ms, p99: 100ms }} }}] }} }}
"
    );
    calm(&system(&file), 10.0, 60.0)
}

#[test]
fn the_tail_shrinks_for_a_little_load() {
    let (plain, hedged) = (run(""), run("hedge: { percentile: 95% },"));
    let pairs = |name| overall(&plain, name).into_iter().zip(overall(&hedged, name)).collect::<Vec<_>>();
    for (before, after) in pairs("latency_ms_p99") {
        assert!(after < 0.6 * before, "p99 {before} ms, hedged {after} ms");
    }
    for amplification in figure(&hedged, SubjectKind::Edge, "web -> leaf", "amplification") {
        assert!((1.02..1.07).contains(&amplification), "{amplification}");
    }
}
