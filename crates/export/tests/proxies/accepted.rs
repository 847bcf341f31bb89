//! nginx and HAProxy take what is written for them, without a warning.

use plimsoll_export::{Directory, Files, Site};
use plimsoll_model::system::ServiceKind;

use crate::proxy::{Proxy, folder};
use crate::{each, root, systems};

/// Every gateway of every system, with instances of such a host.
fn each_takes(proxy: Proxy, host: &str, package: bool) {
    let folder = folder();
    let path: Directory = folder.path().to_str().unwrap().parse().unwrap();
    // The certificate that `everything.yaml` names.
    for (from, to) in [("test.pem", "edge.pem"), ("test.key", "edge.key"), ("test.key", "edge.pem.key")] {
        let from = root().join("crates/gateway/tests/gateway/data").join(from);
        std::fs::copy(from, folder.path().join(to)).expect("a certificate");
    }
    for (name, system) in systems() {
        for gateway in plimsoll_export::gateways(&system) {
            let ServiceKind::Gateway(routes) = &system.services[gateway.index()].kind else { unreachable!() };
            let behind = routes.iter().map(|route| system.services[route.to.service.index()].name.clone());
            let addresses = || (9001..9004).map(|port| format!("{host}:{port}").parse().unwrap()).collect();
            let site = Site {
                // Not every machine has IPv6.
                listen: Some("127.0.0.1:18080".parse().unwrap()),
                upstreams: behind.map(|name| (name, addresses())).collect(),
                files: if package { Files::Package } else { Files::Directory(path.clone()) },
                folder: Some(path.clone()),
            };
            let text = proxy.export()(&system, gateway, &site).unwrap_or_else(|error| panic!("{name}: {error}"));
            proxy.accepts(&name, &text, folder.path());
        }
    }
}

#[test]
fn nginx_takes_every_gateway() {
    each_takes(Proxy::Nginx, "127.0.0.1", false);
    each_takes(Proxy::Nginx, "localhost", false);
}

#[test]
fn haproxy_takes_every_gateway() {
    each_takes(Proxy::Haproxy, "127.0.0.1", false);
    // As a service of Debian's package, with names that are looked up.
    each_takes(Proxy::Haproxy, "localhost", true);
}

/// Addresses and a name of the file's own.
#[test]
fn addresses_of_the_file_are_taken() {
    let folder = folder();
    let files = Files::Directory(folder.path().to_str().unwrap().parse().unwrap());
    for (at, nginx, haproxy) in [
        (
            "[ 127.0.0.1:81, { address: \"127.0.0.2:82\", weight: 0.5 } ]",
            "server 127.0.0.2:82 weight=5 ",
            "server api-2 127.0.0.2:82 weight 5\n",
        ),
        ("{ dns: \"localhost:83\", every: 7s }", "server localhost:83 ", "server-template api- 3 localhost:83\n"),
        (
            "{ dns: \"localhost:83\", every: 7s, server: \"127.0.0.1:8600\" }",
            "# `at.server` 127.0.0.1:8600: the system's resolver has to know the name.\n",
            "    nameserver given 127.0.0.1:8600\n    hold valid 7s\n",
        ),
    ] {
        let text = crate::gateway("upstream: api, balance: least_connections, listen: [ \"127.0.0.1:18081\" ]");
        let system =
            crate::system("small", &text.replace("    instances: 3\n", &format!("    instances: 3\n    at: {at}\n")));
        let gateway = plimsoll_export::find(&system, None).unwrap();
        let site = Site { files: files.clone(), ..Site::default() };
        for (proxy, expected) in [(Proxy::Nginx, nginx), (Proxy::Haproxy, haproxy)] {
            let exported = proxy.export()(&system, gateway, &site).unwrap();
            assert!(exported.contains(expected), "no {expected} in\n{exported}");
            assert!(exported.contains(" 127.0.0.1:18081"), "{exported}");
            proxy.accepts(at, &exported, folder.path());
        }
        let envoy = plimsoll_export::envoy(&system, gateway, &site).unwrap();
        assert_eq!(envoy.contains("dns_refresh_rate: 7s\n"), at.contains("dns"), "{envoy}");
        let asks = "resolvers: [{ socket_address: { address: \"127.0.0.1\", port_value: 8600 } }]\n";
        assert_eq!(envoy.contains(asks), at.contains("8600"), "{envoy}");
        assert_eq!(envoy.contains("load_balancing_weight: 5\n"), !at.contains("dns"), "{envoy}");
    }
}

/// Not by asking HAProxy, which fills all of a cache's memory before it answers.
#[test]
fn a_cache_is_no_larger_than_haproxy_allows() {
    let text = crate::gateway("routes: [ { to: api, cache: { key: a, capacity: 100M } } ]");
    let system = crate::system("small", &text);
    let gateway = plimsoll_export::find(&system, None).unwrap();
    let exported = plimsoll_export::haproxy(&system, gateway, &Site::default()).unwrap();
    assert!(exported.contains("\n    total-max-size 4095\n    max-object-size 3072\n"), "{exported}");
}

/// With a directory of its own, nothing else on the machine is touched.
#[test]
fn a_directory_holds_everything() {
    let files = Files::Directory("/nowhere/at all".parse().unwrap());
    let site = Site { files, ..Site::default() };
    for export in [plimsoll_export::nginx, plimsoll_export::haproxy] as [crate::Export; 2] {
        each(export, &site, |name, _, _, text| {
            for place in ["/var", "/run", "/etc", "/dev", "user ", "www-data", "chroot"] {
                let directives = text.lines().filter(|line| !line.trim_start().starts_with('#'));
                // A variable of that name is no directive, and a log goes to syslog where HAProxy writes none.
                let known = |line: &&str| line.contains("_user ") || line.contains("$user ") || line.contains("log ");
                let foreign = directives.filter(|line| line.trim_start().contains(place)).find(|line| !known(line));
                assert_eq!(foreign, None, "{name}: {place}");
            }
        });
    }
}
