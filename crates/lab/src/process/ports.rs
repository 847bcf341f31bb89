//! Ports that are free, and stay this run's.

use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use super::ProcessError;

/// A port on 127.0.0.1 that is this run's as long as this lives, whether or not anybody listens on it.
///
/// A socket that is bound and does not listen keeps the kernel from giving the port to others. A server that
/// sets `SO_REUSEADDR`, as nearly all do, can listen on it all the same, again and again: its port is not
/// lost while it is dead. To a client a port without a server is refused, as it should be.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    /// One that nobody has.
    pub fn free() -> Result<Port, ProcessError> {
        Port::find(0).map_err(ProcessError::Port)
    }

    /// This one, if nobody has it.
    pub fn hold(number: u16) -> Result<Port, ProcessError> {
        Port::find(number).map_err(ProcessError::Port)
    }

    fn find(number: u16) -> std::io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // A port that is given must not be refused for connections that ended a moment ago. Bound without it, the
        // kernel looks for one that nobody at all has; set after, others may share it.
        socket.set_reuse_address(number != 0)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, number).into())?;
        socket.set_reuse_address(true)?;
        let address = socket.local_addr()?.as_socket_ipv4();
        let number = address.map(|address| address.port()).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        Ok(Port { number, _held: socket })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_held_port_can_be_listened_on_again_and_again_and_is_given_to_nobody() {
        let port = Port::free().expect("a port");
        let address = (Ipv4Addr::LOCALHOST, port.number());
        assert_eq!(
            TcpStream::connect(address).map_err(|e| e.kind()).err(),
            Some(std::io::ErrorKind::ConnectionRefused)
        );
        for _ in 0..3 {
            let server = TcpListener::bind(address).expect("it can be listened on");
            let client = TcpStream::connect(address).expect("and connected to");
            drop(server.accept().expect("a client"));
            drop(client);
        }
        let others: Vec<Port> = (0..500).map(|_| Port::free().expect("a port")).collect();
        assert!(others.iter().all(|other| other.number() != port.number()));
        let plain: Vec<TcpListener> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let taken = |number: u16| number == port.number() || others.iter().any(|other| other.number() == number);
        assert!(!plain.iter().any(|socket| taken(socket.local_addr().expect("an address").port())));
    }
}
