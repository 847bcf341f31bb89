use std::fmt::Write;

use super::{Calibration, SHARES, Times, What};
use crate::system::{EndpointId, System};

impl What {
    /// The section of the file that it stands in, and its key there; of a step its number too.
    pub(crate) fn place(self, system: &System) -> (&'static str, String, Option<u32>) {
        let endpoint = |at: EndpointId| {
            let handles = system.consumers.iter().find(|consumer| consumer.service == at.service);
            handles.map_or_else(|| system.endpoint_name(at), |consumer| consumer.name.clone())
        };
        match self {
            What::Step(at, number) => ("steps", endpoint(at), Some(number)),
            What::Beside(at) => ("beside", endpoint(at), None),
            What::Endpoint(at) => ("endpoints", endpoint(at), None),
            What::Operation(at, number) => {
                let store = &system.stores[at.index()];
                ("operations", format!("{}.{}", store.name, store.operations[number as usize].name), None)
            }
            What::Commit(at) => ("commits", system.stores[at.index()].name.clone(), None),
            What::Command(at) => ("commands", system.stores[at.index()].name.clone(), None),
            What::Overhead(at) => ("overheads", system.edge_name(at), None),
            What::Publish(at) => ("publishes", system.topics[at.index()].name.clone(), None),
            What::Relay(at) => ("relays", system.topics[at.index()].name.clone(), None),
            What::Handling(at) => ("handlings", system.consumers[at.index()].name.clone(), None),
        }
    }
}

impl Calibration {
    /// The file.
    pub fn text(&self, system: &System) -> String {
        let mut out = format!(
            "# How long things take, measured by `plimsoll calibrate` on one machine. Each line replaces what the\n\
             # system file says of that thing, for whoever is given `--calibration` and this file.\n\
             calibration: {}\nsystem: {}\nhash: {}\nplimsoll: {}\nseed: {}\nload: {}%\nfor: {}s\nbusy: {:.0}%\n",
            Calibration::FORMAT,
            quoted(&self.system),
            quoted(&self.hash),
            quoted(&self.plimsoll),
            self.seed,
            plain(self.load * 100.0),
            plain(self.length as f64 / 1e9),
            self.busy * 100.0,
        );
        let (mut section, mut owner) = ("", String::new());
        for (what, times) in &self.times {
            let (of, key, number) = what.place(system);
            if of != section {
                let _ = writeln!(out, "{of}:");
                owner.clear();
            }
            section = of;
            match number {
                Some(number) => {
                    if owner != key {
                        let _ = writeln!(out, "  {}:", quoted(&key));
                    }
                    let _ = writeln!(out, "    {number}: {}", line(times));
                    owner = key;
                }
                None => {
                    let _ = writeln!(out, "  {}: {}", quoted(&key), line(times));
                }
            }
        }
        out
    }
}

fn line(times: &Times) -> String {
    let mut out = format!("{{ samples: {}", times.samples);
    for ((key, _), value) in SHARES.iter().zip(times.at) {
        let _ = write!(out, ", {key}: {}ms", millis(value));
    }
    out.push_str(" }");
    out
}

/// Nanoseconds as milliseconds, exactly.
fn millis(nanos: u64) -> String {
    let text = format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number without an exponent, to a billionth.
fn plain(value: f64) -> String {
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that no YAML parser takes for something else.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
