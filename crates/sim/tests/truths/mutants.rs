//! Systems that are wrong on purpose: each truth, as it stands, must fail for them.
//!
//! A file that asks for a constant time stands for an engine that draws one where it should draw an
//! exponential; one attempt less, for an engine that drops a retry; and so on. What is checked is
//! the truth's own check, so that one that is too weak to tell shows here.

use crate::check::within;
use crate::erlang::{eight_servers, every_queue, loss};
use crate::{adaptive_retry, closed_network, collapse, fan_out, hedging, hysteresis, pause_collapse};
use crate::{pollaczek_khinchine, retries, scalability, supermarket};

/// The same mean, another variance.
#[test]
fn a_swapped_distribution_is_noticed() {
    eight_servers().notices("exp(10ms)", "10ms");
    eight_servers().notices("calls:", "arrivals: constant, calls:");
    pollaczek_khinchine::one_server("10ms", 2.0, 500.0).notices("work: 10ms", "work: exp(10ms)");
    pollaczek_khinchine::one_server("exp(10ms)", 4.0, 500.0).notices("exp(10ms)", "0ms..20ms");
    closed_network::three_users().notices("exp(2.5ms)", "2.5ms");
}

/// A service 2% faster, a server too many, a place to wait where there is none.
#[test]
fn a_small_change_is_noticed() {
    eight_servers().notices("exp(10ms)", "exp(9.8ms)");
    eight_servers().notices("queue: 100k", "queue: 20");
    loss(10, 7.0, "exp(10ms)", 0.078_74).notices("queue: 0", "queue: 1");
    every_queue().into_iter().for_each(|(truth, three, four)| truth.notices(three, four));
    closed_network::three_users().notices("users: 3", "users: 4");
    fan_out::page(20, 5).notices("for_each: 20", "for_each: 19");
}

#[test]
fn a_dropped_retry_is_noticed() {
    retries::three_retries().notices("attempts: 4", "attempts: 3");
    retries::three_retries().notices("when: [500]", "when: [503]");
    // In one layer of three.
    retries::layers(4, 64.0).notices("b: { retry: { attempts: 4", "b: { retry: { attempts: 3");
    pause_collapse::pause(4, 0.0, 18.0).notices("attempts: 4", "attempts: 3");
    hysteresis::outage(3, 110, false).notices("attempts: 3", "attempts: 2");
    collapse::without_backoff().notices("attempts: 3", "attempts: 1");
}

#[test]
fn a_retry_too_many_is_noticed() {
    retries::three_retries().notices("attempts: 4", "attempts: 5");
    hysteresis::outage(2, 135, true).notices("attempts: 2", "attempts: 3");
    adaptive_retry::budget().notices("budget: 10%", "budget: 11%");
    pause_collapse::pause(1, 7.0, 0.0).notices("attempts: 1", "attempts: 4");
}

#[test]
fn a_policy_that_does_nothing_is_noticed() {
    supermarket::three_choices().notices("choices: 3", "choices: 2");
    hedging::two_percent().notices("hedge: { percentile: 50%, min_delay: 10ms },", "");
    collapse::without_backoff().notices("backoff: 1us..1us, jitter: none", "backoff: 20s..40s, jitter: full");
}

/// Contention without coherency, and a tenth less of it.
#[test]
fn requests_that_are_less_in_each_others_way_are_noticed() {
    scalability::sdm91(216, 1_646.174_7).notices(", coherency: 0.010437%", "");
    scalability::sdm91(216, 1_646.174_7).notices("contention: 2.77285%", "contention: 2.5%");
    collapse::without_backoff().notices("contention: 0.9900990099%", "contention: 0.8%");
}

#[test]
fn values_that_do_not_vary_must_be_exact() {
    assert!(within("exact", &[2.0; 10], 2.0).is_ok());
    assert!(within("off", &[2.0; 10], 2.001).is_err());
    assert!(within("nothing measured", &[f64::NAN; 10], 2.0).is_err());
}
