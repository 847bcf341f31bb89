//! `bulkhead: { permits: 25, queue: 10, max_wait: 100ms }`

use plimsoll_policy::bulkhead::Config;
use plimsoll_policy::{Bulkhead, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, COUNT_OR_ZERO, DURATION};
use crate::file::table::{Field, Kind, Object, value};

pub(crate) static BULKHEAD: Object = Object {
    name: "bulkhead",
    doc: "Bulkhead: at most so many calls at once, so that one slow target cannot take every worker. The number of \
          permits alone may stand in place of the mapping.",
    groups: &[PERMITS, SHADOW],
};

/// The keys of a bulkhead, which the named bulkheads of a service share.
pub(crate) const PERMITS: &[Field] = &[
    value("permits", Kind::Scalar(&COUNT), "25", "resilience4j, maxConcurrentCalls", "Calls at once."),
    value(
        "queue",
        Kind::Scalar(&COUNT_OR_ZERO),
        "0",
        "resilience4j, maxWaitDuration 0: waiting hides an overload and adds to it",
        "Calls that wait for a permit.",
    ),
    value(
        "max_wait",
        Kind::Scalar(&DURATION),
        "1s",
        "a second is long for a caller",
        "How long a call waits at most, where there is a queue.",
    ),
];

pub(crate) fn bulkhead(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        permits: filled.get("permits").count(),
        queue: filled.get("queue").count(),
        max_wait: filled.get("max_wait").duration(),
        mode: mode(filled),
    };
    refused(Bulkhead::new(config, Time::ZERO), filled, &[], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &BULKHEAD, bulkhead).unwrap(), Config::default());
    }
}
