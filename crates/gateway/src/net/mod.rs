//! Connections, buffers and timers.

pub mod alarm;
pub mod buffer;
pub mod files;
pub mod listener;
pub mod pool;
pub mod prefixed;
pub mod stream;
pub mod tls;

pub use alarm::Alarm;
pub use buffer::{Buffer, Buffers};
pub use pool::Pool;
pub use stream::Stream;
