//! A closed network against mean value analysis.

use plimsoll_model::run::SubjectKind;

use crate::check::{Truth, calm, figure, overall, within};

/// Users who think and ask one service, a hundred times as fast as the model whose throughput and
/// response time these are, in seconds.
pub(crate) fn closed(
    users: u32,
    think: &str,
    servers: u32,
    time: &str,
    per_s: f64,
    response_s: f64,
    run_s: f64,
) -> Truth {
    let file = format!(
        "
system: closed
network: {{ same_zone: 0s }}
clients: {{ web: {{ users: {users}, think: {think}, timeout: none, calls: [api GET /] }} }}
services:
  api: {{ workers: {servers}, cores: {servers}, queue: 100, endpoints: {{ GET /: [{{ work: {time} }}] }} }}
"
    );
    Truth::new(file, move |system| {
        let run = calm(system, 1.0, run_s);
        let throughput: Vec<f64> = overall(&run, "goodput_per_s").iter().map(|x| x / 100.0).collect();
        let response: Vec<f64> = overall(&run, "latency_ms_mean").iter().map(|r| r / 10.0).collect();
        let there = figure(&run, SubjectKind::Service, "api", "in_flight_mean");
        vec![
            within(&format!("throughput of {users} users"), &throughput, per_s),
            within(&format!("response of {users} users"), &response, response_s),
            within(&format!("of {users} users at the service"), &there, per_s * response_s),
        ]
    })
}

/// N 50, Z 1 s, S 30 ms: X 33.28, R .5023.
#[test]
fn fifty_users_and_one_server() {
    let (per_s, response_s) = mva(50, 1.0, 0.03);
    closed(50, "exp(10ms)", 1, "exp(0.3ms)", per_s, response_s, 60.0).holds();
}

/// N 3, Z 2 s, S .25 s: X 1.33242, R .25154, Q .33516.
pub(crate) fn three_users() -> Truth {
    closed(3, "exp(20ms)", 2, "exp(2.5ms)", 1.332_42, 0.251_54, 500.0)
}

#[test]
fn three_users_and_two_servers() {
    three_users().holds();
    assert!((1.332_42f64 * 0.251_54 - 0.335_16).abs() < 5e-6);
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
