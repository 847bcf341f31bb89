//! The only place that reads a clock.
//!
//! Policies count nanoseconds from the process's start. Reading takes some 25 ns, so a request reads it
//! when its head is whole, when its answer's head is, and at its end.

#![allow(clippy::disallowed_methods, reason = "this is where real time enters")]

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use plimsoll_policy::Time;

/// The process's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    /// Since 1970, at the epoch.
    wall: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { epoch: Instant::now(), wall }
    }

    /// The time since the start.
    #[inline]
    pub fn now(self) -> Time {
        Time::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When a timer is to fire.
    pub fn instant(self, time: Time) -> tokio::time::Instant {
        // Beyond a year nothing is ever waited for, and clocks cannot count for ever.
        let nanos = time.as_nanos().min(self.now().as_nanos().saturating_add(365 * 86_400 * 1_000_000_000));
        tokio::time::Instant::from_std(self.epoch + Duration::from_nanos(nanos))
    }

    /// A time as people write it: since 1970.
    pub fn wall(self, time: Time) -> Duration {
        self.wall + Duration::from_nanos(time.as_nanos())
    }
}

/// The value of a `Date` field: always of this length (RFC 9110, section 5.6.7).
pub type DateText = [u8; 29];

/// A core's `Date`, written anew once a second. It follows the system's clock, which may be set.
#[derive(Debug, Default)]
pub struct Date {
    text: Cell<DateText>,
    /// When the next second begins.
    until: Cell<Time>,
}

impl Date {
    /// The date at `now`.
    #[inline]
    pub fn at(&self, now: Time) -> DateText {
        if now >= self.until.get() {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.text.set(imf_fixdate(wall));
            self.until.set(now.plus_nanos(u64::from(1_000_000_000 - wall.subsec_nanos())));
        }
        self.text.get()
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(wall: Duration) -> DateText {
    // 1970 began on a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (year, month, day, hour, minute, second) = civil(wall);
    let weekday = DAYS[(wall.as_secs() / 86_400 % 7) as usize];
    let month = MONTHS[(month as usize + 11) % 12];
    let mut text = [b' '; 29];
    // All of it fits until the year 10000.
    let _ = write!(&mut text[..], "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    text
}

/// As dates of logs and fields have them.
pub const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Years, months, days, hours, minutes and seconds of a time since 1970, in UTC.
///
/// After Howard Hinnant's `civil_from_days`: eras of 400 years, which start in March.
pub fn civil(wall: Duration) -> (u64, u64, u64, u64, u64, u64) {
    let (days, second) = (wall.as_secs() / 86_400 + 719_468, wall.as_secs() % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (seconds, date) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_709_210_096, (2024, 2, 29, 12, 34, 56)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
        ] {
            assert_eq!(civil(Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn dates_are_those_of_the_standard() {
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_709_210_096, "Thu, 29 Feb 2024 12:34:56 GMT"),
        ] {
            assert_eq!(imf_fixdate(Duration::from_secs(seconds)), *text.as_bytes());
        }
        let date = Date::default();
        let first = date.at(Time::ZERO);
        assert!(first.ends_with(b" GMT"));
        assert_eq!(date.at(Time::ZERO), first);
    }
}
