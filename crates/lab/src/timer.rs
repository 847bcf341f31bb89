//! Waits that end within some 60 us of when they should: the runtime's own are good to a millisecond, which is
//! longer than many of a system file's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;

/// A thread that wakes tasks.
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    waiters: std::collections::BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
    over: bool,
}

/// The longest that the thread sleeps at once.
const LONGEST: Duration = Duration::from_secs(3600);

impl Timer {
    /// Starts the thread.
    pub fn start(clock: Clock) -> std::io::Result<Arc<Timer>> {
        let timer = Arc::new(Timer { clock, state: Mutex::default(), changed: Condvar::new() });
        let own = timer.clone();
        std::thread::Builder::new().name("timer".to_owned()).spawn(move || own.run())?;
        Ok(timer)
    }

    /// The time on its clock, ns.
    pub fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    /// Waits for so long, ns.
    pub async fn wait(&self, nanos: u64) {
        if nanos > 0 {
            self.until(self.now().saturating_add(nanos)).await;
        }
    }

    /// Waits until a time on the clock, ns.
    pub async fn until(&self, at: u64) {
        if at <= self.now() {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let number = state.next;
            state.next += 1;
            let first = state.due.peek().is_none_or(|Reverse((other, _))| at < *other);
            state.due.push(Reverse((at, number)));
            state.waiters.insert(number, sender);
            if first {
                self.changed.notify_one();
            }
        }
        let _ = receiver.await;
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.changed.notify_one();
    }

    fn run(&self) {
        // Linux ends a sleep up to 50 us late to save wake-ups, unless it is told that this thread minds.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.over {
            let now = self.now();
            let wait = match state.due.peek() {
                Some(Reverse((at, _))) if *at <= now => {
                    if let Some(Reverse((_, number))) = state.due.pop()
                        && let Some(waiter) = state.waiters.remove(&number)
                    {
                        let _ = waiter.send(());
                    }
                    continue;
                }
                Some(Reverse((at, _))) => Duration::from_nanos(at - now).min(LONGEST),
                None => LONGEST,
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_in_order_and_not_early() {
        let clock = Clock::start();
        let timer = Timer::start(clock).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let start = clock.now().as_nanos();
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = [3u64, 1, 2]
                .into_iter()
                .map(|ms| {
                    let (timer, order) = (timer.clone(), order.clone());
                    tokio::spawn(async move {
                        timer.until(start + ms * 20_000_000).await;
                        assert!(clock.now().as_nanos() >= start + ms * 20_000_000);
                        order.lock().unwrap().push(ms);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
        });
        timer.stop();
    }
}
