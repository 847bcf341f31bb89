use plimsoll_model::run::{Analytic, GivesWay, Limit, Mark, Probe, Recovery, Run, Waived};
use plimsoll_model::system::{Indicator, MetricTarget, System};

use super::judge::{Judgement, Tally, judge, tally, windows};
use super::recovery;
use super::weather::Forecast;
use super::{Idle, Settings, describe, load_words, today};
use crate::analytic::{self, Bound};
use crate::collect::Sample;
use crate::experiment::assemble;
use crate::gives_way::{gives_way, waited_for as waited_for_components};
use crate::plan::{Plan, Prepared, Scenario};
use crate::replicate::Runner;

/// A search for the mark of one weather.
pub(crate) struct Search<'a> {
    pub(crate) prepared: &'a Prepared,
    pub(crate) forecast: &'a Forecast,
    pub(crate) settings: &'a Settings,
    pub(crate) runner: &'a Runner<'a>,
    /// Threads that have nothing else to do.
    idle: &'a Idle,
    /// The mark in calm weather, once it is known.
    calm: Option<&'a Mark>,
    bound: Option<Bound>,
    today: f64,
    /// Objectives that fail while the weather lasts at any load.
    pub(crate) waived: Vec<bool>,
    tried: Vec<Tried>,
    probes: Vec<Probe>,
}

/// What has been simulated of a load, so that no replication is run twice.
struct Tried {
    load: f64,
    tallies: Vec<Tally>,
    /// The first replication, whole: a mark is shown and explained by it.
    first: Sample,
}

/// The smallest load that is tried, as a share of what the closed forms expect; or half of today's
/// load, if that is less.
const FLOOR: f64 = 0.02;

/// The search gives up upwards at this many times what the closed forms expect.
const CEILING: f64 = 3.0;

/// Replications behind a mark in other than calm weather, at least.
const LEAST: u32 = 3;

/// A load that is so many times the mark is clearly past it.
const CLEARLY: f64 = 1.03;

/// Steps of a tenth past a mark in which a cause is looked for.
const FURTHER: u32 = 3;

/// Replications in which a probe is judged: first, then when it is in doubt, then at most.
const STAGES: [u32; 3] = [1, 2, 4];

/// As [`STAGES`], in calm weather: its search has all threads.
const CALM_STAGES: [u32; 2] = [2, 4];

impl<'a> Search<'a> {
    pub(crate) fn new(
        prepared: &'a Prepared,
        forecast: &'a Forecast,
        settings: &'a Settings,
        runner: &'a Runner<'a>,
        idle: &'a Idle,
        calm: Option<&'a Mark>,
    ) -> Self {
        let system = &prepared.system;
        let bound = analytic::bottleneck(system).map(|bound| waited_for(system, bound));
        Search {
            prepared,
            forecast,
            settings,
            runner,
            idle,
            calm,
            bound,
            today: today(system),
            waived: vec![false; system.objectives.len()],
            tried: Vec::new(),
            probes: Vec::new(),
        }
    }

    /// Finds the mark.
    pub(crate) fn mark(&mut self) -> Mark {
        let times = |bound: &Bound| bound.per_s / bound.today_per_s;
        let expected = self.today * self.bound.as_ref().map(times).filter(|t| t.is_finite()).unwrap_or(10.0);
        let floor = (FLOOR * expected).min(0.5 * self.today);
        let ceiling = CEILING * expected.max(self.today);
        let waived = self.waive(floor);
        // Bracket. Few weathers carry more than calm weather does, and then not by much.
        let top = self.calm.map_or(ceiling, |calm| calm.load.max(floor));
        let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
        let mut load = self.calm.map_or(expected * 0.85, |calm| calm.load).clamp(floor, top);
        let mut limit = Limit::Found;
        let mut capped = false;
        loop {
            let Some(judgement) = self.probe(load) else {
                limit = Limit::Interrupted;
                break;
            };
            if judgement.held {
                low = Some(load);
                if high.is_some() {
                    break;
                }
                if load >= top {
                    capped = self.calm.is_some();
                    high = Some(load * (1.0 + self.settings.precision));
                    limit = if capped { Limit::Found } else { Limit::AboveSearch };
                    break;
                }
                load = (load * 1.25).min(top);
            } else {
                high = Some(load);
                if low.is_some() {
                    break;
                }
                if load <= floor {
                    limit = Limit::BelowSearch;
                    low = Some(0.0);
                    break;
                }
                load = (load * self.step_down(&judgement)).max(floor);
            }
        }
        // Bisect.
        while let (Some(holds), Some(fails)) = (low, high)
            && limit == Limit::Found
            && fails > holds * (1.0 + self.settings.precision)
        {
            let middle = (holds * fails).sqrt();
            match self.probe(middle) {
                Some(judgement) if judgement.held => low = Some(middle),
                Some(_) => high = Some(middle),
                None => limit = Limit::Interrupted,
            }
        }
        // Confirm with all replications; a load that was lucky gives way to one below it.
        while let Some(holds) = low
            && limit == Limit::Found
            && holds > floor
        {
            match self.confirm(holds) {
                Some(judgement) if judgement.held => break,
                Some(_) => {
                    high = Some(holds);
                    low = Some((holds / (1.0 + self.settings.precision)).max(floor));
                }
                None => limit = Limit::Interrupted,
            }
        }
        self.describe_mark(low.unwrap_or(0.0), high.unwrap_or(low.unwrap_or(floor)), limit, capped, waived)
    }

