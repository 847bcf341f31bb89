//! What is looked at while a run goes on, and when.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use plimsoll_model::run::Totals;

use super::{Lab, Settings};
use crate::clock::Clock;
use crate::emulated::service::COUNTING;
use crate::fault;
use crate::machine::{Machine, Starved};
use crate::measure::Cuts;
use crate::stack::Part;
use crate::tally::Of;
use crate::wire::client::request;

/// Between two looks at what processes have counted, ns.
const LOOK: u64 = 250_000_000;

/// When to look: a few times a second, and at every cut.
#[derive(Debug)]
struct Looking {
    cuts: Arc<Cuts>,
    tick: u64,
    cut: usize,
}

impl Looking {
    fn new(cuts: Arc<Cuts>) -> Looking {
        Looking { cuts, tick: LOOK, cut: 0 }
    }

    fn next(&self) -> u64 {
        self.tick.min(self.cuts.ends.get(self.cut).copied().unwrap_or(u64::MAX))
    }

    fn looked(&mut self) {
        let at = self.next();
        self.tick += if at == self.tick { LOOK } else { 0 };
        self.cut += usize::from(self.cuts.ends.get(self.cut) == Some(&at));
    }
}

/// How long instances may look for rows that a failover lost, ns.
const COUNTED: u64 = 15_000_000_000;

impl Lab {
    /// Breaks and watches, until the load is over. Says which fault had no effect, if one had none.
    pub(super) async fn watch(self: &Rc<Self>, cuts: &Arc<Cuts>, settings: &Settings<'_>) -> Option<String> {
        let end = cuts.ends.last().copied().unwrap_or(0);
        let mut timeline = fault::timeline(&self.experiment).into_iter().peekable();
        let mut broken = None;
        self.stack.parts().into_iter().for_each(|part| self.look_after(part));
        let mut looks = Looking::new(cuts.clone());
        loop {
            let at_fault = timeline.peek().map_or(u64::MAX, |(at, ..)| *at);
            let next = looks.next().min(at_fault);
            self.until(next).await;
            if settings.stop.load(Ordering::Relaxed) {
                return broken;
            }
            (settings.progress)(self.now() as f64 / end.max(1) as f64, &self.experiment.name);
            if next == looks.next() {
                looks.looked();
                let report = self.load.borrow().tally.report();
                self.parts.borrow_mut().take(next, self.now(), report);
                self.collect_stores(next);
                if next >= cuts.warmup {
                    self.look_for_starvation();
                }
                self.restart_lost().await;
            }
            if next >= end {
                // What ends with the run is undone with it.
                for (_, number, _) in timeline.filter(|(_, _, begins)| !begins) {
                    if let Err(why) = fault::end(self, number).await {
                        broken.get_or_insert(self.failed(number, false, &why));
                    }
                }
                return broken;
            }
            if next == at_fault
                && let Some((_, number, begins)) = timeline.next()
            {
                let what = if begins { fault::start(self, number).await } else { fault::end(self, number).await };
                if let Err(why) = what {
                    broken.get_or_insert(self.failed(number, begins, &why));
                }
            }
        }
    }

    fn look_for_starvation(&self) {
        let (machine, requests) = (Machine::look(), self.load.borrow().requests.clone());
        let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = (requests.behind, requests.made);
        match &mut *self.starved.borrow_mut() {
            Some(starved) => starved.again(machine, counted),
            none => *none = Some(Starved::look(machine, counted)),
        }
    }

    fn failed(&self, number: usize, begins: bool, why: &str) -> String {
        let text = &self.experiment.faults[number].text;
        let what = if begins { "had no effect" } else { "did not go as it should" };
        format!("the fault `{text}` {what}: {why}")
    }

    /// Takes in what a part has counted, until the run is over. Each has a task of its own: one that does not answer
    /// holds up nobody.
    pub(super) fn look_after(self: &Rc<Self>, part: Part) {
        if !self.looked_after.borrow_mut().insert(part) {
            return;
        }
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            let mut looks = Looking::new(lab.parts.borrow().cuts.clone());
            while !lab.is_over() {
                let next = looks.next();
                lab.until(next).await;
                looks.looked();
                if lab.stack.is_up(part) && !lab.is_over() {
                    lab.collect_at(part, Some(next)).await;
                }
                // What was missed while it did not answer is not made up for.
                while looks.next() < lab.now() {
                    looks.looked();
                }
            }
        });
    }

    pub(super) async fn until(&self, at: u64) {
        let (clock, start): (Clock, u64) = {
            let load = self.load.borrow();
            (load.clock, load.start)
        };
        tokio::time::sleep_until(clock.instant(plimsoll_policy::Time::from_nanos(start + at))).await;
    }

    pub(super) async fn drain(&self, patience: u64) {
        let until = self.now().saturating_add(patience);
        while self.load.borrow().open() > 0 && self.now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes in the last of what everything has counted.
    pub(super) async fn collect_all(&self) {
        let now = self.now();
        let report = self.load.borrow().tally.report();
        self.parts.borrow_mut().take(now, now, report);
        self.collect_stores(now);
        for part in self.stack.parts() {
            if self.stack.is_up(part) {
                self.collect(part).await;
            }
        }
    }

    /// Takes in what real stores say of themselves.
    fn collect_stores(&self, counted: u64) {
        if let Some(stores) = self.stack.stores() {
            self.parts.borrow_mut().take(counted, self.now(), stores.tally.report());
        }
    }

    /// Waits until it is known what failovers lost.
    pub(super) async fn until_counted(&self) {
        if self.kept.borrow().is_empty() {
            return;
        }
        for part in self.stack.parts().into_iter().filter(|part| self.stack.takes_orders(*part)) {
            let until = self.now().saturating_add(COUNTED);
            while self.stack.state(part).await.is_some_and(|state| state.note == COUNTING) {
                if self.now() > until {
                    self.warn(format!("{} could not count what a failover lost", self.stack.name(part)));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Takes in what a part has counted by now.
    pub(crate) async fn collect(&self, part: Part) {
        self.collect_at(part, None).await;
    }

    /// The same for a look that was due at a time: what came since then counts before it, if it was not long.
    async fn collect_at(&self, part: Part, due: Option<u64>) {
        if self.stack.is_own(part) || self.stack.real(part).is_some() {
            return;
        }
        let place = self.stack.place(part);
        let report = if let (Part::Instance(service, instance), true) = (part, self.stack.is_gateway(part)) {
            let request = request("GET", "/metrics", &[("connection", "close")], &[]);
            let asked = self.stack.asker.links().ask(place.admin, &request, "GET", true);
            let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(1), asked).await else { return };
            let page = String::from_utf8_lossy(&answer.body);
            let now = self.now();
            let mut looks = self.looks.borrow_mut();
            let (system, layout) = (&self.stack.system, &self.stack.layout);
            looks.entry(part).or_default().new_in(&page, now, system, layout, (service, instance))
        } else {
            let Some(report) = self.stack.asker.report(place.control).await else { return };
            report
        };
        let now = self.now();
        let counted = due.filter(|due| now.saturating_sub(*due) < LOOK).unwrap_or(now);
        self.parts.borrow_mut().take(counted, now, report);
    }

    /// What an instance has counted since its process began.
    pub(crate) fn since_start(&self, of: Of) -> Totals {
        let now = self.parts.borrow().so_far(of);
        let before = self.before.borrow().get(&of).copied().unwrap_or_default();
        Totals {
            ok: now.ok - before.ok,
            failed: now.failed - before.failed,
            rejected: now.rejected - before.rejected,
            offered: now.offered - before.offered,
            ..now
        }
    }
}
