//! What the way to a store's node and back costs, for calibrations.

use std::future::Future;

use plimsoll_model::draw::{Draw, duration};

use super::Asker;
use crate::answer::Took;
use crate::tally::Time;
use crate::wire::client::Answer as Wire;

/// An exchange with a node: how long it takes beside the network's delays, which are waited for here.
pub(super) struct Hop<'a> {
    asker: &'a Asker,
    started: u64,
    /// What of it is no part of the way there and back, ns.
    less: u64,
    /// How long the node says that it took, ns; none if it says nothing.
    took: Option<u64>,
}

impl<'a> Hop<'a> {
    pub(super) fn new(asker: &'a Asker) -> Hop<'a> {
        Hop { asker, started: asker.process.tools.clock.now().as_nanos(), less: 0, took: None }
    }

    /// Waits for the network, one way or the other.
    pub(super) async fn delay(&mut self, node: usize, draw: Draw, back: u64) {
        let nanos = self.asker.delays.get(node).map_or(0, |dist| duration(dist, draw.bits(back | 1 << 20)));
        self.less += nanos;
        self.asker.process.tools.timer.wait(nanos).await;
    }

    /// Does something that is no part of it.
    pub(super) async fn without<T>(&mut self, other: impl Future<Output = T>) -> T {
        let clock = self.asker.process.tools.clock;
        let since = clock.now();
        let done = other.await;
        self.less += clock.now().nanos_since(since);
        done
    }

    pub(super) fn so_far(&self) -> u64 {
        (self.asker.process.tools.clock.now().as_nanos() - self.started).saturating_sub(self.less)
    }

    /// The node has answered, and perhaps says how long that took.
    pub(super) fn answered(&mut self, answer: &Wire) {
        self.took = answer.field("took").and_then(Took::read).map(|took| took.nanos);
    }

    /// It is over.
    pub(super) fn ended(&self) {
        if let Some(took) = self.took {
            let way = self.so_far().saturating_sub(took);
            self.asker.process.tools.tally.took(Time::Hop(self.asker.edge()), way);
        }
    }
}
