//! Quotas in a Redis: its scripts decide what `plimsoll_policy::rate_limit` decides, request by request.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use plimsoll_gateway::redis::Script;
use plimsoll_policy::Time;
use plimsoll_policy::rate_limit::{Algorithm, Config, RateLimit};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::redis::Redis;

/// A quota's script on a clock of the test's: the time is an argument, and keys end by it.
const ON_A_CLOCK: &str = "\
local at = ARGV[3] * 1000000 + ARGV[4]
if at >= tonumber(redis.call('GET', KEYS[1] .. ':ends') or 0) then redis.call('DEL', KEYS[1]) end
local function set(key, value, _, ms)
  redis.call('SET', key, value)
  redis.call('SET', key .. ':ends', string.format('%.0f', at + ms * 1000))
end
";

struct Asking {
    script: Script,
    text: String,
    connection: BufReader<TcpStream>,
}

impl Asking {
    fn new(redis: &Redis, config: &Config) -> Asking {
        let script = Script::new("edge", config);
        let text = script.text.replace("redis.call('TIME')", "{ ARGV[3], ARGV[4] }");
        let text = text.replace("redis.call('SET', KEYS[1]", "set(KEYS[1]");
        assert!(!text.contains("'TIME'") && text.contains("set(KEYS[1]"), "{text}");
        let connection = BufReader::new(TcpStream::connect(redis.address).unwrap());
        Asking { script, text: format!("{ON_A_CLOCK}{text}"), connection }
    }

    /// -1, or how many microseconds to wait.
    fn ask(&mut self, key: &str, micros: u64) -> i64 {
        let (seconds, rest) = ((micros / 1_000_000).to_string(), (micros % 1_000_000).to_string());
        let [first, second] = &self.script.arguments[..] else { panic!("{:?}", self.script) };
        let words = ["EVAL", &self.text, "1", key, first, second, &seconds, &rest];
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.connection.get_mut().write_all(command.as_bytes()).unwrap();
        let mut line = String::new();
        self.connection.read_line(&mut line).unwrap();
        line.strip_prefix(':').and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }
}

/// Today, in seconds since 1970: doubles have less than a microsecond to spare there.
const TODAY: u64 = 1_790_000_000;

/// Lengths of windows in ms, with quotas that divide them into whole microseconds.
fn quotas() -> impl Strategy<Value = (u64, u32)> {
    prop_oneof![Just((1_000, 5)), Just((1_000, 40)), Just((60_000, 60)), Just((250, 1)), Just((10_000, 16))]
}

#[test]
fn scripts_decide_as_the_policy_does() {
    let redis = Redis::start();
    for algorithm in ["gcra", "sliding_window", "fixed_window"] {
        let (admitted, refused, number) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0u32));
        // Pauses are shares of what a unit of the quota takes, in percent: some long, to empty what was used.
        let pauses = prop::collection::vec(prop_oneof![28 => 0u64..80, 2 => 100u64..101, 1 => 0u64..1_500], 1..80);
        let cases = (quotas(), 1u32..12, prop_oneof![Just(0), Just(TODAY)], 0u64..1_000_000, pauses);
        let mut runner = TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() });
        let result = runner.run(&cases, |((per_ms, limit), burst, day, start, pauses)| {
            let mut config = Config::new(limit, Duration::from_millis(per_ms));
            config.algorithm = match algorithm {
                "gcra" => Algorithm::Gcra { burst: Some(burst) },
                "sliding_window" => Algorithm::SlidingWindow,
                _ => Algorithm::FixedWindow,
            };
            let mut asking = Asking::new(&redis, &config);
            let mut policy = RateLimit::new(config, Time::ZERO).unwrap();
            number.set(number.get() + 1);
            let key = format!("{algorithm} {}", number.get());
            let unit = per_ms * 1_000 / u64::from(limit);
            let mut micros = day * 1_000_000 + start;
            for pause in pauses {
                micros += unit * pause / 100;
                let now = Time::from_nanos(micros * 1_000);
                let wait = match policy.admit(now, 0, 1) {
                    Ok(()) => -1,
                    Err(rejected) => {
                        let at = rejected.retry_at.expect("a quota says when");
                        at.nanos_since(now).div_ceil(1_000) as i64
                    }
                };
                prop_assert_eq!(asking.ask(&key, micros), wait, "{:?} at {} us", config, micros);
                let counted = if wait < 0 { &admitted } else { &refused };
                counted.set(counted.get() + 1);
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        let (admitted, refused) = (admitted.get(), refused.get());
        assert!(admitted > 300 && refused > 300, "{algorithm}: {admitted} and {refused}");
    }
}
