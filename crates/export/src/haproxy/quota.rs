//! Quotas and counted connections: tables, and who is turned away.

use std::time::Duration;

use plimsoll_model::system::RateLimitKey;
use plimsoll_model::system::policy::rate_limit;

use crate::gateway::{Gateway, LONGEST, acts, at_once, quota};
use crate::text::{Text, short};

/// The shortest stretch of time that is counted well: HAProxy's clock has milliseconds.
const STRETCH: u128 = 100_000_000;

pub(super) fn clients_name(gateway: &Gateway) -> String {
    format!("{}_clients", gateway.service.name)
}

/// The tables that connections and a rate limit are counted in.
pub(super) fn table(out: &mut Text, gateway: &Gateway) {
    let limits = &gateway.serving.limits;
    out.gap();
    out.note(0, "`limits.connections_per_client` are counted here.");
    out.line(0, format!("backend {}", clients_name(gateway)));
    let idle = short(Duration::from_nanos(limits.idle_timeout), LONGEST);
    out.line(1, format!("stick-table type ipv6 size {} expire {idle} store conn_cur", limits.connections));
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    let (kind, keys) = match (limit.per, config.scope) {
        (RateLimitKey::User, rate_limit::Scope::PerKey { max_keys }) if gateway.user_header.is_some() => {
            ("string len 64", max_keys)
        }
        (RateLimitKey::User | RateLimitKey::Client, rate_limit::Scope::PerKey { max_keys }) => ("ipv6", max_keys),
        (RateLimitKey::Endpoint, rate_limit::Scope::PerKey { max_keys }) => ("integer", max_keys),
        _ => ("integer", 1),
    };
    let (admitted, window) = window(config);
    out.gap();
    let shape = match config.algorithm {
        rate_limit::Algorithm::Gcra { .. } => {
            "HAProxy counts over a sliding stretch of time: `burst` in the time in which the quota gives as many again"
        }
        rate_limit::Algorithm::SlidingWindow => "HAProxy estimates the sliding stretch from two that stand still",
        rate_limit::Algorithm::FixedWindow => {
            "HAProxy's stretch of time slides, and so admits no more around a boundary"
        }
    };
    out.note(0, format!("`rate_limit.quota` {}{}. {shape}.", quota(config), per(limit.per)));
    if admitted > u64::from(at_once(config)) {
        out.note(0, format!("A burst of {} would be over too soon to count: {admitted} here.", at_once(config)));
    }
    if keys > 1 {
        out.note(0, format!("`rate_limit.max_keys` {keys}"));
    }
    out.line(0, format!("backend {}", table_name(gateway)));
    let window = short(window, LONGEST);
    out.line(1, format!("stick-table type {kind} size {keys} expire {window} store gpc0_rate({window})"));
}

fn per(per: RateLimitKey) -> &'static str {
    match per {
        RateLimitKey::User => " for each user",
        RateLimitKey::Client => {
            ", `per: client`: HAProxy cannot tell programs apart, and counts by the address that a connection comes from"
        }
        RateLimitKey::Endpoint => " for each endpoint",
        RateLimitKey::All => "",
    }
}

fn table_name(gateway: &Gateway) -> String {
    format!("{}_rate_limit", gateway.service.name)
}

/// How many are admitted in which stretch of time: what is admitted at once, in the time in which the quota gives as
/// many again, or so many times both that the stretch is long enough to count.
fn window(config: &rate_limit::Config) -> (u64, Duration) {
    let at_once = u128::from(at_once(config));
    let limit = u128::from(config.limit.max(1));
    let all = config.per.as_nanos() * at_once;
    let times = (STRETCH * limit).div_ceil(all.max(1)).max(1);
    let nanos = u64::try_from(all * times / limit).unwrap_or(u64::MAX);
    (u64::try_from(at_once * times).unwrap_or(u64::MAX), Duration::from_nanos(nanos))
}

pub(super) fn rate_limited(out: &mut Text, gateway: &Gateway) {
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    let key = match limit.per {
        RateLimitKey::User => "var(txn.user)",
        RateLimitKey::Client => "src",
        RateLimitKey::Endpoint => "var(txn.endpoint)",
        RateLimitKey::All => "int(1)",
    };
    out.gap();
    out.note(1, "`rate_limit`: only what is admitted counts, so that whoever asks on and on is not shut out for it.");
    if limit.store.is_some() {
        out.note(1, "`rate_limit.store`: each HAProxy counts for itself; so `store_down` has nothing to decide.");
    }
    out.line(1, format!("http-request track-sc0 {key} table {}", table_name(gateway)));
    if acts(config.mode) {
        let again = config.per.as_nanos().div_ceil(u128::from(config.limit.max(1)) * 1_000_000_000).max(1);
        out.line(
            1,
            format!(
                "http-request deny deny_status 429 hdr Retry-After {again} if {{ sc_gpc0_rate(0) ge {} }}",
                window(config).0
            ),
        );
    } else {
        out.note(1, format!("`rate_limit.shadow`: counted and not refused; see `show table {}`.", table_name(gateway)));
    }
    out.line(1, "http-request sc-inc-gpc0(0)");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_comes_back_at_the_quotas_rate() {
        let mut config = rate_limit::Config::new(100, Duration::from_secs(60));
        assert_eq!(window(&config), (10, Duration::from_secs(6)));
        config.algorithm = rate_limit::Algorithm::SlidingWindow;
        assert_eq!(window(&config), (100, Duration::from_secs(60)));
        config = rate_limit::Config::new(10_000, Duration::from_secs(1));
        assert_eq!(window(&config), (1_000, Duration::from_millis(100)));
        // One each tenth of a millisecond cannot be counted; a thousand each 100 ms can.
        config.algorithm = rate_limit::Algorithm::Gcra { burst: Some(1) };
        assert_eq!(window(&config), (1_000, Duration::from_millis(100)));
    }
}
