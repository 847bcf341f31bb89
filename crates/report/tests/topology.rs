//! The topology of a system file: what calls what, and what publishes to what.

use plimsoll_model::{Source, parse};
use plimsoll_report::topology::Topology;

#[test]
fn a_system_file_becomes_nodes_and_links() {
    let text = "
system: shop
clients:
  web:
    rate: 10/s
    calls: [ { endpoint: edge GET /x, weight: 1 } ]
services:
  edge: { kind: gateway, upstream: api }
  api:
    instances: 3
    endpoints:
      GET /x:
        - cache: memory
          key: x
          ttl: 60s
          on_miss: [ { query: db.read } ]
        - transaction: db
          do:
            - query: db.write
            - publish: done
stores:
  db:
    kind: postgres
    operations:
      read: { kind: read, time: 1ms }
      write: { kind: write, time: 2ms }
  memory: { kind: redis, capacity: 1k, time: 0.3ms }
topics:
  done: { partitions: 4, capacity: 1k }
consumers:
  mailer: { topic: done, instances: 2, handler: 5ms }
";
    let system = parse(&Source::alone("shop.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"));
    let topology = Topology::of(&system);
    let nodes: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(nodes, ["web", "edge", "api", "db", "memory", "done", "mailer"]);
    let mut links: Vec<&str> = topology.links.iter().map(|link| link.name.as_str()).collect();
    links.sort_unstable();
    assert_eq!(links, ["api -> db", "api -> done", "api -> memory", "done -> mailer", "edge -> api", "web -> edge"]);
    assert_eq!(topology.nodes[2].text, "service, 3 instances");
}
