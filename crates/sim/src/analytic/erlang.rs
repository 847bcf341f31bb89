//! M/M/c: Poisson arrivals, exponential service, c servers that share one queue.
//!
//! A. K. Erlang (1917); formulas as in Gross et al., "Fundamentals of Queueing Theory", 2.3 to 2.5.
//! Load is in erlangs: arrivals a second times seconds of service. Times come out in the unit of the
//! service time that goes in.

/// Erlang B: the share of arrivals that find all servers busy, where those leave.
///
/// By the recursion `B(0) = 1`, `B(c) = a B(c - 1) / (c + a B(c - 1))`, which neither overflows nor
/// cancels, unlike the sums of factorials that define it.
pub fn erlang_b(load: f64, servers: u32) -> f64 {
    (1..=servers).fold(1.0, |blocked, c| load * blocked / (c as f64 + load * blocked))
}

/// Erlang C: the share of arrivals that wait, where those that find all servers busy wait.
/// One where the load is as much as the servers can do, or more.
///
/// `C = c B / (c - a (1 - B))`.
pub fn erlang_c(load: f64, servers: u32) -> f64 {
    let c = servers as f64;
    if load >= c {
        return 1.0;
    }
    let blocked = erlang_b(load, servers);
    c * blocked / (c - load * (1.0 - blocked))
}

/// A stable M/M/c queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmc {
    rate: f64,
    service: f64,
    servers: u32,
    wait_share: f64,
}

impl Mmc {
    /// `rate` arrivals in a unit of time, `service` units of time each. None where the queue would
    /// grow without end.
    pub fn new(rate: f64, service: f64, servers: u32) -> Option<Self> {
        let load = rate * service;
        let stable = load >= 0.0 && service > 0.0 && load < servers as f64;
        stable.then(|| Mmc { rate, service, servers, wait_share: erlang_c(load, servers) })
    }

    /// The share of requests that wait.
    pub fn wait_share(&self) -> f64 {
        self.wait_share
    }

    /// Mean wait in the queue: `C S / (c - a)`.
    pub fn wait(&self) -> f64 {
        self.wait_share / self.drain()
    }

    /// Mean response time: wait and service.
    pub fn response(&self) -> f64 {
        self.wait() + self.service
    }

    /// Mean number in the system, waiting and served: Little's law.
    pub fn in_system(&self) -> f64 {
        self.rate * self.response()
    }

    /// The share of requests that wait no longer than `time`: `1 - C exp(-(c - a) t / S)`.
    pub fn waits_within(&self, time: f64) -> f64 {
        1.0 - self.wait_share * libm::exp(-self.drain() * time)
    }

    /// The wait that this share of requests (0 to below 1) does not exceed.
    pub fn wait_percentile(&self, share: f64) -> f64 {
        (libm::log(self.wait_share / (1.0 - share)) / self.drain()).max(0.0)
    }

    /// The share of requests that are answered within `time`, served in order of arrival.
    ///
    /// With `d = c - 1 - a` and `x = t / S`: `1 - exp(-x) (1 + C (1 - exp(-d x)) / d)`.
    pub fn answers_within(&self, time: f64) -> f64 {
        let x = time / self.service;
        let d = self.servers as f64 - 1.0 - self.rate * self.service;
        let queued = if d.abs() < 1e-9 { x } else { -libm::expm1(-d * x) / d };
        1.0 - libm::exp(-x) * (1.0 + self.wait_share * queued)
    }

    /// The response time that this share of requests (0 to below 1) does not exceed.
    pub fn response_percentile(&self, share: f64) -> f64 {
        if share <= 0.0 {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, self.service);
        while self.answers_within(high) < share {
            high *= 2.0;
        }
        while high - low > 1e-12 * high {
            let middle = (low + high) / 2.0;
            if self.answers_within(middle) < share { low = middle } else { high = middle }
        }
        high
    }

    /// At what rate the queue empties while all servers are busy: `(c - a) / S`.
    fn drain(&self) -> f64 {
        self.servers as f64 / self.service - self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    #[test]
    fn three_servers() {
        let q = Mmc::new(2.0, 1.0, 3).unwrap();
        digits(q.wait_share(), 0.444_444, 6);
        digits(q.wait(), 0.444_444, 6);
        digits(q.response(), 1.444_444, 6);
        digits(erlang_b(2.0, 3), 0.210_526, 6);
    }

    #[test]
    fn four_servers() {
        let q = Mmc::new(2.0 / 3.0, 4.0, 4).unwrap();
        digits(q.wait(), 1.135_255, 6);
        digits(q.in_system(), 3.423_503, 6);
    }

    #[test]
    fn a_call_centre() {
        let q = Mmc::new(48.0 / 240.0, 240.0, 55).unwrap();
        digits(q.wait_share(), 0.238_701, 6);
        digits(q.wait(), 8.1840, 4);
        digits(q.waits_within(15.0), 0.845_883, 6);
        digits(q.wait_percentile(0.845_883), 15.0, 3);
        assert_eq!(q.wait_percentile(0.5), 0.0);
    }

    #[test]
    fn eight_servers_at_four_fifths() {
        let q = Mmc::new(6.4, 1.0, 8).unwrap();
        digits(q.wait_share(), 0.457_645, 6);
        digits(q.wait(), 0.286_028, 6);
        digits(q.response_percentile(0.5), 0.986_33, 5);
        digits(q.response_percentile(0.99), 5.152_18, 5);
        digits(erlang_c(2.5, 5), 0.130_37, 5);
        digits(erlang_c(5.0, 10), 0.036_11, 5);
        digits(erlang_b(7.0, 10), 0.078_74, 5);
    }

    #[test]
    fn one_server_against_eight() {
        for (busy, one, eight) in [(0.80, 5.0, 1.29), (0.95, 20.0, 3.11)] {
            digits(Mmc::new(busy, 1.0, 1).unwrap().response(), one, 9);
            digits(Mmc::new(8.0 * busy, 1.0, 8).unwrap().response(), eight, 2);
        }
    }

    /// M/M/1's response time is exponential; where `c - 1` equals the load the general formula
    /// divides by zero and has a limit.
    #[test]
    fn percentiles_at_the_edges() {
        let one = Mmc::new(0.5, 1.0, 1).unwrap();
        digits(one.response_percentile(0.99), 2.0 * libm::log(100.0), 9);
        let at = Mmc::new(2.0, 1.0, 3).unwrap();
        let near = Mmc::new(2.0 + 1e-7, 1.0, 3).unwrap();
        digits(at.answers_within(1.5), near.answers_within(1.5), 6);
        assert_eq!(one.response_percentile(0.0), 0.0);
    }

    #[test]
    fn overload_has_no_steady_state() {
        assert_eq!(Mmc::new(3.0, 1.0, 3), None);
        assert_eq!(erlang_c(3.0, 3), 1.0);
        assert_eq!(Mmc::new(1.0, 1.0, 0), None);
        // Sums of factorials would overflow here.
        assert!((0.0..1.0).contains(&erlang_c(9_900.0, 10_000)));
    }
}
