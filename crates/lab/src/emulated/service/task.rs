//! A request's way through the steps of its endpoint.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use plimsoll_model::draw::{count, duration};
use plimsoll_model::system::{Action, EdgeId, EndpointId, Program, Step};
use plimsoll_policy::Mode;

use super::store::{Transaction, What};
use super::{Instance, join};
use crate::answer::Answer;
use crate::context::{Context, add_wrote};
use crate::requests;
use crate::tally::{Held, Time, marker};

/// A future within a task.
pub(super) type Within<'t, T> = Pin<Box<dyn Future<Output = T> + Send + 't>>;

/// A request at work.
pub(super) struct Task {
    pub(super) instance: Arc<Instance>,
    pub(super) context: Context,
    /// Until when its caller waits, ns, where the service minds.
    pub(super) deadline: Option<u64>,
    /// Whether a fallback or a stale copy had a part in it.
    pub(super) degraded: bool,
    /// What the session has written.
    pub(super) wrote: String,
    /// Which steps it has done: each has a chance of its own.
    site: u64,
    transaction: Option<Arc<Transaction>>,
    /// Messages that go out when the transaction has committed.
    pub(super) outbox: Vec<(u32, Context)>,
    /// The named step that was done last.
    step: Option<String>,
}

impl Task {
    pub(super) fn new(instance: &Arc<Instance>, context: Context, deadline: Option<u64>) -> Task {
        Task {
            instance: instance.clone(),
            context,
            deadline,
            degraded: false,
            wrote: String::new(),
            site: 0,
            transaction: None,
            outbox: Vec::new(),
            step: None,
        }
    }

    /// A branch of this one: its chance is its own.
    fn branch(&self, round: u64) -> Task {
        let mut branch =
            Task::new(&self.instance, self.context.below(self.site << 24 | round | 1 << 60), self.deadline);
        branch.context.logical = self.context.logical;
        branch.context.wrote = self.context.wrote.clone();
        branch
    }

    /// The context of something that is asked for here.
    pub(super) fn below(&self) -> Context {
        self.context.below(self.site)
    }

    /// Does steps, one after another, until one fails.
    pub(super) fn run<'t>(&'t mut self, program: &'t [Step]) -> Within<'t, Result<(), Answer>> {
        Box::pin(async move {
            for step in program {
                if let Some(name) = &step.optional
                    && self.is_skipped(name)
                {
                    self.degraded = true;
                    continue;
                }
                if let Some(name) = &step.name {
                    self.instance.step(self.step.as_deref(), name);
                    self.step = Some(name.clone());
                }
                self.site += 1;
                self.act(&step.action, step.line).await?;
            }
            Ok(())
        })
    }

    fn is_skipped(&self, name: &str) -> bool {
        let (Some(ladder), Some(of)) = (&self.instance.ladder, &self.instance.spec().degradation) else { return false };
        let level = ladder.lock().unwrap_or_else(PoisonError::into_inner).level();
        let skips = of.levels.iter().take(level).any(|level| level.skip.iter().any(|skipped| skipped == name));
        skips && of.ladder.mode == Mode::Enforce
    }

    async fn act(&mut self, action: &Action, line: u32) -> Result<(), Answer> {
        let draw = self.context.draw.part(self.site);
        match action {
            Action::Work(time) => {
                let (takes, held) = self.instance.slowed(duration(time, draw.0), true);
                self.work(takes.saturating_add(held), Time::Step(self.instance.id.0, line, marker(time))).await;
                Ok(())
            }
            Action::Wait(time) => {
                let (takes, held) = self.instance.slowed(duration(time, draw.0), false);
                let tools = &self.instance.process.tools;
                let started = tools.clock.now();
                tools.timer.wait(takes.saturating_add(held)).await;
                let took = tools.clock.now().nanos_since(started);
                tools.tally.took(Time::Step(self.instance.id.0, line, marker(time)), took);
                Ok(())
            }
            Action::Fail(share) => {
                if draw.happens(0, *share) {
                    Err(Answer::Error)
                } else {
                    Ok(())
                }
            }
            Action::Call { edge, endpoint } => self.call(*edge, *endpoint).await,
            Action::Query { edge, operation, .. } => self.ask(*edge, What::Operation(*operation)).await.map(drop),
            Action::Cache { edge, keyspace, config, on_miss, .. } => {
                super::cache::look_up(self, *edge, *keyspace, config, on_miss).await
            }
            Action::CacheWrite { edge, keyspace, kind, write, .. } => {
                super::cache::write(self, *edge, *keyspace, *kind, write).await
            }
            Action::Transaction { edge, steps, cross_shard, .. } => {
                let crosses = draw.happens(1, *cross_shard);
                self.transact(*edge, steps, crosses).await
            }
            Action::Publish { topic, outbox } => super::publish::publish(self, topic.0, *outbox).await,
            Action::Parallel { branches, limit } => {
                let branches: Vec<&Program> = branches.iter().collect();
                self.fork(&branches, *limit).await
            }
            Action::ForEach { count: rounds, limit, steps } => {
                let rounds = count(rounds, draw.0) as usize;
                if *limit <= 1 {
                    for round in 0..rounds {
                        let mut branch = self.branch(round as u64);
                        let ended = branch.run(steps).await;
                        self.joined(branch);
                        ended?;
                    }
                    return Ok(());
                }
                self.fork(&vec![steps; rounds], *limit).await
            }
            Action::Choice(choices) => {
                let total: f64 = choices.iter().map(|(weight, _)| weight).sum();
                let mut left = draw.unit(0) * total;
                for (weight, program) in choices {
                    left -= weight;
                    if left < 0.0 {
                        return self.run(program).await;
                    }
                }
                match choices.last() {
                    Some((_, program)) => self.run(program).await,
                    None => Ok(()),
                }
            }
            Action::Fallback { attempt, otherwise } => match self.run(attempt).await {
                Ok(()) => Ok(()),
                Err(_) => {
                    self.degraded = true;
                    self.run(otherwise).await
                }
            },
            Action::Lease { lease, steps } => super::lease::hold(self, lease.0, steps).await,
        }
    }

