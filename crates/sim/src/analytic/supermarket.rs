//! The supermarket model: each of a great many servers has its own queue, and a request joins the
//! shortest of d that are picked at random.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001, and
//! Vvedenskaya, Dobrushin and Karpelevich (1996): in the limit of many servers the share of queues
//! with at least i requests is `rho^((d^i - 1) / (d - 1))`, doubly exponential in i for d above 1, so
//! that the mean time in the system is `S sum rho^((d^i - d) / (d - 1))` over i from 1.

/// Mean time in the system, in the unit of `service`, for Poisson arrivals that keep each server busy
/// for a share `busy` of the time, exponential service, and `choices` queues looked at. Infinite
/// where the servers cannot keep up.
pub fn supermarket(busy: f64, service: f64, choices: u32) -> f64 {
    if busy >= 1.0 {
        return f64::INFINITY;
    }
    let d = choices.max(1) as f64;
    if d == 1.0 {
        return service / (1.0 - busy);
    }
    let mut exponent = 0.0;
    let mut sum = 0.0;
    loop {
        let term = libm::pow(busy, exponent);
        sum += term;
        if term < 1e-17 * sum || exponent == f64::INFINITY {
            return service * sum;
        }
        // From (d^i - d) / (d - 1) to the next.
        exponent = exponent * d + d;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    #[test]
    fn two_choices_are_much_better_than_one() {
        digits(supermarket(0.9, 1.0, 1), 10.0, 9);
        digits(supermarket(0.9, 1.0, 2), 2.6141, 4);
        digits(supermarket(0.9, 1.0, 3), 2.0279, 4);
        digits(supermarket(0.99, 1.0, 2), 5.4320, 4);
    }

    /// At half load the series is 1 + 1/4 + 1/64 + 1/16384 + ...
    #[test]
    fn half_load_by_hand() {
        digits(supermarket(0.5, 2.0, 2), 2.0 * (1.0 + 0.25 + 1.0 / 64.0 + 1.0 / 16384.0), 8);
        assert_eq!(supermarket(0.0, 1.0, 2), 1.0);
        assert_eq!(supermarket(1.0, 1.0, 2), f64::INFINITY);
    }
}
