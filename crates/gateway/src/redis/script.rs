//! The quota's arithmetic as scripts, one for each algorithm of `plimsoll_policy::rate_limit`.
//!
//! Times are microseconds of the server's clock. A script takes one unit of one key's quota, and answers -1, or
//! how many microseconds to wait. Keys expire once they say nothing any more.

use plimsoll_policy::rate_limit::gcra::Gcra;
use plimsoll_policy::rate_limit::{Algorithm, Config};

/// A quota as a script counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The script.
    pub text: &'static str,
    /// What it is given beside the key.
    pub arguments: Vec<String>,
    /// What keys start with. It tells those apart that another script, or the same in windows of another length,
    /// would read differently.
    pub prefix: String,
}

/// As `rate_limit::gcra`. A key holds when a quota is full again.
const GCRA: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local tolerance = interval * tonumber(ARGV[2])
local latest = now + tolerance
local full = tonumber(redis.call('GET', KEYS[1]) or 0)
if full > latest then full = latest end
if full < now then full = now end
local new = full + interval
if new > latest then return math.ceil(new - latest) end
redis.call('SET', KEYS[1], string.format('%.3f', new), 'PX', math.ceil((new - now) / 1000) + 1)
return -1";

/// As `rate_limit::fixed_window`, in windows that begin at multiples of their length since 1970. A key holds the
/// window's number and what of it is used.
const FIXED_WINDOW: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local per, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local index = math.floor(now / per)
local ends = math.ceil((index + 1) * per - now)
local newest, used = string.match(redis.call('GET', KEYS[1]) or '0 0', '^(%d+) (%d+)$')
if index > tonumber(newest) then used = 0 end
used = tonumber(used) + 1
if used > limit then return ends end
redis.call('SET', KEYS[1], string.format('%.0f %d', index, used), 'PX', math.ceil(ends / 1000) + 1)
return -1";

/// As `rate_limit::sliding_window`: the current tenth and the ten before it. A key holds the number of the newest
/// tenth and the counts, the newest first.
const SLIDING_WINDOW: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local tenth, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local index = math.floor(now / tenth)
local before = {}
for number in string.gmatch(redis.call('GET', KEYS[1]) or '', '%d+') do before[#before + 1] = tonumber(number) end
local steps = math.max(index - (before[1] or 0), 0)
local used, sum = {}, 0
for age = 0, 10 do
  used[age] = age >= steps and before[2 + age - steps] or 0
  sum = sum + used[age]
end
if sum + 1 > limit then
  local excess, age = sum + 1 - limit, 11
  while excess > 0 and age > 0 do
    age = age - 1
    excess = excess - used[age]
  end
  return math.ceil((index + 11 - age) * tenth - now)
end
used[0] = used[0] + 1
local counts = { string.format('%.0f', index) }
for age = 0, 10 do counts[2 + age] = string.format('%d', used[age]) end
redis.call('SET', KEYS[1], table.concat(counts, ' '), 'PX', math.ceil(tenth * 11 / 1000) + 1)
return -1";

impl Script {
    /// The script for a gateway's quota.
    pub fn new(gateway: &str, config: &Config) -> Script {
        let per = u64::try_from(config.per.as_nanos()).unwrap_or(u64::MAX);
        let limit = config.limit.to_string();
        match config.algorithm {
            Algorithm::Gcra { burst } => {
                let burst = burst.unwrap_or((config.limit / 10).max(1));
                let gcra = Gcra::new(config.limit, config.per, burst);
                let arguments = vec![micros(gcra.interval_ns()), gcra.burst().to_string()];
                Script { text: GCRA, arguments, prefix: format!("plimsoll:{gateway}:") }
            }
            Algorithm::FixedWindow => {
                let prefix = format!("plimsoll-fixed-{per}:{gateway}:");
                Script { text: FIXED_WINDOW, arguments: vec![micros(per), limit], prefix }
            }
            Algorithm::SlidingWindow => {
                let prefix = format!("plimsoll-sliding-{per}:{gateway}:");
                Script { text: SLIDING_WINDOW, arguments: vec![micros(per.div_ceil(10).max(1)), limit], prefix }
            }
        }
    }
}

/// Microseconds, to the nanosecond.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_algorithm_has_its_script_and_its_keys() {
        let mut config = Config::new(60, Duration::from_secs(60));
        let gcra = Script::new("edge", &config);
        assert_eq!((&gcra.arguments[..], &*gcra.prefix), (&["1000000.000".into(), "6".into()][..], "plimsoll:edge:"));
        config.algorithm = Algorithm::SlidingWindow;
        let sliding = Script::new("edge", &config);
        assert_eq!(sliding.arguments, ["6000000.000", "60"]);
        config.algorithm = Algorithm::FixedWindow;
        let fixed = Script::new("edge", &config);
        assert_eq!(fixed.arguments, ["60000000.000", "60"]);
        config.per = Duration::from_secs(1);
        assert_ne!(Script::new("edge", &config).prefix, fixed.prefix, "windows of another length");
        assert!(fixed.prefix != sliding.prefix && fixed.prefix != gcra.prefix);
        assert_eq!(micros(1_500), "1.500");
    }
}
