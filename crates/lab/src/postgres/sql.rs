//! Statements from threads that wait for their answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::SqlError;

/// A row's values as text.
pub type Row = Vec<Option<String>>;

/// Connections' runtime, on a thread of its own.
#[derive(Debug)]
pub struct Sql {
    handle: tokio::runtime::Handle,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sql {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Sql> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, mut stopped) = watch::channel(false);
        let run = move || {
            runtime.block_on(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            });
        };
        let thread = std::thread::Builder::new().name("sql".to_owned()).spawn(run)?;
        Ok(Sql { handle, stop, thread: Some(thread) })
    }

    /// A connection, if it can be had in time.
    pub fn connect(&self, at: SocketAddr, user: &str, database: &str, patience: Duration) -> Result<Session, SqlError> {
        self.connector().connect(at, user, database, patience)
    }

    /// What can connect from other threads.
    pub fn connector(&self) -> Connector {
        Connector { handle: self.handle.clone() }
    }
}

/// Connects as [`Sql`] does, for as long as that lives.
#[derive(Clone, Debug)]
pub struct Connector {
    handle: tokio::runtime::Handle,
}

impl Connector {
    /// A connection, if it can be had in time.
    pub fn connect(&self, at: SocketAddr, user: &str, database: &str, patience: Duration) -> Result<Session, SqlError> {
        let mut config = Config::new();
        config.host(at.ip().to_string()).port(at.port()).user(user).dbname(database);
        config.application_name("plimsoll").connect_timeout(patience);
        let handle = self.handle.clone();
        let connecting = async move {
            let (client, connection) = config.connect(NoTls).await?;
            handle.spawn(connection);
            Ok(client)
        };
        let client = wait(&self.handle, connecting, patience)?;
        Ok(Session { client: Arc::new(client), handle: self.handle.clone() })
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection. Dropping it closes it, and undoes what it had not committed.
#[derive(Clone)]
pub struct Session {
    client: Arc<tokio_postgres::Client>,
    handle: tokio::runtime::Handle,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Runs statements, and returns the rows of all of them.
    pub fn run(&self, sql: &str, patience: Duration) -> Result<Vec<Row>, SqlError> {
        let (client, sql) = (self.client.clone(), sql.to_owned());
        let messages = wait(&self.handle, async move { client.simple_query(&sql).await }, patience)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The only value of the only row, as text; empty for null.
    pub fn value(&self, sql: &str, patience: Duration) -> Result<String, SqlError> {
        let rows = self.run(sql, patience)?;
        match &rows[..] {
            [row] if row.len() == 1 => Ok(row[0].clone().unwrap_or_default()),
            _ => Err(SqlError { code: None, why: format!("expected one value of `{sql}`") }),
        }
    }
}

fn wait<T: Send + 'static>(
    handle: &tokio::runtime::Handle,
    work: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static,
    patience: Duration,
) -> Result<T, SqlError> {
    let (sender, receiver) = mpsc::channel();
    let task = handle.spawn(async move {
        let _ = sender.send(work.await);
    });
    match receiver.recv_timeout(patience) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(told(&error)),
        Err(RecvTimeoutError::Timeout) => {
            task.abort();
            Err(SqlError { code: None, why: format!("no answer within {patience:?}") })
        }
        Err(RecvTimeoutError::Disconnected) => Err(SqlError { code: None, why: "the run is over".to_owned() }),
    }
}

fn told(error: &tokio_postgres::Error) -> SqlError {
    match error.as_db_error() {
        Some(error) => SqlError { code: Some(error.code().code().to_owned()), why: error.message().to_owned() },
        None => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            SqlError { code: None, why: format!("{error}{source}") }
        }
    }
}
