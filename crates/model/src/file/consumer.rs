//! `consumers:` — those who handle a topic's messages. Each runs in a hidden service of its name,
//! with one endpoint, so that its calls have edges and policies as any other's.

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::names::HANDLE;
use super::quantity::{COUNT, DIST, DURATION, FLAG, NAME, SHARE};
use super::service::{CALLS, PLACE, PROCESS, SCALABILITY};
use super::step::STEPS;
use super::table::{Kind, Object, none, required, value};
use crate::system::{Action, Consumer, Endpoint, Program, Service, Step, TopicId};

pub(crate) static CONSUMER: Object = Object {
    name: "consumer",
    doc: "Those who handle a topic's messages: a group that shares the partitions.",
    groups: &[
        &[
            required("topic", Kind::Scalar(&NAME), "The topic."),
            required(
                "handler",
                Kind::Or(&[Kind::Scalar(&DIST), STEPS, Kind::Choice(&super::distribution::DISTRIBUTION)]),
                "What handling a message does: a duration of work, or steps.",
            ),
            value(
                "concurrency",
                Kind::Scalar(&COUNT),
                "1",
                "a Kafka consumer is one thread",
                "Messages that one instance handles at once.",
            ),
            value(
                "attempts",
                Kind::Scalar(&COUNT),
                "10",
                "a common dead-letter limit",
                "Deliveries of one message before it is set aside or dropped.",
            ),
            value("backoff", DURATIONS, "1s", "a pause that outlasts a hiccup", "Wait before a redelivery."),
            value(
                "poison",
                Kind::Scalar(&SHARE),
                "0%",
                "messages without faults",
                "Share of messages that fail whenever they are handled.",
            ),
            value(
                "ack_first",
                Kind::Scalar(&FLAG),
                "false",
                "at least once",
                "Whether a message is acknowledged before it is handled: a crash then loses it.",
            ),
            none("dedup", Kind::Short(&DEDUP, "keep"), "a duplicate takes effect twice", "Remembers handled messages."),
        ],
        PLACE,
        PROCESS,
        SCALABILITY,
        &[value("calls", CALLS, "{}", "every target has the defaults", "Policies on the handler's calls, by target.")],
    ],
};

static DEDUP: Object = Object {
    name: "dedup",
    doc: "Remembers handled messages, so that a duplicate has no second effect. The time alone may stand in place of the \
          mapping.",
    groups: &[&[value(
        "keep",
        Kind::Scalar(&DURATION),
        "7d",
        "as long as the topic keeps messages",
        "How long; redeliveries may come as late as the topic's retention.",
    )]],
};

impl Decoder<'_> {
    pub(super) fn consumers(&mut self, root: &Filled, services: &mut Vec<Service>) -> Vec<Consumer> {
        let owners = root.get("owners").map();
        let mut consumers = Vec::new();
        for (index, (key, filled)) in root.get("consumers").map().iter().enumerate() {
            let id = self.names.hidden(index.into());
            let handler = self.handler(id, filled.get("handler"));
            let owner = self.owner(filled, owners);
            let mut service = self.process(filled, key.text.clone(), key.at.line);
            service.owner = owner.clone();
            service.zones = self.zones(filled.get("zones"));
            service.endpoints = vec![Endpoint {
                name: HANDLE.to_owned(),
                program: handler.clone(),
                idempotent: filled.get("dedup").is_set(),
                class: None,
                errors: 0.0,
                response_size: 0,
                line: key.at.line,
            }];
            service.scalability = self.scalability(filled, &service.endpoints);
            services.push(service);
            consumers.push(Consumer {
                name: key.text.clone(),
                owner,
                topic: self.topic(filled.get("topic")).unwrap_or(TopicId(0)),
                instances: filled.get("instances").count(),
                handler,
                service: id,
                attempts: filled.get("attempts").count(),
                backoff: self.dist(filled.get("backoff")),
                poison: filled.get("poison").number(),
                ack_first: filled.get("ack_first").flag(),
                dedup: filled.get("dedup").set().map(|dedup| dedup.get("keep").nanos()),
                line: key.at.line,
            });
        }
        consumers
    }

    fn handler(&mut self, id: crate::system::ServiceId, handler: &Filled) -> Program {
        if matches!(handler.value, super::filled::Value::List(_)) {
            return self.program(id, handler);
        }
        let work = Action::Work(self.dist(handler));
        vec![Step { action: work, name: None, optional: None, line: handler.at.line }]
    }
}
