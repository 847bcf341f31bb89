//! Which attempts are repeated, and at whom.

use super::Retry;
use crate::gateway::{LONGEST, Upstream, acts};
use crate::text::{Text, short};

pub(super) fn retries(out: &mut Text, upstream: &Upstream, retry: Retry) {
    let pipeline = &upstream.policies.pipeline;
    let when = upstream.policies.retry_when;
    let mut words = Vec::new();
    if when.connect_error || when.reset {
        words.push("error");
    }
    if when.timeout {
        words.push("timeout");
    }
    for (status, wanted) in
        [("http_429", when.too_many_requests), ("http_500", when.internal_error), ("http_503", when.unavailable)]
    {
        if wanted {
            words.push(status);
        }
    }
    if retry == Retry::None || words.is_empty() {
        out.note(3, "No further tries; nginx's own `error timeout` is off.");
        out.line(3, "proxy_next_upstream off;");
        return;
    }
    let config = pipeline.retry.expect("there are attempts");
    if when.connect_error != when.reset {
        let (said, other) = if when.connect_error { ("connect_error", "reset") } else { ("reset", "connect_error") };
        out.note(3, format!("`retry.when` has {said} and not {other}; to nginx both are an `error`."));
    }
    match retry {
        Retry::Always => {
            out.note(3, "These may be repeated whatever their method: `non_idempotent`.");
            words.push("non_idempotent");
        }
        _ => out.note(
            3,
            "nginx repeats no POST or PATCH that was sent; one that could not be sent it does send elsewhere.",
        ),
    }
    out.line(3, format!("proxy_next_upstream {};", words.join(" ")));
    let instances = upstream.addresses.len();
    if config.attempts as usize > instances {
        out.note(
            3,
            format!(
                "`retry.attempts` {}: nginx tries an instance once for a request, and there are {instances}.",
                config.attempts
            ),
        );
    }
    out.line(3, format!("proxy_next_upstream_tries {};", config.attempts));
    if let Some(timeout) = pipeline.timeout {
        out.line(3, format!("proxy_next_upstream_timeout {};", short(timeout, LONGEST)));
    }
    out.note(3, "`retry.backoff`, `throttled` and `retry_after_slack`: nginx tries the next instance at once.");
    if pipeline.budget.is_some_and(|budget| acts(budget.mode)) {
        out.note(3, "`retry.budget`: nginx has none. Where every try fails, the load is multiplied by the tries.");
    }
}
