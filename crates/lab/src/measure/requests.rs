//! Clients' requests: recorded once each, by who called what.

use std::sync::Arc;

use plimsoll_model::run::{Histogram, Totals};
use plimsoll_model::system::{EndpointId, Subject, System};

use super::Cuts;
use crate::answer::Answer;

/// Requests of one client to one endpoint.
#[derive(Clone, Debug)]
pub struct Group {
    /// The client.
    pub client: u32,
    /// What it calls.
    pub endpoint: EndpointId,
    /// By segment in which they were due.
    pub cells: Vec<Cell>,
    /// By second in which they were due or ended.
    pub seconds: Vec<Second>,
}

/// Requests of one segment.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Counts.
    pub totals: Totals,
    /// Response times from when each was due, failures included.
    pub all: Histogram,
    /// Those of good answers.
    pub ok: Histogram,
    /// How long after it was due each was sent.
    pub lag: Histogram,
    /// From when each was sent to its end.
    pub service: Histogram,
    /// Time that requests spent in the system, ns.
    pub area: f64,
}

/// One second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Counts.
    pub totals: Totals,
    /// Response times of those that ended in it.
    pub times: Histogram,
    /// Time that requests spent in the system in it, ns.
    pub area: f64,
}

/// How a request has ended. Times are ns from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// When it was due.
    pub due: u64,
    /// When it was sent; none if it never was.
    pub sent: Option<u64>,
    /// When it ended.
    pub now: u64,
    /// How.
    pub answer: Answer,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Whether it was answered well after an attempt had failed.
    pub rescued: bool,
}

/// All requests of a run.
#[derive(Clone, Debug)]
pub struct Requests {
    /// The experiment's segments.
    pub cuts: Arc<Cuts>,
    /// Who calls what.
    pub groups: Vec<Group>,
    /// By client, then call: the group.
    calls: Vec<Vec<usize>>,
    /// For each audience the end of its last good answer, and by segment the longest time without one, ns.
    gaps: Vec<(Subject, u64, Vec<u64>)>,
    /// Requests made.
    pub made: u64,
    /// Those that are under way.
    pub open: u64,
    /// Those that had not ended when the run was over.
    pub unfinished: u64,
    /// Requests that were sent late although a connection was idle.
    pub late: u64,
    /// Requests that were handed over late, for whatever reason.
    pub behind: u64,
}

impl Requests {
    /// Nothing recorded yet.
    pub fn new(system: &System, cuts: Arc<Cuts>) -> Requests {
        let mut groups: Vec<Group> = Vec::new();
        let mut calls = Vec::new();
        let mut audiences = vec![Subject::All];
        for (client, of) in system.clients.iter().enumerate() {
            audiences.push(Subject::Client(client.into()));
            let of_calls = of.calls.iter().map(|call| {
                let known = |group: &Group| (group.client, group.endpoint) == (client as u32, call.endpoint);
                groups.iter().position(known).unwrap_or_else(|| {
                    groups.push(Group {
                        client: client as u32,
                        endpoint: call.endpoint,
                        cells: vec![Cell::default(); cuts.count()],
                        seconds: vec![Second::default(); cuts.seconds()],
                    });
                    groups.len() - 1
                })
            });
            calls.push(of_calls.collect());
        }
        for group in &groups {
            let subject = Subject::Endpoint(group.endpoint);
            if !audiences.contains(&subject) {
                audiences.push(subject);
            }
        }
        let gaps = audiences.into_iter().map(|who| (who, 0, vec![0; cuts.count()])).collect();
        Requests { cuts, groups, calls, gaps, made: 0, open: 0, unfinished: 0, late: 0, behind: 0 }
    }

