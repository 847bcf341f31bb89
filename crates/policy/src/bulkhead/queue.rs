//! The bulkhead's queue.

use super::Ticket;
use crate::Time;

/// Waiters in order of arrival: a doubly linked list in a slab, so that anyone may leave in O(1)
/// and nothing is allocated once the queue has been as long as it gets.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    nodes: Vec<Node>,
    head: u32,
    tail: u32,
    free: u32,
    pub(super) len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    until: Time,
    generation: u32,
    previous: u32,
    /// The next waiter, or the next free node.
    next: u32,
    waiting: bool,
}

const NIL: u32 = u32::MAX;

impl Default for Queue {
    fn default() -> Self {
        Queue { nodes: Vec::new(), head: NIL, tail: NIL, free: NIL, len: 0 }
    }
}

impl Queue {
    pub(super) fn push(&mut self, until: Time) -> Ticket {
        let slot = if self.free == NIL {
            let empty = Node { until, generation: 0, previous: NIL, next: NIL, waiting: false };
            self.nodes.push(empty);
            self.nodes.len() as u32 - 1
        } else {
            let slot = self.free;
            self.free = self.nodes[slot as usize].next;
            slot
        };
        let generation = self.nodes[slot as usize].generation;
        self.nodes[slot as usize] = Node { until, generation, previous: self.tail, next: NIL, waiting: true };
        match self.tail {
            NIL => self.head = slot,
            tail => self.nodes[tail as usize].next = slot,
        }
        self.tail = slot;
        self.len += 1;
        Ticket { slot, generation }
    }

    pub(super) fn pop(&mut self) -> Option<Ticket> {
        let node = self.nodes.get(self.head as usize)?;
        let ticket = Ticket { slot: self.head, generation: node.generation };
        self.remove(ticket);
        Some(ticket)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(node) = self.nodes.get_mut(ticket.slot as usize) else {
            return false;
        };
        if !node.waiting || node.generation != ticket.generation {
            return false;
        }
        let Node { previous, next, .. } = *node;
        node.waiting = false;
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = ticket.slot;
        match previous {
            NIL => self.head = next,
            slot => self.nodes[slot as usize].next = next,
        }
        match next {
            NIL => self.tail = previous,
            slot => self.nodes[slot as usize].previous = previous,
        }
        self.len -= 1;
        true
    }

    pub(super) fn head_until(&self) -> Option<Time> {
        self.nodes.get(self.head as usize).map(|node| node.until)
    }
}
