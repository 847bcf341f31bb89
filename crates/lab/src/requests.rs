//! Requests as they go over the wire: from an endpoint's name and a context to a method, a path and fields.

use plimsoll_model::system::{EdgeId, Endpoint, EndpointId, Service, ServiceKind, System};

use crate::caller::Ask;
use crate::context::{CLASS, CONTEXT, Context, USER, WROTE};

/// The field that tells how long the caller still waits, where a gateway has no name of its own for it.
const DEADLINE: &str = "x-request-timeout-ms";

/// A call of an endpoint.
pub fn ask(system: &System, edge: EdgeId, endpoint: EndpointId, context: &Context, deadline: Option<u64>) -> Ask {
    let (service, of) = endpoint_of(system, endpoint);
    let (method, path) = method_and_path(&of.name, context.key);
    let headers = service.serving.as_ref().map(|serving| &serving.headers);
    let user_field = headers.and_then(|headers| headers.user.as_deref()).unwrap_or(USER);
    let class_field = headers.and_then(|headers| headers.class.as_deref()).unwrap_or(CLASS);
    let (origin, at_origin) = origin(system, endpoint);
    let keyed = origin.idempotency.is_some();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\n{user_field}: {}.{}\r\n{class_field}: {}\r\n{CONTEXT}: {}\r\n",
        host(&service.name),
        context.client,
        context.user,
        context.class,
        context.field(),
    );
    if !context.wrote.is_empty() {
        head.push_str(&format!("{WROTE}: {}\r\n", context.wrote));
    }
    if keyed && !at_origin.idempotent {
        head.push_str(&format!("{}: {:016x}\r\n", origin.idempotency_header, context.logical));
    }
    if !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        head.push_str("content-length: 0\r\n");
    }
    Ask {
        method: method.to_owned(),
        head: head.into_bytes(),
        deadline_field: headers.map_or(DEADLINE, |headers| &headers.deadline).to_owned(),
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

/// `GET /notes/:id` with the key in the place of `:id`.
fn method_and_path(name: &str, key: u32) -> (&str, String) {
    let (method, pattern) = name.split_once(' ').unwrap_or(("GET", "/"));
    let mut path = String::with_capacity(pattern.len() + 10);
    for segment in pattern.split('/').skip(1) {
        path.push('/');
        match segment {
            "*" => path.push_str(&key.to_string()),
            segment if segment.starts_with(':') => path.push_str(&key.to_string()),
            segment => path.push_str(segment),
        }
    }
    (if method == "*" { "GET" } else { method }, path)
}

/// A service's name as a host.
fn host(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_the_place_of_parameters() {
        assert_eq!(method_and_path("GET /notes/:id", 7), ("GET", "/notes/7".to_owned()));
        assert_eq!(method_and_path("POST /notes", 7), ("POST", "/notes".to_owned()));
        assert_eq!(method_and_path("* /files/*", 7), ("GET", "/files/7".to_owned()));
        assert_eq!(method_and_path("GET /", 7), ("GET", "/".to_owned()));
    }
}
