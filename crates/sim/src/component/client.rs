use plimsoll_model::load::{Progress, rate_at};
use plimsoll_model::system::{Arrivals, Process};

use crate::component::edge::{Parent, What};
use crate::component::task::Context;
use crate::engine::{Answer, Draw, Event, KeySampler, duration, exponential, pick_alias, scale};
use crate::measure::{Audience, Ended, Group};
use crate::plan::{ClientCall, ClientLoad};
use crate::world::World;

/// A client's state.
pub(crate) struct ClientState<'a> {
    script: Script<'a>,
    draws: Draws,
    /// Requests made so far; the number of the next one.
    made: u64,
    /// What the next one will ask for: drawn a request ahead, since the table of a million keys is
    /// far from the processor, and nothing has to wait for it this way.
    next: Asked,
    /// The next gap between arrivals, as a share of the mean one: drawn ahead too.
    gap: f64,
    progress: Progress,
}

/// What does not change of a client: what every request comes by lies together.
#[derive(Clone, Copy)]
struct Script<'a> {
    arrivals: &'a Arrivals,
    load: &'a ClientLoad,
    calls: &'a [ClientCall],
    /// Keys of each call.
    keys: &'a [Option<KeySampler>],
}

/// What a client's request is, for when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) client: u32,
    pub(crate) user: u32,
    /// Where it is recorded.
    pub(crate) group: u32,
    pub(crate) number: u64,
}

/// Where a client's draws come from, by purpose.
struct Draws {
    gap: Draw,
    call: Draw,
    key: Draw,
    user: Draw,
    think: Draw,
    burst: Draw,
    request: Draw,
}

impl Draws {
    fn new(client: Draw) -> Self {
        let [gap, call, key, user, think, burst, request] = [1, 2, 3, 4, 5, 6, 7].map(|purpose| client.part(purpose));
        Draws { gap, call, key, user, think, burst, request }
    }
}

/// What a request asks for: which of its client's calls, and the key where the call has keys.
#[derive(Clone, Copy)]
struct Asked {
    which: u32,
    key: u32,
}

impl Script<'_> {
    /// What the request of a number asks for.
    #[inline(always)]
    fn ask(&self, draws: &Draws, number: u64) -> Asked {
        let which = match self.calls {
            [_] => 0,
            _ => pick_alias(&self.load.calls, draws.call.bits(number)),
        };
        let key = match &self.keys[which as usize] {
            Some(keys) => keys.sample(draws.key.bits(number)),
            None => (draws.request.part(number).bits(KEY) >> 33) as u32 | FRESH_KEY,
        };
        Asked { which, key }
    }
}

/// The purpose of a request's draw of a key of its own.
const KEY: u64 = 3;

