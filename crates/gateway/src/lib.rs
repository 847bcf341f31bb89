//! A reverse proxy whose whole configuration is a `kind: gateway` service of a system file.
//!
//! It drives the state machines of `plimsoll_policy`, which the simulator drives too, with real time and
//! real sockets.

pub mod http1;
