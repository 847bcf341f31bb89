//! What of a request's head is needed once the head itself has gone.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

use plimsoll_model::system::RateLimitKey;
use plimsoll_policy::Time;
use plimsoll_policy::rate_limit::Scope;

use super::forward::{self, Peer};
use crate::answers::{OwnAnswer, records};
use crate::core::{Core, Current};
use crate::figures::Own;
use crate::http1::name::{Field, field};
use crate::http1::{Framing, Request};
use crate::plan::router::Found;
use crate::plan::{Plan, Route};
use crate::random::{agreed_hash, secret_hash, secret_hasher};

/// What of a request outlives its head.
#[derive(Debug)]
pub struct Facts {
    /// Position of the route.
    pub route: u32,
    /// `HEAD`, `GET` and so on.
    pub method: Cow<'static, str>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether it is HTTP/1.0.
    pub old: bool,
    /// Whether the client wants to go on with the connection.
    pub keep_alive: bool,
    /// Whether it waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether it asks for another protocol.
    pub upgrade: bool,
    /// Whether making it twice does no harm.
    pub repeatable: bool,
    /// Until when the caller waits.
    pub caller_deadline: Option<Time>,
    /// Its priority class; 0 is the most important.
    pub class: u8,
    /// For balancing.
    pub key: u64,
    /// For the quota.
    pub quota_key: u64,
    /// Whose quota it counts against, where several gateways share one.
    pub quota_name: Vec<u8>,
    /// Its idempotency key, where the gateway keeps answers by it.
    pub identity: Identity,
    /// What it asks for, where its answer may be one that others get too: host and target, and their hash.
    pub cached: Option<(String, u64)>,
    /// For the log, where there is one.
    pub said: Option<Box<Said>>,
}

/// A request's idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It has none, or needs none.
    None,
    /// It is no key.
    Malformed,
    /// The hash of the key and of whose it is, and that of all that the head says of the request.
    Known {
        /// Of the key.
        key: u64,
        /// Of the rest as well.
        head: u64,
    },
}

/// What the log says of a request's head.
#[derive(Debug)]
pub struct Said {
    /// The client's address.
    pub client: IpAddr,
    /// The path and query.
    pub target: String,
    /// `HTTP/1.1`
    pub version: &'static str,
    /// `Referer`
    pub referer: String,
    /// `User-Agent`
    pub agent: String,
}

/// A request that has no route, with what the log says of it.
pub type Unrouted = (OwnAnswer, Option<Box<Said>>);

/// Finds a request's route, writes its head as the upstream gets it, and keeps what is needed of it.
pub fn facts(
    core: &Core,
    current: &Current,
    peer: &Peer,
    request: &Request<'_, '_>,
    version: &'static str,
    out: &mut Vec<u8>,
    now: Time,
) -> Result<Facts, Unrouted> {
    let plan = &current.live.plan;
    let serving = &plan.serving;
    let client = peer.client(request.value("x-forwarded-for").filter(|_| peer.trusted), |address| {
        serving.trusted.iter().any(|network| network.contains(address))
    });
    let said = current.live.log.is_some().then(|| {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        Box::new(Said {
            client,
            target: request.target.to_owned(),
            version,
            referer: text(request.value("referer")),
            agent: text(request.value("user-agent")),
        })
    });
    let route = match plan.router.find(request.method, request.target) {
        Found::Route(route) => route,
        Found::OtherMethod => return Err((OwnAnswer::new(405, Own::NotFound), said)),
        Found::Nothing => return Err((OwnAnswer::new(404, Own::NotFound), said)),
    };
    let about = &plan.routes[route as usize];
    if forward::is_at_its_end(request) {
        let status = if request.method == "OPTIONS" { 204 } else { 405 };
        return Err((OwnAnswer::new(status, Own::MaxForwards), said));
    }
    let gateway = forward::Gateway { name: &plan.name, deadline: &serving.headers.deadline, version };
    forward::request(out, request, peer, &gateway, &core.random);
    let caller = request.value(&serving.headers.deadline).and_then(forward::caller_timeout);
    let keyed = about.key_header.as_ref().is_some_and(|header| request.value(header).is_some());
    // Who asks: by the field that names users, or by address.
    let user = serving.headers.user.as_ref().and_then(|header| request.value(header));
    let mut room = [0; 17];
    let user = user.unwrap_or_else(|| octets(client, &mut room));
    let hashes = plan.targets[about.target].policies.balance.algorithm.uses_key();
    let secret = core.shared.secret;
    let quota_key = match &plan.rate_limit {
        Some(limit) if limit.config.scope != Scope::Shared => match limit.per {
            RateLimitKey::User => secret_hash(secret, user),
            RateLimitKey::Client => secret_hash(secret, octets(client, &mut [0; 17])),
            RateLimitKey::Endpoint => secret_hash(secret, &route.to_le_bytes()),
            RateLimitKey::All => 0,
        },
        _ => 0,
    };
    let quota_name = match &plan.rate_limit {
        Some(limit) if plan.shared_quota.is_some() => match limit.per {
            RateLimitKey::User => short(user),
            RateLimitKey::Client => client.to_string().into_bytes(),
            RateLimitKey::Endpoint => about.name.clone().into_bytes(),
            RateLimitKey::All => Vec::new(),
        },
        _ => Vec::new(),
    };
    let class = about.class.or_else(|| {
        let class = request.value(serving.headers.class.as_ref()?)?;
        crate::http1::body::decimal(class).map(|class| class.min(7) as u8)
    });
    let shares = about.cache.is_some() || plan.targets[about.target].policies.coalesce;
    let cached = if shares { cache_id(request) } else { None };
    Ok(Facts {
        route,
        method: interned(request.method),
        framing: request.framing,
        old: request.old,
        keep_alive: request.keep_alive,
        expects_continue: request.expects_continue,
        upgrade: request.upgrade.is_some(),
        repeatable: about.repeatable && is_repeatable(request.method, &about.name) || keyed,
        caller_deadline: caller.map(|caller| now + caller),
        class: class.unwrap_or(0),
        key: if hashes { agreed_hash(user) } else { 0 },
        quota_key,
        quota_name,
        identity: identity(plan, about, request, secret),
        cached: cached.map(|id| {
            let key = secret_hash(secret, id.as_bytes());
            (id, key)
        }),
        said,
    })
}

