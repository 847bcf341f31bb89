//! Work: threads that burn processor time, one for each core that an instance has.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use plimsoll_model::draw::mix;
use tokio::sync::oneshot;

use crate::clock;

/// An instance's cores.
#[derive(Debug)]
pub struct Cores {
    queue: Arc<Queue>,
    count: u32,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    came: Condvar,
    /// Jobs that are queued or under way.
    open: AtomicU32,
}

#[derive(Debug)]
struct Job {
    nanos: u64,
    hold: u64,
    began: oneshot::Sender<()>,
    done: oneshot::Sender<()>,
}

impl Cores {
    /// So many cores.
    pub fn start(count: u32) -> std::io::Result<Cores> {
        let queue = Arc::new(Queue::default());
        for core in 0..count {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("work-{core}")).spawn(move || work(&queue))?;
        }
        Ok(Cores { queue, count })
    }

    /// Whether a core has nothing to do.
    pub fn is_free(&self) -> bool {
        self.queue.open.load(Ordering::Relaxed) < self.count
    }

    /// Burns so much processor time on one core, ns, once one is free, and keeps that core for `hold` ns more: an
    /// instance that a fault makes slow has no more of this machine's processors than before. `began` is called when
    /// a core is free. Work of which nobody waits for the end any more is not begun.
    pub async fn burn(&self, nanos: u64, hold: u64, began: impl FnOnce()) {
        let (begin, begins) = oneshot::channel();
        let (done, ends) = oneshot::channel();
        {
            let mut jobs = self.queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            self.queue.open.fetch_add(1, Ordering::Relaxed);
            jobs.push_back(Job { nanos, hold, began: begin, done });
        }
        self.queue.came.notify_one();
        if begins.await.is_ok() {
            began();
        }
        let _ = ends.await;
    }
}

fn work(queue: &Queue) {
    loop {
        let job = {
            let mut jobs = queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                match jobs.pop_front() {
                    Some(job) => break job,
                    None => jobs = queue.came.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        if job.done.is_closed() {
            queue.open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let _ = job.began.send(());
        burn(job.nanos);
        if job.hold > 0 {
            clock::block(std::time::Duration::from_nanos(job.hold));
        }
        queue.open.fetch_sub(1, Ordering::Relaxed);
        let _ = job.done.send(());
    }
}

/// Uses so much processor time of this thread, ns. Time that others take is not counted.
fn burn(nanos: u64) {
    let end = clock::processor_nanos().saturating_add(nanos);
    let mut x = nanos;
    while clock::processor_nanos() < end {
        for _ in 0..256 {
            x = mix(black_box(x));
        }
    }
    black_box(x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, processor_nanos};

    fn nothing() {}

    #[test]
    fn work_takes_processor_time_and_waits_for_a_core() {
        let before = processor_nanos();
        burn(20_000_000);
        assert!(processor_nanos() - before >= 20_000_000);
        let cores = Cores::start(1).unwrap();
        let clock = Clock::start();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (first, second) = (cores.burn(30_000_000, 0, nothing), cores.burn(20_000_000, 10_000_000, nothing));
            let mut both = [Some(Box::pin(first)), Some(Box::pin(second))];
            std::future::poll_fn(|cx| {
                for one in &mut both {
                    if one.as_mut().is_some_and(|one| std::future::Future::poll(one.as_mut(), cx).is_ready()) {
                        *one = None;
                    }
                }
                if both.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        });
        assert!(clock.now().as_nanos() >= 60_000_000, "one after the other");
    }
}
