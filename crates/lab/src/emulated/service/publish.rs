//! Messages: sent to the topic's broker, or through an outbox once the transaction has committed.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::draw::duration;

use super::Instance;
use super::task::Task;
use crate::answer::Answer;
use crate::context::Context;
use crate::tally::{Held, Of};
use crate::wire::client::request;

/// Publishes, or puts the message into the transaction's outbox.
pub(super) async fn publish(task: &mut Task, topic: u32, outbox: bool) -> Result<(), Answer> {
    let mut context = task.below();
    // A repeated request publishes the same message again.
    context.logical = plimsoll_model::draw::Draw(task.context.logical).part(u64::from(topic)).0;
    if outbox && task.in_transaction() {
        task.outbox.push((topic, context));
        return Ok(());
    }
    let instance = task.instance.clone();
    let answer = send(&instance, topic, &context).await;
    if answer.is_ok() { Ok(()) } else { Err(answer) }
}

/// A transaction with messages in its outbox has committed: the relay sends them, however long it takes.
pub(super) fn committed(instance: &Arc<Instance>, outbox: Vec<(u32, Context)>) {
    for (topic, context) in outbox {
        let instance = instance.clone();
        let waits = Held::new(&instance.process.tools.tally, Of::Topic(topic), "backlog");
        tokio::spawn(async move {
            let relay = &instance.process.system.topics[topic as usize].relay;
            instance.process.tools.timer.wait(duration(relay, context.draw.bits(RELAY))).await;
            while !send(&instance, topic, &context).await.is_ok() {
                tokio::time::sleep(AGAIN).await;
            }
            drop(waits);
        });
    }
}

async fn send(instance: &Instance, topic: u32, context: &Context) -> Answer {
    let broker = instance.process.layout.topic(instance.id, instance.number, topic);
    let tools = &instance.process.tools;
    let published = tools.clock.wall(tools.clock.now()).as_nanos();
    let target = format!("/publish?published={published}&context={}", context.field());
    let request = request("POST", &target, &[], &[]);
    match tools.links.ask(broker, &request, "POST", false).await {
        Ok(answer) => Answer::of_wire(&answer),
        Err(_) => Answer::Refused,
    }
}

/// Between two attempts of the relay.
const AGAIN: Duration = Duration::from_millis(100);
const RELAY: u64 = 8 << 40;
