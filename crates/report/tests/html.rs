//! Pages and pictures: what files name stays text, nothing is loaded, nothing is too large.

#[path = "fixture/arbitrary.rs"]
mod arbitrary;
mod fixture;

use plimsoll_model::run::{Line, Run, Series};
use plimsoll_report::topology::{Node, Topology};
use plimsoll_report::{html, svg};
use proptest::prelude::*;

/// What a hostile file would name its things.
const HOSTILE: &str = "\"><script>alert('x')</script>]]>-->&\u{202e}<img src=x onerror=alert(1)>";

fn hostile(line: &mut Line) {
    line.system = HOSTILE.into();
    line.objectives = vec![HOSTILE.into()];
    line.warnings = vec![HOSTILE.into()];
    line.system_hash = HOSTILE.into();
    line.cost.parts[0].0 = HOSTILE.into();
    line.growth[0].changes = vec![HOSTILE.into()];
    for mark in &mut line.marks {
        mark.weather.name = HOSTILE.into();
        mark.weather.text = HOSTILE.into();
        mark.fails = Some(HOSTILE.into());
        let first = mark.first.as_mut().unwrap();
        (first.component, first.resource, first.why) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
        first.owner = Some(HOSTILE.into());
        mark.waived.iter_mut().for_each(|one| (one.objective, one.why) = (HOSTILE.into(), HOSTILE.into()));
        let analytic = mark.analytic.as_mut().unwrap();
        (analytic.component, analytic.resource) = (HOSTILE.into(), HOSTILE.into());
        analytic.explanation = Some(HOSTILE.into());
        for run in [&mut mark.at_mark, &mut mark.past_mark].into_iter().flatten() {
            hostile_run(run);
        }
    }
}

fn hostile_run(run: &mut Run) {
    (run.system, run.experiment, run.plimsoll) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    run.subjects.iter_mut().for_each(|subject| {
        subject.name = HOSTILE.into();
        subject.figures.iter_mut().for_each(|figure| figure.detail = Some(HOSTILE.into()));
    });
    run.faults.iter_mut().for_each(|fault| fault.text = HOSTILE.into());
    run.events.iter_mut().for_each(|event| (event.subject, event.text) = (HOSTILE.into(), HOSTILE.into()));
    run.verdicts.iter_mut().for_each(|verdict| {
        (verdict.text, verdict.measured, verdict.why) = (HOSTILE.into(), HOSTILE.into(), Some(HOSTILE.into()));
    });
    run.bottlenecks.iter_mut().for_each(|one| (one.component, one.why) = (HOSTILE.into(), HOSTILE.into()));
    run.warnings = vec![HOSTILE.into()];
}

fn hostile_topology() -> Topology {
    let mut topology = fixture::topology();
    for Node { name, text, .. } in &mut topology.nodes {
        (*name, *text) = (HOSTILE.into(), HOSTILE.into());
    }
    topology.links.iter_mut().for_each(|link| link.name = HOSTILE.into());
    topology
}

/// Holds only tags of our own: the one script, and no attribute that runs anything.
fn assert_inert(page: &str) {
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script").count(), 1);
    for tag in tags(page) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        assert_ne!(name, "img", "{tag}");
        // Attributes end where their quotes do: an odd number would run on into the text.
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        for attribute in attributes(tag) {
            assert!(!attribute.starts_with("on"), "{tag}");
        }
    }
    assert!(!page.contains('\u{202e}'));
}

/// Everything between `<` and `>` outside of the script and the style.
fn tags(page: &str) -> Vec<&str> {
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    let (body, _) = rest.split_once("<script>").unwrap();
    [head, body].into_iter().flat_map(|part| part.split('<').skip(1)).map(|t| t.split_once('>').unwrap().0).collect()
}

/// The names of a tag's attributes.
fn attributes(tag: &str) -> Vec<&str> {
    let outside = tag.split('"').step_by(2);
    outside.flat_map(|part| part.split_whitespace()).filter(|word| word.ends_with('=')).collect()
}

#[test]
fn what_files_name_stays_text() {
    let mut line = fixture::line(true);
    hostile(&mut line);
    assert_inert(&html::line_on(&line, &hostile_topology()));
    let mut run = fixture::missed();
    hostile_run(&mut run);
    assert_inert(&html::run_on(&run, &hostile_topology()));
    let picture = svg::ladder(&line);
    assert!(!picture.contains("<script") && !picture.contains("<img") && !picture.contains("]]>"));
}

