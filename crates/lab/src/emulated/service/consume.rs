//! A consumer's instance: it takes the messages of its partitions, one after another in each, and handles them.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::system::{Consumer, ConsumerId};
use tokio::sync::Semaphore;

use super::Instance;
use super::task::Task;
use crate::context::{CONTEXT, Context};
use crate::tally::{Held, Of, Time};
use crate::wire::client::{Answer as Wire, request};

/// Begins with every partition that is this instance's.
pub(super) fn start(instance: &Arc<Instance>) {
    let system = instance.process.system.clone();
    let service = &system.services[instance.id.index()];
    let workers = if service.asynchronous { service.max_in_flight } else { service.workers };
    for (at, consumer) in system.consumers.iter().enumerate().filter(|(_, consumer)| consumer.service == instance.id) {
        let partitions = system.topics[consumer.topic.index()].partitions;
        let instances = service.instances.max(1);
        let free = Arc::new(Semaphore::new(workers as usize));
        for partition in (0..partitions).filter(|partition| partition % instances == instance.number % instances) {
            tokio::spawn(consume(instance.clone(), ConsumerId::from(at), partition, free.clone()));
        }
    }
}

async fn consume(instance: Arc<Instance>, id: ConsumerId, partition: u32, free: Arc<Semaphore>) {
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
        let tools = &instance.process.tools;
        let came = tools.clock.now();
        let handled = handle(&instance, consumer, &broker, &message, &free).await;
        if !consumer.ack_first {
            broker.ask(&format!("/commit?{}", message.place)).await;
        }
        if let Some(handled) = handled {
            tools.tally.took(Time::Handling(id.0), tools.clock.now().nanos_since(came).saturating_sub(handled));
        }
    }
}

/// Handles a message, each time once a worker is free. How long it waited for one and its handler took, ns, if that
/// went well at once.
async fn handle(
    instance: &Arc<Instance>,
    consumer: &Consumer,
    broker: &Broker<'_>,
    message: &Message,
    free: &Semaphore,
) -> Option<u64> {
    let tools = &instance.process.tools;
    let of = Of::Consumer(broker.consumer);
    let logical = message.context.logical;
    let poison = Draw(logical).happens(POISON, consumer.poison);
    for attempt in 0..consumer.attempts.max(1) {
        tools.tally.count(of, |totals| {
            totals.offered += 1;
            totals.retries += u64::from(attempt > 0);
        });
        let waits = tools.clock.now();
        let Ok(turn) = free.acquire().await else { return None };
        let began = tools.clock.now();
        let mut handler = None;
        let known = consumer.dedup.is_some()
            && broker.ask(&format!("/effect?ask=1&{}&logical={logical:x}", message.place)).await.is_none();
        let well = known || {
            let _worker = Held::new(&tools.tally, instance.of, "workers");
            let mut context = message.context.clone();
            context.draw = context.draw.part(u64::from(attempt) | 1 << 44);
            let mut task = Task::new(instance, context, None);
            tools.tally.count(instance.of, |totals| totals.offered += 1);
            let runs = tools.clock.now();
            let ended = task.run(&consumer.handler).await;
            handler = Some(tools.clock.now().nanos_since(runs) + began.nanos_since(waits));
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
        drop(turn);
        let now = tools.clock.wall(tools.clock.now()).as_nanos();
        let since = now.saturating_sub(message.published) as u64;
        tools.tally.ended(of, since, |totals| *(if well { &mut totals.ok } else { &mut totals.failed }) += 1);
        if well {
            return handler.filter(|_| attempt == 0);
        }
        if attempt + 1 < consumer.attempts {
            let backoff = duration(&consumer.backoff, message.context.draw.bits(u64::from(attempt) | 1 << 45));
            tools.timer.wait(backoff).await;
        }
    }
    broker.ask(&format!("/dead?{}", message.place)).await;
    None
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
