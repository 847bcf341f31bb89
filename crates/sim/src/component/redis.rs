//! Redis: one thread that does commands in turn, and the way there and back.

use plimsoll_model::system::{Redis, StoreKind};

use crate::component::store::OpKind;
use crate::engine::{Event, Ref, duration};
use crate::world::World;

const TIME: u64 = 1;

impl World<'_> {
    /// A command reaches the server.
    pub(crate) fn redis_command(&mut self, op: Ref) {
        let now = self.now;
        let o = &self.ops[op];
        let n = &mut self.nodes[o.node as usize];
        let StoreKind::Redis(redis) = &self.plan.system.stores[n.store as usize].kind else {
            unreachable!("only called for Redis");
        };
        let takes = match o.kind {
            OpKind::Operation(_) => o.takes,
            _ => duration(&redis.time, o.context.draw.bits(TIME)),
        };
        n.next_free = n.next_free.max(now) + n.slow.apply(occupancy(redis));
        let done = n.next_free + n.slow.apply(takes);
        self.queue.at(done, Event::OpDone { op });
    }
}

/// How long its thread is busy with one command, ns.
pub(crate) fn occupancy(redis: &Redis) -> u64 {
    (1e9 / redis.max_rate) as u64
}
