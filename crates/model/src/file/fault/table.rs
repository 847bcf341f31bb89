//! The keys of each fault.

use crate::file::distribution::DURATIONS;
use crate::file::quantity::{
    BANDWIDTH, DURATION, DURATION_OR_ZERO, FACTOR, NAME, OFFSET, SHARE, SHARE_POSITIVE, SLOWDOWN, TEXT,
};
use crate::file::table::{Field, Kind, Object, absent, none, required, value};

const AT: Field = required("at", Kind::Scalar(&DURATION_OR_ZERO), "Start, from the start of the measured part.");

/// Keys of a fault that lasts.
const LASTING: &[Field] = &[
    AT,
    absent("for", Kind::Scalar(&DURATION), "`until` says it", "How long it lasts."),
    absent("until", Kind::Scalar(&DURATION), "`for` says it", "End, from the start of the measured part."),
];

/// Keys of a fault that is over at once.
const INSTANT: &[Field] = &[AT];

macro_rules! fault {
    ($name:ident, $key:literal, $kind:expr, $target:literal, $doc:literal, [$($more:expr),*], $time:expr) => {
        pub(super) static $name: Object = Object {
            name: concat!("fault ", $key),
            doc: $doc,
            groups: &[&[required($key, $kind, $target) $(, $more)*], $time],
        };
    };
}

const TARGET: Kind = Kind::Scalar(&TEXT);
const NAMED: Kind = Kind::Scalar(&NAME);

fault!(
    KILL,
    "kill",
    TARGET,
    "A service, consumer, store, instance, share or zone.",
    "Processes die at once, and start again at the end.",
    [],
    LASTING
);
fault!(
    PAUSE,
    "pause",
    TARGET,
    "A service, consumer, store, instance, share or zone.",
    "Processes stop (SIGSTOP): connections are accepted, nothing answers.",
    [],
    LASTING
);
fault!(
    SLOW,
    "slow",
    TARGET,
    "A service, consumer, store, instance, share, zone or edge.",
    "Each `work` and each `wait` of a process, each operation of a store, or each message of an edge takes longer.",
    [required("by", Kind::Scalar(&SLOWDOWN), "A factor (`5x`), or an added delay (`+500ms`, `+exp(50ms)`).")],
    LASTING
);
fault!(
    PARTITION,
    "partition",
    TARGET,
    "A component, instance, share, zone or edge.",
    "Nothing gets through, and nobody is told.",
    [],
    LASTING
);
fault!(
    DROP,
    "drop",
    TARGET,
    "A component, instance, share, zone or edge.",
    "A share of messages is lost, and sent again after a retransmission timeout.",
    [value("share", Kind::Scalar(&SHARE_POSITIVE), "10%", "enough to be felt", "Share of messages.")],
    LASTING
);
fault!(
    RESET,
    "reset",
    TARGET,
    "A component, instance, share, zone or edge.",
    "A share of calls has its connection reset.",
    [value("share", Kind::Scalar(&SHARE_POSITIVE), "10%", "enough to be felt", "Share of calls.")],
    LASTING
);
fault!(
    BANDWIDTH_FAULT,
    "bandwidth",
    TARGET,
    "A component, instance, share, zone or edge.",
    "Answers share so many bytes a second.",
    [required("to", Kind::Scalar(&BANDWIDTH), "What is left.")],
    LASTING
);
fault!(FLUSH, "flush", NAMED, "A Redis.", "A cache loses all its keys.", [], INSTANT);
fault!(PROMOTE, "promote", NAMED, "A PostgreSQL.", "A replica becomes the primary.", [], INSTANT);
fault!(
    LAG,
    "lag",
    NAMED,
    "A PostgreSQL.",
    "Replicas fall behind.",
    [required("by", Kind::Scalar(&DURATION), "How far.")],
    LASTING
);
fault!(
    LOCK,
    "lock",
    TARGET,
    "A table of a PostgreSQL, as in `db.notes`; the store alone if it has one table.",
    "A migration holds a table lock.",
    [],
    LASTING
);
fault!(
    EXHAUST,
    "exhaust",
    TARGET,
    "A PostgreSQL, a node or a share of it, its primary or its replicas.",
    "Others take every connection that is left: who has one keeps it, who needs one more is refused.",
    [],
    LASTING
);
fault!(
    DEPLOY,
    "deploy",
    NAMED,
    "A service.",
    "A new version rolls out, and is rolled back at the end.",
    [value("version", Kind::Object(&VERSION), "{}", "no different", "How it differs from the old one.")],
    LASTING
);
fault!(
    CRASH_BETWEEN,
    "crash_between",
    Kind::List(&Kind::Scalar(&NAME)),
    "Two named steps (`name:`), the one that was done and the one that was not.",
    "An instance dies between two steps of the next request that does both, once.",
    [required("of", Kind::Scalar(&NAME), "The service or consumer that does them.")],
    INSTANT
);
fault!(
    SKEW,
    "skew",
    TARGET,
    "A service, consumer, instance, share or zone.",
    "Clocks are ahead, or behind.",
    [required("by", Kind::Scalar(&OFFSET), "How far ahead; behind, if negative.")],
    LASTING
);
fault!(
    SURGE,
    "surge",
    TARGET,
    "A client, or `all`.",
    "A client's load is multiplied.",
    [required("by", Kind::Scalar(&FACTOR), "By how much.")],
    LASTING
);
fault!(DOWN, "down", NAMED, "A topic.", "A topic takes nothing and gives nothing.", [], LASTING);

static VERSION: Object = Object {
    name: "version",
    doc: "A new version of a service.",
    groups: &[&[
        value("slow", Kind::Scalar(&FACTOR), "1x", "no different", "Work and waits take this many times as long."),
        value("errors", Kind::Scalar(&SHARE), "0%", "no different", "Share of requests that fail with 500."),
        none("startup", DURATIONS, "as the old one's", "Its startup."),
    ]],
};
