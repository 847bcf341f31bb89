//! The service as its users have it: processes on real PostgreSQL and Redis, over HTTP. ./scripts/packages installs those.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "modules of a test are its own")]
#![allow(clippy::disallowed_methods, reason = "tests wait for what other processes do")]

mod degraded;
mod http;
mod limits;
mod notes;
mod observed;
mod replicas;
mod shutdown;
mod tour;
mod world;
