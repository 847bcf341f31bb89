//! `objectives:` — what is promised to users.

use super::decode::Decoder;
use super::filled::Filled;
use super::quantity::{DURATION, NAME, Quantity, TARGET, Wrong, call, duration};
use super::suggest;
use super::table::{Json, Kind, Object, Scalar, required, value};
use super::tree::Span;
use crate::system::{Component, Indicator, Objective, Subject};

pub(crate) static OBJECTIVE: Object = Object {
    name: "objective",
    doc: "What is promised to users, in OpenSLO's words: a share of good requests over a window.",
    groups: &[&[
        required("name", Kind::Scalar(&NAME), "Its name."),
        required(
            "indicator",
            Kind::Scalar(&INDICATOR),
            "What makes a request good: `success(SUBJECT)`, or `latency(SUBJECT) < 200ms` for an answer without error within that time. A subject is `all`, a client, or an endpoint such as `edge GET /notes/:id`.",
        ),
        required("target", Kind::Scalar(&TARGET), "Share of good requests."),
        value(
            "window",
            Kind::Scalar(&DURATION),
            "30d",
            "the SRE workbook's usual window",
            "The window that the promise covers.",
        ),
    ]],
};

pub(crate) static INDICATOR: Scalar = Scalar {
    what: "an indicator",
    example: "success(all)` or `latency(edge GET /notes) < 200ms",
    pattern: r"^(success\(.+\)|latency\(.+\) *< *[0-9.]+[a-zµ]+)$",
    json: Json::String,
    parse: |text| split(text).map(|_| Quantity::Text),
};

/// The subject's text, and the latency that bounds a good request.
fn split(text: &str) -> Result<(&str, Option<u64>), Wrong> {
    let wrong = |why: &str| Err(Wrong { why: why.to_owned(), help: None });
    let (head, bound) = match text.rsplit_once('<') {
        Some((head, bound)) => (head.trim_end(), Some(bound.trim())),
        None => (text, None),
    };
    let Some((indicator, subject)) = call(head) else { return wrong("it has no subject in parentheses") };
    if subject.is_empty() {
        return wrong("its subject is empty; `all` stands for every request");
    }
    match (indicator, bound) {
        ("success", None) => Ok((subject, None)),
        ("success", Some(_)) => wrong("`success` has no bound"),
        ("latency", Some(bound)) => match duration(bound) {
            Ok(0) => wrong("no answer takes no time"),
            Ok(bound) => Ok((subject, Some(bound))),
            Err(inner) => {
                Err(Wrong { why: format!("`{}`: {}", super::tree::shorten(bound), inner.why), help: inner.help })
            }
        },
        ("latency", None) => wrong("`latency` needs a bound, as in `< 200ms`"),
        (other, _) => Err(Wrong {
            why: format!("`{}` is no indicator", super::tree::shorten(other)),
            help: Some(suggest::help(other, ["success", "latency"], "")),
        }),
    }
}

impl Decoder<'_> {
    pub(super) fn objectives(&mut self, root: &Filled) -> Vec<Objective> {
        const MONTH_NS: u64 = 30 * 86_400_000_000_000;
        let objectives = root.get("objectives");
        if !objectives.is_set() || objectives.list().is_empty() {
            let unstated = |name: &str, indicator, target| Objective {
                name: name.to_owned(),
                indicator,
                subject: Subject::All,
                target,
                window: MONTH_NS,
                stated: false,
                line: 0,
            };
            return vec![
                unstated("answers", Indicator::Success, 0.999),
                unstated("fast-enough", Indicator::LatencyBelow(1_000_000_000), 0.99),
            ];
        }
        let mut decoded: Vec<Objective> = Vec::new();
        for filled in objectives.list() {
            let name = filled.get("name");
            if let Some(other) = decoded.iter().find(|other| !name.is_bad() && other.name == name.text()) {
                let help = format!("line {} has it too", other.line);
                self.report.at(name.at, format!("the name `{}` is taken", name.text())).help(help);
            }
            let indicator = filled.get("indicator");
            let Ok((subject, bound)) = split(indicator.text()) else { continue };
            let offset = indicator.text().find('(').map_or(0, |open| open + 1);
            let at = indicator.at.part(offset, subject.chars().count());
            let Some(subject) = self.subject(at, subject) else { continue };
            decoded.push(Objective {
                name: name.text().to_owned(),
                indicator: bound.map_or(Indicator::Success, Indicator::LatencyBelow),
                subject,
                target: filled.get("target").number(),
                window: filled.get("window").nanos(),
                stated: true,
                line: filled.at.line,
            });
        }
        decoded
    }

    /// `all`, a client, or an endpoint.
    pub(super) fn subject(&mut self, at: Span, text: &str) -> Option<Subject> {
        if text == "all" {
            return Some(Subject::All);
        }
        if let Some(Component::Client(id)) = self.names.find(text) {
            return Some(Subject::Client(id));
        }
        if !text.contains(char::is_whitespace) && self.names.find(text).is_none() {
            let known = self
                .names
                .all()
                .filter(|(_, component)| matches!(component, Component::Client(_)))
                .map(|(name, _)| name)
                .chain(["all"]);
            super::names::unknown(at, "client", text, known, self.report);
            return None;
        }
        self.endpoint_named(at, text).map(Subject::Endpoint)
    }
}
