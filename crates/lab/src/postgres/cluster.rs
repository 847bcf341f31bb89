//! A primary and its replicas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::node::{Node, Tools, connection, file};
use super::{Binaries, DATABASE, PATIENCE, PostgresError, SUPERUSER, Session, Sql, template};
use crate::process::{Exit, Port, Supervisor, user};

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it is called; its servers are `NAME-0`, the first primary, `NAME-1` ...
    pub name: String,
    /// Replicas beside the primary. Default: 0.
    pub replicas: usize,
    /// PostgreSQL's own setting. Default: 100.
    pub max_connections: u32,
    /// Replicas that a commit waits for; 0 is asynchronous replication. Default: 0.
    pub synchronous: usize,
    /// Other settings of every server.
    pub settings: Vec<(String, String)>,
    /// Where a replica finds a primary, by (replica, primary), in the place of the primary's own address: a proxy
    /// on that edge.
    pub routes: BTreeMap<(usize, usize), SocketAddr>,
    /// The ports of servers; free ones where there are fewer.
    pub ports: Vec<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "postgres".to_owned(),
            replicas: 0,
            max_connections: 100,
            synchronous: 0,
            settings: Vec::new(),
            routes: BTreeMap::new(),
            ports: Vec::new(),
        }
    }
}

/// A primary and its replicas, by number.
#[derive(Debug)]
pub struct Cluster {
    pub(super) tools: Tools,
    pub(super) options: Options,
    pub(super) sql: Arc<Sql>,
    pub(super) nodes: Vec<Node>,
    pub(super) primary: usize,
    /// The primary's address, for those who look at another time.
    pub(super) whereabouts: Arc<Mutex<SocketAddr>>,
    sessions: Mutex<BTreeMap<usize, Session>>,
}

impl Cluster {
    /// Starts all servers, and waits until replicas stream. The ports have to be free.
    pub fn start(supervisor: &Arc<Supervisor>, mut options: Options) -> Result<Cluster, PostgresError> {
        let binaries = Binaries::find()?;
        let user = if user::is_root() { Some(servers_user()?) } else { None };
        let tools = Tools::new(supervisor, binaries, user, &options.name);
        let template = template::find(&tools)?;
        let mut nodes = Vec::new();
        for number in 0..=options.replicas {
            let port = match options.ports.get(number) {
                Some(port) => Port::hold(*port)?,
                None => Port::free()?,
            };
            let node = Node::new(&tools, number, port);
            template::copy(&template, &node.data, user)?;
            nodes.push(node);
        }
        if options.synchronous > 0 {
            let names = nodes.iter().map(|node| format!("\"{}\"", node.name)).collect::<Vec<_>>().join(", ");
            let synchronous = options.synchronous.min(options.replicas);
            options.settings.push(("synchronous_standby_names".to_owned(), format!("ANY {synchronous} ({names})")));
        }
        let sql = Arc::new(Sql::start().map_err(file(supervisor.directory()))?);
        let whereabouts = Arc::new(Mutex::new(nodes[0].address()));
        let sessions = Mutex::default();
        let mut cluster = Cluster { tools, options, sql, nodes, primary: 0, whereabouts, sessions };
        for number in 0..cluster.nodes.len() {
            let primary = (number > 0).then(|| cluster.route(number, 0));
            let Cluster { tools, options, nodes, .. } = &mut cluster;
            nodes[number].follow(tools, primary)?;
            nodes[number].start(tools, options)?;
        }
        cluster.nodes.iter().try_for_each(|node| node.ready(&cluster.sql))?;
        (1..cluster.nodes.len()).try_for_each(|number| cluster.until_streaming(number))?;
        Ok(cluster)
    }

    /// Where a replica finds a primary.
    pub(super) fn route(&self, replica: usize, primary: usize) -> SocketAddr {
        let direct = || self.nodes[primary].address();
        self.options.routes.get(&(replica, primary)).copied().unwrap_or_else(direct)
    }

    /// The primary's number.
    pub fn primary(&self) -> usize {
        self.primary
    }

