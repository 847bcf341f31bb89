//! Requests that slow each other down: Gunther's Universal Scalability Law, and a delay that grows
//! with the number that are in it.

use plimsoll_model::run::SubjectKind;

use crate::check::{Truth, calm, figure, overall, within};

/// Users who ask again at once: as many requests as there are users, so many answered a second.
fn closed(users: u32, service: &str, per_s: f64) -> Truth {
    let file = format!(
        "
system: scalability
network: {{ same_zone: 0s }}
clients: {{ web: {{ users: {users}, think: 1ns, timeout: none, calls: [api GET /] }} }}
services: {{ api: {{ {service} }} }}
"
    );
    Truth::new(file, move |system| {
        let run = calm(system, 2.0, 20.0);
        vec![within(&format!("throughput of {users} users"), &overall(&run, "goodput_per_s"), per_s)]
    })
}

/// The fit of SPEC SDM91 in Gunther's R package usl: sigma .0277285, kappa .00010437, and 89.99523 an
/// hour of one user (11.1117 ms each, if it is a second). The most is 1884, at 96.52 users.
pub(crate) fn sdm91(users: u32, scripts: f64) -> Truth {
    let service = "async: true, scalability: { contention: 2.77285%, coherency: 0.010437% },
    endpoints: { GET /: [{ wait: exp(11.1117ms) }] }";
    closed(users, service, scripts)
}

#[test]
fn throughput_has_its_peak_where_the_law_says() {
    for (users, scripts) in [(1, 89.995_23), (18, 1_077.556_5), (96, 1_883.869_5), (216, 1_646.174_7)] {
        sdm91(users, scripts).holds();
    }
}

/// Of fifty users ten have a worker, and only they are in each other's way; likewise on ten cores. Ten
/// are worth 10 / (1 + 0.05 x 9 + 0.001 x 90).
#[test]
fn who_waits_for_a_worker_is_in_nobodys_way() {
    let law = "scalability: { contention: 5%, coherency: 0.1% }";
    for step in ["wait: exp(10ms)", "work: exp(10ms)"] {
        let service = format!("workers: 10, cores: 10, queue: 1k, {law}, endpoints: {{ GET /: [{{ {step} }}] }}");
        closed(50, &service, 1_000.0 / 1.54).holds();
    }
}

/// The same ten in a database's node.
#[test]
fn who_waits_for_a_node_is_in_nobodys_way_either() {
    let file = "
system: scalability
network: { same_zone: 0s }
clients: { web: { users: 50, think: 1ns, timeout: none, calls: [api GET /] } }
services: { api: { async: true, endpoints: { GET /: [{ query: db.get }] } } }
stores:
  db:
    kind: postgres
    pool: 100
    concurrency: 10
    scalability: { contention: 5%, coherency: 0.1% }
    operations: { get: exp(10ms) }
";
    let truth = Truth::new(file, |system| {
        let run = calm(system, 2.0, 20.0);
        vec![within("throughput of ten in a node", &overall(&run, "goodput_per_s"), 1_000.0 / 1.54)]
    });
    truth.holds();
}

/// With Poisson arrivals and contention alone, a request finds L of them on average (PASTA) and takes
/// D (1 + sigma L); by Little's law that is R = D / (1 - sigma lambda D), whatever D's distribution.
#[test]
fn contention_alone_gives_a_mean_that_is_known() {
    for time in ["10ms", "exp(10ms)"] {
        let file = format!(
            "
system: contention
network: {{ same_zone: 0s }}
clients: {{ web: {{ rate: 600/s, timeout: none, calls: [api GET /] }} }}
services:
  api: {{ async: true, scalability: {{ contention: 10% }}, endpoints: {{ GET /: [{{ wait: {time} }}] }} }}
"
        );
        let truth = Truth::new(file, move |system| {
            let run = calm(system, 2.0, 60.0);
            let there = figure(&run, SubjectKind::Service, "api", "in_flight_mean");
            vec![
                within(&format!("response, {time}"), &overall(&run, "latency_ms_mean"), 10.0 / (1.0 - 0.1 * 6.0)),
                within("requests in it", &there, 15.0),
            ]
        });
        truth.holds();
    }
}
