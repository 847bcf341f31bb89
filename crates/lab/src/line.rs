//! The load line, measured: loads are tried on real processes, upwards until the objectives fail, and then between.
//!
//! A load is judged by one run, since one takes as long as it takes; the one that holds is confirmed by another. An
//! objective about a share of requests within a time is judged by that percentile and by the share that failed.

use plimsoll_model::run::{Limit, Mark, Probe, Recovery, Run, SubjectKind, Waived, Weather};
use plimsoll_model::system::{
    Arrivals, Bound, Client, ClientId, Expectation, Experiment, Fault, Indicator, Load, Metric, Objective, Phase,
    System,
};

use crate::run::Outcome;

/// A weather to try loads in.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What it is called.
    pub weather: Weather,
    /// What goes wrong, ns from the start of the measured part; nothing in calm weather.
    pub faults: Vec<Fault>,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The search ends when the load that fails is within this of the load that holds.
    pub precision: f64,
    /// The load that the file states, in the line's unit: the search counts in multiples of it.
    pub today: f64,
}

/// Who carries out a run: none if it was interrupted.
pub type Carry<'c, E> = dyn FnMut(&Experiment, &str) -> Result<Outcome, E> + 'c;

const SECOND: u64 = 1_000_000_000;

/// Before the measured part.
const WARMUP: u64 = 3 * SECOND;

/// Calm weather is measured for so long.
const CALM: u64 = 10 * SECOND;

/// After the last fault a system has this long to come back: as in the simulation.
const GRACE: u64 = 10 * SECOND;

/// The search begins at today's load, and gives up at this many times it, and at this share of it.
const CEILING: f64 = 256.0;
const FLOOR: f64 = 1.0 / 16.0;

/// Steps: upwards, and downwards, where nothing says how far.
const UP: f64 = 2.0;
const DOWN: f64 = 0.6;

/// A mark, and how far it is the system's.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The mark.
    pub mark: Mark,
    /// Whether the load past it failed because the machine could not measure it: the system may carry more.
    pub invalid: bool,
}

/// A load that was tried.
#[derive(Clone, Debug)]
struct Tried {
    scale: f64,
    held: bool,
    runs: u32,
    /// Whether it was well at the end, whatever was before.
    recovered: bool,
    /// What failed, in words.
    fails: Option<String>,
    /// Whether that was the measurement.
    invalid: bool,
    run: Run,
}

/// A search in one weather.
struct Search<'s, 'c, E> {
    system: &'s System,
    forecast: &'s Forecast,
    settings: Settings,
    carry: &'s mut Carry<'c, E>,
    /// Objectives that fail while the weather lasts at any load.
    waived: Vec<bool>,
    tried: Vec<Tried>,
}

/// What of a system's load cannot be multiplied.
pub fn refuse(system: &System) -> Option<(u32, String)> {
    let trace = system.clients.iter().find(|client| matches!(client.arrivals, Arrivals::Trace { .. }))?;
    Some((
        trace.line,
        format!("`{}`: the load of a `trace` is what it is: state a `rate` for it, or leave --real out", trace.name),
    ))
}

/// Finds the mark of a weather, which is not above that of calm weather where that is known.
pub fn mark<E>(
    system: &System,
    forecast: &Forecast,
    calm: Option<&Mark>,
    settings: Settings,
    carry: &mut Carry<'_, E>,
) -> Result<Measured, E> {
    let waived = vec![false; system.objectives.len()];
    let mut search = Search { system, forecast, settings, carry, waived, tried: Vec::new() };
    search.mark(calm)
}

