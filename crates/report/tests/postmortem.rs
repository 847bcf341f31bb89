//! A postmortem of runs that were made by hand: each figure can be checked against the numbers here.

#[path = "fixture/arbitrary.rs"]
mod arbitrary;

use expect_test::expect_file;
use plimsoll_model::run::*;
use plimsoll_report::postmortem::markdown;
use plimsoll_report::topology::Topology;
use plimsoll_report::{html, json};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn subject(kind: SubjectKind, name: &str) -> SubjectRun {
    SubjectRun {
        kind,
        name: name.into(),
        totals: Totals::default(),
        figures: Vec::new(),
        latency: Histogram::new(),
        latency_ok: Histogram::new(),
        series: Series::default(),
        phases: Vec::new(),
    }
}

fn figure(name: &str, detail: &str, mean: f64) -> Figure {
    let detail = (!detail.is_empty()).then(|| detail.to_owned());
    Figure { name: name.into(), detail, mean, low: mean, high: mean, samples: Vec::new() }
}

/// (offered, ok) and (p50, p95) in ms, before, during and after.
fn asker(kind: SubjectKind, name: &str, phases: [((u64, u64), (f64, f64)); 3]) -> SubjectRun {
    let mut asker = subject(kind, name);
    for (phase, ((offered, ok), (latency_ms_p50, latency_ms_p95))) in
        [FaultPhase::Before, FaultPhase::During, FaultPhase::After].into_iter().zip(phases)
    {
        let totals = Totals { offered, ok, failed: offered - ok, ..Totals::default() };
        asker.totals.add(&totals);
        if offered > 0 {
            asker.phases.push(PhaseRun { phase, totals, latency_ms_p50, latency_ms_p95 });
        }
    }
    asker
}

fn busy(kind: SubjectKind, name: &str, resource: &str, series: [f32; 10]) -> SubjectRun {
    let mut busy = subject(kind, name);
    let mean = series.iter().map(|share| f64::from(*share)).sum::<f64>() / 10.0;
    busy.figures.push(figure("utilization", resource, mean));
    busy.series.utilization = series.to_vec();
    busy
}

fn event(at_ms: u64, kind: EventKind, subject: &str, text: &str) -> Event {
    Event { at_ns: at_ms * 1_000_000, kind, subject: subject.into(), text: text.into() }
}

fn fault(text: &str, from_s: u64, to_s: u64) -> FaultSpan {
    FaultSpan { text: text.into(), at_ns: from_s * SECOND, until_ns: to_s * SECOND }
}

