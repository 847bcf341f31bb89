//! Two results over each other: what changed, and whether the change is more than noise.
//!
//! Runs of one seed and one length saw the same arrivals, so their difference is taken replication
//! by replication, and most of the noise cancels. Otherwise the two intervals are put together as
//! those of independent estimates. A figure without an interval on either side can't be told from
//! noise, and is reported so.

use plimsoll_model::run::{Figure, Limit, Line, LoadUnit, Mark, Recovery, Run, SubjectKind, SubjectRun};
use serde::Serialize;

use crate::figures::{Better, MEANINGS, meaning};
use crate::json::write;
use crate::stats::Estimate;
use crate::words::{Loads, recovers};

/// The comparison of two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What the first is: system, experiment, seed.
    pub a: String,
    /// What the second is.
    pub b: String,
    /// Every figure that both have.
    pub differences: Vec<Difference>,
    /// Expectations, weathers and recoveries that changed from one to the other, in words.
    pub changes: Vec<Change>,
    /// What the reader should know before trusting it.
    pub warnings: Vec<String>,
}

impl Comparison {
    /// Whether anything got worse beyond noise.
    pub fn worse(&self) -> bool {
        self.differences.iter().any(|difference| difference.verdict == Verdict::Worse)
            || self.changes.iter().any(|change| change.verdict == Verdict::Worse)
    }

    /// The comparison as JSON.
    pub fn to_json(&self) -> String {
        write(self)
    }
}

/// One figure in both results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What kind of thing was measured; none for a mark.
    pub kind: Option<SubjectKind>,
    /// The subject's name, or the weather's.
    pub subject: String,
    /// The figure's name; for a mark `load_per_s` or `users`, as its line counts, or
    /// `times_today` where the two lines count differently.
    pub figure: String,
    /// What it is of, where the name leaves that open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Value in the first.
    pub a: f64,
    /// Value in the second.
    pub b: f64,
    /// The second less the first, with its 95% interval.
    pub difference: f64,
    /// Lower end of the interval; null where it is not known.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How the interval was found.
    pub basis: Basis,
    /// What it comes to.
    pub verdict: Verdict,
}

/// How the interval of a difference was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// From the differences of replications that saw the same arrivals.
    Paired,
    /// From the two intervals, taken as independent.
    Independent,
    /// From the two brackets of a search: those of marks that overlap are not told apart.
    Bracket,
    /// Not at all: one of the two has no interval.
    Unknown,
}

/// What a difference comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second is better.
    Better,
    /// The second is worse.
    Worse,
    /// It changed beyond noise, and neither way is better in itself.
    Changed,
    /// No difference beyond noise.
    Same,
    /// Without intervals, noise can't be told from a change.
    Unknown,
}

impl Verdict {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Changed => "changed",
            Verdict::Same => "no difference beyond noise",
            Verdict::Unknown => "can't tell: no interval",
        }
    }
}

/// Something that changed and is not a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What changed, in words.
    pub text: String,
    /// Which way.
    pub verdict: Verdict,
}

/// Compares two runs figure by figure.
pub fn runs(a: &Run, b: &Run) -> Comparison {
    let paired = a.seed == b.seed
        && a.world == b.world
        && a.duration_ns == b.duration_ns
        && a.warmup_ns == b.warmup_ns
        && a.experiment == b.experiment;
    let mut differences = Vec::new();
    for subject in &a.subjects {
        if let Some(other) = b.subject(subject.kind, &subject.name) {
            subjects(subject, other, paired, &mut differences);
        }
    }
    let mut warnings = Vec::new();
    if a.experiment != b.experiment {
        warnings.push(format!("these are different experiments: {} and {}", a.experiment, b.experiment));
    }
    if a.world != b.world {
        warnings.push("one was simulated and the other ran on real processes".into());
    }
    if a.duration_ns != b.duration_ns {
        warnings.push("they differ in length: maxima and counts are not alike".into());
    }
    partial(a.partial, b.partial, &mut warnings);
    for (which, run) in [("first", a), ("second", b)] {
        warnings.extend(run.invalid.iter().map(|why| format!("the {which} says nothing of the system: {why}")));
    }
    let tested = differences.iter().filter(|difference| difference.basis != Basis::Unknown).count();
    if tested >= 20 {
        warnings.push(format!(
            "of {tested} figures compared at 95%, about {} differ by chance alone",
            (tested as f64 * 0.05).round()
        ));
    }
    Comparison { a: of_run(a), b: of_run(b), differences, changes: expectations(a, b), warnings }
}