    /// Whose requests are told apart.
    pub fn audiences(&self) -> impl Iterator<Item = Subject> + '_ {
        self.gaps.iter().map(|(who, ..)| *who)
    }

    /// A request is due.
    pub fn arrives(&mut self, client: u32, call: u32, due: u64) {
        let at = self.calls[client as usize][call as usize];
        self.made += 1;
        self.open += 1;
        let group = &mut self.groups[at];
        group.cells[self.cuts.at(due)].totals.offered += 1;
        if let Some(second) = self.cuts.second(due).and_then(|at| group.seconds.get_mut(at)) {
            second.totals.offered += 1;
        }
    }

    /// A request has ended.
    pub fn ends(&mut self, client: u32, call: u32, ended: &Ended) {
        let at = self.calls[client as usize][call as usize];
        self.open -= 1;
        let took = ended.now.saturating_sub(ended.due);
        let group = &mut self.groups[at];
        let cell = &mut group.cells[self.cuts.at(ended.due)];
        count(&mut cell.totals, ended);
        cell.all.record_ns(took);
        if ended.answer.is_ok() {
            cell.ok.record_ns(took);
        }
        if let Some(sent) = ended.sent {
            cell.lag.record_ns(sent.saturating_sub(ended.due));
            cell.service.record_ns(ended.now.saturating_sub(sent));
        }
        self.spread(at, ended.due, ended.now);
        let group = &mut self.groups[at];
        if let Some(second) = self.cuts.second(ended.now).and_then(|at| group.seconds.get_mut(at)) {
            count(&mut second.totals, ended);
            second.times.record_ns(took);
        }
        if ended.answer.is_ok() {
            let endpoint = group.endpoint;
            let segment = self.cuts.at(ended.now);
            for (who, last, gaps) in &mut self.gaps {
                let counts = match *who {
                    Subject::All => true,
                    Subject::Client(id) => id.0 == client,
                    Subject::Endpoint(id) => id == endpoint,
                };
                if counts {
                    // A gap that reaches over a cut counts, up to there, before it.
                    for (gap, end) in
                        gaps.iter_mut().zip(&self.cuts.ends).take(segment).filter(|(_, end)| **end > *last)
                    {
                        *gap = (*gap).max(end - *last);
                    }
                    gaps[segment] = gaps[segment].max(ended.now.saturating_sub(*last));
                    *last = (*last).max(ended.now);
                }
            }
        }
    }

    /// The time that a request was in the system, over the segments and seconds that it was there.
    fn spread(&mut self, group: usize, from: u64, to: u64) {
        let cuts = self.cuts.clone();
        let group = &mut self.groups[group];
        for (at, cell) in group.cells.iter_mut().enumerate() {
            let start = if at == 0 { 0 } else { cuts.ends[at - 1] };
            let end = cuts.ends.get(at).copied().unwrap_or(u64::MAX);
            cell.area += to.min(end).saturating_sub(from.max(start)) as f64;
        }
        let first = from.saturating_sub(cuts.warmup) / 1_000_000_000;
        let last = to.saturating_sub(cuts.warmup) / 1_000_000_000;
        for at in first..=last {
            let start = cuts.warmup + at * 1_000_000_000;
            if let Some(second) = group.seconds.get_mut(at as usize) {
                second.area += to.min(start + 1_000_000_000).saturating_sub(from.max(start)) as f64;
            }
        }
    }

    /// The run is over: gaps that are still open count up to here.
    pub fn close(&mut self, now: u64) {
        self.unfinished = self.open;
        let end = now.min(self.cuts.ends.last().copied().unwrap_or(now));
        for (_, last, gaps) in &mut self.gaps {
            for (at, gap) in gaps.iter_mut().enumerate() {
                let (start, until) = (
                    if at == 0 { 0 } else { self.cuts.ends[at - 1] },
                    self.cuts.ends.get(at).copied().unwrap_or(end).min(end),
                );
                if until > *last && start < end {
                    *gap = (*gap).max(until - *last);
                }
            }
        }
    }

    /// The groups of an audience.
    pub fn groups_of(&self, who: Subject) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(move |group| match who {
            Subject::All => true,
            Subject::Client(id) => id.0 == group.client,
            Subject::Endpoint(id) => id == group.endpoint,
        })
    }

    /// An audience's requests over segments.
    pub fn over(&self, who: Subject, segments: &[usize]) -> Cell {
        let mut sum = Cell::default();
        for group in self.groups_of(who) {
            for cell in segments.iter().filter_map(|&at| group.cells.get(at)) {
                sum.totals.add(&cell.totals);
                sum.all.add(&cell.all);
                sum.ok.add(&cell.ok);
                sum.lag.add(&cell.lag);
                sum.service.add(&cell.service);
                sum.area += cell.area;
            }
        }
        sum
    }

    /// An audience's longest time without a good answer over segments, ns.
    pub fn gap(&self, who: Subject, segments: &[usize]) -> u64 {
        let of = self.gaps.iter().find(|(known, ..)| *known == who);
        of.map_or(0, |(_, _, gaps)| segments.iter().filter_map(|&at| gaps.get(at)).copied().max().unwrap_or(0))
    }
}

