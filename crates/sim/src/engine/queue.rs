use super::Event;

/// Pending events in total order of (time, sequence).
///
/// A 4-ary heap, and beside it a first-in-first-out lane for each constant delay. Almost every
/// timeout is cancelled before it fires; in a heap its tombstone would be sifted all the same. In
/// a lane it is skipped when it comes to the front, so pending timeouts cost next to nothing. Only
/// a lane's front stands in the heap.
pub(crate) struct EventQueue {
    heap: Vec<Entry>,
    /// Whether the top has been taken and its place not been filled: most events schedule another,
    /// which goes there in one sift.
    hole: bool,
    lanes: Vec<Lane>,
    sequence: u64,
}

/// A lane for one constant delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId(u16);

struct Lane {
    delay: u64,
    waiting: Ring,
    /// Whether its front stands in the heap.
    in_heap: bool,
}

/// A queue of entries: a `VecDeque` whose both ends are in line.
#[derive(Default)]
struct Ring {
    /// A power of two of places, or none yet.
    entries: Vec<Entry>,
    first: usize,
    len: usize,
}

impl Ring {
    #[inline(always)]
    fn push_back(&mut self, entry: Entry) {
        if self.len == self.entries.len() {
            self.grow();
        }
        let at = (self.first + self.len) & (self.entries.len() - 1);
        let place = &mut self.entries[at];
        place.time = entry.time;
        place.order = entry.order;
        place.event = entry.event;
        self.len += 1;
    }

    #[inline(always)]
    fn pop_front(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let entry = self.entries[self.first];
        self.first = (self.first + 1) & (self.entries.len() - 1);
        self.len -= 1;
        if self.first == 0 {
            self.shrink();
        }
        Some(entry)
    }

    /// Gives up places that have not been needed for a round: fewer are sooner in the processor's
    /// cache again. What is left lies at the beginning.
    #[inline(never)]
    fn shrink(&mut self) {
        let half = self.entries.len() / 2;
        if half >= 16 && self.len <= half / 4 {
            self.entries.truncate(half);
        }
    }

    /// Doubles the places.
    #[cold]
    fn grow(&mut self) {
        self.entries.rotate_left(self.first);
        self.first = 0;
        let blank = Entry { time: 0, order: 0, event: Event::Wake { what: 0 } };
        self.entries.resize((2 * self.len).max(16), blank);
    }
}

#[derive(Clone, Copy)]
struct Entry {
    time: u64,
    /// Sequence in the high 48 bits, lane plus one in the low 16: zero is the heap itself.
    order: u64,
    event: Event,
}

const _: () = assert!(size_of::<Entry>() <= 32, "an event fits half a cache line");

impl Entry {
    #[inline(always)]
    fn before(&self, other: &Entry) -> bool {
        self.key() < other.key()
    }

    /// One number to compare, so that the compiler needs no branch for it.
    #[inline(always)]
    fn key(&self) -> u128 {
        (self.time as u128) << 64 | self.order as u128
    }
}

impl EventQueue {
    pub(crate) fn new() -> Self {
        EventQueue { heap: Vec::with_capacity(1024), hole: false, lanes: Vec::new(), sequence: 0 }
    }

    /// The lane for this delay, made when first asked for; none when there are too many.
    pub(crate) fn lane(&mut self, delay: u64) -> Option<LaneId> {
        if let Some(i) = self.lanes.iter().position(|lane| lane.delay == delay) {
            return Some(LaneId(i as u16));
        }
        if self.lanes.len() >= MAX_LANES {
            return None;
        }
        self.lanes.push(Lane { delay, waiting: Ring::default(), in_heap: false });
        Some(LaneId(self.lanes.len() as u16 - 1))
    }

