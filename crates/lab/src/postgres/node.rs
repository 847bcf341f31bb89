//! One server: its files, its process, how it is started and ended.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Binaries, Options, PATIENCE, PostgresError, SUPERUSER, Sql, template};
use crate::clock::{self, Clock};
use crate::process::{Exit, Port, Process, Signal, Spec, Supervisor};

/// How often it is looked whether something has come about.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// The first version that looks for a client's end while a statement runs.
const CLIENTS_ARE_SEEN_TO_GO: u32 = 14;

/// What files' errors are told with.
pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> PostgresError + '_ {
    move |why| PostgresError::File { path: path.to_owned(), why }
}

/// What all servers of a cluster are made with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) binaries: Binaries,
    /// Whom servers run as, where that is not this process's user.
    pub(super) user: Option<(u32, u32)>,
    pub(super) name: String,
    runs: AtomicU32,
}

impl Tools {
    pub(super) fn new(supervisor: &Arc<Supervisor>, binaries: Binaries, user: Option<(u32, u32)>, name: &str) -> Tools {
        Tools { supervisor: supervisor.clone(), binaries, user, name: name.to_owned(), runs: AtomicU32::new(0) }
    }

    /// A folder for servers' files alone.
    pub(super) fn own_folder(&self, path: &Path) -> Result<(), PostgresError> {
        std::fs::create_dir(path).map_err(file(path))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(file(path))?;
        template::own(path, self.user).map_err(file(path))
    }

    /// Runs one of PostgreSQL's programs to its end.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<(), PostgresError> {
        self.run_program(program, &self.binaries.program(program), arguments)
    }

    pub(super) fn run_program(&self, name: &str, program: &str, arguments: &[&str]) -> Result<(), PostgresError> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let process = self.supervisor.spawn(Spec {
            name: format!("{}-{name}-{number}", self.name),
            program: program.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: environment(),
            folder: Some("/".to_owned()),
            user: self.user,
            ..Spec::default()
        })?;
        let how = match process.wait(PATIENCE) {
            Some(Exit::Code(0)) => return Ok(()),
            Some(exit) => exit.to_string(),
            None => format!("still at work after {} s", PATIENCE.as_secs()),
        };
        let _ = process.kill();
        Err(PostgresError::Failed { program: name.to_owned(), how, words: process.last_words(9) })
    }
}

/// Variables that would change what servers and programs do.
fn environment() -> BTreeMap<String, Option<String>> {
    let unset = [
        "PGDATA",
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGOPTIONS",
        "PGAPPNAME",
        "PGSSLMODE",
        "PGTARGETSESSIONATTRS",
        "PGTZ",
        "PGDATESTYLE",
        "PGCLIENTENCODING",
    ];
    let mut environment: BTreeMap<String, Option<String>> = unset.map(|name| (name.to_owned(), None)).into();
    environment.insert("LC_ALL".to_owned(), Some("C".to_owned()));
    environment
}

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) port: Port,
    pub(super) data: PathBuf,
    pub(super) process: Option<Process>,
    /// How often it was started: each time has a log of its own.
    starts: u32,
    /// Whether it was primary when it ended without a shutdown, and may have what others do not.
    pub(super) diverged: bool,
}

impl Node {
    pub(super) fn new(tools: &Tools, number: usize, port: Port) -> Node {
        let name = format!("{}-{number}", tools.name);
        let data = tools.supervisor.directory().join(&name);
        Node { name, port, data, process: None, starts: 0, diverged: false }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// Whether its process is there, be it stopped.
    pub(super) fn lives(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.exit().is_none())
    }

