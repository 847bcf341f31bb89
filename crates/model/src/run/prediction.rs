use serde::{Deserialize, Serialize};

use super::{Run, SubjectKind};

/// One experiment in both worlds: what was measured, and what was simulated of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// Version of this format.
    pub format: u32,
    /// The file whose times the simulation took; none: those that the system file says.
    pub calibration: Option<String>,
    /// How far off the prediction was, clients together first, then each client and endpoint.
    pub misses: Vec<Miss>,
    /// The real run.
    pub measured: Run,
    /// The simulated one: the same seed, and so the same load.
    pub predicted: Run,
}

/// How far off the prediction of a figure was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miss {
    /// What kind of thing the figure is of.
    pub kind: SubjectKind,
    /// Its name.
    pub subject: String,
    /// `latency_ms_p50`, `latency_ms_p95`, `latency_ms_p99` or `goodput_per_s`.
    pub figure: String,
    /// What was measured.
    pub measured: f64,
    /// What was predicted.
    pub predicted: f64,
    /// The difference as a share of what was measured; below zero: more came than was predicted.
    pub error: f64,
}

/// Figures that are compared, each with the least number of requests that says something of it: ten of them lie beyond
/// the percentile.
const FIGURES: [(&str, u64); 4] =
    [("latency_ms_p50", 20), ("latency_ms_p95", 200), ("latency_ms_p99", 1000), ("goodput_per_s", 20)];

impl Prediction {
    /// The current [`format`](Prediction::format).
    pub const FORMAT: u32 = 1;

    /// Lays a simulated run over a measured one.
    pub fn new(measured: Run, predicted: Run, calibration: Option<String>) -> Prediction {
        let mut misses = Vec::new();
        let compared = |kind| matches!(kind, SubjectKind::All | SubjectKind::Client | SubjectKind::Endpoint);
        for subject in measured.subjects.iter().filter(|subject| compared(subject.kind)) {
            let Some(other) = predicted.subject(subject.kind, &subject.name) else { continue };
            for (figure, least) in FIGURES {
                let value = |of: &super::SubjectRun| Some(of.figure(figure)?.mean).filter(|value| value.is_finite());
                let (Some(real), Some(simulated)) = (value(subject), value(other)) else { continue };
                if subject.latency.count() < least || real <= 0.0 {
                    continue;
                }
                misses.push(Miss {
                    kind: subject.kind,
                    subject: subject.name.clone(),
                    figure: figure.to_owned(),
                    measured: real,
                    predicted: simulated,
                    error: simulated / real - 1.0,
                });
            }
        }
        Prediction { format: Prediction::FORMAT, calibration, misses, measured, predicted }
    }

    /// How far off a figure of a subject was, if it was measured.
    pub fn miss(&self, kind: SubjectKind, subject: &str, figure: &str) -> Option<&Miss> {
        let is = |miss: &&Miss| miss.kind == kind && miss.subject == subject && miss.figure == figure;
        self.misses.iter().find(is)
    }
}
