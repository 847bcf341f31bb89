//! One direction of one connection: bytes as they arrive, wait and leave.
//!
//! Chunks stand in a queue with the time at which they arrived, and everything else follows from that and from the
//! toxics that are on now: a change applies to what waits already, and ten chunks that arrive together are ten
//! chunks that leave together after a latency. Reading stops while the queue is full, so that a slow receiver
//! slows the sender down as it would without us.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use plimsoll_model::draw::Draw;

use super::config::{Installed, More};
use super::toxic::{Fate, Kind};

/// Bytes that wait at most; reading stops there. At 100 ms of latency this carries 40 MB/s.
pub(super) const WAITING_MAX: usize = 4 << 20;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// One side has said all, and the other knows it.
    Half,
    /// Both sides see an end.
    Close,
    /// Both sides see a reset.
    Reset,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So many bytes of the first chunk may leave.
    Write(usize),
    /// Nothing before this time, ns, unless something comes or changes.
    Wait(Option<u64>),
    /// It is over.
    End(Ending),
}

/// What arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    Bytes(Bytes),
    /// The sender has said all.
    End,
    /// The sender's connection broke.
    Reset,
}

#[derive(Debug)]
struct Waiting {
    what: Arrival,
    arrived: u64,
    number: u64,
    /// When it may leave, as far as is known: it is reckoned when it is first.
    due: Option<u64>,
}

/// A toxic that is on here, and what it remembers.
#[derive(Debug)]
struct Active {
    toxic: Arc<Installed>,
    /// When it came on, ns.
    since: u64,
    /// Bytes that have passed.
    passed: u64,
    /// When it dropped something first, ns.
    dropped: Option<u64>,
}

impl Active {
    fn draw(&self, draw: Draw) -> Draw {
        draw.part(self.toxic.id)
    }
}

/// A part of the first chunk that leaves at one moment.
#[derive(Clone, Copy, Debug)]
struct Piece {
    bytes: usize,
    at: u64,
    pause: u64,
}

/// One direction of a connection. It knows no socket and no clock.
#[derive(Debug)]
pub(super) struct Link {
    draw: Draw,
    active: Vec<Active>,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    arrivals: u64,
    pieces: u64,
    piece: Option<Piece>,
    /// When the next piece may start to leave: after the one before, at its rate.
    free_at: u64,
    /// Nothing comes any more.
    ended: bool,
}

impl Link {
    /// `draw` is this direction's of this connection.
    pub(super) fn new(draw: Draw) -> Link {
        Link {
            draw,
            active: Vec::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            arrivals: 0,
            pieces: 0,
            piece: None,
            free_at: 0,
            ended: false,
        }
    }

    /// Takes up what is on now: those of the toxics whose draw for this connection says so. Returns an ending where
    /// the change asks for one.
    pub(super) fn follow(&mut self, toxics: &[Arc<Installed>], now: u64) -> Option<Ending> {
        let on = |toxic: &&Arc<Installed>| {
            let unit = self.draw.part(toxic.id).unit(u64::MAX);
            unit < toxic.toxic.toxicity
        };
        let mut before = std::mem::take(&mut self.active);
        for toxic in toxics.iter().filter(on) {
            let known = before.iter().position(|active| active.toxic.id == toxic.id).map(|at| before.swap_remove(at));
            self.active.push(match known {
                Some(known) if Arc::ptr_eq(&known.toxic, toxic) => known,
                // Changed: its time starts anew, what passed has passed.
                Some(known) => Active { toxic: toxic.clone(), since: now, dropped: None, ..known },
                None => Active { toxic: toxic.clone(), since: now, passed: 0, dropped: None },
            });
        }
        self.piece = None;
        self.waiting.iter_mut().for_each(|waiting| waiting.due = None);
        let dropped = before.iter().any(|gone| matches!(gone.toxic.toxic.kind, Kind::Timeout(_)));
        dropped.then_some(Ending::Close)
    }

    /// Whether there is room for more.
    pub(super) fn wants(&self) -> bool {
        !self.ended && self.bytes < WAITING_MAX && !self.is_cut()
    }

    fn is_cut(&self) -> bool {
        self.active.iter().any(|active| matches!(active.toxic.toxic.kind, Kind::Partition(_)))
    }

    /// Something has arrived.
    pub(super) fn arrive(&mut self, what: Arrival, now: u64) {
        match &what {
            Arrival::Bytes(bytes) => self.bytes += bytes.len(),
            Arrival::End | Arrival::Reset => self.ended = true,
        }
        self.waiting.push_back(Waiting { what, arrived: now, number: self.arrivals, due: None });
        self.arrivals += 1;
    }

    /// The first chunk.
    pub(super) fn first(&self) -> &[u8] {
        match self.waiting.front() {
            Some(Waiting { what: Arrival::Bytes(bytes), .. }) => bytes,
            _ => &[],
        }
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: u64) -> Next {
        if self.is_cut() {
            return Next::Wait(None);
        }
        let mut wake = None;
        for active in &self.active {
            let (at, ending) = match (&active.toxic.toxic.kind, active.dropped) {
                (Kind::Timeout(timeout), _) => (timeout.closes_at(active.since), Ending::Close),
                (Kind::ResetPeer(reset), Some(first)) => (Some(reset.resets_at(first)), Ending::Reset),
                _ => (None, Ending::Close),
            };
            match at {
                Some(at) if at <= now => return Next::End(ending),
                Some(at) => wake = sooner(wake, at),
                None => {}
            }
        }
        loop {
            let Some(due) = self.due() else { return Next::Wait(wake) };
            if due > now {
                return Next::Wait(sooner(wake, due));
            }
            if let Some(again) = self.drop_first(now) {
                match again {
                    true => return self.next(now),
                    false => continue,
                }
            }
            match &self.waiting[0].what {
                Arrival::Bytes(_) => return self.write(due, now, wake),
                Arrival::End => return Next::End(Ending::Half),
                Arrival::Reset => return Next::End(Ending::Reset),
            }
        }
    }

