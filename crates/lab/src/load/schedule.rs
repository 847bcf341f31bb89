//! When requests are due: drawn as the simulation draws them, so that one seed brings the same load to both worlds.

use std::sync::Arc;

use plimsoll_model::draw::{Draw, KeySampler, alias_table, duration, exponential, pick_alias, scale};
use plimsoll_model::load::{self, Progress, RateSegment};
use plimsoll_model::system::{Arrivals, Dist, Experiment, Load, Process, System};

use crate::context::{Context, FRESH_KEY};

/// When one client's requests are due, and what they ask for.
#[derive(Debug)]
pub struct Schedule {
    segments: Vec<RateSegment>,
    kind: Kind,
    calls: Arc<[(u32, u32)]>,
    keys: Vec<Option<Keys>>,
    classes: Vec<u8>,
    client: u32,
    /// Users.
    pub users: u32,
    draws: Draws,
    made: u64,
    now: u64,
    progress: Progress,
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
        let warmup = experiment.warmup;
        let surges: Vec<_> = experiment.faults.iter().filter_map(|fault| fault.surge(client, warmup)).collect();
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
            segments: load::segments(of, own, 1.0, (warmup, experiment.duration), &surges),
            kind,
            calls: alias_table(&weights),
            keys: of.calls.iter().map(|call| call.key.as_ref().map(|key| Keys(KeySampler::new(key)))).collect(),
            classes: of.calls.iter().map(|call| call.class).collect(),
            client: client as u32,
            users,
            draws: Draws { gap, call, key, user, think, burst, request },
            made: 0,
            now: 0,
            progress: Progress::default(),
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
        let at = self.progress.advance(&self.segments, self.now, area, bursty, self.draws.burst)?;
        self.now = at;
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
        let factor = load::rate_at(&self.segments, now);
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
