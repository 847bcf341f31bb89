//! A gateway as a proxy sees it: requests to tell apart, and upstreams to send them to.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;
use plimsoll_model::system::policy::{Mode, rate_limit};
use plimsoll_model::system::{
    Addresses, EdgeId, EdgePolicies, FallbackAnswer, RouteCache, Service, ServiceId, ServiceKind, Serving, System,
};

use crate::error::Error;
use crate::pattern::Pattern;
use crate::site::{Address, Header, Site};

/// The longest time that nginx and HAProxy are told to wait, where the file says `none` or more: HAProxy counts
/// milliseconds in 31 bits, which end after 24.8 days.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 86_400);

/// A gateway, resolved for one site.
#[derive(Debug)]
pub(crate) struct Gateway<'a> {
    pub(crate) system: &'a System,
    pub(crate) service: &'a Service,
    pub(crate) serving: &'a Serving,
    pub(crate) site: &'a Site,
    /// Where it listens.
    pub(crate) listen: Vec<Address>,
    /// The header that names the user; without one the client's address does.
    pub(crate) user_header: Option<Header>,
    /// Paths of certificate and key.
    pub(crate) tls: Option<(String, String)>,
    /// Where a line for each request goes.
    pub(crate) log: Option<String>,
    /// In the order in which they have to be tried: the first that matches has the request.
    pub(crate) endpoints: Vec<Endpoint<'a>>,
    /// One for each set of policies towards a service.
    pub(crate) upstreams: Vec<Upstream<'a>>,
    /// Endpoints whose names are no method and path.
    pub(crate) unmatched: Vec<&'a str>,
}

/// What requests an endpoint gets, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Endpoint<'a> {
    pub(crate) name: &'a str,
    pub(crate) pattern: Pattern,
    /// Position in the service's endpoints.
    pub(crate) index: u32,
    /// Position in the gateway's upstreams.
    pub(crate) upstream: usize,
    pub(crate) idempotent: bool,
    pub(crate) response_size: u64,
    pub(crate) cache: Option<&'a RouteCache>,
    pub(crate) fallback: Option<&'a FallbackAnswer>,
}

/// A service behind the gateway, with the policies towards it.
#[derive(Debug)]
pub(crate) struct Upstream<'a> {
    /// Unique among the upstreams, of letters, digits, `-` and `_`.
    pub(crate) name: String,
    pub(crate) to: &'a Service,
    pub(crate) policies: &'a EdgePolicies,
    /// Of its instances; one that stands for all where they are `found`.
    pub(crate) addresses: Vec<Address>,
    /// Of each of them, beside the others'.
    weights: Vec<f64>,
    /// How often all addresses of the one name are looked up.
    pub(crate) found: Option<Duration>,
    /// The name server that knows them, where it is not the system's.
    pub(crate) name_server: Option<std::net::SocketAddr>,
    /// Who says where they are, for a comment.
    source: &'static str,
}

