//! A backend: who gets a request, how long it may take, what is tried again, what stands in for an answer.

use plimsoll_model::system::FallbackAnswer;
use plimsoll_model::system::policy::balance::Algorithm;

use super::cache::cached;
use super::servers::servers;
use super::words::{numbered, weak};
use crate::gateway::{Gateway, LONGEST, Upstream, acts};
use crate::text::{Text, number, people, quoted, short};

pub(super) fn backend(out: &mut Text, gateway: &Gateway, index: usize) {
    let upstream = &gateway.upstreams[index];
    let policies = upstream.policies;
    let pipeline = &policies.pipeline;
    out.note(0, upstream.origin());
    let served = gateway.endpoints.iter().filter(|endpoint| endpoint.upstream == index);
    out.note(0, served.map(|endpoint| endpoint.name).collect::<Vec<_>>().join(", "));
    out.line(0, format!("backend {}", upstream.name));
    balance(out, upstream);
    out.gap();
    timeouts(out, gateway, upstream);
    if let Some(bulkhead) = upstream.bulkhead() {
        out.gap();
        out.note(1, format!("`bulkhead.permits` {}", bulkhead.permits));
        if bulkhead.queue > 0 {
            out.note(
                1,
                format!(
                    "`bulkhead.queue` {}: HAProxy's queues are for instances, not for the calls to all of them; what would \
                     wait is refused.",
                    bulkhead.queue
                ),
            );
        }
        // The request that asks is counted already.
        out.line(
            1,
            format!("http-request return status 503 if {{ be_conn({}) gt {} }}", upstream.name, bulkhead.permits),
        );
    }
    if let Some(most) = policies.max_connections {
        // What is in flight here, where nothing may wait; else what waits, also where instances are out.
        let (what, most) = match policies.max_pending {
            0 => ("be_conn", format!("gt {}", u64::from(most) * upstream.addresses.len() as u64)),
            pending => ("queue", format!("ge {pending}")),
        };
        out.gap();
        out.note(1, format!("`max_pending` {}", policies.max_pending));
        out.line(1, format!("http-request return status 503 if {{ {what}({}) {most} }}", upstream.name));
    }
    out.gap();
    retries(out, gateway, index);
    if pipeline.breaker.is_some_and(|breaker| acts(breaker.mode)) {
        out.note(
            1,
            "`breaker`: HAProxy has none for a whole backend. It goes on asking as long as one instance is in.",
        );
    }
    if pipeline.hedge.is_some_and(|hedge| acts(hedge.mode)) {
        out.note(1, "`hedge`: HAProxy sends a request once at a time.");
    }
    if policies.coalesce {
        out.note(1, "`coalesce`: HAProxy sends every request.");
    }
    let shadows = upstream.shadows();
    if !shadows.is_empty() {
        out.note(1, format!("{} with `shadow`: left out, since HAProxy could not but act.", quoted(shadows)));
    }
    cached(out, gateway, index);
    fallback(out, gateway, index);
    out.gap();
    servers(out, gateway, upstream);
}

fn balance(out: &mut Text, upstream: &Upstream) {
    let balance = &upstream.policies.balance;
    match balance.algorithm {
        Algorithm::RoundRobin | Algorithm::Weighted => out.line(1, "balance roundrobin"),
        Algorithm::LeastConnections => out.line(1, "balance leastconn"),
        Algorithm::P2c => {
            out.note(1, "`balance: p2c`: by requests in flight alone, not by latency.");
            out.line(1, format!("balance random({})", balance.choices));
        }
        Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev => {
            out.note(
                1,
                match balance.algorithm {
                    Algorithm::IpHash => {
                        "`balance: ip_hash`: on a ring, where few users move when an instance goes. HAProxy's plain hash \
                         (map-based) would lead a further try to the same instance again."
                    }
                    Algorithm::Maglev => "`balance: maglev`: HAProxy has no Maglev; a ring is consistent too.",
                    _ => "`balance: ring`: HAProxy has 16 points for each weight, which makes `ring_points` of them.",
                },
            );
            out.line(1, "balance hash var(txn.user)");
            out.line(1, "hash-type consistent");
            if balance.algorithm != Algorithm::IpHash && balance.bounded_load.is_finite() {
                out.note(1, "`balance.bounded_load`");
                out.line(
                    1,
                    format!(
                        "hash-balance-factor {}",
                        number((balance.bounded_load * 100.0).round().clamp(101.0, 65_535.0))
                    ),
                );
            }
        }
    }
    if balance.shadow.is_some() {
        out.note(1, "`balance.shadow`: not in HAProxy.");
    }
}

