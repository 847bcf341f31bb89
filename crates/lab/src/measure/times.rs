//! From what processes timed to what a simulation takes.

use std::collections::BTreeMap;

use plimsoll_model::calibration::{Times, What, durations, is_own};
use plimsoll_model::run::Histogram;
use plimsoll_model::system::{
    Component, ConsumerId, EdgeId, EndpointId, RateLimit, ServiceId, ServiceKind, StoreKind, System,
};

use super::Cuts;
use super::parts::Parts;
use crate::requests::origin_of;
use crate::tally::{Of, Time, marker};

/// What a run timed, by what it is of.
pub type Timed = BTreeMap<Time, Histogram>;

/// All that was timed in the measured part of a run.
pub(crate) fn timed(parts: &Parts, cuts: &Cuts) -> Timed {
    let measured: Vec<usize> = cuts.phase(plimsoll_model::system::Phase::Whole).to_vec();
    let times = parts.segments.keys().filter_map(|of| match of {
        Of::Time(time) => Some((*time, parts.over(*of, &measured)?.latency)),
        _ => None,
    });
    times.filter(|(_, histogram)| histogram.count() > 0).collect()
}

/// What of a system takes how long.
pub fn fit(system: &System, timed: &Timed) -> BTreeMap<What, Times> {
    let mut out = BTreeMap::new();
    let mut put = |what: What, times: Option<Times>| {
        if let Some(times) = times {
            out.insert(what, times);
        }
    };
    let of = |time: Time| timed.get(&time).and_then(Times::of);
    for (at, service) in system.services.iter().enumerate() {
        for (index, endpoint) in service.endpoints.iter().enumerate() {
            let id = EndpointId { service: at.into(), index: index as u32 };
            for (number, (line, dist)) in durations(&endpoint.program).into_iter().enumerate() {
                put(What::Step(id, number as u32 + 1), of(Time::Step(at as u32, line, marker(&dist))));
            }
            if is_own(service) {
                put(What::Endpoint(id), own(system, timed, id));
            }
        }
    }
    for (at, store) in system.stores.iter().enumerate() {
        for number in 0..store.operations.len() as u32 {
            put(What::Operation(at.into(), number), of(Time::Operation(at as u32, number)));
        }
        put(What::Commit(at.into()), of(Time::Commit(at as u32)));
        put(What::Command(at.into()), of(Time::Command(at as u32)));
    }
    for at in 0..system.edges.len() {
        put(What::Overhead(at.into()), overhead(system, timed, at.into()));
    }
    for at in 0..system.topics.len() {
        put(What::Publish(at.into()), of(Time::Publish(at as u32)));
        put(What::Relay(at.into()), of(Time::Relay(at as u32)));
    }
    for at in 0..system.consumers.len() {
        put(What::Handling(ConsumerId::from(at)), of(Time::Handling(at as u32)));
    }
    out
}

/// What an exchange on an edge takes beside network and work.
fn overhead(system: &System, timed: &Timed, edge: EdgeId) -> Option<Times> {
    let of = &system.edges[edge.index()];
    match of.to {
        Component::Store(store) => {
            if let Some(exchange) = timed.get(&Time::Exchange(edge.0)) {
                let stay = timed.get(&Time::Stay(store.0))?;
                // The store does not say how long each command took: what is left over has the difference of the
                // means and of the variances.
                let (all, inner) = (deviation(exchange), deviation(stay));
                let spread = if all > 0.0 { (1.0 - (inner / all).powi(2)).max(0.0).sqrt() } else { 0.0 };
                return Times::moved(exchange, stay.mean_ms() * 1e6, spread);
            }
            Times::of(timed.get(&Time::Hop(edge.0))?)
        }
        Component::Service(to) => {
            let hop = timed.get(&Time::Hop(edge.0))?;
            let service = &system.services[to.index()];
            let ServiceKind::Gateway(_) = service.kind else { return Times::of(hop) };
            // The one behind the gateway has said how long it took, and its way: what is left is the gateway's, and
            // its question for the quota, which the simulation asks by itself.
            Times::moved(hop, quota(system, service.rate_limit.as_ref()), 1.0)
        }
        _ => None,
    }
}

