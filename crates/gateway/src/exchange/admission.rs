//! A request waits until the policies on what comes in let it in.

use std::future::{Future, poll_fn};
use std::hash::Hasher;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::Time;

use super::facts::Identity;
use super::handle::{Handled, Job};
use super::{BodyError, Incoming};
use crate::answers::records::{Begun, Record};
use crate::answers::{OwnAnswer, Records};
use crate::core::Core;
use crate::figures::Own;
use crate::http1::Body;
use crate::inbound::{Asked, Held, Inbound, Next, Woken};
use crate::net::Alarm;
use crate::random::secret_hasher;

/// What a request has that was let in.
pub(super) struct Admitted {
    /// What it holds.
    pub held: Held,
    /// What is to be told how it ended, if it has an idempotency key.
    pub record: Option<Record>,
    /// When it was let in.
    pub at: Time,
}

impl Job {
    /// Admits the request, perhaps after a wait, or says what its client gets.
    pub(super) async fn admit<I: Incoming>(
        &mut self,
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Result<Admitted, Handled> {
        let (core, current) = (self.core.clone(), self.current.clone());
        let live = &current.live;
        let quota_name = std::mem::take(&mut self.facts.quota_name);
        let asked = Asked {
            route: self.facts.route,
            quota_key: self.facts.quota_key,
            remembered: self.facts.identity != Identity::None,
            shared_quota: live.plan.shared_quota.is_some(),
            bulkhead: live.plan.routes[self.facts.route as usize].bulkhead,
            guarded: Inbound::guards(&live.plan),
            class: self.facts.class,
            deadline: self.deadline(),
        };
        let mut at = self.started;
        let mut record = None;
        let (mut held, mut next) = live.inbound.arrive(at, &asked);
        let refused = loop {
            next = match next {
                Next::In => return Ok(Admitted { held, record, at }),
                Next::Refused(own) => break own,
                Next::Recall => {
                    let Some(records) = &live.records else { break OwnAnswer::busy(Own::KeysFull) };
                    match self.recall(records, incoming, alarm).await.map_err(Handled::Body)? {
                        (now, Begun::Run(run)) => (at, record) = (now, Some(run)),
                        (_, Begun::Replay(kept)) => {
                            skip_kept(incoming);
                            return Err(Handled::Shared(kept));
                        }
                        (_, Begun::Refused(own)) => break own,
                    }
                    held.recalled(at, &asked)
                }
                Next::Count(limiter) => {
                    let link = core.link(&limiter.quota);
                    let answer = limiter.take(&link, core.clock, &quota_name, at, core.random.bits()).await;
                    at = core.clock.now();
                    held.counted(at, &asked, answer)
                }
                Next::Wait(until) => {
                    let woken = wait(&mut held, until, &core, incoming).await;
                    at = core.clock.now();
                    match woken {
                        Some(Some(woken)) => held.woken(at, &asked, woken),
                        Some(None) => held.late(at, &asked),
                        None => {
                            // It was not made, whatever its key.
                            if let Some(record) = record {
                                record.abandon();
                            }
                            return Err(Handled::Body(BodyError::Gone));
                        }
                    }
                }
            };
        };
        if let Some(record) = record {
            record.abandon();
        }
        skip_kept(incoming);
        if refused.why == Own::Shed || refused.why == Own::InFlight {
            self.figures().shed[usize::from(self.facts.class.min(7))].bump();
        }
        Err(Handled::Own(refused))
    }

    /// Looks the request's idempotency key up, once its body is here: the same key with another body is another
    /// request.
    async fn recall<I: Incoming>(
        &self,
        records: &Arc<Records>,
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Result<(Time, Begun), BodyError> {
        let Identity::Known { key, head } = self.facts.identity else {
            return Ok((self.started, Begun::Refused(OwnAnswer::new(400, Own::BadRequest))));
        };
        let limits = &self.current.live.plan.serving.limits;
        let mut fingerprint = secret_hasher(self.core.shared.secret);
        fingerprint.write_u64(head);
        let mut now = self.started;
        if self.facts.framing.has_body() {
            let most = limits.retry_body_bytes as usize;
            let until = now.plus_nanos(limits.body_timeout);
            let whole = alarm.within(until, poll_fn(|cx| incoming.poll_keep(cx, most))).await;
            if !whole.unwrap_or(Err(BodyError::Slow))? {
                return Err(BodyError::TooLarge);
            }
            let framed = incoming.piece();
            let mut body = Body::new(self.facts.framing, limits.header_bytes as usize);
            // How it is cut into chunks makes no other request of it.
            let mut length = 0;
            let content = |range: Range<usize>| {
                length += range.len();
                fingerprint.write(&framed[range]);
            };
            body.unwrap(framed, content).map_err(|_| BodyError::Malformed)?;
            if length > most {
                return Err(BodyError::TooLarge);
            }
            now = self.core.clock.now();
        }
        Ok((now, records.begin(now, key, fingerprint.finish())))
    }
}

/// What was read of the body goes nowhere, and is not the next request.
fn skip_kept<I: Incoming>(incoming: &mut I) {
    let count = incoming.piece().len();
    incoming.consume(count);
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
