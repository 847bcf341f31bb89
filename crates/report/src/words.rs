//! What a result says, in sentences: the terminal and the page use the same ones.

use plimsoll_model::run::{
    Analytic, EventKind, GivesWay, Limit, Line, LoadUnit, Mark, Quiet, Recovery, Run, SubjectKind, Waived, World,
};

use crate::number::{count, millis, nanos, percent, rate, ratio, significant, times};

/// How the loads of a line are counted, and what is asked for today.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loads {
    pub(crate) unit: LoadUnit,
    pub(crate) today: f64,
    /// Requests a second of open-loop clients in today's load.
    open_per_s: f64,
}

impl Loads {
    pub(crate) fn of(line: &Line) -> Self {
        Loads { unit: line.load_unit, today: line.today, open_per_s: line.today_open_per_s }
    }

    /// The same where there is little room: what grows with the users is left out.
    pub(crate) fn bare(self) -> Self {
        Loads { open_per_s: 0.0, ..self }
    }

    /// A load: `2,910/s`, `6,240 users`, or `6,240 users + 250/s` where clients of both kinds ask.
    pub(crate) fn words(self, load: f64) -> String {
        let open = ratio(load, self.today) * self.open_per_s;
        match self.unit {
            LoadUnit::Users if open > 0.0 => format!("{} + {}", self.short(load), rate(open)),
            _ => self.short(load),
        }
    }

    /// A load without what grows with it.
    pub(crate) fn short(self, load: f64) -> String {
        match self.unit {
            LoadUnit::RequestsPerS => rate(load),
            LoadUnit::Users if load.is_nan() => rate(load),
            LoadUnit::Users if significant(load, 3) == "1" => "1 user".into(),
            LoadUnit::Users => format!("{} users", significant(load, 3)),
        }
    }

    /// Requests a second that such a load makes, where that is more than its name says.
    fn measured(self, requests_per_s: f64) -> Option<String> {
        let worth = self.unit == LoadUnit::Users && requests_per_s.is_finite() && requests_per_s > 0.0;
        worth.then(|| format!("{} requests a second", significant(requests_per_s, 3)))
    }
}

/// Today's load, with the requests that it makes where that is not the same.
pub(crate) fn today(line: &Line) -> String {
    let loads = Loads::of(line);
    let makes = loads.measured(line.today_per_s).map_or(String::new(), |requests| format!(", {requests}"));
    format!("{}{makes}", loads.words(loads.today))
}

/// Requests a second at a mark, in a sentence; none where its load says it.
pub(crate) fn requests(mark: &Mark, loads: Loads) -> Option<String> {
    loads.measured(mark.requests_per_s).map(|requests| format!("At the mark, clients make {requests}"))
}

/// A mark's load: `2,910/s`, or a bound where the search ended at one.
pub(crate) fn load(mark: &Mark, loads: Loads) -> String {
    match mark.limit {
        Limit::Found | Limit::Interrupted => loads.words(mark.load),
        Limit::AboveSearch => format!(">= {}", loads.words(mark.load)),
        Limit::BelowSearch => format!("< {}", loads.words(mark.high)),
    }
}

/// Between which loads a mark lies.
pub(crate) fn interval(mark: &Mark) -> String {
    match mark.limit {
        Limit::Found | Limit::Interrupted if mark.low < mark.high && mark.high.is_finite() => {
            format!("{} to {}", significant(mark.low, 3), significant(mark.high, 3))
        }
        Limit::Found => significant(mark.load, 3),
        Limit::AboveSearch => "largest tried".into(),
        Limit::BelowSearch => "smallest tried".into(),
        Limit::Interrupted => "interrupted".into(),
    }
}

/// A mark against today's load; not a number where the file states no load.
pub(crate) fn against_today(mark: &Mark, loads: Loads) -> f64 {
    match mark.limit {
        Limit::BelowSearch => ratio(mark.load.min(mark.high), loads.today),
        _ => ratio(mark.load, loads.today),
    }
}