    /// Servers, dead ones too.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Where a server listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.nodes[number].address()
    }

    /// Whether a server's process is there; it may be stopped.
    pub fn lives(&self, number: usize) -> bool {
        self.nodes[number].lives()
    }

    /// What connections are made with.
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// A connection as services have it.
    pub fn connect(&self, number: usize) -> Result<Session, PostgresError> {
        Ok(self.sql.connect(self.address(number), DATABASE, DATABASE, PATIENCE)?)
    }

    /// Runs a statement as superuser in the services' database, and returns its rows.
    pub fn ask(&self, number: usize, sql: &str) -> Result<Vec<super::Row>, PostgresError> {
        self.within(number, sql, PATIENCE)
    }

    /// The same, if the server answers in time.
    pub fn within(&self, number: usize, sql: &str, patience: Duration) -> Result<Vec<super::Row>, PostgresError> {
        let known = self.sessions().get(&number).cloned();
        if let Some(session) = known {
            match session.run(sql, patience) {
                // The server was started anew, say: another connection may be had.
                Err(error) if error.code.is_none() => drop(self.sessions().remove(&number)),
                answer => return Ok(answer?),
            }
        }
        let session = self.sql.connect(self.address(number), SUPERUSER, DATABASE, patience)?;
        self.sessions().insert(number, session.clone());
        Ok(session.run(sql, patience)?)
    }

    /// The only value of a statement.
    pub fn value(&self, number: usize, sql: &str) -> Result<String, PostgresError> {
        let rows = self.ask(number, sql)?;
        Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<usize, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a replica streams.
    pub(super) fn until_streaming(&self, number: usize) -> Result<(), PostgresError> {
        self.nodes[number].until("does not stream", || {
            let status = self.value(number, "SELECT status FROM pg_stat_wal_receiver");
            Ok(status.is_ok_and(|status| status == "streaming"))
        })
    }

    /// Waits until a replica has replayed all that the primary has written by now.
    pub fn catch_up(&self, number: usize) -> Result<(), PostgresError> {
        let position = self.value(self.primary, "SELECT pg_current_wal_lsn()")?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        self.nodes[number].until("does not catch up", || Ok(self.value(number, &sql)? == "t"))
    }

    /// Points a replica to the primary of now, without a restart.
    pub(super) fn repoint(&self, number: usize) -> Result<(), PostgresError> {
        let to = connection(self.route(number, self.primary), &self.nodes[number].name);
        // Two statements: ALTER SYSTEM refuses to stand in a transaction, which several at once would be.
        self.ask(number, &format!("ALTER SYSTEM SET primary_conninfo = '{to}'"))?;
        self.ask(number, "SELECT pg_reload_conf()").map(drop)
    }

    /// Kills a server at one moment with all its processes, as its machine's end would.
    pub fn kill(&mut self, number: usize) -> Result<(), PostgresError> {
        self.sessions().remove(&number);
        self.nodes[number].diverged |= number == self.primary;
        self.nodes[number].kill()
    }

    /// Ends a server in order.
    pub fn stop(&mut self, number: usize) -> Result<(), PostgresError> {
        self.sessions().remove(&number);
        self.nodes[number].shut_down()
    }

    /// Starts a server again that was killed or stopped: as what it was, a replica of the primary of now perhaps.
    /// One that was primary and is not any more has to [rejoin](Cluster::rejoin).
    pub fn restart(&mut self, number: usize) -> Result<(), PostgresError> {
        if self.nodes[number].lives() {
            return Err(PostgresError::Refused(format!("{} runs already", self.nodes[number].name)));
        }
        if number != self.primary && self.nodes[number].diverged {
            let name = &self.nodes[number].name;
            return Err(PostgresError::Refused(format!("{name} was primary: it has to rejoin")));
        }
        let primary = (number != self.primary).then(|| self.route(number, self.primary));
        let Cluster { tools, options, nodes, .. } = self;
        nodes[number].follow(tools, primary)?;
        nodes[number].start(tools, options)?;
        self.nodes[number].ready(&self.sql)?;
        if number == self.primary { Ok(()) } else { self.until_streaming(number) }
    }

    /// Freezes a server, as a machine that hangs: its connections stay, and nothing answers. Tells how many processes
    /// that stopped.
    pub fn freeze(&self, number: usize) -> Result<u32, PostgresError> {
        match &self.nodes[number].process {
            Some(process) => Ok(process.pause()?),
            None => Err(PostgresError::Refused(format!("{} does not run", self.nodes[number].name))),
        }
    }

    /// Lets it go on.
    pub fn thaw(&self, number: usize) -> Result<u32, PostgresError> {
        match &self.nodes[number].process {
            Some(process) => Ok(process.resume()?),
            None => Err(PostgresError::Refused(format!("{} does not run", self.nodes[number].name))),
        }
    }

    /// How a server ended, if it did.
    pub fn exit(&self, number: usize) -> Option<Exit> {
        self.nodes[number].process.as_ref()?.exit()
    }
}

/// PostgreSQL refuses to run as root. Its package makes a user for it; `nobody` is nearly everywhere.
fn servers_user() -> Result<(u32, u32), PostgresError> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let names = ["postgres", "nobody"];
    let found = names.iter().find_map(|name| user::find(&users, name));
    found.ok_or_else(|| PostgresError::NoUser(names.join(" or ")))
}
