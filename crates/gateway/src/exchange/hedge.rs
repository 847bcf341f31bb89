//! A second attempt for one that takes longer than most: the first answer wins.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use super::attempt::{Answered, Ask, Failed, attempt};
use super::fetch::{Tried, count};
use super::interim::Interims;
use super::{BodyError, Incoming};
use crate::core::Core;
use crate::net::Alarm;
use crate::upstream::call::Ended;
use crate::upstream::{Call, Instance};
use plimsoll_policy::Time;
use plimsoll_policy::pipeline::Next;

/// A client that nobody watches: another attempt does, or there is none.
#[derive(Debug)]
pub struct Nobody;

impl Incoming for Nobody {
    fn poll_fill(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<bool, BodyError>> {
        Poll::Ready(Ok(false))
    }

    fn piece(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _: usize) {}

    fn poll_gone(&mut self, _: &mut std::task::Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn poll_keep(&mut self, _: &mut std::task::Context<'_>, _: usize) -> Poll<Result<bool, BodyError>> {
        Poll::Ready(Ok(true))
    }

    fn keep_arrived(&mut self) -> Result<bool, BodyError> {
        Ok(true)
    }

    fn take_kept(&mut self, _: &Core) -> super::KeptBody {
        super::KeptBody::Bytes(Vec::new())
    }
}

/// An attempt, and perhaps an extra one beside it. Which of the two has ended last, and how; one that
/// failed while the other was still out is settled here.
pub async fn hedged<I: Incoming>(
    core: &Core,
    call: &mut Call,
    instance: &Arc<Instance>,
    ask: Ask<'_>,
    incoming: &mut I,
    alarm: &mut Alarm,
    tried: &mut Tried,
) -> (usize, Result<Answered, Failed>) {
    let clock = core.clock;
    let started = tried.started;
    let interims = Interims::default();
    let ask = Ask { interims: Some(&interims), ..ask };
    let mut first_alarm = alarm.another(ask.deadline);
    let mut first = Some(Box::pin(attempt::<Nobody>(core, instance, &ask, None, &mut first_alarm, started)));
    let after = call.hedge_after().map_or(Time::MAX, |after| started + after);

    // Only the first, until it is late.
    let early = std::future::poll_fn(|cx| {
        let ended = first.as_mut().map(|first| first.as_mut().poll(cx));
        interims.pass(incoming, cx);
        if let Some(Poll::Ready(result)) = ended {
            return Poll::Ready(Some(result));
        }
        if incoming.poll_gone(cx).is_ready() {
            return Poll::Ready(Some(Err(Failed::Body(BodyError::Gone))));
        }
        alarm.poll(cx, after).map(|()| None)
    })
    .await;
    if let Some(result) = early {
        drop(first);
        alarm.keep(first_alarm);
        return (0, result);
    }
    let now = clock.now();
    let Some((other, deadline)) = call.hedge(now, core.random.bits()) else {
        let result = std::future::poll_fn(|cx| {
            if incoming.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failed::Body(BodyError::Gone)));
            }
            let ended = first.as_mut().map_or(Poll::Pending, |first| first.as_mut().poll(cx));
            interims.pass(incoming, cx);
            ended
        })
        .await;
        return (0, result);
    };

    // Both.
    let second_ask = Ask { deadline: deadline.time(), ..ask };
    let mut second_alarm = Alarm::new(clock, second_ask.deadline);
    let mut second = Some(Box::pin(attempt::<Nobody>(core, &other, &second_ask, None, &mut second_alarm, now)));
    loop {
        let (slot, result) = std::future::poll_fn(|cx| {
            let ended = first.as_mut().map(|first| first.as_mut().poll(cx));
            interims.pass(incoming, cx);
            if let Some(Poll::Ready(result)) = ended {
                first = None;
                return Poll::Ready((0, result));
            }
            let ended = second.as_mut().map(|second| second.as_mut().poll(cx));
            interims.pass(incoming, cx);
            if let Some(Poll::Ready(result)) = ended {
                second = None;
                return Poll::Ready((1, result));
            }
            if incoming.poll_gone(cx).is_ready() {
                return Poll::Ready((0, Err(Failed::Body(BodyError::Gone))));
            }
            Poll::Pending
        })
        .await;
        (tried.instance, tried.started) =
            if slot == 0 { (Some(instance.clone()), started) } else { (Some(other.clone()), now) };
        let ended = match &result {
            Ok(answered) => Ended::Answered(answered.status, answered.retry_after),
            Err(Failed::Connect) => Ended::ConnectError,
            Err(Failed::Reset) => Ended::Reset,
            Err(Failed::Timeout) => Ended::Timeout,
            Err(Failed::Body(_)) => return (slot, result),
        };
        let other_is_out = call.is_out(1 - slot);
        if ended.outcome() != plimsoll_policy::Outcome::Failure || !other_is_out {
            return (slot, result);
        }
        // The other may still bring an answer.
        let ended_at = clock.now();
        if let Some(instance) = &tried.instance {
            count(&core.instance(instance.slot), ended, ended_at.nanos_since(tried.started));
        }
        if let Ok(answered) = result {
            super::fetch::discard(core, answered, ended_at);
        }
        let next = call.settle(slot, ended_at, ended_at, ended, core.random.bits());
        debug_assert_eq!(next, Next::Wait, "the other attempt is still out");
    }
}
