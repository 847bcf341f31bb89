//! A client's connection, whichever protocol it speaks.

use std::cell::Cell;
use std::rc::Rc;

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
    /// Whether it waits for a request: then it can be closed at any time.
    pub idle: Rc<Cell<bool>>,
    /// Whether its address is listened on no more: then it ends with the request that it is at.
    pub leaving: Rc<Cell<bool>>,
    /// Its place among those allowed.
    pub place: Place,
}
