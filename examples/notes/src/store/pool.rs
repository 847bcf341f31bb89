//! Connections to one node.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::StoreError;

/// Makes connections.
pub struct Connector(Config);

/// A connection, and what was prepared on it.
pub struct Connection {
    client: Client,
    statements: BTreeMap<&'static str, Statement>,
}

impl Manager for Connector {
    type Type = Connection;
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Connection, tokio_postgres::Error> {
        let (client, connection) = self.0.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL has ended");
            }
        });
        Ok(Connection { client, statements: BTreeMap::new() })
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        match connection.client.is_closed() {
            true => Err(RecycleError::message("closed")),
            false => Ok(()),
        }
    }
}

/// `size` connections, for each of which is waited for `patience`.
pub fn pool(config: Config, size: usize, patience: Duration) -> Pool<Connector> {
    let timeouts = Timeouts { wait: Some(patience), create: Some(patience), recycle: Some(patience) };
    let builder = Pool::builder(Connector(config)).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1);
    builder.build().expect("a runtime is given, which timeouts need")
}

/// A connection, for as long as it is needed.
///
/// Whoever waits for an answer may be dropped meanwhile: a deadline has passed, or the client went away. The next one
/// would then wait behind a statement that nobody wants any more. So a connection that is dropped at work is closed,
/// and only an idle one goes back to the pool.
pub struct Lease {
    connection: Option<Object<Connector>>,
    at_work: bool,
}

impl Lease {
    /// One from the pool, or a new one.
    pub async fn of(pool: &Pool<Connector>) -> Result<Lease, StoreError> {
        let connection = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => StoreError::Postgres(error),
            other => StoreError::Connection(other.to_string()),
        })?;
        Ok(Lease { connection: Some(connection), at_work: false })
    }

    /// Runs a statement, which is prepared the first time.
    pub async fn query(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection.as_mut().expect("there until it is dropped");
        self.at_work = true;
        let statement = match connection.statements.get(sql) {
            Some(statement) => Ok(statement.clone()),
            None => connection.client.prepare(sql).await,
        };
        let rows = match &statement {
            Ok(statement) => connection.client.query(statement, parameters).await,
            Err(_) => Ok(Vec::new()),
        };
        self.at_work = false;
        connection.statements.insert(sql, statement?);
        Ok(rows?)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.at_work
            && let Some(connection) = self.connection.take()
        {
            drop(Object::take(connection));
        }
    }
}
