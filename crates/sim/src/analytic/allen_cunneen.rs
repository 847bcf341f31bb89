//! G/G/c: any arrivals, any service time, c servers; approximate.
//!
//! Allen and Cunneen (1978): M/M/c's wait times `(ca2 + cs2) / 2`. Exact for M/M/c and M/G/1, and
//! close while the servers are busy.

use super::Mmc;

/// Mean wait in the queue, in the unit of `service`. The squared coefficients of variation are those
/// of the gaps between arrivals and of the service time. Infinite where the servers cannot keep up.
pub fn allen_cunneen(rate: f64, service: f64, servers: u32, arrivals_scv: f64, service_scv: f64) -> f64 {
    match Mmc::new(rate, service, servers) {
        Some(queue) => queue.wait() * (arrivals_scv + service_scv) / 2.0,
        None => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::{digits, pollaczek_khinchine};

    #[test]
    fn variation_scales_the_wait() {
        for (scv, wait) in [(0.0, 0.2222), (1.0, 0.4444), (4.0, 1.1111)] {
            digits(allen_cunneen(2.0, 1.0, 3, 1.0, scv), wait, 4);
        }
    }

    #[test]
    fn one_server_is_pollaczek_khinchine() {
        digits(allen_cunneen(0.7, 1.0, 1, 1.0, 2.5), pollaczek_khinchine(0.7, 1.0, 2.5), 9);
        assert_eq!(allen_cunneen(3.0, 1.0, 3, 1.0, 1.0), f64::INFINITY);
    }
}