fn count(totals: &mut Totals, ended: &Ended) {
    totals.retries += u64::from(ended.retries);
    totals.rescued += u64::from(ended.rescued);
    if ended.answer.is_ok() {
        totals.ok += 1;
        totals.degraded += u64::from(ended.answer == Answer::Degraded);
    } else {
        totals.failed += 1;
        totals.rejected += u64::from(ended.answer.is_rejection());
        totals.timed_out += u64::from(ended.answer == Answer::Timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn requests() -> Requests {
        let text = "system: s\nclients: { web: { rate: 1/s, calls: [ api GET / ] } }\n\
                    services: { api: { endpoints: { GET /: [] } } }\nexperiments:\n  \
                    e: { for: 40s, warmup: 10s, expect: [ errors < 1% ] }\n";
        let read = |name: &str| Err(format!("{name}: there are no files"));
        let source = plimsoll_model::Source { name: "test", bytes: text.as_bytes(), read: &read };
        let system = plimsoll_model::parse(&source).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        Requests::new(&system, Arc::new(Cuts::new(&system.experiments[0])))
    }

    #[test]
    fn requests_belong_to_when_they_were_due() {
        let mut requests = requests();
        let ended =
            |due, now, answer| Ended { due, sent: Some(due + 1), now, answer, retries: 1, rescued: answer.is_ok() };
        for (due, took, answer) in [(9, 2, Answer::Ok), (11, 3, Answer::Ok), (12, 40, Answer::Timeout)] {
            requests.arrives(0, 0, due * SECOND);
            requests.ends(0, 0, &ended(due * SECOND, (due + took) * SECOND, answer));
        }
        requests.arrives(0, 0, 48 * SECOND);
        requests.close(60 * SECOND);
        let cuts = requests.cuts.clone();
        let cell = requests.over(Subject::All, cuts.phase(plimsoll_model::system::Phase::Whole));
        assert_eq!((cell.totals.offered, cell.totals.ok, cell.totals.failed, cell.totals.timed_out), (3, 1, 1, 1));
        assert_eq!((cell.all.count(), cell.ok.count(), cell.totals.retries, cell.totals.rescued), (2, 1, 2, 1));
        assert_eq!((requests.made, requests.unfinished), (4, 1));
        // The first one's last second, 3 s, and the third until the end of the run.
        assert_eq!(cell.area, (1 + 3 + 38) as f64 * 1e9);
        let seconds = &requests.groups[0].seconds;
        assert_eq!((seconds[1].totals.offered, seconds[4].totals.ok, seconds[3].area), (1, 1, 2e9));
    }

    #[test]
    fn the_longest_time_without_a_good_answer_is_found() {
        let mut requests = requests();
        for at in [1, 12, 13, 30] {
            requests.arrives(0, 0, at * SECOND);
            let ended = Ended {
                due: at * SECOND,
                sent: None,
                now: at * SECOND,
                answer: Answer::Ok,
                retries: 0,
                rescued: false,
            };
            requests.ends(0, 0, &ended);
        }
        requests.close(50 * SECOND);
        let cuts = requests.cuts.clone();
        assert_eq!(requests.gap(Subject::All, cuts.phase(plimsoll_model::system::Phase::Whole)), 20 * SECOND);
        assert_eq!(requests.gap(Subject::All, &[0]), 9 * SECOND);
        assert_eq!(requests.gap(Subject::All, &[1]), 17 * SECOND);
    }
}
