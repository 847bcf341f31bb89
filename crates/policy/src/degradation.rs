//! A degradation ladder: under pressure, switch off what matters least, step by step.
//!
//! ```text
//!   level 0 ──► level 1 ──► level 2 ──► ...    pressure >= enter_at, one step per escalate_every
//!           ◄──         ◄──         ◄──        pressure < leave_at for min_dwell without a break
//! ```
//!
//! Up fast and one step at a time, so that each step can take effect before the next; down slowly,
//! since what is switched on again brings its load back. Between the two thresholds nothing moves:
//! with one threshold, switching a feature off lowers the pressure, which switches it on again.

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Reason, Rejected, Time, nanos};

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The pressure from which the level below gives way to this one. Above the level below's.
    pub enter_at: f64,
    /// The pressure below which this level may end. Below `enter_at`.
    pub leave_at: f64,
    /// The features that this level switches off, by the driver's numbers; those of the levels below
    /// stay off too.
    pub switches_off: Vec<u32>,
}

/// A ladder's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// From the mildest to the severest. Default: none.
    pub levels: Vec<Level>,
    /// The shortest time from one step up to the next. Default: 1 s, so that a step shows before the
    /// next one is taken.
    pub escalate_every: Duration,
    /// How long the pressure must have been below `leave_at`, since the level was entered, before a
    /// step down. Default: 30 s, longer than the ramps that follow a recovery (slow starts, breakers).
    pub min_dwell: Duration,
    /// Shadow: move and count, but let everything through.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            levels: Vec::new(),
            escalate_every: Duration::from_secs(1),
            min_dwell: Duration::from_secs(30),
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        for level in &self.levels {
            if !level.enter_at.is_finite() || !level.leave_at.is_finite() {
                return refuse("levels", "finite thresholds");
            }
            if level.leave_at >= level.enter_at {
                return refuse("leave_at", "below enter_at");
            }
        }
        for pair in self.levels.windows(2) {
            if pair[1].enter_at <= pair[0].enter_at {
                return refuse("enter_at", "above the level before");
            }
            if pair[1].leave_at < pair[0].leave_at {
                return refuse("leave_at", "not below the level before");
            }
        }
        Ok(())
    }
}

/// The level has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The level before; 0 is full service.
    pub from: usize,
    /// The level from now on.
    pub to: usize,
    /// Why.
    pub cause: Cause,
}

/// Why a level changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The pressure crossed a threshold.
    Pressure,
    /// A person set, changed or ended an override.
    Override,
    /// An override has expired.
    OverrideExpired,
    /// The settings changed.
    Reconfigured,
}

/// Decides what is switched off.
#[derive(Clone, Debug)]
pub struct Degradation {
    config: Config,
    /// By level: everything that is off at it, sorted.
    off: Vec<Vec<u32>>,
    /// The level that the pressure asks for, kept up during an override.
    level: usize,
    changed_at: Option<Time>,
    calm_since: Option<Time>,
    forced: Option<(usize, Time)>,
    counts: Counts,
}

