//! Which gateway is meant, and what is said where that is unclear.

use plimsoll_export::{Error, Site, find, gateways, nginx};

use crate::{everything, gateway, system};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    assert_eq!(result.unwrap_err().to_string(), expected);
}

#[test]
fn the_only_gateway_needs_no_name() {
    let system = system("small", &gateway("upstream: api"));
    assert_eq!(find(&system, None), find(&system, Some("edge")));
    refused(find(&system, Some("egde")), "there is no gateway `egde`: expected `edge`");
    refused(find(&system, Some("api")), "`api` is a plain service, no gateway: expected `edge`");
}

#[test]
fn of_several_one_is_named() {
    let system = system("everything", &everything());
    assert_eq!(gateways(&system).len(), 2);
    refused(find(&system, None), "the system has several gateways: name one of `edge` and `front`");
    refused(find(&system, Some("x\n")), "there is no gateway `x\\n`: expected `edge` and `front`");
    assert_ne!(find(&system, Some("edge")), find(&system, Some("front")));
}

#[test]
fn a_system_without_a_gateway_is_refused() {
    let text = "system: s
clients: { web: { rate: 1/s, calls: [ api GET / ] } }
services: { api: { endpoints: { GET /: [ { work: 1ms }, { publish: t } ] } } }
topics: { t: {} }
consumers: { reader: { topic: t, handler: 1ms } }
";
    let system = system("s", text);
    let expected = "the system has no gateway to export: expected a service with `kind: gateway` beside `api`";
    refused(find(&system, None), expected);
    refused(find(&system, Some("api")), expected);
}

#[test]
fn addresses_are_for_services_behind_the_gateway() {
    let system = system("small", &gateway("upstream: api"));
    let gateway = find(&system, None).unwrap();
    let mut site = Site::default();
    site.upstreams.insert("apy".to_owned(), vec!["127.0.0.1:1".parse().unwrap()]);
    refused(nginx(&system, gateway, &site), "the gateway `edge` does not lead to `apy`: expected `api`");
    site.upstreams = [("api".to_owned(), Vec::new())].into();
    refused(nginx(&system, gateway, &site), "`api` needs at least one address");
}

#[test]
fn endpoints_that_are_no_paths_are_named() {
    let text = |endpoints: &str| {
        format!(
            "system: s
clients: {{ web: {{ rate: 1/s, calls: [ edge any ] }} }}
services:
  edge: {{ kind: gateway, upstream: api }}
  api: {{ endpoints: {{ {endpoints} }} }}
"
        )
    };
    let none = system("s", &text("any: [ { work: 1ms } ]"));
    refused(
        nginx(&none, find(&none, None).unwrap(), &Site::default()),
        "no endpoint of the gateway `edge` has a name that a proxy could match, but `any`: expected a method and a path, \
         such as `GET /notes/:id`",
    );
    let some = system("s", &text("any: [ { work: 1ms } ], GET /: [ { work: 1ms } ]"));
    let exported = nginx(&some, find(&some, None).unwrap(), &Site::default()).unwrap();
    assert!(exported.contains("# No method and path to match: `any`."), "{exported}");
}
