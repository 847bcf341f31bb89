//! `topics:` — logs of messages.

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::quantity::{COUNT, DURATION, FLAG, TEXT};
use super::table::{Kind, Object, absent, value};
use crate::system::{Topic, WhenFull};

pub(crate) static TOPIC: Object = Object {
    name: "topic",
    doc: "A log of messages. A key's messages stay in one partition, in order.",
    groups: &[&[
        absent("owner", Kind::Scalar(&TEXT), "the system's owner", "Who answers for it."),
        value(
            "partitions",
            Kind::Scalar(&COUNT),
            "1",
            "Kafka, num.partitions",
            "Partitions: each has at most one consumer instance.",
        ),
        value(
            "capacity",
            Kind::Scalar(&COUNT),
            "100k",
            "some 100 MB of small messages",
            "Unconsumed messages that it holds.",
        ),
        value(
            "when_full",
            Kind::Words(&[
                ("reject", "an error"),
                ("block", "a wait until there is room"),
                ("drop_oldest", "success; the oldest message is lost"),
            ]),
            "reject",
            "RabbitMQ's reject-publish: the one that loses nothing silently and holds no worker",
            "What a publisher meets when it is full.",
        ),
        value(
            "dead_letter",
            Kind::Scalar(&FLAG),
            "false",
            "Kafka has none of its own",
            "Whether messages that keep failing are set aside; without it they are dropped.",
        ),
        value(
            "retention",
            Kind::Scalar(&DURATION),
            "7d",
            "Kafka, log.retention.hours",
            "How long a message is kept, consumed or not.",
        ),
        value(
            "publish",
            DURATIONS,
            "2ms",
            "a guess: one replicated write within a zone",
            "Time of a publish as the caller sees it.",
        ),
        value(
            "relay",
            DURATIONS,
            "5ms",
            "a relay that is woken by the commit",
            "From a commit until the outbox relay has published.",
        ),
    ]],
};

impl Decoder<'_> {
    pub(super) fn topics(&mut self, root: &Filled) -> Vec<Topic> {
        let owners = root.get("owners").map();
        let mut topics = Vec::new();
        for (key, filled) in root.get("topics").map() {
            topics.push(Topic {
                name: key.text.clone(),
                owner: self.owner(filled, owners),
                partitions: filled.get("partitions").count(),
                capacity: filled.get("capacity").count(),
                when_full: match filled.get("when_full").text() {
                    "block" => WhenFull::Block,
                    "drop_oldest" => WhenFull::DropOldest,
                    _ => WhenFull::Reject,
                },
                dead_letter: filled.get("dead_letter").flag(),
                retention: filled.get("retention").nanos(),
                publish: self.dist(filled.get("publish")),
                relay: self.dist(filled.get("relay")),
                line: key.at.line,
            });
        }
        topics
    }
}