impl World<'_> {
    pub(crate) fn build_clients(&mut self) {
        let plan = self.plan;
        let (segments, thresholds) = (plan.cuts.len() + 1, plan.thresholds.len());
        self.groups = vec![Group::new(segments, thresholds); plan.groups.len()];
        let audience = |groups: &Vec<u32>| Audience::new(groups.clone(), segments, thresholds);
        self.audiences = plan.audiences.iter().map(audience).collect();
        for (c, client) in plan.system.clients.iter().enumerate() {
            let draws = Draws::new(self.root.named(&client.name));
            let think_draw = draws.think;
            let script =
                Script { arrivals: &client.arrivals, load: &plan.loads[c], calls: &plan.calls[c], keys: &plan.keys[c] };
            let next = script.ask(&draws, 0);
            let gap = exponential(draws.gap.bits(0));
            self.clients.push(ClientState { script, draws, made: 0, next, gap, progress: Progress::default() });
            match &client.arrivals {
                Arrivals::Open { .. } | Arrivals::Trace { .. } => self.next_arrival(c as u32),
                Arrivals::Closed { think, .. } => {
                    // Users join over one think time, or the whole load would arrive at once.
                    for user in 0..plan.loads[c].users {
                        let bits = think_draw.bits(u64::MAX - user as u64);
                        let mean = think.mean().max(1e6);
                        let at = (plimsoll_policy::unit(bits) * mean) as u64;
                        self.queue.at(at, Event::Thought { client: c as u32, user });
                    }
                }
            }
        }
    }

    /// An open-loop client's request arrives.
    pub(crate) fn arrive(&mut self, client: u32) {
        let state = &self.clients[client as usize];
        let user = scale(state.draws.user.bits(state.made), state.script.load.users);
        self.request(client, user);
        self.next_arrival(client);
    }

    /// A closed-loop user asks again.
    pub(crate) fn thought(&mut self, client: u32, user: u32) {
        if self.arriving {
            self.request(client, user);
        }
    }

    fn request(&mut self, client: u32, user: u32) {
        let plan = self.plan;
        let state = &mut self.clients[client as usize];
        let number = state.made;
        state.made += 1;
        let next = state.script.ask(&state.draws, number + 1);
        let Asked { which, key } = std::mem::replace(&mut state.next, next);
        let ClientCall { edge, endpoint, class, group } = state.script.calls[which as usize];
        let request = state.draws.request.part(number);
        let context = Context { draw: request, logical: request.0, client, user, key, class, deadline: u64::MAX };
        self.requests += 1;
        self.open_requests += 1;
        self.groups[group as usize].arrive(self.now, self.segment, plan.detail);
        let end = self.client_end(edge);
        self.start_call_here(end, || Parent::Client { group, number }, What::Endpoint(endpoint), context);
    }

    /// A client's request has ended.
    pub(crate) fn request_ended(
        &mut self,
        origin: Origin,
        arrived: u64,
        answer: Answer,
        (retries, rescued): (u32, bool),
    ) {
        self.open_requests -= 1;
        let plan = self.plan;
        let ended = Ended {
            arrived,
            now: self.now,
            ok: answer.is_ok(),
            degraded: answer == Answer::Degraded,
            rejected: answer.is_rejection(),
            timed_out: answer == Answer::Timeout,
            retries,
            rescued,
        };
        let segment = plan.segment_at(arrived, self.segment);
        self.groups[origin.group as usize].end(segment, &ended, &plan.thresholds, plan.detail);
        if ended.ok {
            for audience in [0, 1 + origin.client, plan.group_audience[origin.group as usize]] {
                self.audiences[audience as usize].good(self.now);
            }
        }
        let state = &self.clients[origin.client as usize];
        if let Arrivals::Closed { think, .. } = state.script.arrivals {
            let think = duration(think, state.draws.think.bits(origin.number));
            let factor = rate_at(&state.script.load.segments, self.now);
            let at = self.now + (think as f64 / factor.max(1e-9)) as u64;
            self.queue.at(at, Event::Thought { client: origin.client, user: origin.user });
        }
    }

    /// The run is over: what has not ended by now counts as failed, with the time that it took so
    /// far.
    pub(crate) fn give_up_open_requests(&mut self) {
        let open: Vec<_> = self
            .calls
            .refs()
            .filter_map(|call| match self.calls[call].parent {
                Parent::Client { group, number } => {
                    let Context { client, user, .. } = self.calls[call].context;
                    Some((Origin { client, user, group, number }, self.calls[call].started()))
                }
                _ => None,
            })
            .collect();
        self.unfinished = open.len() as u64;
        for (origin, arrived) in open {
            self.request_ended(origin, arrived, Answer::Timeout, (0, false));
        }
    }

    fn next_arrival(&mut self, client: u32) {
        let state = &mut self.clients[client as usize];
        let Script { arrivals, load, .. } = state.script;
        let (area, process) = match arrivals {
            Arrivals::Open { process: Process::Constant, .. } => (1.0, None),
            Arrivals::Open { process: Process::Poisson, .. } => (state.draw_gap(), None),
            Arrivals::Open { process: Process::Bursty { peak, burst, quiet }, .. } => {
                (state.draw_gap(), Some((*peak, *burst, *quiet)))
            }
            Arrivals::Trace { times, span } => {
                let at = (state.made % times.len() as u64) as usize;
                let before =
                    if at == 0 { if state.made == 0 { 0 } else { times[times.len() - 1] } } else { times[at - 1] };
                let wrapped = if at == 0 && state.made > 0 { *span } else { 0 };
                ((times[at] + wrapped - before) as f64, None)
            }
            Arrivals::Closed { .. } => return,
        };
        if let Some(at) = state.progress.advance(&load.segments, self.now, area, process, state.draws.burst) {
            self.queue.at(at, Event::Arrive { client });
        }
    }
}

/// Marks keys of requests that have a key of their own: none is ever asked for twice.
pub(crate) const FRESH_KEY: u32 = 1 << 31;

impl ClientState<'_> {
    /// The gap before the request that is made next.
    #[inline(always)]
    fn draw_gap(&mut self) -> f64 {
        std::mem::replace(&mut self.gap, exponential(self.draws.gap.bits(self.made + 1)))
    }
}
