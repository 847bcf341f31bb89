//! The load line: for each weather, the largest load at which every objective holds while the
//! weather lasts and after it has cleared.

mod judge;
mod quiet;
mod recovery;
mod search;
mod weather;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use plimsoll_model::run::{GrownLine, Limit, Line, LoadUnit, Mark, WeatherKind, World};
use plimsoll_model::system::{Arrivals, Indicator, Subject, System};

use crate::plan::{Plan, Prepared};
use crate::replicate::Runner;
use search::Search;
pub use weather::{Forecast, forecasts};

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The search ends when the load that fails is within this of the load that holds. Default:
    /// 5%.
    pub precision: f64,
    /// Replications at least behind the load that holds. Default: 10.
    pub replications: u32,
    /// The calm mark is stated for this long without a collapse, ns. Default: an hour.
    pub horizon: u64,
    /// Requests that the long quiet run may take. Default: 2 million.
    pub quiet_requests: f64,
    /// Requests that the replications which confirm a mark in other than calm weather may take.
    /// Default: half a million.
    pub weather_requests: f64,
    /// Whether runs at and past each mark are kept, for pictures. Default: yes.
    pub keep_runs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            precision: 0.05,
            replications: 10,
            horizon: 3_600_000_000_000,
            quiet_requests: 2e6,
            weather_requests: 5e5,
            keep_runs: true,
        }
    }
}

/// Finds the load line of a system in these weathers; the first must be calm.
pub fn line(system: &System, forecasts: &[Forecast], settings: &Settings, runner: &Runner<'_>) -> Line {
    let marks = marks(system, forecasts, settings, runner);
    let mut warnings = Vec::new();
    if !system.objectives.iter().any(|objective| objective.stated) {
        warnings.push("the file states no objectives: the line is drawn for the default ones".to_owned());
    }
    if let Some(mark) = marks.iter().find(|mark| mark.limit == Limit::BelowSearch && mark.weather.name == "calm") {
        warnings.push(format!(
            "the objectives do not hold even at {} in calm weather: {}",
            load_words(system, mark.high),
            mark.fails.as_deref().unwrap_or("see the calm mark")
        ));
    }
    let today_per_s = match load_unit(system) {
        LoadUnit::RequestsPerS => today(system),
        LoadUnit::Users => measured_today(system, runner),
    };
    let calm = marks.first().map(|mark| mark.requests_per_s);
    let mut cost = plimsoll_model::cost(system);
    cost.per_million_usd = per_million(cost.month_usd, calm);
    Line {
        format: plimsoll_model::run::Run::FORMAT,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        system: system.name.clone(),
        system_hash: format!("{:016x}", system.hash),
        world: World::Virtual,
        seed: runner.seed,
        load_unit: load_unit(system),
        today: today(system),
        today_open_per_s: open_per_s(system),
        today_per_s,
        objectives: system.objectives.iter().map(|objective| describe(system, objective)).collect(),
        objectives_stated: system.objectives.iter().any(|objective| objective.stated),
        partial: runner.stopped() || marks.iter().any(|mark| mark.limit == Limit::Interrupted),
        marks,
        growth: Vec::new(),
        cost,
        warnings,
    }
}

/// The same for a system that was scaled by a factor, as its file says.
pub fn grown_line(
    system: &System,
    factor: f64,
    changes: Vec<String>,
    settings: &Settings,
    runner: &Runner<'_>,
) -> GrownLine {
    let settings = Settings { keep_runs: false, ..*settings };
    let marks = marks(system, &forecasts(system), &settings, runner);
    let mut cost = plimsoll_model::cost(system);
    cost.per_million_usd = per_million(cost.month_usd, marks.first().map(|mark| mark.requests_per_s));
    GrownLine { factor, changes, marks, cost }
}

fn per_million(month_usd: f64, calm: Option<f64>) -> Option<f64> {
    const MONTH_S: f64 = 730.0 * 3600.0;
    calm.filter(|&load| load > 0.0).map(|load| month_usd / (load * MONTH_S) * 1e6)
}

