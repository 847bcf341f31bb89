//! Whom a request is from.

use std::net::IpAddr;

/// Who stands at the other end of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether its word on others' addresses is taken.
    pub trusted: bool,
    /// Whether it came by TLS.
    pub tls: bool,
}

impl Peer {
    /// The client's address: the peer's own, or, of a trusted one, the last in `X-Forwarded-For` that it
    /// did not make up itself.
    pub fn client(&self, forwarded_for: Option<&[u8]>, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
        let mut client = self.address;
        if !self.trusted {
            return client;
        }
        let Some(list) = forwarded_for.and_then(|value| std::str::from_utf8(value).ok()) else {
            return client;
        };
        for entry in list.rsplit(',') {
            let Ok(address) = entry.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !trusted(client) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_that_nobody_vouches_for() {
        let peer = Peer { address: "10.0.0.9".parse().unwrap(), trusted: true, tls: false };
        let inside = |address: IpAddr| address.to_string().starts_with("10.");
        for (list, client) in [
            (None, "10.0.0.9"),
            (Some("1.1.1.1"), "1.1.1.1"),
            (Some("6.6.6.6, 1.1.1.1, 10.0.0.3"), "1.1.1.1"),
            (Some("nonsense, 10.0.0.3"), "10.0.0.3"),
        ] {
            assert_eq!(peer.client(list.map(str::as_bytes), inside), client.parse::<IpAddr>().unwrap(), "{list:?}");
        }
        let stranger = Peer { trusted: false, ..peer };
        assert_eq!(stranger.client(Some(b"1.1.1.1"), inside), peer.address);
    }
}
