//! Locks: a row's is one holder's; a table's is shared by all who use it, unless one wants it for itself. Who waits
//! longest is next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_model::system::Lock;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::wants;

type Shared = Arc<RwLock<()>>;

/// A node's locks.
#[derive(Debug, Default)]
pub(super) struct Locks {
    all: Mutex<BTreeMap<(u32, Option<u32>), Shared>>,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) enum Taken {
    /// With others.
    Shared { _guard: OwnedRwLockReadGuard<()> },
    /// Alone.
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    /// Alone, once it is free; given up with the task.
    Soon(tokio::task::JoinHandle<()>),
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Taken::Soon(task) = self {
            task.abort();
        }
    }
}

impl Locks {
    fn of(&self, table: u32, row: Option<u32>) -> Shared {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > 4096 {
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        all.entry((table, row)).or_default().clone()
    }

    /// Takes what an operation locks.
    pub(super) async fn take(&self, table: u32, lock: Lock, key: u32) -> Vec<Taken> {
        let (whole, row) = wants(lock, key);
        let mut taken = Vec::new();
        let of_table = self.of(table, None);
        taken.push(match whole {
            true => Taken::Alone { _guard: of_table.write_owned().await },
            false => Taken::Shared { _guard: of_table.read_owned().await },
        });
        if row {
            taken.push(Taken::Alone { _guard: self.of(table, Some(key)).write_owned().await });
        }
        taken
    }

    /// Asks for a whole table, and holds it from when its turn comes.
    pub(super) fn table_for_itself(&self, table: u32) -> Taken {
        let lock = self.of(table, None);
        Taken::Soon(tokio::spawn(async move {
            let _guard = lock.write_owned().await;
            std::future::pending::<()>().await;
        }))
    }
}
