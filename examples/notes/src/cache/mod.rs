//! Notes in Redis: for a minute as an answer, for an hour as a copy for when there is no database. Nothing here fails:
//! without Redis nothing is found, and nothing is kept.

mod redis;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use redis::{Redis, Reply};

use crate::metrics::Metrics;
use crate::store::{Lsn, Note, Since};

/// For how long an entry is an answer, in milliseconds.
const FRESH_MS: u64 = 60_000;
/// For how long a copy is kept, in seconds.
const COPY_S: &str = "3600";

/// Notes that were read lately.
pub struct Cache {
    redis: Arc<Redis>,
    metrics: Arc<Metrics>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// How far the log was there when it was read, at least.
    lsn: Lsn,
    /// `None` if it is deleted.
    note: Option<Note>,
}

impl Cache {
    /// In this server.
    pub fn new(redis: Arc<Redis>, metrics: Arc<Metrics>) -> Cache {
        Cache { redis, metrics }
    }

    /// A note, or that it is deleted; `None` if that is not known here, or may be older than what the session wrote.
    pub async fn find(&self, id: i64, since: Since) -> Option<Option<Note>> {
        let kept = self.get(&fresh(id)).await;
        let result = match &kept {
            None => "miss",
            Some(kept) if since.is_met_by(kept.lsn) => "hit",
            Some(_) => "too_old",
        };
        self.metrics.cache.with_label_values(&[result]).inc();
        kept.filter(|_| result == "hit").map(|kept| kept.note)
    }

    /// A note as it was within the last hour.
    pub async fn copy(&self, id: i64) -> Option<Note> {
        self.get(&copy(id)).await?.note
    }

    /// Keeps what was read. Never in the place of what is there: that may be newer, for what was read may come from a
    /// replica that lags.
    pub async fn read(&self, note: &Note, lsn: Lsn) {
        let value = text(lsn, Some(note));
        let (fresh, copy, ttl) = (fresh(note.id), copy(note.id), ttl(note.id));
        let commands: [&[&str]; 2] =
            [&["SET", &fresh, &value, "NX", "PX", &ttl], &["SET", &copy, &value, "EX", COPY_S]];
        self.run(&commands).await;
    }

    /// Keeps what was written, in the place of what is there.
    pub async fn wrote(&self, note: &Note, lsn: Lsn) {
        let value = text(lsn, Some(note));
        let (fresh, copy, ttl) = (fresh(note.id), copy(note.id), ttl(note.id));
        let commands: [&[&str]; 2] = [&["SET", &fresh, &value, "PX", &ttl], &["SET", &copy, &value, "EX", COPY_S]];
        self.run(&commands).await;
    }

    /// Keeps that it is deleted: a replica that lags would bring it back.
    pub async fn deleted(&self, id: i64, lsn: Lsn) {
        let value = text(lsn, None);
        let (fresh, copy, ttl) = (fresh(id), copy(id), ttl(id));
        let commands: [&[&str]; 2] = [&["SET", &fresh, &value, "PX", &ttl], &["DEL", &copy]];
        self.run(&commands).await;
    }

    async fn get(&self, key: &str) -> Option<Kept> {
        match self.run(&[&["GET", key]]).await?.pop()? {
            Reply::Text(value) => serde_json::from_str(&value).ok(),
            _ => None,
        }
    }

    async fn run(&self, commands: &[&[&str]]) -> Option<Vec<Reply>> {
        let result = self.redis.run(commands).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "no answer from Redis");
            self.metrics.cache.with_label_values(&["error"]).inc();
        }
        result.ok()
    }
}

fn fresh(id: i64) -> String {
    format!("note:{id}")
}

fn copy(id: i64) -> String {
    format!("copy:note:{id}")
}

fn text(lsn: Lsn, note: Option<&Note>) -> String {
    serde_json::to_string(&Kept { lsn, note: note.cloned() }).expect("a note is JSON")
}

/// 10% more or less, so that what was read at one moment does not expire at one moment. By the note's number, which is
/// as good as a draw here.
fn ttl(id: i64) -> String {
    let spread = FRESH_MS / 5;
    (FRESH_MS - FRESH_MS / 10 + id.unsigned_abs().wrapping_mul(7919) % spread).to_string()
}
