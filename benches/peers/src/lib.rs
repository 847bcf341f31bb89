//! Measuring contenders against each other: in one process, in interleaved rounds, so that a slow
//! moment of the machine hits all of them.

use std::time::{Duration, Instant};

/// One side of a comparison: does its operation so many times.
pub struct Contender<'a> {
    /// What the table calls it.
    pub name: &'static str,
    run: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Contender<'a> {
    /// `run(n)` does the operation `n` times.
    pub fn new(name: &'static str, run: impl FnMut(u64) + 'a) -> Self {
        Contender {
            name,
            run: Box::new(run),
        }
    }
}

/// What a comparison found for one contender.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Median nanoseconds an operation.
    pub ns: f64,
    /// Median over the rounds of its time divided by the first contender's in the same round.
    pub ratio: f64,
}

/// Measures all contenders in `rounds` rounds of about `slice` each.
pub fn compare(contenders: &mut [Contender<'_>], rounds: usize, slice: Duration) -> Vec<Row> {
    let counts: Vec<u64> = contenders.iter_mut().map(|c| calibrate(c, slice)).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Another one starts each round.
            let i = (round + turn) % contenders.len();
            times[i].push(time(&mut contenders[i], counts[i]).as_nanos() as f64 / counts[i] as f64);
        }
    }
    let ratio = |mine: &[f64]| median(mine.iter().zip(&times[0]).map(|(a, b)| a / b));
    let row = |(c, mine): (&Contender<'_>, &Vec<f64>)| Row {
        name: c.name,
        ns: median(mine.iter().copied()),
        ratio: ratio(mine),
    };
    contenders.iter().zip(&times).map(row).collect()
}

fn time(contender: &mut Contender<'_>, count: u64) -> Duration {
    let start = Instant::now();
    (contender.run)(count);
    start.elapsed()
}

/// How many operations take about `slice`; warms up on the way.
fn calibrate(contender: &mut Contender<'_>, slice: Duration) -> u64 {
    let mut count = 1_000;
    loop {
        let took = time(contender, count);
        if took >= slice / 4 {
            let exact = count as f64 * slice.as_secs_f64() / took.as_secs_f64();
            return (exact as u64).max(1);
        }
        count *= 4;
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