    /// Objectives that fail while the weather lasts even at the smallest load: they say something
    /// about the weather, not about the load.
    fn waive(&mut self, floor: f64) -> Vec<Waived> {
        if self.forecast.scenario.faults.is_empty() {
            return Vec::new();
        }
        let plan = self.plan(floor, false);
        let tallies = self.runner.run(&plan, 0, 2, |_, sample| tally(&plan, self.forecast, &sample));
        let mut out = Vec::new();
        for (o, objective) in self.prepared.system.objectives.iter().enumerate() {
            let (good, all) = tallies.iter().fold((0, 0), |(g, a), t| (g + t.during[o].0, a + t.during[o].1));
            let value = if all == 0 { 1.0 } else { good as f64 / all as f64 };
            // One request of a handful may fail by chance.
            if value < objective.target && all - good > 2 {
                self.waived[o] = true;
                let what = match objective.indicator {
                    Indicator::Success => "fail",
                    Indicator::LatencyBelow(_) => "fail or are late",
                };
                out.push(Waived {
                    objective: objective.name.clone(),
                    value,
                    why: format!(
                        "{:.0}% of its requests {what} while the weather lasts ({}), even at {}",
                        ((1.0 - value) * 100.0).max(1.0),
                        self.forecast.weather.text,
                        load_words(&self.prepared.system, floor.ceil())
                    ),
                });
            }
        }
        out
    }

    pub(crate) fn scenario(&self, load: f64) -> Scenario {
        Scenario { scale: load / self.today, ..self.forecast.scenario.clone() }
    }

    /// Replications behind a mark: as many as asked for in calm weather; in others as many as the
    /// budget of requests allows, and at least a few.
    fn replications(&self, load: f64) -> u32 {
        if self.calm.is_none() {
            // The long quiet run comes first, since it may lower the mark; then the others.
            return CALM_STAGES[CALM_STAGES.len() - 1].min(self.settings.replications);
        }
        let scenario = &self.forecast.scenario;
        let each = self.requests_at(load).max(1e-9) * (scenario.warmup + scenario.duration) as f64 / 1e9;
        ((self.settings.weather_requests / each) as u32).clamp(LEAST, self.settings.replications.max(LEAST))
    }

    /// Requests a second at a load: as measured there, or in proportion to the nearest that was tried;
    /// not a number where none was.
    fn requests_at(&self, load: f64) -> f64 {
        let away = |probe: &&Probe| libm::log(probe.load / load).abs();
        let nearest = self.probes.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
        nearest.map_or(f64::NAN, |probe| probe.requests_per_s * load / probe.load)
    }

    /// Tries a load with all the replications that a mark needs; with fewer where it clearly fails.
    fn confirm(&mut self, load: f64) -> Option<Judgement> {
        let all = self.replications(load);
        let judgement = self.replicate(load, LEAST.min(all))?;
        if !judgement.held && !judgement.doubtful { Some(judgement) } else { self.replicate(load, all) }
    }

    /// Whether a calm mark that a long quiet run has not lowered holds in all the replications that
    /// it needs: it is lowered where it does not. None if interrupted.
    pub(crate) fn confirm_calm(&mut self, mark: &mut Mark) -> Option<bool> {
        let judgement = self.replicate(mark.load, self.settings.replications)?;
        for probe in self.probes.drain(..) {
            mark.probes.retain(|known| known.load != probe.load);
            mark.probes.push(probe);
        }
        mark.probes.sort_by(|a, b| a.load.total_cmp(&b.load));
        if !judgement.held {
            mark.high = mark.load;
            mark.load /= 1.0 + self.settings.precision;
            mark.low = mark.load;
        }
        Some(judgement.held)
    }

