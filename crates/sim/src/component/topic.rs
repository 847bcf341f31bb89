mod cut_off;
pub(crate) mod dual_write;

use std::collections::VecDeque;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::WhenFull;

use crate::compile::Pc;
use crate::component::consumer::{Message, Stage};
use crate::component::task::{Context, TaskParent, Waiting};
use crate::engine::{Answer, Draw, Event, Ref, duration, scale};
use crate::measure::{Counter, Gauge};
use crate::world::{Wake, World};

/// A topic's state.
pub(crate) struct TopicState {
    /// Those that get every message of it.
    pub(crate) consumers: Vec<u32>,
    partitions: Vec<Partition>,
    /// Messages in the partitions: those that not every consumer has handled.
    held: u32,
    /// Messages that an outbox relay has ready, and the broker has not taken.
    ready: u32,
    /// Faults that hold the broker down at present.
    down: u32,
    /// Times that the broker went down.
    outages: u32,
    /// Publishers that wait for room, in order.
    blocked: VecDeque<(Ref, Context)>,
    /// Messages that came through an outbox: the next one's number.
    numbers: u64,
    /// Whether waiting messages are being taken in further up the stack.
    taking: bool,
    /// Publishes, outside an outbox, of facts that were committed before.
    after_write: Vec<Pc>,
    /// Whether its fullness is on the timeline already.
    full_noted: bool,
    /// By segment: messages set aside.
    pub(crate) dead_letters: Vec<u64>,
    /// Messages published and not yet handled by every consumer, those in outboxes included.
    pub(crate) backlog: Gauge,
    pub(crate) counter: Counter,
}

/// Messages of one range of keys, in order.
#[derive(Default)]
struct Partition {
    /// Offset of the log's front.
    first: u64,
    log: VecDeque<Logged>,
    /// From outboxes, by number: ready to be sent.
    relay: VecDeque<Ref>,
    /// When the relay is done with the last message that it was given: it keeps the order.
    relayed_at: u64,
}

/// A message in a partition.
#[derive(Clone, Copy)]
pub(crate) struct Logged {
    /// When it was published: for an outbox, when its transaction committed.
    pub(crate) published: u64,
    appended: u64,
    /// `logical` is the message's identity.
    pub(crate) context: Context,
}

// Purposes of draws.
const PUBLISH: u64 = 1;
const RELAY: u64 = 2;
const PARTITION: u64 = 3;

