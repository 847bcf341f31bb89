//! The pipeline's order, and what the policies in it owe each other.

use std::time::Duration;

use plimsoll_policy::circuit_breaker::State;
use plimsoll_policy::pipeline::{Admission, Attempt, Config, Flight, Next, NoHedge, Pipeline, Reply, Waiting};
use plimsoll_policy::retry::{Backoff, Hint, Jitter, Stop};
use plimsoll_policy::retry_budget::Rule;
use plimsoll_policy::{
    Mode, Outcome, Reason, Rejected, Time, adaptive_limit, bulkhead, circuit_breaker, hedge, rate_limit, retry,
    retry_budget,
};
use proptest::prelude::*;

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const FAILED: Reply = Reply::new(Outcome::Failure);
const DONE: Reply = Reply::new(Outcome::Success);

fn pipeline(config: Config) -> Pipeline {
    Pipeline::new(config, Time::ZERO).unwrap()
}

/// Three attempts, 50 ms and 100 ms apart.
fn steady_retry() -> retry::Config {
    let backoff = Backoff { jitter: Jitter::None, ..Backoff::default() };
    retry::Config { backoff, ..retry::Config::default() }
}

fn retrying() -> Config {
    Config { retry: Some(steady_retry()), ..Config::default() }
}

fn attempt(pipeline: &mut Pipeline, now: Time, flight: &mut Flight) -> Attempt {
    match pipeline.attempt(now, flight, 0).unwrap() {
        Admission::Now(attempt) => attempt,
        Admission::Queued(waiting) => panic!("{waiting:?}"),
    }
}

/// Makes a call whose every attempt ends at once with `outcome`, to its end.
fn call(pipeline: &mut Pipeline, mut now: Time, outcome: impl Fn() -> Outcome) -> Result<Next, Rejected> {
    let mut flight = pipeline.start(now, None, true);
    loop {
        let attempt = match pipeline.attempt(now, &mut flight, 0)? {
            Admission::Now(attempt) => attempt,
            Admission::Queued(waiting) => panic!("{waiting:?}"),
        };
        let settled = pipeline.settle(now, &mut flight, attempt, outcome().into(), 0);
        match settled.next {
            Next::Retry { at } => now = at,
            end => return Ok(end),
        }
    }
}

#[test]
fn without_policies_every_call_is_made_once() {
    let mut pipeline = pipeline(Config::default());
    let mut flight = pipeline.start(at(0), None, true);
    let attempt = attempt(&mut pipeline, at(0), &mut flight);
    assert_eq!(attempt.deadline().to_wire(at(0)), None);
    let settled = pipeline.settle(at(1), &mut flight, attempt, FAILED, 0);
    assert_eq!(settled.next, Next::Exhausted(Stop::NotConfigured));
    assert_eq!(call(&mut pipeline, at(0), || Outcome::Success), Ok(Next::Done));
    assert_eq!(call(&mut pipeline, at(0), || Outcome::Ignored), Ok(Next::Done));
}

