//! Quorum stores in a run.

use crate::Folder;
use crate::run::{count, ran};

const SYSTEM: &str = "system: quorum
clients:
  web: { rate: 50/s, arrivals: constant, timeout: 5s, calls: [ api GET /x ] }
services:
  api: { async: true, startup: 100ms, endpoints: { GET /x: [ { query: rows.read } ] } }
stores:
  rows: { kind: quorum, nodes: 3, read: 2, write: 2, operations: { read: { time: 5ms..50ms } } }
experiments:
  steady: { for: 4s, warmup: 1s, expect: [ errors < 100% ] }
";

#[test]
fn nodes_end_what_is_not_waited_for_any_more() {
    let folder = Folder::new();
    folder.write("quorum.yaml", SYSTEM);
    let ended = ran(folder.run(["run", "quorum.yaml", "steady", "--json", "run.json"]));
    let run = folder.json("run.json");
    // Each would be the slowest a third of the time.
    for node in ["rows/1", "rows/2", "rows/3"] {
        let (offered, ok) = (count(&run, "node", node, "offered"), count(&run, "node", node, "ok"));
        assert!(offered > 100 && ok * 10 >= offered * 9, "{node}: {ok} of {offered}\n{}", ended.out);
    }
}
