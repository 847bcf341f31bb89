//! Calibration files: which keys they have, and what they become for a system.

use std::collections::BTreeMap;

use super::check::check;
use super::filled::Filled;
use super::names::unknown;
use super::problem::{Problems, Report};
use super::quantity::{COUNT, COUNT_OR_ZERO, DURATION, DURATION_OR_ZERO, NAME, PERCENT, SHARE, TEXT};
use super::reader;
use super::table::{Field, Kind, MapKey, Object, required, value};
use super::tree::Key;
use crate::calibration::{Calibration, SHARES, Times, What, durations, is_own};
use crate::system::{EdgeId, EndpointId, StoreKind, System};

static CALIBRATION: Object = Object {
    name: "calibration",
    doc: "How long things take on a machine.",
    groups: &[&[
        required("calibration", Kind::Scalar(&COUNT), "The version of this format."),
        required("system", Kind::Scalar(&TEXT), "The system's name."),
        required("hash", Kind::Scalar(&TEXT), "The hash of the system's file."),
        required("plimsoll", Kind::Scalar(&TEXT), "The version of the program that measured."),
        required("seed", Kind::Scalar(&COUNT_OR_ZERO), "The seed of the load."),
        required("load", Kind::Scalar(&PERCENT), "The load, as a share of the clients' own."),
        required("for", Kind::Scalar(&DURATION), "How long it was measured."),
        required("busy", Kind::Scalar(&SHARE), "How busy the machine was."),
        section("steps", Kind::Map { key: &OWNER, value: &STEPS }, "`work` and `wait` steps, by endpoint."),
        section("beside", TIMES_BY_NAME, "What endpoints take beside their steps."),
        section("endpoints", TIMES_BY_NAME, "All of an endpoint of a service of your own."),
        section("operations", TIMES_BY_NAME, "Operations of stores."),
        section("commits", TIMES_BY_NAME, "Commits, by store."),
        section("commands", TIMES_BY_NAME, "Commands of stores in memory, by store."),
        section("overheads", TIMES_BY_NAME, "What exchanges take beside network and work, by edge."),
        section("publishes", TIMES_BY_NAME, "Publishes, by topic."),
        section("relays", TIMES_BY_NAME, "From a commit until its message is published, by topic."),
        section("handlings", TIMES_BY_NAME, "What consumers do beside their handlers."),
    ]],
};

const fn section(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    value(key, kind, "{}", "nothing of it was measured", doc)
}

static OWNER: MapKey = MapKey { what: "an endpoint or consumer", scalar: &TEXT };
static NUMBER: MapKey = MapKey { what: "a step's number", scalar: &NAME };
static STEPS: Kind = Kind::Map { key: &NUMBER, value: &Kind::Object(&TIMES) };
const TIMES_BY_NAME: Kind = Kind::Map { key: &MapKey { what: "a name", scalar: &TEXT }, value: &Kind::Object(&TIMES) };

static TIMES: Object = Object {
    name: "times",
    doc: "How long something took.",
    groups: &[&[
        required("samples", Kind::Scalar(&COUNT), "How often it was measured."),
        required("min", Kind::Scalar(&DURATION_OR_ZERO), "The least."),
        required("p5", Kind::Scalar(&DURATION_OR_ZERO), "The 5th percentile."),
        required("p10", Kind::Scalar(&DURATION_OR_ZERO), "The 10th percentile."),
        required("p25", Kind::Scalar(&DURATION_OR_ZERO), "The 25th percentile."),
        required("p50", Kind::Scalar(&DURATION_OR_ZERO), "The median."),
        required("p75", Kind::Scalar(&DURATION_OR_ZERO), "The 75th percentile."),
        required("p90", Kind::Scalar(&DURATION_OR_ZERO), "The 90th percentile."),
        required("p95", Kind::Scalar(&DURATION_OR_ZERO), "The 95th percentile."),
        required("p99", Kind::Scalar(&DURATION_OR_ZERO), "The 99th percentile."),
        required("p999", Kind::Scalar(&DURATION_OR_ZERO), "The 99.9th percentile."),
        required("max", Kind::Scalar(&DURATION_OR_ZERO), "The most."),
    ]],
};

/// Reads a calibration of a system, or says everything that is wrong with it. Names that the system does not have are
/// errors; that the system's file has another hash is for the caller to tell.
pub fn calibration(name: &str, bytes: &[u8], system: &System) -> Result<Calibration, Problems> {
    let mut report = Report::default();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        report.file("the file is empty; `plimsoll calibrate` writes one".to_owned());
        return Err(report.finish(name, bytes, None));
    }
    let tree = reader::read(bytes, &mut report);
    let read = tree.as_ref().map(|tree| {
        let filled = check(tree, Kind::Object(&CALIBRATION), &mut report);
        decode(&filled, system, &mut report)
    });
    match read {
        Some(read) if report.is_empty() => Ok(read),
        _ => Err(report.finish(name, bytes, tree.as_ref())),
    }
}