impl World<'_> {
    pub(crate) fn build_messaging(&mut self) {
        let plan = self.plan;
        for (t, topic) in plan.system.topics.iter().enumerate() {
            let consumers = plan.system.consumers.iter().enumerate();
            self.topics.push(TopicState {
                consumers: consumers.filter(|(_, c)| c.topic.index() == t).map(|(c, _)| c as u32).collect(),
                partitions: (0..topic.partitions).map(|_| Partition::default()).collect(),
                held: 0,
                ready: 0,
                down: 0,
                outages: 0,
                blocked: VecDeque::new(),
                numbers: 0,
                taking: false,
                after_write: self.publishes_after_write(t as u32),
                full_noted: false,
                dead_letters: vec![0; plan.cuts.len() + 1],
                backlog: Gauge::new(),
                counter: Counter::default(),
            });
        }
        self.build_consumers();
    }

    /// A task publishes. None: it waits for the broker.
    pub(crate) fn publish(&mut self, task: Ref, topic: u32, outbox: bool) -> Option<Answer> {
        let context = self.message_context(task, topic);
        let (pc, transaction) = (self.tasks[task].pc, self.tasks[task].transaction);
        if outbox && !transaction.is_none() {
            // A row in the caller's own transaction: there or not there together with its writes.
            return Some(match self.transactions.get_mut(transaction) {
                Some(transaction) => {
                    transaction.outbox.push((topic, context));
                    Answer::Ok
                }
                None => Answer::Reset,
            });
        }
        self.topics[topic as usize].counter.now.offered += 1;
        self.tasks[task].waiting = Waiting::Publish;
        if let Some((_, until)) = self.cut_off(self.tasks[task].instance) {
            let partition = self.partition_of(topic, &context);
            let stage = Stage::Late { task, pc };
            let message = self.messages.insert(Message { topic, partition, published: self.now, context, stage });
            self.wake_at(until, Wake::Relayed { message });
            return None;
        }
        self.send_message(task, pc, topic, context)
    }

    /// A message of a task reaches its broker.
    fn send_message(&mut self, task: Ref, pc: Pc, topic: u32, context: Context) -> Option<Answer> {
        if self.topics[topic as usize].down > 0 {
            self.publish_failed(topic, pc, Answer::Refused);
            return Some(Answer::Refused);
        }
        let of = &self.plan.system.topics[topic as usize];
        let takes = duration(&of.publish, context.draw.bits(PUBLISH));
        if self.is_full(topic) {
            match of.when_full {
                WhenFull::Reject => {
                    self.publish_failed(topic, pc, Answer::BUSY);
                    self.queue.at(self.now + takes, Event::Resume { task, answer: Answer::BUSY });
                    return None;
                }
                WhenFull::Block => {
                    self.topics[topic as usize].blocked.push_back((task, context));
                    return None;
                }
                WhenFull::DropOldest => self.lose_oldest(topic),
            }
        }
        self.topics[topic as usize].counter.now.ok += 1;
        self.wake_at(self.now + takes, Wake::Published { task });
        self.append(topic, self.now, context);
        None
    }

    /// A transaction with messages in its outbox has committed.
    pub(crate) fn outbox_committed(&mut self, outbox: Vec<(u32, Context)>) {
        for (topic, context) in outbox {
            let delay = duration(&self.plan.system.topics[topic as usize].relay, context.draw.bits(RELAY));
            let partition = self.partition_of(topic, &context);
            let state = &mut self.topics[topic as usize];
            state.counter.now.offered += 1;
            state.backlog.add(self.now, 1);
            state.numbers += 1;
            let last = &mut state.partitions[partition as usize].relayed_at;
            *last = (self.now + delay).max(*last);
            let due = *last;
            let stage = Stage::Outbox { number: state.numbers, sent: None };
            let message = self.messages.insert(Message { topic, partition, published: self.now, context, stage });
            self.wake_at(due, Wake::Relayed { message });
        }
    }

    /// The relay has read a message from its outbox, or hears that the broker has it.
    pub(crate) fn relayed(&mut self, message: Ref) {
        let now = self.now;
        let m = &mut self.messages[message];
        let (topic, partition) = (m.topic, m.partition);
        let (number, sent) = match &mut m.stage {
            Stage::Outbox { number, sent } => (number, sent),
            Stage::Late { .. } => return self.late(message),
            Stage::Delivery(_) => unreachable!("what its consumer has is not relayed"),
        };
        let number = *number;
        let state = &mut self.topics[topic as usize];
        match sent.take() {
            None => {}
            Some(outages) if outages == state.outages => {
                state.counter.now.ok += 1;
                return self.messages.remove(message);
            }
            // The broker has it, but went down before it said so: the relay sends it again.
            Some(_) => state.backlog.add(now, 1),
        }
        state.ready += 1;
        let queue = &mut state.partitions[partition as usize].relay;
        let messages = &self.messages;
        let at = queue.partition_point(|&other| outbox_number(&messages[other]) < number);
        queue.insert(at, message);
        self.take_waiting(topic);
    }

    /// The partition that held a publish back is over.
    fn late(&mut self, message: Ref) {
        let Message { topic, context, stage, .. } = self.messages[message];
        self.messages.remove(message);
        let Stage::Late { task, pc } = stage else { return };
        let answer = match self.tasks.get(task) {
            None => return self.publish_failed(topic, pc, Answer::Reset),
            Some(t) if t.cancelled => {
                self.publish_failed(topic, pc, Answer::Cancelled);
                Some(Answer::Cancelled)
            }
            Some(_) => self.send_message(task, pc, topic, context),
        };
        if let Some(answer) = answer {
            self.soon(Event::Resume { task, answer });
        }
    }

    /// The broker stops or comes back. Faults may overlap.
    pub(crate) fn topic_down(&mut self, topic: u32, down: bool) {
        let state = &mut self.topics[topic as usize];
        if !down {
            state.down = state.down.saturating_sub(1);
            if state.down == 0 {
                self.take_waiting(topic);
                self.broker_returns(topic);
            }
            return;
        }
        state.down += 1;
        if state.down == 1 {
            state.outages += 1;
            for (task, _) in std::mem::take(&mut self.topics[topic as usize].blocked) {
                if let Some(t) = self.tasks.get(task) {
                    self.publish_failed(topic, t.pc, Answer::Refused);
                    self.soon(Event::Resume { task, answer: Answer::Refused });
                }
            }
        }
    }

    /// Whether the broker gives and takes.
    pub(crate) fn topic_is_up(&self, topic: u32) -> bool {
        self.topics[topic as usize].down == 0
    }

    /// The message at an offset of a partition; none if it has not come yet.
    pub(crate) fn logged(&self, topic: u32, partition: u32, offset: u64) -> Option<Logged> {
        let partition = &self.topics[topic as usize].partitions[partition as usize];
        partition.log.get(offset.checked_sub(partition.first)? as usize).copied()
    }

    /// Drops what a partition has kept for longer than its topic keeps messages.
    pub(crate) fn expire(&mut self, topic: u32, partition: u32) {
        let retention = self.plan.system.topics[topic as usize].retention;
        let mut any = false;
        while let Some(front) = self.topics[topic as usize].partitions[partition as usize].log.front()
            && front.appended.saturating_add(retention) <= self.now
        {
            self.lose_front(topic, partition);
            any = true;
        }
        if any {
            self.take_waiting(topic);
        }
    }

    /// Drops what every consumer has handled.
    pub(crate) fn trim(&mut self, topic: u32, partition: u32) {
        let consumers = &self.topics[topic as usize].consumers;
        let handled = consumers.iter().map(|&c| self.consumers[c as usize].committed(partition)).min();
        let handled = handled.unwrap_or(u64::MAX);
        let state = &mut self.topics[topic as usize];
        let p = &mut state.partitions[partition as usize];
        let mut gone = 0;
        while p.first < handled && p.log.pop_front().is_some() {
            p.first += 1;
            gone += 1;
        }
        if gone > 0 {
            state.held -= gone;
            state.backlog.add(self.now, -(gone as i64));
            state.full_noted &= state.held > self.plan.system.topics[topic as usize].capacity / 2;
            self.take_waiting(topic);
        }
    }

    fn message_context(&self, task: Ref, topic: u32) -> Context {
        let t = &self.tasks[task];
        let site = t.pc as u64;
        // A repeated request publishes the same message again. Rounds of a loop publish one each.
        let identity = match t.parent {
            TaskParent::Join(_) => t.context.draw,
            _ => Draw(t.context.logical),
        };
        Context {
            draw: t.context.draw.part(site),
            logical: identity.part(site).part(topic as u64).0,
            deadline: u64::MAX,
            ..t.context
        }
    }

    fn partition_of(&self, topic: u32, context: &Context) -> u32 {
        let partitions = self.plan.system.topics[topic as usize].partitions;
        scale(Draw(context.key as u64).bits(PARTITION), partitions)
    }

    /// Whether a topic has no room, now that what is too old is gone.
    fn is_full(&mut self, topic: u32) -> bool {
        let capacity = self.plan.system.topics[topic as usize].capacity;
        if self.topics[topic as usize].held < capacity {
            return false;
        }
        for partition in 0..self.topics[topic as usize].partitions.len() as u32 {
            self.expire(topic, partition);
        }
        if self.topics[topic as usize].held < capacity {
            return false;
        }
        if !std::mem::replace(&mut self.topics[topic as usize].full_noted, true) {
            let of = &self.plan.system.topics[topic as usize];
            let text = match of.when_full {
                WhenFull::Reject => "the topic is full: publishers are refused",
                WhenFull::Block => "the topic is full: publishers wait",
                WhenFull::DropOldest => "the topic is full: its oldest messages are dropped",
            };
            self.happened(EventKind::QueueFull, &*of.name, text);
        }
        true
    }

    fn publish_failed(&mut self, topic: u32, pc: Pc, answer: Answer) {
        let state = &mut self.topics[topic as usize];
        let lost = state.after_write.contains(&pc);
        let totals = &mut state.counter.now;
        totals.failed += 1;
        totals.rejected += matches!(answer, Answer::Busy(_)) as u64;
        totals.lost += lost as u64;
    }

    /// The broker has a message.
    fn append(&mut self, topic: u32, published: u64, context: Context) {
        let partition = self.partition_of(topic, &context);
        if self.topics[topic as usize].consumers.is_empty() {
            // Whoever takes it is not in the file.
            return;
        }
        self.expire(topic, partition);
        let now = self.now;
        let state = &mut self.topics[topic as usize];
        state.held += 1;
        state.backlog.add(now, 1);
        state.partitions[partition as usize].log.push_back(Logged { published, appended: now, context });
        for at in 0..self.topics[topic as usize].consumers.len() {
            let consumer = self.topics[topic as usize].consumers[at];
            self.offered_to(consumer, partition);
        }
    }

    /// Takes in what waits for the broker, as far as there is room: relays first, since the facts
    /// that they tell of are older.
    fn take_waiting(&mut self, topic: u32) {
        let state = &mut self.topics[topic as usize];
        if (state.ready == 0 && state.blocked.is_empty()) || std::mem::replace(&mut state.taking, true) {
            return;
        }
        while self.topics[topic as usize].down == 0 && self.take_one(topic) {}
        self.topics[topic as usize].taking = false;
    }

    fn take_one(&mut self, topic: u32) -> bool {
        let of = &self.plan.system.topics[topic as usize];
        let state = &self.topics[topic as usize];
        if state.ready == 0 && state.blocked.is_empty() {
            return false;
        }
        if self.is_full(topic) {
            if of.when_full != WhenFull::DropOldest {
                return false;
            }
            self.lose_oldest(topic);
        }
        let state = &mut self.topics[topic as usize];
        if state.ready == 0 {
            let Some((task, context)) = state.blocked.pop_front() else { return false };
            match self.tasks.get(task) {
                None => state.counter.now.failed += 1,
                Some(t) if t.cancelled => {
                    state.counter.now.failed += 1;
                    self.soon(Event::Resume { task, answer: Answer::Cancelled });
                }
                Some(_) => {
                    state.counter.now.ok += 1;
                    let takes = duration(&of.publish, context.draw.bits(PUBLISH));
                    self.wake_at(self.now + takes, Wake::Published { task });
                    self.append(topic, self.now, context);
                }
            }
            return true;
        }
        let outages = state.outages;
        let next = state.partitions.iter_mut().find_map(|partition| partition.relay.pop_front());
        let message = next.expect("something is ready");
        state.ready -= 1;
        state.backlog.add(self.now, -1);
        let m = &mut self.messages[message];
        if let Stage::Outbox { sent, .. } = &mut m.stage {
            *sent = Some(outages);
        }
        let (published, context) = (m.published, m.context);
        let takes = duration(&of.publish, context.draw.bits(PUBLISH));
        self.wake_at(self.now + takes, Wake::Relayed { message });
        self.append(topic, published, context);
        true
    }

    fn lose_oldest(&mut self, topic: u32) {
        let partitions = self.topics[topic as usize].partitions.iter().enumerate();
        let oldest =
            partitions.filter_map(|(p, partition)| partition.log.front().map(|front| (front.appended, p))).min();
        if let Some((_, partition)) = oldest {
            self.lose_front(topic, partition as u32);
        }
    }

    /// Drops the oldest message of a partition: those who have not taken it yet never will.
    fn lose_front(&mut self, topic: u32, partition: u32) {
        let state = &mut self.topics[topic as usize];
        let p = &mut state.partitions[partition as usize];
        if p.log.pop_front().is_none() {
            return;
        }
        let offset = p.first;
        p.first += 1;
        state.held -= 1;
        state.backlog.add(self.now, -1);
        let mut missed = false;
        for at in 0..self.topics[topic as usize].consumers.len() {
            let consumer = self.topics[topic as usize].consumers[at];
            missed |= self.passed_by(consumer, partition, offset);
        }
        self.topics[topic as usize].counter.now.lost += missed as u64;
    }
}

