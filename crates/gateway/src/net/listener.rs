//! Sockets that listen: one a core for each address, among which the kernel spreads new connections.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel's own limit bounds it.
const BACKLOG: i32 = 4096;

/// Binds one listening socket for each core. The first is bound alone, so that an address that another
/// program has is an error, and not shared with it.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT this fails if anybody listens, be it another gateway of the same user.
    let probe = socket(address, false)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..cores)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    if !shared {
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_share_a_port_and_programs_do_not() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(sockets[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