impl<'a> Gateway<'a> {
    pub(crate) fn new(system: &'a System, id: ServiceId, site: &'a Site) -> Result<Self, Error> {
        let service = &system.services[id.index()];
        let ServiceKind::Gateway(routes) = &service.kind else {
            return Err(Error::NoGateway { service: service.name.clone(), gateways: crate::names(system) });
        };
        let mut behind = BTreeSet::new();
        let mut edges: Vec<EdgeId> = Vec::new();
        let mut endpoints = Vec::new();
        let mut unmatched = Vec::new();
        for route in routes {
            let endpoint = &service.endpoints[route.endpoint as usize];
            behind.insert(system.services[route.to.service.index()].name.as_str());
            let Some(pattern) = Pattern::read(&endpoint.name) else {
                unmatched.push(endpoint.name.as_str());
                continue;
            };
            let upstream = edges.iter().position(|edge| *edge == route.edge).unwrap_or_else(|| {
                edges.push(route.edge);
                edges.len() - 1
            });
            endpoints.push(Endpoint {
                name: &endpoint.name,
                pattern,
                index: route.endpoint,
                upstream,
                idempotent: endpoint.idempotent,
                response_size: endpoint.response_size,
                cache: route.cache.as_ref().filter(|cache| acts(cache.freshness.mode)),
                fallback: route.fallback_answer.as_ref().filter(|_| route.fallback),
            });
        }
        if let Some(name) = site.upstreams.keys().find(|name| !behind.contains(name.as_str())) {
            return Err(Error::NotBehind {
                gateway: service.name.clone(),
                service: name.clone(),
                behind: behind.into_iter().map(str::to_owned).collect(),
            });
        }
        if let Some((name, _)) = site.upstreams.iter().find(|(_, addresses)| addresses.is_empty()) {
            return Err(Error::NoAddress { service: name.clone() });
        }
        if endpoints.is_empty() {
            return Err(Error::NothingToMatch {
                gateway: service.name.clone(),
                endpoints: unmatched.into_iter().map(str::to_owned).collect(),
            });
        }
        endpoints.sort_by_cached_key(|endpoint| endpoint.pattern.precedence());
        let mut taken = BTreeSet::new();
        let upstreams = edges.into_iter().map(|edge| upstream(system, service, edge, site, &mut taken));
        let upstreams = upstreams.collect::<Result<_, _>>()?;
        let serving = service.serving.as_deref().expect("a gateway says how it is served");
        let malformed = |key: &str| {
            let key = format!("{}.{key}", service.name);
            move |why| Error::Malformed { key, why }
        };
        let listen = match &site.listen {
            Some(listen) => vec![listen.clone()],
            None => {
                let addresses = serving.listen.iter().map(|address| address.to_string().parse());
                addresses.collect::<Result<_, _>>().map_err(malformed("listen"))?
            }
        };
        let user = serving.headers.user.as_deref();
        let user_header = user.map(str::parse).transpose().map_err(malformed("headers.user"))?;
        let tls = serving.tls.as_ref().map(|tls| {
            let certificate = site.path(&tls.certificate).map_err(malformed("tls.certificate"))?;
            Ok((certificate, site.path(&tls.key).map_err(malformed("tls.key"))?))
        });
        let log = serving.access_log.as_ref().map(|log| match log.to.as_str() {
            stream @ ("stdout" | "stderr") => Ok(stream.to_owned()),
            path => site.path(path).map_err(malformed("access_log.to")),
        });
        Ok(Gateway {
            system,
            service,
            serving,
            site,
            listen,
            user_header,
            tls: tls.transpose()?,
            log: log.transpose()?,
            endpoints,
            upstreams,
            unmatched,
        })
    }

    /// The endpoints of which something holds, by position from 1: what proxies know them by.
    pub(crate) fn numbers(&self, holds: impl Fn(&Endpoint) -> bool) -> Vec<usize> {
        (1..).zip(&self.endpoints).filter(|(_, endpoint)| holds(endpoint)).map(|(number, _)| number).collect()
    }

    /// The longest time that a request may take, none where it may take for ever.
    pub(crate) fn longest_timeout(&self) -> Option<Duration> {
        let mut timeouts = self.upstreams.iter().map(|upstream| upstream.policies.pipeline.timeout);
        timeouts.try_fold(Duration::ZERO, |longest, timeout| Some(longest.max(timeout?)))
    }

    /// Different answers in place of failures, in the order of the endpoints.
    pub(crate) fn fallbacks(&self) -> Vec<&'a FallbackAnswer> {
        let mut answers: Vec<&FallbackAnswer> = Vec::new();
        for answer in self.endpoints.iter().filter_map(|endpoint| endpoint.fallback) {
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        answers
    }

    /// Different caches of routes, in the order of the endpoints. Routes that name one cache share it.
    pub(crate) fn caches(&self) -> Vec<&'a RouteCache> {
        let mut caches: Vec<&RouteCache> = Vec::new();
        for cache in self.endpoints.iter().filter_map(|endpoint| endpoint.cache) {
            if !caches.contains(&cache) {
                caches.push(cache);
            }
        }
        caches
    }

    /// Bytes of all answers that fit in a cache, by the largest of its endpoints.
    pub(crate) fn cache_bytes(&self, cache: &RouteCache) -> u64 {
        u64::from(cache.capacity).saturating_mul(self.answer_bytes(cache))
    }

    /// Bytes of an answer that a cache holds, by the largest of its endpoints.
    pub(crate) fn answer_bytes(&self, cache: &RouteCache) -> u64 {
        let cached = self.endpoints.iter().filter(|endpoint| endpoint.cache == Some(cache));
        cached.map(|endpoint| endpoint.response_size).max().unwrap_or(0).max(1)
    }
}