fn decode(root: &Filled, system: &System, report: &mut Report) -> Calibration {
    let format = root.get("calibration");
    if !format.is_bad() && format.count() != Calibration::FORMAT {
        let message = format!("this program reads format {}, found format {}", Calibration::FORMAT, format.count());
        report.at(format.at, message).help("measure anew with this program's `plimsoll calibrate`".to_owned());
    }
    let mut times = BTreeMap::new();
    let known = all(system);
    for section in
        ["beside", "endpoints", "operations", "commits", "commands", "overheads", "publishes", "relays", "handlings"]
    {
        for (key, filled) in root.map_of(section) {
            if let Some(what) = find(&known, section, key, report) {
                times.insert(what, read_times(filled, report));
            }
        }
    }
    for (key, steps) in root.map_of("steps") {
        let Some(What::Beside(at)) = find(&known, "beside", key, report) else { continue };
        let program = &system.services[at.service.index()].endpoints[at.index as usize].program;
        let count = durations(program).len() as u32;
        for (number, filled) in steps.map() {
            match number.text.parse::<u32>() {
                Ok(number @ 1..) if number <= count => {
                    times.insert(What::Step(at, number), read_times(filled, report));
                }
                _ => {
                    let message = format!("there is no step {} of `{}`", number.text, key.text);
                    let help = format!("its `work` and `wait` steps are numbered from 1 to {count}");
                    report.at(number.at, message).help(match count {
                        0 => "it has no `work` and `wait` steps".to_owned(),
                        _ => help,
                    });
                }
            }
        }
    }
    Calibration {
        system: root.get("system").text().to_owned(),
        hash: root.get("hash").text().to_owned(),
        plimsoll: root.get("plimsoll").text().to_owned(),
        seed: match root.get("seed").quantity() {
            Some(super::quantity::Quantity::Count(seed)) => *seed,
            _ => 0,
        },
        load: root.get("load").number(),
        length: root.get("for").nanos(),
        busy: root.get("busy").number(),
        times,
    }
}

/// All that a calibration of a system may have but steps, by section and key.
fn all(system: &System) -> BTreeMap<(&'static str, String), What> {
    let mut all = Vec::new();
    for (service, of) in system.services.iter().enumerate().filter(|(_, of)| !of.is_gateway()) {
        for index in 0..of.endpoints.len() as u32 {
            let at = EndpointId { service: service.into(), index };
            all.push(What::Beside(at));
            if is_own(of) {
                all.push(What::Endpoint(at));
            }
        }
    }
    for (at, store) in system.stores.iter().enumerate() {
        all.extend((0..store.operations.len() as u32).map(|number| What::Operation(at.into(), number)));
        match store.kind {
            StoreKind::Postgres(_) => all.push(What::Commit(at.into())),
            StoreKind::Redis(_) => all.push(What::Command(at.into())),
            StoreKind::Quorum(_) => {}
        }
    }
    let first = |at: &EdgeId| system.same_pair(*at).next() == Some(*at);
    all.extend((0..system.edges.len()).map(EdgeId::from).filter(first).map(What::Overhead));
    for at in 0..system.topics.len() {
        all.extend([What::Publish(at.into()), What::Relay(at.into())]);
    }
    all.extend((0..system.consumers.len()).map(|at| What::Handling(at.into())));
    let place = |what: What| {
        let (section, key, _) = what.place(system);
        ((section, key), what)
    };
    all.into_iter().map(place).collect()
}

fn find(
    known: &BTreeMap<(&'static str, String), What>,
    section: &'static str,
    key: &Key,
    report: &mut Report,
) -> Option<What> {
    let found = known.get(&(section, key.text.clone())).copied();
    if found.is_none() {
        let names = known.keys().filter(|(of, _)| *of == section).map(|(_, name)| name.as_str());
        let what = match section {
            "beside" => "endpoint or consumer",
            "endpoints" => "endpoint of a service with `run` or `at`",
            "operations" => "operation",
            "commits" => "database",
            "commands" => "store in memory",
            "overheads" => "edge",
            "handlings" => "consumer",
            _ => "topic",
        };
        unknown(key.at, what, &key.text, names, report);
    }
    found
}

fn read_times(filled: &Filled, report: &mut Report) -> Times {
    let mut at = [0; SHARES.len()];
    let mut before: Option<(&str, u64)> = None;
    for (value, (key, _)) in at.iter_mut().zip(SHARES) {
        let of = filled.get(key);
        if of.is_bad() {
            continue;
        }
        *value = of.nanos();
        if let Some((lower, least)) = before.filter(|(_, least)| *least > *value) {
            let least = least as f64 / 1e6;
            report.at(of.at, format!("`{key}` is below `{lower}`, which is {least}ms"));
        }
        before = Some((key, *value));
    }
    Times { samples: u64::from(filled.get("samples").count()), at }
}
