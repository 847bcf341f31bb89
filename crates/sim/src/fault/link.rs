use plimsoll_model::system::{ClientId, Component, Dist, Target};

use super::target::Victim;
use crate::component::edge::Link;
use crate::engine::{Draw, duration};
use crate::world::World;

/// Something that disturbs edges.
pub(crate) struct LinkFault {
    wher: Where,
    what: Disturbance,
}

/// Which edges.
enum Where {
    Edge(u32),
    /// All of a client's.
    Client(ClientId),
    /// Those that go into a set of machines or out of it.
    Around(Vec<Victim>),
}

/// What happens to a message.
#[derive(Clone, Debug)]
pub(crate) enum Disturbance {
    /// It waits for the end of the partition.
    Blocked,
    /// It is lost with this probability, and sent again after a retransmission timeout.
    Drop(f64),
    /// Its connection breaks with this probability.
    Reset(f64),
    /// It takes its turn at so many bytes a second.
    Bandwidth { rate: f64, free_at: u64 },
    /// It takes longer.
    Slow { factor: f64, added: Dist },
}

/// Linux's least retransmission timeout (`TCP_RTO_MIN`); it doubles with each loss.
const RETRANSMISSION: u64 = 200_000_000;

impl World<'_> {
    /// A disturbance begins.
    pub(super) fn disturb(&mut self, fault: u32, target: &Target, what: Disturbance) {
        let wher = match target {
            Target::Edge(edge) => Where::Edge(edge.0),
            Target::All(Component::Client(client)) => Where::Client(*client),
            other => Where::Around(self.victims(other)),
        };
        self.faults.links.push((fault, LinkFault { wher, what }));
    }

    /// A disturbance ends: what it held back goes on its way.
    pub(super) fn settle_links(&mut self, fault: u32) {
        self.faults.links.retain(|(of, _)| *of != fault);
        for (end, target, event, bytes) in std::mem::take(&mut self.faults.blocked) {
            self.send(end, target, event, bytes);
        }
    }

    /// Whether a partition lies between an end and its target.
    pub(crate) fn is_blocked(&self, end: u32, local: usize) -> bool {
        self.faults
            .links
            .iter()
            .any(|(_, fault)| matches!(fault.what, Disturbance::Blocked) && self.crosses(&fault.wher, end, local))
    }

    /// What happens to a message of so many bytes, whose way takes `delay` ns undisturbed.
    pub(crate) fn link(&mut self, end: u32, local: usize, draw: Draw, delay: u64, bytes: u64, back: bool) -> Link {
        let mut total = delay;
        for at in 0..self.faults.links.len() {
            if !self.crosses(&self.faults.links[at].1.wher, end, local) {
                continue;
            }
            let now = self.now;
            let draw = draw.part(at as u64 + 1);
            match &mut self.faults.links[at].1.what {
                Disturbance::Blocked => return Link::Blocked,
                Disturbance::Drop(share) => {
                    let mut timeout = RETRANSMISSION;
                    let mut tries = 0;
                    while tries < 16 && draw.happens(tries, *share) {
                        total += timeout;
                        timeout *= 2;
                        tries += 1;
                    }
                }
                Disturbance::Reset(share) => {
                    if !back && draw.happens(0, *share) {
                        return Link::Reset;
                    }
                }
                Disturbance::Bandwidth { rate, free_at } => {
                    *free_at = (*free_at).max(now) + (bytes as f64 / *rate * 1e9) as u64;
                    total += *free_at - now;
                }
                Disturbance::Slow { factor, added } => {
                    total = (total as f64 * *factor) as u64;
                    if !back {
                        total += duration(added, draw.bits(0));
                    }
                }
            }
        }
        Link::Delay(total)
    }

    /// Whether the way from an end to its target leads through a place.
    fn crosses(&self, wher: &Where, end: u32, local: usize) -> bool {
        let e = &self.ends[end as usize];
        match wher {
            // A route with policies of its own is another edge of the same pair.
            Where::Edge(edge) => {
                let (of, this) = (&self.plan.system.edges[*edge as usize], &self.plan.system.edges[e.edge as usize]);
                of.from == this.from && of.to == this.to
            }
            Where::Client(client) => self.plan.system.edges[e.edge as usize].from == Component::Client(*client),
            Where::Around(victims) => {
                let from = e.instance.is_some_and(|instance| victims.contains(&Victim::Instance(instance)));
                let target = e.first_target + local as u32;
                let to = match self.plan.system.edges[e.edge as usize].to {
                    Component::Store(_) => victims.contains(&Victim::Node(target)),
                    _ => victims.contains(&Victim::Instance(target)),
                };
                from != to
            }
        }
    }
}
