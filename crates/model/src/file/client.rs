//! `clients:` — those who ask.

use super::arrivals::{ARRIVALS, BURST};
use super::decode::Decoder;
use super::distribution::{DURATIONS, KEY_DISTRIBUTION};
use super::edge::{CLIENT_TIMEOUT, LATENCY, LIMITS, TARGET, TRIES};
use super::filled::Filled;
use super::quantity::{CLASS, COUNT, NAME, NUMBER_POSITIVE, RATE, TEXT};
use super::table::{Default, Field, Kind, Object, When, absent, required, value};
use crate::system::{Client, ClientCall, ClientId, Component};

pub(crate) static CLIENT: Object = Object {
    name: "client",
    doc: "Those who ask: a population of users, or a program. Policies on its calls stand directly on it.",
    groups: &[
        &[
            absent("rate", Kind::Scalar(&RATE), "no open loop", "Open loop: requests come at this rate, whether or not earlier ones were answered."),
            value("arrivals", Kind::Scalar(&ARRIVALS), "poisson", "independent users", "Spacing of open-loop arrivals: `poisson`, `constant`, `bursty`, or `trace(file.csv)` with one arrival time in seconds a line.").when(|client| !client.get("think").is_set(), "in an open loop, without `think`"),
            Field {
                key: "burst",
                kind: Kind::OrNone(&Kind::Object(&BURST)),
                default: Default::Derived {
                    from: |client| if client.get("arrivals").text() == "bursty" { "{}".to_owned() } else { "none".to_owned() },
                    rule: "its own defaults where arrivals are bursty",
                    source: "a guess: measure yours",
                },
                doc: "Bursts of arrivals.",
                when: Some(When { holds: |client| client.get("arrivals").text() == "bursty", words: "where `arrivals` is `bursty`" }),
            },
            value("users", Kind::Scalar(&COUNT), "10k", "a guess: count yours", "Distinct users: per-user limits, sessions, blast radius. In a closed loop, how many there are."),
            absent("think", DURATIONS, "no closed loop", "Closed loop: each user waits for the answer, then so long, then asks again."),
            required("calls", Kind::List(&Kind::Short(&CLIENT_CALL, "endpoint")), "What is called, each with its share."),
            absent("zone", Kind::Scalar(&NAME), "outside every zone", "The zone it is in."),
        ],
        CLIENT_TIMEOUT,
        TRIES,
        LIMITS,
        TARGET,
        LATENCY,
    ],
};

pub(crate) static CLIENT_CALL: Object = Object {
    name: "client_call",
    doc: "One thing that a client calls. The endpoint alone may stand in place of the mapping.",
    groups: &[&[
        required("endpoint", Kind::Scalar(&TEXT), "The service and its endpoint, as in `edge GET /notes/:id`."),
        value(
            "weight",
            Kind::Scalar(&NUMBER_POSITIVE),
            "1",
            "equal shares",
            "Share of the client's requests, relative to the other calls' weights.",
        ),
        absent(
            "key",
            KEY_DISTRIBUTION,
            "every request has a key of its own",
            "Which key a request is about: decides on cache hits, shards, row locks and hashing.",
        ),
        value(
            "class",
            Kind::Scalar(&CLASS),
            "0",
            "every request matters",
            "Priority class: 0 is the most important, and the last to be shed.",
        ),
    ]],
};

impl Decoder<'_> {
    pub(super) fn clients(&mut self, root: &Filled) -> Vec<Client> {
        let clients = root.get("clients");
        if clients.map().is_empty() && !clients.is_bad() {
            self.report.at(root.place("clients"), "a system needs at least one client".to_owned());
        }
        let decode = |(index, (key, client)): (usize, &(super::tree::Key, Filled))| Client {
            name: key.text.clone(),
            arrivals: self.arrivals(client),
            users: client.get("users").count(),
            calls: self.client_calls(ClientId::from(index), client),
            zone: client.maybe("zone").and_then(|zone| self.names.zone(zone.text())),
            line: key.at.line,
        };
        clients.map().iter().enumerate().map(decode).collect()
    }

    fn client_calls(&mut self, client: ClientId, filled: &Filled) -> Vec<ClientCall> {
        let calls = filled.get("calls");
        if calls.list().is_empty() && !calls.is_bad() {
            self.report.at(filled.place("calls"), "a client needs at least one call".to_owned());
        }
        let mut decoded = Vec::with_capacity(calls.list().len());
        for call in calls.list() {
            let key = call.maybe("key").map(|key| self.key_dist(key));
            let Some(endpoint) = self.endpoint(call.get("endpoint")) else { continue };
            let to = Component::Service(endpoint.service);
            decoded.push(ClientCall {
                edge: self.edge(Component::Client(client), to),
                endpoint,
                weight: call.get("weight").number(),
                key,
                class: u8::try_from(call.get("class").count()).unwrap_or(u8::MAX),
            });
        }
        decoded
    }
}
