//! Instances get requests in the proportion of their weights.

use plimsoll_model::run::SubjectKind;

use crate::check::{calm, figure, holds, system};

/// Of each replication, how many times the requests of `api/2` the heavier `api/1` gets.
fn ratios(balance: &str) -> Vec<f64> {
    let run = calm(
        &system(&format!(
            "
system: weights
clients:
  web:
    rate: 1k/s
    users: 10M
    calls: [api GET /]
    balance: {{ algorithm: {balance}, weights: [3, 1, 1] }}
services: {{ api: {{ instances: 3, async: true, endpoints: {{ GET /: [ {{ wait: exp(200ms) }} ] }} }} }}
"
        )),
        5.0,
        60.0,
    );
    let of = |instance: &str| figure(&run, SubjectKind::Instance, instance, "offered_per_s");
    of("api/1").iter().zip(of("api/2")).map(|(heavy, light)| heavy / light).collect()
}

#[test]
fn round_robin_is_exact() {
    for ratio in ratios("weighted") {
        assert!((ratio - 3.0).abs() < 1e-3, "{ratio}");
    }
}

#[test]
fn others_are_so_on_average() {
    // Busy instances hold requests in the proportion of their weights, and end them as fast.
    holds("least connections", &ratios("least_connections"), 3.0);
    // The table has 65,537 slots, shared out one by one.
    holds("maglev", &ratios("maglev, bounded_load: none"), 3.0);
}