    async fn work(&self, nanos: u64, what: Time) {
        let mut busy = None;
        let (tools, of) = (&self.instance.process.tools, self.instance.of);
        // Until a core is free it waits, which the simulation knows of; what it takes to wake one that is free is part
        // of the work.
        let mut since = tools.clock.now();
        let free = self.instance.cores.is_free();
        let began = || {
            busy = Some(Held::new(&tools.tally, of, "cores"));
            if !free {
                since = tools.clock.now();
            }
        };
        self.instance.cores.work(nanos, began).await;
        drop(busy);
        tools.tally.took(what, tools.clock.now().nanos_since(since));
    }

    async fn call(&mut self, edge: EdgeId, endpoint: EndpointId) -> Result<(), Answer> {
        let Some(end) = self.instance.ends.get(&edge).cloned() else { return Err(Answer::Error) };
        let system = self.instance.process.system.clone();
        let ask = requests::ask(&system, edge, endpoint, &self.below(), self.deadline);
        let done = end.call(&ask).await;
        if let Some(wrote) = done.wire.as_ref().and_then(|wire| wire.field("wrote")) {
            for entry in wrote.split(',') {
                let mut parts = entry.split(':').map(str::parse);
                if let (Some(Ok(store)), Some(Ok(timeline)), Some(Ok(number))) =
                    (parts.next(), parts.next(), parts.next())
                {
                    self.has_written(store as u32, (timeline as u32, number));
                }
            }
        }
        self.take(done.answer)
    }

    fn take(&mut self, answer: Answer) -> Result<(), Answer> {
        self.degraded |= answer == Answer::Degraded;
        if answer.is_ok() { Ok(()) } else { Err(answer) }
    }

    /// Asks a store.
    pub(super) async fn ask(&mut self, edge: EdgeId, what: What) -> Result<super::store::Got, Answer> {
        let Some(end) = self.instance.stores.get(&edge).cloned() else { return Err(Answer::Error) };
        let got = end.ask(what, self.below(), self.transaction.clone()).await?;
        if let Some(at) = got.at {
            self.has_written(end.store().0, at);
        }
        Ok(got)
    }

    fn has_written(&mut self, store: u32, (timeline, number): (u32, u64)) {
        add_wrote(&mut self.wrote, store, timeline, number);
        add_wrote(&mut self.context.wrote, store, timeline, number);
    }

    async fn transact(&mut self, edge: EdgeId, steps: &[Step], crosses: bool) -> Result<(), Answer> {
        let Some(end) = self.instance.stores.get(&edge).cloned() else { return Err(Answer::Error) };
        let begun = end.ask(What::Begin(crosses), self.below(), None).await?.transaction;
        let transaction = Arc::new(begun.ok_or(Answer::Error)?);
        let outer = self.transaction.replace(transaction.clone());
        let before = std::mem::take(&mut self.outbox);
        let ended = self.run(steps).await;
        let outbox = std::mem::replace(&mut self.outbox, before);
        self.transaction = outer;
        if let Err(answer) = ended {
            end.rollback(&transaction).await;
            return Err(answer);
        }
        if let Some(at) = end.commit(&transaction).await? {
            self.has_written(end.store().0, at);
        }
        super::publish::committed(&self.instance, outbox);
        Ok(())
    }

    /// Whether it is in a transaction.
    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    async fn fork(&mut self, programs: &[&Program], limit: u32) -> Result<(), Answer> {
        let branches = programs.iter().enumerate().map(|(round, program)| {
            let mut branch = self.branch(round as u64);
            async move {
                let ended = branch.run(program).await;
                (branch, ended)
            }
        });
        let mut worst = Ok(());
        for (branch, ended) in join::limited(branches.collect::<Vec<_>>(), limit as usize).await {
            self.joined(branch);
            if worst.is_ok() {
                worst = ended;
            }
        }
        worst
    }

    fn joined(&mut self, branch: Task) {
        self.degraded |= branch.degraded;
        for entry in branch.wrote.split(',').filter(|entry| !entry.is_empty()) {
            let mut parts = entry.split(':').map(str::parse::<u64>);
            if let (Some(Ok(store)), Some(Ok(timeline)), Some(Ok(number))) = (parts.next(), parts.next(), parts.next())
            {
                self.has_written(store as u32, (timeline as u32, number));
            }
        }
    }
}