/// Ten seconds with ten requests each. A node of `db` is down from 3 s to 6 s: writes fail until 7 s, and reads do not.
fn by_hand() -> Run {
    use SubjectKind::*;
    let mut all = asker(All, "all", [((30, 30), (5.0, 10.0)), ((30, 15), (7.0, 250.0)), ((40, 35), (5.0, 12.0))]);
    all.series = Series {
        offered: vec![10.0; 10],
        ok: vec![10.0, 10.0, 10.0, 5.0, 5.0, 5.0, 5.0, 10.0, 12.0, 8.0],
        failed: vec![0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0],
        p95_ms: vec![10.0, 10.0, 10.0, 240.0, 250.0, 260.0, 100.0, 11.0, 44.0, 12.0],
        in_flight: vec![0.1; 10],
        ..Series::default()
    };
    let mut web = SubjectRun { kind: Client, name: "web".into(), ..all.clone() };
    (web.totals.rescued, web.totals.degraded, web.totals.retries) = (3, 2, 7);
    let mut from_web = subject(Edge, "web -> api");
    from_web.totals = Totals { offered: 107, rejected: 4, retries: 7, rescued: 3, ..Totals::default() };
    from_web.figures = vec![figure("trips", "", 2.0), figure("ejections", "", 1.0)];
    let mut to_db = busy(Edge, "api -> db", "connections", [0.5; 10]);
    (to_db.totals.retries, to_db.totals.rescued) = (6, 5);
    let mut db = busy(Store, "db", "max_connections", [0.3; 10]);
    (db.totals.stale, db.totals.lost) = (6, 1);
    let mut primary = busy(Node, "db/primary", "max_connections", [0.3; 10]);
    (primary.totals.reads, primary.totals.replica_reads) = (10, 0);
    let mut replica = busy(Node, "db/replica-1", "max_connections", [0.1; 10]);
    (replica.totals.reads, replica.totals.replica_reads) = (30, 30);
    replica.figures.extend([figure("replica_age_ms_mean", "", 12.0), figure("replica_age_ms_max", "", 40.0)]);
    let verdict = |text: &str, passed, measured: &str, why: Option<&str>| Verdict {
        text: text.into(),
        line: 9,
        passed,
        measured: measured.into(),
        value: 0.0,
        low: 0.0,
        high: 0.0,
        why: why.map(Into::into),
    };
    Run {
        format: Run::FORMAT,
        plimsoll: "0.1.0".into(),
        system: "shop".into(),
        system_hash: "00112233aabbccdd".into(),
        experiment: "node-lost".into(),
        world: World::Real,
        seed: 1,
        replications: 1,
        warmup_ns: 0,
        duration_ns: 10 * SECOND,
        ready_ns: None,
        balancer: None,
        invalid: None,
        partial: false,
        subjects: vec![
            all,
            web,
            asker(Endpoint, "api GET /", [((18, 18), (4.0, 8.0)), ((15, 15), (4.0, 8.0)), ((20, 20), (4.0, 8.0))]),
            asker(
                Endpoint,
                "api POST /",
                [((12, 12), (6.0, 11.0)), ((15, 0), (200.0, 260.0)), ((20, 15), (6.0, 90.0))],
            ),
            busy(Service, "api", "workers", [0.2; 10]),
            busy(Instance, "api/1", "workers", [0.2, 0.2, 0.2, 0.8, 0.8, 0.8, 0.9, 0.2, 0.2, 0.2]),
            busy(Instance, "api/2", "workers", [0.2; 10]),
            db,
            primary,
            replica,
            busy(Store, "cache", "max_rate", [0.1; 10]),
            busy(Node, "cache/1", "max_rate", [0.1; 10]),
            from_web,
            to_db,
        ],
        faults: vec![fault("kill primary of db", 3, 6)],
        events: vec![
            event(3000, EventKind::FaultStart, "fault", "kill primary of db"),
            event(3000, EventKind::InstanceDown, "db/primary", "the process died"),
            event(3250, EventKind::Ejected, "api/2", "it fails more than its peers"),
            event(3800, EventKind::BreakerOpen, "web -> api", "calls fail at once"),
            event(4900, EventKind::BreakerHalfOpen, "web -> api", "probes go through"),
            event(4950, EventKind::BreakerOpen, "web -> api", "calls fail at once"),
            event(6000, EventKind::FaultEnd, "fault", "kill primary of db"),
            event(6900, EventKind::BreakerClosed, "web -> api", "it closes"),
        ],
        verdicts: vec![
            verdict("errors(api GET /) == 0%", true, "0%", None),
            verdict("errors < 5%", false, "20%", Some("api -> db has 50% of its connections in use")),
        ],
        bottlenecks: vec![GivesWay {
            component: "api".into(),
            resource: "workers".into(),
            value: 0.8,
            why: "api has 80% of its workers in use".into(),
            owner: Some("team-shop".into()),
        }],
        warnings: vec!["one run on one machine".into()],
    }
}

