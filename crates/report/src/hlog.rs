//! HdrHistogram interval logs (`.hlog`), which the HdrHistogram tools and plotters read.
//!
//! A run keeps one histogram a subject over the whole measured part, so that the log has one
//! interval a subject, told apart by tags. Values are microseconds; the column with the maximum
//! is in ms, as the tools expect.

use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use crate::text::clean;

/// Microseconds in the millisecond in which the log's maxima are written.
const US_PER_MS: f64 = 1000.0;

/// The response times of every subject that has any, failures included.
pub fn run(run: &Run) -> String {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[plimsoll {}: {}, {}, seed {}]", run.plimsoll, run.system, run.experiment, run.seed))
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[values in microseconds; times from the start of the measured part]")
        .with_max_value_divisor(US_PER_MS);
    let mut writer = builder.begin_log_with(&mut bytes, &mut serializer).expect("a vector takes every byte");
    for subject in run.subjects.iter().filter(|subject| subject.latency.count() > 0) {
        let name = tag(subject);
        writer
            .write_histogram(
                subject.latency.as_hdr(),
                Duration::ZERO,
                Duration::from_nanos(run.duration_ns),
                Tag::new(&name),
            )
            .expect("these bounds fit the format, and a vector takes every byte");
    }
    String::from_utf8(bytes).expect("the log is base64 and text")
}

/// A subject's tag: its kind and its name, without what would end a tag.
pub fn tag(subject: &SubjectRun) -> String {
    let kind = match subject.kind {
        SubjectKind::All => return "all".into(),
        kind => crate::words::kind(kind),
    };
    let name = clean(&subject.name).replace([' ', ','], "_");
    format!("{kind}:{name}")
}
