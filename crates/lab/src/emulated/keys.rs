//! A store in memory that speaks as much of Redis' protocol (RESP2) as services and gateways ask, and takes the time
//! that the file says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_gateway::redis::Script;
use plimsoll_model::draw::{duration, scale};
use plimsoll_model::system::{Redis, StoreKind};
use plimsoll_policy::rate_limit::{Algorithm, Config as Quota, RateLimit, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CannotRun, Process};
use crate::clock::wall_ms;
use crate::control::{self, Controlled, Order, State};
use crate::layout::Place;
use crate::tally::{Of, Time};
use crate::wire::server::listen;

/// Looks a key up, and gives the right to fetch it to one caller at a time. Keys: the entry, its lock. Arguments: the
/// time in ms since 1970, how long the right is good, ms; 0 gives it to everyone. The entry is the time until which it
/// is fresh, a space, and how long its fetch took, us. Answers the entry, and whether the caller has the right, or how
/// many ms another has it.
pub const LOOKUP: &str = "\
local entry = redis.call('GET', KEYS[1])
local now = tonumber(ARGV[1])
local fresh = entry and tonumber(string.match(entry, '^%S+'))
if fresh and fresh > now then return {entry, 0} end
if ARGV[2] == '0' then return {entry or '', -1} end
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[2]) then return {entry or '', -1} end
return {entry or '', redis.call('PTTL', KEYS[2])}";

/// Redis compares so many keys for an eviction (`maxmemory-samples`).
const SAMPLES: u32 = 5;
/// Largest command.
const COMMAND_MAX: usize = 1 << 20;

struct Node {
    process: Process,
    store: u32,
    of: Of,
    redis: Redis,
    time: plimsoll_model::system::Dist,
    keys: Mutex<Keys>,
    slow: Mutex<(f64, u64)>,
    /// When its one thread is free, ns.
    free_at: Mutex<u64>,
    in_flight: AtomicU64,
    scripts: Mutex<BTreeMap<String, String>>,
    quotas: Mutex<Vec<(Quota, RateLimit)>>,
}

#[derive(Default)]
struct Keys {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// All keys in any order, for samples.
    order: Vec<Vec<u8>>,
    tick: u64,
}

struct Entry {
    value: Vec<u8>,
    /// ms since 1970; `u64::MAX`: never.
    until: u64,
    used: u64,
    at: usize,
}

impl Keys {
    fn get(&mut self, key: &[u8], now: u64) -> Option<&Entry> {
        if self.entries.get(key)?.until <= now {
            self.remove(key);
            return None;
        }
        self.tick += 1;
        let tick = self.tick;
        let entry = self.entries.get_mut(key)?;
        entry.used = tick;
        Some(entry)
    }

    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, until: u64, capacity: u32, mut random: impl FnMut() -> u64) {
        self.tick += 1;
        let used = self.tick;
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.value, entry.until, entry.used) = (value, until, used);
            return;
        }
        while self.entries.len() >= capacity as usize {
            let oldest = (0..SAMPLES)
                .map(|_| &self.order[scale(random(), self.order.len() as u32) as usize])
                .min_by_key(|key| self.entries[*key].used)
                .cloned();
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        let at = self.order.len();
        self.order.push(key.clone());
        self.entries.insert(key, Entry { value, until, used, at });
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.order.swap_remove(entry.at);
        if let Some(moved) = self.order.get(entry.at) {
            let moved = moved.clone();
            if let Some(other) = self.entries.get_mut(&moved) {
                other.at = entry.at;
            }
        }
        true
    }
}