/// The mean of a question for a shared quota, ns.
fn quota(system: &System, limit: Option<&RateLimit>) -> f64 {
    let Some((store, edge)) = limit.and_then(|limit| limit.store) else { return 0.0 };
    let StoreKind::Redis(redis) = &system.stores[store.index()].kind else { return 0.0 };
    let network = match &system.edges[edge.index()].policies.latency {
        Some(latency) => latency.mean(),
        None => system.network.same_zone.mean(),
    };
    redis.time.mean() + 2.0 * network
}

/// All of an endpoint whose service is the reader's own, as whoever asks for it sees it, network not included.
fn own(system: &System, timed: &Timed, endpoint: EndpointId) -> Option<Times> {
    let mut all = Histogram::new();
    for (time, histogram) in timed {
        if let Time::Answer(service, index) = *time
            && origin_of(system, EndpointId { service: ServiceId(service), index }) == endpoint
        {
            all.add(histogram);
        }
    }
    Times::of(&all)
}

/// The standard deviation, ns.
fn deviation(histogram: &Histogram) -> f64 {
    histogram.as_hdr().stdev() * 1000.0
}

#[cfg(test)]
mod tests {
    use plimsoll_model::system::StoreId;

    use super::*;

    fn system() -> System {
        let text = "system: s\nclients: { web: { rate: 1/s, calls: [ api GET / ] } }\n\
                    services: { api: { endpoints: { GET /: [ { work: 1ms }, { work: 2ms }, { cache: keys, key: k, ttl: 1s, on_miss: [ { query: db.read } ] } ] } } }\n\
                    stores: { db: { kind: postgres, operations: { read: { kind: read, time: 1ms } } }, keys: { kind: redis, capacity: 1k, time: 1ms } }\n";
        plimsoll_model::parse(&plimsoll_model::Source::alone("test", text)).unwrap_or_else(|e| panic!("{e}"))
    }

    fn histogram(us: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        us.iter().for_each(|us| histogram.record_ns(us * 1000));
        histogram
    }

    #[test]
    fn each_thing_gets_what_was_timed_of_it() {
        let system = system();
        let steps = durations(&system.services[0].endpoints[0].program);
        let edge = |to: &str| {
            let named = |at: &usize| system.edge_name(EdgeId::from(*at)) == format!("api -> {to}");
            (0..system.edges.len()).find(named).unwrap() as u32
        };
        let timed = Timed::from([
            // Two steps of one line.
            (Time::Step(0, steps[0].0, marker(&steps[0].1)), histogram(&[1100, 1200])),
            (Time::Step(0, steps[1].0, marker(&steps[1].1)), histogram(&[1900])),
            (Time::Operation(0, 0), histogram(&[1050])),
            (Time::Hop(edge("db")), histogram(&[150])),
            (Time::Exchange(edge("keys")), histogram(&[1000, 1100, 1200, 1300, 1400])),
            (Time::Stay(1), histogram(&[1000, 1000])),
            (Time::Command(1), histogram(&[990])),
        ]);
        let fit = fit(&system, &timed);
        let at = EndpointId { service: ServiceId(0), index: 0 };
        let p50 = |what: What| fit[&what].at[4] / 1000;
        assert_eq!((p50(What::Step(at, 1)), p50(What::Step(at, 2))), (1100, 1900));
        assert_eq!((p50(What::Operation(StoreId(0), 0)), p50(What::Command(StoreId(1)))), (1050, 990));
        assert_eq!(p50(What::Overhead(EdgeId(edge("db")))), 150);
        let keys = &fit[&What::Overhead(EdgeId(edge("keys")))];
        assert!((keys.mean() / 1000.0 - 200.0).abs() < 10.0, "{keys:?}");
        assert_eq!(fit.len(), 6);
    }
}
