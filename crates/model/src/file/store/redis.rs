//! Redis: `kind: redis`

use super::{OPERATION_KIND, OPERATION_NAME, PLACE, SIZE};
use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::quantity::{ADDRESS, BYTES, COUNT, COUNT_OR_ZERO, DURATION, FLAG, RATE, TEXT};
use crate::file::table::{Kind, Object, absent, none, required, value};
use crate::system::{Redis, RedisAt, RedisTls};

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
            value("database", Kind::Scalar(&COUNT_OR_ZERO), "0", "Redis' default", "The number of the database there.")
                .when(has_address, "beside `at`"),
            absent("user", Kind::Scalar(&TEXT), "the server's default user", "Who `plimsoll gateway` says it is.")
                .when(has_password, "beside `password_file`"),
            none(
                "password_file",
                Kind::Scalar(&TEXT),
                "the server asks for none",
                "The file whose first line is the password, relative to the system file.",
            )
            .when(has_address, "beside `at`"),
            none("tls", Kind::Object(&TLS), "plain TCP", "How `plimsoll gateway` asks it by TLS.")
                .when(has_address, "beside `at`"),
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

fn has_address(redis: &Filled) -> bool {
    redis.get("at").is_set()
}

fn has_password(redis: &Filled) -> bool {
    redis.get("password_file").is_set()
}

static TLS: Object = Object {
    name: "redis_tls",
    doc: "TLS towards a Redis. Files are PEM, relative to the system file.",
    groups: &[&[
        required("ca", Kind::Scalar(&TEXT), "Certificates of the authorities that may have signed the server's."),
        absent("name", Kind::Scalar(&TEXT), "the name in `at`", "The name that the server's certificate must have."),
        none(
            "certificate",
            Kind::Scalar(&TEXT),
            "the server asks for none (`tls-auth-clients no`)",
            "The certificate that is shown to the server.",
        ),
        absent("key", Kind::Scalar(&TEXT), "there is no certificate either", "Its private key.")
            .when(|tls| tls.get("certificate").is_set(), "beside `certificate`"),
    ]],
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
            at: filled.get("at").set().map(|at| self.redis_at(filled, at)),
        }
    }

    fn redis_at(&mut self, filled: &Filled, at: &Filled) -> RedisAt {
        let text = |filled: &Filled| filled.text().to_owned();
        let tls = filled.get("tls").set().filter(|tls| !tls.is_bad());
        RedisAt {
            address: text(at),
            database: filled.get("database").count(),
            user: filled.get("user").set().map(text),
            password_file: filled.get("password_file").set().map(text),
            tls: tls.map(|tls| {
                let (certificate, key) = (tls.get("certificate").set(), tls.get("key").set());
                if let (Some(certificate), None) = (certificate, key) {
                    let message = "a certificate needs its key: add `key: redis-client.key`".to_owned();
                    self.report.at(certificate.at, message);
                }
                RedisTls {
                    ca: text(tls.get("ca")),
                    name: tls.get("name").set().map(text),
                    own: certificate.zip(key).map(|(certificate, key)| (text(certificate), text(key))),
                }
            }),
        }
    }
}
