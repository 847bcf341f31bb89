//! An emulated instance's cores. They are the file's, not this machine's: work holds one for as long as it takes, and
//! uses no processor, so that a machine of two can run systems of twenty.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::timer::Timer;

/// An instance's cores.
#[derive(Debug)]
pub struct Cores {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    timer: Arc<Timer>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: u32,
    /// Work that waits for a core, the first to come first.
    waiting: VecDeque<oneshot::Sender<Core>>,
}

/// A core that is in use.
#[derive(Debug)]
struct Core {
    queue: Arc<Queue>,
    /// Until when, ns on the clock. What comes next starts then, and not when this machine has noticed: an emulated
    /// core has no pauses between two pieces of work.
    until: u64,
}

impl Cores {
    /// So many cores.
    pub fn new(count: u32, timer: Arc<Timer>) -> Cores {
        Cores { queue: Arc::new(Queue { timer, state: Mutex::new(State { free: count, waiting: VecDeque::new() }) }) }
    }

    /// Whether a core has nothing to do.
    pub fn is_free(&self) -> bool {
        self.queue.state().free > 0
    }

    /// Holds a core for so long, ns, once one is free; `began` is called then. Work of which nobody waits for the end
    /// any more is not begun; what has begun keeps its core to the end.
    pub async fn work(&self, nanos: u64, began: impl FnOnce()) {
        let mut core = self.queue.core().await;
        began();
        core.until = core.until.saturating_add(nanos);
        self.queue.timer.until(core.until).await;
    }
}

impl Queue {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn core(self: &Arc<Queue>) -> Core {
        let next = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Core { queue: self.clone(), until: self.timer.now() };
            }
            let (next, turn) = oneshot::channel();
            state.waiting.push_back(next);
            turn
        };
        match next.await {
            Ok(core) => core,
            // Senders are dropped with the queue alone, which `self` keeps.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives a core to whoever waits for it, or nobody.
    fn give(self: &Arc<Queue>, until: u64) {
        let mut state = self.state();
        let Some(next) = state.waiting.pop_front() else {
            state.free += 1;
            return;
        };
        // A core that nobody takes any more comes back here as it is dropped.
        drop(state);
        drop(next.send(Core { queue: self.clone(), until }));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let (queue, until) = (self.queue.clone(), self.until);
        if until <= queue.timer.now() {
            queue.give(until);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Its request is given up; a processor does not notice.
            runtime.spawn(async move {
                queue.timer.until(until).await;
                queue.give(until);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    const MS: u64 = 1_000_000;

    fn nothing() {}

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn work_waits_for_a_core_and_begins_when_the_one_before_was_due_to_end() {
        let clock = Clock::start();
        let timer = Timer::start(clock).unwrap();
        let cores = Arc::new(Cores::new(2, timer.clone()));
        runtime().block_on(async {
            let start = clock.now().as_nanos();
            let all: Vec<_> = (0..100)
                .map(|_| {
                    let cores = cores.clone();
                    tokio::spawn(async move { cores.work(2 * MS, nothing).await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!cores.is_free());
            for one in all {
                one.await.unwrap();
            }
            // 50 pieces a core, 2 ms each: wake-ups, of some 0.1 ms each, do not add up.
            let took = clock.now().as_nanos() - start;
            assert!(took >= 100 * MS, "{took}");
            assert!(cores.is_free());
        });
        timer.stop();
    }

    #[test]
    fn a_core_outlives_its_request_and_work_that_nobody_waits_for_is_not_begun() {
        let clock = Clock::start();
        let timer = Timer::start(clock).unwrap();
        let cores = Arc::new(Cores::new(1, timer.clone()));
        runtime().block_on(async {
            let spawn = |nanos| {
                let cores = cores.clone();
                tokio::spawn(async move { cores.work(nanos, nothing).await })
            };
            let start = clock.now().as_nanos();
            let given_up = spawn(400 * MS);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let never_begun = spawn(10_000 * MS);
            let last = spawn(MS);
            tokio::time::sleep(Duration::from_millis(10)).await;
            given_up.abort();
            never_begun.abort();
            assert!(given_up.await.is_err() && never_begun.await.is_err());
            assert!(!cores.is_free(), "a core does not notice that nobody waits");
            last.await.unwrap();
            let took = clock.now().as_nanos() - start;
            assert!((401 * MS..10_000 * MS).contains(&took), "{took}");
        });
        timer.stop();
    }
}
