//! A request waits until the policies on what comes in let it in.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::Time;

use super::Incoming;
use crate::answers::OwnAnswer;
use crate::core::Core;
use crate::inbound::{Asked, Held, Inbound, Next, Woken};

/// Admits a request, perhaps after a wait, or says what to answer: nothing, if the client has gone. `quota_name`
/// is whose quota it counts against, where a store counts it.
pub async fn admit<I: Incoming>(
    inbound: &Arc<Inbound>,
    now: Time,
    asked: &Asked,
    quota_name: &[u8],
    core: &Core,
    incoming: &mut I,
) -> Result<Held, Option<OwnAnswer>> {
    let (mut held, mut next) = inbound.arrive(now, asked);
    loop {
        next = match next {
            Next::In => return Ok(held),
            Next::Refused(own) => return Err(Some(own)),
            Next::Count(limiter) => {
                let link = core.link(&limiter.quota.address);
                let answer = limiter.take(&link, core.clock, quota_name, now, core.random.bits()).await;
                held.counted(core.clock.now(), asked, answer)
            }
            Next::Wait(until) => match wait(&mut held, until, core, incoming).await {
                Some(Some(woken)) => held.woken(core.clock.now(), asked, woken),
                Some(None) => held.late(core.clock.now(), asked),
                None => return Err(None),
            },
        }
    }
}

/// What came, or that nothing did in time; none if the client has gone.
#[cold]
async fn wait<I: Incoming>(held: &mut Held, until: Time, core: &Core, incoming: &mut I) -> Option<Option<Woken>> {
    let mut timer = pin!(tokio::time::sleep_until(core.clock.instant(until)));
    poll_fn(|cx| {
        if let Poll::Ready(woken) = held.poll_woken(cx) {
            return Poll::Ready(Some(Some(woken)));
        }
        if incoming.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        timer.as_mut().poll(cx).map(|()| Some(None))
    })
    .await
}
