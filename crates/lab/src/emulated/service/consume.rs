//! A consumer's instance: it takes the messages of its partitions, one after another in each, and handles them.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::system::{Consumer, ConsumerId};

use super::Instance;
use super::task::Task;
use crate::context::{CONTEXT, Context};
use crate::tally::{Held, Of};
use crate::wire::client::{Answer as Wire, request};

/// Begins with every partition that is this instance's.
pub(super) fn start(instance: &Arc<Instance>) {
    let system = instance.process.system.clone();
    for (at, consumer) in system.consumers.iter().enumerate().filter(|(_, consumer)| consumer.service == instance.id) {
        let partitions = system.topics[consumer.topic.index()].partitions;
        let instances = system.services[instance.id.index()].instances.max(1);
        for partition in (0..partitions).filter(|partition| partition % instances == instance.number % instances) {
            tokio::spawn(consume(instance.clone(), ConsumerId::from(at), partition));
        }
    }
}

async fn consume(instance: Arc<Instance>, id: ConsumerId, partition: u32) {
    let system = instance.process.system.clone();
    let consumer = &system.consumers[id.index()];
    let broker = Broker { instance: &instance, topic: consumer.topic.0, consumer: id.0, partition };
    loop {
        let Some(message) = broker.next().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if consumer.ack_first {
            broker.ask(&format!("/commit?{}", message.place)).await;
        }
        handle(&instance, consumer, &broker, &message).await;
        if !consumer.ack_first {
            broker.ask(&format!("/commit?{}", message.place)).await;
        }
    }
}

async fn handle(instance: &Arc<Instance>, consumer: &Consumer, broker: &Broker<'_>, message: &Message) {
    let tools = &instance.process.tools;
    let of = Of::Consumer(broker.consumer);
    let logical = message.context.logical;
    let poison = Draw(logical).happens(POISON, consumer.poison);
    for attempt in 0..consumer.attempts.max(1) {
        tools.tally.count(of, |totals| {
            totals.offered += 1;
            totals.retries += u64::from(attempt > 0);
        });
        let began = tools.clock.now();
        let known = consumer.dedup.is_some()
            && broker.ask(&format!("/effect?ask=1&{}&logical={logical:x}", message.place)).await.is_none();
        let well = known || {
            let _worker = Held::new(&tools.tally, instance.of, "workers");
            let mut context = message.context.clone();
            context.draw = context.draw.part(u64::from(attempt) | 1 << 44);
            let mut task = Task::new(instance, context, None);
            tools.tally.count(instance.of, |totals| totals.offered += 1);
            let ended = task.run(&consumer.handler).await;
            let took = tools.clock.now().nanos_since(began);
            let well = ended.is_ok() && !poison;
            tools
                .tally
                .ended(instance.of, took, |totals| *(if well { &mut totals.ok } else { &mut totals.failed }) += 1);
            if well {
                broker.ask(&format!("/effect?{}&logical={logical:x}", message.place)).await;
            }
            well
        };
        let now = tools.clock.wall(tools.clock.now()).as_nanos();
        let since = now.saturating_sub(message.published) as u64;
        tools.tally.ended(of, since, |totals| *(if well { &mut totals.ok } else { &mut totals.failed }) += 1);
        if well {
            return;
        }
        if attempt + 1 < consumer.attempts {
            let backoff = duration(&consumer.backoff, message.context.draw.bits(u64::from(attempt) | 1 << 45));
            tools.timer.wait(backoff).await;
        }
    }
    broker.ask(&format!("/dead?{}", message.place)).await;
}

/// A message, and where it is.
struct Message {
    place: String,
    published: u128,
    context: Context,
}

struct Broker<'i> {
    instance: &'i Instance,
    topic: u32,
    consumer: u32,
    partition: u32,
}

impl Broker<'_> {
    /// The next message of the partition that is not handled yet, once there is one.
    async fn next(&self) -> Option<Message> {
        let answer = self.ask(&format!("/next?consumer={}&partition={}", self.consumer, self.partition)).await?;
        let offset = answer.field("offset")?;
        let mut fields = http::HeaderMap::new();
        fields.insert(CONTEXT, answer.field("context")?.parse().ok()?);
        Some(Message {
            place: format!("consumer={}&partition={}&offset={offset}", self.consumer, self.partition),
            published: answer.field("published")?.parse().ok()?,
            context: Context::of(&fields, || 0),
        })
    }

    /// A good answer of the broker.
    async fn ask(&self, target: &str) -> Option<Wire> {
        let of = self.instance;
        let broker = of.process.layout.topic(of.id, of.number, self.topic);
        let request = request("POST", target, &[], &[]);
        let answer = of.process.tools.links.ask(broker, &request, "POST", true).await.ok()?;
        (answer.status == 200).then_some(answer)
    }
}

const POISON: u64 = 9 << 40;
