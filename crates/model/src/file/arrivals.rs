//! How a client's requests come into being: `arrivals: poisson`, `bursty`, `trace(file.csv)`.

use std::sync::Arc;

use super::decode::Decoder;
use super::filled::Filled;
use super::quantity::{DURATION, FACTOR, Quantity, Wrong, call};
use super::table::{Json, Kind, Object, Scalar, value};
use super::{suggest, trace};
use crate::system::{Arrivals, Process};

const WORDS: [&str; 3] = ["poisson", "constant", "bursty"];

pub(crate) static ARRIVALS: Scalar = Scalar {
    what: "the spacing of arrivals",
    example: "poisson`, `constant`, `bursty` or `trace(file.csv)",
    pattern: r"^(poisson|constant|bursty|trace\([^()]+\))$",
    json: Json::String,
    parse: |text| match call(text) {
        _ if WORDS.contains(&text) => Ok(Quantity::Text),
        Some(("trace", file)) if !file.is_empty() => Ok(Quantity::Text),
        _ => Err(Wrong {
            why: "it is none of these".to_owned(),
            help: suggest::nearest(text, WORDS).map(|word| format!("did you mean `{word}`?")),
        }),
    },
};

pub(crate) static BURST: Object = Object {
    name: "burst",
    doc: "Bursts of arrivals, as a Markov-modulated Poisson process: lengths are exponential, and the mean rate stays the \
          client's.",
    groups: &[&[
        value(
            "peak",
            Kind::Scalar(&FACTOR),
            "5x",
            "a guess: measure yours",
            "Rate within a burst, as a multiple of the mean rate.",
        ),
        value("for", Kind::Scalar(&DURATION), "2s", "a guess: measure yours", "Mean length of a burst."),
        value(
            "every",
            Kind::Scalar(&DURATION),
            "20s",
            "a guess: measure yours",
            "Mean time from one burst's start to the next one's.",
        ),
    ]],
};

impl Decoder<'_> {
    /// Open loop by `rate`, closed loop by `users` and `think`, or a trace.
    pub(super) fn arrivals(&mut self, client: &Filled) -> Arrivals {
        let (rate, think, arrivals) = (client.get("rate"), client.get("think"), client.get("arrivals"));
        let nothing = Arrivals::Open { rate: 1.0, process: Process::Poisson };
        if let Some(("trace", file)) = call(arrivals.text()) {
            for key in ["rate", "think"] {
                if client.get(key).is_set() {
                    self.report
                        .at(client.place(key), format!("`{key}` plays no part where arrivals come from a trace"));
                }
            }
            return self.trace(arrivals, file).unwrap_or(nothing);
        }
        match (rate.set(), think.set()) {
            (Some(rate), None) => Arrivals::Open { rate: rate.number(), process: self.spacing(client) },
            (None, Some(think)) => {
                if !client.get("users").is_stated() {
                    self.report.at(client.at, "a closed loop needs `users` beside `think`".to_owned());
                }
                Arrivals::Closed { users: client.get("users").count(), think: self.dist(think) }
            }
            (Some(_), Some(think)) => {
                self.report.at(
                    think.at,
                    "a client has either a `rate` (open loop) or a `think` time (closed loop)".to_owned(),
                );
                nothing
            }
            (None, None) => {
                if !client.has_bad() {
                    self.report.at(client.at, "the client asks for nothing: it has no `rate`".to_owned()).help(
                        "`rate: 300/s` is an open loop; `users: 500` with `think: exp(2s)` a closed one".to_owned(),
                    );
                }
                nothing
            }
        }
    }

    fn spacing(&mut self, client: &Filled) -> Process {
        let burst = client.get("burst");
        match client.get("arrivals").text() {
            "bursty" => {}
            "constant" => return Process::Constant,
            _ => return Process::Poisson,
        }
        let (peak, length, every) = (burst.get("peak"), burst.get("for"), burst.get("every"));
        let (factor, length_ns, every_ns) = (peak.number(), length.nanos() as f64, every.nanos() as f64);
        if !burst.is_set() {
            self.report.at(client.place("burst"), "bursty arrivals need `burst`".to_owned());
        } else if !length.is_bad() && !every.is_bad() && length_ns >= every_ns {
            self.report
                .at(burst.place("for"), "`for` must be shorter than `every`, or the burst never ends".to_owned());
        } else if !peak.is_bad() && factor * length_ns > every_ns {
            let help = format!("with these lengths it can be up to {:.3}x", every_ns / length_ns);
            self.report.at(burst.place("peak"), "the bursts alone exceed the client's mean rate".to_owned()).help(help);
        } else if !peak.is_bad() && factor < 1.0 {
            self.report.at(burst.place("peak"), "a burst is at least 1x the mean rate".to_owned());
        }
        Process::Bursty { peak: factor, burst: length_ns, quiet: (every_ns - length_ns).max(1.0) }
    }

    fn trace(&mut self, arrivals: &Filled, file: &str) -> Option<Arrivals> {
        let bytes = match (self.source.read)(file) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.report.at(arrivals.at, format!("cannot read `{file}`: {why}"));
                return None;
            }
        };
        self.hash.add(&bytes);
        match trace::times(&bytes) {
            Ok((times, span)) => Some(Arrivals::Trace { times: Arc::from(times), span }),
            Err(why) => {
                self.report.at(arrivals.at, format!("`{file}` is not a trace: {why}"));
                None
            }
        }
    }
}
