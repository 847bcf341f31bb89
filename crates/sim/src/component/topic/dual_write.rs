//! Two writes where one was meant: a fact in a store, and past any outbox the message that tells of
//! it. What comes between them loses the message.

use crate::compile::{Code, Op, Pc};
use crate::component::task::{TaskParent, Waiting};
use crate::engine::Ref;
use crate::world::World;

impl World<'_> {
    /// A task dies with its process between a fact that it committed and the publish that was to
    /// tell of it: nobody will.
    pub(crate) fn publish_dies(&mut self, task: Ref) {
        let t = &self.tasks[task];
        if self.topics.is_empty() || matches!(t.parent, TaskParent::Join(_) | TaskParent::Probe { .. }) {
            return;
        }
        let plan = self.plan;
        let (pc, waiting) = (t.pc, t.waiting);
        let entry = plan.code.endpoints[t.endpoint as usize].entry;
        if !passed(&plan.code, entry, self.stores_facts(entry))[pc as usize] {
            return;
        }
        let ahead = reachable(&plan.code, pc);
        for topic in &mut self.topics {
            // One that waits for its acknowledgement has published, unless it waits for room.
            let under_way = waiting == Waiting::Publish && !topic.blocked.iter().any(|&(waiter, _)| waiter == task);
            if topic.after_write.iter().any(|&publish| ahead[publish as usize] && !(under_way && publish == pc)) {
                topic.counter.now.lost += 1;
            }
        }
    }

    /// Whether an operation commits a fact to a store, for code that is entered at `entry`: a
    /// commit, or a write outside of any transaction.
    pub(crate) fn stores_facts(&self, entry: Pc) -> impl Fn(Pc) -> bool {
        let code = &self.plan.code;
        move |pc| match code.ops[pc as usize] {
            Op::Commit => true,
            Op::Query { write, .. } => {
                write && {
                    let before = &code.ops[entry.min(pc) as usize..pc as usize];
                    let begun = before.iter().filter(|op| matches!(op, Op::Begin { .. })).count();
                    begun == before.iter().filter(|op| matches!(op, Op::Commit)).count()
                }
            }
            _ => false,
        }
    }

    /// Publishes to a topic, past any outbox, that come after a committed fact: a dual write.
    pub(super) fn publishes_after_write(&self, topic: u32) -> Vec<Pc> {
        let code = &self.plan.code;
        let mut found = Vec::new();
        for endpoint in &code.endpoints {
            let written = passed(code, endpoint.entry, self.stores_facts(endpoint.entry));
            found.extend((0..code.ops.len() as Pc).filter(|&pc| {
                let direct = matches!(code.ops[pc as usize], Op::Publish { topic: t, outbox: false } if t == topic);
                direct && written[pc as usize]
            }));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// For each operation, whether one that `counts` was done on some way there from `entry`.
pub(crate) fn passed(code: &Code, entry: Pc, counts: impl Fn(Pc) -> bool) -> Vec<bool> {
    let mut passed = vec![false; code.ops.len()];
    let from_here = reachable(code, entry);
    for pc in (0..code.ops.len() as Pc).filter(|&pc| from_here[pc as usize] && counts(pc)) {
        for next in successors(code, pc) {
            for (at, &there) in reachable(code, next).iter().enumerate() {
                passed[at] |= there;
            }
        }
    }
    passed
}

/// The operations that code can come to from `entry` without a failure, itself included.
fn reachable(code: &Code, entry: Pc) -> Vec<bool> {
    let mut seen = vec![false; code.ops.len()];
    let mut open = vec![entry];
    while let Some(pc) = open.pop() {
        if !std::mem::replace(&mut seen[pc as usize], true) {
            open.extend(successors(code, pc));
        }
    }
    seen
}

/// Where code goes on after an operation that has gone well.
fn successors(code: &Code, pc: Pc) -> Vec<Pc> {
    match &code.ops[pc as usize] {
        Op::Return | Op::Raise => Vec::new(),
        Op::Jump(to) => vec![*to],
        Op::Rollback { then } | Op::CacheAbandon { then, .. } => vec![*then],
        Op::Unlock { failed: Some(then), .. } => vec![*then],
        Op::CacheLookup { end, .. } => vec![pc + 1, *end],
        Op::Optional { to, .. } => vec![pc + 1, *to],
        Op::Choice(choice) => code.choices[*choice as usize].places.clone(),
        Op::Fork(fork) => {
            let mut next = code.forks[*fork as usize].branches.clone();
            next.push(pc + 1);
            next
        }
        _ => vec![pc + 1],
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DUAL, OUTAGE, OUTBOX, simulated, total, waiting, writer};

    #[test]
    fn a_dual_write_loses_what_the_broker_did_not_take() {
        simulated(&writer(DUAL, "partitions: 4", OUTAGE), |world| {
            let totals = total(&world.topics[0].counter);
            assert!((300..700).contains(&totals.lost), "about 10 s at 50/s: {}", totals.lost);
            assert_eq!(totals.lost, totals.failed);
        });
    }

    #[test]
    fn a_transaction_that_has_committed_is_a_fact_and_one_that_has_not_is_none() {
        let lost = |steps| {
            simulated(&writer(steps, "partitions: 4", OUTAGE), |world| {
                let totals = total(&world.topics[0].counter);
                assert!(totals.failed > 300);
                totals.lost
            })
        };
        assert!(lost("{ transaction: db, do: [ { query: db.insert } ] }, { publish: notes }") > 300);
        assert_eq!(lost("{ transaction: db, do: [ { query: db.insert }, { publish: notes, outbox: false } ] }"), 0);
    }

    #[test]
    fn a_publish_before_its_fact_is_not_a_loss() {
        let steps = "{ publish: notes }, { query: db.insert }";
        simulated(&writer(steps, "partitions: 4", OUTAGE), |world| {
            let totals = total(&world.topics[0].counter);
            assert!(totals.failed > 300);
            assert_eq!(totals.lost, 0, "the publisher gave up before it stored anything");
        });
    }

    #[test]
    fn a_crash_between_the_two_writes_loses_the_message() {
        let named = "{ query: db.insert, name: stored }, { wait: 200ms, name: told }, { publish: notes }";
        let killed = "{ at: 20s, kill: api, for: 5s }";
        let lost = simulated(&writer(named, "partitions: 4", killed), |world| total(&world.topics[0].counter).lost);
        assert!(lost > 0, "at 50/s some ten wait those 200 ms");
        let (lost, missing) = simulated(&writer(OUTBOX, "partitions: 4", killed), |world| {
            let (topic, index) = (total(&world.topics[0].counter), total(&world.consumers[0].counter));
            (topic.lost, topic.offered - index.ok - waiting(world, 0))
        });
        assert_eq!((lost, missing), (0, 0));
    }
}