/// Compares two load lines mark by mark.
pub fn lines(a: &Line, b: &Line) -> Comparison {
    let mut differences = Vec::new();
    let mut changes = Vec::new();
    let pair = |mark: &Mark| b.marks.iter().find(|other| other.weather.name == mark.weather.name);
    for mark in &a.marks {
        match pair(mark) {
            Some(other) => {
                differences.push(marks((a, mark), (b, other)));
                changes.extend(recovery((a, mark), (b, other)));
            }
            None => changes.push(Change {
                text: format!("{}: only the first has this weather", mark.weather.name),
                verdict: Verdict::Unknown,
            }),
        }
    }
    for mark in &b.marks {
        if !a.marks.iter().any(|other| other.weather.name == mark.weather.name) {
            changes.push(Change {
                text: format!("{}: only the second has this weather", mark.weather.name),
                verdict: Verdict::Unknown,
            });
        }
    }
    let (before, after) = (a.cost.month_usd, b.cost.month_usd);
    if before != after && before.is_finite() && after.is_finite() {
        changes.push(Change {
            text: format!("cost: {} to {} a month", crate::number::usd(before), crate::number::usd(after)),
            verdict: if after < before { Verdict::Better } else { Verdict::Worse },
        });
    }
    let mut warnings = Vec::new();
    if a.load_unit != b.load_unit {
        warnings.push(
            "one counts its load in users and the other in requests a second: marks are compared as multiples of \
             today's load"
                .into(),
        );
    }
    if a.objectives != b.objectives {
        warnings.push("their objectives differ, so their marks answer different questions".into());
    }
    partial(a.partial, b.partial, &mut warnings);
    Comparison { a: of_line(a), b: of_line(b), differences, changes, warnings }
}

/// A change by less than this share of the first value counts as none, even where pairing can
/// tell it from noise: nobody would act on it.
const NEGLIGIBLE: f64 = 0.005;

fn subjects(a: &SubjectRun, b: &SubjectRun, paired: bool, differences: &mut Vec<Difference>) {
    for figure in &a.figures {
        let other = b.figures.iter().find(|other| other.name == figure.name && other.detail == figure.detail);
        if let Some(other) = other {
            let subject = if a.kind == SubjectKind::All { "all" } else { &a.name };
            let difference = figures(subject, figure, other, paired);
            differences.push(Difference { kind: Some(a.kind), ..difference });
        }
    }
}

fn figures(subject: &str, a: &Figure, b: &Figure, paired: bool) -> Difference {
    let (estimate, basis) = estimate(a, b, paired);
    let (low, high) = estimate.map_or((f64::NAN, f64::NAN), |estimate| (estimate.low, estimate.high));
    let difference = b.mean - a.mean;
    let better = meaning(&a.name).map_or(Better::Neither, |meaning| meaning.better);
    Difference {
        kind: None,
        subject: subject.into(),
        figure: a.name.clone(),
        detail: a.detail.clone(),
        a: a.mean,
        b: b.mean,
        difference,
        low,
        high,
        basis,
        verdict: if difference.abs() <= NEGLIGIBLE * a.mean.abs() && low.is_finite() && high.is_finite() {
            Verdict::Same
        } else {
            verdict(low, high, better)
        },
    }
}

fn estimate(a: &Figure, b: &Figure, paired: bool) -> (Option<Estimate>, Basis) {
    if paired && a.samples.len() == b.samples.len() {
        let differences: Vec<f64> = a.samples.iter().zip(&b.samples).map(|(a, b)| b - a).collect();
        if let Some(estimate) = Estimate::of(&differences) {
            return (Some(estimate), Basis::Paired);
        }
    }
    let half = |figure: &Figure| {
        let half = (figure.high - figure.mean).max(figure.mean - figure.low);
        // An interval without width on a figure that varies is one that was never measured.
        (half.is_finite() && half >= 0.0).then_some(half)
    };
    match (half(a), half(b)) {
        (Some(one), Some(two)) if one > 0.0 || two > 0.0 || a.mean == b.mean => {
            let mean = b.mean - a.mean;
            let half = (one * one + two * two).sqrt();
            (Some(Estimate { mean, low: mean - half, high: mean + half }), Basis::Independent)
        }
        _ => (None, Basis::Unknown),
    }
}

fn verdict(low: f64, high: f64, better: Better) -> Verdict {
    if !low.is_finite() || !high.is_finite() {
        return Verdict::Unknown;
    }
    if low <= 0.0 && high >= 0.0 {
        return Verdict::Same;
    }
    match (better, low > 0.0) {
        (Better::Neither, _) => Verdict::Changed,
        (Better::Higher, true) | (Better::Lower, false) => Verdict::Better,
        (Better::Higher, false) | (Better::Lower, true) => Verdict::Worse,
    }
}

