//! A client's connection, whichever protocol it speaks.

use std::rc::Rc;

use super::open::Listed;
use crate::core::{Core, Place};
use crate::exchange::forward::Peer;
use crate::net::Stream;

/// A client's connection.
pub struct Connection {
    /// Its core.
    pub core: Rc<Core>,
    /// The connection.
    pub stream: Stream,
    /// Who stands at its other end.
    pub peer: Peer,
    /// Its place on its core's list.
    pub listed: Listed,
    /// Its place among those allowed.
    pub place: Place,
}
