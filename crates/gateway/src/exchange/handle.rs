//! A request through everything that has a say in it: policies on what comes in, cache, upstream,
//! fallback. Both fronts, HTTP/1.1 and HTTP/2, come through here.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use plimsoll_model::system::FallbackAnswer;
use plimsoll_policy::{Outcome, Time};

use super::admission::Admitted;
use super::attempt::Answered;
use super::conclusion::conclude;
use super::facts::Facts;
use super::fetch::{Fetched, Outgoing, Tried, discard, fetch};
use super::whole::{fill, keep, remember};
use super::{BodyError, Incoming};
use crate::answers::kept::Found;
use crate::answers::sharing::Shared;
use crate::answers::{Kept, OwnAnswer};
use crate::core::{Core, Current};
use crate::figures::{Own, RouteFigures};
use crate::http1::Framing;
use crate::inbound::Held;
use crate::net::Alarm;
use crate::upstream::Call;
use crate::upstream::call::Ended;

/// What is to be given to a client.
pub enum Handled {
    /// An answer of the gateway's own.
    Own(OwnAnswer),
    /// The route's fallback.
    Fallback(FallbackAnswer),
    /// An answer that was kept.
    Kept(Arc<Kept>),
    /// An answer that several requests share.
    Shared(Arc<Kept>),
    /// An upstream's answer, to be settled at its end.
    Answer(Box<Passing>),
    /// Nothing, or the reason for which the body was not taken.
    Body(BodyError),
}

/// An upstream's answer on its way, with all that is held for it.
pub struct Passing {
    /// The answer.
    pub answered: Answered,
    slot: usize,
    call: Call,
    held: Held,
}

/// How an answer's way to its client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The client has all of it.
    Whole,
    /// The upstream broke off, or went silent.
    Broken,
    /// The client has gone, or takes nothing in.
    ClientGone,
}

impl Passing {
    /// The answer has ended: policies are told, the connection goes back to the pool.
    pub fn end(mut self, core: &Core, passed: Passed, now: Time) {
        let Answered { status, retry_after, at, .. } = self.answered;
        let ended = if passed == Passed::Broken { Ended::Reset } else { Ended::Answered(status, retry_after) };
        if passed == Passed::ClientGone {
            self.call.cancel(self.slot, now);
        } else {
            self.call.settle(self.slot, now, at, ended, core.random.bits());
        }
        let gone = passed == Passed::ClientGone;
        self.held.finish(now, at, if gone { Outcome::Cancelled } else { ended.outcome() });
        let Answered { stream, mut buffer, keep_alive, slot, head, .. } = self.answered;
        if passed == Passed::Whole && keep_alive && buffer.is_empty() {
            core.pool.put(slot, now, stream);
        }
        let rest = buffer.bytes().len();
        buffer.consume(rest);
        core.buffers.put(buffer);
        core.put_head(head);
    }
}

/// A request under way.
pub struct Job {
    /// Its core.
    pub core: Rc<Core>,
    /// The plan that it is served by.
    pub current: Rc<Current>,
    /// What is known of it.
    pub facts: Facts,
    /// Its head for the upstream.
    pub out: Vec<u8>,
    /// When its own head was whole.
    pub started: Time,
    /// What was tried.
    pub tried: Tried,
    /// Attempts made.
    pub attempts: u32,
}