/// The weathers are independent but for the calm one, which the others are compared with: it comes
/// first, with all threads on its replications; then each thread takes a weather at a time, and when
/// none is left it helps the others with theirs.
fn marks(system: &System, forecasts: &[Forecast], settings: &Settings, runner: &Runner<'_>) -> Vec<Mark> {
    let prepared = Prepared::new(system);
    let Some((calm, rest)) = forecasts.split_first() else { return Vec::new() };
    let total = forecasts.len() as f64 + 1.0;
    (runner.progress)(0.0, &calm.weather.name);
    let idle = Idle::default();
    let mut search = Search::new(&prepared, calm, settings, runner, &idle, None);
    let mut first = search.mark();
    (runner.progress)(1.0 / total, "a long quiet run at the calm mark");
    let was = first.load;
    while first.limit == Limit::Found && first.load > 0.0 {
        let load = first.load;
        quiet::confirm(&prepared, calm, settings, runner, &mut first);
        // A mark that it has lowered is confirmed by runs that are longer than those.
        if first.load < load || first.limit != Limit::Found {
            break;
        }
        match search.confirm_calm(&mut first) {
            Some(true) => break,
            Some(false) => {}
            None => first.limit = Limit::Interrupted,
        }
    }
    let lowered = first.load < was && settings.keep_runs && first.limit == Limit::Found;
    // The long ones first: then no thread begins one when the others are done.
    let mut order: Vec<usize> = (0..rest.len()).collect();
    order.sort_by_key(|&at| is_capped_mostly(rest[at].weather.kind));
    let next = AtomicU32::new(0);
    let done: Mutex<Vec<Option<Mark>>> = Mutex::new(rest.iter().map(|_| None).collect());
    let finished = AtomicU32::new(0);
    let picture = Mutex::new(None);
    let work = || {
        let one = Runner { threads: 1, progress: &|_, _| {}, ..*runner };
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            if at == order.len() && lowered {
                // The picture at the calm mark is one at the mark as it is now.
                let run = Search::new(&prepared, calm, settings, &one, &idle, None).run_at(first.load);
                *picture.lock().expect("no search panics") = run.map(Box::new);
            }
            let Some(&at) = order.get(at).filter(|_| !runner.stopped()) else { return idle.give(1) };
            let mark = Search::new(&prepared, &rest[at], settings, &one, &idle, Some(&first)).mark();
            done.lock().expect("no search panics")[at] = Some(mark);
            let finished = finished.fetch_add(1, Ordering::Relaxed) + 1;
            (runner.progress)((2.0 + finished as f64) / total, &rest[at].weather.name);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..runner.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let rest = done.into_inner().expect("no search panics");
    if lowered {
        first.at_mark = picture.into_inner().expect("no search panics");
    }
    std::iter::once(first).chain(rest.into_iter().flatten()).collect()
}

/// What the loads of a system are counted in: users, where any client is a closed loop.
fn load_unit(system: &System) -> LoadUnit {
    let closed = system.clients.iter().any(|client| matches!(client.arrivals, Arrivals::Closed { .. }));
    if closed { LoadUnit::Users } else { LoadUnit::RequestsPerS }
}

/// Whether systems mostly carry in a weather what they carry in calm: then one load is tried, not many.
fn is_capped_mostly(kind: WeatherKind) -> bool {
    matches!(kind, WeatherKind::PrimaryLost | WeatherKind::CacheCold | WeatherKind::BrokerDown)
}

/// Threads that have no weather of their own any more, and may run another's replications.
#[derive(Default)]
struct Idle(AtomicUsize);

impl Idle {
    fn give(&self, threads: usize) {
        self.0.fetch_add(threads, Ordering::Relaxed);
    }

    /// Takes as many as there are, at most so many.
    fn take(&self, most: usize) -> usize {
        let taken = |idle: usize| idle.min(most);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| Some(idle - taken(idle)));
        taken(before.unwrap_or(0))
    }
}

/// The load that a file states: users of closed-loop clients, where there are any; otherwise
/// requests a second over all clients.
pub fn today(system: &System) -> f64 {
    match load_unit(system) {
        LoadUnit::RequestsPerS => open_per_s(system),
        LoadUnit::Users => {
            let users = |client: &plimsoll_model::system::Client| match client.arrivals {
                Arrivals::Closed { users, .. } => f64::from(users),
                _ => 0.0,
            };
            system.clients.iter().map(users).sum()
        }
    }
}

/// Requests a second of the open-loop clients.
fn open_per_s(system: &System) -> f64 {
    let rate = |client: &plimsoll_model::system::Client| match &client.arrivals {
        Arrivals::Open { rate, .. } => *rate,
        Arrivals::Closed { .. } => 0.0,
        Arrivals::Trace { times, span } => times.len() as f64 / (*span as f64 / 1e9),
    };
    system.clients.iter().map(rate).sum()
}

/// Requests a second that clients make under today's load in calm weather; not a number if
/// somebody wants the search to stop.
fn measured_today(system: &System, runner: &Runner<'_>) -> f64 {
    let calm = weather::calm();
    let plan = Plan::new(&Prepared::new(system), &calm.scenario, false);
    let tallies = runner.run(&plan, 0, 1, |_, sample| judge::tally(&plan, &calm, &sample));
    if tallies.is_empty() {
        f64::NAN
    } else {
        judge::judge(&plan, &tallies, &vec![false; system.objectives.len()]).requests
    }
}

/// A load in words.
fn load_words(system: &System, load: f64) -> String {
    match load_unit(system) {
        LoadUnit::RequestsPerS => format!("{load:.0} requests a second"),
        LoadUnit::Users if load < 1.5 => "1 user".to_owned(),
        LoadUnit::Users => format!("{load:.0} users"),
    }
}

/// An objective in words: `99.9% of edge GET /notes answered without error`.
pub(crate) fn describe(system: &System, objective: &plimsoll_model::system::Objective) -> String {
    let whose = match objective.subject {
        Subject::All => "all requests".to_owned(),
        Subject::Client(id) => format!("{}'s requests", system.clients[id.index()].name),
        Subject::Endpoint(id) => system.endpoint_name(id),
    };
    let share = objective.target * 100.0;
    let share = format!("{share:.6}");
    let share = share.trim_end_matches('0').trim_end_matches('.');
    match objective.indicator {
        Indicator::Success => format!("{}: {share}% of {whose} succeed", objective.name),
        Indicator::LatencyBelow(limit) => {
            format!("{}: {share}% of {whose} succeed within {} ms", objective.name, limit as f64 / 1e6)
        }
    }
}
