//! Tasks that carry requests, one at a time each. A task for each request would be several KiB that are made and thrown
//! away, thousands of times a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::schedule::Due;
use super::{Shared, one};

/// Those that wait for a request.
#[derive(Debug, Default)]
pub(super) struct Workers {
    idle: Mutex<Vec<Arc<Place>>>,
}

/// Where a worker finds its next request, and who wakes it then.
type Place = Mutex<(Option<Due>, Option<Waker>)>;

/// More than so many do not wait: after a spell in which much was under way, they end.
const IDLE_MAX: usize = 1_024;

/// Has a request carried: by whoever has waited the shortest, or by a new worker. None ever waits for a worker.
pub(super) fn carry(shared: &Arc<Shared>, due: Due) {
    let idle = lock(&shared.workers.idle).pop();
    match idle {
        Some(place) => {
            let waker = {
                let mut place = lock(&place);
                place.0 = Some(due);
                place.1.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        None => {
            tokio::spawn(work(shared.clone(), due));
        }
    }
}

async fn work(shared: Arc<Shared>, first: Due) {
    let place = Arc::new(Place::default());
    let mut due = first;
    loop {
        one(&shared, due).await;
        {
            let mut idle = lock(&shared.workers.idle);
            if idle.len() >= IDLE_MAX {
                return;
            }
            idle.push(place.clone());
        }
        due = std::future::poll_fn(|cx| {
            let mut place = lock(&place);
            match place.0.take() {
                Some(due) => Poll::Ready(due),
                None => {
                    place.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
