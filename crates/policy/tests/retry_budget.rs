//! The retry budget's rules as tables, and its bound over any window.

use std::time::Duration;

use plimsoll_policy::retry_budget::{Config, RetryBudget, Rule};
use plimsoll_policy::{Counts, Mode, Reason, Time};
use proptest::prelude::*;

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn budget(rule: Rule) -> RetryBudget {
    RetryBudget::new(Config { rule, mode: Mode::Enforce }, Time::ZERO).unwrap()
}

fn share(ratio: f64, min_per_second: f64) -> Rule {
    Rule::Share { ratio, min_per_second, window: Duration::from_secs(10) }
}

/// Withdraws until it is refused.
fn drain(budget: &mut RetryBudget, now: Time) -> u32 {
    (0..).take_while(|_| budget.withdraw(now).is_ok()).count() as u32
}

#[test]
fn the_default_is_a_fifth_of_the_calls_and_ten_a_second() {
    let mut budget = budget(Rule::default());
    for _ in 0..1_000 {
        budget.deposit(at(0));
    }
    assert_eq!(drain(&mut budget, at(0)), 200 + 100);
    let refused = budget.withdraw(at(0)).unwrap_err();
    assert_eq!((refused.reason, refused.retry_at), (Reason::BudgetExhausted, Some(at(1_000))));
    assert_eq!(budget.counts(), Counts { admitted: 300, rejected: 2, shadowed: 0 });
}

#[test]
fn it_refills_after_a_drain() {
    let mut budget = budget(share(0.0, 10.0));
    assert_eq!(drain(&mut budget, at(0)), 100);
    for (now, paid) in [(9_999, 0), (10_999, 0), (11_000, 100), (60_000, 100)] {
        assert_eq!(drain(&mut budget, at(now)), paid, "at {now} ms");
    }
}

#[test]
fn a_deposit_expires() {
    let mut budget = budget(share(0.5, 0.0));
    for _ in 0..10 {
        budget.deposit(at(500));
    }
    assert_eq!(budget.balance(at(9_999)), 5.0);
    assert_eq!(budget.balance(at(10_000)), 0.0);
    assert_eq!(drain(&mut budget, at(10_500)), 0);
}

#[test]
fn tokens_come_back_with_successes_only() {
    let mut budget = budget(Rule::adaptive(10.0, 0.1));
    assert_eq!(drain(&mut budget, at(0)), 10);
    assert_eq!(drain(&mut budget, at(3_600_000)), 0); // time alone fills nothing
    for _ in 0..9 {
        budget.succeed(false);
    }
    assert!(budget.withdraw(at(0)).is_err());
    budget.succeed(true);
    assert_eq!(drain(&mut budget, at(0)), 1); // ten tenths are a whole
    for _ in 0..1_000 {
        budget.succeed(false);
    }
    assert_eq!(drain(&mut budget, at(0)), 10); // and no more than the capacity
}

#[test]
fn the_aws_quota_refunds_a_retry_that_worked() {
    let mut budget = budget(Rule::AWS_STANDARD);
    assert_eq!(drain(&mut budget, at(0)), 100);
    budget.succeed(true);
    assert_eq!(drain(&mut budget, at(0)), 1);
    for _ in 0..5 {
        budget.succeed(false);
    }
    assert_eq!(drain(&mut budget, at(0)), 1);
}

#[test]
fn adaptive_retry_settles_where_the_formula_says() {
    // Every second attempt fails, three retries at most; after a long time the full bucket of the
    // start no longer shows.
    for (success_return, expected) in [(0.1, 1.0526), (0.2, 1.1111)] {
        let mut budget = budget(Rule::adaptive(10.0, success_return));
        let (mut attempts, calls) = (0u32, 200_000);
        let mut random = 1u64;
        for _ in 0..calls {
            for attempt in 0..4 {
                attempts += 1;
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if random >> 63 == 0 {
                    budget.succeed(attempt > 0);
                    break;
                }
                if attempt == 3 || budget.withdraw(at(0)).is_err() {
                    break;
                }
            }
        }
        let load = f64::from(attempts) / f64::from(calls);
        assert!((load - expected).abs() < 0.002, "load x{load}, expected x{expected}");
    }
}

#[test]
fn shadow_counts_and_pays() {
    let config = Config { rule: share(0.0, 0.1), mode: Mode::Shadow };
    let mut budget = RetryBudget::new(config, Time::ZERO).unwrap();
    assert!((0..5).all(|_| budget.withdraw(at(0)).is_ok()));
    assert_eq!(budget.counts(), Counts { admitted: 1, rejected: 0, shadowed: 4 });
}

#[test]
fn a_new_configuration_keeps_what_was_paid() {
    let mut budget = budget(share(0.0, 10.0));
    assert_eq!(drain(&mut budget, at(0)), 100);
    let mut set = |rule| {
        budget.set_config(Config { rule, mode: Mode::Enforce }, at(1)).unwrap();
        drain(&mut budget, at(1))
    };
    assert_eq!(set(share(0.0, 12.0)), 20);
    assert_eq!(set(share(0.0, 1.0)), 0);
    assert_eq!(set(Rule::adaptive(3.0, 0.1)), 3); // another rule starts anew
    assert_eq!(set(Rule::adaptive(5.0, 0.1)), 0);
    for (rule, field) in [
        (share(-0.1, 1.0), "ratio"),
        (share(0.1, f64::INFINITY), "min_per_second"),
        (Rule::Share { ratio: 0.1, min_per_second: 1.0, window: Duration::ZERO }, "window"),
        (Rule::adaptive(f64::NAN, 0.1), "capacity"),
        (Rule::adaptive(1.0, -0.1), "success_return"),
    ] {
        let refused = budget.set_config(Config { rule, mode: Mode::Enforce }, at(2)).unwrap_err();
        assert_eq!(refused.field, field);
    }
}

proptest! {
    /// In any window, retries are at most the share of the calls in the window before the last of
    /// them, and the reserve.
    #[test]
    fn never_pays_out_more_than_its_share(
        events in prop::collection::vec((0u64..400, any::<bool>()), 1..500),
        ratio in 0.0..1.5f64,
        min_per_second in 0.0..3.0f64,
    ) {
        let window = Duration::from_secs(1);
        let mut budget = budget(Rule::Share { ratio, min_per_second, window });
        let mut now = Time::ZERO;
        let (mut deposits, mut payouts) = (Vec::new(), Vec::new());
        for (wait_ms, is_deposit) in events {
            now = now + Duration::from_millis(wait_ms / 8);
            if is_deposit {
                budget.deposit(now);
                deposits.push(now);
            } else if budget.withdraw(now).is_ok() {
                payouts.push(now);
                let recent = |times: &[Time]| {
                    times.iter().filter(|&&t| t + window > now).count() as f64
                };
                let most = ratio * recent(&deposits) + min_per_second;
                prop_assert!(recent(&payouts) <= most + 1e-9);
            }
        }
    }
}
