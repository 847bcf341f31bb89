use std::collections::{BTreeMap, VecDeque};

use crate::compile::{Op, Pc};
use crate::component::instance::State;
use crate::component::task::{Context, TaskParent};
use crate::component::topic::dual_write::passed;
use crate::engine::{Answer, Draw, Ref, duration};
use crate::measure::{Counter, Gauge, Times};
use crate::world::{Wake, World};

/// A message on its way: from an outbox to its broker, or from its partition through a consumer.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(crate) topic: u32,
    pub(crate) partition: u32,
    /// When it was published, ns.
    pub(crate) published: u64,
    /// `logical` is the message's identity.
    pub(crate) context: Context,
    pub(crate) stage: Stage,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage {
    /// In an outbox, with its number there. `sent`: the broker has it but has not confirmed it, and
    /// had gone down so many times by then.
    Outbox { number: u64, sent: Option<u32> },
    /// On its way to the broker, behind a partition: the task that publishes it, and where in its code.
    Late { task: Ref, pc: Pc },
    /// With a consumer.
    Delivery(Delivery),
}

/// A message with a consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delivery {
    consumer: u32,
    /// Its offset in its partition.
    offset: u64,
    /// Deliveries so far.
    attempts: u32,
    /// The instance that has it, counted within the hidden service.
    member: u32,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Can be handed to an instance.
    Ready,
    Running,
    /// Failed, and waits for its redelivery.
    Backoff,
    /// Handled, but the broker was down and did not hear of it: it will deliver it again.
    Unheard,
}

/// A consumer's state beside its hidden service.
pub(crate) struct ConsumerState {
    topic: u32,
    service: u32,
    /// The handler, among all endpoints.
    endpoint: u32,
    /// Messages that one instance handles at once.
    limit: u32,
    draw: Draw,
    /// By partition.
    lanes: Vec<Lane>,
    /// By instance slot.
    members: Vec<Member>,
    effects: Effects,
    /// When an instance that a partition cut off may be back in the group, ns.
    regroup_at: u64,
    /// Lanes in which something may be due, while they are looked at further up the stack.
    due: VecDeque<u32>,
    looking: bool,
    /// Operations after which a handler has had its effect, if the handler has such.
    effective: Option<Vec<bool>>,
    /// Messages that it has not handled yet.
    pub(crate) backlog: Gauge,
    pub(crate) counter: Counter,
    /// By segment: from publish to handled.
    pub(crate) times: Vec<Times>,
}

impl ConsumerState {
    /// The offset below which it has handled all of a partition.
    pub(crate) fn committed(&self, partition: u32) -> u64 {
        self.lanes[partition as usize].committed
    }
}

/// A consumer's way through a partition: one message at a time, or keys would lose their order.
struct Lane {
    /// Offset of the next message to fetch.
    next: u64,
    /// Below this, all is handled.
    committed: u64,
    /// The instance that the partition is assigned to, counted within the hidden service.
    member: Option<u32>,
    /// The message at hand.
    message: Ref,
    /// Whether it waits for its instance to have a free worker.
    queued: bool,
}

#[derive(Default)]
struct Member {
    in_flight: u32,
    /// Lanes that wait for a free worker.
    waiting: VecDeque<u32>,
}

/// When messages had their effect, by identity.
#[derive(Default)]
struct Effects {
    at: BTreeMap<u64, u64>,
    order: VecDeque<u64>,
}

/// Messages whose effect is remembered: a duplicate of an older one is not known as one.
const REMEMBERED: usize = 1 << 20;

impl Effects {
    fn at(&self, identity: u64) -> Option<u64> {
        self.at.get(&identity).copied()
    }

    fn insert(&mut self, identity: u64, now: u64) {
        if self.at.insert(identity, now).is_none() {
            self.order.push_back(identity);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.at.remove(&oldest);
            }
        }
    }
}

// Purposes of draws.
const BACKOFF: u64 = 1;
const POISON: u64 = 2;
const CRASH: u64 = 3;

