//! What other programs read: JUnit, interval logs.

#[path = "fixture/arbitrary.rs"]
mod arbitrary;
mod fixture;

use expect_test::{expect, expect_file};
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use plimsoll_model::run::Run;
use plimsoll_report::{hlog, junit};
use proptest::prelude::*;

#[test]
fn a_run_in_junit() {
    expect_file!["./snapshots/junit-run.xml"].assert_eq(&junit::run(&fixture::missed()));
}

#[test]
fn a_mark_below_todays_load_fails_in_junit() {
    let text = junit::line(&fixture::line(false));
    assert_eq!(text.matches("<testcase ").count(), 10);
    let failure = text.lines().find(|line| line.contains("<failure")).unwrap();
    expect![[r#"      <failure type="deviated" message="carries 170/s, 0.57x today&#39;s 300/s">clients retrying: 170/s (167 to 174)"#]]
        .assert_eq(failure);
    assert_eq!(text.matches("<failure").count(), 1);
}

#[test]
fn names_cannot_leave_their_attribute() {
    let mut run = fixture::missed();
    run.verdicts[0].text = "\"/><script>alert(1)</script>]]>\u{1}".into();
    let text = junit::run(&run);
    assert!(!text.contains("<script") && !text.contains("]]>") && !text.contains('\u{1}'));
    well_formed(&text);
}

/// Each tag that is opened is closed, in order, and no text holds what only markup may.
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    let body = xml.split_once("?>").unwrap().1;
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        assert!(!text.contains('>'), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn read_back(run: &Run) -> Vec<(String, hdrhistogram::Histogram<u64>)> {
    let log = hlog::run(run);
    IntervalLogIterator::new(log.as_bytes())
        .filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(interval) => {
                let bytes = base64(interval.encoded_histogram());
                let histogram = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                Some((interval.tag().unwrap().as_str().to_owned(), histogram))
            }
            _ => None,
        })
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

#[test]
fn an_interval_log_holds_the_histograms_of_the_run() {
    let run = fixture::missed();
    let read = read_back(&run);
    assert_eq!(read.len(), run.subjects.len());
    for ((tag, histogram), subject) in read.iter().zip(&run.subjects) {
        assert_eq!(*tag, hlog::tag(subject));
        assert_eq!(histogram, subject.latency.as_hdr());
    }
    assert_eq!(read[3].0, "endpoint:edge_GET_/notes/:id");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_result_can_be_exported(run in arbitrary::run(), line in arbitrary::line()) {
        well_formed(&junit::run(&run));
        well_formed(&junit::line(&line));
        let written = run.subjects.iter().filter(|subject| subject.latency.count() > 0).count();
        prop_assert_eq!(read_back(&run).len(), written);
    }
}
