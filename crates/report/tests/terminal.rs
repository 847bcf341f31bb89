//! What a terminal shows, against the files in `snapshots/` (`UPDATE_EXPECT=1` writes them).

#[path = "fixture/arbitrary.rs"]
mod arbitrary;
mod fixture;

use expect_test::{ExpectFile, expect_file};
use plimsoll_report::terminal::{Style, compare, line, prediction, run};
use plimsoll_report::{compare, json};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

fn check(text: &str, expected: ExpectFile) {
    assert_narrow(text, 80);
    expected.assert_eq(text);
}

fn assert_narrow(text: &str, columns: usize) {
    for line in text.lines() {
        let width = plain(line).width();
        assert!(width <= columns, "{width} columns, and {columns} are allowed: {line:?}");
    }
}

/// Without colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        out.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    out
}

#[test]
fn a_load_line() {
    check(&line(&fixture::line(false), Style::default()), expect_file!["./snapshots/line.txt"]);
}

#[test]
fn a_run_that_missed_an_expectation() {
    check(&run(&fixture::missed(), Style::default()), expect_file!["./snapshots/run.txt"]);
}

#[test]
fn two_runs_compared() {
    let comparison = compare::runs(&fixture::met(), &fixture::missed());
    check(&compare(&comparison, Style::default()), expect_file!["./snapshots/compare.txt"]);
}

#[test]
fn a_prediction() {
    let text = prediction(&fixture::prediction(), Style::default());
    check(&text, expect_file!["./snapshots/prediction.txt"]);
}

#[test]
fn two_lines_compared() {
    let mut better = fixture::line(false);
    let mark = &mut better.marks[8];
    (mark.load, mark.low, mark.high) = (280.0, 275.0, 287.0);
    mark.recovery = plimsoll_model::run::Recovery::ByItself { after_ns: Some(4_000_000_000) };
    let comparison = compare::lines(&fixture::line(false), &better);
    assert!(!comparison.worse());
    check(&compare(&comparison, Style::default()), expect_file!["./snapshots/compare-lines.txt"]);
}

/// A closed loop's load is its users; what they ask is measured, and stands beside it.
#[test]
fn users_read_as_users() {
    let mut users = fixture::line(false);
    users.load_unit = plimsoll_model::run::LoadUnit::Users;
    users.today_open_per_s = 30.0;
    users.today_per_s = 217.0;
    users.marks[0].requests_per_s = 2_346.0;
    let text = line(&users, Style::default());
    let load = users.marks[0].load;
    let times = load / users.today;
    assert!(text.contains("today 300 users + 30/s, 217 requests a second"), "{text}");
    assert!(text.contains("users + 291/s"), "{load} users, {times} times 30/s: {text}");
    assert!(text.contains("2,350 requests a second"), "{text}");
    assert!(plimsoll_report::svg::ladder(&users).contains(">users</text>"));
    assert!(plimsoll_report::junit::line(&users).contains("users + 291/s"));
    let page = plimsoll_report::html::line_on(&users, &fixture::topology());
    assert!(page.contains("300 users + 30/s, 217 requests a second") && page.contains("users + 291/s"));
    // What is counted differently has only today's load in common.
    let comparison = compare::lines(&fixture::line(false), &users);
    let difference = &comparison.differences[0];
    assert_eq!((difference.figure.as_str(), difference.a, difference.b), ("times_today", times, times));
}

#[test]
fn colour_adds_nothing_but_colour() {
    let colored = Style { color: true, ..Style::default() };
    let (shown, bare) = (line(&fixture::line(false), colored), line(&fixture::line(false), Style::default()));
    assert!(shown.contains("\u{1b}[31m"));
    assert!(!bare.contains('\u{1b}'));
    assert_eq!(plain(&shown), bare);
}

#[test]
fn without_symbols_all_is_ascii() {
    let ascii = Style { unicode: false, ..Style::default() };
    let text = line(&fixture::line(false), ascii) + &run(&fixture::missed(), ascii);
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("MISSED") && text.contains("metastable"));
}

#[test]
fn a_run_compared_with_itself_shows_no_difference() {
    let run = fixture::missed();
    let comparison = compare::runs(&run, &run);
    assert!(comparison.differences.iter().all(|d| d.verdict == compare::Verdict::Same));
    assert!(comparison.changes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_run_is_shown_within_the_width(a in arbitrary::run(), b in arbitrary::run(), width in 0usize..140, color: bool) {
        let style = Style { color, width, unicode: true };
        assert_narrow(&run(&a, style), width.max(40));
        assert_narrow(&compare(&compare::runs(&a, &b), style), width.max(40));
        let json = compare::runs(&a, &b).to_json();
        prop_assert!(json.ends_with("}\n"), "{json}");
    }

    #[test]
    fn any_line_is_shown_within_the_width(a in arbitrary::line(), b in arbitrary::line(), width in 0usize..140) {
        let style = Style { color: false, width, unicode: true };
        assert_narrow(&line(&a, style), width.max(40));
        assert_narrow(&compare(&compare::lines(&a, &b), style), width.max(40));
    }

    #[test]
    fn any_result_reads_back_and_writes_the_same(run in arbitrary::run(), line in arbitrary::line()) {
        let text = json::run(&run);
        prop_assert_eq!(json::run(&json::read_run(&text).unwrap()), text);
        let text = json::line(&line);
        prop_assert_eq!(json::line(&json::read_line(&text).unwrap()), text);
    }
}