impl World<'_> {
    pub(crate) fn build_consumers(&mut self) {
        let plan = self.plan;
        for (c, consumer) in plan.system.consumers.iter().enumerate() {
            let service = &plan.system.services[consumer.service.index()];
            let partitions = plan.system.topics[consumer.topic.index()].partitions;
            let endpoint = plan.code.first_endpoint[consumer.service.index()];
            let slots = self.slots(consumer.service.0).len();
            self.consumers.push(ConsumerState {
                topic: consumer.topic.0,
                service: consumer.service.0,
                endpoint,
                limit: if service.asynchronous { service.max_in_flight } else { service.workers },
                draw: self.root.named(&consumer.name),
                lanes: (0..partitions)
                    .map(|_| Lane { next: 0, committed: 0, member: None, message: Ref::NONE, queued: false })
                    .collect(),
                members: (0..slots).map(|_| Member::default()).collect(),
                effects: Effects::default(),
                regroup_at: u64::MAX,
                due: VecDeque::new(),
                looking: false,
                effective: self.effective(plan.code.endpoints[endpoint as usize].entry),
                backlog: Gauge::new(),
                counter: Counter::default(),
                times: vec![Times::new(); plan.cuts.len() + 1],
            });
            self.assign(c as u32);
        }
    }

    /// A message has come into a partition.
    pub(crate) fn offered_to(&mut self, consumer: u32, partition: u32) {
        let state = &mut self.consumers[consumer as usize];
        state.counter.now.offered += 1;
        state.backlog.add(self.now, 1);
        self.look(consumer, partition);
    }

    /// A partition has dropped a message. Whether this consumer had not taken it yet.
    pub(crate) fn passed_by(&mut self, consumer: u32, partition: u32, offset: u64) -> bool {
        let state = &mut self.consumers[consumer as usize];
        let lane = &mut state.lanes[partition as usize];
        lane.committed = lane.committed.max(offset + 1);
        if lane.next > offset {
            return false;
        }
        lane.next = offset + 1;
        state.counter.now.lost += 1;
        state.backlog.add(self.now, -1);
        true
    }

    /// The broker is back: it delivers again what it was not told of.
    pub(crate) fn broker_returns(&mut self, topic: u32) {
        for at in 0..self.topics[topic as usize].consumers.len() {
            let consumer = self.topics[topic as usize].consumers[at];
            for partition in 0..self.consumers[consumer as usize].lanes.len() as u32 {
                let message = self.consumers[consumer as usize].lanes[partition as usize].message;
                if let Some(delivery) = self.delivery(message)
                    && delivery.progress == Progress::Unheard
                {
                    delivery.progress = Progress::Ready;
                    self.consumers[consumer as usize].counter.now.retries += 1;
                }
                self.look(consumer, partition);
            }
        }
    }

    /// A handler has ended.
    pub(crate) fn handled(&mut self, message: Ref, answer: Answer) {
        let Some(&mut Delivery { consumer, member, .. }) = self.delivery(message) else { return };
        self.free_member(message);
        let identity = self.messages[message].context.logical;
        let of = &self.plan.system.consumers[consumer as usize];
        let poisoned = self.consumers[consumer as usize].draw.part(identity).happens(POISON, of.poison);
        if !answer.is_ok() || poisoned {
            self.delivery_failed(message);
        } else {
            self.effect(consumer, identity);
            let topic = self.messages[message].topic;
            let instance = self.services[of.service.index()].first + member;
            if of.ack_first {
                self.acknowledge(message, answer);
            } else if !self.topic_is_up(topic) {
                self.progress(message, Progress::Unheard);
            } else if self.cut_off(instance).is_some() {
                // The broker takes it for dead, and gives the message to another.
                self.consumers[consumer as usize].counter.now.retries += 1;
                self.progress(message, Progress::Ready);
                self.look(consumer, self.messages[message].partition);
            } else {
                self.acknowledge(message, answer);
            }
        }
        self.look_at_due(consumer);
    }

    fn acknowledge(&mut self, message: Ref, answer: Answer) {
        let Some(&mut Delivery { consumer, .. }) = self.delivery(message) else { return };
        let published = self.messages[message].published;
        let (now, segment) = (self.now, self.segment);
        let state = &mut self.consumers[consumer as usize];
        state.times[segment].record(now - published);
        state.counter.now.ok += 1;
        state.counter.now.degraded += (answer == Answer::Degraded) as u64;
        self.settle(message);
    }

    /// A message's backoff is over.
    pub(crate) fn redeliver(&mut self, message: Ref) {
        let Some(delivery) = self.delivery(message) else { return };
        if delivery.progress == Progress::Backoff {
            delivery.progress = Progress::Ready;
            let consumer = delivery.consumer;
            let partition = self.messages[message].partition;
            self.look(consumer, partition);
        }
    }

    /// A handler dies with its process: it may have had its effect, or not.
    pub(crate) fn handler_dies(&mut self, task: Ref) {
        let t = &self.tasks[task];
        let (parent, pc, endpoint) = (t.parent, t.pc, t.endpoint);
        let TaskParent::Message(message) = parent else { return };
        let Some(&mut Delivery { consumer, attempts, .. }) = self.delivery(message) else { return };
        let identity = self.messages[message].context.logical;
        let state = &self.consumers[consumer as usize];
        let draw = state.draw.part(identity).part(attempts as u64);
        // What is under way at this moment is as likely done as not. A handler of which only its
        // length is known is under way from its beginning to its end.
        let had_effect = match &state.effective {
            Some(passed) if passed[pc as usize] => true,
            Some(_) if !self.takes_effect(self.plan.code.endpoints[endpoint as usize].entry)(pc) => false,
            _ => draw.happens(CRASH, 0.5),
        };
        if had_effect {
            self.effect(consumer, identity);
        }
    }

    /// The process that handled a message is gone, and another will get it; if it was acknowledged
    /// before, nobody will.
    pub(crate) fn handler_lost(&mut self, message: Ref) {
        let Some(&mut Delivery { consumer, attempts, .. }) = self.delivery(message) else { return };
        self.free_member(message);
        let of = &self.plan.system.consumers[consumer as usize];
        if of.ack_first {
            self.consumers[consumer as usize].counter.now.failed += 1;
            self.lose(message);
        } else if attempts >= of.attempts {
            self.give_up(message);
        } else {
            // It goes out with the next look at its lane, once its partition is with another.
            self.consumers[consumer as usize].counter.now.retries += 1;
            self.progress(message, Progress::Ready);
        }
    }

    /// An instance is gone: its partitions go to the others.
    pub(crate) fn consumer_instance_lost(&mut self, instance: u32) {
        let Some(consumer) = self.consumer_of(instance) else { return };
        let number = self.instances[instance as usize].number;
        self.consumers[consumer as usize].members[number as usize] = Member::default();
        self.rebalance(consumer);
    }

    /// An instance is ready: it gets its part of the partitions.
    pub(crate) fn consumer_instance_up(&mut self, instance: u32) {
        if let Some(consumer) = self.consumer_of(instance) {
            self.rebalance(consumer);
        }
    }

    fn consumer_of(&self, instance: u32) -> Option<u32> {
        let service = self.instances[instance as usize].service;
        self.consumers.iter().position(|consumer| consumer.service == service).map(|c| c as u32)
    }

    /// Spreads the partitions over the instances that are up, and goes on.
    fn rebalance(&mut self, consumer: u32) {
        self.assign(consumer);
        let state = &mut self.consumers[consumer as usize];
        let lanes = state.lanes.len() as u32;
        state.due.extend(0..lanes);
        self.look_at_due(consumer);
    }

    fn assign(&mut self, consumer: u32) {
        let slots = self.slots(self.consumers[consumer as usize].service);
        let mut up = Vec::new();
        let mut regroup_at = u64::MAX;
        for instance in slots.clone().filter(|&instance| self.instances[instance].state == State::Up) {
            match self.cut_off(instance as u32) {
                Some((_, until)) => regroup_at = regroup_at.min(until),
                None => up.push((instance - slots.start) as u32),
            }
        }
        let state = &mut self.consumers[consumer as usize];
        state.regroup_at = regroup_at;
        for member in &mut state.members {
            member.waiting.clear();
        }
        for (p, lane) in state.lanes.iter_mut().enumerate() {
            lane.member = up.get(p % up.len().max(1)).copied();
            lane.queued = false;
        }
    }

    /// Hands out what is due in a lane. Handlers that end at once come back here, so this never
    /// calls itself.
    fn look(&mut self, consumer: u32, partition: u32) {
        self.consumers[consumer as usize].due.push_back(partition);
        self.look_at_due(consumer);
    }

    fn look_at_due(&mut self, consumer: u32) {
        if std::mem::replace(&mut self.consumers[consumer as usize].looking, true) {
            return;
        }
        while let Some(partition) = self.consumers[consumer as usize].due.pop_front() {
            self.deliver_next(consumer, partition);
        }
        self.consumers[consumer as usize].looking = false;
    }

    /// Hands a lane's next message to its instance, if there is one and both are free.
    fn deliver_next(&mut self, consumer: u32, partition: u32) {
        let topic = self.consumers[consumer as usize].topic;
        if !self.topic_is_up(topic) {
            return;
        }
        self.expire(topic, partition);
        let at_hand = self.consumers[consumer as usize].lanes[partition as usize].message;
        if at_hand.is_none() {
            let next = self.consumers[consumer as usize].lanes[partition as usize].next;
            if self.logged(topic, partition, next).is_none() {
                return;
            }
        } else if self.delivery(at_hand).is_none_or(|delivery| delivery.progress != Progress::Ready) {
            return;
        }
        let state = &self.consumers[consumer as usize];
        let Some(member) = state.lanes[partition as usize].member else {
            return self.wait_for_group(consumer, partition);
        };
        let instance = self.services[state.service as usize].first + member;
        if self.now >= state.regroup_at || !self.takes_part(instance) {
            // One is back, or this one is leaving: its partitions need not wait until it has gone.
            return self.rebalance(consumer);
        }
        let state = &mut self.consumers[consumer as usize];
        let lane = &mut state.lanes[partition as usize];
        let limit = state.limit;
        let on = &mut state.members[member as usize];
        if on.in_flight >= limit {
            if !std::mem::replace(&mut lane.queued, true) {
                on.waiting.push_back(partition);
            }
            return;
        }
        let message = if at_hand.is_none() { self.fetch(consumer, partition) } else { at_hand };
        if self.is_known(consumer, self.messages[message].context.logical) {
            // The inbox has it: acknowledged without a second effect.
            self.consumers[consumer as usize].counter.now.ok += 1;
            return self.settle(message);
        }
        self.hand_over(message, member, instance);
    }

    /// Whether an instance is in its consumer's group.
    fn takes_part(&self, instance: u32) -> bool {
        self.instances[instance as usize].state == State::Up && self.cut_off(instance).is_none()
    }

    /// Nobody has a lane's partition: it waits until somebody is back. One that starts tells of
    /// itself; one that was cut off does not.
    fn wait_for_group(&mut self, consumer: u32, partition: u32) {
        let regroup_at = self.consumers[consumer as usize].regroup_at;
        if self.now >= regroup_at {
            self.rebalance(consumer);
        } else if regroup_at < u64::MAX {
            self.postpone(consumer, partition, regroup_at);
        }
    }

    /// Looks at a lane's next message again at a later time.
    fn postpone(&mut self, consumer: u32, partition: u32, until: u64) {
        let at_hand = self.consumers[consumer as usize].lanes[partition as usize].message;
        let message = if at_hand.is_none() { self.fetch(consumer, partition) } else { at_hand };
        self.progress(message, Progress::Backoff);
        self.wake_at(until, Wake::Redeliver { message });
    }

    /// Takes the next message from a lane's partition.
    fn fetch(&mut self, consumer: u32, partition: u32) -> Ref {
        let state = &self.consumers[consumer as usize];
        let (topic, offset) = (state.topic, state.lanes[partition as usize].next);
        let logged = self.logged(topic, partition, offset).expect("the caller has looked");
        let delivery = Delivery { consumer, offset, attempts: 0, member: 0, progress: Progress::Ready };
        let message = self.messages.insert(Message {
            topic,
            partition,
            published: logged.published,
            context: logged.context,
            stage: Stage::Delivery(delivery),
        });
        let lane = &mut self.consumers[consumer as usize].lanes[partition as usize];
        lane.message = message;
        lane.next = offset + 1;
        message
    }

    fn hand_over(&mut self, message: Ref, member: u32, instance: u32) {
        let m = &mut self.messages[message];
        let Stage::Delivery(delivery) = &mut m.stage else { return };
        delivery.attempts += 1;
        delivery.member = member;
        delivery.progress = Progress::Running;
        let (consumer, attempts, carried) = (delivery.consumer, delivery.attempts, m.context);
        let state = &mut self.consumers[consumer as usize];
        state.members[member as usize].in_flight += 1;
        let endpoint = state.endpoint;
        let draw = state.draw.part(carried.logical);
        let code = &self.plan.code.endpoints[endpoint as usize];
        let context = Context {
            draw: draw.part(attempts as u64),
            // What a handler asks of others bears the message's identity, whichever delivery it is.
            logical: draw.0,
            deadline: u64::MAX,
            class: code.class.unwrap_or(carried.class),
            ..carried
        };
        let task = self.new_task(TaskParent::Message(message), instance, code.entry, endpoint, context);
        self.admit(task);
    }

    /// Whether deduplication recognizes a message.
    fn is_known(&self, consumer: u32, identity: u64) -> bool {
        let Some(keep) = self.plan.system.consumers[consumer as usize].dedup else { return false };
        self.consumers[consumer as usize].effects.at(identity).is_some_and(|at| self.now - at <= keep)
    }

    /// A message takes effect.
    fn effect(&mut self, consumer: u32, identity: u64) {
        let state = &mut self.consumers[consumer as usize];
        state.counter.now.duplicates += state.effects.at(identity).is_some() as u64;
        state.effects.insert(identity, self.now);
    }

    fn delivery_failed(&mut self, message: Ref) {
        let Some(&mut Delivery { consumer, attempts, .. }) = self.delivery(message) else { return };
        let of = &self.plan.system.consumers[consumer as usize];
        if attempts >= of.attempts {
            return self.give_up(message);
        }
        let state = &mut self.consumers[consumer as usize];
        state.counter.now.retries += 1;
        let draw = state.draw.part(self.messages[message].context.logical).part(attempts as u64);
        let wait = duration(&of.backoff, draw.bits(BACKOFF));
        self.progress(message, Progress::Backoff);
        self.wake_at(self.now + wait, Wake::Redeliver { message });
    }

    /// No further delivery: set aside, or dropped.
    fn give_up(&mut self, message: Ref) {
        let topic = self.messages[message].topic;
        let Some(&mut Delivery { consumer, .. }) = self.delivery(message) else { return };
        self.consumers[consumer as usize].counter.now.failed += 1;
        if self.plan.system.topics[topic as usize].dead_letter {
            let segment = self.segment;
            self.topics[topic as usize].dead_letters[segment] += 1;
            self.settle(message);
        } else {
            self.lose(message);
        }
    }

    /// A message that was accepted is lost to a consumer.
    fn lose(&mut self, message: Ref) {
        let topic = self.messages[message].topic;
        if let Some(&mut Delivery { consumer, .. }) = self.delivery(message) {
            self.consumers[consumer as usize].counter.now.lost += 1;
            self.topics[topic as usize].counter.now.lost += 1;
        }
        self.settle(message);
    }

    /// A consumer is done with a message: its lane goes on.
    fn settle(&mut self, message: Ref) {
        let m = &self.messages[message];
        let (topic, partition) = (m.topic, m.partition);
        let Stage::Delivery(Delivery { consumer, offset, .. }) = m.stage else { return };
        self.messages.remove(message);
        let state = &mut self.consumers[consumer as usize];
        state.backlog.add(self.now, -1);
        let lane = &mut state.lanes[partition as usize];
        lane.message = Ref::NONE;
        lane.committed = lane.committed.max(offset + 1);
        self.trim(topic, partition);
        self.look(consumer, partition);
    }

    /// The instance that had a message has room for another.
    fn free_member(&mut self, message: Ref) {
        let Some(&mut Delivery { consumer, member, .. }) = self.delivery(message) else { return };
        let state = &mut self.consumers[consumer as usize];
        let on = &mut state.members[member as usize];
        on.in_flight = on.in_flight.saturating_sub(1);
        if let Some(partition) = on.waiting.pop_front() {
            state.lanes[partition as usize].queued = false;
            state.due.push_back(partition);
        }
    }

    fn progress(&mut self, message: Ref, progress: Progress) {
        if let Some(delivery) = self.delivery(message) {
            delivery.progress = progress;
        }
    }

    fn delivery(&mut self, message: Ref) -> Option<&mut Delivery> {
        match &mut self.messages.get_mut(message)?.stage {
            Stage::Delivery(delivery) => Some(delivery),
            Stage::Outbox { .. } | Stage::Late { .. } => None,
        }
    }

    /// Whether an operation is one by which a handler changes the world: a fact that it stores, or
    /// something that it asks of others and that may not be repeated.
    fn takes_effect(&self, entry: Pc) -> impl Fn(Pc) -> bool {
        let stores = self.stores_facts(entry);
        let code = &self.plan.code;
        move |pc| match code.ops[pc as usize] {
            Op::Call { endpoint, .. } => !code.endpoints[endpoint as usize].idempotent,
            Op::Publish { outbox, .. } => !outbox,
            _ => stores(pc),
        }
    }

    /// Where a handler has had its effect; none if its operations do not say what that is.
    fn effective(&self, entry: Pc) -> Option<Vec<bool>> {
        let passed = passed(&self.plan.code, entry, self.takes_effect(entry));
        passed.contains(&true).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::Totals;

    use crate::component::topic::tests::{simulated, total, waiting};

    fn system(topic: &str, consumers: &str, faults: &str) -> String {
        format!(
            "
system: consumed
clients:
  web: {{ rate: 100/s, calls: [ {{ endpoint: api POST /notes, key: uniform(1k) }} ] }}
services:
  api: {{ endpoints: {{ POST /notes: [ {{ publish: notes }} ] }} }}
stores: {{ db: {{ kind: postgres, operations: {{ insert: {{ kind: write, time: 1ms }} }} }} }}
topics:
  notes: {{ partitions: 8, {topic} }}
consumers:
{consumers}
experiments:
  test: {{ for: 60s, warmup: 5s, faults: [{faults}], expect: [errors < 100%] }}
"
        )
    }

    fn one(consumer: &str) -> String {
        format!("  index: {{ topic: notes, {consumer} }}")
    }

    fn counted(text: &str) -> Totals {
        simulated(text, |world| total(&world.consumers[0].counter))
    }

    #[test]
    fn each_consumer_gets_every_message() {
        let two = format!("{}\n  mail: {{ topic: notes, handler: 3ms }}", one("handler: 2ms"));
        simulated(&system("capacity: 10k", &two, ""), |world| {
            let [index, mail] = [0, 1].map(|c| total(&world.consumers[c].counter));
            assert_eq!(index.offered, mail.offered);
            assert!(index.ok > 6000 && mail.ok > 6000, "{} {}", index.ok, mail.ok);
            assert!(world.consumers[0].times.iter().all(|times| times.count() == 0 || times.mean() < 20e6));
        });
    }

    #[test]
    fn poison_is_set_aside_or_dropped() {
        let poisoned = one("handler: 2ms, poison: 2%, attempts: 3, backoff: 10ms, instances: 2");
        simulated(&system("dead_letter: true", &poisoned, ""), |world| {
            let index = total(&world.consumers[0].counter);
            let dead: u64 = world.topics[0].dead_letters.iter().sum();
            // 2% of some 6500 messages, within 4 standard errors.
            assert!((85..175).contains(&dead), "{dead}");
            assert_eq!(index.failed, dead);
            assert!((2 * dead..=2 * dead + 2).contains(&index.retries), "each is delivered three times");
            assert_eq!(index.lost, 0);
        });
        let index = counted(&system("dead_letter: false", &poisoned, ""));
        assert!(index.lost > 0 && index.lost == index.failed);
    }

    #[test]
    fn poison_holds_up_what_is_behind_it() {
        let stuck = one("handler: 2ms, poison: 1%, attempts: 1000, backoff: 1s");
        simulated(&system("capacity: 100k", &stuck, ""), |world| {
            assert!(waiting(world, 0) > 5000, "every partition stands still");
        });
    }

    #[test]
    fn a_lost_instance_s_messages_go_to_the_others() {
        let killed = "{ at: 10s, kill: index/1, for: 5s }, { at: 20s, kill: index/1, for: 5s }, \
                      { at: 30s, kill: index/2, for: 5s }, { at: 40s, kill: index/2, for: 5s }";
        let consumer = |more: &str| one(&format!("handler: 30ms, instances: 2, concurrency: 8, cores: 8{more}"));
        let plain = counted(&system("dead_letter: true", &consumer(""), killed));
        assert_eq!((plain.lost, plain.failed), (0, 0));
        assert!(plain.retries > 0, "some were in hand when their process died");
        assert!(plain.duplicates > 0 && plain.duplicates < plain.retries, "and some had had their effect: {plain:?}");

        let deduped = counted(&system("dead_letter: true", &consumer(", dedup: 1h"), killed));
        assert_eq!((deduped.lost, deduped.duplicates), (0, 0));
        assert_eq!(deduped.retries, plain.retries);

        let careless = counted(&system("dead_letter: true", &consumer(", ack_first: true"), killed));
        assert_eq!((careless.duplicates, careless.retries), (0, 0));
        assert_eq!(careless.lost, plain.retries, "what was in hand is gone");
    }

    #[test]
    fn partitions_spread_over_the_instances_that_are_up() {
        let text = system("capacity: 10k", &one("handler: 10ms, instances: 4"), "{ at: 30s, kill: index/4, for: 10s }");
        simulated(&text, |world| {
            let state = &world.consumers[0];
            let of = |member: u32| state.lanes.iter().filter(|lane| lane.member == Some(member)).count();
            assert_eq!([0, 1, 2, 3].map(of), [2, 2, 2, 2], "also after one was away");
            assert!(waiting(world, 0) < 50);
        });
    }

    #[test]
    fn an_instance_that_is_cut_off_is_left_out_until_it_is_back() {
        let consumer = |more: &str| one(&format!("handler: 30ms, instances: 2, concurrency: 8, cores: 8{more}"));
        for target in ["index/1", "index"] {
            let cut_off = format!("{{ at: 10s, partition: {target}, for: 10s }}");
            let text = |more: &str| system("dead_letter: true", &consumer(more), &cut_off);
            simulated(&text(""), |world| {
                let index = total(&world.consumers[0].counter);
                assert_eq!((index.lost, index.failed), (0, 0), "{target}");
                assert_eq!(index.ok + waiting(world, 0), index.offered, "{target}");
                assert!(waiting(world, 0) < 20, "{target}");
                // What was in hand was done, but the broker did not hear of it.
                assert_eq!(index.duplicates, index.retries, "{target}");
                assert!(index.duplicates > 0, "{target}");
                let members: Vec<Option<u32>> = world.consumers[0].lanes.iter().map(|lane| lane.member).collect();
                assert!(members.contains(&Some(0)) && members.contains(&Some(1)), "{target}: {members:?}");
            });
            assert_eq!(counted(&text(", dedup: 1h")).duplicates, 0);
        }
    }

    #[test]
    fn an_effect_in_a_store_is_known_to_be_done() {
        // The handlers that die wait behind their insert: each has had its effect.
        let steps = "handler: [ { query: db.insert }, { wait: 50ms } ], instances: 2, concurrency: 8";
        let killed = "{ at: 10s, kill: index/1, for: 5s }";
        let plain = counted(&system("dead_letter: true", &one(steps), killed));
        assert!(plain.retries > 2);
        assert!(plain.duplicates >= plain.retries * 3 / 4, "{plain:?}");
    }

    #[test]
    fn a_short_memory_lets_old_duplicates_through() {
        // The broker hears of no acknowledgement while it is down, and delivers again after 20 s.
        let outage = "{ at: 20s, down: notes, for: 20s }";
        let keep = |keep: &str| one(&format!("handler: 30ms, concurrency: 8, cores: 8, dedup: {keep}"));
        let short = counted(&system("dead_letter: true", &keep("5s"), outage));
        let long = counted(&system("dead_letter: true", &keep("1h"), outage));
        assert!(short.duplicates > 0, "{short:?}");
        assert_eq!(long.duplicates, 0);
    }

    #[test]
    fn a_repeated_request_publishes_its_message_again() {
        // Every answer comes too late for the client, which asks three times what may not be asked
        // twice, whatever the file says.
        let text = system("capacity: 10k", &one("handler: 1ms"), "")
            .replace("[ { publish: notes } ]", "{ idempotent: true, do: [ { publish: notes }, { wait: 300ms } ] }")
            .replace("services:\n  api: {", "services:\n  api: { workers: 512,")
            .replace("] }\nservices", "], timeout: 5s, per_try_timeout: 100ms, retry: { attempts: 3, backoff: 10ms, budget: 100% } }\nservices");
        let plain = counted(&text);
        assert!(plain.duplicates * 3 > plain.ok, "{plain:?}");
        let deduped = counted(&text.replace("handler: 1ms", "handler: 1ms, dedup: 1h"));
        assert_eq!(deduped.duplicates, 0);
    }
}
