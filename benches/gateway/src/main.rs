//! nginx, HAProxy and `plimsoll gateway` side by side on loopback, each in front of the same three backends.
//!
//! ```sh
//! cargo run --release --manifest-path benches/gateway/Cargo.toml
//! ```
//!
//! builds `plimsoll` as it is released, starts all of them (nginx and haproxy have to be installed, and
//! setpriv of util-linux), and prints one table. `-- --quick` takes shorter rounds, `-- --plimsoll PATH`
//! another binary, `-- --memory` measures memory alone. They take turns in each round, so that a slow moment
//! of the machine hits all of them; figures are medians over the rounds, and ratios those of medians. The load
//! comes from this process (`load.rs`), settings are in `proxies.rs`, backends in `backend.rs`. What it starts
//! ends with it.

mod backend;
mod http;
mod load;
mod proxies;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_bench_common::{Folder, Process, build, machine, median};
use proxies::Proxy;

const NAMES: [&str; 4] = ["nginx", "HAProxy", "ours", "ours, no policies"];
/// Rate of the runs with a bad backend: far below what any of the proxies carries, so that what is seen is the
/// backend and not the load.
const FAULT_RATE: f64 = 1_000.0;
const FAULT_CONNECTIONS: usize = 1_200;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address] = &arguments[..]
        && word == "backend"
    {
        return Ok(backend::run(address.parse()?)?);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let memory = arguments.iter().any(|argument| argument == "--memory");
    let given = arguments.iter().position(|argument| argument == "--plimsoll").and_then(|at| arguments.get(at + 1));
    let plimsoll = match given {
        Some(path) => path.clone(),
        None => build()?,
    };
    let folder = Folder::new()?;
    let mut bench = Bench {
        backends: (0..3).map(|i| Backend::start(&folder.0, i)).collect::<Result<_, _>>()?,
        proxies: Vec::new(),
        rounds: if quick { 1 } else { 3 },
        slice: Duration::from_millis(if quick { 700 } else { 1_500 }),
        folder: folder.0.clone(),
        plimsoll,
    };
    bench.start_proxies()?;
    bench.warm_up();
    println!("{}", machine());
    println!();
    println!("| | nginx | HAProxy | ours | ratio to nginx | ours, no policies |");
    println!("|---|---:|---:|---:|---:|---:|");
    if !memory {
        let most = bench.cpu(64);
        bench.cpu(256);
        bench.p99(most * 0.6);
        bench.faults()?;
    }
    bench.memory(if quick { 2_000 } else { 10_000 })?;
    println!();
    println!("{}", machine());
    Ok(())
}

struct Backend {
    address: SocketAddr,
    process: Process,
    log: String,
}

impl Backend {
    fn start(folder: &std::path::Path, number: usize) -> Result<Backend, Box<dyn Error>> {
        let address = proxies::free()?;
        let log = folder.join(format!("backend-{number}.log")).to_string_lossy().into_owned();
        Ok(Backend { address, process: Self::run(address, &log)?, log })
    }

    fn run(address: SocketAddr, log: &str) -> Result<Process, Box<dyn Error>> {
        let me = std::env::current_exe()?.to_string_lossy().into_owned();
        let process = Process::start("KILL", &me, &["backend", &address.to_string()], log)?;
        proxies::listens(address)?;
        Ok(process)
    }
}

/// What is wrong with one of the three.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Slow,
    Dead,
    Failing,
    Paused,
}

struct Bench {
    // In this order, so that proxies end before their backends.
    proxies: Vec<Proxy>,
    backends: Vec<Backend>,
    rounds: usize,
    slice: Duration,
    folder: PathBuf,
    plimsoll: String,
}

impl Bench {
    fn start_proxies(&mut self) -> Result<(), Box<dyn Error>> {
        self.proxies.clear();
        let backends: Vec<SocketAddr> = self.backends.iter().map(|backend| backend.address).collect();
        for name in NAMES {
            self.proxies.push(proxies::start(name, &self.folder, &self.plimsoll, &backends)?);
        }
        Ok(())
    }

    fn warm_up(&self) {
        for proxy in &self.proxies {
            load::closed(proxy.address, 256, Duration::from_millis(500));
        }
    }

    /// Measures each proxy once a round, another one first each time. By proxy: its values.
    fn rounds(&self, rounds: usize, mut measure: impl FnMut(&Proxy) -> f64) -> Vec<Vec<f64>> {
        let mut values = vec![Vec::new(); self.proxies.len()];
        for round in 0..rounds {
            for turn in 0..self.proxies.len() {
                let i = (round + turn) % self.proxies.len();
                values[i].push(measure(&self.proxies[i]));
            }
        }
        values
    }

