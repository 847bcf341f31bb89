//! `degradation: { levels: [{ name: lite, enter: 85%, leave: 60%, skip: [recommendations] }] }`

use plimsoll_policy::Degradation;
use plimsoll_policy::degradation::{Config, Level};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{DURATION, DURATION_OR_ZERO, NAME, SHARE, SHARE_POSITIVE, TEXT};
use crate::file::table::{Kind, Object, required, value};

pub(crate) static DEGRADATION: Object = Object {
    name: "degradation",
    doc: "Degradation ladder: switches off what matters least as the workers of an instance fill up, and back on when \
          there is room again.",
    groups: &[
        &[
            required(
                "levels",
                Kind::List(&Kind::Object(&LEVEL)),
                "The levels, from the mildest to the severest; a level keeps off what those before it switch off.",
            ),
            value(
                "escalate_every",
                Kind::Scalar(&DURATION_OR_ZERO),
                "1s",
                "so that a step shows before the next one is taken",
                "The shortest time from one step up to the next.",
            ),
            value(
                "min_dwell",
                Kind::Scalar(&DURATION),
                "30s",
                "longer than the ramps that follow a recovery",
                "How long it must have been calm before a step down.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) static LEVEL: Object = Object {
    name: "degradation_level",
    doc: "One level of a degradation ladder.",
    groups: &[&[
        required("name", Kind::Scalar(&NAME), "Its name, for reports."),
        required(
            "enter",
            Kind::Scalar(&SHARE_POSITIVE),
            "Utilization of an instance's workers from which the level holds.",
        ),
        required(
            "leave",
            Kind::Scalar(&SHARE),
            "Utilization below which it may end; below `enter`, or the level would flap.",
        ),
        value("reject", Kind::List(&Kind::Scalar(&TEXT)), "[]", "nothing", "Endpoints that answer 503 at once."),
        value(
            "skip",
            Kind::List(&Kind::Scalar(&NAME)),
            "[]",
            "nothing",
            "Optional steps (`optional: NAME`) that are skipped.",
        ),
    ]],
};

/// The thresholds; `rejected` has for each level the positions of the endpoints that it rejects.
pub(crate) fn ladder(filled: &Filled, rejected: &[Vec<u32>], report: &mut Report) -> Config {
    let levels = filled.get("levels").list();
    let config = Config {
        levels: levels
            .iter()
            .zip(rejected)
            .map(|(level, rejected)| Level {
                enter_at: level.get("enter").number(),
                leave_at: level.get("leave").number(),
                switches_off: rejected.clone(),
            })
            .collect(),
        escalate_every: filled.get("escalate_every").duration(),
        min_dwell: filled.get("min_dwell").duration(),
        mode: mode(filled),
    };
    if levels.is_empty() && !filled.get("levels").is_bad() {
        report.at(filled.place("levels"), "a ladder needs at least one level".to_owned());
    }
    // The policy names no level, so the file's levels are compared here first.
    let mut sound = true;
    for (index, level) in levels.iter().enumerate() {
        let (enter, leave) = (level.get("enter"), level.get("leave"));
        if enter.is_bad() || leave.is_bad() || level.is_bad() {
            sound = false;
        } else if leave.number() >= enter.number() {
            sound = false;
            report.at(leave.at, "`leave` must be below `enter`, or the level would flap".to_owned());
        } else if let Some(before) = index.checked_sub(1).map(|before| &levels[before]) {
            if !before.get("enter").is_bad() && enter.number() <= before.get("enter").number() {
                sound = false;
                report.at(enter.at, "`enter` must be above that of the level before".to_owned());
            }
            if !before.get("leave").is_bad() && leave.number() < before.get("leave").number() {
                sound = false;
                report.at(leave.at, "`leave` must not be below that of the level before".to_owned());
            }
        }
    }
    if sound {
        refused(Degradation::new(config.clone()), filled, &[], report);
    }
    config
}