impl Job {
    /// What is to be given to the client.
    pub async fn handle<I: Incoming>(&mut self, incoming: &mut I, alarm: &mut Alarm) -> Handled {
        let (core, current) = (self.core.clone(), self.current.clone());
        let plan = &current.live.plan;
        let limits = &plan.serving.limits;
        let route = &plan.routes[self.facts.route as usize];
        if let Framing::Length(length) = self.facts.framing
            && length > limits.body_bytes
        {
            return Handled::Own(OwnAnswer::new(413, Own::BadRequest));
        }
        let Admitted { mut held, record, at: mut now } = match self.admit(incoming, alarm).await {
            Ok(admitted) => admitted,
            Err(handled) => return handled,
        };
        let end_held = |held: &mut Held, outcome: Outcome| {
            let now = core.clock.now();
            held.finish(now, now, outcome);
        };
        let mut right = None;
        let wanted = self.facts.cached.take();
        if let (Some(store), Some((id, key))) = (&current.live.caches[self.facts.route as usize], &wanted) {
            match self.look_up(store, id, *key, &mut now, incoming, alarm).await {
                Some(Found::Hit(kept, refresh)) => {
                    if let Some(right) = refresh {
                        self.refresh(right, id.clone(), *key);
                    }
                    end_held(&mut held, Outcome::Success);
                    return Handled::Kept(kept);
                }
                Some(Found::Absent) => {
                    end_held(&mut held, Outcome::Success);
                    return Handled::Own(OwnAnswer::new(404, Own::Cached));
                }
                // Only a GET's answer is whole.
                Some(Found::Miss(fetch)) if self.facts.method == "GET" => right = Some((fetch, id.clone())),
                Some(_) => {}
                None => {
                    end_held(&mut held, Outcome::Cancelled);
                    return Handled::Body(BodyError::Gone);
                }
            }
        }
        if let (Some(sharing), Some((id, key))) = (&current.live.sharing[route.target], wanted) {
            match self.share(sharing, id, key, now, incoming, alarm).await {
                Some(Shared::Answer(kept)) => {
                    if let Some((right, _)) = right {
                        fill(right, &core, &kept);
                    }
                    let (fallback, outcome) = conclude(route, Ok(Ended::Answered(kept.status, None)));
                    end_held(&mut held, outcome);
                    return fallback.map_or(Handled::Shared(kept), |fallback| Handled::Fallback(fallback.clone()));
                }
                Some(Shared::Own(own)) => {
                    let (fallback, outcome) = conclude(route, Err(own));
                    end_held(&mut held, outcome);
                    return fallback.map_or(Handled::Own(own), |fallback| Handled::Fallback(fallback.clone()));
                }
                Some(Shared::Alone) => {}
                None => {
                    end_held(&mut held, Outcome::Cancelled);
                    return Handled::Body(BodyError::Gone);
                }
            }
        }
        let (kept, streamed) = match self.keep(&mut now, incoming, alarm).await {
            Ok(kept) => kept,
            Err(error) => {
                end_held(&mut held, Outcome::Cancelled);
                return Handled::Body(error);
            }
        };
        let until = self.deadline();
        let outgoing = Outgoing {
            head: &mut self.out,
            deadline_field: &plan.serving.headers.deadline,
            body: kept.as_ref().map_or(&[], |kept| kept.bytes()),
            streamed,
            method: &self.facts.method,
            upgrade: self.facts.upgrade,
            hedges: plan.targets[route.target].policies.pipeline.hedge.is_some(),
            repeatable: self.facts.repeatable,
            until,
            caller_deadline: self.facts.caller_deadline,
            key: self.facts.key,
        };
        let upstream = &current.live.upstreams[route.target];
        let (call, fetched) = fetch(&core, upstream, outgoing, incoming, alarm, now, &mut self.tried).await;
        if let Some(kept) = kept {
            kept.give_back(&core);
        }
        self.attempts = call.attempts();
        self.figures().retries.add(u64::from(self.attempts.saturating_sub(1)));
        match fetched {
            Fetched::Answer(mut answered, slot) => {
                if call.has_failed() && answered.status < 400 {
                    self.figures().rescued.bump();
                }
                if let Some((right, id)) = right {
                    keep(right, &core, &mut answered, &id, alarm, limits.body_timeout).await;
                }
                let ended = Ended::Answered(answered.status, answered.retry_after);
                if let Some(record) = record {
                    remember(record, &core, &mut answered, ended, alarm, limits.body_timeout).await;
                }
                let (fallback, outcome) = conclude(route, Ok(ended));
                if let Some(fallback) = fallback {
                    discard(&core, *answered, core.clock.now());
                    end_held(&mut held, outcome);
                    return Handled::Fallback(fallback.clone());
                }
                Handled::Answer(Box::new(Passing { answered: *answered, slot, call, held }))
            }
            Fetched::Own(own) => {
                // What was sent, and never answered, may have had its effect all the same.
                if let Some(record) = record.filter(|_| !matches!(own.why, Own::Reset | Own::Timeout)) {
                    record.abandon();
                }
                let (fallback, outcome) = conclude(route, Err(own));
                end_held(&mut held, outcome);
                fallback.map_or(Handled::Own(own), |fallback| Handled::Fallback(fallback.clone()))
            }
            Fetched::Body(error) => {
                end_held(&mut held, Outcome::Cancelled);
                Handled::Body(error)
            }
        }
    }

    /// Keeps the body for another attempt, if it is small and there may be one. The kept part, and whether
    /// more is to come.
    async fn keep<I: Incoming>(
        &mut self,
        now: &mut Time,
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Result<(Option<super::KeptBody>, bool), BodyError> {
        if !self.facts.framing.has_body() {
            return Ok((None, false));
        }
        let plan = &self.current.live.plan;
        let limits = &plan.serving.limits;
        let policies = &plan.targets[plan.routes[self.facts.route as usize].target].policies.pipeline;
        let repeats = self.facts.repeatable && (policies.retry.is_some() || policies.hedge.is_some());
        let most = if repeats { limits.retry_body_bytes as usize } else { 0 };
        let whole = if most == 0 {
            // What has arrived with the head goes out with it.
            incoming.keep_arrived()?
        } else {
            let until = now.plus_nanos(limits.body_timeout);
            let keep = poll_fn(|cx| incoming.poll_keep(cx, most));
            let whole = alarm.within(until, keep).await.unwrap_or(Err(BodyError::Slow))?;
            // The client's time is none of the upstream's.
            *now = self.core.clock.now();
            whole
        };
        Ok(if whole { (Some(incoming.take_kept(&self.core)), false) } else { (None, true) })
    }

    /// When the client must have been answered.
    pub(super) fn deadline(&self) -> Time {
        self.current.live.plan.deadline(self.facts.route, self.started, self.facts.caller_deadline)
    }

    pub(super) fn figures(&self) -> &RouteFigures {
        &self.current.routes[self.facts.route as usize]
    }
}
