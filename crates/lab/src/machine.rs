//! How busy the machine itself is: a run on one that has nothing left to give says little of the system.

/// A look at the processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    busy: u64,
    all: u64,
}

/// A machine whose processors are busy for a greater share of the time is the bottleneck.
pub const FULL: f64 = 0.9;

impl Machine {
    /// Looks. Where the system does not say, nothing is known.
    pub(crate) fn look() -> Machine {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
        let all: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Machine { busy: all - idle, all }
    }

    /// The busy share since then, from 0 to 1.
    pub(crate) fn busy_since(self) -> f64 {
        self.busy_until(Machine::look())
    }

    fn busy_until(self, now: Machine) -> f64 {
        let all = now.all.saturating_sub(self.all);
        if all == 0 { 0.0 } else { now.busy.saturating_sub(self.busy) as f64 / all as f64 }
    }

    /// What the reader should know of it.
    pub(crate) fn warning(busy: f64) -> Option<String> {
        full(busy).map(|full| format!("{full}: the figures say more about it than about the system"))
    }

    /// Why what was missed says nothing.
    pub(crate) fn unsure(busy: f64, passed: bool) -> Option<String> {
        let full = full(busy).filter(|_| !passed)?;
        Some(format!(
            "an expectation was missed, and {full}: nobody knows whether the system missed it or the machine; run it \
             while nothing else is at work, or with a smaller `--scale`"
        ))
    }
}

fn full(busy: f64) -> Option<String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (busy > FULL).then(|| format!("this machine's {processors} processors were {:.0}% busy", busy * 100.0))
}

/// Requests that were handed over late while nothing was left of the processors: what those figures say is how long a
/// request waited for a processor here, not in the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Starved {
    since: Machine,
    before: (u64, u64),
    late: u64,
    made: u64,
}

/// From here on something waited for a processor all the time.
const SATURATED: f64 = 0.95;

/// The share of requests that may be late for want of a processor.
const STARVED_MAX: f64 = 0.01;

impl Starved {
    /// Looks for the first time. `counted`: requests that were handed over late, and all that were made, by now.
    pub(crate) fn look(machine: Machine, counted: (u64, u64)) -> Starved {
        Starved { since: machine, before: counted, late: 0, made: 0 }
    }

    /// Looks again, a fraction of a second later: a burst that takes all for a few seconds is seen as well.
    pub(crate) fn again(&mut self, machine: Machine, counted: (u64, u64)) {
        let (late, made) = (counted.0 - self.before.0, counted.1 - self.before.1);
        if self.since.busy_until(machine) > SATURATED {
            self.late += late;
        }
        self.made += made;
        (self.since, self.before) = (machine, counted);
    }

    /// The share of requests that say nothing of the system, if that is too large.
    pub(crate) fn too_many(&self) -> Option<f64> {
        let share = self.late as f64 / self.made.max(1) as f64;
        (share > STARVED_MAX).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_on_a_full_machine_is_nobodys() {
        assert_eq!((Machine::unsure(0.9, false), Machine::unsure(0.91, true)), (None, None));
        assert!(Machine::unsure(0.91, false).is_some_and(|why| why.contains("91% busy")));
    }

    #[test]
    fn requests_that_are_late_count_while_nothing_is_left_of_the_processors() {
        let at = |busy, all| Machine { busy, all };
        let mut starved = Starved::look(at(0, 0), (0, 0));
        // Late for another reason: half of the processors did nothing.
        starved.again(at(25, 50), (50, 100));
        assert_eq!(starved.too_many(), None);
        // All of them busy, and nothing late.
        starved.again(at(75, 100), (50, 900));
        assert_eq!(starved.too_many(), None);
        // Both, for a moment: 10 of 1,000 may be, 11 may not.
        starved.again(at(124, 150), (60, 1000));
        assert_eq!(starved.too_many(), None);
        starved.again(at(174, 200), (71, 1000));
        assert_eq!(starved.too_many(), Some(0.021));
        // A look at no time says nothing.
        let mut still = Starved::look(at(0, 0), (0, 0));
        still.again(at(0, 0), (10, 10));
        assert_eq!(still.too_many(), None);
    }
}
