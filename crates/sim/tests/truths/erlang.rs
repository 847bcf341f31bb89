//! M/M/c with waiting (Erlang C) and without (Erlang B).

use plimsoll_model::run::{Run, SubjectKind};

use crate::check::{Truth, calm, figure, overall, within};

/// Requests that each take 10 ms of a worker.
pub(crate) fn file(servers: u32, rate: f64, queue: &str, time: &str) -> String {
    format!(
        "
system: erlang
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: {rate}/s, timeout: none, calls: [api GET /] }} }}
services:
  api: {{ workers: {servers}, cores: {servers}, queue: {queue}, endpoints: {{ GET /: [{{ work: {time} }}] }} }}
"
    )
}

fn scaled(values: Vec<f64>, by: f64) -> Vec<f64> {
    values.into_iter().map(|value| value * by).collect()
}

/// Mean response time in service times.
fn response(run: &Run) -> Vec<f64> {
    scaled(overall(run, "latency_ms_mean"), 0.1)
}

/// The same without the service.
fn wait(run: &Run) -> Vec<f64> {
    response(run).iter().map(|response| response - 1.0).collect()
}

/// The share of requests that wait, from the mean number that do: `Lq = C a / (c - a)`.
fn wait_share(run: &Run, servers: f64, load: f64) -> Vec<f64> {
    scaled(figure(run, SubjectKind::Service, "api", "queue_mean"), (servers - load) / load)
}

/// M/M/8 at 6.4 erlangs, in service times.
pub(crate) fn eight_servers() -> Truth {
    Truth::new(file(8, 640.0, "100k", "exp(10ms)"), |system| {
        let run = calm(system, 5.0, 150.0);
        vec![
            within("M/M/8 wait", &wait(&run), 0.286_028),
            within("M/M/8 p50", &scaled(overall(&run, "latency_ms_p50"), 0.1), 0.986_33),
            within("M/M/8 p99", &scaled(overall(&run, "latency_ms_p99"), 0.1), 5.152_18),
            within("M/M/8 share that waits", &wait_share(&run, 8.0, 6.4), 0.457_645),
            within("M/M/8 utilization", &figure(&run, SubjectKind::Service, "api", "utilization"), 0.8),
            within("M/M/8 errors", &overall(&run, "errors"), 0.0),
        ]
    })
}

#[test]
fn eight_servers_at_four_fifths() {
    eight_servers().holds();
}

/// Servers, load in erlangs, share that waits, mean wait and response in service times, length of the
/// run, s.
fn waiting(servers: u32, load: f64, share: f64, mean_wait: f64, seconds: f64) -> Truth {
    Truth::new(file(servers, load * 100.0, "1M", "exp(10ms)"), move |system| {
        let run = calm(system, 0.05 * seconds, seconds);
        let name = |what| format!("M/M/{servers} at {load}: {what}");
        vec![
            within(&name("share that waits"), &wait_share(&run, servers as f64, load), share),
            within(&name("wait"), &wait(&run), mean_wait),
            within(&name("in the system"), &overall(&run, "in_flight_mean"), load * (1.0 + mean_wait)),
        ]
    })
}

#[test]
fn more_servers_wait_less_at_the_same_utilization() {
    waiting(5, 2.5, 0.130_37, 0.130_37 / 2.5, 200.0).holds();
    waiting(10, 5.0, 0.036_11, 0.036_11 / 5.0, 150.0).holds();
}

/// M/M/3, whatever the three are.
fn three_of(what: &'static str, client: &str, service: &str, step: &str, store: &str) -> Truth {
    let file = format!(
        "
system: three
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 200/s, timeout: none, {client} calls: [api GET /] }} }}
services: {{ api: {{ {service}, endpoints: {{ GET /: [{{ {step} }}] }} }} }}
stores: {{ db: {{ kind: postgres, max_connections: 10k, {store}, operations: {{ get: exp(10ms) }} }} }}
"
    );
    Truth::new(file, move |system| {
        let run = calm(system, 5.0, 100.0);
        vec![
            within(&format!("M/M/3 of {what}: wait"), &wait(&run), 0.444_444),
            within(&format!("M/M/3 of {what}: errors"), &overall(&run, "errors"), 0.0),
        ]
    })
}

