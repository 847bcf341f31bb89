use serde_json::{Value, json};

use std::sync::atomic::Ordering::Relaxed;

use plimsoll_model::system::Dist;

use super::*;
use crate::proxy::toxic::{Stream, Toxic};

const MS: u64 = 1_000_000;

fn toxic(id: u64, kind: &str, attributes: Value) -> Arc<Installed> {
    let mut made = Kind::new(kind).expect("a type");
    made.set(attributes.as_object().expect("an object")).expect("attributes");
    let toxic = Toxic { name: kind.to_owned(), stream: Stream::Upstream, toxicity: 1.0, kind: made };
    Arc::new(Installed::new(id, toxic, More::None))
}

/// A link in a time of its own.
struct World {
    link: Link,
    now: u64,
    /// What left, and when, in ms.
    left: Vec<(u64, usize)>,
    ending: Option<(u64, Ending)>,
}

impl World {
    fn new(toxics: &[&Arc<Installed>]) -> World {
        let link = Link::new(Draw::root(1, 0));
        let mut world = World { link, now: 0, left: Vec::new(), ending: None };
        world.follow(toxics);
        world
    }

    fn bytes(&mut self, count: usize) -> &mut World {
        assert!(self.link.wants());
        self.link.arrive(Arrival::Bytes(Bytes::from(vec![0; count])), self.now);
        self
    }

    fn end(&mut self) -> &mut World {
        self.link.arrive(Arrival::End, self.now);
        self
    }

    /// Lets time pass, to so many ms.
    fn to(&mut self, until: u64) -> &mut World {
        let until = until * MS;
        while self.ending.is_none() {
            match self.link.next(self.now) {
                Next::Write(count) => {
                    self.left.push((self.now / MS, count));
                    self.ending = self.link.wrote(count, self.now).map(|ending| (self.now / MS, ending));
                }
                Next::End(ending) => self.ending = Some((self.now / MS, ending)),
                Next::Wait(Some(at)) if at <= until => {
                    assert!(at > self.now, "time stands still");
                    self.now = at;
                }
                Next::Wait(_) => break,
            }
        }
        self.now = until;
        self
    }

    fn follow(&mut self, toxics: &[&Arc<Installed>]) -> &mut World {
        let toxics: Vec<Arc<Installed>> = toxics.iter().map(|toxic| (*toxic).clone()).collect();
        if let Some(ending) = self.link.follow(&toxics, self.now) {
            self.ending = Some((self.now / MS, ending));
        }
        self
    }

    #[track_caller]
    fn check(&self, left: &[(u64, usize)], ending: Option<(u64, Ending)>) {
        assert_eq!((&self.left[..], self.ending), (left, ending));
    }
}

#[test]
fn nothing_is_held_without_a_reason() {
    World::new(&[]).bytes(5).bytes(7).to(3).end().to(9).check(&[(0, 5), (0, 7)], Some((3, Ending::Half)));
}

#[test]
fn chunks_are_late_each_from_when_it_came() {
    let mut world = World::new(&[&toxic(1, "latency", json!({ "latency": 100 }))]);
    world.bytes(1).bytes(2).to(50).bytes(3).to(60).end().to(1000);
    world.check(&[(100, 1), (100, 2), (150, 3)], Some((160, Ending::Half)));
}

#[test]
fn a_change_applies_to_what_waits() {
    let long = toxic(1, "latency", json!({ "latency": 60_000 }));
    let short = toxic(1, "latency", json!({ "latency": 300 }));
    World::new(&[&long]).bytes(1).to(100).follow(&[&short]).to(1000).check(&[(300, 1)], None);
    World::new(&[&long]).bytes(1).to(100).follow(&[]).to(1000).check(&[(100, 1)], None);
}

#[test]
fn jitter_keeps_the_order() {
    let mut world = World::new(&[&toxic(1, "latency", json!({ "latency": 50, "jitter": 50 }))]);
    for size in 1..=20 {
        world.bytes(size);
    }
    world.to(1000);
    let sizes: Vec<usize> = world.left.iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, (1..=20).collect::<Vec<_>>());
    assert!(world.left[19].0 > 50, "one of twenty was late");
}

