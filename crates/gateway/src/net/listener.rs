//! Sockets that listen: one a core for each address, among which the kernel spreads new connections.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel's own limit bounds it.
const BACKLOG: i32 = 4096;

/// Binds one listening socket for each core. The first is bound alone, so that an address that another
/// program has is an error, and not shared with it; `beside` leaves that out, and shares it with another gateway of
/// the same user.
pub fn bind(address: SocketAddr, cores: usize, beside: bool) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT this fails if anybody listens, be it another gateway of the same user.
    let mut address = address;
    if !beside || address.port() == 0 {
        let probe = socket(address, false)?;
        address = probe.local_addr()?.as_socket().unwrap_or(address);
    }
    (0..cores)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

/// From now on no connection begins here: who asks for one hears nothing, asks again within a second, and finds
/// whoever else listens by then. Connections that have begun are completed. Without that, closing the socket would
/// reset those that are between their first packet and `accept`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn refuse_new(listener: &tokio::net::TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    // The filter sees a segment from its TCP header on: the flags are its byte 13 (RFC 9293, section 3.1), and the
    // first one of a connection alone has SYN without ACK. Codes are those of linux/bpf_common.h.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN_AND_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Elsewhere there is no such filter: connections that are just beginning may be reset.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn refuse_new(_: &tokio::net::TcpListener) -> io::Result<()> {
    Ok(())
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
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 2, false).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(sockets[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(address, 1, true).unwrap()[0].local_addr().unwrap(), address);
        // What does not share is not shared.
        let alone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = bind(alone.local_addr().unwrap(), 1, true);
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