/// Each kind of queue in turn, where nothing else is scarce.
pub(crate) fn every_queue() -> Vec<(Truth, &'static str, &'static str)> {
    let plenty = "pool: 10k, concurrency: 10k";
    let bulkhead = "bulkhead: { permits: 3, queue: 100k, max_wait: 1h },";
    vec![
        (three_of("workers", "", "workers: 3, queue: 100k", "wait: exp(10ms)", plenty), "workers: 3", "workers: 4"),
        (three_of("cores", "", "workers: 10k, cores: 3", "work: exp(10ms)", plenty), "cores: 3", "cores: 4"),
        (
            three_of("connections", "max_connections: 3, max_pending: 100k,", "async: true", "wait: exp(10ms)", plenty),
            "max_connections: 3,",
            "max_connections: 4,",
        ),
        (three_of("permits", bulkhead, "async: true", "wait: exp(10ms)", plenty), "permits: 3", "permits: 4"),
        (
            three_of("pooled connections", "", "async: true", "query: db.get", "pool: 3, concurrency: 10k"),
            "pool: 3",
            "pool: 4",
        ),
        (
            three_of("places in a database", "", "async: true", "query: db.get", "pool: 10k, concurrency: 3"),
            "concurrency: 3",
            "concurrency: 4",
        ),
    ]
}

#[test]
fn every_queue_is_the_same_queue() {
    every_queue().into_iter().for_each(|(truth, ..)| truth.holds());
}

/// A textbook's: two a second for three servers of one second.
#[test]
fn three_servers() {
    waiting(3, 2.0, 0.444_444, 0.444_444, 200.0).holds();
}

/// Forty an hour for four servers of four minutes: a wait of 1.135255 minutes, 3.423503 in the system.
#[test]
fn four_servers() {
    waiting(4, 8.0 / 3.0, 0.378_418, 1.135_255 / 4.0, 200.0).holds();
    assert!((8.0f64 / 3.0 * (1.0 + 1.135_255 / 4.0) - 3.423_503).abs() < 1e-6);
}

/// 48 erlangs for 55 agents of 240 s each: a wait of 8.184 s. That 84.5883% wait for at most 15 s is the
/// same truth: `1 - C exp(-(c - a) 15 / 240)`.
#[test]
fn a_call_centre() {
    waiting(55, 48.0, 0.238_701, 8.184 / 240.0, 25.0).holds();
    assert!((1.0 - 0.238_701 * libm::exp(-7.0 * 15.0 / 240.0) - 0.845_883).abs() < 1e-6);
}

/// One server against eight: 20 service times against 3.11 at 95%. At 80% it is 5, in
/// `pollaczek_khinchine`, against 1.29, above.
#[test]
fn eight_share_what_one_cannot() {
    waiting(1, 0.95, 0.95, 19.0, 400.0).holds();
    waiting(8, 7.6, 0.844_169, 2.110_422, 60.0).holds();
}

/// M/M/c without a queue.
pub(crate) fn loss(servers: u32, load: f64, time: &str, share: f64) -> Truth {
    Truth::new(file(servers, load * 100.0, "0", time), move |system| {
        let run = calm(system, 5.0, 100.0);
        vec![
            within("Erlang B", &overall(&run, "errors"), share),
            within("Erlang B, rejected", &figure(&run, SubjectKind::Service, "api", "rejected"), share),
        ]
    })
}

#[test]
fn without_a_queue_erlang_b_is_turned_away() {
    loss(10, 7.0, "exp(10ms)", 0.078_74).holds();
    loss(3, 2.0, "exp(10ms)", 0.210_526).holds();
}

/// Erlang B depends on the mean service time alone.
#[test]
fn erlang_b_is_insensitive() {
    loss(10, 7.0, "10ms", 0.078_74).holds();
}

/// M/D/3 at two erlangs waits 0.234265 service times: from the stationary distribution of the number
/// in it, which after one service time is what was there, less three, and what came (Crommelin,
/// 1932). The approximation of Allen and Cunneen, half of M/M/3's wait, says 0.2222.
#[test]
fn constant_service_halves_the_wait_nearly() {
    let truth = Truth::new(file(3, 200.0, "100k", "10ms"), |system| {
        vec![within("M/D/3 wait", &wait(&calm(system, 5.0, 300.0)), 0.234_265)]
    });
    truth.holds();
}
