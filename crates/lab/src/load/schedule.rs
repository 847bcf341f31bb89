//! When requests are due: drawn as the simulation draws them, so that one seed brings the same load to both worlds.

use std::sync::Arc;

use plimsoll_model::draw::{Draw, KeySampler, alias_table, duration, exponential, pick_alias, scale};
use plimsoll_model::system::{Arrivals, Client, Dist, Experiment, FaultKind, Load, Process, System};

use crate::context::{Context, FRESH_KEY};

/// A part of a load: the rate rises linearly within it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start: u64,
    end: u64,
    /// Requests a ns at its start and end; of closed loops a factor.
    from: f64,
    to: f64,
}

/// When one client's requests are due, and what they ask for.
#[derive(Debug)]
pub struct Schedule {
    segments: Vec<Segment>,
    kind: Kind,
    calls: Arc<[(u32, u32)]>,
    keys: Vec<Option<Keys>>,
    classes: Vec<u8>,
    client: u32,
    /// Users.
    pub users: u32,
    draws: Draws,
    made: u64,
    at: usize,
    now: f64,
    burst: (f64, f64),
    bursts: u64,
}

struct Keys(KeySampler);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Constant,
    Poisson,
    Bursty(f64, f64, f64),
    Trace(Arc<[u64]>, u64),
    Closed(Dist),
}

/// Where a client's draws come from, by purpose: the simulation's numbers.
#[derive(Debug)]
struct Draws {
    gap: Draw,
    call: Draw,
    key: Draw,
    user: Draw,
    think: Draw,
    burst: Draw,
    request: Draw,
}

/// The purpose of a request's draw of a key of its own.
const KEY: u64 = 3;

/// A request that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// When, ns from the start of the load.
    pub at: u64,
    /// The position of its call in the client's.
    pub call: u32,
    /// Its context.
    pub context: Context,
}

impl Schedule {
    /// A client's, over an experiment.
    pub fn new(system: &System, experiment: &Experiment, client: usize, seed: u64) -> Schedule {
        let of = &system.clients[client];
        let own = experiment.load.iter().find(|(id, _)| id.index() == client).map(|(_, load)| load);
        let end = experiment.warmup + experiment.duration;
        let parts = parts(of, own, experiment.warmup, end);
        let surges: Vec<(u64, u64, f64)> = experiment
            .faults
            .iter()
            .filter_map(|fault| match fault.kind {
                FaultKind::Surge { client: whose, factor } if whose.is_none_or(|id| id.index() == client) => {
                    Some((fault.at + experiment.warmup, fault.until + experiment.warmup, factor))
                }
                _ => None,
            })
            .collect();
        let users = match (&of.arrivals, own) {
            (_, Some(Load::Users(users))) => *users,
            (Arrivals::Closed { users, .. }, _) => *users,
            _ => of.users,
        };
        let kind = match &of.arrivals {
            Arrivals::Open { process: Process::Constant, .. } => Kind::Constant,
            Arrivals::Open { process: Process::Poisson, .. } => Kind::Poisson,
            Arrivals::Open { process: Process::Bursty { peak, burst, quiet }, .. } => {
                Kind::Bursty(*peak, *burst, *quiet)
            }
            Arrivals::Trace { times, span } => Kind::Trace(times.clone(), *span),
            Arrivals::Closed { think, .. } => Kind::Closed(think.clone()),
        };
        let root = Draw::root(seed, 0).named(&of.name);
        let [gap, call, key, user, think, burst, request] = [1, 2, 3, 4, 5, 6, 7].map(|purpose| root.part(purpose));
        let weights: Vec<f64> = of.calls.iter().map(|call| call.weight).collect();
        Schedule {
            segments: surged(&parts, &surges),
            kind,
            calls: alias_table(&weights),
            keys: of.calls.iter().map(|call| call.key.as_ref().map(|key| Keys(KeySampler::new(key)))).collect(),
            classes: of.calls.iter().map(|call| call.class).collect(),
            client: client as u32,
            users,
            draws: Draws { gap, call, key, user, think, burst, request },
            made: 0,
            at: 0,
            now: 0.0,
            burst: (1.0, 0.0),
            bursts: 0,
        }
    }

    /// Whether its users wait for their answers.
    pub fn is_closed(&self) -> bool {
        matches!(self.kind, Kind::Closed(_))
    }