/// Whether a mark lies below today's load: the system would not get through this weather today.
pub(crate) fn submerged(mark: &Mark, loads: Loads) -> bool {
    let today = loads.today;
    today > 0.0 && (mark.load < today || (mark.limit == Limit::BelowSearch && mark.high <= today))
}

/// Whether a system stays down after the weather has cleared.
pub(crate) fn metastable(mark: &Mark) -> bool {
    matches!(mark.recovery, Recovery::AtLoad { .. } | Recovery::Never { .. })
}

/// How a system recovers from past a mark, in a few words.
pub(crate) fn recovers(mark: &Mark, loads: Loads) -> String {
    match &mark.recovery {
        // Recovery is looked at after the mark is found.
        Recovery::Steady if mark.limit == Limit::Interrupted => "not tried".into(),
        Recovery::Steady => "needs none".into(),
        Recovery::ByItself { after_ns: None } => "by itself".into(),
        Recovery::ByItself { after_ns: Some(0) } => "at once".into(),
        Recovery::ByItself { after_ns: Some(after) } => format!("in {}", nanos(*after)),
        Recovery::AtLoad { load, .. } => format!("at {}: metastable", loads.words(*load)),
        Recovery::NotSeen { watched_ns, .. } => format!("not in {}", nanos(*watched_ns)),
        Recovery::Never { .. } => "never: metastable".into(),
    }
}

/// How it recovers, in a sentence; none where there is nothing to say.
pub(crate) fn recovery_sentence(mark: &Mark, loads: Loads) -> Option<String> {
    let weather = &mark.weather.text;
    match mark.recovery {
        Recovery::Steady => None,
        Recovery::ByItself { after_ns: None } => {
            Some("Past the mark too, the objectives hold again as soon as the weather clears.".into())
        }
        Recovery::ByItself { after_ns: Some(after) } => {
            Some(format!("Past the mark too, it comes back by itself {} after the weather clears.", nanos(after)))
        }
        Recovery::AtLoad { load, low, high, from, drain_ns } => {
            let drain =
                drain_ns.map_or(String::new(), |drain| format!(" From there it takes {} to drain.", nanos(drain)));
            Some(format!(
                "At {}, {weather} leaves the system down after it has ended; it comes back only when the load \
                 falls to {} (between {} and {}): metastable.{drain}",
                loads.words(from),
                loads.words(load),
                significant(low, 3),
                loads.short(high),
            ))
        }
        Recovery::NotSeen { from, watched_ns } => Some(format!(
            "At {}, the objectives did not hold again {} after the weather had cleared. Whether they would have later was \
             not tried.",
            loads.words(from),
            nanos(watched_ns),
        )),
        Recovery::Never { from } => Some(format!(
            "At {}, {weather} leaves the system down after it has ended, and no load that was tried is small \
             enough to bring it back: metastable until somebody restarts it.",
            loads.words(from),
        )),
    }
}

/// What gives way, in two words: `db connections`.
pub(crate) fn gives_way(first: &GivesWay) -> String {
    format!("{} {}", first.component, resource(&first.resource))
}

/// What gives way and why: `db connections: 98% of db's 27 connections are taken`.
pub(crate) fn gives_way_why(first: &GivesWay) -> String {
    format!("{}: {}", gives_way(first), why(first))
}

/// Why it gives way: how far it is used up, or how much it rejects, where nothing better is known.
pub(crate) fn why(first: &GivesWay) -> String {
    if first.why.is_empty() {
        let rejects = ["polic", "limit", "breaker", "queue"].iter().any(|word| first.resource.contains(word));
        format!("{} {}", percent(first.value), if rejects { "rejected" } else { "busy" })
    } else {
        first.why.trim_end_matches('.').into()
    }
}

/// A resource as people write it: `max connections`.
pub(crate) fn resource(name: &str) -> String {
    name.replace('_', " ")
}

/// Why an objective does not set the mark.
pub(crate) fn waived(waived: &Waived) -> String {
    let Waived { objective, value, why } = waived;
    if why.is_empty() {
        format!("{objective}: {} while the fault lasts, at any load", percent(*value))
    } else {
        format!("{objective}: {}", why.trim_end_matches('.'))
    }
}