impl<E> Search<'_, '_, E> {
    fn mark(&mut self, calm: Option<&Mark>) -> Result<Measured, E> {
        let top = calm.map_or(CEILING, |calm| calm.load / self.settings.today);
        let floor = FLOOR.min(top / 16.0);
        let Some(waived) = self.waive((top / 2.0).min(0.5))? else { return Ok(self.interrupted(0.0, 0.0)) };
        let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
        let mut scale = if calm.is_some() { top } else { 1.0 };
        let mut limit = Limit::Found;
        while low.is_none() || high.is_none() {
            let Some(held) = self.holds(scale, 1)? else { return Ok(self.interrupted(low.unwrap_or(0.0), scale)) };
            match held {
                true if scale >= top => {
                    low = Some(scale);
                    high = Some(scale * (1.0 + self.settings.precision));
                    limit = if calm.is_some() { Limit::Found } else { Limit::AboveSearch };
                }
                true => {
                    low = Some(scale);
                    scale = (scale * UP).min(top);
                }
                false if scale <= floor => {
                    high = Some(scale);
                    low = Some(0.0);
                    limit = Limit::BelowSearch;
                }
                false => {
                    high = Some(scale);
                    scale = (scale * DOWN).max(floor);
                }
            }
        }
        let (mut low, mut high) = (low.unwrap_or(0.0), high.unwrap_or(0.0));
        while limit == Limit::Found && high > low * (1.0 + self.settings.precision) * (1.0 + 1e-9) {
            let middle = (low * high).sqrt();
            match self.holds(middle, 1)? {
                Some(true) => low = middle,
                Some(false) => high = middle,
                None => return Ok(self.interrupted(low, high)),
            }
        }
        // One that held by luck gives way to one below it.
        while limit == Limit::Found && low > floor {
            match self.holds(low, 2)? {
                Some(true) => break,
                Some(false) => {
                    high = low;
                    let below = self.tried.iter().filter(|tried| tried.held && tried.scale < low);
                    let known = below.map(|tried| tried.scale).fold(0.0, f64::max);
                    low = known.max(low / (1.0 + self.settings.precision)).max(floor);
                }
                None => return Ok(self.interrupted(low, high)),
            }
        }
        Ok(self.describe(low, high, limit, calm.is_some_and(|_| low >= top), waived))
    }

    /// Objectives that fail while the weather lasts at a small load too: they say something about the weather. None if
    /// interrupted.
    fn waive(&mut self, scale: f64) -> Result<Option<Vec<Waived>>, E> {
        if self.forecast.faults.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let experiment = self.experiment(scale);
        let words = self.words(scale);
        let outcome = (self.carry)(&experiment, &words)?;
        if outcome.run.partial {
            return Ok(None);
        }
        let mut out = Vec::new();
        for (o, objective) in self.system.objectives.iter().enumerate() {
            let of = |verdict: &&plimsoll_model::run::Verdict| verdict.line == number(o, true);
            let Some(missed) = outcome.run.verdicts.iter().filter(of).find(|verdict| !verdict.passed) else { continue };
            self.waived[o] = true;
            out.push(Waived {
                objective: objective.name.clone(),
                value: missed.value,
                why: format!("{}: {} was measured, even at {}", missed.text, missed.measured, self.words(scale)),
            });
        }
        Ok(Some(out))
    }

    /// Whether a load holds in at least so many runs; none if interrupted.
    fn holds(&mut self, scale: f64, runs: u32) -> Result<Option<bool>, E> {
        let known = self.tried.iter().position(|tried| tried.scale == scale);
        let done = known.map_or(0, |at| self.tried[at].runs);
        for _ in done..runs {
            let experiment = self.experiment(scale);
            let words = self.words(scale);
            let mut outcome = (self.carry)(&experiment, &words)?;
            if outcome.run.partial {
                return Ok(None);
            }
            let failed = outcome.run.verdicts.iter().filter(|verdict| !verdict.passed);
            let mut fails = failed.clone().next().map(|verdict| format!("{}: {}", verdict.text, verdict.measured));
            let recovered = failed.clone().all(|verdict| verdict.line % 2 == 1);
            let invalid = outcome.run.invalid.is_some();
            if let Some(why) = &outcome.run.invalid {
                fails = Some(format!("the measurement is invalid: {why}"));
            }
            for verdict in &mut outcome.run.verdicts {
                verdict.line = self.system.objectives[verdict.line as usize / 2 - 1].line;
            }
            let tried = Tried { scale, held: fails.is_none(), runs: 1, recovered, fails, invalid, run: outcome.run };
            match self.tried.iter_mut().find(|tried| tried.scale == scale) {
                Some(known) if known.held => *known = Tried { runs: known.runs + 1, ..tried },
                Some(known) => known.runs += 1,
                None => self.tried.push(tried),
            }
        }
        Ok(self.tried.iter().find(|tried| tried.scale == scale).map(|tried| tried.held))
    }