    /// The next request of an open loop; none after the end.
    pub fn next_due(&mut self) -> Option<Due> {
        let gap = self.draws.gap.bits(self.made);
        let (area, bursty) = match &self.kind {
            Kind::Constant => (1.0, None),
            Kind::Poisson => (exponential(gap), None),
            Kind::Bursty(peak, burst, quiet) => (exponential(gap), Some((*peak, *burst, *quiet))),
            Kind::Trace(times, span) => {
                let at = (self.made % times.len() as u64) as usize;
                let before = match at {
                    0 if self.made == 0 => 0,
                    0 => times[times.len() - 1],
                    at => times[at - 1],
                };
                let wrapped = if at == 0 && self.made > 0 { *span } else { 0 };
                ((times[at] + wrapped - before) as f64, None)
            }
            Kind::Closed(_) => return None,
        };
        let at = self.advance(area, bursty)?;
        self.now = at as f64;
        let user = scale(self.draws.user.bits(self.made), self.users);
        Some(self.due(at, user))
    }

    /// A user's first request of a closed loop: users join over one think time.
    pub fn joins(&self, user: u32) -> u64 {
        let Kind::Closed(think) = &self.kind else { return 0 };
        let bits = self.draws.think.bits(u64::MAX - u64::from(user));
        (plimsoll_policy::unit(bits) * think.mean().max(1e6)) as u64
    }

    /// How long a closed loop's user thinks after its request of this number, at a time of the load, ns.
    pub fn thinks(&self, number: u64, now: u64) -> u64 {
        let Kind::Closed(think) = &self.kind else { return 0 };
        let factor = self.segments.iter().find(|segment| segment.end > now).map_or(1.0, |segment| segment.from);
        (duration(think, self.draws.think.bits(number)) as f64 / factor.max(1e-9)) as u64
    }

    /// A request of a user at a time, with its number.
    pub fn asks(&mut self, at: u64, user: u32) -> (Due, u64) {
        let number = self.made;
        (self.due(at, user), number)
    }

    fn due(&mut self, at: u64, user: u32) -> Due {
        let number = self.made;
        self.made += 1;
        let call = pick_alias(&self.calls, self.draws.call.bits(number));
        let draw = self.draws.request.part(number);
        let key = match &self.keys[call as usize] {
            Some(Keys(keys)) => keys.sample(self.draws.key.bits(number)),
            None => (draw.bits(KEY) >> 33) as u32 | FRESH_KEY,
        };
        let (client, class) = (self.client, self.classes[call as usize]);
        let context = Context { client, user, key, class, draw, logical: draw.0, wrote: String::new() };
        Due { at, call, context }
    }

    /// The time at which the rate, integrated from now, reaches `area`; none past the end.
    fn advance(&mut self, mut area: f64, bursty: Option<(f64, f64, f64)>) -> Option<u64> {
        let mut time = self.now;
        loop {
            while self.segments.get(self.at).is_some_and(|segment| segment.end as f64 <= time) {
                self.at += 1;
            }
            let segment = *self.segments.get(self.at)?;
            let mut end = segment.end as f64;
            let mut factor = 1.0;
            if let Some((peak, burst, quiet)) = bursty {
                while self.burst.1 <= time {
                    let long = self.bursts % 2 == 1;
                    let length = if long { burst } else { quiet };
                    let rest = ((burst + quiet) - peak * burst).max(0.0) / quiet;
                    let until = self.burst.1 + length * exponential(self.draws.burst.bits(self.bursts));
                    self.burst = (if long { peak } else { rest }, until);
                    self.bursts += 1;
                }
                factor = self.burst.0;
                end = end.min(self.burst.1);
            }
            let length = (segment.end - segment.start) as f64;
            let slope = if segment.from == segment.to { 0.0 } else { (segment.to - segment.from) / length * factor };
            let rate = segment.from * factor + slope * (time - segment.start as f64);
            let available = (end - time) * (rate + slope * (end - time) / 2.0);
            if available >= area && available > 0.0 {
                let wait = match slope == 0.0 {
                    true => area / rate,
                    // slope/2 x^2 + rate x = area, in the form that does not cancel.
                    false => 2.0 * area / (rate + (rate * rate + 2.0 * slope * area).max(0.0).sqrt()),
                };
                return Some((time + wait) as u64);
            }
            area -= available.max(0.0);
            time = end;
        }
    }
}

