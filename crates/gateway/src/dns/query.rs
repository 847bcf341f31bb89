//! One question to name servers (RFC 1035), by UDP, and by TCP where the answer is too long for that.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

use super::config::Config;

/// Packets that are no answer, at most, before a server is given up: anybody may send some.
const STRAY: usize = 32;
/// Names that one stands for in turn, at most.
const ALIASES: usize = 16;

/// An answer with at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is no such name, or it has no address of the kind.
    Name,
    /// No server could say.
    Answer(String),
}

/// Asks one server after the other for a name's addresses of one kind.
pub(super) fn ask(config: &Config, name: &str, kind: TYPE, random: u64) -> Result<Answer, Missing> {
    let mut why = "there is no name server".to_owned();
    for round in 0..config.attempts {
        for server in &config.servers {
            let id = (crate::random::mix(random ^ u64::from(round)) >> 16) as u16;
            match ask_one(*server, config.timeout, name, kind, id) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => return Err(Missing::Name),
                Err(error) => why = format!("{server}: {error}"),
            }
        }
    }
    Err(Missing::Answer(why))
}

fn ask_one(server: SocketAddr, timeout: Duration, name: &str, kind: TYPE, id: u16) -> io::Result<Option<Answer>> {
    let question = question(name, kind, id)?;
    // A port that the system picks, and an end that it checks, so that a stranger has to guess more than `id`.
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(&question)?;
    let mut bytes = [0; 1500];
    for _ in 0..STRAY {
        let count = socket.recv(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        match read(&bytes[..count], name, kind, id) {
            Came::Answer(answer) => return Ok(answer),
            Came::Failed(code) => return Err(io::Error::other(format!("the server says {code:?}"))),
            Came::Long => return ask_by_tcp(server, timeout, &question, name, kind, id),
            Came::Stray => {}
        }
    }
    Err(io::Error::other("what comes is no answer"))
}

fn ask_by_tcp(
    server: SocketAddr,
    timeout: Duration,
    question: &[u8],
    name: &str,
    kind: TYPE,
    id: u16,
) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    match read(&bytes, name, kind, id) {
        Came::Answer(answer) => Ok(answer),
        Came::Failed(code) => Err(io::Error::other(format!("the server says {code:?}"))),
        Came::Long | Came::Stray => Err(io::Error::other("what comes is no answer")),
    }
}

fn question(name: &str, kind: TYPE, id: u16) -> io::Result<Vec<u8>> {
    let name = Name::new(name).map_err(io::Error::other)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// A time to live of more than 31 bits is none (RFC 2181, section 8).
fn sound(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// What a packet is.
enum Came {
    /// The answer; none: there is no address of the kind.
    Answer(Option<Answer>),
    /// The server cannot say.
    Failed(RCODE),
    /// It would be longer than UDP carries here.
    Long,
    /// It answers another question, or is no answer.
    Stray,
}

fn read(bytes: &[u8], name: &str, kind: TYPE, id: u16) -> Came {
    let (Ok(packet), Ok(name)) = (Packet::parse(bytes), Name::new(name)) else { return Came::Stray };
    let asked = packet.questions.first().is_some_and(|q| q.qname == name && q.qtype == QTYPE::TYPE(kind));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Came::Stray;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Came::Answer(None),
        code => return Came::Failed(code),
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Came::Long;
    }
    let mut ttl = u32::MAX;
    let mut name = name;
    for _ in 0..ALIASES {
        let alias = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(alias) if record.name == name => Some((alias.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((alias, holds)) = alias else { break };
        ttl = ttl.min(sound(holds));
        name = alias;
    }
    let mut addresses = Vec::new();
    for record in packet.answers.iter().filter(|record| record.name == name) {
        match (&record.rdata, kind) {
            (RData::A(a), TYPE::A) => addresses.push(IpAddr::V4(Ipv4Addr::from(a.address))),
            (RData::AAAA(aaaa), TYPE::AAAA) => addresses.push(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
            _ => continue,
        }
        ttl = ttl.min(sound(record.ttl));
    }
    let ttl = Duration::from_secs(ttl.into());
    Came::Answer((!addresses.is_empty()).then_some(Answer { addresses, ttl }))
}
