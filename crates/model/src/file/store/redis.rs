//! Redis: `kind: redis`

use super::{OPERATION_KIND, OPERATION_NAME, PLACE, SIZE};
use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::quantity::{ADDRESS, BYTES, COUNT, DURATION, FLAG, RATE};
use crate::file::table::{Kind, Object, absent, required, value};
use crate::system::Redis;

pub(super) static REDIS: Object = Object {
    name: "redis",
    doc: "Redis: a store in memory, used as a cache, for sessions or for limiters.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("redis", "Redis")]), "What it is."),
            value(
                "capacity",
                Kind::Scalar(&COUNT),
                "1M",
                "1 GiB of keys with 1 KiB each",
                "Keys held; past it the least recently used of a sample is evicted.",
            ),
            value(
                "time",
                DURATIONS,
                "0.3ms",
                "a round trip within a zone",
                "Time of a command as the caller sees it on an idle server.",
            ),
            value(
                "max_rate",
                Kind::Scalar(&RATE),
                "100k/s",
                "redis-benchmark without pipelining",
                "Commands a second that its one thread does.",
            ),
            value(
                "pool",
                Kind::Scalar(&COUNT),
                "20",
                "go-redis: 10 for each of 2 processors",
                "Connections in the pool of one service instance.",
            ),
            value(
                "pool_timeout",
                Kind::Scalar(&DURATION),
                "4s",
                "go-redis, PoolTimeout",
                "Longest wait for a pooled connection.",
            ),
            value(
                "persistent",
                Kind::Scalar(&FLAG),
                "false",
                "a cache needs no disk",
                "Whether keys survive a restart.",
            ),
            value("memory", Kind::Scalar(&BYTES), "1GiB", "a small instance", "Memory, for its cost."),
            absent(
                "at",
                Kind::Scalar(&ADDRESS),
                "`plimsoll gateway` cannot ask it; simulations need no addresses",
                "Where it is in the real world.",
            ),
        ],
        PLACE,
        &[value(
            "operations",
            Kind::Map { key: &OPERATION_NAME, value: &Kind::Object(&COMMAND) },
            "{ get: {} }",
            "what a cache is asked",
            "What can be asked of it, by name.",
        )],
    ],
};

static COMMAND: Object = Object {
    name: "command",
    doc: "Something that can be asked of a Redis.",
    groups: &[&[
        OPERATION_KIND,
        absent("time", DURATIONS, "the store's `time`", "Time as the caller sees it on an idle server."),
        SIZE,
    ]],
};

impl Decoder<'_> {
    pub(super) fn redis(&mut self, filled: &Filled) -> Redis {
        Redis {
            capacity: filled.get("capacity").count(),
            time: self.dist(filled.get("time")),
            max_rate: filled.get("max_rate").number(),
            pool: filled.get("pool").count(),
            pool_timeout: filled.get("pool_timeout").nanos(),
            persistent: filled.get("persistent").flag(),
            memory: filled.get("memory").bytes(),
            at: filled.get("at").set().map(|at| at.text().to_owned()),
        }
    }
}
