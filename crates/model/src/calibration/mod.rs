//! How long things take on a machine, as a real run measured it, in the place of what a system file says: so that the
//! simulation predicts that machine.

mod apply;
mod text;
mod times;

use std::collections::BTreeMap;

pub use apply::{durations, is_own};
pub use times::{SHARES, Times};

use crate::system::{ConsumerId, EdgeId, EndpointId, StoreId, System, TopicId};

/// A calibration of one system on one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The name of the system.
    pub system: String,
    /// The hash of its file, 16 hexadecimal digits.
    pub hash: String,
    /// Version of the program that measured it.
    pub plimsoll: String,
    /// The seed of the run's load.
    pub seed: u64,
    /// The load, as a multiple of the clients' own.
    pub load: f64,
    /// How long it was measured, ns.
    pub length: u64,
    /// The busy share of the machine's processors meanwhile, other programs included, 0 to 1.
    pub busy: f64,
    /// How long each thing took. What is not here keeps what the system file says.
    pub times: BTreeMap<What, Times>,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A `work` or `wait` step of an endpoint or of a consumer's handler (the one endpoint of its hidden service), by
    /// its place among them, from 1, in the order of the file.
    Step(EndpointId, u32),
    /// What an endpoint takes beside its steps.
    Beside(EndpointId),
    /// All of an endpoint, of a service whose insides are not known (`run:`).
    Endpoint(EndpointId),
    /// An operation of a store.
    Operation(StoreId, u32),
    /// A store's commit.
    Commit(StoreId),
    /// A command of a store in memory.
    Command(StoreId),
    /// What an exchange takes beside the network and the one asked.
    Overhead(EdgeId),
    /// A publish, as the publisher sees it.
    Publish(TopicId),
    /// From a commit until its message is published.
    Relay(TopicId),
    /// What a consumer does beside its handler for a message.
    Handling(ConsumerId),
}

impl Calibration {
    /// The current version of the format.
    pub const FORMAT: u32 = 1;

    /// Whether it was measured on the file that this system is of.
    pub fn is_of(&self, system: &System) -> bool {
        self.hash == format!("{:016x}", system.hash)
    }
}