/// A message's place in its outbox.
fn outbox_number(message: &Message) -> u64 {
    match message.stage {
        Stage::Outbox { number, .. } => number,
        Stage::Late { .. } | Stage::Delivery(_) => unreachable!("a relay carries messages of its outbox"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicBool;

    use plimsoll_model::Source;
    use plimsoll_model::run::{EventKind, Totals};

    use super::{Message, Stage};
    use crate::engine::Draw;
    use crate::measure::Counter;
    use crate::plan::{Plan, Prepared, Scenario};
    use crate::world::World;

    /// Runs the first experiment of a system once, and looks at what is left.
    pub(crate) fn simulated<T>(text: &str, look: impl FnOnce(&World<'_>) -> T) -> T {
        let source = Source::alone("test.yaml", text);
        let system = plimsoll_model::parse(&source).unwrap_or_else(|problems| panic!("{problems}"));
        let scenario = Scenario::from_experiment(&system.experiments[0]);
        let plan = Plan::new(&Prepared::new(&system), &scenario, true);
        let mut world = World::new(&plan, Draw::root(1, 0));
        assert!(world.run(&AtomicBool::new(false)));
        look(&world)
    }

    /// Everything that a counter has counted.
    pub(crate) fn total(counter: &Counter) -> Totals {
        let mut sum = counter.now;
        counter.segments.iter().for_each(|segment| sum.add(segment));
        sum
    }

    /// Messages of a topic that not every consumer has handled, those in outboxes included.
    pub(crate) fn waiting(world: &World<'_>, topic: u32) -> u64 {
        let in_outbox =
            |message: &Message| message.topic == topic && matches!(message.stage, Stage::Outbox { sent: None, .. });
        let outbox = world.messages.refs().filter(|&message| in_outbox(&world.messages[message])).count();
        outbox as u64 + world.topics[topic as usize].held as u64
    }

    /// How often something is on the timeline.
    pub(crate) fn happened(world: &World<'_>, kind: EventKind) -> usize {
        world.log.iter().filter(|event| event.kind == kind).count()
    }

    /// A service that stores and tells, as its steps say.
    pub(super) fn writer(steps: &str, topic: &str, faults: &str) -> String {
        format!(
            "
system: writer
clients:
  web: {{ rate: 50/s, calls: [ {{ endpoint: api POST /notes }} ], timeout: 5s }}
services:
  api: {{ workers: 64, endpoints: {{ POST /notes: [{steps}] }} }}
stores:
  db: {{ kind: postgres, operations: {{ insert: {{ kind: write, time: 1ms }} }} }}
topics:
  notes: {{ {topic} }}
consumers:
  index: {{ topic: notes, handler: 2ms, instances: 2 }}
experiments:
  test: {{ for: 60s, warmup: 5s, faults: [{faults}], expect: [errors < 100%] }}
"
        )
    }

    pub(super) const OUTBOX: &str = "{ transaction: db, do: [ { query: db.insert }, { publish: notes } ] }";
    pub(super) const DUAL: &str = "{ query: db.insert }, { publish: notes }";
    pub(super) const OUTAGE: &str = "{ at: 20s, down: notes, for: 10s }";

    #[test]
    fn an_outbox_outlasts_its_broker() {
        simulated(&writer(OUTBOX, "partitions: 4", OUTAGE), |world| {
            let topic = &world.topics[0];
            let (published, handled) = (total(&topic.counter), total(&world.consumers[0].counter));
            assert_eq!((published.failed, published.lost, handled.lost), (0, 0, 0));
            assert_eq!(world.audiences[1].cells.iter().map(|cell| cell.totals.failed).sum::<u64>(), 0);
            // Whatever is not handled yet still waits: nothing has gone missing.
            assert!(handled.duplicates < 5, "only what was not confirmed when it went down is sent twice");
            assert_eq!(handled.ok - handled.duplicates + waiting(world, 0), published.offered);
            assert!(topic.backlog.segments.iter().any(|segment| segment.max > 300.0), "10 s at 50/s pile up");
            assert!(waiting(world, 0) < 10, "and are worked off");
        });
    }

    #[test]
    fn a_relay_sends_again_what_was_not_confirmed() {
        // Some five messages are on their way, there or back, when the broker goes down.
        let text = writer(OUTBOX, "partitions: 4, publish: 100ms", OUTAGE);
        simulated(&text, |world| {
            let (topic, index) = (total(&world.topics[0].counter), total(&world.consumers[0].counter));
            assert!((1..20).contains(&index.duplicates), "{}", index.duplicates);
            assert_eq!(index.ok - index.duplicates + waiting(world, 0), topic.offered);
        });
        let deduped = text.replace("handler: 2ms", "handler: 2ms, dedup: 1h");
        simulated(&deduped, |world| assert_eq!(total(&world.consumers[0].counter).duplicates, 0));
    }

    #[test]
    fn a_relay_keeps_the_order_of_commits_within_a_partition() {
        let stopped = format!("{{ at: 1s, kill: index, for: 55s }}, {OUTAGE}");
        let text = writer(OUTBOX, "partitions: 4, relay: exp(200ms)", &stopped);
        simulated(&text.replace("handler: 2ms", "handler: 2ms, startup: 1h"), |world| {
            for partition in &world.topics[0].partitions {
                assert!(partition.log.len() > 100);
                assert!(partition.log.iter().is_sorted_by_key(|logged| logged.published));
            }
        });
    }

    #[test]
    fn a_full_topic_refuses_blocks_or_drops() {
        let slow = |when_full: &str| {
            writer(DUAL, &format!("capacity: 300, when_full: {when_full}"), "").replace("handler: 2ms", "handler: 40ms")
        };
        simulated(&slow("reject"), |world| {
            let totals = total(&world.topics[0].counter);
            assert!(totals.rejected > 300, "one partition takes 25/s of 50/s: {}", totals.rejected);
            assert_eq!(happened(world, EventKind::QueueFull), 1);
        });
        simulated(&slow("block"), |world| {
            let totals = total(&world.topics[0].counter);
            assert_eq!(totals.rejected, 0);
            let failed: u64 = world.audiences[1].cells.iter().map(|cell| cell.totals.failed).sum();
            assert!(failed > 100, "publishers hold their workers until callers give up: {failed}");
        });
        simulated(&slow("drop_oldest"), |world| {
            let totals = total(&world.topics[0].counter);
            assert_eq!(totals.failed, 0);
            assert!(totals.lost > 1000, "{}", totals.lost);
            assert!(waiting(world, 0) <= 300);
        });
    }

    #[test]
    fn what_a_partition_holds_back_comes_late() {
        let cut_off = "{ at: 20s, partition: api, for: 2s }";
        simulated(&writer(DUAL, "partitions: 4", cut_off), |world| {
            let (topic, index) = (total(&world.topics[0].counter), total(&world.consumers[0].counter));
            assert_eq!((topic.failed, topic.lost), (0, 0));
            assert_eq!(index.ok + waiting(world, 0), topic.offered);
            let worst = world.audiences[1].cells.iter().map(|cell| cell.all.percentile(100.0)).fold(0.0, f64::max);
            assert!(worst > 1.9e9, "{worst}");
        });
    }

    #[test]
    fn what_is_kept_too_short_is_lost_to_a_slow_consumer() {
        let text = writer(DUAL, "retention: 2s", "{ at: 10s, kill: index, for: 20s }");
        simulated(&text, |world| {
            let (topic, index) = (total(&world.topics[0].counter), total(&world.consumers[0].counter));
            assert!((700..1100).contains(&topic.lost), "18 s at 50/s and a start of 2 s: {}", topic.lost);
            assert_eq!(topic.lost, index.lost);
        });
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let text = writer(OUTBOX, "partitions: 4", OUTAGE);
        let once = || simulated(&text, |world| (world.requests, total(&world.consumers[0].counter)));
        assert_eq!(once(), once());
    }
}
