//! Systems that are wrong on purpose: the comparisons that pass for the right ones must fail for them.

use crate::check::{calm, system, within};
use crate::erlang;
use crate::retries;

/// Constant service instead of exponential: half the wait, at the same mean.
#[test]
fn a_wrong_distribution_is_noticed() {
    let run = calm(&system(&erlang::file(8, 640.0, "100k", "10ms")), 5.0, 200.0);
    for (at, result) in erlang::eight_servers(&run).into_iter().enumerate() {
        assert!(result.is_err(), "figure {at} is as if nothing had changed");
    }
}

/// A server too many, and a service 2% faster than it should be.
#[test]
fn a_small_change_is_noticed() {
    for file in [erlang::file(9, 640.0, "100k", "exp(10ms)"), erlang::file(8, 640.0, "100k", "exp(9.8ms)")] {
        let run = calm(&system(&file), 5.0, 200.0);
        assert!(erlang::eight_servers(&run)[0].is_err());
    }
}

#[test]
fn an_attempt_too_few_is_noticed() {
    for result in retries::three_retries(&retries::even_odds(3)) {
        assert!(result.is_err());
    }
}

#[test]
fn values_that_do_not_vary_must_be_exact() {
    assert!(within("exact", &[2.0; 10], 2.0).is_ok());
    assert!(within("off", &[2.0; 10], 2.001).is_err());
    assert!(within("nothing measured", &[f64::NAN; 10], 2.0).is_err());
}
