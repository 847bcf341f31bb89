//! `idempotency: { header: Idempotency-Key, keep: 24h }`

use plimsoll_policy::Idempotency;
use plimsoll_policy::idempotency::Config;

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, TEXT};
use crate::file::table::{Kind, Object, value};

pub(crate) static IDEMPOTENCY: Object = Object {
    name: "idempotency",
    doc: "Remembers the answers to requests with an idempotency key, so that a repetition has no second effect. Every \
          request counts as carrying one, so all endpoints may be retried.",
    groups: &[
        &[
            value(
                "header",
                Kind::Scalar(&TEXT),
                "Idempotency-Key",
                "IETF draft-ietf-httpapi-idempotency-key-header",
                "The header that carries the key.",
            ),
            value("keep", Kind::Scalar(&DURATION), "24h", "Stripe's API", "How long an answer is kept."),
            value(
                "lease",
                Kind::Scalar(&DURATION),
                "60s",
                "above any request timeout",
                "How long a request may be in progress before it counts as dead.",
            ),
            value(
                "max_keys",
                Kind::Scalar(&COUNT),
                "100k",
                "some 20 MB",
                "Keys remembered, over all instances. While the table is full, a new key is refused with 503.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) fn idempotency(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        keep: filled.get("keep").duration(),
        lease: filled.get("lease").duration(),
        keys_max: filled.get("max_keys").count(),
        mode: mode(filled),
    };
    refused(Idempotency::<()>::new(config), filled, &[("keys_max", "max_keys")], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &IDEMPOTENCY, idempotency).unwrap(), Config::default());
    }
}
