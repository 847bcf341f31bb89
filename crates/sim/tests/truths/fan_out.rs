//! Fan-out: a page of many calls meets the tail of each.

use crate::check::{Truth, calm, overall, within};

/// A page of so many calls, of which a share is slow: the share of pages that meet a slow one.
pub(crate) fn page(calls: u32, slow: u32) -> Truth {
    let file = format!(
        "
system: fan-out
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 20/s, timeout: 500ms, calls: [page GET /] }} }}
services:
  page:
    async: true
    endpoints: {{ GET /: [{{ for_each: {calls}, limit: {calls}, do: [{{ call: leaf GET / }}] }}] }}
  leaf:
    async: true
    endpoints:
      GET /: [{{ choice: [{{ weight: {}, do: [{{ wait: 10ms }}] }}, {{ weight: {slow}, do: [{{ wait: 810ms }}] }}] }}]
",
        100 - slow
    );
    Truth::new(file, move |system| {
        let meets = 1.0 - (1.0 - slow as f64 / 100.0).powi(calls as i32);
        let run = calm(system, 1.0, 60.0);
        vec![within(&format!("pages of {calls} that meet one in {slow}%"), &overall(&run, "errors"), meets)]
    })
}

/// 63.4% of the pages.
#[test]
fn a_hundred_calls_meet_one_in_a_hundred() {
    page(100, 1).holds();
}

/// 5% at 810 ms and the rest at 10 are 50 ms on average; 64% of the pages of twenty calls take 810.
#[test]
fn a_mean_hides_what_twenty_calls_meet() {
    page(20, 5).holds();
}
