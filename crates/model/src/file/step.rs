//! Steps: what an endpoint or a handler does.

use super::distribution::DURATIONS;
use super::policy::{SHADOW, cache};
use super::quantity::{COUNT, DURATION, FLAG, NAME, NUMBER_POSITIVE, ROUNDS, SHARE, TEXT};
use super::table::{Choice, Field, Kind, Object, absent, required, value};

/// A list of steps, done in order.
pub(crate) static STEPS: Kind = Kind::List(&Kind::Choice(&STEP));

pub(crate) static STEP: Choice = Choice {
    name: "step",
    what: "a step",
    doc: "One step of an endpoint or a handler. Its first key says what is done.",
    options: &[
        &WORK,
        &WAIT,
        &FAIL,
        &CALL,
        &QUERY,
        &CACHE,
        &WRITE_THROUGH,
        &WRITE_BEHIND,
        &INVALIDATE,
        &TRANSACTION,
        &PUBLISH,
        &PARALLEL,
        &FOR_EACH,
        &CHOICE,
        &FALLBACK,
        &LEASE,
    ],
};

/// Keys that every step has.
const COMMON: &[Field] = &[
    absent("name", Kind::Scalar(&NAME), "no name", "A name of your own, for `crash_between`."),
    absent("optional", Kind::Scalar(&NAME), "always done", "The name under which a degradation level skips it."),
];

static WORK: Object = Object {
    name: "work",
    doc: "Compute: takes one of the instance's cores.",
    groups: &[&[required("work", DURATIONS, "For how long.")], COMMON],
};

static WAIT: Object = Object {
    name: "wait",
    doc: "Wait without a core; a worker is held all the same.",
    groups: &[&[required("wait", DURATIONS, "For how long.")], COMMON],
};

static FAIL: Object = Object {
    name: "fail",
    doc: "Fail with 500.",
    groups: &[&[required("fail", Kind::Scalar(&SHARE), "Share of requests that fail here.")], COMMON],
};

static CALL: Object = Object {
    name: "call",
    doc: "Call another service and wait for its answer.",
    groups: &[
        &[required("call", Kind::Scalar(&TEXT), "The service and its endpoint, as in `payments POST /charge`.")],
        COMMON,
    ],
};

static QUERY: Object = Object {
    name: "query",
    doc: "Run an operation of a store.",
    groups: &[&[required("query", Kind::Scalar(&TEXT), "The store and its operation, as in `db.read_note`.")], COMMON],
};

static CACHED_KEY: &[Field] = &[
    required(
        "key",
        Kind::Scalar(&NAME),
        "The kind of thing that is cached, a name of your own; steps with the same name share entries.",
    ),
    absent(
        "keys",
        Kind::Scalar(&COUNT),
        "as many as the clients' requests that lead here have",
        "How many such things there are.",
    ),
];

