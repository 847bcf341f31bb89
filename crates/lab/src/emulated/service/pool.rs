//! Connections to one node of a store: so many at once, and who finds none waits for so long.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_model::run::EventKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::store::sql::SqlLink;
use crate::answer::Answer;
use crate::caller::Tools;
use crate::tally::{Held, Of};
use crate::wire::{client, resp};

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An emulated database's, over HTTP.
    Rows,
    /// PostgreSQL.
    Sql,
    /// Redis, or what speaks like it.
    Keys,
}

/// A connection of one of these kinds.
#[derive(Debug)]
pub(super) enum Link {
    Rows(client::Link),
    Sql(SqlLink),
    Keys(resp::Link),
}

impl Link {
    fn is_closed(&self) -> bool {
        match self {
            Link::Rows(link) => link.is_closed(),
            Link::Sql(link) => link.is_closed(),
            Link::Keys(link) => link.is_closed(),
        }
    }
}

/// A pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) address: SocketAddr,
    kind: Kind,
    size: Arc<Semaphore>,
    timeout: u64,
    idle: Mutex<Vec<Link>>,
    of: Of,
    edge: String,
    exhausted: AtomicBool,
    tools: Tools,
}

/// A connection that is taken. Dropped without [`Taken::back`] it is closed.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) link: Link,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
    _used: Held,
}

impl Pool {
    pub(super) fn new(
        address: SocketAddr,
        kind: Kind,
        size: u32,
        timeout: u64,
        of: Of,
        edge: String,
        tools: Tools,
    ) -> Arc<Pool> {
        let size = Arc::new(Semaphore::new(size as usize));
        let (idle, exhausted) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Pool { address, kind, size, timeout, idle, of, edge, exhausted, tools })
    }

    /// A connection, perhaps after a wait.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Taken, Answer> {
        let permit = match self.size.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if !self.exhausted.swap(true, Ordering::Relaxed) {
                    let text = "every pooled connection is taken: requests wait";
                    self.tools.tally.happened(EventKind::PoolExhausted, &*self.edge, text);
                }
                let _waits = Held::new(&self.tools.tally, self.of, "queue");
                let until = self.tools.clock.now().plus_nanos(self.timeout);
                let acquired = self.size.clone().acquire_owned();
                match tokio::time::timeout_at(self.tools.clock.instant(until), acquired).await {
                    Ok(Ok(permit)) => permit,
                    _ => return Err(Answer::Unavailable),
                }
            }
        };
        let used = Held::new(&self.tools.tally, self.of, "connections");
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            std::iter::from_fn(|| idle.pop()).find(|link| !link.is_closed())
        };
        let link = match idle {
            Some(link) => link,
            None => match self.kind {
                Kind::Keys => resp::Link::connect(self.address).await.map(Link::Keys).map_err(|_| Answer::Refused)?,
                Kind::Sql => Link::Sql(SqlLink::connect(self.address).await?),
                Kind::Rows => client::Link::connect(self.address).await.map(Link::Rows).map_err(|_| Answer::Refused)?,
            },
        };
        Ok(Taken { link, pool: self.clone(), _permit: permit, _used: used })
    }
}

impl Taken {
    /// Gives a sound connection back.
    pub(super) fn back(self) {
        let Taken { link, pool, .. } = self;
        pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    /// Asks a database's node, and says what came; a connection that broke is not to be given back.
    pub(super) async fn ask(&mut self, target: &str) -> Result<client::Answer, Answer> {
        let Link::Rows(link) = &mut self.link else { return Err(Answer::Error) };
        link.exchange(&client::request("POST", target, &[], &[]), "POST").await.map_err(|_| Answer::Reset)
    }

    /// Asks a store in memory.
    pub(super) async fn command(&mut self, parts: &[&[u8]]) -> Result<resp::Value, Answer> {
        let Link::Keys(link) = &mut self.link else { return Err(Answer::Error) };
        link.command(parts).await.ok_or(Answer::Reset)
    }
}