impl Degradation {
    /// A ladder at full service.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Degradation {
            off: accumulate(&config.levels),
            config,
            level: 0,
            changed_at: None,
            calm_since: None,
            forced: None,
            counts: Counts::default(),
        })
    }

    /// Takes in the pressure now, in the unit of the thresholds (such as utilization or queueing
    /// time). One that is not a number changes nothing.
    pub fn observe(&mut self, now: Time, pressure: f64) -> Option<Transition> {
        if pressure.is_nan() {
            return None;
        }
        let before = self.level();
        let since_change = self.changed_at.map_or(u64::MAX, |at| now.nanos_since(at));
        let up = self.config.levels.get(self.level);
        if up.is_some_and(|next| pressure >= next.enter_at) {
            self.calm_since = None;
            if since_change >= nanos(self.config.escalate_every) {
                self.move_to(now, self.level + 1);
            }
        } else if self.level > 0 && pressure < self.config.levels[self.level - 1].leave_at {
            let calm = now.nanos_since(*self.calm_since.get_or_insert(now));
            if calm >= nanos(self.config.min_dwell) {
                self.move_to(now, self.level - 1);
            }
        } else {
            self.calm_since = None;
        }
        self.transition(before, Cause::Pressure)
    }

    /// Whether a feature may run now.
    #[inline]
    pub fn admit(&mut self, feature: u32) -> Result<(), Rejected> {
        let level = self.level();
        if self.off[level].binary_search(&feature).is_err() {
            self.counts.admitted += 1;
            return Ok(());
        }
        match self.config.mode {
            Mode::Enforce => {
                self.counts.rejected += 1;
                Err(Rejected::new(Reason::Degraded))
            }
            Mode::Shadow => {
                self.counts.shadowed += 1;
                Ok(())
            }
        }
    }

    /// Holds the ladder at a level (the severest, if there are fewer) until a time, whatever the
    /// pressure. An override always expires: a forgotten one would be an outage of its own.
    pub fn force(&mut self, level: usize, until: Time) -> Option<Transition> {
        let before = self.level();
        self.forced = Some((level.min(self.config.levels.len()), until));
        self.transition(before, Cause::Override)
    }

    /// Ends an override.
    pub fn release(&mut self) -> Option<Transition> {
        let before = self.level();
        self.forced = None;
        self.transition(before, Cause::Override)
    }

    /// When an override expires.
    pub fn next_wake(&self) -> Option<Time> {
        self.forced.map(|(_, until)| until)
    }

    /// Ends an override that has expired. Idempotent.
    pub fn on_wake(&mut self, now: Time) -> Option<Transition> {
        let before = self.level();
        self.forced = self.forced.filter(|(_, until)| *until > now);
        self.transition(before, Cause::OverrideExpired)
    }

    /// The level in force; 0 is full service.
    #[inline]
    pub fn level(&self) -> usize {
        self.forced.map_or(self.level, |(level, _)| level)
    }

    /// Everything that is off now, sorted; in [`Mode::Shadow`], would be.
    pub fn switched_off(&self) -> &[u32] {
        &self.off[self.level()]
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings and keeps the level, or the severest if there are fewer now.
    pub fn set_config(&mut self, config: Config) -> Result<Option<Transition>, InvalidConfig> {
        config.check()?;
        let before = self.level();
        self.off = accumulate(&config.levels);
        self.level = self.level.min(config.levels.len());
        self.forced = self.forced.map(|(level, until)| (level.min(config.levels.len()), until));
        self.config = config;
        Ok(self.transition(before, Cause::Reconfigured))
    }

    fn move_to(&mut self, now: Time, level: usize) {
        self.level = level;
        self.changed_at = Some(now);
        self.calm_since = None;
    }

    fn transition(&self, from: usize, cause: Cause) -> Option<Transition> {
        let to = self.level();
        (from != to).then_some(Transition { from, to, cause })
    }
}

