//! `balancer`: nginx and HAProxy in a gateway's place.

use crate::Folder;

const SYSTEM: &str = "system: balanced
clients:
  web: { rate: 50/s, arrivals: constant, users: 100, timeout: 5s, calls: [edge GET /x] }
services:
  edge:
    kind: gateway
    balancer: nginx
    upstream: api
    retry: { attempts: 2, when: [connect_error, reset] }
    rate_limit: { quota: 1000/s, per: user }
    timeout: 4s
  api: { instances: 2, workers: 8, startup: 100ms, endpoints: { GET /x: [ { wait: 1ms } ] } }
experiments:
  lost:
    for: 5s
    warmup: 1s
    faults: [ { at: 1s, kill: api/2, for: 1s } ]
    expect: [ success > 90%, share(api/1) during fault > 50%, share(api/2) after fault > 1% ]
  # New instances have new addresses: the proxy has to be told.
  rolling:
    for: 6s
    warmup: 1s
    faults: [ { at: 1s, deploy: api, version: { slow: 1x }, until: 5s } ]
    expect: [ success at end > 90% ]
  gone:
    for: 8s
    warmup: 1s
    faults: [ { at: 1s, kill: edge, for: 1s } ]
    expect: [ errors during fault > 10%, success at end > 50% ]
";

#[test]
fn nginx_and_haproxy_stand_for_a_gateway() {
    for balancer in ["nginx", "haproxy"] {
        let folder = Folder::new();
        folder.write("system.yaml", SYSTEM.replace("nginx", balancer));
        let ended = folder.run(["run", "system.yaml", "--seed", "3"]);
        // A machine that is too busy to measure says so with 4; what was expected is of what happened.
        assert!(matches!(ended.code, Some(0 | 4)), "{balancer}: {}\n{}", ended.out, ended.err);
        assert!(!ended.out.contains("missed"), "{balancer}: {}\n{}", ended.out, ended.err);
        for experiment in ["lost: 3 expectations met", "rolling: 1 expectation met", "gone: 2 expectations met"] {
            assert!(ended.out.contains(experiment), "{balancer}: {}\n{}", ended.out, ended.err);
        }
    }
}

#[test]
fn who_stands_for_a_gateway_is_one_of_three() {
    let folder = Folder::new();
    folder.write("system.yaml", SYSTEM.replace("balancer: nginx", "balancer: ngnix"));
    folder.run(["run", "system.yaml"]).refused("expected one of `plimsoll`, `nginx` or `haproxy`, found `ngnix`");
}

/// Equal requests that wait are one for Plimsoll's gateway (`coalesce`), and for nginx and HAProxy as many as they are:
/// how many reach the instances says who stood there.
const COALESCING: &str = "system: coalescing
clients:
  web: { rate: 50/s, arrivals: constant, users: 1, timeout: 5s, calls: [edge GET /x] }
services:
  edge: { kind: gateway, upstream: api, coalesce: true, timeout: 4s }
  api: { workers: 200, endpoints: { GET /x: [ { wait: 300ms } ] } }
experiments:
  calm: { for: 4s, warmup: 1s, expect: [ success > 90% ] }
";

/// What share of the requests reached the instances, by a result.
fn reached(folder: &Folder, result: &str) -> f64 {
    let run: serde_json::Value = serde_json::from_str(&folder.read(result)).unwrap();
    let offered = |name: &str| {
        let all = run["subjects"].as_array().unwrap();
        let of = all.iter().find(|subject| subject["name"] == name).unwrap_or_else(|| panic!("no {name} in {run}"));
        of["totals"]["offered"].as_f64().unwrap()
    };
    offered("api") / offered("web")
}

#[test]
fn the_command_line_says_who_stands_for_gateways() {
    let folder = Folder::new();
    folder.write("own.yaml", COALESCING);
    folder.write("nginx.yaml", COALESCING.replace("kind: gateway", "kind: gateway, balancer: nginx"));
    for (file, option, result, name) in [
        ("own.yaml", "nginx", "nginx.json", Some("nginx")),
        ("own.yaml", "haproxy", "haproxy.json", Some("haproxy")),
        ("nginx.yaml", "plimsoll", "own.json", None),
    ] {
        let ended = folder.run(["run", file, "calm", "--balancer", option, "--json", result]);
        assert!(matches!(ended.code, Some(0 | 4)), "{option}: {}\n{}", ended.out, ended.err);
        let run: serde_json::Value = serde_json::from_str(&folder.read(result)).unwrap();
        assert_eq!(run["balancer"].as_str(), name);
        let reached = reached(&folder, result);
        match name {
            Some(name) => {
                assert!(ended.out.contains(&format!("with {name} for a gateway")), "{}", ended.out);
                assert!(reached > 0.8, "{option}: {reached}");
            }
            None => {
                assert!(!ended.out.contains("for a gateway"), "{}", ended.out);
                assert!(reached < 0.5, "{option}: {reached}");
            }
        }
    }
    // Side by side.
    let table = folder.run(["balancer-table", "own.json", "nginx.json", "haproxy.json"]).with(0).out;
    assert!(table.starts_with("| experiment | expected | plimsoll | nginx | haproxy |\n"), "{table}");
    assert!(table.contains("| calm | `success > 90%` | 100% | 100% | 100% |\n"), "{table}");
    assert!(table.contains("| **held** | | 1 of 1 | 1 of 1 | 1 of 1 |\n"), "{table}");
    folder.write("page.md", "before\n<!-- balancer-table -->\nold\n<!-- /balancer-table -->\nafter\n");
    folder.run(["balancer-table", "own.json", "nginx.json", "haproxy.json", "-o", "page.md"]).with(0);
    let page = format!("before\n<!-- balancer-table -->\n{table}<!-- /balancer-table -->\nafter\n");
    assert_eq!(folder.read("page.md"), page);
}

#[test]
fn who_cannot_stand_for_a_gateway_is_refused() {
    let folder = Folder::new();
    let alone = "system: alone\nclients: { web: { rate: 1/s, calls: [api GET /x] } }\nservices:\n  api: { endpoints: { \
                 GET /x: [ { wait: 1ms } ] } }\nexperiments: { calm: { for: 2s, expect: [ success > 0% ] } }\n";
    folder.write("alone.yaml", alone);
    let refused = folder.run(["run", "alone.yaml", "--balancer", "nginx"]);
    refused.refused("alone.yaml: --balancer: no gateway that it could stand for");
    folder.write("own.yaml", COALESCING);
    folder.run(["run", "own.yaml", "--balancer", "ngnix"]).refused("[possible values: plimsoll, nginx, haproxy]");
    folder.run(["run", "--self-test", "--balancer", "nginx"]).refused("cannot be used with");
    folder.run(["balancer-table", "own.yaml"]).refused("expected a run written with --json");
    folder.run(["balancer-table", "none.json"]).refused("none.json: cannot be read");
    folder.write("page.md", "nothing\n");
    folder.run(["balancer-table", "own.yaml", "-o", "page.md"]).refused("<!-- balancer-table -->");
}
