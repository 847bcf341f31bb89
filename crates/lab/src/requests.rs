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
    let user_field = user_field(system, endpoint).unwrap_or(USER);
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

/// The field that names the user to a service, where the file has a name for it: the gateway's own, or that of a gateway
/// in front of the service, which passes the field on. Who calls the service directly says it in the same words.
fn user_field(system: &System, endpoint: EndpointId) -> Option<&str> {
    fn named(gateway: &Service) -> Option<&str> {
        gateway.serving.as_ref()?.headers.user.as_deref()
    }
    let of = &system.services[endpoint.service.index()];
    if of.is_gateway() {
        return named(of);
    }
    let leads = |service: &&Service| match &service.kind {
        ServiceKind::Gateway(routes) => routes.iter().any(|route| route.to.service == endpoint.service),
        ServiceKind::Service => false,
    };
    system.services.iter().filter(leads).find_map(named)
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
    fn a_service_hears_of_users_in_the_words_of_the_gateway_in_front_of_it() {
        let of = |headers: &str| {
            let file = format!(
                "system: s\nclients: {{ web: {{ rate: 1/s, calls: [edge GET /x] }}, job: {{ rate: 1/s, calls: [api GET /x, \
                 other GET /x] }} }}\nservices:\n  edge: {{ kind: gateway, upstream: api{headers} }}\n  api: {{ endpoints: {{ GET \
                 /x: [ {{ wait: 1ms }} ] }} }}\n  other: {{ endpoints: {{ GET /x: [ {{ wait: 1ms }} ] }} }}\n"
            );
            let source =
                plimsoll_model::Source { name: "s.yaml", bytes: file.as_bytes(), read: &|_| Err(String::new()) };
            let system = plimsoll_model::parse(&source).unwrap();
            ["edge", "api", "other"].map(|name| {
                let at = system.services.iter().position(|service| service.name == name).unwrap();
                let endpoint = EndpointId { service: plimsoll_model::system::ServiceId(at as u32), index: 0 };
                user_field(&system, endpoint).unwrap_or(USER).to_owned()
            })
        };
        assert_eq!(of(", headers: { user: X-User-Id }"), ["X-User-Id", "X-User-Id", USER]);
        assert_eq!(of(""), [USER, USER, USER]);
    }

    #[test]
    fn names_become_hosts() {
        let mut host = String::new();
        push_host(&mut host, "Team Notes/2");
        assert_eq!(host, "Team-Notes-2");
    }
}