fn accumulate(levels: &[Level]) -> Vec<Vec<u32>> {
    let mut off = vec![Vec::new()];
    let mut all: Vec<u32> = Vec::new();
    for level in levels {
        all.extend(&level.switches_off);
        all.sort_unstable();
        all.dedup();
        off.push(all.clone());
    }
    off
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(mode: Mode) -> Degradation {
        let level = |enter_at, leave_at, off: &[u32]| Level { enter_at, leave_at, switches_off: off.to_vec() };
        Degradation::new(Config {
            levels: vec![level(0.8, 0.6, &[7]), level(0.9, 0.7, &[3]), level(0.95, 0.8, &[5, 3])],
            min_dwell: Duration::from_secs(10),
            mode,
            ..Config::default()
        })
        .unwrap()
    }

    fn at(seconds: f64) -> Time {
        Time::from_nanos((seconds * 1e9) as u64)
    }

    #[test]
    fn climbs_fast_and_descends_slowly() {
        let mut ladder = ladder(Mode::Enforce);
        let table = [
            (0.0, 0.79, 0, "below the first threshold"),
            (0.1, 0.99, 1, "the first step comes at once"),
            (0.2, 0.99, 1, "the second waits for the first to show"),
            (1.1, 0.99, 2, "a second later"),
            (2.1, 0.99, 3, "and the last"),
            (9.0, 0.99, 3, "there is no further"),
            (10.0, 0.79, 3, "below leave_at: the dwell begins"),
            (15.0, 0.81, 3, "a bounce between the thresholds starts it again"),
            (16.0, 0.79, 3, "dwelling"),
            (25.9, 0.79, 3, "dwelling"),
            (26.0, 0.79, 2, "ten seconds without a break"),
            (27.0, 0.75, 2, "above this level's leave_at"),
            (30.0, 0.10, 2, "dwelling"),
            (40.0, 0.10, 1, "one step at a time"),
            (49.9, 0.10, 1, "each step dwells"),
            (50.0, 0.10, 1, "calm counts from the first observation after the step"),
            (59.9, 0.10, 0, "full service"),
        ];
        for (time, pressure, level, why) in table {
            ladder.observe(at(time), pressure);
            assert_eq!(ladder.level(), level, "{time}: {why}");
        }
    }

    #[test]
    fn does_not_flap_around_a_threshold() {
        let mut ladder = ladder(Mode::Enforce);
        let mut changes = 0;
        for tick in 0..10_000u32 {
            let pressure = 0.8 + if tick % 2 == 0 { 0.05 } else { -0.05 };
            changes += u32::from(ladder.observe(at(f64::from(tick) * 0.1), pressure).is_some());
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn a_pressure_that_is_not_a_number_is_no_observation() {
        let mut ladder = ladder(Mode::Enforce);
        ladder.observe(at(0.0), 0.85);
        ladder.observe(at(1.0), 0.1);
        ladder.observe(at(5.0), f64::NAN);
        ladder.observe(at(11.0), 0.1);
        assert_eq!(ladder.level(), 0, "the calm was not broken");
    }

    #[test]
    fn switches_off_what_the_levels_below_switch_off_too() {
        let mut ladder = ladder(Mode::Enforce);
        assert_eq!(ladder.admit(3), Ok(()));
        ladder.force(2, at(60.0));
        assert_eq!(ladder.switched_off(), [3, 7]);
        assert_eq!(ladder.admit(7), Err(Rejected::new(Reason::Degraded)));
        assert_eq!(ladder.admit(5), Ok(()));
        assert_eq!(ladder.counts(), Counts { admitted: 2, rejected: 1, shadowed: 0 });
    }

    #[test]
    fn an_override_expires_into_what_the_pressure_asks_for() {
        let mut ladder = ladder(Mode::Enforce);
        let forced = ladder.force(9, at(60.0));
        assert_eq!(forced, Some(Transition { from: 0, to: 3, cause: Cause::Override }));
        assert_eq!(ladder.observe(at(1.0), 0.85), None, "the pressure moves only what lies beneath");
        assert_eq!(ladder.next_wake(), Some(at(60.0)));
        assert_eq!(ladder.on_wake(at(59.0)), None);
        let expired = ladder.on_wake(at(60.0));
        assert_eq!(expired, Some(Transition { from: 3, to: 1, cause: Cause::OverrideExpired }));
        assert_eq!((ladder.on_wake(at(61.0)), ladder.next_wake()), (None, None));
        ladder.force(0, at(90.0));
        assert_eq!(ladder.level(), 0);
        let released = ladder.release();
        assert_eq!(released, Some(Transition { from: 0, to: 1, cause: Cause::Override }));
    }

    #[test]
    fn shadow_counts_and_lets_through() {
        let mut ladder = ladder(Mode::Shadow);
        ladder.observe(at(0.0), 2.0);
        assert_eq!(ladder.admit(7), Ok(()));
        assert_eq!(ladder.counts().shadowed, 1);
    }

    #[test]
    fn fewer_levels_keep_the_severest() {
        let mut ladder = ladder(Mode::Enforce);
        for second in 0..4 {
            ladder.observe(at(f64::from(second)), 1.0);
        }
        let mut config = ladder.config.clone();
        config.levels.truncate(1);
        let changed = ladder.set_config(config).unwrap();
        assert_eq!(changed, Some(Transition { from: 3, to: 1, cause: Cause::Reconfigured }));
        assert!(ladder.observe(at(5.0), f64::NAN).is_none());
    }

    #[test]
    fn refuses_ladders_that_would_flap() {
        let with = |levels: &[(f64, f64)]| {
            let levels = levels.iter().map(|&(enter_at, leave_at)| Level { enter_at, leave_at, switches_off: vec![] });
            Degradation::new(Config { levels: levels.collect(), ..Config::default() }).map(|_| ()).unwrap_err().field
        };
        assert_eq!(with(&[(0.8, 0.8)]), "leave_at");
        assert_eq!(with(&[(0.8, 0.6), (0.8, 0.7)]), "enter_at");
        assert_eq!(with(&[(0.8, 0.6), (0.9, 0.5)]), "leave_at");
        assert_eq!(with(&[(f64::NAN, 0.6)]), "levels");
    }
}