fn parts(client: &Client, own: Option<&Load>, warmup: u64, end: u64) -> Vec<Segment> {
    let level = |start, end, rate: f64| Segment { start, end, from: rate / 1e9, to: rate / 1e9 };
    let whole = |factor| vec![Segment { start: 0, end, from: factor, to: factor }];
    match own {
        None => match &client.arrivals {
            Arrivals::Open { rate, .. } => vec![level(0, end, *rate)],
            _ => whole(1.0),
        },
        Some(Load::Users(_)) => whole(1.0),
        Some(Load::Rate(rate)) => vec![level(0, end, *rate)],
        Some(Load::Ramp(from, to)) => {
            vec![level(0, warmup, *from), Segment { start: warmup, end, from: from / 1e9, to: to / 1e9 }]
        }
        Some(Load::Steps(rates)) => {
            let mut parts = vec![level(0, warmup, rates.first().copied().unwrap_or(0.0))];
            for (i, rate) in rates.iter().enumerate() {
                let at = |i: usize| warmup + (end - warmup) * i as u64 / rates.len() as u64;
                parts.push(level(at(i), at(i + 1), *rate));
            }
            parts
        }
    }
}

/// Splits parts at the surges' ends and multiplies the rate within them.
fn surged(parts: &[Segment], surges: &[(u64, u64, f64)]) -> Vec<Segment> {
    let mut times: Vec<u64> = surges.iter().flat_map(|&(from, to, _)| [from, to]).collect();
    times.extend(parts.iter().flat_map(|part| [part.start, part.end]));
    times.sort_unstable();
    times.dedup();
    let mut out = Vec::new();
    for part in parts {
        let rate_at = |time: u64| {
            let share = (time - part.start) as f64 / (part.end - part.start).max(1) as f64;
            part.from + share * (part.to - part.from)
        };
        for pair in times.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            if start < part.start || end > part.end {
                continue;
            }
            let inside = surges.iter().filter(|&&(from, to, _)| from <= start && end <= to);
            let factor: f64 = inside.map(|&(_, _, factor)| factor).product();
            out.push(Segment { start, end, from: rate_at(start) * factor, to: rate_at(end) * factor });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(load: &str, client: &str, faults: &str) -> Schedule {
        let text = format!(
            "system: s\nclients: {{ web: {{ {client}, calls: [ {{ endpoint: api GET /, key: uniform(10) }} ] }} }}\n\
             services: {{ api: {{ endpoints: {{ GET /: [] }} }} }}\nexperiments:\n  e: {{ for: 40s, warmup: 2s, {load} \
             faults: [ {faults} ], expect: [ errors < 1% ] }}\n"
        );
        let read = |name: &str| Err(format!("{name}: there are no files"));
        let source = plimsoll_model::Source { name: "test", bytes: text.as_bytes(), read: &read };
        let system = plimsoll_model::parse(&source).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        Schedule::new(&system, &system.experiments[0], 0, 7)
    }

    fn times(mut schedule: Schedule) -> Vec<u64> {
        std::iter::from_fn(|| schedule.next_due()).map(|due| due.at).collect()
    }

    #[test]
    fn constant_loads_are_even() {
        let times = times(schedule("", "rate: 100/s, arrivals: constant", ""));
        assert!((4199..=4200).contains(&times.len()), "{}", times.len());
        assert!(times.windows(2).all(|pair| (9_999_998..=10_000_002).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn loads_follow_their_shape() {
        let between = |times: &[u64], from: u64, to: u64| {
            times.iter().filter(|at| (from * 1_000_000_000..to * 1_000_000_000).contains(*at)).count() as f64
        };
        let constant = "rate: 1/s, arrivals: constant";
        let steps = times(schedule("load: { web: [100/s, 200/s] },", constant, ""));
        assert!((between(&steps, 2, 22) - 2000.0).abs() <= 2.0 && (between(&steps, 22, 42) - 4000.0).abs() <= 2.0);
        let ramp = times(schedule("load: { web: 0/s..200/s },", constant, ""));
        assert!((between(&ramp, 2, 22) - 1000.0).abs() <= 2.0 && (between(&ramp, 22, 42) - 3000.0).abs() <= 2.0);
        let surge = "{ at: 10s, surge: web, by: 3x, for: 10s }";
        let surge = times(schedule("load: { web: 100/s },", constant, surge));
        assert!((between(&surge, 12, 22) - 3000.0).abs() <= 2.0 && (between(&surge, 22, 42) - 2000.0).abs() <= 2.0);
        let poisson = times(schedule("load: { web: 500/s },", "rate: 1/s", ""));
        assert!((between(&poisson, 2, 42) - 20_000.0).abs() < 5.0 * 20_000f64.sqrt(), "{}", poisson.len());
    }

    #[test]
    fn closed_loops_join_over_one_think_time() {
        let schedule = schedule("load: { web: { users: 50 } },", "users: 10, think: 2s", "");
        assert!(schedule.is_closed());
        assert_eq!(schedule.users, 50);
        assert!((0..50).all(|user| schedule.joins(user) < 2_000_000_000));
        assert_eq!(schedule.thinks(3, 0), 2_000_000_000);
    }
}