/// The closed forms against the simulation.
pub(crate) fn analytic(analytic: &Analytic) -> String {
    let expected = format!(
        "the closed forms expect {} {} to be used up at {}",
        analytic.component,
        resource(&analytic.resource),
        rate(analytic.bound_per_s)
    );
    if analytic.agrees {
        format!("{expected}, and the simulation names it too")
    } else {
        let why =
            analytic.explanation.as_deref().unwrap_or("no explanation was found: look into it before trusting either");
        format!("{expected}, and the simulation names another: {why}")
    }
}

/// How a mark was confirmed.
pub(crate) fn quiet(quiet: &Quiet) -> String {
    format!(
        "stated for {} without collapse: {} in {} simulated without a fault",
        nanos(quiet.horizon_ns),
        plural(u64::from(quiet.collapses), "collapse", "collapses"),
        nanos(quiet.simulated_ns)
    )
}

/// The lowest mark.
pub(crate) fn lowest(line: &Line) -> Option<&Mark> {
    line.marks.iter().filter(|mark| !mark.load.is_nan()).min_by(|a, b| a.load.total_cmp(&b.load))
}

/// The marks from the highest to the lowest load.
pub(crate) fn descending(marks: &[Mark]) -> Vec<&Mark> {
    let mut sorted: Vec<&Mark> = marks.iter().collect();
    sorted.sort_by(|a, b| b.load.total_cmp(&a.load));
    sorted
}

/// The line in one or two sentences.
pub(crate) fn headline(line: &Line) -> String {
    let Some(lowest) = lowest(line) else {
        return "No mark was found before the search was interrupted.".into();
    };
    let loads = Loads::of(line);
    let submerged = line.marks.iter().filter(|mark| submerged(mark, loads)).count();
    let one = |mark: &Mark| {
        let (load, factor) = (load(mark, loads), against_today(mark, loads));
        let makes = loads.measured(mark.requests_per_s);
        let factor = (!factor.is_nan()).then(|| format!("{} today's load", times(factor)));
        let notes: Vec<String> = factor.into_iter().chain(makes).collect();
        if notes.is_empty() { load } else { format!("{load} ({})", notes.join(", ")) }
    };
    let calm = line.marks.iter().find(|mark| mark.weather.kind == plimsoll_model::run::WeatherKind::Calm);
    let mut text = match calm {
        Some(calm) => format!("Carries {} in calm weather", one(calm)),
        None => format!("Carries {} in every weather that was tried", one(lowest)),
    };
    if let Some(calm) = calm
        && !std::ptr::eq(calm, lowest)
    {
        text.push_str(&format!(", {} with {}", one(lowest), lowest.weather.name));
    }
    text.push('.');
    match submerged {
        0 => {}
        1 if line.marks.len() == 1 => text.push_str(" The mark lies below today's load."),
        n if n == line.marks.len() => text.push_str(&format!(" All {n} marks lie below today's load.")),
        1 => text.push_str(&format!(" 1 of {} marks lies below today's load.", line.marks.len())),
        n => text.push_str(&format!(" {n} of {} marks lie below today's load.", line.marks.len())),
    }
    text
}

/// What the simulation says of each weather, and what was measured: (weather, predicted, measured, the error of the
/// prediction as a share of what was measured). Empty for lines that were not measured.
pub(crate) fn predictions(line: &Line) -> Vec<(&str, String, String, String)> {
    let loads = Loads::of(line);
    let row = |mark: &'_ Mark| {
        let predicted = mark.predicted?;
        let error = ratio(predicted - mark.load, mark.load);
        let error = if error.is_finite() { format!("{:+.0}%", error * 100.0) } else { String::new() };
        Some((loads.words(predicted), load(mark, loads), error))
    };
    let rows = line.marks.iter().filter_map(|mark| {
        let (predicted, measured, error) = row(mark)?;
        Some((mark.weather.name.as_str(), predicted, measured, error))
    });
    rows.collect()
}