#[test]
fn a_rate_is_kept_to_the_byte() {
    // 10 KB/s: 10 bytes a ms, handed on as 100 bytes every 10 ms.
    let mut world = World::new(&[&toxic(1, "bandwidth", json!({ "rate": 10 }))]);
    world.bytes(250).to(1000);
    world.check(&[(10, 100), (20, 100), (25, 50)], None);
    // The link was idle meanwhile: nothing is owed to it for that.
    world.bytes(100).to(2000);
    assert_eq!(world.left.last(), Some(&(1010, 100)));
    let stopped = toxic(1, "bandwidth", json!({ "rate": 0 }));
    World::new(&[&stopped]).bytes(1).to(9000).follow(&[]).to(9001).check(&[(9000, 1)], None);
    // The slower of two counts, and a latency comes before both.
    let all = [
        toxic(1, "bandwidth", json!({ "rate": 10 })),
        toxic(2, "bandwidth", json!({ "rate": 1 })),
        toxic(3, "latency", json!({ "latency": 100 })),
    ];
    World::new(&all.each_ref()).bytes(10).to(1000).check(&[(110, 10)], None);
}

#[test]
fn bytes_are_sliced_with_pauses() {
    let mut world = World::new(&[&toxic(1, "slicer", json!({ "average_size": 4, "delay": 5000 }))]);
    world.bytes(10).to(1000).check(&[(0, 4), (5, 4), (10, 2)], None);
}

#[test]
fn an_end_can_be_late_and_bytes_not() {
    let mut world = World::new(&[&toxic(1, "slow_close", json!({ "delay": 500 }))]);
    world.bytes(1).end().to(1000).check(&[(0, 1)], Some((500, Ending::Half)));
}

#[test]
fn a_timeout_drops_bytes_and_then_the_connection() {
    let timeout = toxic(1, "timeout", json!({ "timeout": 200 }));
    World::new(&[&timeout]).to(100).bytes(1).to(1000).check(&[], Some((200, Ending::Close)));
    let forever = toxic(1, "timeout", json!({}));
    let mut world = World::new(&[&forever]);
    world.bytes(1).to(100_000).bytes(1).to(200_000).check(&[], None);
    // Bytes are missing: the connection cannot go on.
    world.follow(&[]).check(&[], Some((200_000, Ending::Close)));
}

#[test]
fn a_reset_waits_for_the_first_bytes() {
    let reset = toxic(1, "reset_peer", json!({ "timeout": 50 }));
    World::new(&[&reset]).to(1000).bytes(1).to(1020).bytes(1).to(2000).check(&[], Some((1050, Ending::Reset)));
    World::new(&[&reset]).to(10).end().to(2000).check(&[], Some((60, Ending::Reset)));
    let at_once = toxic(1, "reset_peer", json!({}));
    World::new(&[&at_once]).to(10).bytes(1).to(2000).check(&[], Some((10, Ending::Reset)));
}

#[test]
fn a_limit_ends_the_connection_when_it_is_reached() {
    let limit = toxic(1, "limit_data", json!({ "bytes": 10 }));
    World::new(&[&limit]).bytes(6).to(5).bytes(6).to(9).check(&[(0, 6), (5, 4)], Some((5, Ending::Close)));
    // Counted from when it was added, and on through changes.
    let larger = toxic(1, "limit_data", json!({ "bytes": 12 }));
    let mut world = World::new(&[]);
    world.bytes(6).to(5).follow(&[&limit]).bytes(6).to(6).follow(&[&larger]).bytes(9).to(9);
    world.check(&[(0, 6), (5, 6), (6, 6)], Some((6, Ending::Close)));
    let none = toxic(1, "limit_data", json!({}));
    World::new(&[&none]).to(3).bytes(1).to(9).check(&[], Some((3, Ending::Close)));
}

#[test]
fn a_partition_holds_everything_until_it_heals() {
    let partition = toxic(1, "partition", json!({}));
    let mut world = World::new(&[]);
    world.bytes(1).to(5).bytes(2).follow(&[&partition]);
    assert!(!world.link.wants(), "what is sent stays with the sender");
    world.to(60_000).check(&[(0, 1)], None);
    world.follow(&[]).to(60_001).check(&[(0, 1), (60_000, 2)], None);
    world.end().follow(&[&partition]).to(70_000).follow(&[]).to(70_001);
    assert_eq!(world.ending, Some((70_000, Ending::Half)));
}