#[test]
fn a_failed_call_is_made_three_times_if_it_may_be_repeated() {
    for (repeatable, retryable, attempts, end) in [
        (true, true, 3, Stop::AttemptsExhausted),
        (false, true, 1, Stop::NotRepeatable),
        (true, false, 1, Stop::NotRetryable),
    ] {
        let mut pipeline = pipeline(retrying());
        let mut flight = pipeline.start(at(0), None, repeatable);
        let mut now = at(0);
        let stop = loop {
            let attempt = attempt(&mut pipeline, now, &mut flight);
            let reply = Reply { retryable, ..FAILED };
            match pipeline.settle(now, &mut flight, attempt, reply, 0).next {
                Next::Retry { at } => now = at,
                Next::Exhausted(stop) => break stop,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((stop, flight.attempts()), (end, attempts));
        assert_eq!(now, if attempts == 3 { at(150) } else { at(0) });
    }
}

#[test]
fn every_attempt_has_the_lesser_of_the_total_and_its_own_time() {
    let mut pipeline = pipeline(Config { timeout: Some(ms(1_000)), per_try_timeout: Some(ms(600)), ..retrying() });
    let mut flight = pipeline.start(at(0), Some(at(900)), true);
    assert_eq!(flight.deadline().time(), at(900), "the caller's is the earlier");
    let first = attempt(&mut pipeline, at(0), &mut flight);
    assert_eq!(first.deadline().time(), at(600));
    let next = pipeline.settle(at(600), &mut flight, first, FAILED, 0).next;
    assert_eq!(next, Next::Retry { at: at(650) });
    let second = attempt(&mut pipeline, at(650), &mut flight);
    assert_eq!(second.deadline().time(), at(900));
    let next = pipeline.settle(at(820), &mut flight, second, FAILED, 0).next;
    assert_eq!(next, Next::Exhausted(Stop::DeadlineTooClose));
}

#[test]
fn a_hint_past_the_deadline_ends_the_call_at_once() {
    let config = Config { timeout: Some(ms(1_000)), budget: Some(retry_budget::Config::default()), ..retrying() };
    let mut pipeline = pipeline(config);
    let mut flight = pipeline.start(at(0), None, true);
    let attempt = attempt(&mut pipeline, at(0), &mut flight);
    let hint = Hint { throttled: false, retry_after: Some(ms(1_000)) };
    let next = pipeline.settle(at(10), &mut flight, attempt, Reply { hint, ..FAILED }, 0).next;
    assert_eq!(next, Next::Exhausted(Stop::DeadlineTooClose));
    assert_eq!(pipeline.budget().unwrap().counts().admitted, 0, "and costs no budget");
}

#[test]
fn the_budget_is_wired_in() {
    // The target fails every call: three attempts each would be three times the load.
    let rule = Rule::Share { ratio: 0.2, min_per_second: 0.0, window: ms(10_000) };
    let budget = Some(retry_budget::Config { rule, mode: Mode::Enforce });
    let mut with = pipeline(Config { budget, ..retrying() });
    let mut without = pipeline(retrying());
    for i in 0..5_000 {
        call(&mut with, at(i), || Outcome::Failure).unwrap();
        call(&mut without, at(i), || Outcome::Failure).unwrap();
    }
    assert_eq!(without.totals().amplification(), 3.0);
    let amplification = with.totals().amplification();
    assert!((1.19..=1.2).contains(&amplification), "x{amplification}");
    let refused = with.budget().unwrap().counts().rejected;
    assert!(refused > 0);
}

#[test]
fn a_success_refills_a_token_budget() {
    let rule = Rule::adaptive(1.0, 1.0);
    let budget = Some(retry_budget::Config { rule, mode: Mode::Enforce });
    let mut pipeline = pipeline(Config { budget, ..retrying() });
    assert_eq!(call(&mut pipeline, at(0), || Outcome::Failure), Ok(Next::Exhausted(Stop::BudgetExhausted)));
    assert_eq!(pipeline.budget_balance(at(0)), Some(0.0));
    call(&mut pipeline, at(0), || Outcome::Success).unwrap();
    assert_eq!(pipeline.budget_balance(at(0)), Some(1.0));
}

#[test]
fn nested_layers_multiply_and_it_shows() {
    // Three layers of three attempts over a target that always fails.
    fn nested(layers: &mut [Pipeline], now: Time, bottom: &std::cell::Cell<u32>) -> Outcome {
        let Some((top, rest)) = layers.split_first_mut() else {
            bottom.set(bottom.get() + 1);
            return Outcome::Failure;
        };
        let mut flight = top.start(now, None, true);
        loop {
            let attempt = attempt(top, now, &mut flight);
            let outcome = nested(rest, now, bottom);
            match top.settle(now, &mut flight, attempt, outcome.into(), 0).next {
                Next::Retry { .. } => {}
                _ => return outcome,
            }
        }
    }
    let mut layers = [(); 3].map(|()| pipeline(retrying()));
    let bottom = std::cell::Cell::new(0);
    nested(&mut layers, at(0), &bottom);
    assert_eq!(bottom.get(), 27);
    let product: f64 = layers.iter().map(|layer| layer.totals().amplification()).product();
    assert_eq!(product, 27.0);
}

#[test]
fn a_rejection_of_our_own_is_final_and_costs_no_attempt() {
    let mut pipeline = pipeline(Config {
        breaker: Some(circuit_breaker::Config { minimum_calls: 2, ..Default::default() }),
        ..retrying()
    });
    // Two failed attempts trip the breaker; the third attempt of the same call meets it.
    let end = call(&mut pipeline, at(0), || Outcome::Failure);
    let open_until = pipeline.next_wake();
    assert_eq!(end, Err(Rejected { reason: Reason::BreakerOpen, retry_at: open_until }));
    assert_eq!(pipeline.totals().attempts, 2);
    assert_eq!(pipeline.breaker().unwrap().state(), State::Open);
    let transition = pipeline.poll_transition().unwrap();
    assert_eq!((transition.from, transition.to), (State::Closed, State::Open));
    assert_eq!(pipeline.poll_transition(), None);
    pipeline.on_wake(open_until.unwrap());
    assert_eq!(pipeline.poll_transition().unwrap().to, State::HalfOpen);
}

#[test]
fn our_own_rejections_never_reach_the_breaker() {
    let rate_limit = Some(rate_limit::Config::new(1, ms(1_000)));
    let bulkhead = Some(bulkhead::Config { permits: 1, ..Default::default() });
    let adaptive = Some(adaptive_limit::Config { initial: 1, min: 1, ..Default::default() });
    for (config, reason) in [
        (Config { rate_limit, ..retrying() }, Reason::RateLimited),
        (Config { bulkhead, ..retrying() }, Reason::BulkheadFull),
        (Config { adaptive_limit: adaptive, ..retrying() }, Reason::LimitReached),
    ] {
        // Half-open with one probe: were a rejection to keep the slot, or to count, it would show.
        let breaker = circuit_breaker::Config { minimum_calls: 1, half_open_probes: 2, ..Default::default() };
        let mut pipeline = pipeline(Config { breaker: Some(breaker), ..config });
        let mut flight = pipeline.start(at(0), None, false);
        let first = attempt(&mut pipeline, at(0), &mut flight);
        let _ = pipeline.settle(at(0), &mut flight, first, FAILED, 0);
        let mut flight = pipeline.start(at(6_000), None, false);
        let probe = attempt(&mut pipeline, at(6_000), &mut flight);
        for _ in 0..10 {
            let mut flight = pipeline.start(at(6_000), None, true);
            let rejected = pipeline.attempt(at(6_000), &mut flight, 0).unwrap_err();
            assert_eq!((rejected.reason, flight.attempts()), (reason, 0));
        }
        let _ = pipeline.settle(at(7_000), &mut flight, probe, DONE, 0);
        assert_eq!(pipeline.breaker().unwrap().state(), State::HalfOpen);
        let mut flight = pipeline.start(at(7_000), None, false);
        let probe = attempt(&mut pipeline, at(7_000), &mut flight);
        let _ = pipeline.settle(at(7_000), &mut flight, probe, DONE, 0);
        assert_eq!(pipeline.breaker().unwrap().state(), State::Ramping, "{reason:?}");
    }
}

#[test]
fn health_checks_are_exempt_from_the_rate_limit() {
    let rate_limit = Some(rate_limit::Config::new(1, ms(1_000)));
    let mut pipeline = pipeline(Config { rate_limit, ..Config::default() });
    for _ in 0..10 {
        let mut flight = pipeline.start(at(0), None, true).with_cost(0);
        let attempt = attempt(&mut pipeline, at(0), &mut flight);
        assert_eq!(pipeline.settle(at(0), &mut flight, attempt, DONE, 0).next, Next::Done);
    }
    assert!(call(&mut pipeline, at(0), || Outcome::Success).is_ok());
    assert!(call(&mut pipeline, at(0), || Outcome::Success).is_err());
}

fn queueing(permits: u32) -> Config {
    let bulkhead = bulkhead::Config { permits, queue: 10, ..Default::default() };
    Config { timeout: Some(ms(500)), per_try_timeout: Some(ms(300)), bulkhead: Some(bulkhead), ..retrying() }
}

#[test]
fn a_waiting_attempt_goes_ahead_when_another_is_settled() {
    let mut pipeline = pipeline(queueing(1));
    let mut first = pipeline.start(at(0), None, true);
    let running = attempt(&mut pipeline, at(0), &mut first);
    let mut second = pipeline.start(at(10), None, true);
    let Ok(Admission::Queued(waiting)) = pipeline.attempt(at(10), &mut second, 0) else {
        panic!("expected to wait");
    };
    assert_eq!(waiting.until(), at(510), "the deadline covers the wait");
    assert_eq!((second.attempts(), second.outstanding()), (0, 0));
    let settled = pipeline.settle(at(200), &mut first, running, DONE, 0);
    let granted = settled.granted.expect("the next one's turn");
    assert_eq!(granted.ticket, waiting.ticket());
    let attempt = pipeline.resume(at(200), &mut second, waiting, granted);
    // The per-try timeout starts now, the total one started when the call came.
    assert_eq!((attempt.started(), attempt.deadline().time()), (at(200), at(500)));
    assert_eq!((second.attempts(), second.outstanding()), (1, 1));
    assert!(pipeline.cancel(at(210), &mut second, attempt).is_none());
    assert_eq!(pipeline.bulkhead().unwrap().in_flight(), 0);
}

#[test]
fn a_waiting_attempt_that_gives_up_leaves_nothing_behind() {
    let breaker = circuit_breaker::Config { minimum_calls: 1, half_open_probes: 1, ..Default::default() };
    let config = queueing(1);
    for (max_wait, given_up, reason) in
        [(ms(100), at(6_110), Reason::BulkheadTimeout), (ms(1_000), at(6_510), Reason::DeadlineExceeded)]
    {
        let bulkhead = bulkhead::Config { max_wait, ..config.bulkhead.unwrap() };
        let adaptive_limit = Some(adaptive_limit::Config::default());
        let mut pipeline =
            pipeline(Config { breaker: Some(breaker), bulkhead: Some(bulkhead), adaptive_limit, ..config });
        let mut first = pipeline.start(at(0), None, false);
        let mut second = pipeline.start(at(0), None, false);
        let running = attempt(&mut pipeline, at(0), &mut first);
        let Ok(Admission::Queued(extra)) = pipeline.attempt(at(0), &mut second, 0) else { panic!() };
        let granted = pipeline.settle(at(1), &mut first, running, FAILED, 0).granted.unwrap();
        let running = pipeline.resume(at(1), &mut second, extra, granted);
        // The breaker is open; at 6 s a probe comes, and waits behind `running`.
        let mut probe = pipeline.start(at(6_010), None, false);
        let Ok(Admission::Queued(waiting)) = pipeline.attempt(at(6_010), &mut probe, 0) else { panic!() };
        assert_eq!(waiting.until(), given_up);
        let rejected = pipeline.give_up(given_up, &probe, waiting);
        assert_eq!(rejected.reason, reason);
        assert!(pipeline.settle(given_up, &mut second, running, DONE, 0).granted.is_none());
        // Its probe slot is free for the next.
        assert_eq!(call(&mut pipeline, given_up, || Outcome::Success), Ok(Next::Done));
        assert_eq!(pipeline.breaker().unwrap().state(), State::Ramping);
        assert_eq!(pipeline.adaptive_limit().unwrap().in_flight(), 0);
    }
}

#[test]
fn a_wait_in_the_queue_is_not_the_targets_latency() {
    let adaptive_limit = Some(adaptive_limit::Config {
        algorithm: adaptive_limit::Algorithm::Aimd { backoff: 0.5, timeout: ms(100) },
        initial: 2,
        min: 1,
        ..Default::default()
    });
    let mut pipeline = pipeline(Config { adaptive_limit, ..queueing(1) });
    let mut first = pipeline.start(at(0), None, true);
    let mut second = pipeline.start(at(0), None, true);
    let running = attempt(&mut pipeline, at(0), &mut first);
    let Ok(Admission::Queued(waiting)) = pipeline.attempt(at(0), &mut second, 0) else {
        panic!("expected to wait");
    };
    let granted = pipeline.cancel(at(400), &mut first, running).unwrap();
    let resumed = pipeline.resume(at(400), &mut second, waiting, granted);
    let _ = pipeline.settle(at(410), &mut second, resumed, DONE, 0);
    assert_eq!(pipeline.adaptive_limit().unwrap().limit(), 3.0, "10 ms, not 410");
}

/// Hedges after 10 ms once a hundred calls have been seen.
fn hedging(config: Config) -> Pipeline {
    let mut pipeline = pipeline(Config { hedge: Some(hedge::Config::default()), ..config });
    for i in 0..100 {
        let mut flight = pipeline.start(at(i), None, true);
        assert_eq!(pipeline.hedge_after(&flight), None);
        let attempt = attempt(&mut pipeline, at(i), &mut flight);
        let _ = pipeline.settle(at(i + 10), &mut flight, attempt, DONE, 0);
    }
    pipeline
}

#[test]
fn a_slow_call_is_hedged_once_and_the_first_answer_wins() {
    let bulkhead = Some(bulkhead::Config { permits: 3, ..Default::default() });
    let mut pipeline = hedging(Config { bulkhead, ..retrying() });
    let mut flight = pipeline.start(at(0), None, true);
    let slow = attempt(&mut pipeline, at(0), &mut flight);
    let delay = pipeline.hedge_after(&flight).unwrap();
    assert!((ms(10)..ms(11)).contains(&delay));
    let extra = pipeline.hedge(at(11), &mut flight, 0).unwrap();
    assert_eq!(pipeline.hedge(at(12), &mut flight, 0).unwrap_err(), NoHedge::Declined);
    assert_eq!(pipeline.bulkhead().unwrap().in_flight(), 2, "it holds a permit like any other");
    assert_eq!((flight.attempts(), flight.outstanding()), (2, 2));
    assert_eq!(pipeline.settle(at(15), &mut flight, extra, DONE, 0).next, Next::Done);
    assert!(pipeline.cancel(at(15), &mut flight, slow).is_none());
    assert_eq!((pipeline.bulkhead().unwrap().in_flight(), flight.outstanding()), (0, 0));
    assert_eq!((pipeline.totals().attempts, pipeline.totals().hedges), (102, 1));
    assert_eq!(pipeline.hedge(at(16), &mut flight, 0).unwrap_err(), NoHedge::NotRepeatable);
}

#[test]
fn a_failure_waits_for_the_attempt_that_is_still_out() {
    let mut pipeline = hedging(retrying());
    for (first, second, then, finally) in [
        (FAILED, DONE, Next::Wait, Next::Done),
        (FAILED, FAILED, Next::Wait, Next::Retry { at: at(70) }),
        (DONE, FAILED, Next::Done, Next::Done), // a loser that was not cancelled in time
    ] {
        let mut flight = pipeline.start(at(0), None, true);
        let one = attempt(&mut pipeline, at(0), &mut flight);
        let two = pipeline.hedge(at(11), &mut flight, 0).unwrap();
        assert_eq!(pipeline.settle(at(15), &mut flight, one, first, 0).next, then);
        assert_eq!(pipeline.settle(at(20), &mut flight, two, second, 0).next, finally);
    }
}

#[test]
fn every_try_may_be_hedged_anew() {
    let mut pipeline = hedging(retrying());
    let mut flight = pipeline.start(at(0), None, true);
    for (now, next) in [
        (0, Next::Retry { at: at(70) }),
        (70, Next::Retry { at: at(190) }),
        (190, Next::Exhausted(Stop::AttemptsExhausted)),
    ] {
        let one = attempt(&mut pipeline, at(now), &mut flight);
        let two = pipeline.hedge(at(now + 11), &mut flight, 0).unwrap();
        let settled = pipeline.settle(at(now + 20), &mut flight, one, FAILED, 0);
        assert_eq!(settled.next, Next::Wait);
        let settled = pipeline.settle(at(now + 20), &mut flight, two, FAILED, 0);
        assert_eq!(settled.next, next);
    }
    assert_eq!(flight.attempts(), 6);
}

#[test]
fn only_the_extra_attempt_depends_on_the_budget() {
    let rule = Rule::Share { ratio: 0.0, min_per_second: 0.1, window: ms(10_000) };
    let budget = Some(retry_budget::Config { rule, mode: Mode::Enforce });
    let mut pipeline = hedging(Config { budget, ..retrying() });
    for expected in [Ok(()), Err(NoHedge::Declined)] {
        let mut flight = pipeline.start(at(0), None, true);
        let first = attempt(&mut pipeline, at(0), &mut flight);
        let extra = pipeline.hedge(at(11), &mut flight, 0);
        assert_eq!(extra.as_ref().map(|_| ()).map_err(|no| *no), expected);
        // The call goes on as if nothing had been asked.
        assert_eq!(pipeline.settle(at(30), &mut flight, first, DONE, 0).next, Next::Done);
        if let Ok(extra) = extra {
            assert!(pipeline.cancel(at(30), &mut flight, extra).is_none());
        }
    }
    // And the retry that would have come out of the same budget has nothing left.
    assert_eq!(call(&mut pipeline, at(31), || Outcome::Failure), Ok(Next::Exhausted(Stop::BudgetExhausted)));
}

#[test]
fn no_hedge_where_it_would_do_harm() {
    let bulkhead = Some(bulkhead::Config { permits: 1, ..Default::default() });
    let budget = Some(retry_budget::Config::default());
    let mut full = hedging(Config { bulkhead, budget, ..retrying() });
    let mut flight = full.start(at(0), None, true);
    let held = attempt(&mut full, at(0), &mut flight);
    let no = full.hedge(at(11), &mut flight, 0).unwrap_err();
    assert_eq!(no, NoHedge::Rejected(Rejected::new(Reason::BulkheadFull)));
    assert_eq!(full.budget().unwrap().counts().admitted, 0, "and costs no budget");
    assert!(full.cancel(at(12), &mut flight, held).is_none());

    let mut post = full.start(at(20), None, false);
    assert_eq!(full.hedge_after(&post), None);
    let held = attempt(&mut full, at(20), &mut post);
    assert_eq!(full.hedge(at(40), &mut post, 0).unwrap_err(), NoHedge::NotRepeatable);
    assert!(full.cancel(at(41), &mut post, held).is_none());

    let breaker = circuit_breaker::Config { minimum_calls: 1, failure_rate: 0.001, ..Default::default() };
    let mut open = hedging(Config { breaker: Some(breaker), ..Config::default() });
    let mut flight = open.start(at(200), None, true);
    let held = attempt(&mut open, at(200), &mut flight);
    call(&mut open, at(200), || Outcome::Failure).unwrap();
    assert_eq!(open.hedge(at(211), &mut flight, 0).unwrap_err(), NoHedge::BreakerNotClosed);
    assert!(open.cancel(at(212), &mut flight, held).is_none());
}

fn everything(mode: Mode) -> Config {
    let breaker = circuit_breaker::Config { minimum_calls: 2, mode, ..Default::default() };
    Config {
        timeout: Some(ms(50)),
        per_try_timeout: Some(ms(20)),
        timeout_mode: mode,
        retry: Some(retry::Config { mode, ..retry::Config::default() }),
        budget: Some(retry_budget::Config { mode, ..Default::default() }),
        breaker: Some(breaker),
        rate_limit: Some(rate_limit::Config { mode, ..rate_limit::Config::new(1, ms(1_000)) }),
        adaptive_limit: Some(adaptive_limit::Config { mode, ..Default::default() }),
        bulkhead: Some(bulkhead::Config { permits: 1, queue: 1, mode, ..Default::default() }),
        hedge: Some(hedge::Config { min_samples: 1, mode, ..Default::default() }),
    }
}

#[test]
fn in_shadow_mode_nothing_is_turned_away_repeated_or_aborted() {
    let mut pipeline = pipeline(everything(Mode::Shadow));
    let mut held = Vec::new();
    for i in 0..200 {
        let mut flight = pipeline.start(at(i), Some(at(i)), true);
        let attempt = attempt(&mut pipeline, at(i), &mut flight);
        assert_eq!(attempt.deadline().to_wire(at(i)), None);
        held.push((flight, attempt));
    }
    for (mut flight, attempt) in held {
        assert!(pipeline.hedge(at(300), &mut flight, 0).is_err());
        let settled = pipeline.settle(at(300), &mut flight, attempt, FAILED, 0);
        assert_eq!(settled.next, Next::Exhausted(Stop::Shadowed));
        assert!(settled.granted.is_none());
    }
    assert_eq!(pipeline.totals().amplification(), 1.0);
    for (name, counts) in [
        ("timeouts", pipeline.timeouts().counts()),
        ("retry", pipeline.retry().unwrap().counts()),
        ("rate limit", pipeline.rate_limit().unwrap().counts()),
        ("adaptive limit", pipeline.adaptive_limit().unwrap().counts()),
        ("bulkhead", pipeline.bulkhead().unwrap().counts()),
    ] {
        assert!(counts.shadowed > 0 && counts.rejected == 0, "{name}: {counts:?}");
    }
    assert_eq!(pipeline.breaker().unwrap().state(), State::Open, "it evolves all the same");
}

#[test]
fn a_new_configuration_keeps_state_and_strands_nobody() {
    let breaker = Some(circuit_breaker::Config { minimum_calls: 2, ..Default::default() });
    let config = Config { breaker, ..queueing(1) };
    let mut pipeline = pipeline(config);
    let mut first = pipeline.start(at(0), None, false);
    let mut second = pipeline.start(at(0), None, false);
    let running = attempt(&mut pipeline, at(0), &mut first);
    let Ok(Admission::Queued(waiting)) = pipeline.attempt(at(0), &mut second, 0) else { panic!() };

    let invalid =
        Config { retry: Some(retry::Config { attempts: 0, ..retry::Config::default() }), breaker: None, ..config };
    assert_eq!(pipeline.set_config(invalid, at(1)).unwrap_err().field, "attempts");
    assert_eq!(*pipeline.config(), config, "an invalid part changes nothing");

    // The breaker and the bulkhead go: whoever waited gets a turn.
    pipeline.set_config(retrying(), at(2)).unwrap();
    let granted = pipeline.grant(at(2)).unwrap();
    let resumed = pipeline.resume(at(2), &mut second, waiting, granted);
    assert!(pipeline.grant(at(2)).is_none());
    // They come back: permits of the breaker that was are nothing to the one that is, and the
    // bulkhead still knows who is in flight.
    pipeline.set_config(config, at(3)).unwrap();
    assert_eq!(pipeline.bulkhead().unwrap().in_flight(), 2);
    for (flight, attempt) in [(&mut first, running), (&mut second, resumed)] {
        let settled = pipeline.settle(at(4), flight, attempt, FAILED, 0);
        assert_eq!(settled.next, Next::Exhausted(Stop::NotRepeatable));
    }
    assert_eq!(pipeline.breaker().unwrap().state(), State::Closed);
    assert_eq!(pipeline.bulkhead().unwrap().in_flight(), 0);
}

#[test]
fn what_travels_with_a_call_is_small() {
    assert!(std::mem::size_of::<Flight>() <= 40);
    assert!(std::mem::size_of::<Attempt>() <= 64);
}

#[derive(Clone, Debug)]
enum Event {
    Start { repeatable: bool },
    Settle { which: prop::sample::Index, outcome: Outcome, random: u64 },
    Hedge(prop::sample::Index),
    Cancel(prop::sample::Index),
    GiveUp(prop::sample::Index),
    Advance(u64),
    SetConfig(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        6 => any::<bool>().prop_map(|repeatable| Event::Start { repeatable }),
        6 => (index(), outcome, any::<u64>())
            .prop_map(|(which, outcome, random)| Event::Settle { which, outcome, random }),
        1 => index().prop_map(Event::Hedge),
        1 => index().prop_map(Event::Cancel),
        1 => index().prop_map(Event::GiveUp),
        3 => (1u64..40).prop_map(Event::Advance),
        1 => any::<bool>().prop_map(Event::SetConfig),
    ]
}

/// A client that reads its answer slowly makes no target slow.
#[test]
fn what_comes_after_the_answer_is_no_latency() {
    let slow_calls =
        circuit_breaker::Config { slow_call: ms(100), slow_call_rate: 0.5, minimum_calls: 2, ..Default::default() };
    let limit = adaptive_limit::Config { algorithm: adaptive_limit::Algorithm::AIMD, min: 1, ..Default::default() };
    for (excluded, trips) in [(true, 0), (false, 1)] {
        let config = Config { breaker: Some(slow_calls), adaptive_limit: Some(limit), ..Config::default() };
        let mut pipeline = pipeline(config);
        for call in 0..2u64 {
            let start = Time::from_nanos(call * 7_000_000_000);
            let mut flight = pipeline.start(start, None, true);
            let Ok(Admission::Now(mut attempt)) = pipeline.attempt(start, &mut flight, 0) else { panic!("admitted") };
            // The head of the answer after 10 ms, the end of its body after 6 s.
            let end = start + ms(6_000);
            if excluded {
                attempt.exclude_since(start + ms(10), end);
            }
            let _ = pipeline.settle(end, &mut flight, attempt, Outcome::Success.into(), 0);
        }
        let opened = std::iter::from_fn(|| pipeline.poll_transition()).count();
        assert_eq!(opened.min(1), trips, "excluded: {excluded}");
        assert_eq!(pipeline.adaptive_limit().unwrap().limit() < 20.0, !excluded, "AIMD's timeout is 5 s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With every policy on, whatever happens, no permit is lost or given twice: once everything
    /// has ended nothing is in flight, and before that the bulkhead holds its bound.
    #[test]
    fn no_permit_is_lost(events in prop::collection::vec(event(), 1..300)) {
        let mut config = everything(Mode::Enforce);
        config.bulkhead = Some(bulkhead::Config { permits: 3, queue: 3, ..Default::default() });
        config.rate_limit = Some(rate_limit::Config::new(200, ms(1_000)));
        let mut pipeline = pipeline(config);
        let mut flights: Vec<Flight> = Vec::new();
        let mut running = Vec::new();
        let mut waiting = Vec::new();
        let mut now = Time::ZERO;
        // A settled attempt's permit goes to the waiter whose turn it is.
        macro_rules! hand_over {
            ($granted:expr) => {
                if let Some(granted) = $granted {
                    let index = waiting
                        .iter()
                        .position(|(_, w): &(usize, Waiting)| w.ticket() == granted.ticket)
                        .expect("granted to a waiter");
                    let (flight, waiting) = waiting.remove(index);
                    let resumed = pipeline.resume(now, &mut flights[flight], waiting, granted);
                    running.push((flight, resumed));
                }
            };
        }
        // The driver's timers.
        macro_rules! time_out {
            () => {
                while let Some(i) = waiting.iter().position(|(_, w)| w.until() <= now) {
                    let (flight, waiting) = waiting.swap_remove(i);
                    pipeline.give_up(now, &flights[flight], waiting);
                }
            };
        }
        for event in events {
            match event {
                Event::Start { repeatable } => {
                    let mut flight = pipeline.start(now, None, repeatable);
                    match pipeline.attempt(now, &mut flight, 0) {
                        Ok(Admission::Now(attempt)) => running.push((flights.len(), attempt)),
                        Ok(Admission::Queued(ticket)) => waiting.push((flights.len(), ticket)),
                        Err(_) => {}
                    }
                    flights.push(flight);
                }
                Event::Settle { which, outcome, random } if !running.is_empty() => {
                    let (flight, attempt) = running.swap_remove(which.index(running.len()));
                    let settled =
                        pipeline.settle(now, &mut flights[flight], attempt, outcome.into(), random);
                    hand_over!(settled.granted);
                    if let Next::Retry { at } = settled.next {
                        prop_assert!(flights[flight].deadline().allows(at));
                        now = now.max(at);
                        time_out!();
                        match pipeline.attempt(now, &mut flights[flight], 0) {
                            Ok(Admission::Now(attempt)) => running.push((flight, attempt)),
                            Ok(Admission::Queued(ticket)) => waiting.push((flight, ticket)),
                            Err(_) => {}
                        }
                    }
                }
                Event::Hedge(which) if !running.is_empty() => {
                    let flight = running[which.index(running.len())].0;
                    if let Ok(attempt) = pipeline.hedge(now, &mut flights[flight], 0) {
                        running.push((flight, attempt));
                    }
                }
                Event::Cancel(which) if !running.is_empty() => {
                    let (flight, attempt) = running.swap_remove(which.index(running.len()));
                    hand_over!(pipeline.cancel(now, &mut flights[flight], attempt));
                }
                Event::GiveUp(which) if !waiting.is_empty() => {
                    let (flight, ticket) = waiting.swap_remove(which.index(waiting.len()));
                    pipeline.give_up(now, &flights[flight], ticket);
                }
                Event::Settle { .. } | Event::Hedge(_) | Event::Cancel(_) | Event::GiveUp(_) => {}
                Event::Advance(by) => {
                    now = now + ms(by);
                    time_out!();
                }
                Event::SetConfig(breaker) => {
                    let changed = Config { breaker: config.breaker.filter(|_| breaker), ..config };
                    pipeline.set_config(changed, now).unwrap();
                }
            }
            let bulkhead = pipeline.bulkhead().unwrap();
            prop_assert_eq!(bulkhead.in_flight() as usize, running.len());
            prop_assert!(bulkhead.in_flight() <= 3 && bulkhead.waiting() <= 3);
            prop_assert_eq!(
                pipeline.adaptive_limit().unwrap().in_flight() as usize,
                running.len() + waiting.len()
            );
        }
        while let Some((flight, attempt)) = running.pop() {
            hand_over!(pipeline.cancel(now, &mut flights[flight], attempt));
        }
        prop_assert!(waiting.is_empty(), "a free permit while somebody waits");
        prop_assert!(flights.iter().all(|flight| flight.outstanding() == 0));
    }
}
