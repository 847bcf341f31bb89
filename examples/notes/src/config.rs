//! Arguments, and what `plimsoll run` says in the environment.

use std::net::IpAddr;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// The reference service: notes.
#[derive(Clone, Debug, Parser)]
#[command(name = "notes", version)]
pub struct Args {
    /// The port to listen on
    #[arg(long, default_value_t = 3000)]
    pub port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// What this instance is called in logs and metrics
    #[arg(long, default_value = "1")]
    pub instance: String,
    /// PostgreSQL's nodes, HOST:PORT,..., in any order [default: $PLIMSOLL_DB]
    #[arg(long, value_delimiter = ',', value_parser = address)]
    pub db: Vec<String>,
    /// Redis, HOST:PORT [default: $PLIMSOLL_SESSIONS]
    #[arg(long, value_parser = address)]
    pub sessions: Option<String>,
    /// Connections to each PostgreSQL node
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pool: u32,
    /// How long PostgreSQL is waited for, connections included, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub db_timeout_ms: u64,
    /// How long a request may take, in milliseconds
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout_ms: u64,
    /// Requests at work at once
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    pub workers: u32,
    /// Requests that wait for a place
    #[arg(long, default_value_t = 48)]
    pub queue: u32,
    /// Writes at work at once, of all workers
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    pub writes: u32,
    /// Requests a second
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    pub quota: u32,
    /// How far behind a replica may be that is read from, in milliseconds
    #[arg(long, default_value_t = 1000)]
    pub max_lag_ms: u64,
    /// How long balancers have to notice that this instance leaves, in milliseconds
    #[arg(long, default_value_t = 1000)]
    pub leave_ms: u64,
    /// How long requests at work have to end after that, in milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub drain_ms: u64,
    /// Notes to make if there are none, for load tests
    #[arg(long, default_value_t = 0)]
    pub seed_notes: u32,
    /// The least that is logged: error, warn, info or debug
    #[arg(long, default_value = "info")]
    pub log: tracing::Level,
    /// Control: no circuit breakers around the stores
    #[arg(long)]
    pub no_breaker: bool,
    /// Control: writes may take all workers
    #[arg(long)]
    pub no_bulkhead: bool,
    /// Take whatever comes
    #[arg(long)]
    pub no_quota: bool,
    /// Control: read from any replica, whatever it lacks
    #[arg(long)]
    pub any_replica: bool,
}

impl Args {
    /// From the command line and the environment; ends the process with exit code 2 where they are wrong.
    pub fn read() -> Args {
        let mut args = Args::parse();
        if args.db.is_empty() {
            args.db = from_environment("PLIMSOLL_DB", "--db");
        }
        if args.sessions.is_none() {
            args.sessions = from_environment("PLIMSOLL_SESSIONS", "--sessions").into_iter().next();
        }
        args
    }
}

fn from_environment(variable: &str, option: &str) -> Vec<String> {
    let refuse = |why: String| Args::command().error(ErrorKind::MissingRequiredArgument, why).exit();
    let Ok(value) = std::env::var(variable) else {
        refuse(format!("{option} is missing, and so is {variable}: expected HOST:PORT"))
    };
    value.split(',').map(|one| address(one).unwrap_or_else(|why| refuse(format!("{variable}: {why}")))).collect()
}

fn address(text: &str) -> Result<String, String> {
    let whole = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    whole.map(|_| text.to_owned()).ok_or_else(|| format!("`{text}` is no HOST:PORT"))
}