/// The idempotency key of a request that has an effect. Two callers' equal keys are two, told apart by
/// `Authorization`.
fn identity(plan: &Plan, route: &Route, request: &Request<'_, '_>, secret: u64) -> Identity {
    let Some((_, header)) = plan.idempotency.as_ref().filter(|_| route.remembers) else { return Identity::None };
    if matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "TRACE") {
        return Identity::None;
    }
    let mut values = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(header));
    let Some(value) = values.next() else { return Identity::None };
    let (Some(key), None) = (records::key(value.value), values.next()) else { return Identity::Malformed };
    let mut hasher = secret_hasher(secret);
    let put = |hasher: &mut DefaultHasher, part: &[u8]| {
        hasher.write_usize(part.len());
        hasher.write(part);
    };
    put(&mut hasher, key);
    put(&mut hasher, request.value("authorization").unwrap_or_default());
    let key = hasher.finish();
    for part in [request.method.as_bytes(), request.host, request.target.as_bytes()] {
        put(&mut hasher, part);
    }
    Identity::Known { key, head: hasher.finish() }
}

/// A user as a key of a store: itself, or where that is long, its hash.
fn short(user: &[u8]) -> Vec<u8> {
    if user.len() <= 128 { user.to_vec() } else { format!("#{:016x}", agreed_hash(user)).into_bytes() }
}

/// What a request asks for, if its answer may be one that others got too.
fn cache_id(request: &Request<'_, '_>) -> Option<String> {
    let own = |header: &httparse::Header<'_>| {
        matches!(field(header.name), Field::Authorization | Field::Cookie | Field::Range)
    };
    let shared = matches!(request.method, "GET" | "HEAD")
        && !request.framing.has_body()
        && request.upgrade.is_none()
        && !request.fields.iter().any(own);
    let host = std::str::from_utf8(request.host).ok()?;
    shared.then(|| [host, request.target].join(" "))
}

/// Whether a method may be repeated where its endpoint may: one named `* /path` answers any.
fn is_repeatable(method: &str, endpoint: &str) -> bool {
    !endpoint.starts_with('*') || matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// A method without a vector of its own, if it is a usual one.
pub fn interned(method: &str) -> Cow<'static, str> {
    const USUAL: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
    match USUAL.iter().find(|usual| **usual == method) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(method.to_owned()),
    }
}

fn octets(address: IpAddr, room: &mut [u8; 17]) -> &[u8] {
    match address {
        IpAddr::V4(address) => {
            room[..4].copy_from_slice(&address.octets());
            &room[..4]
        }
        IpAddr::V6(address) => {
            room[1..].copy_from_slice(&address.octets());
            room
        }
    }
}
