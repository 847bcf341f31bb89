//! `leases:` — one instance of a service at a time.

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::quantity::{DURATION, FLAG, NAME};
use super::table::{Default, Field, Kind, Object, required, value};
use crate::system::{Lease, ServiceId};

pub(crate) static LEASE: Object = Object {
    name: "lease",
    doc: "A lease that one instance of a service holds at a time, such as that of a leader or a scheduler.",
    groups: &[&[
        required("service", Kind::Scalar(&NAME), "The service whose instances compete for it."),
        value(
            "ttl",
            Kind::Scalar(&DURATION),
            "15s",
            "Kubernetes' leader election, LeaseDuration",
            "How long it holds without renewal.",
        ),
        Field {
            key: "renew",
            kind: Kind::Scalar(&DURATION),
            default: Default::Derived {
                from: |lease| format!("{}ns", (lease.get("ttl").nanos() / 3).max(1)),
                rule: "a third of `ttl`",
                source: "etcd's clients",
            },
            doc: "Between renewals; less than `ttl`.",
            when: None,
        },
        value(
            "write_every",
            Kind::Scalar(&DURATION),
            "1s",
            "a guess: look yours up",
            "Between writes that the holder makes under it.",
        ),
        value("write", DURATIONS, "10ms", "a guess: look yours up", "Time that a write takes."),
        value(
            "fencing",
            Kind::Scalar(&FLAG),
            "false",
            "most locks give no token",
            "Whether the resource checks the token, and refuses the late write of an old holder.",
        ),
    ]],
};

impl Decoder<'_> {
    pub(super) fn leases(&mut self, root: &Filled) -> Vec<Lease> {
        let mut leases = Vec::new();
        for (key, filled) in root.get("leases").map() {
            let (ttl, renew) = (filled.get("ttl"), filled.get("renew"));
            if !ttl.is_bad() && !renew.is_bad() && renew.nanos() >= ttl.nanos() {
                self.report.at(
                    filled.place("renew"),
                    "the lease runs out before it is renewed: `renew` must be below `ttl`".to_owned(),
                );
            }
            leases.push(Lease {
                name: key.text.clone(),
                service: self.service(filled.get("service")).unwrap_or(ServiceId(0)),
                ttl: ttl.nanos(),
                renew: renew.nanos(),
                write_every: filled.get("write_every").nanos(),
                write: self.dist(filled.get("write")),
                fencing: filled.get("fencing").flag(),
                line: key.at.line,
            });
        }
        leases
    }
}
