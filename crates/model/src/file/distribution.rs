//! Distributions of durations and of keys: the forms that are mappings, and what all forms become.

use std::sync::Arc;

use super::decode::Decoder;
use super::filled::{Filled, Value};
use super::quantity::{COUNT, DIST, DURATION, KEYS, NUMBER_OR_ZERO, NUMBER_POSITIVE, Quantity, SHARE, TEXT};
use super::table::{Choice, Kind, Object, required, value};
use crate::system::{Dist, KeyDist};

/// A distribution of durations, in each of its forms.
pub(crate) static DURATIONS: Kind = Kind::Or(&[Kind::Scalar(&DIST), Kind::Choice(&DISTRIBUTION)]);
/// A distribution of keys, in each of its forms.
pub(crate) static KEY_DISTRIBUTION: Kind = Kind::Or(&[Kind::Scalar(&KEYS), Kind::Choice(&KEY_FORMS)]);

pub(crate) static DISTRIBUTION: Choice = Choice {
    name: "distribution",
    what: "a distribution of durations",
    doc: "Durations that vary. On one line: `5ms` is constant, `1ms..3ms` uniform, `60s ± 10%` (or `60s +- 10%`) uniform \
          around a value, `exp(5ms)` exponential with that mean, `histogram(file.hlog)` recorded (in nanoseconds).",
    options: &[&LOGNORMAL, &MEAN_CV, &PARETO, &HISTOGRAM],
};

static LOGNORMAL: Object = Object {
    name: "percentiles",
    doc: "Lognormal, through a median and a 99th percentile.",
    groups: &[&[
        required("p50", Kind::Scalar(&DURATION), "The median."),
        required("p99", Kind::Scalar(&DURATION), "The 99th percentile."),
    ]],
};

static MEAN_CV: Object = Object {
    name: "mean_cv",
    doc: "Lognormal, with a mean and a coefficient of variation.",
    groups: &[&[
        required("mean", Kind::Scalar(&DURATION), "The mean."),
        required("cv", Kind::Scalar(&NUMBER_OR_ZERO), "The standard deviation as a multiple of the mean."),
    ]],
};

static PARETO: Object = Object {
    name: "pareto",
    doc: "Pareto: a heavy tail.",
    groups: &[&[
        required("pareto", Kind::Scalar(&DURATION), "The least value."),
        required("alpha", Kind::Scalar(&NUMBER_POSITIVE), "The tail index; the mean is infinite at 1 or less."),
    ]],
};

static HISTOGRAM: Object = Object {
    name: "histogram",
    doc: "Recorded, in an HdrHistogram log.",
    groups: &[&[
        required("histogram", Kind::Scalar(&TEXT), "The file, relative to this one."),
        value(
            "unit",
            Kind::Words(&[
                ("ns", "nanoseconds"),
                ("us", "microseconds, as wrk2 logs"),
                ("ms", "milliseconds, as JMeter logs"),
            ]),
            "ns",
            "HdrHistogram's own examples",
            "The unit of the recorded values.",
        ),
    ]],
};

pub(crate) static KEY_FORMS: Choice = Choice {
    name: "key_distribution",
    what: "a distribution of keys",
    doc: "Which key a request is about. On one line: `uniform(100k)`.",
    options: &[&ZIPF, &HOT],
};

static ZIPF: Object = Object {
    name: "zipf",
    doc: "The k-th most popular key has weight 1 / k^zipf.",
    groups: &[&[
        required("zipf", Kind::Scalar(&NUMBER_OR_ZERO), "Skew; 0 is uniform, 0.99 is YCSB's."),
        required("of", Kind::Scalar(&COUNT), "Number of keys."),
    ]],
};

static HOT: Object = Object {
    name: "hot",
    doc: "One key takes a share of the requests, the rest is uniform.",
    groups: &[&[
        required("hot", Kind::Scalar(&SHARE), "The share of the hot key."),
        required("of", Kind::Scalar(&COUNT), "Number of keys, the hot one included."),
    ]],
};

impl Decoder<'_> {
    /// A distribution in nanoseconds.
    pub(super) fn dist(&mut self, filled: &Filled) -> Dist {
        match (&filled.value, filled.quantity()) {
            (_, Some(Quantity::Dist(dist))) => dist.clone(),
            (_, Some(Quantity::Duration(ns))) => Dist::Constant(*ns),
            (_, Some(Quantity::Histogram(file))) => {
                let file = file.clone();
                self.histogram(filled, &file, 1.0)
            }
            (Value::Object(fields), _) => match fields.of.lead() {
                "p50" => {
                    let (p50, p99) = (filled.get("p50"), filled.get("p99"));
                    if !p50.is_bad() && !p99.is_bad() && p99.nanos() < p50.nanos() {
                        self.report.at(p99.at, "the 99th percentile is below the median".to_owned());
                        return Dist::Constant(1);
                    }
                    Dist::lognormal_through(p50.nanos() as f64, p99.nanos() as f64)
                }
                "mean" => Dist::lognormal_mean_cv(filled.get("mean").nanos() as f64, filled.get("cv").number()),
                "pareto" => {
                    Dist::Pareto { min: filled.get("pareto").nanos() as f64, alpha: filled.get("alpha").number() }
                }
                "histogram" => {
                    let scale = match filled.get("unit").text() {
                        "us" => 1e3,
                        "ms" => 1e6,
                        _ => 1.0,
                    };
                    let file = filled.get("histogram");
                    self.histogram(file, file.text(), scale)
                }
                _ => Dist::Constant(1),
            },
            _ => Dist::Constant(1),
        }
    }

    pub(super) fn key_dist(&mut self, filled: &Filled) -> KeyDist {
        match (filled.quantity(), filled.object().map(Object::lead)) {
            (Some(Quantity::Keys(keys)), _) => keys.clone(),
            (_, Some("zipf")) => {
                KeyDist::Zipf { exponent: filled.get("zipf").number(), keys: filled.get("of").count() }
            }
            (_, Some("hot")) => KeyDist::Hot { share: filled.get("hot").number(), keys: filled.get("of").count() },
            _ => KeyDist::Uniform { keys: 1 },
        }
    }

    fn histogram(&mut self, filled: &Filled, file: &str, scale: f64) -> Dist {
        if filled.is_bad() {
            return Dist::Constant(1);
        }
        let bytes = match (self.source.read)(file) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.report.at(filled.at, format!("cannot read `{file}`: {why}"));
                return Dist::Constant(1);
            }
        };
        self.hash.add(&bytes);
        match super::histogram::steps(&bytes, scale) {
            Ok(steps) => Dist::Empirical(Arc::from(steps)),
            Err(why) => {
                self.report.at(filled.at, format!("`{file}` is not a histogram log: {why}"));
                Dist::Constant(1)
            }
        }
    }
}