/// What a document says of something: the first line that has it.
#[track_caller]
fn line<'d>(document: &'d str, what: &str) -> &'d str {
    document.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}` in:\n{document}"))
}

#[test]
fn every_figure_of_a_run_that_was_made_by_hand() {
    let document = markdown(&by_hand());
    expect_file!["./snapshots/postmortem.md"].assert_eq(&document);
    // 15 of 30, none of 15, 80 of 100; and what the endpoints make of it.
    assert!(line(&document, "| all |").starts_with("| all | 100% | 50% | 87.5% | 80% | 100 | 20 |"));
    assert!(line(&document, "| `api POST /` |").starts_with("| `api POST /` | 100% | 0% | 75% | 57.4% | 47 | 20 |"));
    // 250 ms after 3 s, and not the death itself; the last second with failures is the one up to 7 s.
    let detected = "| `kill primary of db` | 3.0 s | 6.0 s | 250 ms | ejected | `api/2` | 1 s after its end |";
    assert!(document.contains(detected));
    assert!(document.contains("12/s answered well, in the second from 8.0 s on; p95 was 44 ms then"));
    // (6 * 0.2 + 3 * 0.8 + 0.9) / 10, the three seconds of the fault, the highest.
    assert!(document.contains("| `api/1` | workers | 45% | 80% | 90% |"));
    assert!(document.contains("`db`: replicas answered 75% of 40 reads"));
    // The only node of a store is the store, another is its nodes, and a service is its instances.
    assert!(!document.contains("cache/1") && document.contains("| `cache` | max rate"));
    assert!(!document.contains("| `api` | workers") && !document.contains("| `db` | max connections"));
}

#[test]
fn counts_of_several_replications_are_those_of_one() {
    let mut run = by_hand();
    run.replications = 4;
    let document = markdown(&run);
    assert!(line(&document, "| all |").ends_with("| 25 | 5 |"));
    assert!(document.contains("means over 4 replications") && document.contains("those of the first replication"));
}

#[test]
fn without_a_fault_there_is_nothing_to_detect() {
    let mut run = by_hand();
    run.faults.clear();
    run.events.clear();
    run.subjects.iter_mut().for_each(|subject| subject.phases.clear());
    let document = markdown(&run);
    assert!(document.contains("Nothing was broken: 80% of requests were answered well"), "{document}");
    assert!(line(&document, "| all |").starts_with("| all | 80% | 100 | 20 |"));
    for absent in ["Detection", "Timeline", "during", "noticed"] {
        assert!(!document.contains(absent), "{absent}: {document}");
    }
    assert!(!html::run_on(&run, &Topology::default()).contains("Postmortem"));
}

#[test]
fn a_run_without_requests_says_so() {
    let mut run = by_hand();
    run.subjects.clear();
    let document = markdown(&run);
    assert!(document.contains("No request was made."), "{document}");
    assert!(!document.contains("## Impact") && !document.contains("Highest throughput"));
}

/// What was interrupted before its fault has not seen it.
#[test]
fn a_fault_that_never_came_is_not_judged() {
    let mut run = by_hand();
    run.partial = true;
    run.events.clear();
    run.subjects[0].phases.truncate(1);
    let document = markdown(&run);
    assert!(document.contains("| it had not begun |"), "{document}");
    assert!(document.contains("Nothing was broken") && document.contains("The run was interrupted"), "{document}");
    assert!(!document.contains("## Timeline"));
}

#[test]
fn a_fault_that_lasts_to_the_end_is_recovered_from_while_it_lasts_or_not() {
    let mut run = by_hand();
    run.faults[0].until_ns = run.duration_ns;
    run.subjects[0].phases.truncate(2);
    // From 3 s to 7 s.
    assert!(markdown(&run).contains("| 4 s after its start |"), "{}", markdown(&run));
    run.subjects[0].series.failed[9] = 5.0;
    assert!(markdown(&run).contains("| not by the run's end |"), "{}", markdown(&run));
}

/// A hang has no failures while it lasts: that nothing ends while somebody waits is as bad.
#[test]
fn seconds_in_which_everybody_waits_are_bad_ones() {
    let mut run = by_hand();
    let series = &mut run.subjects[0].series;
    series.ok[4..8].fill(0.0);
    series.failed[3..8].fill(0.0);
    series.ok[3] = 10.0;
    assert!(markdown(&run).contains("| were never fewer |"), "nobody waits: {}", markdown(&run));
    run.subjects[0].series.in_flight[4..8].fill(20.0);
    assert!(markdown(&run).contains("| 2 s after its end |"), "until 8 s: {}", markdown(&run));
}

/// What happens after a second fault has begun says nothing of one that was over by then.
#[test]
fn a_fault_is_noticed_before_the_next_one_or_not_at_all() {
    let mut run = by_hand();
    run.faults = vec![fault("slow api by 2x", 1, 2), fault("kill primary of db", 3, 6), fault("promote db", 4, 4)];
    let document = markdown(&run);
    assert!(document.contains("| `slow api by 2x` | 1.0 s | 2.0 s |  | nothing |  | were never fewer |"), "{document}");
    assert!(document.contains("| 250 ms | ejected | `api/2` | 1 s after its end |"), "{document}");
    assert!(
        document.contains("| `promote db` | 4.0 s | 4.0 s |  | it is a repair |  | 3 s after its end |"),
        "{document}"
    );
}

#[test]
fn many_events_are_put_together() {
    let mut run = by_hand();
    let opens = |at: u64| event(3000 + at, EventKind::BreakerOpen, "web -> api", "calls fail at once");
    run.events.extend((0..100).map(opens));
    run.events.sort_by_key(|event| event.at_ns);
    let document = markdown(&run);
    assert!(document.contains("| 3.0 s | breaker opens | `web -> api` | 102 times until 5.0 s: calls fail at once |"));
    assert!(document.contains("`web -> api` opened 102 times, first at 3.0 s"), "{document}");
}

#[test]
fn a_saved_run_says_the_same() {
    let run = by_hand();
    assert_eq!(markdown(&json::read_measured(&json::run(&run)).unwrap()), markdown(&run));
    let other = Run { experiment: "predicted".into(), ..run.clone() };
    let prediction = json::prediction(&Prediction::new(run.clone(), other, None));
    assert_eq!(markdown(&json::read_measured(&prediction).unwrap()), markdown(&run));
}

#[test]
fn a_page_of_a_run_with_faults_has_it_too() {
    let page = html::run_on(&by_hand(), &Topology::default());
    let (_, section) = page.split_once("<h2>Postmortem</h2>").unwrap();
    assert!(section.contains("<td><code>kill primary of db</code></td>") && section.contains("1 s after its end"));
    assert!(!section.contains("To be written"));
}

/// What files name cannot end a cell, a line or a document.
#[test]
fn names_stay_names() {
    let mut run = by_hand();
    let name = "a | b `c`\n# <img src=x>";
    run.subjects[2].name = name.into();
    run.faults[0].text = name.into();
    (run.events[2].subject, run.events[2].text) = (name.into(), name.into());
    let document = markdown(&run);
    assert_eq!(document.lines().filter(|line| line.starts_with("# ")).count(), 1, "{document}");
    assert_tables(&document);
    assert!(document.contains("`` a \\| b `c` # <img src=x> ``") || document.contains("``a \\| b `c` # <img src=x>``"));
}

/// Every row of a table has as many cells as its head.
#[track_caller]
fn assert_tables(document: &str) {
    let cells = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = document.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
        assert_eq!(cells(pair[0]), cells(pair[1]), "{}\n{}", pair[0], pair[1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_run_has_a_postmortem_without_odd_numbers(run in arbitrary::run()) {
        assert_tables(&markdown(&run));
        // What is left is made of our words and the run's numbers.
        let mut run = run;
        (run.system, run.experiment) = ("s".into(), "e".into());
        (run.warnings, run.verdicts, run.bottlenecks) = (Vec::new(), Vec::new(), Vec::new());
        run.faults.iter_mut().for_each(|fault| fault.text = "kill x".into());
        run.events.iter_mut().for_each(|event| (event.subject, event.text) = ("x".into(), "y".into()));
        for subject in &mut run.subjects {
            subject.name = "x".into();
            subject.figures.iter_mut().for_each(|figure| figure.detail = None);
        }
        let document = markdown(&run);
        for odd in ["NaN", "inf", "n/a"] {
            prop_assert!(!document.contains(odd), "{}: {}", odd, document);
        }
        prop_assert!(document.contains("## Root cause") && document.contains("## Action items"));
        let _ = html::run_on(&run, &Topology::default());
    }
}
