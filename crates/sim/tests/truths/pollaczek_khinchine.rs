//! M/G/1: the wait grows with the variance of the service time.

use crate::check::{Truth, calm, overall, within};
use crate::erlang::file;

/// Means of 10 ms at 80% utilization: a wait of so many service times.
pub(crate) fn one_server(time: &str, wait: f64, seconds: f64) -> Truth {
    let what = format!("wait behind {time}");
    Truth::new(file(1, 80.0, "1M", time), move |system| {
        let run = calm(system, 20.0, seconds);
        let waits: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0 - 1.0).collect();
        vec![within(&what, &waits, wait)]
    })
}

#[test]
fn variance_is_waiting() {
    one_server("10ms", 2.0, 500.0).holds();
    one_server("exp(10ms)", 4.0, 1_000.0).holds();
    one_server("{ mean: 10ms, cv: 2 }", 10.0, 1_500.0).holds();
}
