use super::{Dist, Program, ServiceId, TopicId};

/// A log of messages.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The reader's name for it.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Partitions: a key's messages stay in one, in order.
    pub partitions: u32,
    /// Unconsumed messages that it holds.
    pub capacity: u32,
    /// What a publisher meets when it is full.
    pub when_full: WhenFull,
    /// Whether messages that keep failing are set aside.
    pub dead_letter: bool,
    /// How long a message is kept, consumed or not, ns.
    pub retention: u64,
    /// Time of a publish as the caller sees it, ns.
    pub publish: Dist,
    /// From a commit until the outbox relay has published, ns.
    pub relay: Dist,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// What a publisher meets when a topic is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// An error.
    Reject,
    /// A wait until there is room.
    Block,
    /// Success; the oldest message is lost.
    DropOldest,
}

/// Those who handle a topic's messages.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The reader's name for it.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The topic.
    pub topic: TopicId,
    /// Instances; partitions are spread over them.
    pub instances: u32,
    /// What handling a message does. The steps run in the service's place of this consumer.
    pub handler: Program,
    /// The hidden service that runs the handler, for edges and policies.
    pub service: ServiceId,
    /// Deliveries of one message before it is set aside or dropped.
    pub attempts: u32,
    /// Wait before a redelivery, ns.
    pub backoff: Dist,
    /// Share of messages that fail whenever they are handled, 0 to 1.
    pub poison: f64,
    /// Whether a message is acknowledged before it is handled: a crash then loses it.
    pub ack_first: bool,
    /// How long handled messages are remembered, ns; none: duplicates take effect twice.
    pub dedup: Option<u64>,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// A lease that one instance of a service holds at a time.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The reader's name for it.
    pub name: String,
    /// The service whose instances compete for it.
    pub service: ServiceId,
    /// How long it holds without renewal, ns.
    pub ttl: u64,
    /// Between renewals, ns.
    pub renew: u64,
    /// Between writes that the holder makes under it, ns.
    pub write_every: u64,
    /// Time that a write takes, ns.
    pub write: Dist,
    /// Whether the resource checks the token, and refuses the late write of an old holder.
    pub fencing: bool,
    /// Line of its key in the file, from 1.
    pub line: u32,
}
