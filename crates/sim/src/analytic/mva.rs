//! Mean value analysis: a closed network, where a fixed number of users think, ask and wait.
//!
//! Reiser and Lavenberg, "Mean-Value Analysis of Closed Multichain Queuing Networks", JACM 1980:
//! an arrival finds what the network holds with one user fewer. Exact for exponential service and
//! first come, first served; for any service distribution where a station is processor sharing.

/// Where users of a closed network are served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Station {
    /// Service that one request needs here in all, in any unit of time.
    pub demand: f64,
    /// Servers that share one queue.
    pub servers: u32,
}

/// A closed network's steady state.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// Requests answered in a unit of time.
    pub throughput: f64,
    /// Mean response time, thinking not included.
    pub response: f64,
    /// Mean number at each station, waiting and served.
    pub lengths: Vec<f64>,
}

/// Solves a network of `users` who think for `think` on average between an answer and the next
/// request.
///
/// Stations of up to [`EXACT_SERVERS`] servers are exact. Those of more are Seidmann's equivalent (a
/// single server c times as fast, and a delay for the rest): the exact recursion subtracts numbers
/// that are nearly the same, and loses all its digits with many servers.
pub fn mva(users: u32, think: f64, stations: &[Station]) -> Closed {
    let mut parts: Vec<Part> = stations.iter().map(|&station| Part::new(station)).collect();
    let mut throughput = 0.0;
    let mut response = 0.0;
    for n in 1..=users {
        let times: Vec<f64> = parts.iter().map(Part::response).collect();
        response = times.iter().sum();
        throughput = n as f64 / (think + response);
        for (part, time) in parts.iter_mut().zip(times) {
            part.settle(throughput, time);
        }
    }
    Closed { throughput, response, lengths: parts.iter().map(|part| part.length).collect() }
}

/// Most servers of a station that is solved exactly.
pub const EXACT_SERVERS: u32 = 8;

/// A station's state with one user fewer.
struct Part {
    demand: f64,
    servers: f64,
    /// Time that is spent here beside the queue and its servers.
    delay: f64,
    length: f64,
    /// Of those, the number in the queue and its servers.
    queue: f64,
    /// The probability that so many of its servers are busy, for all numbers but the last.
    busy: Vec<f64>,
}

impl Part {
    fn new(station: Station) -> Self {
        let c = station.servers.max(1);
        let (demand, servers, delay) = if c > EXACT_SERVERS {
            let c = c as f64;
            (station.demand / c, 1, station.demand * (c - 1.0) / c)
        } else {
            (station.demand, c, 0.0)
        };
        let mut busy = vec![0.0; servers as usize];
        busy[0] = 1.0;
        Part { demand, servers: servers as f64, delay, length: 0.0, queue: 0.0, busy }
    }

    /// Time that one more user spends here: service, and a server's turn for each user ahead, less
    /// the turns of servers that were idle.
    fn response(&self) -> f64 {
        let idle: f64 = self.busy.iter().enumerate().map(|(j, p)| (self.servers - 1.0 - j as f64) * p).sum();
        self.delay + self.demand / self.servers * (1.0 + self.queue + idle)
    }

    fn settle(&mut self, throughput: f64, time: f64) {
        self.length = throughput * time;
        self.queue = throughput * (time - self.delay);
        let load = throughput * self.demand;
        for j in (1..self.busy.len()).rev() {
            self.busy[j] = load * self.busy[j - 1] / j as f64;
        }
        let idle: f64 = (1..self.busy.len()).map(|j| (self.servers - j as f64) * self.busy[j]).sum();
        self.busy[0] = (1.0 - (load + idle) / self.servers).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    fn station(demand: f64, servers: u32) -> Station {
        Station { demand, servers }
    }

    #[test]
    fn three_users_and_two_servers() {
        let got = mva(3, 2.0, &[station(0.25, 2)]);
        digits(got.throughput, 1.332_42, 5);
        digits(got.response, 0.251_54, 5);
        digits(got.lengths[0], 0.335_16, 5);
    }

    #[test]
    fn fifty_users_and_one_server() {
        let got = mva(50, 1.0, &[station(0.03, 1)]);
        digits(got.throughput, 33.28, 2);
        digits(got.response, 0.5023, 4);
    }

    /// With one station the network is a birth and death process (the machine repair model):
    /// `p(n)` is proportional to the product of `(N - k) / Z` over `min(k + 1, c) / S`.
    fn repair(users: u32, think: f64, demand: f64, servers: u32) -> f64 {
        let mut weights = vec![1.0];
        for n in 0..users {
            let down = (n + 1).min(servers) as f64 / demand;
            weights.push(weights[n as usize] * (users - n) as f64 / think / down);
        }
        let total: f64 = weights.iter().sum();
        weights.iter().enumerate().map(|(n, w)| w / total * (n as u32).min(servers) as f64 / demand).sum()
    }

    #[test]
    fn up_to_its_limit_a_station_is_exact() {
        for servers in [1, 2, 5, EXACT_SERVERS] {
            for users in [1, servers, 3 * servers] {
                let got = mva(users, 1.0, &[station(0.7, servers)]).throughput;
                let expect = repair(users, 1.0, 0.7, servers);
                assert!((got / expect - 1.0).abs() < 1e-6, "{users} users, {servers} servers: {got}, not {expect}");
            }
        }
    }

    #[test]
    fn many_servers_are_close_and_keep_their_bounds() {
        let got = mva(300, 1.0, &[station(1.0, 100)]);
        let expect = repair(300, 1.0, 1.0, 100);
        assert!((got.throughput / expect - 1.0).abs() < 0.02, "{} for {expect}", got.throughput);
        assert!(got.throughput <= 100.0);
        digits(mva(1, 1.0, &[station(1.0, 100)]).throughput, 0.5, 9);
    }

    #[test]
    fn users_are_somewhere() {
        let got = mva(20, 0.5, &[station(0.1, 1), station(0.3, 4), station(0.02, 40)]);
        let thinking = got.throughput * 0.5;
        digits(thinking + got.lengths.iter().sum::<f64>(), 20.0, 6);
        assert_eq!(mva(0, 1.0, &[station(1.0, 1)]).throughput, 0.0);
    }
}
