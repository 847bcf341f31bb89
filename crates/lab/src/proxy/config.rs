//! What a proxy does now, as its connections see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::system::Dist;

use super::toxic::{Kind, Stream, Toxic};

/// A toxic of a proxy that runs.
#[derive(Debug)]
pub(super) struct Installed {
    /// Never used again: a toxic that is removed and added anew knows nothing of its time before.
    pub(super) id: u64,
    pub(super) toxic: Toxic,
    pub(super) more: More,
    /// Chunks that it was asked about, and those that it did something to.
    pub(super) asked: AtomicU64,
    pub(super) struck: AtomicU64,
}

/// What a run's faults need of a toxic beyond Toxiproxy's attributes.
#[derive(Clone, Debug, Default)]
pub enum More {
    /// Nothing.
    #[default]
    None,
    /// A rate is shared with all toxics that have the same of this.
    Pace(Arc<Pace>),
    /// A latency has this added, drawn for each chunk, ns.
    Drawn(Dist),
}

/// When the next may leave of all that share a rate.
#[derive(Debug, Default)]
pub struct Pace {
    free_at: AtomicU64,
}

impl Pace {
    /// Takes a turn of so many ns from a time on, or when those before have had theirs; when it is over.
    pub(super) fn turn(&self, from: u64, takes: u64) -> u64 {
        let over = |free: u64| free.max(from).saturating_add(takes);
        match self.free_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| Some(over(free))) {
            Ok(free) | Err(free) => over(free),
        }
    }
}

impl Installed {
    pub(super) fn new(id: u64, toxic: Toxic, more: More) -> Installed {
        Installed { id, toxic, more, asked: AtomicU64::new(0), struck: AtomicU64::new(0) }
    }

    /// Counts a chunk.
    pub(super) fn count(&self, struck: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.struck.fetch_add(u64::from(struck), Ordering::Relaxed);
    }

    /// What is added to a latency for a chunk, ns.
    pub(super) fn drawn(&self, draw: Draw, chunk: u64) -> u64 {
        match &self.more {
            More::Drawn(dist) => duration(dist, draw.part(chunk).bits(1)),
            _ => 0,
        }
    }
}

/// What a proxy does now.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    /// Connections of another epoch are closed.
    pub(super) epoch: u64,
    pub(super) upstream: String,
    pub(super) up: Vec<Arc<Installed>>,
    pub(super) down: Vec<Arc<Installed>>,
}

impl Config {
    pub(super) fn of(&self, stream: Stream) -> &[Arc<Installed>] {
        match stream {
            Stream::Upstream => &self.up,
            Stream::Downstream => &self.down,
        }
    }

    /// Whether nobody can connect: packets of one direction at least vanish.
    pub(super) fn is_cut(&self) -> bool {
        let cuts =
            |toxic: &Arc<Installed>| matches!(toxic.toxic.kind, Kind::Partition(_)) && toxic.toxic.toxicity >= 1.0;
        self.up.iter().chain(&self.down).any(cuts)
    }
}
