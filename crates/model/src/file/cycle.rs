//! Calls in a circle: a request that waits for itself.

use super::decode::Decoder;
use super::keyspace::inner;
use crate::system::{Action, EndpointId, Program, Service, ServiceKind};

impl Decoder<'_> {
    /// Reports each circle of calls once, at the step that closes it.
    pub(super) fn cycles(&mut self, services: &[Service]) {
        let mut search = Search { services, done: Default::default(), found: Vec::new(), deep: None };
        for (index, service) in services.iter().enumerate() {
            for position in 0..service.endpoints.len() {
                search.from(EndpointId::new(index.into(), position as u32));
            }
        }
        if let Some(line) = search.deep {
            let at = super::tree::Span { line, column: 0, length: 1 };
            self.report.at(at, format!("a request passes more than {CALLS_MAX} endpoints, one behind the other"));
        }
        for (circle, line) in search.found {
            let names: Vec<String> = circle.iter().map(|endpoint| self.names.endpoint_name(*endpoint)).collect();
            let at = super::tree::Span { line, column: 0, length: 1 };
            self.report.at(at, format!("calls in a circle: {} -> {}", names.join(" -> "), names[0])).help(
                "a request that waits for itself never ends; publish a message instead, or merge the two".to_owned(),
            );
        }
    }
}

/// Longest chain of calls: those who follow a request from call to call may do so by recursion.
const CALLS_MAX: usize = 200;

struct Search<'s> {
    services: &'s [Service],
    done: std::collections::BTreeSet<EndpointId>,
    /// The endpoints of each circle, and the line of the call that closes it.
    found: Vec<(Vec<EndpointId>, u32)>,
    /// The line of a call that makes a chain too long.
    deep: Option<u32>,
}

impl Search<'_> {
    /// Depth first with a stack of its own: a chain of calls may be as long as the file.
    fn from(&mut self, start: EndpointId) {
        if self.done.contains(&start) {
            return;
        }
        let mut path = vec![(start, self.calls(start))];
        let mut open: std::collections::BTreeSet<EndpointId> = [start].into();
        loop {
            let length = path.len();
            let Some((endpoint, calls)) = path.last_mut() else { return };
            match calls.pop() {
                Some((next, line)) if open.contains(&next) => {
                    let circle = path.iter().map(|(endpoint, _)| *endpoint).skip_while(|endpoint| *endpoint != next);
                    self.found.push((circle.collect(), line));
                }
                Some((next, _)) if self.done.contains(&next) => {}
                Some((_, line)) if length == CALLS_MAX => self.deep = Some(line),
                Some((next, _)) => {
                    open.insert(next);
                    let calls = self.calls(next);
                    path.push((next, calls));
                }
                None => {
                    open.remove(endpoint);
                    self.done.insert(*endpoint);
                    path.pop();
                }
            }
        }
    }

    /// What an endpoint calls and waits for, each with its line.
    fn calls(&self, endpoint: EndpointId) -> Vec<(EndpointId, u32)> {
        let mut calls = Vec::new();
        let Some(service) = self.services.get(endpoint.service.index()) else { return calls };
        if let ServiceKind::Gateway(routes) = &service.kind {
            calls.extend(routes.get(endpoint.index as usize).map(|route| (route.to, service.line)));
        }
        if let Some(endpoint) = service.endpoints.get(endpoint.index as usize) {
            collect(&endpoint.program, &mut calls);
        }
        calls
    }
}

fn collect(program: &Program, calls: &mut Vec<(EndpointId, u32)>) {
    for step in program {
        if let Action::Call { endpoint, .. } = step.action {
            calls.push((endpoint, step.line));
        }
        inner(step).into_iter().for_each(|inner| collect(inner, calls));
    }
}