fn marks((line_a, a): (&Line, &Mark), (line_b, b): (&Line, &Mark)) -> Difference {
    // Users and requests a second have only today's load in common.
    let alike = line_a.load_unit == line_b.load_unit;
    let of = |line: &Line| if alike { 1.0 } else { line.today };
    let ends = |mark: &Mark, of: f64| match mark.limit {
        Limit::Found | Limit::Interrupted => (mark.low / of, mark.high / of),
        Limit::AboveSearch => (mark.load / of, f64::INFINITY),
        Limit::BelowSearch => (0.0, mark.high / of),
    };
    let (of_a, of_b) = (of(line_a), of(line_b));
    let ((a_low, a_high), (b_low, b_high)) = (ends(a, of_a), ends(b, of_b));
    let (low, high) = (b_low - a_high, b_high - a_low);
    // An end that is open on one side still tells, as long as the brackets don't meet.
    let verdict = if a_low.is_nan() || a_high.is_nan() || b_low.is_nan() || b_high.is_nan() {
        Verdict::Unknown
    } else if b_low >= a_high && b_low > a_low {
        Verdict::Better
    } else if b_high <= a_low && a_low > b_low {
        Verdict::Worse
    } else {
        Verdict::Same
    };
    Difference {
        kind: None,
        subject: a.weather.name.clone(),
        figure: match line_a.load_unit {
            _ if !alike => "times_today",
            LoadUnit::RequestsPerS => "load_per_s",
            LoadUnit::Users => "users",
        }
        .into(),
        detail: None,
        a: a.load / of_a,
        b: b.load / of_b,
        difference: b.load / of_b - a.load / of_a,
        low,
        high,
        basis: Basis::Bracket,
        verdict,
    }
}

fn recovery((line_a, a): (&Line, &Mark), (line_b, b): (&Line, &Mark)) -> Option<Change> {
    let rank = |recovery: &Recovery| match recovery {
        Recovery::Steady | Recovery::ByItself { .. } => 0,
        Recovery::AtLoad { .. } | Recovery::NotSeen { .. } => 1,
        Recovery::Never { .. } => 2,
    };
    let (before, after) = (rank(&a.recovery), rank(&b.recovery));
    (before != after).then(|| Change {
        text: format!(
            "{}: recovers {} before, {} now",
            a.weather.name,
            recovers(a, Loads::of(line_a)),
            recovers(b, Loads::of(line_b))
        ),
        verdict: if after < before { Verdict::Better } else { Verdict::Worse },
    })
}

fn expectations(a: &Run, b: &Run) -> Vec<Change> {
    let mut changes = Vec::new();
    for verdict in &a.verdicts {
        let Some(other) = b.verdicts.iter().find(|other| other.text == verdict.text) else {
            continue;
        };
        let what = format!("{}: {} before, {} now", verdict.text, verdict.measured, other.measured);
        match (verdict.passed, other.passed) {
            (true, false) => {
                changes.push(Change { text: format!("{what}; met before, missed now"), verdict: Verdict::Worse });
            }
            (false, true) => {
                changes.push(Change { text: format!("{what}; missed before, met now"), verdict: Verdict::Better });
            }
            _ => {}
        }
    }
    changes
}

fn partial(a: bool, b: bool, warnings: &mut Vec<String>) {
    match (a, b) {
        (true, true) => warnings.push("both were interrupted".into()),
        (true, false) => warnings.push("the first was interrupted".into()),
        (false, true) => warnings.push("the second was interrupted".into()),
        (false, false) => {}
    }
}

fn of_run(run: &Run) -> String {
    format!("{}, {}, seed {}, file {}", run.system, run.experiment, run.seed, run.system_hash)
}

fn of_line(line: &Line) -> String {
    format!("{}, seed {}, file {}", line.system, line.seed, line.system_hash)
}

/// Position of a figure in the order in which figures are shown.
pub(crate) fn order(figure: &str) -> usize {
    MEANINGS.iter().position(|meaning| meaning.name == figure).unwrap_or(MEANINGS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, mean: f64, half: f64, samples: &[f64]) -> Figure {
        Figure { name: name.into(), detail: None, mean, low: mean - half, high: mean + half, samples: samples.to_vec() }
    }

    #[test]
    fn pairs_see_what_independent_intervals_do_not() {
        let a = figure("latency_ms_p99", 100.0, 20.0, &[80.0, 100.0, 120.0]);
        let b = figure("latency_ms_p99", 105.0, 20.0, &[85.0, 105.1, 124.9]);
        assert_eq!(figures("all", &a, &b, false).verdict, Verdict::Same);
        let paired = figures("all", &a, &b, true);
        assert_eq!((paired.basis, paired.verdict), (Basis::Paired, Verdict::Worse));
    }

    #[test]
    fn direction_depends_on_the_figure() {
        let pair =
            |name: &str| figures("all", &figure(name, 1.0, 0.1, &[]), &figure(name, 2.0, 0.1, &[]), true).verdict;
        assert_eq!(pair("goodput_per_s"), Verdict::Better);
        assert_eq!(pair("errors"), Verdict::Worse);
        assert_eq!(pair("utilization"), Verdict::Changed);
    }

    #[test]
    fn a_figure_without_an_interval_is_not_judged() {
        let a = figure("errors", 0.1, 0.0, &[0.1]);
        let b = figure("errors", 0.2, 0.0, &[0.2]);
        assert_eq!(figures("all", &a, &b, true).verdict, Verdict::Unknown);
        assert_eq!(figures("all", &a, &a, true).verdict, Verdict::Same);
    }
}