fn timeouts(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let pipeline = &upstream.policies.pipeline;
    match (pipeline.timeout, pipeline.per_try_timeout) {
        (None, None) => out.note(1, "`timeout: none`: HAProxy warns where it has none; this is 24 days."),
        (timeout, per_try) => {
            if let Some(per_try) = per_try {
                out.note(1, format!("`per_try_timeout` {}", people(per_try)));
            }
            if let Some(timeout) = timeout {
                let more = if upstream.attempts() > 1 {
                    "; so a request that is tried again may take that long each time"
                } else {
                    ""
                };
                out.note(
                    1,
                    format!(
                        "`timeout` {}: HAProxy measures a try's silence, not a request in all{more}.",
                        people(timeout)
                    ),
                );
            }
        }
    }
    let one_try = short(upstream.try_timeout().unwrap_or(LONGEST), LONGEST);
    out.line(1, format!("timeout connect {}", short(upstream.connect_timeout(gateway), LONGEST)));
    out.line(1, format!("timeout server {one_try}"));
    out.line(1, format!("timeout queue {}", short(pipeline.timeout.unwrap_or(LONGEST), LONGEST)));
}

fn retries(out: &mut Text, gateway: &Gateway, index: usize) {
    let upstream = &gateway.upstreams[index];
    let pipeline = &upstream.policies.pipeline;
    let when = upstream.policies.retry_when;
    let mut words = Vec::new();
    for (word, wanted) in [
        ("conn-failure", when.connect_error),
        ("empty-response", when.reset),
        ("response-timeout", when.timeout),
        ("500", when.internal_error),
        // What is no answer of ours counts as 503 does.
        ("502 503 504", when.unavailable),
    ] {
        if wanted {
            words.push(word);
        }
    }
    let attempts = upstream.attempts();
    let repeatable = gateway.numbers(|endpoint| endpoint.upstream == index && endpoint.idempotent);
    if attempts > 1 && when.too_many_requests {
        out.note(1, "`retry.when` 429: HAProxy 2.6 has no retry for it.");
    }
    if attempts == 1 || words.is_empty() || repeatable.is_empty() {
        out.note(1, "No further tries; HAProxy's own three are off.");
        out.line(1, "retries 0");
        return;
    }
    out.note(1, "`retry.attempts`, the first included; each at another instance.");
    out.line(1, format!("retries {}", attempts - 1));
    out.line(1, "option redispatch 1");
    out.line(1, format!("retry-on {}", words.join(" ")));
    if repeatable.len() < gateway.numbers(|endpoint| endpoint.upstream == index).len() {
        out.note(1, "What may not be repeated is tried again only where it could not be sent.");
        numbered(out, "repeatable", &repeatable);
        out.line(1, "http-request disable-l7-retry unless repeatable");
    }
    out.note(1, "`retry.backoff`, `throttled` and `retry_after_slack`: HAProxy tries the next instance at once.");
    if pipeline.budget.is_some_and(|budget| acts(budget.mode)) {
        out.note(1, "`retry.budget`: HAProxy has none. Where every try fails, the load is multiplied by the tries.");
    }
}

fn fallback(out: &mut Text, gateway: &Gateway, index: usize) {
    let of = |answer| gateway.numbers(|endpoint| endpoint.upstream == index && endpoint.fallback == Some(answer));
    let answers = gateway.fallbacks();
    let answers: Vec<_> = (1..).zip(answers).filter(|(_, answer)| !of(answer).is_empty()).collect();
    let Some((_, first)) = answers.first() else { return };
    out.gap();
    out.note(1, "`fallback`: for what instances answer, and for HAProxy's own errors.");
    for (number, answer) in &answers {
        let acl = format!("falls_back_{number}");
        numbered(out, &acl, &of(answer));
        let status = answer.status;
        out.line(
            1,
            format!("http-response return status {status} {} if {acl} {{ status 408 429 500:599 }}", content(answer)),
        );
        out.line(1, format!("http-after-response set-status {status} if {acl} {{ status 500:599 }}"));
    }
    if answers.len() > 1 {
        out.note(1, "HAProxy's own errors have one text a backend: the first.");
    }
    for status in [500, 502, 503, 504] {
        out.line(1, format!("http-error status {status} {}", content(first)));
    }
}

fn content(answer: &FallbackAnswer) -> String {
    format!("content-type {} string {}", weak(&answer.content_type), weak(&answer.body))
}