pub(super) async fn run(process: Process, place: Place, store: u32) -> Result<(), CannotRun> {
    let spec = &process.system.stores[store as usize];
    let StoreKind::Redis(redis) = &spec.kind else {
        return Err(CannotRun::Io(std::io::Error::other("it is no Redis")));
    };
    let node = Arc::new(Node {
        store,
        of: Of::Node(store, 0),
        redis: redis.clone(),
        time: redis.time.clone(),
        keys: Mutex::default(),
        slow: Mutex::new((1.0, 0)),
        free_at: Mutex::new(0),
        in_flight: AtomicU64::new(0),
        scripts: Mutex::default(),
        quotas: Mutex::default(),
        process,
    });
    let listener = listen(place.main)?;
    let tally = node.process.tools.tally.clone();
    tokio::spawn(control::answer(place.control, tally, node.clone()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(node.clone(), stream));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn connection(node: Arc<Node>, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut out = Vec::new();
    loop {
        let taken = match command(&bytes) {
            Ok(Some((parts, taken))) => {
                node.answer(&parts, &mut out).await;
                taken
            }
            Ok(None) => {
                if !out.is_empty() {
                    if stream.write_all(&out).await.is_err() {
                        return;
                    }
                    out.clear();
                }
                match stream.read_buf(&mut bytes).await {
                    Ok(1..) if bytes.len() <= COMMAND_MAX => continue,
                    _ => return,
                }
            }
            Err(()) => return,
        };
        bytes.drain(..taken);
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

/// A command and its arguments.
type Parts = Vec<Vec<u8>>;

/// The first whole command and its length.
fn command(bytes: &[u8]) -> Result<Option<(Parts, usize)>, ()> {
    let line = |from: usize| {
        let rest = bytes.get(from..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&rest[..end], from + end + 2))
    };
    let number = |line: &[u8], kind: u8| -> Result<usize, ()> {
        let (first, digits) = line.split_first().ok_or(())?;
        if *first != kind {
            return Err(());
        }
        std::str::from_utf8(digits).map_err(drop)?.parse().map_err(drop)
    };
    let Some((head, mut at)) = line(0) else { return Ok(None) };
    let count = number(head, b'*')?;
    let mut parts = Vec::new();
    for _ in 0..count.min(64) {
        let Some((head, start)) = line(at) else { return Ok(None) };
        let length = number(head, b'$')?;
        if length > COMMAND_MAX {
            return Err(());
        }
        let Some(part) = bytes.get(start..start + length) else { return Ok(None) };
        if bytes.len() < start + length + 2 {
            return Ok(None);
        }
        parts.push(part.to_vec());
        at = start + length + 2;
    }
    Ok(Some((parts, at)))
}

impl Node {
    async fn answer(&self, parts: &[Vec<u8>], out: &mut Vec<u8>) {
        let tools = &self.process.tools;
        let started = tools.clock.now().as_nanos();
        tools.tally.count(self.of, |totals| totals.offered += 1);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.take_time(started).await;
        self.execute(parts, out);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let took = tools.clock.now().as_nanos() - started;
        tools.tally.took(Time::Stay(self.store), took);
        let failed = out.starts_with(b"-");
        tools.tally.ended(self.of, took, |totals| *(if failed { &mut totals.failed } else { &mut totals.ok }) += 1);
    }

    /// One thread does the commands, one after another; the rest of a command's time is not its.
    async fn take_time(&self, now: u64) {
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let slowed = |nanos: u64| (nanos as f64 * slow.0) as u64 + slow.1;
        let busy = slowed((1e9 / self.redis.max_rate) as u64);
        let drawn = duration(&self.time, self.process.bits());
        let takes = slowed(drawn).max(busy);
        let (at, free) = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let free = (*free_at).max(now);
            *free_at = free + busy;
            (free + takes, free)
        };
        self.process.tools.tally.extra(self.of, "busy_ns", busy as f64);
        self.process.tools.timer.until(at).await;
        let took = self.process.tools.clock.now().as_nanos().saturating_sub(free);
        self.process.tools.tally.took(Time::Command(self.store), took);
    }

    fn execute(&self, parts: &[Vec<u8>], out: &mut Vec<u8>) {
        let now = wall_ms(self.process.tools.clock);
        let name = parts.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match (name.as_slice(), &parts[1..]) {
            (b"PING", []) => out.extend_from_slice(b"+PONG\r\n"),
            (b"GET", [key]) => match keys.get(key, now) {
                Some(entry) => bulk(out, &entry.value),
                None => out.extend_from_slice(b"$-1\r\n"),
            },
            (b"SET", [key, value, px, ms]) if px.eq_ignore_ascii_case(b"PX") => {
                let Some(ms) = text::<u64>(ms) else { return error(out, "value is not an integer or out of range") };
                let (capacity, until) = (self.redis.capacity, now.saturating_add(ms));
                keys.set(key.clone(), value.clone(), until, capacity, || self.process.bits());
                // Whoever waits for the fetch looks again.
                keys.remove(&lock_of(key));
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"DEL", [key]) => {
                keys.remove(&lock_of(key));
                let count = usize::from(keys.remove(key));
                out.extend_from_slice(format!(":{count}\r\n").as_bytes());
            }
            (b"FLUSHALL", []) => {
                *keys = Keys::default();
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"SCRIPT", [load, script]) if load.eq_ignore_ascii_case(b"LOAD") => {
                let script = String::from_utf8_lossy(script).into_owned();
                let known = script == LOOKUP || algorithm(&script).is_some();
                if !known {
                    return error(out, "the emulated store runs no scripts but Plimsoll's own");
                }
                let name = format!("{:040x}", plimsoll_gateway::random::agreed_hash(script.as_bytes()));
                bulk(out, name.as_bytes());
                self.scripts.lock().unwrap_or_else(PoisonError::into_inner).insert(name, script);
            }
            (b"EVALSHA", [name, _, rest @ ..]) => {
                let name = String::from_utf8_lossy(name).into_owned();
                let script = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
                match (script.as_deref(), rest) {
                    (Some(LOOKUP), [key, lock, time, right]) => {
                        let (Some(time), Some(right)) = (text::<u64>(time), text::<u64>(right)) else {
                            return error(out, "value is not an integer or out of range");
                        };
                        self.look_up(&mut keys, key, lock, time, right, out);
                    }
                    (Some(script), [key, time, units]) => self.quota(script, key, time, units, out),
                    (Some(_), _) => error(out, "wrong number of arguments"),
                    (None, _) => out.extend_from_slice(b"-NOSCRIPT No matching script. Please use EVAL.\r\n"),
                }
            }
            _ => error(out, "unknown command or wrong number of arguments"),
        }
    }

    /// What [`LOOKUP`] says.
    fn look_up(&self, keys: &mut Keys, key: &[u8], lock: &[u8], now: u64, right: u64, out: &mut Vec<u8>) {
        let entry = keys.get(key, now).map(|entry| entry.value.clone());
        let fresh = entry.as_deref().and_then(|entry| text::<f64>(entry.split(|byte| *byte == b' ').next()?));
        let tally = &self.process.tools.tally;
        tally.extra(self.of, "lookups", 1.0);
        if entry.is_some() {
            tally.extra(self.of, "hits", 1.0);
        }
        let may = if fresh.is_some_and(|fresh| fresh > now as f64) {
            0
        } else if right == 0 {
            -1
        } else {
            match keys.get(lock, now).map(|lock| lock.until - now) {
                Some(left) => left as i64,
                None => {
                    let capacity = self.redis.capacity;
                    keys.set(lock.to_vec(), b"1".to_vec(), now.saturating_add(right), capacity, || self.process.bits());
                    -1
                }
            }
        };
        out.extend_from_slice(b"*2\r\n");
        bulk(out, entry.as_deref().unwrap_or_default());
        out.extend_from_slice(format!(":{may}\r\n").as_bytes());
    }

    /// What one of the gateway's scripts says: the same policy, on this process's clock. Each is given a time in us and
    /// a number of units.
    fn quota(&self, script: &str, key: &[u8], time: &[u8], units: &[u8], out: &mut Vec<u8>) {
        let (Some(algorithm), Some(time_us), Some(units)) = (algorithm(script), text::<f64>(time), text::<u32>(units))
        else {
            return error(out, "value is not a number");
        };
        let time = (time_us * 1000.0) as u64;
        let per = |nanos: u64| std::time::Duration::from_nanos(nanos.max(1));
        let quota = match algorithm {
            Algorithm::Gcra { .. } => {
                Quota { algorithm: Algorithm::Gcra { burst: Some(units) }, ..Quota::new(1, per(time)) }
            }
            Algorithm::FixedWindow => Quota { algorithm, ..Quota::new(units, per(time)) },
            // It is given a tenth of the window.
            Algorithm::SlidingWindow => Quota { algorithm, ..Quota::new(units, per(time * 10)) },
        };
        let config = Quota { scope: Scope::PerKey { max_keys: 1 << 20 }, ..quota };
        let now = self.process.tools.clock.now();
        let hash = plimsoll_gateway::random::agreed_hash(key);
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let at = quotas.iter().position(|(known, _)| *known == config);
        let limit = match at {
            Some(at) => &mut quotas[at].1,
            None => match RateLimit::new(config, now) {
                Ok(limit) => {
                    quotas.push((config, limit));
                    let last = quotas.len() - 1;
                    &mut quotas[last].1
                }
                Err(why) => return error(out, &why.to_string()),
            },
        };
        let wait = match limit.admit(now, hash, 1) {
            Ok(()) => -1,
            Err(rejected) => rejected.retry_at.map_or(1, |at| (at.nanos_since(now) / 1000) as i64),
        };
        out.extend_from_slice(format!(":{wait}\r\n").as_bytes());
    }
}

/// Which algorithm one of the gateway's scripts is.
fn algorithm(script: &str) -> Option<Algorithm> {
    let all = [Algorithm::Gcra { burst: None }, Algorithm::FixedWindow, Algorithm::SlidingWindow];
    all.into_iter().find(|algorithm| {
        let config = Quota { algorithm: *algorithm, ..Quota::new(1, std::time::Duration::from_secs(1)) };
        Script::new("", &config).text == script
    })
}

/// The key of the right to fetch another.
pub fn lock_of(key: &[u8]) -> Vec<u8> {
    [b"lock:", key].concat()
}

fn text<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn error(out: &mut Vec<u8>, why: &str) {
    out.extend_from_slice(format!("-ERR {why}\r\n").as_bytes());
}

impl Controlled for Node {
    fn state(&self) -> State {
        State {
            ready: true,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            slow: *self.slow.lock().unwrap_or_else(PoisonError::into_inner),
            primary: true,
            ..State::default()
        }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Slow(factor, added) => *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = (factor, added),
            Order::Flush => {
                let lost = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
                let lost = lost.entries.keys().filter(|key| !key.starts_with(b"lock:")).count();
                self.process.tools.tally.count(self.of, |totals| totals.lost += lost as u64);
            }
            other => return Err(format!("a store in memory does not know {other:?}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_whole() {
        assert_eq!(command(b"*1\r\n$4\r\nPING\r\n*1"), Ok(Some((vec![b"PING".to_vec()], 14))));
        assert_eq!(command(b"*2\r\n$3\r\nGET\r\n$1\r\na"), Ok(None));
        assert_eq!(command(b"PING\r\n"), Err(()));
    }

    #[test]
    fn the_least_recently_used_of_a_sample_goes() {
        let mut keys = Keys::default();
        let mut bits = 0u64;
        let mut random = || {
            bits = plimsoll_model::draw::mix(bits);
            bits
        };
        for i in 0..1000u32 {
            keys.set(i.to_le_bytes().to_vec(), Vec::new(), u64::MAX, 100, &mut random);
        }
        assert_eq!((keys.entries.len(), keys.order.len()), (100, 100));
        assert!(keys.get(&999u32.to_le_bytes(), 0).is_some());
        let recent = (800..1000u32).filter(|i| keys.entries.contains_key(&i.to_le_bytes()[..])).count();
        assert!(recent > 70, "{recent} of the last 200 are there");
        keys.set(b"a".to_vec(), Vec::new(), 5, 100, &mut random);
        assert!(keys.get(b"a", 4).is_some() && keys.get(b"a", 5).is_none());
    }
}