impl Upstream<'_> {
    /// How often a request is tried in all.
    pub(crate) fn attempts(&self) -> u32 {
        self.policies.pipeline.retry.filter(|retry| acts(retry.mode)).map_or(1, |retry| retry.attempts)
    }

    /// How long one try may take, none where it may take for ever.
    pub(crate) fn try_timeout(&self) -> Option<Duration> {
        self.policies.pipeline.per_try_timeout.or(self.policies.pipeline.timeout)
    }

    /// The health checks that take instances out, if any do.
    pub(crate) fn health(&self) -> Option<&plimsoll_model::system::Health> {
        self.policies.health.as_ref().filter(|health| acts(health.config.mode))
    }

    /// The ejection that acts, if any does.
    pub(crate) fn outliers(&self) -> Option<&plimsoll_model::system::policy::outlier_ejection::Config> {
        self.policies.outliers.as_ref().filter(|outliers| acts(outliers.mode))
    }

    /// The bulkhead that acts, if any does.
    pub(crate) fn bulkhead(&self) -> Option<plimsoll_model::system::policy::bulkhead::Config> {
        self.policies.pipeline.bulkhead.filter(|bulkhead| acts(bulkhead.mode))
    }

    /// The weight of each instance, none where all are alike, or round robin does not look.
    pub(crate) fn weights(&self) -> Option<Vec<f64>> {
        let by_number = self.policies.weights.iter().copied().cycle().chain(std::iter::repeat(1.0));
        let weights: Vec<f64> = self.weights.iter().zip(by_number).map(|(own, by_number)| own * by_number).collect();
        let alike = weights.iter().all(|weight| *weight == weights[0]);
        (!alike && self.policies.balance.algorithm != Algorithm::RoundRobin).then_some(weights)
    }

    /// Weights of instances on a ring where each unit of weight is so many points: with few points one instance would
    /// get much more than another. As many as the file has: for a ring half of the fewest or a share of the most,
    /// for Maglev a share of the slots; it says nothing of a hash by address, which gets as many as there can be.
    pub(crate) fn ring_weights(&self, points: u32, most: u32) -> Vec<u32> {
        let balance = &self.policies.balance;
        let instances = self.addresses.len() as u32;
        let wanted = match balance.algorithm {
            Algorithm::Ring => (balance.ring_points_min / 2).min(balance.ring_points_max / instances),
            Algorithm::Maglev => balance.maglev_slots / instances,
            _ => u32::MAX,
        };
        let each = f64::from(wanted.div_ceil(points).clamp(1, most));
        let stated = self.weights().unwrap_or_else(|| vec![1.0; self.addresses.len()]);
        let mean = (stated.iter().sum::<f64>() / f64::from(instances)).max(f64::MIN_POSITIVE);
        let scaled = stated.iter().map(|weight| match weight / mean * each {
            0.0 => 0.0,
            scaled => scaled.round().max(1.0),
        });
        whole(&scaled.collect::<Vec<_>>(), most)
    }

    /// How long to wait for a connection to an instance.
    pub(crate) fn connect_timeout(&self, gateway: &Gateway) -> Duration {
        let most = Duration::from_nanos(gateway.serving.limits.connect_timeout);
        self.try_timeout().unwrap_or(most).min(most)
    }

    /// Where its addresses come from, for a comment.
    pub(crate) fn origin(&self) -> String {
        let said = crate::text::count(self.to.instances as usize, "instance");
        let found = self.addresses.len();
        let count = if self.found.is_some() || found == self.to.instances as usize {
            said
        } else {
            format!("{said} in the file, {found} here")
        };
        format!("Service `{}`: {count}, {}.", self.to.name, self.source)
    }

    /// Policies that only count: what a proxy cannot do without acting.
    pub(crate) fn shadows(&self) -> Vec<&'static str> {
        let pipeline = &self.policies.pipeline;
        let mut shadows = Vec::new();
        let mut add = |key, mode: Option<Mode>| {
            if mode == Some(Mode::Shadow) {
                shadows.push(key);
            }
        };
        add("retry", pipeline.retry.map(|retry| retry.mode));
        add("breaker", pipeline.breaker.map(|breaker| breaker.mode));
        add("bulkhead", pipeline.bulkhead.map(|bulkhead| bulkhead.mode));
        add("hedge", pipeline.hedge.map(|hedge| hedge.mode));
        add("health", self.policies.health.as_ref().map(|health| health.config.mode));
        add("outliers", self.policies.outliers.as_ref().map(|outliers| outliers.mode));
        shadows
    }
}