    /// Makes it a replica of the server at this address, or the primary: when it is started.
    pub(super) fn follow(&self, tools: &Tools, primary: Option<SocketAddr>) -> Result<(), PostgresError> {
        let signal = self.data.join("standby.signal");
        let settings = self.data.join("postgresql.auto.conf");
        let text = match primary {
            Some(primary) => {
                std::fs::write(&signal, "").map_err(file(&signal))?;
                template::own(&signal, tools.user).map_err(file(&signal))?;
                format!("primary_conninfo = '{}'\n", connection(primary, &self.name))
            }
            None => {
                match std::fs::remove_file(&signal) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(&signal)(error)),
                    _ => {}
                }
                String::new()
            }
        };
        std::fs::write(&settings, text).map_err(file(&settings))?;
        template::own(&settings, tools.user).map_err(file(&settings))
    }

    /// Starts it. It may not take connections yet.
    pub(super) fn start(&mut self, tools: &Tools, options: &Options) -> Result<(), PostgresError> {
        let mut settings: Vec<(String, String)> = [
            ("port", self.port.number().to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", String::new()),
            ("cluster_name", self.name.clone()),
            ("max_connections", options.max_connections.to_string()),
            ("shared_buffers", "32MB".to_owned()),
            // Files within the data directory: of a killed server nothing is left elsewhere.
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            // What pg_rewind needs, and enough to rewind and to catch up with.
            ("wal_log_hints", "on".to_owned()),
            ("wal_keep_size", "512MB".to_owned()),
            ("max_wal_senders", "16".to_owned()),
            ("hot_standby", "on".to_owned()),
            // A delayed replica would cancel statements that are in the way of what it replays; here it waits for them.
            ("max_standby_streaming_delay", "-1".to_owned()),
            // Five seconds would be most of a failover.
            ("wal_retrieve_retry_interval", "100ms".to_owned()),
            ("wal_receiver_status_interval", "1s".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_line_prefix", "%m [%p] ".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if tools.binaries.version >= CLIENTS_ARE_SEEN_TO_GO {
            // What a statement holds is free when its caller has given up and closed the connection.
            settings.push(("client_connection_check_interval".to_owned(), "100ms".to_owned()));
        }
        settings.extend(options.settings.iter().cloned());
        let mut arguments = vec!["-D".to_owned(), self.data.display().to_string()];
        arguments.extend(settings.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]));
        self.starts += 1;
        let name = if self.starts == 1 { self.name.clone() } else { format!("{}.{}", self.name, self.starts) };
        self.process = Some(tools.supervisor.spawn(Spec {
            name,
            program: tools.binaries.program("postgres"),
            arguments,
            environment: environment(),
            folder: Some("/".to_owned()),
            user: tools.user,
            // At once, without a checkpoint, and with what it holds of the system's memory given back: when a
            // run ends its data is of no use any more.
            stop: Signal::Quit,
            ..Spec::default()
        })?);
        Ok(())
    }

    /// Waits for a condition. Its process' end is the end of waiting.
    pub(super) fn until(
        &self,
        what: &str,
        mut holds: impl FnMut() -> Result<bool, PostgresError>,
    ) -> Result<(), PostgresError> {
        let clock = Clock::start();
        loop {
            if holds()? {
                return Ok(());
            }
            let words = || self.process.as_ref().map(|process| process.last_words(9)).unwrap_or_default();
            match self.process.as_ref().map(Process::exit) {
                Some(None) if clock.now().as_nanos() < PATIENCE.as_nanos() as u64 => clock::block(LOOK),
                Some(None) => {
                    return Err(PostgresError::Late { node: self.name.clone(), what: what.to_owned(), words: words() });
                }
                Some(Some(exit)) => {
                    let how = exit.to_string();
                    return Err(PostgresError::Failed { program: self.name.clone(), how, words: words() });
                }
                None => return Err(PostgresError::Refused(format!("{} was not started", self.name))),
            }
        }
    }

    /// Waits until it takes connections.
    pub(super) fn ready(&self, sql: &Sql) -> Result<(), PostgresError> {
        self.until("takes no connections", || {
            let session = sql.connect(self.address(), SUPERUSER, "postgres", PATIENCE);
            Ok(session.and_then(|session| session.run("SELECT 1", PATIENCE)).is_ok())
        })
    }

    /// Ends it in order: replicas that can be reached get all that it has.
    pub(super) fn shut_down(&mut self) -> Result<(), PostgresError> {
        if let Some(process) = &self.process
            && process.exit().is_none()
        {
            process.resume()?;
            process.signal(Signal::Interrupt)?;
            process.wait(PATIENCE);
            process.kill()?;
        }
        self.free_memory();
        Ok(())
    }

    /// Kills it as its machine's end would.
    pub(super) fn kill(&mut self) -> Result<(), PostgresError> {
        if let Some(process) = &self.process {
            process.kill()?;
        }
        self.free_memory();
        Ok(())
    }

    /// A killed server leaves a segment of System V memory, some fifty bytes, for the next start in its directory
    /// to find; there may be none. `postmaster.pid` has its number in the seventh line.
    fn free_memory(&self) {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let number = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(number) = number.filter(|number| number.bytes().all(|digit| digit.is_ascii_digit())) {
            let _ = std::process::Command::new("ipcrm").args(["-m", number]).output();
        }
    }
}

/// How a replica connects to its primary.
pub(super) fn connection(primary: SocketAddr, name: &str) -> String {
    let (host, port) = (primary.ip(), primary.port());
    format!(
        "host={host} port={port} user={SUPERUSER} dbname=postgres application_name={name} sslmode=disable gssencmode=disable"
    )
}
