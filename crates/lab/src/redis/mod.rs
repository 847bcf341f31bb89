//! A real Redis: the system's own server, started for one run. It keeps nothing on disk: killed, it comes back empty.

mod link;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Clock};
use crate::process::{Port, Process, ProcessError, Spec, Supervisor};

/// Where distributions put it. Valkey is Redis under a free licence, and speaks the same.
const PLACES: [&str; 8] = [
    "/usr/bin/redis-server",
    "/usr/local/bin/redis-server",
    "/usr/sbin/redis-server",
    "/opt/homebrew/bin/redis-server",
    "/usr/bin/valkey-server",
    "/usr/local/bin/valkey-server",
    "/usr/sbin/valkey-server",
    "/opt/homebrew/bin/valkey-server",
];
/// As long as it may take for what is usually done in some milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why something with Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It is not on this machine.
    #[error(
        "no Redis on this machine: install the package `redis-server` (on Debian and Ubuntu: apt-get install \
         redis-server), or run with --emulate-stores; looked for {0}"
    )]
    Missing(String),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It does not start.
    #[error("{name} takes no connections: {how}\n{words}")]
    Start {
        /// What it is called.
        name: String,
        /// What it does instead.
        how: String,
        /// The end of its log.
        words: String,
    },
    /// It does not answer.
    #[error("{name}: {why}")]
    Silent {
        /// What it is called.
        name: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// It answers with an error.
    #[error("{name}: {why}")]
    Refused {
        /// What it is called.
        name: String,
        /// What it says.
        why: String,
    },
}

/// What a server is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What it is called.
    pub name: String,
    /// Its port; a free one where there is none.
    pub port: Option<u16>,
    /// Other settings, by name without dashes: `("maxmemory", "64mb")`.
    pub settings: Vec<(String, String)>,
}

/// A server.
#[derive(Debug)]
pub struct Redis {
    supervisor: Arc<Supervisor>,
    options: Options,
    program: String,
    port: Port,
    process: Process,
    starts: u32,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub fn start(supervisor: &Arc<Supervisor>, options: Options) -> Result<Redis, RedisError> {
        Redis::start_from(&PLACES, supervisor, options)
    }

    /// The same, with the first of these programs that is there.
    pub fn start_from(places: &[&str], supervisor: &Arc<Supervisor>, options: Options) -> Result<Redis, RedisError> {
        let program = places.iter().find(|place| Path::new(place).is_file());
        let program = program.ok_or_else(|| RedisError::Missing(places.join(", ")))?.to_string();
        let port = match options.port {
            Some(number) => Port::hold(number)?,
            None => Port::free()?,
        };
        let process = spawn(supervisor, &options, &program, &port, 1)?;
        let redis = Redis { supervisor: supervisor.clone(), options, program, port, process, starts: 1 };
        redis.ready()?;
        Ok(redis)
    }

    fn ready(&self) -> Result<(), RedisError> {
        let clock = Clock::start();
        loop {
            if link::ask(self.address(), &["PING"], PATIENCE).is_ok_and(|answer| answer == Ok("PONG".to_owned())) {
                return Ok(());
            }
            let late = clock.now().as_nanos() > PATIENCE.as_nanos() as u64;
            let how = match self.process.exit() {
                Some(exit) => format!("it ended with {exit}"),
                None if late => format!("no answer in {} s", PATIENCE.as_secs()),
                None => {
                    clock::block(Duration::from_millis(5));
                    continue;
                }
            };
            let words = self.process.last_words(9);
            return Err(RedisError::Start { name: self.options.name.clone(), how, words });
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// Whether its process is there; it may be stopped.
    pub fn lives(&self) -> bool {
        self.process.exit().is_none()
    }

    /// The answer to a command, if it comes in time: text, a number, or nothing, as text.
    pub fn ask(&self, command: &[&str], patience: Duration) -> Result<String, RedisError> {
        let name = || self.options.name.clone();
        let answer = link::ask(self.address(), command, patience);
        answer
            .map_err(|why| RedisError::Silent { name: name(), why })?
            .map_err(|why| RedisError::Refused { name: name(), why })
    }

    /// Empties it: every key is gone when this returns.
    pub fn flush(&self) -> Result<(), RedisError> {
        self.ask(&["FLUSHALL", "SYNC"], PATIENCE).map(drop)
    }

    /// Kills it. Clients are refused until it is started again.
    pub fn kill(&self) -> Result<(), RedisError> {
        Ok(self.process.kill().map(drop)?)
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) -> Result<(), RedisError> {
        self.process.kill()?;
        self.starts += 1;
        self.process = spawn(&self.supervisor, &self.options, &self.program, &self.port, self.starts)?;
        self.ready()
    }

    /// Freezes it: clients can connect, and hear nothing.
    pub fn freeze(&self) -> Result<u32, RedisError> {
        Ok(self.process.pause()?)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<u32, RedisError> {
        Ok(self.process.resume()?)
    }
}

/// The processor time that the server at an address has had, s; none if it does not say in time.
pub(crate) fn processor_seconds(at: SocketAddr, patience: Duration) -> Option<f64> {
    let info = link::ask(at, &["INFO", "cpu"], patience).ok()?.ok()?;
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    Some(of("used_cpu_user:")? + of("used_cpu_sys:")?)
}

fn spawn(
    supervisor: &Supervisor,
    options: &Options,
    program: &str,
    port: &Port,
    start: u32,
) -> Result<Process, RedisError> {
    let mut arguments: Vec<String> = ["--bind", "127.0.0.1", "--port"].map(str::to_owned).into();
    arguments.push(port.number().to_string());
    // No snapshots and no log: what a run's cache holds is of no use to anybody after it.
    arguments.extend(["--save", "", "--appendonly", "no", "--daemonize", "no"].map(str::to_owned));
    for (name, value) in &options.settings {
        arguments.extend([format!("--{name}"), value.clone()]);
    }
    // Each start has a log of its own.
    let name = if start == 1 { options.name.clone() } else { format!("{}.{start}", options.name) };
    Ok(supervisor.spawn(Spec { name, program: program.to_owned(), arguments, ..Spec::default() })?)
}