    /// Schedules an event at a time.
    #[inline]
    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        let entry = Entry { time, order: self.sequence << 16, event };
        self.push(entry);
    }

    /// Schedules an event after a lane's delay.
    #[inline]
    pub(crate) fn after(&mut self, now: u64, lane: LaneId, event: Event) {
        self.sequence += 1;
        let order = self.sequence << 16 | (lane.0 as u64 + 1);
        let lane = &mut self.lanes[lane.0 as usize];
        let time = now.saturating_add(lane.delay);
        if lane.in_heap {
            lane.waiting.push_back(Entry { time, order, event });
        } else {
            lane.in_heap = true;
            self.push_front(Entry { time, order, event });
        }
    }

    /// A call of its own, so that the entry of the usual case is made where it belongs.
    #[cold]
    fn push_front(&mut self, entry: Entry) {
        self.push(entry);
    }

    /// Takes the next event, if it is not later than `until`. `live` says whether a lane's event
    /// still matters; it is asked again for heap events by the caller, who knows them best.
    #[inline]
    pub(crate) fn pop(&mut self, until: u64, live: impl Fn(&Event) -> bool) -> Option<(u64, Event)> {
        if self.hole {
            self.hole = false;
            self.remove_top();
        }
        loop {
            let top = *self.heap.first()?;
            if top.time > until {
                return None;
            }
            let lane = (top.order & 0xffff) as usize;
            if lane == 0 {
                self.hole = true;
                return Some((top.time, top.event));
            }
            let lane = &mut self.lanes[lane - 1];
            let next = loop {
                match lane.waiting.pop_front() {
                    Some(entry) if !live(&entry.event) => continue,
                    next => break next,
                }
            };
            match next {
                Some(entry) => self.replace_top(entry),
                None => {
                    lane.in_heap = false;
                    if live(&top.event) {
                        self.hole = true;
                        return Some((top.time, top.event));
                    }
                    self.remove_top();
                    continue;
                }
            }
            if live(&top.event) {
                return Some((top.time, top.event));
            }
        }
    }

    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        if self.hole {
            self.hole = false;
            return self.replace_top(entry);
        }
        let mut hole = self.heap.len();
        self.heap.push(entry);
        while hole > 0 {
            let parent = (hole - 1) / 4;
            if !entry.before(&self.heap[parent]) {
                break;
            }
            self.heap[hole] = self.heap[parent];
            hole = parent;
        }
        self.heap[hole] = entry;
    }

    #[inline]
    fn remove_top(&mut self) {
        let last = self.heap.pop().expect("called with a top");
        if !self.heap.is_empty() {
            self.replace_top(last);
        }
    }

    #[inline]
    fn replace_top(&mut self, entry: Entry) {
        let heap = &mut self.heap[..];
        let len = heap.len();
        let mut hole = 0;
        loop {
            let first = 4 * hole + 1;
            let (least, key) = if let Some([a, b, c, d]) = heap.get(first..first + 4) {
                // A tournament in registers: which of four comes first is anybody's guess, so no branch.
                let low = if b.key() < a.key() { (1, b.key()) } else { (0, a.key()) };
                let high = if d.key() < c.key() { (3, d.key()) } else { (2, c.key()) };
                let (at, key) = if high.1 < low.1 { high } else { low };
                (first + at, key)
            } else if first < len {
                let last = (first..len).map(|child| (child, heap[child].key()));
                last.min_by_key(|&(_, key)| key).expect("there is one")
            } else {
                break;
            };
            if key >= entry.key() {
                break;
            }
            heap[hole] = heap[least];
            hole = least;
        }
        heap[hole] = entry;
    }
}

/// Beyond this many distinct delays the heap takes the rest.
const MAX_LANES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mix;

    fn tick(n: u32) -> Event {
        Event::Wake { what: n }
    }

    fn number(event: Event) -> u32 {
        match event {
            Event::Wake { what } => what,
            _ => unreachable!("only wakes are scheduled here"),
        }
    }

    #[test]
    fn lanes_and_heap_merge_in_order_of_time_then_sequence() {
        let mut queue = EventQueue::new();
        let lane = queue.lane(10).unwrap();
        let mut expected = Vec::new();
        for n in 0..2000u32 {
            let now = n as u64 / 2;
            if mix(n as u64).is_multiple_of(2) {
                queue.after(now, lane, tick(n));
                expected.push((now + 10, n));
            } else {
                let time = now + mix(n as u64) % 37;
                queue.at(time, tick(n));
                expected.push((time, n));
            }
        }
        expected.sort();
        let mut got = Vec::new();
        while let Some((time, event)) = queue.pop(u64::MAX, |_| true) {
            got.push((time, number(event)));
        }
        assert_eq!(got, expected);
    }

    #[test]
    fn a_ring_is_first_in_first_out_while_it_grows() {
        let mut ring = Ring::default();
        let (mut pushed, mut popped) = (0u32, 0u32);
        for round in 0..2000u64 {
            for _ in 0..mix(round) % 5 {
                ring.push_back(Entry { time: 0, order: 0, event: tick(pushed) });
                pushed += 1;
            }
            for _ in 0..mix(!round) % 5 {
                match ring.pop_front() {
                    Some(entry) => {
                        assert_eq!(number(entry.event), popped);
                        popped += 1;
                    }
                    None => assert_eq!(pushed, popped),
                }
            }
        }
        assert_eq!(ring.len, (pushed - popped) as usize);
        assert!(popped > 3000);
    }

    #[test]
    fn dead_lane_events_are_skipped() {
        let mut queue = EventQueue::new();
        let lane = queue.lane(5).unwrap();
        for n in 0..100 {
            queue.after(n as u64, lane, tick(n));
        }
        let (time, event) = queue.pop(u64::MAX, |event| number(*event) == 70).unwrap();
        assert_eq!((time, number(event)), (75, 70));
        assert!(queue.pop(u64::MAX, |event| number(*event) == 70).is_none());
    }

    #[test]
    fn nothing_past_the_limit_is_taken() {
        let mut queue = EventQueue::new();
        queue.at(11, tick(1));
        assert!(queue.pop(10, |_| true).is_none());
        assert!(queue.pop(11, |_| true).is_some());
    }
}
