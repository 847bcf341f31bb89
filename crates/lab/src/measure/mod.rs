//! What is measured: by clients for each request, by processes bit by bit; split into the segments between an
//! experiment's cuts, and into seconds.

pub mod gateway;
pub mod metric;
pub mod parts;
pub mod requests;
pub mod times;

use plimsoll_model::system::{Experiment, Phase};

/// An experiment's segments: the warm-up, and what lies between the starts and ends of its phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Ends of segments, ns from the start of the load: the warm-up's first, the run's last.
    pub ends: Vec<u64>,
    /// The warm-up's length, ns.
    pub warmup: u64,
    phases: [Vec<usize>; 5],
}

impl Cuts {
    /// Those of an experiment, where the simulation has them too.
    pub fn new(experiment: &Experiment) -> Cuts {
        let duration = experiment.duration;
        let first = experiment.faults.iter().map(|fault| fault.at).min();
        let last = experiment.faults.iter().map(|fault| fault.until).max();
        let settled = duration / 4 * 3;
        let mut relative = vec![0, settled, duration];
        relative.extend(first);
        relative.extend(last);
        relative.retain(|cut| *cut <= duration);
        relative.sort_unstable();
        relative.dedup();
        let between = |from: u64, to: u64| -> Vec<usize> {
            (1..relative.len()).filter(|&i| relative[i - 1] >= from && relative[i] <= to).collect()
        };
        let first = first.unwrap_or(duration);
        let last = last.unwrap_or(duration).min(duration);
        let phases = [
            between(0, duration),
            between(0, first),
            between(first, last),
            between(last, duration),
            between(settled, duration),
        ];
        Cuts { ends: relative.iter().map(|cut| cut + experiment.warmup).collect(), warmup: experiment.warmup, phases }
    }

    /// How many segments there are, the warm-up and what comes after the end included.
    pub fn count(&self) -> usize {
        self.ends.len() + 1
    }

    /// The segments of a phase.
    pub fn phase(&self, phase: Phase) -> &[usize] {
        &self.phases[phase as usize]
    }

    /// The length of segments, ns.
    pub fn length(&self, segments: &[usize]) -> u64 {
        segments.iter().map(|&i| self.ends[i] - if i == 0 { 0 } else { self.ends[i - 1] }).sum()
    }

    /// The segment that a time lies in, ns from the start of the load.
    pub fn at(&self, time: u64) -> usize {
        self.ends.partition_point(|end| *end <= time)
    }

    /// The second of the measured part that a time lies in; none within the warm-up or after the end.
    pub fn second(&self, time: u64) -> Option<usize> {
        let end = self.ends.last().copied().unwrap_or(0);
        (time < end).then(|| time.checked_sub(self.warmup).map(|since| (since / 1_000_000_000) as usize))?
    }

    /// Seconds of the measured part.
    pub fn seconds(&self) -> usize {
        let end = self.ends.last().copied().unwrap_or(0);
        (end - self.warmup).div_ceil(1_000_000_000) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_made_of_segments() {
        let experiment = Experiment {
            name: "test".to_owned(),
            duration: 100,
            warmup: 10,
            load: Vec::new(),
            faults: Vec::new(),
            expect: Vec::new(),
            line: 1,
        };
        let cuts = Cuts::new(&experiment);
        assert_eq!(cuts.ends, [10, 85, 110]);
        assert_eq!((cuts.at(0), cuts.at(10), cuts.at(84), cuts.at(85), cuts.at(110)), (0, 1, 1, 2, 3));
        assert_eq!(cuts.phase(Phase::Whole), [1, 2]);
        assert_eq!(cuts.phase(Phase::End), [2]);
        assert_eq!(cuts.length(cuts.phase(Phase::Whole)), 100);
    }
}