    /// CPU time a request. Requests a second that nginx has answered.
    fn cpu(&self, connections: usize) -> f64 {
        let mut rates = Vec::new();
        let values = self.rounds(self.rounds, |proxy| {
            let before = proxy.process.cpu_ns();
            let seen = load::closed(proxy.address, connections, self.slice);
            let used = proxy.process.cpu_ns() - before;
            if seen.failed > 0 {
                eprintln!("{}: {} requests failed", proxy.name, seen.failed);
            }
            if proxy.name == "nginx" {
                rates.push(seen.times.len() as f64 / self.slice.as_secs_f64());
            }
            used as f64 / 1e3 / seen.times.len() as f64
        });
        row(&format!("CPU us a request, {connections} connections"), &values, 1);
        median(rates)
    }

    fn p99(&self, rate: f64) {
        let values =
            self.rounds(self.rounds, |proxy| load::open(proxy.address, rate, 128, self.slice).permille_ms(990));
        row(&format!("p99 ms at {:.0}/s (60% of nginx's most)", rate), &values, 2);
    }

    /// p99 with one of three backends bad, from the moment that it is. Every proxy is started anew for each
    /// fault, so that none knows anything of the one before.
    fn faults(&mut self) -> Result<(), Box<dyn Error>> {
        for (fault, name) in [
            (Fault::Slow, "slow (500 ms)"),
            (Fault::Dead, "dead"),
            (Fault::Failing, "failing fast (503)"),
            (Fault::Paused, "paused"),
        ] {
            let rounds = self.rounds.div_ceil(2);
            let mut values = [vec![Vec::new(); NAMES.len()], vec![Vec::new(); NAMES.len()]];
            let mut failed = [0; 4];
            self.start_proxies()?;
            for round in 0..rounds {
                for turn in 0..NAMES.len() {
                    let i = (round + turn) % NAMES.len();
                    let address = self.proxies[i].address;
                    // All is well, and everybody knows it.
                    load::open(address, FAULT_RATE, FAULT_CONNECTIONS, Duration::from_millis(1_500));
                    self.inject(fault)?;
                    let mut seen = load::open(address, FAULT_RATE, FAULT_CONNECTIONS, 2 * self.slice);
                    self.mend(fault)?;
                    failed[i] += seen.failed;
                    values[0][i].push(seen.permille_ms(990));
                    values[1][i].push(seen.permille_ms(999));
                }
            }
            row(&format!("p99 ms, one of three {name}"), &values[0], 1);
            row("&nbsp; p99.9 ms", &values[1], 1);
            let failed: Vec<Vec<f64>> = failed.into_iter().map(|count| vec![count as f64]).collect();
            row("&nbsp; requests that failed", &failed, 0);
        }
        Ok(())
    }

    fn inject(&mut self, fault: Fault) -> Result<(), Box<dyn Error>> {
        let bad = &mut self.backends[1];
        match fault {
            Fault::Slow => load::tell(bad.address, "/mode/slow")?,
            Fault::Failing => load::tell(bad.address, "/mode/failing")?,
            Fault::Paused => bad.process.signal("STOP"),
            Fault::Dead => bad.process.signal("KILL"),
        }
        Ok(())
    }

    fn mend(&mut self, fault: Fault) -> Result<(), Box<dyn Error>> {
        let bad = &mut self.backends[1];
        match fault {
            Fault::Slow | Fault::Failing => load::tell(bad.address, "/mode/well")?,
            Fault::Paused => bad.process.signal("CONT"),
            Fault::Dead => bad.process = Backend::run(bad.address, &bad.log)?,
        }
        Ok(())
    }

    /// Memory that a connection takes which has asked once and waits.
    fn memory(&mut self, connections: usize) -> Result<(), Box<dyn Error>> {
        self.start_proxies()?;
        let mut open = usize::MAX;
        let values = self.rounds(1, |proxy| {
            load::closed(proxy.address, 64, Duration::from_millis(300));
            std::thread::sleep(Duration::from_millis(1_500));
            let before = proxy.process.rss();
            let (count, after) = load::idle(proxy.address, connections, || proxy.process.rss());
            open = open.min(count);
            after.saturating_sub(before) as f64 / count.max(1) as f64 / 1024.0
        });
        row(&format!("KiB an idle connection ({open} of them)"), &values, 2);
        Ok(())
    }
}

fn row(what: &str, values: &[Vec<f64>], digits: usize) {
    let at: Vec<f64> = values.iter().map(|values| median(values.clone())).collect();
    let number = |value: f64| if value.is_finite() { format!("{value:.digits$}") } else { "none".to_owned() };
    let ratio = if at[0] > 0.0 && at[0].is_finite() { format!("{:.2}", at[2] / at[0]) } else { String::new() };
    println!("| {what} | {} | {} | {} | {ratio} | {} |", number(at[0]), number(at[1]), number(at[2]), number(at[3]));
}
