//! Figures in Prometheus' text format.

use std::fmt::{Display, Write};

use plimsoll_policy::Counts;
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::shed;

use crate::core::Shared;
use crate::figures::{BUCKETS, Own, Times, sum};

/// All figures.
pub fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    process(&mut page, shared);
    routes(&mut page, shared);
    instances(&mut page, shared);
    upstreams(&mut page, shared);
    inbound(&mut page, shared);
    page.0
}

/// The word for a breaker's state.
pub fn state_name(state: Breaker) -> &'static str {
    match state {
        Breaker::Closed => "closed",
        Breaker::Open => "open",
        Breaker::HalfOpen => "half_open",
        Breaker::Ramping => "ramping",
    }
}

#[derive(Default)]
struct Page(String);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// A figure's name, kind and meaning.
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP plimsoll_{name} {help}\n# TYPE plimsoll_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.0, "plimsoll_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { "{" } else { "," });
            for c in text.chars() {
                match c {
                    '"' => self.0.push_str("\\\""),
                    '\\' => self.0.push_str("\\\\"),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A histogram over several cores' times.
    fn times(&mut self, name: &str, labels: Labels<'_>, times: &[&Times]) {
        let mut count = 0;
        for bucket in 0..=BUCKETS.len() {
            count += times.iter().map(|times| times.buckets[bucket].get()).sum::<u64>();
            let end = BUCKETS.get(bucket).map_or("+Inf".to_owned(), |end| (*end as f64 / 1e9).to_string());
            let mut labels = labels.to_vec();
            labels.push(("le", &end));
            self.value(&format!("{name}_bucket"), &labels, count);
        }
        let total: u64 = times.iter().map(|times| times.sum.get()).sum();
        self.value(&format!("{name}_sum"), labels, total as f64 / 1e9);
        self.value(&format!("{name}_count"), labels, count);
    }
}

fn process(page: &mut Page, shared: &Shared) {
    let cores = shared.figures.cores();
    page.about("connections", "gauge", "Connections of clients.");
    page.value("connections", &[], shared.open.load(std::sync::atomic::Ordering::Relaxed));
    page.about("connections_accepted_total", "counter", "Connections of clients that were accepted.");
    page.value("connections_accepted_total", &[], sum(&cores, |core| core.accepted.get()));
    page.about("connections_refused_total", "counter", "Connections of clients that were too many.");
    page.value("connections_refused_total", &[], sum(&cores, |core| core.refused.get()));
    page.about("access_log_dropped_total", "counter", "Lines of the access log that found no room.");
    page.value("access_log_dropped_total", &[], sum(&cores, |core| core.log_dropped.get()));
    if let Some(most) = shared.may_open {
        page.about("max_fds", "gauge", "Files that the process may have open: each connection is one.");
        page.value("max_fds", &[], most);
    }
    page.about("ready", "gauge", "Whether requests should be sent here.");
    page.value("ready", &[], u8::from(!shared.is_stopping()));
}

const CLASSES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn routes(page: &mut Page, shared: &Shared) {
    let routes = shared.figures.routes();
    page.about("requests_total", "counter", "Requests by route and class of the answer's status.");
    for (route, cores) in &routes {
        for (at, class) in CLASSES.iter().enumerate() {
            let count = sum(cores, |core| core.answers[at].get());
            page.value("requests_total", &[("route", route), ("code", class)], count);
        }
    }
    page.about("request_seconds", "histogram", "From a request's head to the end of its answer.");
    for (route, cores) in &routes {
        let times: Vec<&Times> = cores.iter().map(|core| &core.times).collect();
        page.times("request_seconds", &[("route", route)], &times);
    }
    page.about("own_answers_total", "counter", "Answers of the gateway's own, by reason.");
    for (route, cores) in &routes {
        for (own, name) in Own::ALL {
            let count = sum(cores, |core| core.own[own as usize].get());
            if count > 0 {
                page.value("own_answers_total", &[("route", route), ("reason", name)], count);
            }
        }
    }
    page.about("retries_total", "counter", "Attempts beyond the first, hedges included.");
    for (route, cores) in &routes {
        page.value("retries_total", &[("route", route)], sum(cores, |core| core.retries.get()));
    }
    page.about("rescued_total", "counter", "Requests answered well of which an attempt had failed.");
    for (route, cores) in &routes {
        page.value("rescued_total", &[("route", route)], sum(cores, |core| core.rescued.get()));
    }
    page.about("shed_total", "counter", "Requests shed, by priority class.");
    for (route, cores) in &routes {
        for class in 0..8 {
            let count = sum(cores, |core| core.shed[class].get());
            if count > 0 {
                page.value("shed_total", &[("route", route), ("class", &class.to_string())], count);
            }
        }
    }
}

fn instances(page: &mut Page, shared: &Shared) {
    let addresses = shared.slots.addresses();
    let name = |slot: usize| addresses.get(slot).map_or("others".to_owned(), std::net::SocketAddr::to_string);
    let figures = shared.figures.instances();
    page.about("attempts_total", "counter", "Attempts by instance and how they ended.");
    for (slot, cores) in &figures {
        let name = name(*slot);
        for (at, class) in CLASSES.iter().enumerate().skip(1) {
            let count = sum(cores, |core| core.answers[at].get());
            page.value("attempts_total", &[("instance", &name), ("result", class)], count);
        }
        for (result, count) in [
            ("connect_error", sum(cores, |core| core.connect_errors.get())),
            ("reset", sum(cores, |core| core.resets.get())),
            ("timeout", sum(cores, |core| core.timeouts.get())),
        ] {
            page.value("attempts_total", &[("instance", &name), ("result", result)], count);
        }
    }
    page.about("attempt_seconds", "histogram", "From an attempt's start to the head of its answer.");
    for (slot, cores) in &figures {
        let times: Vec<&Times> = cores.iter().map(|core| &core.times).collect();
        page.times("attempt_seconds", &[("instance", &name(*slot))], &times);
    }
    page.about("upstream_connections_total", "counter", "Connections made to an instance.");
    for (slot, cores) in &figures {
        let count = sum(cores, |core| core.connections.get());
        page.value("upstream_connections_total", &[("instance", &name(*slot))], count);
    }
}

fn decisions(page: &mut Page, target: &str, policy: &str, counts: Counts) {
    for (decision, count) in
        [("admitted", counts.admitted), ("rejected", counts.rejected), ("shadowed", counts.shadowed)]
    {
        page.value("decisions_total", &[("target", target), ("policy", policy), ("decision", decision)], count);
    }
}

fn upstreams(page: &mut Page, shared: &Shared) {
    let now = shared.clock.now();
    let live = shared.live();
    page.about("decisions_total", "counter", "What policies decided; shadowed: would have refused.");
    for upstream in &live.upstreams {
        let state = upstream.lock();
        let pipeline = &state.pipeline;
        let policies = [
            ("deadline", Some(pipeline.timeouts().counts())),
            ("retry", pipeline.retry().map(plimsoll_policy::Retry::counts)),
            ("budget", pipeline.budget().map(plimsoll_policy::RetryBudget::counts)),
            ("breaker", pipeline.breaker().map(plimsoll_policy::CircuitBreaker::counts)),
            ("bulkhead", pipeline.bulkhead().map(plimsoll_policy::Bulkhead::counts)),
            ("hedge", pipeline.hedging().map(plimsoll_policy::Hedge::counts)),
        ];
        for (policy, counts) in policies {
            if let Some(counts) = counts {
                decisions(page, &upstream.key, policy, counts);
            }
        }
    }
    for (policy, counts) in live.inbound.counts() {
        decisions(page, &live.plan.name, &policy, counts);
    }
    page.about("coalesced_total", "counter", "Requests that shared a call, and calls that were made for them.");
    for (upstream, sharing) in live.upstreams.iter().zip(&live.sharing) {
        let Some(counts) = sharing.as_ref().map(|sharing| sharing.counts()) else { continue };
        for (what, count) in [("call", counts.started), ("joined", counts.joined), ("alone", counts.alone)] {
            page.value("coalesced_total", &[("target", &upstream.key), ("what", what)], count);
        }
    }
    page.about("cache_total", "counter", "Lookups and entries of a cache, by what became of them.");
    for (name, store) in &live.stores {
        let (counts, _) = store.counts();
        for (what, count) in [
            ("fresh", counts.fresh),
            ("stale", counts.stale),
            ("miss", counts.misses),
            ("wait", counts.waits),
            ("refresh", counts.refreshes),
            ("eviction", counts.evictions),
        ] {
            page.value("cache_total", &[("cache", name), ("what", what)], count);
        }
    }
    page.about("cache_entries", "gauge", "Answers that are kept.");
    for (name, store) in &live.stores {
        page.value("cache_entries", &[("cache", name)], store.counts().1);
    }
    page.about("breaker_state", "gauge", "1 for the state that the breaker is in.");
    for upstream in &live.upstreams {
        let Some(found) = upstream.lock().pipeline.breaker().map(|breaker| breaker.state()) else { continue };
        for state in [Breaker::Closed, Breaker::Open, Breaker::HalfOpen, Breaker::Ramping] {
            let is = u8::from(found == state);
            page.value("breaker_state", &[("target", &upstream.key), ("state", state_name(state))], is);
        }
    }
    page.about("retry_budget_left", "gauge", "Retries and hedges that the budget would pay for now.");
    for upstream in &live.upstreams {
        if let Some(left) = upstream.lock().pipeline.budget_balance(now) {
            page.value("retry_budget_left", &[("target", &upstream.key)], left);
        }
    }
    page.about("events_total", "counter", "Trips, ejections, lost health and panics of a target.");
    for upstream in &live.upstreams {
        let events = upstream.lock().events;
        for (event, count) in [
            ("trip", events.trips),
            ("ejection", events.ejections),
            ("unhealthy", events.unhealthy),
            ("panic", events.panics),
        ] {
            page.value("events_total", &[("target", &upstream.key), ("event", event)], count);
        }
    }
    page.about("instance_state", "gauge", "1 where an instance is so.");
    for upstream in &live.upstreams {
        let state = upstream.lock();
        for (i, member) in state.instances.iter().enumerate() {
            let Some(member) = member else { continue };
            let labels =
                |what| [("target", upstream.key.as_str()), ("instance", &member.instance.name), ("state", what)];
            page.value("instance_state", &labels("healthy"), u8::from(state.members.is_healthy(i)));
            page.value("instance_state", &labels("ejected"), u8::from(state.members.ejection().is_ejected(i)));
            page.value("instance_state", &labels("eligible"), u8::from(state.members.eligible().contains(i)));
            page.value("instance_state", &labels("draining"), u8::from(member.draining));
        }
    }
}

fn inbound(page: &mut Page, shared: &Shared) {
    let live = shared.live();
    page.about("in_flight", "gauge", "Requests that the gateway holds.");
    page.value("in_flight", &[], live.inbound.held());
    let (seats, waiting) = live.inbound.queue();
    page.about("queue_waiting", "gauge", "Requests that wait for a seat.");
    page.value("queue_waiting", &[], waiting);
    page.about(
        "queue_total",
        "counter",
        "Requests that came to the queue for seats, by class and what became of them.",
    );
    for class in 0..shed::CLASSES {
        for (what, counts) in [
            ("queued", seats.queued),
            ("rejected", seats.rejected),
            ("displaced", seats.displaced),
            ("shed", seats.shed),
            ("expired", seats.expired),
        ] {
            if counts[class] > 0 {
                page.value("queue_total", &[("class", &class.to_string()), ("what", what)], counts[class]);
            }
        }
    }
    if let Some(records) = &live.records {
        let (counts, keys) = records.counts();
        page.about("idempotency_total", "counter", "Requests with an idempotency key, by what became of them.");
        for (what, count) in [
            ("proceeded", counts.proceeded),
            ("replayed", counts.replayed),
            ("in_progress", counts.in_progress),
            ("reused", counts.reused),
            ("full", counts.full),
            ("unresolved", counts.unresolved),
            ("late", counts.late),
            ("shadowed", counts.shadowed),
        ] {
            page.value("idempotency_total", &[("what", what)], count);
        }
        page.about("idempotency_keys", "gauge", "Idempotency keys that are remembered.");
        page.value("idempotency_keys", &[], keys);
    }
    let (limit, level) = live.inbound.gauges();
    if let Some(limit) = limit {
        page.about("adaptive_limit", "gauge", "The limit on requests in flight.");
        page.value("adaptive_limit", &[], limit);
    }
    if let Some(level) = level {
        page.about("degradation_level", "gauge", "The degradation level; 0 is full service.");
        page.value("degradation_level", &[], level);
    }
}