    fn words(&self, scale: f64) -> String {
        format!("{} at {:.2}x today's load", self.forecast.weather.name, scale)
    }

    /// The run that tries a load. Its expectations are the objectives: while the weather lasts, and after it.
    fn experiment(&self, scale: f64) -> Experiment {
        let last = self.forecast.faults.iter().map(|fault| fault.until).max();
        // What comes after the grace is the last quarter of the run.
        let duration = last.map_or(CALM, |last| (last + GRACE) / 3 * 4);
        let clients = self.system.clients.iter().enumerate();
        let mut expect = Vec::new();
        for (o, objective) in self.system.objectives.iter().enumerate() {
            let phases = match last {
                Some(_) => [(Phase::During, true), (Phase::End, false)],
                None => [(Phase::Whole, true), (Phase::Whole, false)],
            };
            for (phase, during) in phases {
                if during && (self.waived[o] || last.is_none()) {
                    continue;
                }
                expect.extend(expectations(objective, phase, number(o, during)));
            }
        }
        Experiment {
            name: self.forecast.weather.name.clone(),
            duration,
            warmup: WARMUP,
            load: clients.filter_map(|(at, client)| Some((ClientId::from(at), load(client, scale)?))).collect(),
            faults: self.forecast.faults.clone(),
            expect,
            line: 0,
        }
    }

    fn interrupted(&mut self, low: f64, high: f64) -> Measured {
        self.describe(low, high, Limit::Interrupted, false, Vec::new())
    }

    fn describe(&mut self, low: f64, high: f64, limit: Limit, capped: bool, waived: Vec<Waived>) -> Measured {
        self.tried.sort_by(|a, b| a.scale.total_cmp(&b.scale));
        let today = self.settings.today;
        let at = |scale: f64| self.tried.iter().find(|tried| tried.scale == scale);
        let past = at(high).filter(|tried| !tried.held);
        let calm = self.forecast.faults.is_empty();
        let recovery = match past {
            _ if calm => Recovery::Steady,
            Some(past) if !past.recovered => Recovery::NotSeen { from: past.scale * today, watched_ns: GRACE },
            _ => Recovery::ByItself { after_ns: None },
        };
        let probes = self.tried.iter().map(|tried| probe(tried, today)).collect();
        let mark = Mark {
            weather: self.forecast.weather.clone(),
            load: low * today,
            low: low * today,
            high: high * today,
            requests_per_s: at(low).map_or(f64::NAN, |tried| figure(&tried.run, "offered_per_s")),
            limit,
            first: past.and_then(|past| past.run.bottlenecks.first().cloned()),
            fails: match past.and_then(|past| past.fails.clone()) {
                None if capped => Some("as in calm weather".to_owned()),
                fails => fails,
            },
            recovery,
            waived,
            analytic: None,
            quiet: None,
            predicted: None,
            probes,
            at_mark: at(low).map(|tried| Box::new(tried.run.clone())),
            past_mark: past.map(|tried| Box::new(tried.run.clone())),
        };
        Measured { mark, invalid: past.is_some_and(|tried| tried.invalid) }
    }
}

/// The number by which an objective's expectations are known again in a run's verdicts: odd while the weather lasts.
fn number(objective: usize, during: bool) -> u32 {
    2 * objective as u32 + 2 + u32::from(during)
}

