//! Answers that a request does not fetch for itself: kept ones, and those of calls that others make.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::Time;
use tokio::task::spawn_local;

use super::Incoming;
use super::fetch::{Fetched, Outgoing, Tried, discard, fetch};
use super::flight::{self, fly};
use super::handle::Job;
use super::hedge::Nobody;
use super::whole::keep;
use crate::answers::kept::{Fetch, Found};
use crate::answers::sharing::{Joined, Shared};
use crate::answers::{OwnAnswer, Sharing, Store};
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
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Option<Found> {
        let give_up_at = self.facts.caller_deadline.unwrap_or(Time::MAX);
        let mut now = self.started;
        loop {
            let (mut receiver, until) = match store.look_up(now, key, id, self.core.random.bits()) {
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
            now = self.core.clock.now();
            if now >= give_up_at {
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
        incoming: &mut I,
        alarm: &mut Alarm,
    ) -> Option<Shared> {
        let method = if self.facts.method == "HEAD" { "HEAD" } else { "GET" };
        let mut waiter = match sharing.join(self.started, key ^ u64::from(method == "HEAD")) {
            Joined::Alone => return Some(Shared::Alone),
            Joined::Waits(waiter) => waiter,
            Joined::Leads(waiter, flight) => {
                let mut head = self.core.take_head();
                head.extend_from_slice(&self.out);
                let (current, route) = (self.current.clone(), self.facts.route as usize);
                let call = flight::Call { current, route, head, method, key: self.facts.key, id };
                fly(sharing, &self.core, flight, call);
                waiter
            }
        };
        let until = self.facts.caller_deadline.unwrap_or(Time::MAX);
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
    pub(super) fn refresh(&self, right: Fetch, id: String) {
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