    /// When the first that waits may leave.
    fn due(&mut self) -> Option<u64> {
        let first = self.waiting.front()?;
        if let Some(due) = first.due {
            return Some(due);
        }
        let mut due = first.arrived;
        let mut reset = false;
        for active in &self.active {
            let draw = active.draw(self.draw);
            due = due.saturating_add(match (&active.toxic.toxic.kind, &first.what) {
                (Kind::Latency(latency), _) => {
                    let late = latency.delay(draw, first.number).saturating_add(active.toxic.drawn(draw, first.number));
                    active.toxic.count(late > 0);
                    late
                }
                (Kind::SlowClose(slow), Arrival::End) => slow.delay(),
                (Kind::Loss(loss), Arrival::Bytes(bytes)) => {
                    let fate = loss.fate(draw, first.number, bytes.len());
                    active.toxic.count(fate != Fate::Late(0));
                    match fate {
                        Fate::Late(nanos) => nanos,
                        Fate::Reset => {
                            reset = true;
                            0
                        }
                    }
                }
                _ => 0,
            });
        }
        let first = self.waiting.front_mut()?;
        if reset && let Arrival::Bytes(bytes) = &first.what {
            self.bytes -= bytes.len();
            self.ended = true;
            first.what = Arrival::Reset;
        }
        first.due = Some(due);
        Some(due)
    }

    /// Drops the first that waits where a toxic says so; whether that is to be followed up at once.
    fn drop_first(&mut self, now: u64) -> Option<bool> {
        let is_data = matches!(self.waiting[0].what, Arrival::Bytes(_));
        let kinds = |active: &&mut Active| match active.toxic.toxic.kind {
            // The end is an end all the same, or nobody would ever see one.
            Kind::Timeout(_) => is_data,
            Kind::ResetPeer(_) => true,
            _ => false,
        };
        let active = self.active.iter_mut().find(kinds)?;
        let first = active.dropped.is_none();
        active.dropped.get_or_insert(now);
        if let Some(Waiting { what: Arrival::Bytes(bytes), .. }) = self.waiting.pop_front() {
            self.bytes -= bytes.len();
        }
        Some(first)
    }

    fn write(&mut self, due: u64, now: u64, wake: Option<u64>) -> Next {
        if let Some(piece) = self.piece {
            return if piece.at > now { Next::Wait(sooner(wake, piece.at)) } else { Next::Write(piece.bytes) };
        }
        let mut bytes = self.first().len();
        let mut pause = 0;
        let mut rate = None;
        let mut paces = Vec::new();
        for active in &self.active {
            match &active.toxic.toxic.kind {
                Kind::LimitData(limit) => match usize::try_from(limit.left(active.passed)) {
                    Ok(0) => return Next::End(Ending::Close),
                    left => bytes = bytes.min(left.unwrap_or(usize::MAX)),
                },
                Kind::Slicer(slicer) => {
                    bytes = bytes.min(slicer.piece(active.draw(self.draw), self.pieces));
                    pause = pause.max(slicer.pause());
                }
                Kind::Bandwidth(bandwidth) => {
                    bytes = bytes.min(bandwidth.piece());
                    active.toxic.count(true);
                    if let More::Pace(pace) = &active.toxic.more {
                        paces.push((pace.clone(), *bandwidth));
                        continue;
                    }
                    rate = Some(rate.map_or(
                        *bandwidth,
                        |other: super::toxic::Bandwidth| {
                            if other.rate < bandwidth.rate { other } else { *bandwidth }
                        },
                    ));
                }
                _ => {}
            }
        }
        let takes = match rate.map(|rate| rate.takes(bytes)) {
            None => 0,
            Some(Some(takes)) => takes,
            Some(None) => return Next::Wait(wake),
        };
        let mut at = due.max(self.free_at).saturating_add(takes);
        for (pace, bandwidth) in paces {
            let Some(takes) = bandwidth.takes(bytes) else { return Next::Wait(wake) };
            at = at.max(pace.turn(due.max(now), takes));
        }
        self.piece = Some(Piece { bytes, at, pause });
        self.pieces += 1;
        if at > now { Next::Wait(sooner(wake, at)) } else { Next::Write(bytes) }
    }

    /// So many bytes of the first chunk have left.
    pub(super) fn wrote(&mut self, bytes: usize, now: u64) -> Option<Ending> {
        if let Some(piece) = &mut self.piece {
            piece.bytes -= bytes;
            if piece.bytes == 0 {
                // A pause is counted from when the piece left, a rate from when the one before had.
                self.free_at = if piece.pause > 0 { now.saturating_add(piece.pause) } else { piece.at };
                self.piece = None;
            }
        }
        if let Some(Waiting { what: Arrival::Bytes(first), .. }) = self.waiting.front_mut() {
            first.advance(bytes);
            self.bytes -= bytes;
            if first.is_empty() {
                self.waiting.pop_front();
            }
        }
        let mut full = false;
        for active in &mut self.active {
            active.passed += bytes as u64;
            full |= matches!(&active.toxic.toxic.kind, Kind::LimitData(limit) if limit.left(active.passed) == 0);
        }
        full.then_some(Ending::Close)
    }
}

fn sooner(one: Option<u64>, other: u64) -> Option<u64> {
    Some(one.map_or(other, |one| one.min(other)))
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
