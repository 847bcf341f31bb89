//! Independent replications on all cores, merged in order of their index.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::collect::Sample;
use crate::engine::Draw;
use crate::plan::Plan;
use crate::world::World;

/// Who runs replications, and who may stop them.
#[derive(Clone, Copy)]
pub struct Runner<'a> {
    /// Where all chance comes from.
    pub seed: u64,
    /// Threads; the results are the same for any number.
    pub threads: usize,
    /// Set from outside to end early: what is done by then is reported as partial.
    pub stop: &'a AtomicBool,
    /// Told of progress from 0 to 1, with what is being done.
    pub progress: &'a (dyn Fn(f64, &str) + Sync),
}

impl Runner<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs replications `from..to` and gives back what `keep` takes from each, in order. Stopped
    /// early, it gives back the first ones that are done without a gap.
    pub(crate) fn run<T: Send>(
        &self,
        plan: &Plan,
        from: u32,
        to: u32,
        keep: impl Fn(u32, Sample) -> T + Sync,
    ) -> Vec<T> {
        self.run_each(|_| plan, from, to, keep)
    }

    /// As [`run`](Self::run), with a plan for each replication.
    pub(crate) fn run_each<'p, T: Send>(
        &self,
        plan: impl Fn(u32) -> &'p Plan + Sync,
        from: u32,
        to: u32,
        keep: impl Fn(u32, Sample) -> T + Sync,
    ) -> Vec<T> {
        let next = AtomicU32::new(from);
        let done: Mutex<Vec<Option<T>>> = Mutex::new((from..to).map(|_| None).collect());
        let work = || {
            loop {
                let replication = next.fetch_add(1, Ordering::Relaxed);
                if replication >= to || self.stopped() {
                    return;
                }
                let sample = replicate(plan(replication), self.seed, replication, self.stop);
                if let Some(sample) = sample {
                    let kept = keep(replication, sample);
                    done.lock().expect("no replication panics")[(replication - from) as usize] = Some(kept);
                }
            }
        };
        let threads = self.threads.clamp(1, (to - from).max(1) as usize);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        done.into_inner().expect("no replication panics").into_iter().map_while(|kept| kept).collect()
    }
}

/// Runs one replication; none if it was stopped.
pub(crate) fn replicate(plan: &Plan, seed: u64, replication: u32, stop: &AtomicBool) -> Option<Sample> {
    let mut world = World::new(plan, Draw::root(seed, replication));
    world.run(stop).then(|| world.collect())
}
