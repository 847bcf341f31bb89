//! What a proxy does now, as its connections see it.

use std::sync::Arc;

use super::toxic::{Kind, Stream, Toxic};

/// A toxic of a proxy that runs.
#[derive(Debug)]
pub(super) struct Installed {
    /// Never used again: a toxic that is removed and added anew knows nothing of its time before.
    pub(super) id: u64,
    pub(super) toxic: Toxic,
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
