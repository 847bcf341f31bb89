//! No Envoy is at hand: what it would refuse first is checked here. The text is YAML, every name that is
//! referred to is there, and every extension says its type.

use std::collections::BTreeSet;

use plimsoll_export::{Site, envoy};
use saphyr_parser::{Event, Parser};

use crate::each;

/// A YAML document, without types: all scalars are text.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    #[track_caller]
    fn read(text: &str) -> Node {
        let events = Parser::new_from_str(text).map(|event| event.unwrap_or_else(|error| panic!("{error}\n{text}")).0);
        let mut events = events.filter(|event| {
            !matches!(event, Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd)
        });
        let first = events.next().expect("a document");
        let node = Node::build(first, &mut events);
        assert!(events.next().is_none(), "more than one document");
        node
    }

    fn build<'e>(event: Event<'e>, events: &mut impl Iterator<Item = Event<'e>>) -> Node {
        match event {
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match events.next().expect("the list's end") {
                        Event::SequenceEnd => return Node::List(items),
                        event => items.push(Node::build(event, events)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries: Vec<(String, Node)> = Vec::new();
                loop {
                    let key = match events.next().expect("the mapping's end") {
                        Event::MappingEnd => return Node::Map(entries),
                        Event::Scalar(text, ..) => text.into_owned(),
                        other => panic!("a key that is {other:?}"),
                    };
                    assert!(entries.iter().all(|(other, _)| *other != key), "`{key}` is there twice");
                    let value = events.next().expect("a value");
                    entries.push((key, Node::build(value, events)));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// What lies at a path such as `static_resources.clusters`.
    #[track_caller]
    fn at(&self, path: &str) -> &Node {
        path.split('.')
            .fold(self, |node, key| node.get(key).unwrap_or_else(|| panic!("no `{key}` of {path} in {node:?}")))
    }

    #[track_caller]
    fn text(&self) -> &str {
        match self {
            Node::Scalar(text) => text,
            other => panic!("{other:?} is no scalar"),
        }
    }

    #[track_caller]
    fn list(&self) -> &[Node] {
        match self {
            Node::List(items) => items,
            other => panic!("{other:?} is no list"),
        }
    }

    /// All mappings with such a key, wherever they are.
    fn all_with<'n>(&'n self, key: &str, found: &mut Vec<&'n Node>) {
        match self {
            Node::Scalar(_) => {}
            Node::List(items) => items.iter().for_each(|item| item.all_with(key, found)),
            Node::Map(entries) => {
                if entries.iter().any(|(name, _)| name == key) {
                    found.push(self);
                }
                entries.iter().for_each(|(_, node)| node.all_with(key, found));
            }
        }
    }
}

/// The connection manager of the one listener.
fn manager(document: &Node) -> &Node {
    let listeners = document.at("static_resources.listeners").list();
    assert_eq!(listeners.len(), 1);
    let filters = listeners[0].at("filter_chains").list()[0].at("filters").list();
    let last = filters.last().expect("a filter");
    assert_eq!(last.at("name").text(), "envoy.filters.network.http_connection_manager");
    last.at("typed_config")
}

fn routes(document: &Node) -> Vec<&Node> {
    let hosts = manager(document).at("route_config.virtual_hosts").list();
    hosts.iter().flat_map(|host| host.at("routes").list()).collect()
}

fn clusters(document: &Node) -> &[Node] {
    document.at("static_resources.clusters").list()
}

#[test]
fn every_name_that_is_referred_to_is_there() {
    each(envoy, &Site::default(), |name, system, gateway, text| {
        let document = Node::read(text);
        let names: Vec<&str> = clusters(&document).iter().map(|cluster| cluster.at("name").text()).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{name}: {names:?}");
        let used: BTreeSet<&str> = routes(&document).iter().map(|route| route.at("route.cluster").text()).collect();
        assert_eq!(used, unique, "{name}: routes and clusters");
        for cluster in clusters(&document) {
            assert_eq!(cluster.at("load_assignment.cluster_name"), cluster.at("name"), "{name}");
            assert!(!cluster.at("load_assignment.endpoints").list()[0].at("lb_endpoints").list().is_empty(), "{name}");
        }
        let filters = manager(&document).at("http_filters").list();
        let filters: Vec<&str> = filters.iter().map(|filter| filter.at("name").text()).collect();
        assert_eq!(filters.last(), Some(&"envoy.filters.http.router"), "{name}: the router is the last filter");
        for route in routes(&document) {
            if let Some(Node::Map(configs)) = route.get("typed_per_filter_config") {
                for (filter, config) in configs {
                    assert!(filters.contains(&filter.as_str()), "{name}: no filter {filter}");
                    config.at("@type");
                }
            }
        }
        assert_eq!(
            routes(&document).len(),
            system.services[gateway.index()].endpoints.iter().filter(|endpoint| endpoint.name.contains(" /")).count()
        );
    });
}

#[test]
fn every_extension_says_its_type() {
    let known = [
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "filters.http.router.v3.Router",
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        "retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "filters.network.connection_limit.v3.ConnectionLimit",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        "access_loggers.file.v3.FileAccessLog",
    ];
    let mut seen = BTreeSet::new();
    each(envoy, &Site::default(), |name, _, _, text| {
        let document = Node::read(text);
        let mut extensions = Vec::new();
        document.all_with("typed_config", &mut extensions);
        for extension in extensions {
            let kind = extension.at("typed_config").at("@type").text().to_owned();
            let short = kind.strip_prefix("type.googleapis.com/envoy.extensions.");
            let short = short.unwrap_or_else(|| panic!("{name}: {kind}"));
            assert!(known.contains(&short), "{name}: {short}");
            extension.at("name");
            seen.insert(short.to_owned());
        }
    });
    assert_eq!(seen.len(), known.len(), "{seen:?}");
}

/// No address is opened that the file does not name.
#[test]
fn the_administration_interface_is_where_the_file_says() {
    let mut named = 0;
    each(envoy, &Site::default(), |name, system, gateway, text| {
        let document = Node::read(text);
        let found = document.get("admin").map(|admin| {
            let address = admin.at("address.socket_address");
            format!("{}:{}", address.at("address").text(), address.at("port_value").text())
        });
        let admin = system.services[gateway.index()].serving.as_ref().and_then(|serving| serving.admin);
        assert_eq!(found, admin.map(|admin| admin.to_string()), "{name}");
        named += usize::from(admin.is_some());
    });
    assert!(named > 0);
}

/// Envoy's own limits of 1024 requests and three retries, which the file does not have, are replaced; and its
/// validation of durations and of a bucket's size is passed.
#[test]
fn limits_and_durations_are_the_files() {
    each(envoy, &Site::default(), |name, _, _, text| {
        let document = Node::read(text);
        for cluster in clusters(&document) {
            let thresholds = &cluster.at("circuit_breakers.thresholds").list()[0];
            for key in ["max_connections", "max_pending_requests", "max_requests"] {
                assert!(thresholds.at(key).text().parse::<u32>().is_ok_and(|most| most > 0), "{name}: {key}");
            }
            assert!(thresholds.get("retry_budget").is_some() != thresholds.get("max_retries").is_some(), "{name}");
        }
        let mut buckets = Vec::new();
        document.all_with("token_bucket", &mut buckets);
        for bucket in buckets {
            let number = |key: &str| bucket.at("token_bucket").at(key).text().parse::<u32>().expect("a number");
            assert!(number("max_tokens") >= number("tokens_per_fill"), "{name}");
            let interval = bucket.at("token_bucket.fill_interval").text();
            let seconds: f64 = interval.strip_suffix('s').expect("a duration").parse().expect("a number");
            assert!(seconds >= 0.05, "{name}: {interval}");
        }
        let mut backoffs = Vec::new();
        document.all_with("retry_back_off", &mut backoffs);
        for backoff in backoffs {
            let seconds = |key: &str| {
                let text = backoff.at("retry_back_off").at(key).text();
                text.strip_suffix('s').and_then(|text| text.parse::<f64>().ok()).expect("a duration")
            };
            assert!(seconds("base_interval") >= 0.001 && seconds("base_interval") <= seconds("max_interval"), "{name}");
        }
    });
}

/// A hostile name stays within its quotes.
#[test]
fn what_a_file_says_is_text() {
    let text = crate::gateway("upstream: api, health: { path: \"/a\\\", b: [c] #\\n- d\" }")
        .replace("small", "\"a\\nadmin: x\"");
    let system = crate::system("hostile", &text);
    let exported = envoy(&system, plimsoll_export::find(&system, None).unwrap(), &Site::default()).unwrap();
    let document = Node::read(&exported);
    let check = &clusters(&document)[0].at("health_checks").list()[0];
    assert_eq!(check.at("http_health_check.path").text(), "/a\",%20b:%20[c]%20#%0A-%20d");
    assert_eq!(document.get("admin"), None);
}
