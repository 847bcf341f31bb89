//! Our engine: the two systems as files.

use std::sync::atomic::AtomicBool;

use plimsoll_model::run::SubjectKind;
use plimsoll_model::{Source, parse};
use plimsoll_sim::{Precision, Runner, Scenario, simulate};

use crate::{Cost, cpu_seconds};

const MM8: &str = "
system: mm8
network: { same_zone: 0s }
clients: { web: { rate: 640/s, timeout: none, calls: [api GET /] } }
services: { api: { workers: 8, cores: 8, queue: 100k, endpoints: { GET /: [{ work: exp(10ms) }] } } }
";

pub const CHAIN: &str = "
system: chain
network: { same_zone: 0s }
clients:
  web:
    rate: 1000/s
    timeout: 2s
    retry: { attempts: 3, budget: 20% }
    breaker: {}
    calls: [edge GET /]
services:
  edge:
    kind: gateway
    upstream: api
    timeout: 1s
    retry: { attempts: 2, budget: 20% }
    breaker: {}
  api:
    instances: 3
    workers: 32
    cores: 2
    queue: 1k
    endpoints: { GET /: [{ work: exp(5ms) }, { query: db.read }] }
    calls: { db: { timeout: 500ms, retry: { attempts: 2, budget: 20% }, breaker: {} } }
stores:
  db: { kind: postgres, pool: 4, concurrency: 8, operations: { read: exp(6ms) } }
";

pub fn mm8(seconds: f64) -> Cost {
    measure(MM8, seconds)
}

pub fn chain(seconds: f64) -> Cost {
    measure(CHAIN, seconds)
}

fn measure(file: &str, seconds: f64) -> Cost {
    let system = parse(&Source::alone("bench.yaml", file)).unwrap_or_else(|problems| panic!("{problems}"));
    let scenario = Scenario::calm(0, (seconds * 1e9) as u64);
    let stop = AtomicBool::new(false);
    let runner = Runner { seed: 1, threads: 1, stop: &stop, progress: &|_, _| () };
    let precision = Precision { least: 1, most: 1, ..Precision::default() };
    let start = cpu_seconds();
    let run = simulate(&system, &scenario, &[], &precision, &runner);
    let spent = cpu_seconds() - start;
    let all = run.subject(SubjectKind::All, "all").expect("every run has it");
    let mean_ms = all.figure("latency_ms_mean").expect("requests were made").mean;
    Cost { requests: all.totals.offered as f64, seconds: spent, mean_ms }
}