/// What a line's marks are, in a sentence.
pub(crate) fn what_a_mark_is(line: &Line) -> &'static str {
    match line.world {
        World::Virtual => {
            "the largest load at which the objectives hold in every replication that counts and the system recovers; \
             \"between\" is a load that held and one that did not."
        }
        World::Real => {
            "the largest load at which the objectives held on this machine, in two runs, and the system recovered; \
             \"between\" is a load that held and one that did not. Services, stores and load share its processors."
        }
    }
}

/// How much was tried for a line.
pub(crate) fn effort(line: &Line) -> String {
    let probes: Vec<_> = line.marks.iter().flat_map(|mark| &mark.probes).collect();
    let runs: u64 = probes.iter().map(|probe| u64::from(probe.replications)).sum();
    let runs = match line.world {
        World::Virtual => plural(runs, "replication", "replications"),
        World::Real => plural(runs, "run", "runs"),
    };
    format!("{runs} in {}", plural(probes.len() as u64, "probe", "probes"))
}

/// Where a run came from.
pub(crate) fn provenance(run: &Run) -> String {
    let world = match run.world {
        World::Virtual => "simulated",
        World::Real => "run on real processes",
    };
    let by = run.balancer.as_ref().map_or_else(String::new, |name| format!(" with {name} for a gateway"));
    let warmup = if run.warmup_ns > 0 { format!(" after {} of warm-up", nanos(run.warmup_ns)) } else { String::new() };
    let ready =
        run.ready_ns.map_or_else(String::new, |ready| format!(", ready in {}", nanos(ready / 1_000_000 * 1_000_000)));
    format!(
        "{world}{by}{ready}, {} of {}{warmup}, seed {}",
        plural(u64::from(run.replications), "replication", "replications"),
        nanos(run.duration_ns),
        run.seed
    )
}

/// `3 expectations`, `1 expectation`, `no expectations`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    match n {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        _ => format!("{} {many}", count(n)),
    }
}

/// A time on a run's axis: `20.4 s`.
pub(crate) fn clock(at_ns: u64) -> String {
    let seconds = at_ns as f64 / 1e9;
    if seconds < 600.0 { format!("{seconds:.1} s") } else { millis(seconds * 1e3) }
}

/// What an event is called.
pub(crate) const fn event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::FaultStart => "fault starts",
        EventKind::FaultEnd => "fault ends",
        EventKind::BreakerOpen => "breaker opens",
        EventKind::BreakerHalfOpen => "breaker half-opens",
        EventKind::BreakerClosed => "breaker closes",
        EventKind::Ejected => "ejected",
        EventKind::Returned => "returned",
        EventKind::PanicStart => "panic mode starts",
        EventKind::PanicEnd => "panic mode ends",
        EventKind::Unhealthy => "unhealthy",
        EventKind::Healthy => "healthy",
        EventKind::InstanceDown => "instance down",
        EventKind::InstanceUp => "instance up",
        EventKind::OutOfMemory => "out of memory",
        EventKind::ScaleUp => "scales up",
        EventKind::ScaleDown => "scales down",
        EventKind::Promoted => "promoted",
        EventKind::DeployStep => "deploy step",
        EventKind::RolledBack => "rolled back",
        EventKind::LeaseTaken => "lease taken",
        EventKind::LeaseLost => "lease lost",
        EventKind::Fenced => "fenced",
        EventKind::SplitBrain => "split brain",
        EventKind::Degraded => "degraded",
        EventKind::Restored => "restored",
        EventKind::QueueFull => "queue full",
        EventKind::PoolExhausted => "pool exhausted",
    }
}

/// What a subject's kind is called.
pub(crate) const fn kind(kind: SubjectKind) -> &'static str {
    match kind {
        SubjectKind::All => "all clients",
        SubjectKind::Client => "client",
        SubjectKind::Endpoint => "endpoint",
        SubjectKind::Service => "service",
        SubjectKind::Instance => "instance",
        SubjectKind::Store => "store",
        SubjectKind::Node => "node",
        SubjectKind::Edge => "edge",
        SubjectKind::Topic => "topic",
        SubjectKind::Consumer => "consumer",
        SubjectKind::Lease => "lease",
    }
}