#[test]
fn a_page_loads_nothing() {
    for page in [
        html::line_on(&fixture::line(true), &fixture::topology()),
        html::run_on(&fixture::missed(), &fixture::topology()),
    ] {
        assert_inert(&page);
        for reference in ["http:", "https:", "//cdn", "url(", "@import", "<link", "src=", "<iframe"] {
            assert!(!page.contains(reference), "{reference}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}

#[test]
fn a_page_with_ten_marks_stays_small() {
    let page = html::line_on(&fixture::line(true), &fixture::topology());
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    for wanted in ["metastable", "clients retrying", "2,910/s", "gives way first", "<title>notes: load line</title>"] {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn an_hour_is_drawn_in_as_many_points_as_a_minute() {
    let mut run = fixture::missed();
    let short = html::run_on(&run, &fixture::topology()).len();
    run.duration_ns = 3_600_000_000_000;
    for subject in &mut run.subjects {
        let stretch = |column: &Vec<f32>| column.iter().flat_map(|value| [*value; 30]).collect();
        let series = &subject.series;
        subject.series = Series {
            offered: stretch(&series.offered),
            ok: stretch(&series.ok),
            failed: stretch(&series.failed),
            rejected: stretch(&series.rejected),
            p50_ms: stretch(&series.p50_ms),
            p95_ms: stretch(&series.p95_ms),
            p99_ms: stretch(&series.p99_ms),
            in_flight: stretch(&series.in_flight),
            queue: stretch(&series.queue),
            utilization: stretch(&series.utilization),
        };
    }
    let long = html::run_on(&run, &fixture::topology()).len();
    assert!(long < short * 2, "{short} bytes for two minutes, {long} for an hour");
}

#[test]
fn the_ladder_stands_alone() {
    let picture = svg::ladder(&fixture::line(false));
    assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    assert_eq!(picture.matches("class=\"tick").count(), 10);
    assert_eq!(picture.matches("class=\"tick sunk\"").count(), 1);
    assert!(picture.contains("prefers-color-scheme: dark"));
}

#[test]
fn the_same_result_gives_the_same_page() {
    let page = || html::line_on(&fixture::line(true), &fixture::topology());
    assert_eq!(page(), page());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_result_has_a_page(run in arbitrary::run(), line in arbitrary::line(), links in 0usize..12) {
        // The run's own subjects, linked in any way: cycles, loops, parts that nothing reaches.
        let nodes: Vec<Node> =
            run.subjects.iter().map(|s| Node { name: s.name.clone(), kind: s.kind, text: s.name.clone() }).collect();
        let n = nodes.len().max(1);
        let links = if nodes.is_empty() { 0 } else { links };
        let links = (0..links)
            .map(|at| plimsoll_report::topology::Link { from: at * 7 % n, to: at * 5 % n, name: "a -> b".into() })
            .collect();
        let topology = Topology { nodes, links };
        assert_inert(&html::run_on(&run, &topology));
        assert_inert(&html::line_on(&line, &topology));
        let picture = svg::ladder(&line);
        prop_assert!(!picture.contains("NaN") && !picture.contains("\"inf"), "{}", picture);
    }
}

/// Each chart has both worlds' lines: through for what was measured, dashed for what was predicted.
#[test]
fn a_prediction_has_both_lines() {
    let mut prediction = fixture::prediction();
    let page = html::prediction(&prediction);
    let charts: Vec<&str> = page.split("<figure class=\"chart\">").skip(1).collect();
    assert!(charts.len() >= 3, "{} charts", charts.len());
    for chart in charts {
        let through = chart.matches("class=\"curve c").count();
        let dashed = chart.split("class=\"curve c").skip(1).filter(|of| of[..10].contains("dashed")).count();
        assert!(dashed > 0 && dashed * 2 == through, "{dashed} of {through} curves are dashed");
        assert!(chart.contains(" measured") && chart.contains(" predicted"));
    }
    assert!(page.contains("machine.yaml"));
    hostile_run(&mut prediction.measured);
    hostile_run(&mut prediction.predicted);
    prediction.misses.iter_mut().for_each(|miss| miss.subject = HOSTILE.into());
    prediction.calibration = Some(HOSTILE.into());
    let page = html::prediction(&prediction);
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "what files name stays text");
}