    /// By how much to go down from a load that fails: by a step, or, where the objective is missed by
    /// far while the weather lasts, to about the share of requests that still meet it.
    fn step_down(&self, judgement: &Judgement) -> f64 {
        let step = if self.calm.is_some() { 0.75 } else { 0.6 };
        match judgement.worst {
            Some((_, true, value)) => (1.1 * value).clamp(0.2, step),
            _ => step,
        }
    }

    fn plan(&self, load: f64, detail: bool) -> Plan {
        Plan::new(self.prepared, &self.scenario(load), detail)
    }

    /// Tries a load, with more replications the more doubtful it is; none if interrupted.
    fn probe(&mut self, load: f64) -> Option<Judgement> {
        let stages = if self.calm.is_none() { &CALM_STAGES[..] } else { &STAGES[..] };
        for &stage in stages {
            let judgement = self.replicate(load, stage)?;
            if !judgement.doubtful {
                return Some(judgement);
            }
        }
        self.replicate(load, 0)
    }

    /// What at least so many replications say of a load together; none if interrupted.
    fn replicate(&mut self, load: f64, replications: u32) -> Option<Judgement> {
        // Only the first is shown to anybody.
        let plans = [true, false].map(|detail| self.plan(load, detail));
        let plan = &plans[0];
        let known = self.tried.iter().position(|tried| tried.load == load);
        let done = known.map_or(0, |at| self.tried[at].tallies.len() as u32);
        if done < replications {
            let mut first = None;
            let keep = |number, sample: Sample| {
                let tally = tally(plan, self.forecast, &sample);
                (tally, (number == 0).then_some(sample))
            };
            let mut new = Vec::new();
            let missing = (replications - done) as usize;
            let helpers = self.idle.take(missing.saturating_sub(self.runner.threads));
            let runner = Runner { threads: self.runner.threads + helpers, ..*self.runner };
            let results = runner.run_each(|number| &plans[(number > 0) as usize], done, replications, keep);
            self.idle.give(helpers);
            for (tally, sample) in results {
                new.push(tally);
                first = first.or(sample);
            }
            let enough = new.len() as u32 == replications - done;
            match (known, first) {
                (Some(at), _) => self.tried[at].tallies.extend(new),
                (None, Some(first)) => self.tried.push(Tried { load, tallies: new, first }),
                (None, None) => return None,
            }
            if !enough {
                return None;
            }
        }
        let tried = &self.tried[known.unwrap_or(self.tried.len() - 1)];
        let judgement = judge(plan, &tried.tallies, &self.waived);
        let replications = tried.tallies.len() as u32;
        self.note(load, &judgement, replications);
        Some(judgement)
    }

    fn note(&mut self, load: f64, judgement: &Judgement, replications: u32) {
        self.probes.retain(|probe| probe.load != load);
        self.probes.push(Probe {
            load,
            requests_per_s: judgement.requests,
            held: judgement.held,
            replications,
            goodput_per_s: judgement.goodput,
            errors: judgement.errors,
            p99_ms: judgement.p99,
            recovered: judgement.recovered,
        });
        self.probes.sort_by(|a, b| a.load.total_cmp(&b.load));
    }

