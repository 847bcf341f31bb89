//! Calibration files: what is written reads back, and what is wrong is said with its place.

use plimsoll_model::calibration::{Calibration, SHARES, Times, What};
use plimsoll_model::read_calibration;
use plimsoll_model::system::{Action, EdgeId, EndpointId, ServiceId, StoreId, System, TopicId};
use proptest::prelude::*;

const SYSTEM: &str = "system: shop
clients: { web: { rate: 10/s, calls: [ api GET / ] } }
services:
  api:
    endpoints:
      GET /:
        - work: 1ms
        - parallel: [ { wait: 2ms }, { query: db.read } ]
        - publish: sold
  own: { run: \"./own --port {port}\", endpoints: { GET /own: [] } }
stores: { db: { kind: postgres, operations: { read: { kind: read, time: 1ms } } } }
topics: { sold: {} }
consumers: { mail: { topic: sold, handler: 5ms } }
";

fn system() -> System {
    plimsoll_model::parse(&plimsoll_model::Source::alone("shop.yaml", SYSTEM)).unwrap_or_else(|e| panic!("{e}"))
}

fn times(base: u64) -> Times {
    Times { samples: 100, at: std::array::from_fn(|at| base + at as u64 * 10_000) }
}

fn edge(system: &System, name: &str) -> EdgeId {
    let found = (0..system.edges.len()).map(EdgeId::from).find(|edge| system.edge_name(*edge) == name);
    found.unwrap_or_else(|| panic!("no edge {name}"))
}

fn calibration(system: &System) -> Calibration {
    let at = EndpointId { service: ServiceId(0), index: 0 };
    let handler = EndpointId { service: system.consumers[0].service, index: 0 };
    let all = [
        What::Step(at, 1),
        What::Step(at, 2),
        What::Step(handler, 1),
        What::Beside(at),
        What::Endpoint(EndpointId { service: ServiceId(1), index: 0 }),
        What::Operation(StoreId(0), 0),
        What::Commit(StoreId(0)),
        What::Overhead(edge(system, "web -> api")),
        What::Overhead(edge(system, "api -> db")),
        What::Publish(TopicId(0)),
        What::Relay(TopicId(0)),
        What::Handling(0.into()),
    ];
    Calibration {
        system: system.name.clone(),
        hash: format!("{:016x}", system.hash),
        plimsoll: "0.1.0".to_owned(),
        seed: 7,
        load: 0.5,
        length: 30_000_000_000,
        busy: 0.25,
        times: all.into_iter().enumerate().map(|(at, what)| (what, times(at as u64 * 1_000_000))).collect(),
    }
}

fn read(text: &str) -> Result<Calibration, String> {
    read_calibration("c.yaml", text.as_bytes(), &system()).map_err(|problems| problems.to_string())
}

#[test]
fn what_is_written_reads_back() {
    let system = system();
    let written = calibration(&system);
    let text = written.text(&system);
    assert_eq!(read(&text).unwrap_or_else(|why| panic!("{why}\n{text}")), written);
    assert!(written.is_of(&system));
}

#[test]
fn a_system_takes_the_times_and_keeps_the_rest() {
    let mut system = system();
    let calibration = calibration(&system);
    calibration.apply(&mut system);
    let program = &system.services[0].endpoints[0].program;
    let measured = |what: What| calibration.times[&what].dist();
    let takes = |action: &Action| match action {
        Action::Work(time) | Action::Wait(time) => time.clone(),
        other => panic!("{other:?}"),
    };
    let at = EndpointId { service: ServiceId(0), index: 0 };
    assert_eq!(takes(&program[0].action), measured(What::Beside(at)));
    assert!(matches!(program[1].action, Action::Work(_)), "it still takes a core");
    assert_eq!(takes(&program[1].action), measured(What::Step(at, 1)));
    let Action::Parallel { branches, .. } = &program[2].action else { panic!("{program:?}") };
    assert_eq!(takes(&branches[0][0].action), measured(What::Step(at, 2)));
    assert_eq!(system.stores[0].operations[0].time, measured(What::Operation(StoreId(0), 0)));
    let overhead = edge(&system, "api -> db");
    assert_eq!(system.edges[overhead.index()].policies.overhead, Some(measured(What::Overhead(overhead))));
    assert_eq!(system.edges[overhead.index()].policies.latency, None, "the network stays as described");
    // The reader's own service is what was seen of it; a handler is what it was, after what is beside it.
    let own = &system.services[1].endpoints[0].program;
    assert_eq!(own.len(), 1);
    assert_eq!(takes(&own[0].action), measured(What::Endpoint(EndpointId { service: ServiceId(1), index: 0 })));
    let handler = EndpointId { service: system.consumers[0].service, index: 0 };
    for program in [&system.consumers[0].handler, &system.services[2].endpoints[0].program] {
        assert_eq!(program.len(), 2);
        assert_eq!(takes(&program[0].action), measured(What::Handling(0.into())));
        assert_eq!(takes(&program[1].action), measured(What::Step(handler, 1)));
    }
}

#[test]
fn what_does_not_match_is_said_with_its_line_and_key() {
    let good = calibration(&system()).text(&system());
    let line = |needle: &str| good.lines().position(|line| line.contains(needle)).unwrap() + 1;
    let cases: [(&str, &str, usize, &str); 9] = [
        ("calibration: 1", "calibration: 2", line("calibration: 1"), "this program reads format 1, found format 2"),
        ("  \"web -> api\"", "  \"web -> apu\"", line("web -> api"), "there is no edge `web -> apu`"),
        ("\"db.read\"", "\"db.raed\"", line("db.read"), "there is no operation `db.raed`"),
        ("    2: {", "    3: {", line("    2: {"), "there is no step 3 of `api GET /`"),
        ("    2: {", "    two: {", line("    2: {"), "there is no step two of `api GET /`"),
        ("publishes:", "published:", line("publishes:"), "calibration has no key `published`"),
        ("busy: 25%", "busy: 25", line("busy:"), "expected a percentage"),
        ("samples: 100, min", "samples: 100, mni", line("samples: 100"), "times has no key `mni`"),
        ("p50: 0.04ms", "p50: 0.9ms", line("p50: 0.04ms"), "`p75` is below `p50`"),
    ];
    for (from, to, line, message) in cases {
        assert!(good.contains(from), "{from}\n{good}");
        let why = read(&good.replacen(from, to, 1)).expect_err(to);
        assert!(why.contains(message), "{message}\n{why}");
        assert!(why.lines().any(|of| of.starts_with(&format!("c.yaml:{line}:"))), "{line}: {why}");
    }
    assert!(read("").unwrap_err().contains("`plimsoll calibrate` writes one"));
    let missing = good.replacen("seed: 7\n", "", 1);
    assert!(read(&missing).unwrap_err().contains("`seed`"), "{}", read(&missing).unwrap_err());
}

proptest! {
    /// Whatever becomes of a file, it is read or refused in an orderly way; and what is read can be drawn from.
    #[test]
    fn changed_files_are_read_or_refused(at in 0usize..4000, with in "[ -~\n]{0,6}", cut in 0usize..12) {
        let system = system();
        let mut text = calibration(&system).text(&system);
        let at = at % text.len();
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &with);
        match read_calibration("c.yaml", text.as_bytes(), &system) {
            Ok(read) => {
                let mut system = system.clone();
                read.apply(&mut system);
                for times in read.times.values() {
                    prop_assert!(times.at.is_sorted() && times.mean().is_finite());
                }
            }
            Err(problems) => {
                prop_assert!(!problems.list.is_empty());
                prop_assert!(!problems.render(true).is_empty());
            }
        }
    }

    #[test]
    fn times_lie_between_their_ends(mut at in proptest::array::uniform11(0u64..1_000_000_000_000), bits: u64) {
        at.sort_unstable();
        let dist = Times { samples: 1, at }.dist();
        let drawn = plimsoll_model::draw::duration(&dist, bits);
        prop_assert!((at[0]..=at[SHARES.len() - 1]).contains(&drawn), "{drawn} of {at:?}");
    }
}
