//! Requests as they go over the wire: from an endpoint's name and a context to a method, a path and fields.

use std::fmt::Write;

use plimsoll_model::system::{EdgeId, Endpoint, EndpointId, Service, ServiceKind, System};

use crate::caller::Ask;
use crate::context::{CLASS, CONTEXT, Context, USER, WROTE};

/// The field that tells how long the caller still waits, where a gateway has no name of its own for it.
const DEADLINE: &str = "x-request-timeout-ms";

/// A call of an endpoint.
pub fn ask<'s>(
    system: &'s System,
    edge: EdgeId,
    endpoint: EndpointId,
    context: &Context,
    deadline: Option<u64>,
) -> Ask<'s> {
    let (service, of) = endpoint_of(system, endpoint);
    let (method, pattern) = method_and_pattern(&of.name);
    let headers = service.serving.as_ref().map(|serving| &serving.headers);
    let user_field = headers.and_then(|headers| headers.user.as_deref()).unwrap_or(USER);
    let class_field = headers.and_then(|headers| headers.class.as_deref()).unwrap_or(CLASS);
    let (origin, at_origin) = origin(system, endpoint);
    let keyed = origin.idempotency.is_some();
    let mut head = String::with_capacity(256);
    head.push_str(method);
    head.push(' ');
    push_path(&mut head, pattern, context.key);
    head.push_str(" HTTP/1.1\r\nhost: ");
    push_host(&mut head, &service.name);
    let Context { client, user, class, .. } = context;
    // Text takes all that is written to it.
    let _ = write!(
        head,
        "\r\n{user_field}: {client}.{user}\r\n{class_field}: {class}\r\n{CONTEXT}: {}\r\n",
        context.field()
    );
    if !context.wrote.is_empty() {
        let _ = write!(head, "{WROTE}: {}\r\n", context.wrote);
    }
    if keyed && !at_origin.idempotent {
        let _ = write!(head, "{}: {:016x}\r\n", origin.idempotency_header, context.logical);
    }
    if !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        head.push_str("content-length: 0\r\n");
    }
    Ask {
        method,
        head: head.into_bytes(),
        deadline_field: headers.map_or(DEADLINE, |headers| &headers.deadline),
        repeatable: at_origin.idempotent || keyed,
        key: context.user_key(),
        deadline,
        draw: context.draw.part(u64::from(edge.0) | 1 << 46),
        endpoint,
        logical: context.logical,
    }
}

fn endpoint_of(system: &System, endpoint: EndpointId) -> (&Service, &Endpoint) {
    let service = &system.services[endpoint.service.index()];
    (service, &service.endpoints[endpoint.index as usize])
}

/// The service and endpoint that answer in the end, behind all gateways.
pub fn origin(system: &System, endpoint: EndpointId) -> (&Service, &Endpoint) {
    endpoint_of(system, origin_of(system, endpoint))
}

/// The endpoint that answers in the end, behind all gateways.
pub fn origin_of(system: &System, endpoint: EndpointId) -> EndpointId {
    let mut at = endpoint;
    while let ServiceKind::Gateway(routes) = &system.services[at.service.index()].kind {
        let Some(route) = routes.get(at.index as usize) else { break };
        at = route.to;
    }
    at
}

/// The two parts of `GET /notes/:id`.
fn method_and_pattern(name: &str) -> (&str, &str) {
    let (method, pattern) = name.split_once(' ').unwrap_or(("GET", "/"));
    (if method == "*" { "GET" } else { method }, pattern)
}

/// `/notes/:id` with the key in the place of `:id`.
fn push_path(out: &mut String, pattern: &str, key: u32) {
    for segment in pattern.split('/').skip(1) {
        out.push('/');
        if segment == "*" || segment.starts_with(':') {
            let _ = write!(out, "{key}");
        } else {
            out.push_str(segment);
        }
    }
}

/// A service's name as a host.
fn push_host(out: &mut String, name: &str) {
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_the_place_of_parameters() {
        let of = |name| {
            let (method, pattern) = method_and_pattern(name);
            let mut line = format!("{method} ");
            push_path(&mut line, pattern, 7);
            line
        };
        assert_eq!(of("GET /notes/:id"), "GET /notes/7");
        assert_eq!(of("POST /notes"), "POST /notes");
        assert_eq!(of("* /files/*"), "GET /files/7");
        assert_eq!(of("GET /"), "GET /");
    }

    #[test]
    fn names_become_hosts() {
        let mut host = String::new();
        push_host(&mut host, "Team Notes/2");
        assert_eq!(host, "Team-Notes-2");
    }
}