    fn describe_mark(&mut self, low: f64, mut high: f64, mut limit: Limit, capped: bool, waived: Vec<Waived>) -> Mark {
        let keep = self.settings.keep_runs;
        let mark = |search: &mut Self, high: f64, limit: Limit| Mark {
            weather: search.forecast.weather.clone(),
            load: low,
            low,
            high,
            requests_per_s: search.requests_at(low),
            limit,
            first: None,
            fails: None,
            recovery: Recovery::Steady,
            waived,
            analytic: None,
            quiet: None,
            predicted: None,
            probes: std::mem::take(&mut search.probes),
            at_mark: None,
            past_mark: None,
        };
        if limit == Limit::Interrupted {
            return mark(self, high, limit);
        }
        let at = if low > 0.0 && (keep || capped) { self.at(low) } else { None };
        let at_mark = at.as_ref().filter(|_| keep).map(|(_, run, _)| Box::new(run.clone()));
        if capped {
            // It carries what calm weather carries; past that, calm weather is the limit.
            let back_after = at.map_or(0, |(judgement, ..)| judgement.back_after);
            let recovery = Recovery::ByItself { after_ns: (back_after > 0).then_some(back_after) };
            let calm = self.calm.expect("only calm weather caps");
            let fails = calm.fails.as_ref().map(|fails| format!("as in calm weather, {fails}"));
            return Mark { recovery, at_mark, first: calm.first.clone(), fails, ..mark(self, high, limit) };
        }
        // A little past the mark the cause is clearer than right at it.
        let mut past = if high >= low * CLEARLY { high } else { low * (1.0 + self.settings.precision) };
        let mut failed = self.at(past);
        for _ in 0..FURTHER {
            if failed.as_ref().is_none_or(|(judgement, ..)| !judgement.held) {
                break;
            }
            // It held by luck: further out it will not.
            past *= 1.1;
            failed = self.at(past);
        }
        let Some((judgement, run, first)) = failed else { return mark(self, high, Limit::Interrupted) };
        if limit == Limit::AboveSearch && !judgement.held {
            // The search did not look further up, but here it is.
            (high, limit) = (past, Limit::Found);
        }
        let first = first.filter(|_| !judgement.held);
        let fails = judgement.worst.map(|(o, during, value)| {
            let objective = describe(&self.prepared.system, &self.prepared.system.objectives[o]);
            let when = match (self.forecast.scenario.faults.is_empty(), during) {
                (true, _) => "",
                (false, true) => " while it lasts",
                (false, false) => " after it has cleared",
            };
            format!("{objective}: only {:.2}% do{when}", value * 100.0)
        });
        let recovery = recovery::recovery(self, past, &judgement, self.calm.map(|calm| calm.load));
        let analytic = self.bound.take().map(|bound| analytic(&bound, first.as_ref(), &self.forecast.weather.name));
        let past_mark = keep.then(|| Box::new(run));
        Mark { first, fails, recovery, analytic, at_mark, past_mark, ..mark(self, high, limit) }
    }

    /// A run at a load, with everything recorded.
    pub(crate) fn run_at(&mut self, load: f64) -> Option<Run> {
        self.at(load).map(|(_, run, _)| run)
    }

    /// The first replication at a load: what it says, all of it, and what gives way in it; none if
    /// interrupted.
    fn at(&mut self, load: f64) -> Option<(Judgement, Run, Option<GivesWay>)> {
        if !self.tried.iter().any(|tried| tried.load == load) {
            self.replicate(load, 1)?;
        }
        let tried = self.tried.iter().find(|tried| tried.load == load)?;
        let scenario = self.scenario(load);
        let plan = self.plan(load, true);
        let judgement = judge(&plan, &tried.tallies[..1], &self.waived);
        let (during, after) = windows(&plan, self.forecast);
        // What fails only after the fault is told by what is busy then.
        let when = match judgement.worst {
            Some((_, false, _)) if !after.is_empty() => after,
            _ => during,
        };
        let sample = [&tried.first];
        let first = gives_way(&plan, &sample, &when).into_iter().next();
        Some((judgement, assemble(&plan, &scenario, &sample, self.runner.seed), first))
    }
}

/// The bound of what clients wait for: consumers that fall behind are a backlog, not an outage.
fn waited_for(system: &System, bound: Bound) -> Bound {
    let components = waited_for_components(system);
    let first = bound.demands.iter().find(|demand| match demand.place {
        MetricTarget::Component(component) | MetricTarget::Instance(component, _) => components.contains(&component),
        MetricTarget::Edge(edge) => components.contains(&system.edges[edge.index()].from),
    });
    match first {
        Some(first) => Bound {
            per_s: first.bound_per_s(),
            component: first.component(system),
            resource: first.resource.to_owned(),
            ..bound
        },
        None => bound,
    }
}

fn analytic(bound: &Bound, first: Option<&GivesWay>, weather: &str) -> Analytic {
    let agrees = first.is_none_or(|first| {
        first.component.split(" -> ").any(|part| part.split('/').next() == Some(bound.component.as_str()))
            || bound.component.contains(first.component.as_str())
    });
    let explanation = (!agrees).then(|| {
        let first = first.expect("otherwise they agree");
        if weather == "calm" {
            format!(
                "the closed forms count busy time alone; in the simulation {} ({}) reaches its limit before that, \
                 because of waiting, variance or a policy",
                first.component, first.resource
            )
        } else {
            format!(
                "the closed forms know calm weather; in this one {} ({}) goes first",
                first.component, first.resource
            )
        }
    });
    Analytic {
        bound_per_s: bound.per_s,
        component: bound.component.clone(),
        resource: bound.resource.clone(),
        agrees,
        explanation,
    }
}
