//! Leases and fences under any interleaving: tokens grow, and the resource sees no older one.

use std::time::Duration;

use plimsoll_policy::lease::{Config, Fence, Lease, Token};
use plimsoll_policy::{Mode, Time};
use proptest::prelude::*;

proptest! {
    #[test]
    fn tokens_grow_and_the_fence_refuses_older_ones(
        steps in prop::collection::vec((0u8..6, 0u64..3, 0u64..20), 1..300),
    ) {
        let ttl = Duration::from_secs(15);
        let mut lease = Lease::new(Config { ttl, mode: Mode::Enforce }, 0).unwrap();
        let mut fence = Fence::new(Mode::Enforce);
        let mut now = Time::ZERO;
        // What each holder believes it has, checked by nobody but the resource.
        let mut believed: [Option<Token>; 3] = [None; 3];
        let (mut granted, mut written) = (0, 0);
        for (what, holder, wait) in steps {
            now = now + Duration::from_secs(wait);
            let before = lease.holder(now);
            match (what, believed[holder as usize]) {
                (0, Some(token)) => {
                    let renewed = lease.renew(now, token);
                    prop_assert!(renewed.is_err() || before == Some(holder));
                }
                (1, Some(token)) => { lease.release(token); }
                (2 | 3, Some(token)) => {
                    let accepted = fence.check(token).is_ok();
                    prop_assert_eq!(accepted, token.get() >= written, "token {:?} after {}", token, written);
                    written = written.max(token.get());
                }
                _ => match lease.acquire(now, holder) {
                    Ok(grant) => {
                        prop_assert!(before.is_none_or(|b| b == holder), "one holder at a time");
                        prop_assert!(grant.token.get() > granted, "tokens strictly grow");
                        prop_assert_eq!(grant.until, now + ttl);
                        prop_assert!(grant.renew_at < grant.until);
                        granted = grant.token.get();
                        believed[holder as usize] = Some(grant.token);
                    }
                    Err(rejected) => prop_assert!(rejected.retry_at.is_some_and(|at| at > now)),
                },
            }
        }
    }
}

#[test]
fn a_lease_of_no_length_is_refused() {
    let config = Config { ttl: Duration::ZERO, ..Config::default() };
    assert_eq!(Lease::new(config, 0).map(|_| ()).unwrap_err().field, "ttl");
}
