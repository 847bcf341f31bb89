//! A reverse proxy whose whole configuration is a `kind: gateway` service of a system file.
//!
//! It drives the state machines of `plimsoll_policy`, which the simulator drives too, with real time and
//! real sockets. Each core has its own listener, runtime, buffers and connections to instances; what the
//! policies know is shared by all of them ([`upstream`] says why).
//!
//! ```text
//!   client ──► front ──► inbound ──► exchange ──► upstream ──► instance
//!              connection  quota,     attempts,     policies,
//!              and head    limits     retries       who is asked
//! ```
//!
//! What decides (`inbound`, `answers`, `upstream`) takes the time as an argument and waits for nothing; `core` has
//! all of it in one place, and what waits (`exchange`, `front`, `control`) stands above that. No two modules use
//! each other.

pub mod access_log;
pub mod answers;
pub mod clock;
pub mod control;
pub mod core;
pub mod dns;
pub mod exchange;
pub mod figures;
pub mod front;
pub mod http1;
pub mod inbound;
pub mod net;
pub mod plan;
pub mod process;
pub mod random;
pub mod redis;
pub mod signals;
pub mod upstream;

pub use plan::{CannotServe, Plan};
pub use process::{Gateway, StartError};
