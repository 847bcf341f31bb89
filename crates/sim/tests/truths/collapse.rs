//! Brooker's collapse: a service that slows down with the requests that are in it, callers who time out
//! and try again, and five seconds of twice the load.
//!
//! Brooker's model (`simple_collapse_sim` of github.com/mbrooker/simulator_example, for "Metastability
//! and Distributed Systems", 2021): each message takes an exponential 100 ms, the service 1 s and 10 ms
//! for every request in it, the new one included; callers wait 3 s and try three times in all; 40 a
//! second come, and 80 from the 20th to the 25th second. Most runs never answer anybody again, and
//! the rest come back to 40/s. The published curve is the mean of ten runs and stays at about 7.7/s, which
//! is two of ten: run 4,000 times, the same program comes back in 1,038 cases.

use plimsoll_model::system::System;
use plimsoll_sim::Scenario;

use crate::check::{Truth, between, ensure, one_by_one, within};

/// Share of runs of Brooker's program that answer nobody from the 60th to the 80th second.
const DOWN: f64 = 2_962.0 / 4_000.0;

/// Our clock starts ten seconds after theirs, when the service has filled.
fn file(backoff: &str) -> String {
    // 1 + 0.01 N is 1.01 (1 + 0.01 / 1.01 (N - 1)).
    format!(
        "
system: collapse
network: {{ same_zone: exp(100ms) }}
clients:
  web:
    rate: 40/s
    timeout: none
    per_try_timeout: 3s
    retry: {{ attempts: 3, {backoff}, when: [timeout] }}
    calls: [api GET /]
services:
  api:
    async: true
    max_in_flight: 1M
    scalability: {{ contention: 0.9900990099% }}
    endpoints: {{ GET /: [{{ wait: 1010ms }}] }}
experiments:
  spike: {{ for: 70s, warmup: 10s, faults: [{{ at: 10s, surge: web, by: 2x, for: 5s }}] }}
"
    )
}

/// Goodput before the spike, and in the last twenty of eighty seconds, by replication.
fn goodputs(system: &System) -> (Vec<f64>, Vec<f64>) {
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let runs = one_by_one(system, &scenario, 100);
    let goodput = |from, to| runs.iter().map(|run| between(&run.subjects[0].series.ok, from, to)).collect::<Vec<f64>>();
    (goodput(0, 10), goodput(50, 70))
}

pub(crate) fn without_backoff() -> Truth {
    Truth::new(file("backoff: 1us..1us, jitter: none"), |system| {
        let (before, after) = goodputs(system);
        let down: Vec<f64> = after.iter().map(|&goodput| if goodput == 0.0 { 1.0 } else { 0.0 }).collect();
        vec![
            within("goodput before the spike", &before, 40.0),
            ensure(
                after.iter().all(|&goodput| goodput == 0.0 || goodput > 30.0),
                format!("down or up, and nothing between: {after:?}"),
            ),
            within("share of runs that stay down", &down, DOWN),
            within("goodput after the spike", &after, 40.0 * (1.0 - DOWN)),
            within("goodput of ten runs", &after[..10], 7.7),
        ]
    })
}

#[test]
fn most_runs_never_come_back() {
    without_backoff().holds();
}

/// Waits of up to 20 s, then up to 40 s.
#[test]
fn with_backoff_and_jitter_all_come_back() {
    let truth = Truth::new(file("backoff: 20s..40s, jitter: full"), |system| {
        let (_, after) = goodputs(system);
        vec![
            ensure(after.iter().all(|&goodput| goodput > 30.0), format!("all are up: {after:?}")),
            within("goodput after the spike, with jitter", &after, 40.0),
        ]
    });
    truth.holds();
}
