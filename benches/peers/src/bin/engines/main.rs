//! What a simulated request costs in our engine, in nexosim and in SimPy, on the same two systems.
//!
//! - M/M/8 at 80%: arrivals, a queue, eight servers, a histogram of response times.
//! - A chain: clients → gateway → 3 API instances → pooled connections → database. Every caller has a
//!   deadline that it cancels when the answer comes, retries with backoff and jitter within a budget, and a
//!   breaker over a window of ten seconds; a worker is held until its answer; response times go into a
//!   histogram. About 80% busy at its busiest, so that queues form and next to nothing fails.
//!
//! Ours reads these from system files, runs the policies of the production gateway, and records all that a
//! report shows (histograms of each client, endpoint, service, instance, store and edge, second by second).
//! The peers are written as their documentation shows: nexosim as models with ports and scheduled events,
//! on one thread; SimPy as a process for each request with `Resource` and `timeout`. They have the same
//! stations and policies in their simplest form, and record one histogram. Network delays are zero.
//!
//! CPU seconds of the process, user and system, over the run alone: reading files, building models and
//! starting Python are left out. Engines take turns, and the median of the rounds counts.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --bin engines`, with SimPy installed for
//! `python3`.

mod nexo;
mod ours;

use std::process::Command;

const ROUNDS: usize = 5;

/// What one run of an engine came to.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Requests that clients made.
    pub requests: f64,
    /// CPU seconds.
    pub seconds: f64,
    /// Mean response time, ms: engines that disagree do not simulate the same.
    pub mean_ms: f64,
}

/// CPU seconds of this process so far.
pub fn cpu_seconds() -> f64 {
    // The ticks of /proc/self/stat are 10 ms, one percent of what is measured.
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn simpy(system: &str, seconds: f64) -> Cost {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/simpy/chain.py");
    let output = Command::new("python3").args([script, system, &seconds.to_string()]).output().expect("python3");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [requests, seconds, mean_ms] = numbers[..] else {
        panic!("SimPy did not run: {}", String::from_utf8_lossy(&output.stderr));
    };
    Cost { requests, seconds, mean_ms }
}

/// A name and a run.
type Engine<'a> = (&'a str, Box<dyn Fn() -> Cost>);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let only = std::env::args().nth(1);
    if only.as_deref() == Some("ours") {
        // For profilers.
        let cost = ours::chain(3_000.0);
        println!("{:.0} requests a CPU second", cost.requests / cost.seconds);
        return;
    }
    let systems: [(&str, [Engine<'_>; 3]); 2] = [
        (
            "M/M/8",
            [
                ("Plimsoll", Box::new(|| ours::mm8(4_000.0))),
                ("nexosim 1.0", Box::new(|| nexo::mm8(2_000.0))),
                ("SimPy 4.1", Box::new(|| simpy("mm8", 150.0))),
            ],
        ),
        (
            "chain with policies",
            [
                ("Plimsoll", Box::new(|| ours::chain(2_000.0))),
                ("nexosim 1.0", Box::new(|| nexo::chain(600.0))),
                ("SimPy 4.1", Box::new(|| simpy("chain", 30.0))),
            ],
        ),
    ];
    println!("| system | engine | requests/CPU s | ours is | mean response, ms |");
    println!("|---|---|---:|---:|---:|");
    for (system, engines) in &systems {
        let mut rates = vec![Vec::new(); engines.len()];
        let mut ratios = vec![Vec::new(); engines.len()];
        let mut means = vec![0.0; engines.len()];
        for round in 0..ROUNDS {
            let mut this = vec![0.0; engines.len()];
            for turn in 0..engines.len() {
                let at = (round + turn) % engines.len();
                let cost = engines[at].1();
                this[at] = cost.requests / cost.seconds;
                means[at] = cost.mean_ms;
            }
            for at in 0..engines.len() {
                rates[at].push(this[at]);
                ratios[at].push(this[0] / this[at]);
            }
        }
        for (at, (engine, _)) in engines.iter().enumerate() {
            let (rate, ratio) = (median(rates[at].clone()), median(ratios[at].clone()));
            println!("| {system} | {engine} | {rate:.0} | {ratio:.1}x | {:.2} |", means[at]);
        }
    }
}
