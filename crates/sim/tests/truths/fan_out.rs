//! Fan-out: a page of many calls meets the tail of each.

use crate::check::{calm, holds, overall, system};

#[test]
fn a_hundred_calls_meet_one_in_a_hundred() {
    let file = "
system: fan-out
network: { same_zone: 0s }
clients: { web: { rate: 10/s, timeout: 500ms, calls: [page GET /] } }
services:
  page:
    async: true
    endpoints: { GET /: [{ for_each: 100, limit: 100, do: [{ call: leaf GET / }] }] }
  leaf:
    async: true
    endpoints: { GET /: [{ choice: [{ weight: 99, do: [{ wait: 1ms }] }, { weight: 1, do: [{ wait: 1s }] }] }] }
";
    let run = calm(&system(file), 1.0, 100.0);
    holds("pages that meet a slow call", &overall(&run, "errors"), 1.0 - 0.99f64.powi(100));
}
