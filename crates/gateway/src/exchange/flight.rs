//! A call that is made for all who want the same.

use std::rc::Rc;
use std::sync::Arc;

use plimsoll_policy::Time;
use plimsoll_policy::coalesce::Flight;
use tokio::task::spawn_local;

use super::fetch::{Fetched, Outgoing, Tried, discard, fetch};
use super::hedge::Nobody;
use super::whole::whole;
use crate::answers::Sharing;
use crate::answers::sharing::Shared;
use crate::core::{Core, Current};
use crate::net::Alarm;
use crate::upstream::call::Ended;

/// A call that is made for others, as [`fly`] needs it.
pub struct Call {
    /// The plan that it is made by.
    pub current: Rc<Current>,
    /// The route.
    pub route: usize,
    /// The head for the upstream.
    pub head: Vec<u8>,
    /// `GET` or `HEAD`.
    pub method: &'static str,
    /// For balancing.
    pub key: u64,
    /// What is asked for.
    pub id: String,
}

/// Makes a flight's call.
pub fn fly(sharing: &Arc<Sharing>, core: &Rc<Core>, flight: Flight, call: Call) {
    let landing = sharing.landing(flight);
    let core = core.clone();
    let task = spawn_local(async move {
        // Taken in whole, to be dropped with the task.
        let mut landing = landing;
        landing.shared = call.make(&core).await;
    });
    sharing.made_by(flight, task.abort_handle());
}

impl Call {
    async fn make(mut self, core: &Rc<Core>) -> Shared {
        let plan = &self.current.live.plan;
        let now = core.clock.now();
        let timeout = plan.serving.limits.body_timeout;
        let mut alarm = Alarm::new(core.clock, now.plus_nanos(timeout));
        let route = &plan.routes[self.route];
        let outgoing = Outgoing {
            head: &mut self.head,
            deadline_field: &plan.serving.headers.deadline,
            body: &[],
            streamed: false,
            method: self.method,
            upgrade: false,
            hedges: plan.targets[route.target].policies.pipeline.hedge.is_some(),
            repeatable: route.repeatable,
            until: Time::MAX,
            caller_deadline: None,
            key: self.key,
        };
        let upstream = &self.current.live.upstreams[route.target];
        let mut tried = Tried::default();
        let (mut call, fetched) = fetch(core, upstream, outgoing, &mut Nobody, &mut alarm, now, &mut tried).await;
        let shared = match fetched {
            Fetched::Answer(mut answered, slot) => {
                let whole = match answered.private {
                    true => None,
                    false => whole(&mut answered, &self.id, &mut alarm, core.clock, timeout).await,
                };
                let ended = Ended::Answered(answered.status, answered.retry_after);
                let (end, at) = (core.clock.now(), answered.at);
                call.settle(slot, end, at, ended, core.random.bits());
                discard(core, *answered, end);
                whole.map_or(Shared::Alone, |kept| Shared::Answer(Arc::new(kept)))
            }
            Fetched::Own(own) => Shared::Own(own),
            Fetched::Body(_) => Shared::Alone,
        };
        core.put_head(self.head);
        shared
    }
}
