//! A request's head.

use std::mem::MaybeUninit;

use httparse::Header;

use super::body::{Framing, Lengths};
use super::name::{self, Field, members};
use super::{FIELDS_MAX, Malformed, Refused};

/// Room for the fields of a head.
pub type Room<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

/// Room for the fields of a head, not yet used.
pub const fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// A request's head, read.
#[derive(Debug)]
pub struct Request<'b, 'f> {
    /// `GET`
    pub method: &'b str,
    /// The path and query, which start with `/`, or `*`.
    pub target: &'b str,
    /// Whom it is for: of the target where that names it, else of `Host`. Empty only in HTTP/1.0.
    pub host: &'b [u8],
    /// Whether it is HTTP/1.0.
    pub old: bool,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the client wants to go on with this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The protocol that it asks to change to.
    pub upgrade: Option<&'b [u8]>,
    /// Whether it takes trailers.
    pub te_trailers: bool,
    /// All its fields, those for this hop alone included.
    pub fields: &'f [Header<'b>],
    /// Whether `Connection` names fields other than the usual.
    pub(crate) lists: bool,
}

impl<'b, 'f> Request<'b, 'f> {
    /// Reads a whole head, its empty line included. `bytes` has no bare line feed, as
    /// [`head::end`](super::head::end) has seen to.
    pub fn parse(bytes: &'b [u8], room: &'f mut Room<'b>, fields_max: usize) -> Result<Request<'b, 'f>, Refused> {
        let room = &mut room[..fields_max.min(FIELDS_MAX)];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooManyFields),
            Err(httparse::Error::Version) => return Err(Malformed::Version.into()),
            _ => return Err(Malformed::Head.into()),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Malformed::Head.into());
        };
        let fields: &'f [Header<'b>] = parsed.headers;
        let old = version == 0;
        let (authority, target) = split(method, target)?;

        let mut lengths = Lengths::default();
        let (mut host, mut close, mut stay, mut lists) = (None, false, false, false);
        let (mut wants_upgrade, mut upgrade, mut expects_continue, mut te_trailers) = (false, None, false, false);
        for Header { name, value } in fields {
            match name::field(name) {
                Field::ContentLength => lengths.content_length(value)?,
                // HTTP/1.0 has no chunks: whoever sends them there is not to be trusted about ends.
                Field::TransferEncoding if old => return Err(Malformed::TransferEncoding.into()),
                Field::TransferEncoding => lengths.transfer_encoding(value)?,
                Field::Host if host.is_some() => return Err(Malformed::Host.into()),
                Field::Host => host = Some(*value),
                Field::Connection => {
                    for option in members(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        stay |= option.eq_ignore_ascii_case(b"keep-alive");
                        wants_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    }
                    lists = true;
                }
                // Of several only one could be answered to.
                Field::Upgrade => upgrade = if upgrade.is_none() { Some(*value) } else { Some(&b""[..]) },
                Field::Expect if value.eq_ignore_ascii_case(b"100-continue") => expects_continue = !old,
                Field::Expect => return Err(Malformed::Expect.into()),
                Field::Te => te_trailers = members(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
                _ => {}
            }
        }
        if host.is_none() && !old || host.is_some_and(|host| !is_authority(host)) {
            return Err(Malformed::Host.into());
        }
        let framing = lengths.framing(Framing::None)?;
        Ok(Request {
            method,
            target,
            host: authority.or(host).unwrap_or_default(),
            old,
            framing,
            keep_alive: !close && (!old || stay),
            expects_continue,
            upgrade: upgrade.filter(|to| wants_upgrade && !old && !framing.has_body() && is_tunnel(to)),
            te_trailers,
            fields,
            lists,
        })
    }

    /// Whether a field is for this hop alone because `Connection` says so. Fields that mean something to
    /// a proxy are not to be named away.
    pub fn is_listed(&self, name: &str) -> bool {
        self.lists && is_listed(self.fields, name)
    }

    /// The value of a field that is there once; the first of several.
    pub fn value(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

pub(super) fn is_listed(fields: &[Header<'_>], name: &str) -> bool {
    fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"))
        .any(|field| members(field.value).any(|option| option.eq_ignore_ascii_case(name.as_bytes())))
}

/// The authority of a target, where it names one, and its path.
fn split<'b>(method: &str, target: &'b str) -> Result<(Option<&'b [u8]>, &'b str), Malformed> {
    if target.contains('#') {
        return Err(Malformed::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme = |scheme: &str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let rest = if scheme("http://") {
        &target[7..]
    } else if scheme("https://") {
        &target[8..]
    } else {
        return Err(Malformed::Target);
    };
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    // `http://a?b` has an empty path, which only a new target could say.
    if authority.is_empty() || !is_authority(authority.as_bytes()) || !path.starts_with('/') {
        return Err(Malformed::Target);
    }
    Ok((Some(authority.as_bytes()), path))
}

/// Whether a protocol is one to be passed through. Not another version of HTTP: behind a tunnel to it, requests
/// would come past routes and policies.
fn is_tunnel(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
        && ![&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// Letters, digits and marks of a name or an address, perhaps with a port.
pub(crate) fn is_authority(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte))
}
