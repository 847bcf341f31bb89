//! M/G/1: the wait grows with the variance of the service time.

use crate::check::{calm, holds, overall, system};
use crate::erlang::file;

#[test]
fn variance_is_waiting() {
    // Means of 10 ms at 80% utilization: waits of 2, 4 and 10 service times.
    for (time, wait, seconds) in
        [("10ms", 2.0, 500.0), ("exp(10ms)", 4.0, 1_000.0), ("{ mean: 10ms, cv: 2 }", 10.0, 2_000.0)]
    {
        let run = calm(&system(&file(1, 80.0, "1M", time)), 20.0, seconds);
        let waits: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0 - 1.0).collect();
        holds(&format!("wait behind {time}"), &waits, wait);
    }
}