static CACHE: Object = Object {
    name: "cache",
    doc: "Look a key up in a cache; on a miss, do the steps and fill it (cache-aside).",
    groups: &[
        &[required("cache", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[value("on_miss", STEPS, "[]", "nothing", "Steps after a miss.")],
        cache::FRESHNESS,
        SHADOW,
        COMMON,
    ],
};

static WRITE_THROUGH: Object = Object {
    name: "write_through",
    doc: "Write the origin, then the cache.",
    groups: &[
        &[required("write_through", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[required("do", STEPS, "Steps that write the origin.")],
        COMMON,
    ],
};

static WRITE_BEHIND: Object = Object {
    name: "write_behind",
    doc: "Write the cache now, the origin later; a crash in between loses the write.",
    groups: &[
        &[required("write_behind", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[
            value(
                "flush",
                Kind::Scalar(&DURATION),
                "1s",
                "Redis's appendfsync everysec makes the same trade",
                "Longest time until the origin has it.",
            ),
            required("do", STEPS, "Steps that write the origin."),
        ],
        COMMON,
    ],
};

static INVALIDATE: Object = Object {
    name: "invalidate",
    doc: "Write the origin, then drop the key from the cache.",
    groups: &[
        &[required("invalidate", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[value("do", STEPS, "[]", "the origin was written before", "Steps that write the origin.")],
        COMMON,
    ],
};

static TRANSACTION: Object = Object {
    name: "transaction",
    doc: "Hold one connection and do steps within one transaction; a failure rolls back.",
    groups: &[
        &[
            required("transaction", Kind::Scalar(&NAME), "The PostgreSQL."),
            required("do", STEPS, "Steps within it."),
            value(
                "cross_shard",
                Kind::Scalar(&SHARE),
                "0%",
                "a good shard key keeps a transaction together",
                "Share of transactions that touch a second shard and need two-phase commit.",
            ),
        ],
        COMMON,
    ],
};

static PUBLISH: Object = Object {
    name: "publish",
    doc: "Publish a message.",
    groups: &[
        &[
            required("publish", Kind::Scalar(&NAME), "The topic."),
            absent(
                "outbox",
                Kind::Scalar(&FLAG),
                "`true` within a transaction, `false` elsewhere",
                "Whether it goes through the transaction's outbox. Without one, a transaction and a publish are two writes, and a crash may do one of them.",
            ),
        ],
        COMMON,
    ],
};

static PARALLEL: Object = Object {
    name: "parallel",
    doc: "Do branches at once and wait for all.",
    groups: &[
        &[required(
            "parallel",
            Kind::Short(&BRANCHES, "do"),
            "The branches: a list, each item a step or a list of steps.",
        )],
        COMMON,
    ],
};

static BRANCHES: Object = Object {
    name: "branches",
    doc: "Branches of a `parallel` step. The list alone may stand in place of the mapping.",
    groups: &[&[
        required(
            "do",
            Kind::List(&Kind::Or(&[STEPS, Kind::Choice(&STEP)])),
            "The branches, each a step or a list of steps.",
        ),
        absent("limit", Kind::Scalar(&COUNT), "all of them", "Branches in flight at once."),
    ]],
};

static FOR_EACH: Object = Object {
    name: "for_each",
    doc: "Do steps a number of times.",
    groups: &[
        &[
            required(
                "for_each",
                Kind::Scalar(&ROUNDS),
                "How many times: `20`, `5..50` (uniform) or `geometric(8)` (by its mean).",
            ),
            required("do", STEPS, "Steps of a round."),
            value("limit", Kind::Scalar(&COUNT), "1", "a loop", "Rounds in flight at once; 1: one after the other."),
        ],
        COMMON,
    ],
};

static CHOICE: Object = Object {
    name: "choice",
    doc: "Do one of several alternatives.",
    groups: &[&[required("choice", Kind::List(&Kind::Object(&ALTERNATIVE)), "The alternatives.")], COMMON],
};

static ALTERNATIVE: Object = Object {
    name: "alternative",
    doc: "One alternative of a `choice` step.",
    groups: &[&[
        value(
            "weight",
            Kind::Scalar(&NUMBER_POSITIVE),
            "1",
            "equal shares",
            "How often, relative to the other weights.",
        ),
        required("do", STEPS, "Its steps; `[]` does nothing."),
    ]],
};

static FALLBACK: Object = Object {
    name: "fallback",
    doc: "Do steps; where they fail, do others instead, and answer degraded.",
    groups: &[&[required("fallback", Kind::Object(&ATTEMPT), "What is tried, and what else.")], COMMON],
};

static ATTEMPT: Object = Object {
    name: "attempt",
    doc: "The two ways of a `fallback` step.",
    groups: &[&[
        required("try", STEPS, "Done first."),
        value("else", STEPS, "[]", "nothing: the answer lacks that part", "Done when that fails."),
    ]],
};

static LEASE: Object = Object {
    name: "lease_step",
    doc: "Do steps while holding a lease's lock; others wait.",
    groups: &[
        &[required("lease", Kind::Scalar(&NAME), "The lease."), required("do", STEPS, "Steps within it.")],
        COMMON,
    ],
};
