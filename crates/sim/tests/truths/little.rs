//! Little's law holds for every component, whatever it does: L = lambda W.

use plimsoll_model::run::SubjectKind;

use crate::check::{calm, figure, system, within};

#[test]
fn what_is_in_it_is_what_comes_times_how_long_it_stays() {
    let file = "
system: little
clients:
  web: { rate: 200/s, calls: [{ endpoint: edge GET /a, weight: 3 }, { endpoint: edge POST /b }] }
services:
  edge: { kind: gateway, upstream: api }
  api:
    instances: 3
    workers: 8
    endpoints:
      GET /a: [{ work: exp(2ms) }, { query: db.read }]
      POST /b:
        - transaction: db
          do: [{ query: db.insert }, { query: db.insert }]
        - for_each: 2..4
          do: [{ call: mail POST /send }]
  mail: { instances: 2, workers: 6, endpoints: { POST /send: [{ wait: exp(10ms) }, { fail: 10% }] } }
stores:
  db:
    kind: postgres
    pool: 4
    concurrency: 6
    operations: { read: exp(10ms), insert: { kind: write, time: exp(5ms) } }
";
    let run = calm(&system(file), 5.0, 120.0);
    let mut held = 0;
    for subject in &run.subjects {
        let (Some(number), Some(time)) = (subject.figure("in_flight_mean"), subject.figure("latency_ms_mean")) else {
            continue;
        };
        let rate = subject.figure("offered_per_s").unwrap();
        let difference: Vec<f64> = number
            .samples
            .iter()
            .zip(&rate.samples)
            .zip(&time.samples)
            .map(|((number, rate), time)| rate * time / 1e3 - number)
            .collect();
        println!("{:?} {}: L {}", subject.kind, subject.name, number.mean);
        within(&format!("lambda W - L of {}", subject.name), &difference, 0.0).unwrap();
        held += 1;
    }
    assert!(held >= 10, "only {held} subjects have all three figures");
    // The utilization law: requests times service time.
    let busy = figure(&run, SubjectKind::Service, "api", "utilization_other");
    within("cores of api", &busy, 150.0 * 0.002 / 6.0).unwrap();
}
