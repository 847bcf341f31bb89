//! M/G/1: Poisson arrivals, any service time, one server.
//!
//! Pollaczek (1930) and Khinchine (1932): `Wq = rho S (1 + cs2) / (2 (1 - rho))`.

/// Mean wait in the queue, in the unit of `service`. `scv` is the service time's squared coefficient
/// of variation: 0 constant, 1 exponential. Infinite where the server cannot keep up.
pub fn pollaczek_khinchine(rate: f64, service: f64, scv: f64) -> f64 {
    let busy = rate * service;
    if busy >= 1.0 {
        return f64::INFINITY;
    }
    busy * service * (1.0 + scv) / (2.0 * (1.0 - busy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    #[test]
    fn variation_is_waiting() {
        for (scv, wait) in [(0.0, 2.0), (1.0, 4.0), (4.0, 10.0)] {
            digits(pollaczek_khinchine(0.8, 1.0, scv), wait, 9);
        }
        assert_eq!(pollaczek_khinchine(1.0, 1.0, 0.0), f64::INFINITY);
    }
}
