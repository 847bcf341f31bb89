//! Whether this instance lives, and whether it should get requests.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the instance knows of itself.
#[derive(Default)]
pub struct Health {
    started: AtomicBool,
    leaving: AtomicBool,
}

impl Health {
    /// The schema is there.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// From now on it is not ready, and goes on answering until balancers have noticed.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether it has begun to serve.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }
}