fn upstream<'a>(
    system: &'a System,
    gateway: &Service,
    edge: EdgeId,
    site: &Site,
    taken: &mut BTreeSet<String>,
) -> Result<Upstream<'a>, Error> {
    let edge = &system.edges[edge.index()];
    let plimsoll_model::system::Component::Service(to) = edge.to else {
        unreachable!("a gateway's routes lead to services")
    };
    let to = &system.services[to.index()];
    let first = format!("{}_{}", gateway.name, to.name);
    let mut name = first.clone();
    for number in 2.. {
        if taken.insert(name.clone()) {
            break;
        }
        name = format!("{first}_{number}");
    }
    let malformed = |why| Error::Malformed { key: format!("{}.at", to.name), why };
    let (mut found, mut name_server) = (None, None);
    let (addresses, weights, source) = match (site.upstreams.get(&to.name), &to.at) {
        (Some(given), _) => (given.clone(), None, "where the command says"),
        (None, None) => {
            let named = (1..=to.instances).map(|number| Address::of_instance(&to.name, number));
            (named.collect(), None, "under DNS names for want of `at`")
        }
        (None, Some(Addresses::List(list))) => {
            let addresses = list.iter().map(|instance| instance.address.parse());
            let addresses = addresses.collect::<Result<Vec<Address>, _>>().map_err(malformed)?;
            (addresses, Some(list.iter().map(|instance| instance.weight).collect()), "at `at`")
        }
        (None, Some(Addresses::Dns { host, port, server, every })) => {
            name_server = *server;
            found = Some(Duration::from_nanos(*every));
            (vec![format!("{host}:{port}").parse().map_err(malformed)?], None, "at all addresses of a name")
        }
        (None, Some(Addresses::File { .. })) => {
            return Err(Error::AddressesInFile { service: to.name.clone() });
        }
    };
    let weights = weights.unwrap_or_else(|| vec![1.0; addresses.len()]);
    Ok(Upstream { name, to, policies: &edge.policies, addresses, weights, found, name_server, source })
}

/// Weights as whole numbers up to a largest one, in the same proportions as nearly as these allow. What had some
/// weight keeps at least 1, and what had none has none.
pub(crate) fn whole(weights: &[f64], most: u32) -> Vec<u32> {
    let largest = weights.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let at = |factor: f64| weights.iter().map(move |weight| weight * factor);
    // Exactly, where a thousandth or a whole is a unit and the numbers are small enough.
    for unit in [1.0, 10.0, 100.0, 1_000.0] {
        if largest * unit <= f64::from(most) && at(unit).all(|weight| (weight - weight.round()).abs() < 1e-9 * unit) {
            return at(unit).map(|weight| weight.round() as u32).collect();
        }
    }
    let rounded = at(f64::from(most) / largest).map(|weight| weight.round() as u32);
    rounded.zip(weights).map(|(rounded, weight)| if *weight > 0.0 { rounded.max(1) } else { 0 }).collect()
}

/// Whether who sends a request says who gets it.
pub(crate) fn hashes(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
}

pub(crate) fn acts(mode: Mode) -> bool {
    mode == Mode::Enforce
}

/// What a quota admits at once after a pause.
pub(crate) fn at_once(config: &rate_limit::Config) -> u32 {
    match config.algorithm {
        // A tenth is the policy's own default.
        rate_limit::Algorithm::Gcra { burst } => burst.unwrap_or((config.limit / 10).max(1)),
        rate_limit::Algorithm::SlidingWindow | rate_limit::Algorithm::FixedWindow => config.limit,
    }
}

/// A quota as the file states it.
pub(crate) fn quota(config: &rate_limit::Config) -> String {
    let per = crate::text::people(config.per);
    format!(
        "{}/{}",
        config.limit,
        per.strip_prefix('1').filter(|unit| !unit.starts_with(char::is_numeric)).unwrap_or(&per)
    )
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn weights_keep_their_proportions() {
        for (weights, expected) in [
            (&[3.0, 1.0][..], &[3, 1][..]),
            (&[0.5, 2.0], &[5, 20]),
            (&[0.125, 0.0], &[125, 0]),
            (&[1e6, 5e5, 1.0], &[256, 128, 1]),
            (&[1.0 / 3.0, 2.0 / 3.0], &[128, 256]),
            (&[0.0], &[0]),
        ] {
            assert_eq!(whole(weights, 256), expected, "{weights:?}");
        }
    }
}
