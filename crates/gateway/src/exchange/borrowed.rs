//! Answers that a request does not fetch for itself: kept ones, and those of calls that others make.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::Time;
use tokio::task::spawn_local;

use super::Incoming;
use super::fetch::{Fetched, Outgoing, Tried, discard, fetch};
use super::flight::{self, fly};
use super::handle::Job;
use super::hedge::Nobody;
use super::whole::{fill, keep};
use crate::answers::kept::{Fetch, Found};
use crate::answers::sharing::{Joined, Shared, Waiter};
use crate::answers::{OwnAnswer, Sharing, Store};
use crate::core::Core;
use crate::figures::Own;
use crate::net::Alarm;
use crate::upstream::call::Ended;

impl Job {
    /// Looks an answer up, and waits while another request fetches it. None if the client goes meanwhile.
    pub(super) async fn look_up<I: Incoming>(
        &mut self,
        store: &Arc<Store>,
        id: &str,
        key: u64,
        now: &mut Time,
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Option<Found> {
        let give_up_at = self.deadline();
        loop {
            let (mut receiver, until) = match store.look_up(*now, key, id, self.core.random.bits()) {
                Found::Wait(receiver, until) => (receiver, until),
                found => return Some(found),
            };
            let there = poll_fn(|cx| {
                if Pin::new(&mut receiver).poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if incoming.poll_gone(cx).is_ready() {
                    return Poll::Ready(false);
                }
                alarm.poll(cx, until.min(give_up_at)).map(|()| true)
            })
            .await;
            if !there {
                return None;
            }
            *now = self.core.clock.now();
            if *now >= give_up_at {
                return Some(Found::Pass);
            }
        }
    }

    /// Waits for a call that is made for all who want the same. None if the client goes meanwhile.
    pub(super) async fn share<I: Incoming>(
        &mut self,
        sharing: &Arc<Sharing>,
        id: String,
        key: u64,
        now: Time,
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Option<Shared> {
        let method = if self.facts.method == "HEAD" { "HEAD" } else { "GET" };
        let (current, route) = (self.current.clone(), self.facts.route as usize);
        let mut head = self.core.take_head();
        head.extend_from_slice(&self.out);
        let call = flight::Call { current, route, head, method, key: self.facts.key, id };
        let Some(mut waiter) = join(sharing, &self.core, call, key, now) else { return Some(Shared::Alone) };
        let until = self.deadline();
        poll_fn(|cx| {
            if let Poll::Ready(shared) = Pin::new(&mut waiter.receiver).poll(cx) {
                return Poll::Ready(Some(shared.unwrap_or(Shared::Alone)));
            }
            if incoming.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            alarm.poll(cx, until).map(|()| Some(Shared::Own(OwnAnswer::new(504, Own::Deadline))))
        })
        .await
    }

    /// Fetches an answer anew while the one that is kept is given.
    pub(super) fn refresh(&self, right: Fetch, id: String, wanted: u64) {
        let (core, current) = (self.core.clone(), self.current.clone());
        let mut head = core.take_head();
        head.extend_from_slice(&self.out);
        let (route, key) = (self.facts.route as usize, self.facts.key);
        if self.facts.method != "GET" {
            // A HEAD brings nothing to keep.
            return;
        }
        spawn_local(async move {
            let plan = &current.live.plan;
            let now = core.clock.now();
            let timeout = plan.serving.limits.body_timeout;
            if let Some(sharing) = &current.live.sharing[plan.routes[route].target] {
                let shared = head.clone();
                let call =
                    flight::Call { current: current.clone(), route, head: shared, method: "GET", key, id: id.clone() };
                if let Some(mut waiter) = join(sharing, &core, call, wanted, now) {
                    match (&mut waiter.receiver).await {
                        Ok(Shared::Answer(kept)) => return fill(right, &core, &kept),
                        Ok(Shared::Own(_)) => return,
                        Ok(Shared::Alone) | Err(_) => {}
                    }
                }
            }
            let now = core.clock.now();
            let mut alarm = Alarm::new(core.clock, now.plus_nanos(timeout));
            let outgoing = Outgoing {
                head: &mut head,
                deadline_field: &plan.serving.headers.deadline,
                body: &[],
                streamed: false,
                method: "GET",
                upgrade: false,
                hedges: false,
                repeatable: plan.routes[route].repeatable,
                until: Time::MAX,
                caller_deadline: None,
                key,
            };
            let upstream = &current.live.upstreams[plan.routes[route].target];
            let mut tried = Tried::default();
            let (mut call, fetched) = fetch(&core, upstream, outgoing, &mut Nobody, &mut alarm, now, &mut tried).await;
            if let Fetched::Answer(mut answered, slot) = fetched {
                keep(right, &core, &mut answered, &id, &mut alarm, timeout).await;
                let ended = Ended::Answered(answered.status, answered.retry_after);
                let (end, at) = (core.clock.now(), answered.at);
                call.settle(slot, end, at, ended, core.random.bits());
                discard(&core, *answered, end);
            }
            core.put_head(head);
        });
    }
}

/// Joins the call for a key, which is made if there is none; none if this one is to make a call of its own.
fn join(sharing: &Arc<Sharing>, core: &Rc<Core>, call: flight::Call, key: u64, now: Time) -> Option<Waiter> {
    let (waiter, flight) = match sharing.join(now, key ^ u64::from(call.method == "HEAD")) {
        Joined::Alone => (None, None),
        Joined::Waits(waiter) => (Some(waiter), None),
        Joined::Leads(waiter, flight) => (Some(waiter), Some(flight)),
    };
    match flight {
        Some(flight) => fly(sharing, core, flight, call),
        None => core.put_head(call.head),
    }
    waiter
}
