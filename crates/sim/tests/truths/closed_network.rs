//! A closed network against mean value analysis.

use crate::check::{calm, holds, overall, system};

#[test]
fn fifty_users_and_one_server() {
    // N 50, Z 1 s, S 30 ms, here a hundred times as fast: X 33.2815 x 100, R .50233 / 100.
    let file = "
system: closed
network: { same_zone: 0s }
clients: { web: { users: 50, think: exp(10ms), timeout: none, calls: [api GET /] } }
services: { api: { workers: 1, cores: 1, queue: 100, endpoints: { GET /: [{ work: exp(0.3ms) }] } } }
";
    let run = calm(&system(file), 1.0, 60.0);
    let per_s: Vec<f64> = overall(&run, "goodput_per_s").iter().map(|x| x / 100.0).collect();
    let seconds: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
    holds("throughput of 50 users", &per_s, mva(50, 1.0, 0.03).0);
    holds("response of 50 users", &seconds, mva(50, 1.0, 0.03).1);
}

#[test]
fn three_users_and_two_servers() {
    // Think 2 s, S .25 s, here a hundred times as fast: X 1.33242 x 100, R .25154 / 100.
    let file = "
system: closed
network: { same_zone: 0s }
clients: { web: { users: 3, think: exp(20ms), timeout: none, calls: [api GET /] } }
services: { api: { workers: 2, cores: 2, endpoints: { GET /: [{ work: exp(2.5ms) }] } } }
";
    let run = calm(&system(file), 1.0, 500.0);
    let per_s: Vec<f64> = overall(&run, "goodput_per_s").iter().map(|x| x / 100.0).collect();
    let seconds: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
    holds("throughput of 3 users", &per_s, 1.332_42);
    holds("response of 3 users", &seconds, 0.251_54);
}

/// Throughput and response time of a single-server network, by the recursion: an arrival finds what
/// the network holds with one user fewer.
fn mva(users: u32, think: f64, service: f64) -> (f64, f64) {
    let (mut throughput, mut response) = (0.0, 0.0);
    for n in 1..=users {
        response = service * (1.0 + throughput * response);
        throughput = n as f64 / (think + response);
    }
    (throughput, response)
}

#[test]
fn the_recursion_gives_the_published_digits() {
    let (throughput, response) = mva(50, 1.0, 0.03);
    assert!((throughput - 33.28).abs() < 0.005 && (response - 0.5023).abs() < 5e-5, "{throughput} {response}");
}