fn expectations(objective: &Objective, phase: Phase, line: u32) -> Vec<Expectation> {
    let when = match phase {
        Phase::During => " while it lasts",
        Phase::End => " after it has cleared",
        _ => "",
    };
    let expect = |metric, bound, what: String| Expectation {
        metric,
        phase,
        bound,
        text: format!("{}: {what}{when}", objective.name),
        line,
    };
    let errors = Bound::AtMost(1.0 - objective.target);
    let share = percent(1.0 - objective.target);
    let failed = expect(Metric::Errors(objective.subject), errors, format!("at most {share}% fail"));
    match objective.indicator {
        Indicator::Success => vec![failed],
        Indicator::LatencyBelow(limit) => {
            let percentile = Metric::Percentile(objective.target * 100.0, objective.subject);
            let text = format!("{}% are answered within {} ms", percent(objective.target), limit as f64 / 1e6);
            vec![failed, expect(percentile, Bound::Below(limit as f64), text)]
        }
    }
}

fn percent(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A client's load, so many times what the file says.
fn load(client: &Client, scale: f64) -> Option<Load> {
    match &client.arrivals {
        Arrivals::Open { rate, .. } => Some(Load::Rate(rate * scale)),
        Arrivals::Closed { users, .. } => Some(Load::Users(((f64::from(*users) * scale).round() as u32).max(1))),
        Arrivals::Trace { .. } => None,
    }
}

fn figure(run: &Run, name: &str) -> f64 {
    run.subject(SubjectKind::All, "all").and_then(|all| all.figure(name)).map_or(f64::NAN, |figure| figure.mean)
}

fn probe(tried: &Tried, today: f64) -> Probe {
    Probe {
        load: tried.scale * today,
        requests_per_s: figure(&tried.run, "offered_per_s"),
        held: tried.held,
        replications: tried.runs,
        goodput_per_s: figure(&tried.run, "goodput_per_s"),
        errors: figure(&tried.run, "errors"),
        p99_ms: figure(&tried.run, "latency_ms_p99"),
        recovered: tried.recovered,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use plimsoll_model::run::{Verdict, WeatherKind, World};
    use plimsoll_model::system::{Component, FaultKind, ServiceId, Target};
    use plimsoll_model::{Source, parse};

    use super::*;
    use crate::measure::times::Timed;

    const FILE: &str = "
system: s
clients: { web: { rate: 100/s, calls: [api GET /] } }
services: { api: { endpoints: { GET /: [ { wait: 1ms } ] } } }
objectives:
  - { name: answers, indicator: success(web), target: 99%, window: 30d }
  - { name: fast, indicator: latency(web) < 200ms, target: 95%, window: 30d }
";

    fn forecast(faults: bool) -> Forecast {
        let fault = Fault {
            at: SECOND,
            until: 17 * SECOND,
            kind: FaultKind::Kill(Target::Instance(Component::Service(ServiceId(0)), 0)),
            text: "kill api/1".to_owned(),
            line: 0,
        };
        let kind = if faults { WeatherKind::InstanceLost } else { WeatherKind::Calm };
        let weather = Weather { kind, name: "a weather".to_owned(), text: "kill api/1".to_owned() };
        Forecast { weather, faults: faults.then_some(fault).into_iter().collect() }
    }

    /// A run whose expectations hold as `holds` says of the load, the phase and what is expected.
    fn outcome(experiment: &Experiment, holds: impl Fn(f64, Phase, &str) -> bool) -> Outcome {
        let Load::Rate(rate) = experiment.load[0].1 else { panic!("an open loop") };
        let verdicts = experiment.expect.iter().map(|expectation| Verdict {
            text: expectation.text.clone(),
            line: expectation.line,
            passed: holds(rate, expectation.phase, &expectation.text),
            measured: "3%".to_owned(),
            value: 0.03,
            low: 0.0,
            high: 0.0,
            why: None,
        });
        let run = Run {
            format: Run::FORMAT,
            plimsoll: String::new(),
            system: String::new(),
            system_hash: String::new(),
            experiment: experiment.name.clone(),
            world: World::Real,
            seed: 1,
            replications: 1,
            ready_ns: None,
            balancer: None,
            invalid: None,
            warmup_ns: experiment.warmup,
            duration_ns: experiment.duration,
            partial: false,
            subjects: Vec::new(),
            faults: Vec::new(),
            events: Vec::new(),
            verdicts: verdicts.collect(),
            bottlenecks: Vec::new(),
            warnings: Vec::new(),
        };
        Outcome { run, timed: Timed::default(), busy: 0.0 }
    }

    fn search(faults: bool, calm: Option<&Mark>, mut holds: impl FnMut(f64, Phase, &str) -> bool) -> Mark {
        let system = parse(&Source::alone("s.yaml", FILE)).unwrap();
        let settings = Settings { precision: 0.1, today: 100.0 };
        let holds = std::cell::RefCell::new(&mut holds);
        let mut carry = |experiment: &Experiment, _: &str| -> Result<Outcome, Infallible> {
            Ok(outcome(experiment, |rate, phase, text| (holds.borrow_mut())(rate, phase, text)))
        };
        let Ok(measured) = mark(&system, &forecast(faults), calm, settings, &mut carry);
        assert!(!measured.invalid);
        measured.mark
    }

    #[test]
    fn a_mark_lies_between_a_load_that_held_and_one_that_did_not() {
        let mark = search(false, None, |rate, _, _| rate <= 730.0);
        assert_eq!(mark.limit, Limit::Found);
        assert!(mark.low <= 730.0 && mark.high > 730.0, "{} to {}", mark.low, mark.high);
        assert!(mark.high <= mark.low * 1.1001);
        assert_eq!(mark.fails.as_deref(), Some("answers: at most 1% fail: 3%"));
        assert_eq!(mark.recovery, Recovery::Steady);
        let at = mark.probes.iter().find(|probe| probe.load == mark.low).unwrap();
        assert_eq!(at.replications, 2, "it was confirmed");
        assert!(
            mark.past_mark.unwrap().verdicts.iter().all(|verdict| verdict.line > 4),
            "lines of the file's objectives"
        );
    }

    #[test]
    fn what_held_by_luck_gives_way() {
        let lucky = Cell::new(true);
        let mark = search(false, None, |rate, _, _| rate <= 400.0 || (rate < 600.0 && lucky.replace(false)));
        assert!(mark.low <= 400.0 && mark.high <= 600.0, "{} to {}", mark.low, mark.high);
    }

    #[test]
    fn searches_end_at_their_ends() {
        assert_eq!(search(false, None, |_, _, _| true).limit, Limit::AboveSearch);
        let below = search(false, None, |_, _, _| false);
        assert_eq!((below.limit, below.load), (Limit::BelowSearch, 0.0));
    }

    #[test]
    fn a_weather_is_no_better_than_calm_and_what_fails_in_it_anyhow_sets_no_mark() {
        let calm = search(false, None, |rate, _, _| rate <= 730.0);
        let lost = search(true, Some(&calm), |rate, phase, text| {
            let anyhow = phase == Phase::During && text.starts_with("fast");
            !anyhow && rate <= 1000.0
        });
        assert_eq!(lost.load, calm.load);
        assert_eq!(lost.fails.as_deref(), Some("as in calm weather"));
        let waived: Vec<&str> = lost.waived.iter().map(|waived| waived.objective.as_str()).collect();
        assert_eq!(waived, ["fast"]);
        // One that does not come back is told apart.
        let stuck = search(true, Some(&calm), |rate, phase, _| phase != Phase::End || rate <= 300.0);
        assert!(matches!(stuck.recovery, Recovery::NotSeen { .. }), "{:?}", stuck.recovery);
        assert!(stuck.low <= 300.0 && stuck.high > 300.0);
    }
}