#[test]
fn loss_is_lateness_and_no_byte_is_missing() {
    let mut world = World::new(&[&toxic(1, "loss", json!({ "probability": 0.5, "rto": 200 }))]);
    for _ in 0..50 {
        world.bytes(100);
    }
    world.to(100_000);
    assert_eq!(world.left.iter().map(|(_, size)| size).sum::<usize>(), 5000);
    assert!(world.left.iter().all(|(at, _)| [0, 200, 600, 1400, 3000, 6200, 12_600, 25_400, 51_000].contains(at)));
    assert!(world.left[0].0 < world.left[49].0);
    let reset = toxic(1, "loss", json!({ "probability": 1, "reset": 1 }));
    World::new(&[&reset]).bytes(1).to(9).check(&[], Some((0, Ending::Reset)));
}

#[test]
fn a_full_queue_asks_for_no_more() {
    let mut world = World::new(&[&toxic(1, "latency", json!({ "latency": 1000 }))]);
    while world.link.wants() {
        world.bytes(1 << 16);
    }
    assert_eq!(world.link.bytes, WAITING_MAX);
    world.to(1000);
    assert!(world.link.wants());
    assert_eq!(world.link.bytes, 0);
}

#[test]
fn toxicity_is_a_share_of_connections_and_the_same_for_one_seed() {
    let latency = toxic(9, "latency", json!({ "latency": 1 })).toxic.clone();
    let half = Arc::new(Installed::new(9, Toxic { toxicity: 0.5, ..latency }, More::None));
    let on = |seed: u64| -> Vec<bool> {
        let connection = |number| {
            let mut link = Link::new(Draw::root(seed, 0).part(number));
            link.follow(std::slice::from_ref(&half), 0);
            !link.active.is_empty()
        };
        (0..1000).map(connection).collect()
    };
    let count = on(1).iter().filter(|on| **on).count();
    // Five standard errors of 15.8.
    assert!((421..=579).contains(&count), "{count}");
    assert_eq!(on(1), on(1));
    assert_ne!(on(1), on(2));
}

#[test]
fn what_shares_a_rate_takes_turns() {
    let pace = Arc::<super::super::config::Pace>::default();
    let shared = |id| {
        let toxic = toxic(id, "bandwidth", json!({ "rate": 1 })).toxic.clone();
        Arc::new(Installed::new(id, toxic, More::Pace(pace.clone())))
    };
    let mut links = [1, 2].map(|id| {
        let mut link = Link::new(Draw::root(id, 0));
        link.follow(&[shared(id)], 0);
        link.arrive(Arrival::Bytes(Bytes::from_static(&[0; 10])), 0);
        link
    });
    // A byte a ms, and pieces of what goes through in 10 ms.
    assert_eq!(links.each_mut().map(|link| link.next(0)), [10, 20].map(|ms| Next::Wait(Some(ms * MS))));
    assert_eq!(links.each_mut().map(|link| link.next(10 * MS)), [Next::Write(10), Next::Wait(Some(20 * MS))]);
    let counts = |link: &Link| (link.active[0].toxic.asked.load(Relaxed), link.active[0].toxic.struck.load(Relaxed));
    assert_eq!(links.each_ref().map(counts), [(1, 1); 2]);
}

#[test]
fn a_latency_can_be_drawn_for_each_chunk() {
    let toxic = toxic(1, "latency", json!({ "latency": 5 })).toxic.clone();
    let drawn = Installed::new(1, toxic, More::Drawn(Dist::Uniform { low: MS, high: 3 * MS }));
    let mut link = Link::new(Draw::root(7, 0));
    link.follow(&[Arc::new(drawn)], 0);
    let mut dues = Vec::new();
    for now in (0..100).map(|number| number * 10 * MS) {
        link.arrive(Arrival::Bytes(Bytes::from_static(b"x")), now);
        let Next::Wait(Some(due)) = link.next(now) else { panic!("it is late") };
        dues.push(due - now);
        assert_eq!(link.next(due), Next::Write(1));
        link.wrote(1, due);
    }
    assert!(dues.iter().all(|due| (6 * MS..=8 * MS).contains(due)), "{dues:?}");
    assert!(dues.iter().any(|due| *due < 6 * MS + MS / 2) && dues.iter().any(|due| *due > 7 * MS + MS / 2));
}
