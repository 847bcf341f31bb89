//! `queue: 128`, or `queue: { size: 128, discipline: codel, target: 5ms, interval: 100ms }`

use plimsoll_policy::shed::{Config, Discipline, ShedQueue};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT_OR_ZERO, DURATION};
use crate::file::table::{Kind, Object, value};

pub(crate) static QUEUE: Object = Object {
    name: "queue",
    doc: "Requests that wait for a worker of one instance, and what is shed when they wait too long. The size alone \
          may stand in place of the mapping.",
    groups: &[
        &[
            value(
                "size",
                Kind::Scalar(&COUNT_OR_ZERO),
                "128",
                "Linux's listen backlog was 128 for long (net.core.somaxconn before 5.4)",
                "Requests that may wait; one more is refused with 503 and Retry-After.",
            ),
            value(
                "discipline",
                Kind::Words(&[
                    ("fifo", "oldest first; drops only what is past its deadline"),
                    ("lifo", "newest first; drops what is past its deadline, and the oldest when full"),
                    ("codel", "oldest first; sheds by age while overloaded"),
                    ("adaptive_lifo", "as codel, and newest first while overloaded"),
                ]),
                "fifo",
                "nearly every server",
                "The order in which they are taken, and which are shed.",
            ),
            value(
                "target",
                Kind::Scalar(&DURATION),
                "5ms",
                "RFC 8289, section 4.2",
                "CoDel: the wait that a standing queue may have.",
            )
            .when(codel, "where `discipline` is `codel` or `adaptive_lifo`"),
            value(
                "interval",
                Kind::Scalar(&DURATION),
                "100ms",
                "RFC 8289",
                "CoDel: how long a queue must stand before it counts as overload.",
            )
            .when(codel, "where `discipline` is `codel` or `adaptive_lifo`"),
        ],
        SHADOW,
    ],
};

fn codel(queue: &Filled) -> bool {
    matches!(queue.get("discipline").text(), "codel" | "adaptive_lifo")
}

pub(crate) fn queue(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        capacity: filled.get("size").count(),
        discipline: match filled.get("discipline").text() {
            "lifo" => Discipline::Lifo,
            "codel" => Discipline::CoDel,
            "adaptive_lifo" => Discipline::AdaptiveLifo,
            _ => Discipline::Fifo,
        },
        target: filled.get("target").duration(),
        interval: filled.get("interval").duration(),
        mode: mode(filled),
    };
    // The queue's type parameter is what waits in it, which plays no part in its rules.
    refused(ShedQueue::<()>::new(config), filled, &[("capacity", "size")], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &QUEUE, queue).unwrap(), Config::default());
    }
}
