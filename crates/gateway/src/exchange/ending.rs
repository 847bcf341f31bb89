//! The end of a request: figures and the log.

use plimsoll_policy::Time;

use super::facts::Said;
use super::fetch::Tried;
use super::handle::Job;
use crate::access_log::Entry;
use crate::core::{Core, Current};
use crate::figures::{Own, RouteFigures};

/// What the end of a request is counted as.
#[derive(Debug)]
pub struct End {
    /// The status; 499 if the client had gone.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Why the gateway answered itself.
    pub own: Option<Own>,
}

impl Job {
    /// Counts and logs the end of the request.
    pub fn end(&self, end: &End, now: Time) {
        let took = now.nanos_since(self.started);
        count(self.figures(), end, took);
        if self.facts.said.is_some() {
            let route = &self.current.live.plan.routes[self.facts.route as usize].name;
            let said = self.facts.said.as_deref();
            let tried = (&self.tried, self.attempts);
            log(&self.core, &self.current, (&self.facts.method, route), said, end, tried, (self.started, took));
        }
    }
}

/// Counts and logs a request that had no route.
pub fn unrouted(core: &Core, current: &Current, method: &str, said: Option<&Said>, end: &End, started: Time) {
    let took = core.clock.now().nanos_since(started);
    count(&current.unrouted, end, took);
    log(core, current, (method, ""), said, end, (&Tried::default(), 0), (started, took));
}

fn count(figures: &RouteFigures, end: &End, took: u64) {
    let class = if end.status == 499 { 0 } else { usize::from(end.status / 100).min(5) };
    figures.answers[class].bump();
    figures.times.record(took);
    if let Some(own) = end.own {
        figures.own[own as usize].bump();
    }
}

fn log(
    core: &Core,
    current: &Current,
    (method, route): (&str, &str),
    said: Option<&Said>,
    end: &End,
    (tried, attempts): (&Tried, u32),
    (started, took): (Time, u64),
) {
    let (Some(log), Some(said)) = (&current.live.log, said) else { return };
    let client = said.client.to_string();
    let entry = Entry {
        at: core.clock.wall(started),
        client: &client,
        method,
        target: &said.target,
        version: said.version,
        status: end.status,
        bytes: end.bytes,
        took,
        route,
        upstream: tried.instance.as_ref().map_or("", |instance| &instance.name),
        upstream_took: tried.answered.map(|at| at.nanos_since(tried.started)),
        attempts,
        own: end.own.map_or("", Own::name),
        referer: &said.referer,
        agent: &said.agent,
    };
    if !log.send(&entry) {
        core.figures.log_dropped.bump();
    }
}
