//! `plimsoll run` and oha side by side as load generators: how near each comes to a rate, and what that costs.
//!
//! ```sh
//! cargo run --release --manifest-path benches/load/Cargo.toml
//! ```
//!
//! builds `plimsoll` as it is released, starts an nginx that answers at once (nginx has to be installed, setpriv of
//! util-linux, and oha: `cargo install oha --locked`), and prints one table. `-- --help` has the options. Generators
//! take turns in each round, so that a slow moment of the machine hits all of them; figures are medians over the
//! rounds, and ratios those of rounds. CPU time is that of the generator's whole process from its start to its end,
//! as the kernel counts it, by the requests that were answered. What it starts ends with it.

mod generator;
mod options;
mod server;

use std::error::Error;
use std::process::ExitCode;

use generator::{Generator, Seen};
use options::Options;
use plimsoll_bench_common::{Folder, build, machine, median};
use server::Server;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let plimsoll = match &options.plimsoll {
        Some(path) => path.clone(),
        None => build()?,
    };
    let mut generators = vec![Generator::plimsoll("ours", &plimsoll)];
    generators.extend(options.before.iter().map(|path| Generator::plimsoll("before", path)));
    generators.push(Generator::oha(&options.oha));
    for generator in &generators {
        println!("{}: {}", generator.name, generator.version()?);
    }
    let folder = Folder::new()?;
    let server = Server::start(&folder.0)?;
    println!("{}", machine());
    println!();
    head(&generators);
    for rate in options.rates.iter().copied() {
        let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); generators.len()];
        for round in 0..options.rounds {
            for turn in 0..generators.len() {
                let at = (round + turn) % generators.len();
                seen[at].push(generators[at].run(&server, &folder.0, rate, options.seconds)?);
            }
        }
        rows(rate, &seen);
    }
    println!();
    println!("{}", machine());
    Ok(())
}

fn head(generators: &[Generator]) {
    let (mut names, mut lines) = (String::from("| |"), String::from("|---|"));
    for generator in generators {
        names += &format!(" {} |", generator.name);
        lines += "---:|";
    }
    for other in &generators[1..] {
        names += &format!(" ours/{} |", other.name);
        lines += "---:|";
    }
    println!("{names}\n{lines}");
}

fn rows(rate: u32, seen: &[Vec<Seen>]) {
    row(&format!("{rate}/s: % of the rate"), seen, |seen| seen.rate_percent, 2, false);
    row("&nbsp; CPU us a request", seen, |seen| seen.cpu_us, 1, true);
    row("&nbsp; p50 ms", seen, |seen| seen.p50_ms, 2, false);
    row("&nbsp; p99 ms", seen, |seen| seen.p99_ms, 2, false);
}

/// A figure's row: medians over the rounds, and for those that are compared the ratio's median and range.
fn row(what: &str, seen: &[Vec<Seen>], figure: impl Fn(&Seen) -> f64, digits: usize, compared: bool) {
    let mut line = format!("| {what} |");
    for of in seen {
        line += &format!(" {:.digits$} |", median(of.iter().map(&figure).collect()));
    }
    for other in &seen[1..] {
        if !compared {
            line += " |";
            continue;
        }
        let ratios: Vec<f64> = seen[0].iter().zip(other).map(|(ours, other)| figure(ours) / figure(other)).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(a, b), &ratio| (a.min(ratio), b.max(ratio)));
        line += &format!(" {:.2} ({least:.2} to {most:.2}) |", median(ratios));
    }
    println!("{line}");
}
