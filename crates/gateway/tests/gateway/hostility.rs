//! One of three instances goes bad under load, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::*;

const WELL: u8 = 0;
const KILLED: u8 = 1;
const PAUSED: u8 = 2;
const SLOW: u8 = 3;
const FAILING: u8 = 4;

/// Retries are a fifth of the calls at most.
const POLICIES: &str = "balance: least_connections
per_try_timeout: 300ms
timeout: 5s
retry: { attempts: 3, backoff: 1ms..5ms, when: [connect_error, reset, timeout, 500, 503], budget: 20% }
outliers: { consecutive_failures: 3, eject_for: 300ms, max_ejected: 50%, panic_below: 10%, slow_start: 0s }";

/// An instance that behaves as it is told.
fn instance() -> (Backend, Arc<AtomicU8>) {
    let mode = Arc::new(AtomicU8::new(WELL));
    let told = mode.clone();
    let backend = Backend::new(move |_| match told.load(Ordering::SeqCst) {
        KILLED => Does::Reset,
        FAILING => Does::Answer(answer(503, "", "bad")),
        SLOW => {
            pause(500);
            Does::Answer(ok("late"))
        }
        PAUSED => {
            while told.load(Ordering::SeqCst) == PAUSED {
                pause(5);
            }
            Does::Answer(ok("woken"))
        }
        _ => Does::Answer(ok("well")),
    });
    (backend, mode)
}

fn goes_bad(how: u8) {
    let (first, bad, third) = (Backend::ok("first"), instance(), Backend::ok("third"));
    let (bad, mode) = bad;
    let gateway = gateway(&[&first, &bad, &third], POLICIES);
    let load = Load::start(gateway.addresses()[0], 6);
    eventually("all is well", || bad.requests() > 100);
    let before = bad.requests();
    mode.store(how, Ordering::SeqCst);
    eventually("it is asked all the same", || bad.requests() > before + 3);
    load.goes_on(300);
    let before = bad.requests();
    mode.store(WELL, Ordering::SeqCst);
    eventually("traffic returns", || bad.requests() > before + 200);
    let (answered, failed) = load.end();
    assert_eq!(failed, 0, "of {answered}");
    let asked = first.requests() + bad.requests() + third.requests();
    // The budget, its few a second on top, and what was on its way on connections that broke.
    let most = answered * 12 / 10 + 100;
    assert!(asked <= most, "{asked} requests behind for {answered} in front");
    gateway.stop(true);
}

#[test]
fn a_killed_instance_costs_no_request() {
    goes_bad(KILLED);
}

#[test]
fn a_paused_instance_costs_no_request() {
    goes_bad(PAUSED);
}

#[test]
fn a_slow_instance_costs_no_request() {
    goes_bad(SLOW);
}

#[test]
fn a_failing_instance_costs_no_request() {
    goes_bad(FAILING);
}

#[test]
fn reloads_of_policies_cost_no_request_while_an_instance_fails() {
    let (first, (bad, mode), third) = (Backend::ok("first"), instance(), Backend::ok("third"));
    let addresses = [first.address, bad.address, third.address];
    let text = |round: usize| {
        let balance = ["least_connections", "p2c", "round_robin"][round % 3];
        file(&addresses, &POLICIES.replace("least_connections", balance), "")
    };
    let gateway = start(&text(0));
    let load = Load::start(gateway.addresses()[0], 4);
    for round in 0..40 {
        mode.store(if round % 8 < 4 { WELL } else { FAILING }, Ordering::SeqCst);
        gateway.reload(plan(&text(round))).unwrap();
        load.goes_on(5);
    }
    let (answered, failed) = load.end();
    assert!(answered > 100 && failed == 0, "{answered} answered, {failed} failed");
    gateway.stop(true);
}
