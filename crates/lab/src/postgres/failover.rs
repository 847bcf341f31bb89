//! Another primary: promotion, and the old one's return.

use std::time::Duration;

use super::cluster::Cluster;
use super::node::connection;
use super::{PATIENCE, PostgresError, SUPERUSER};
use crate::clock::Clock;

/// What a promotion took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The primary before.
    pub from: usize,
    /// The primary now.
    pub to: usize,
    /// From when it was asked until the new primary takes writes.
    pub writable: Duration,
    /// From then until a checkpoint is there, before which nobody can be rewound.
    pub checkpoint: Duration,
}

impl Cluster<'_> {
    /// The living replica that has received most: the one to promote.
    pub fn most_advanced(&self) -> Result<usize, PostgresError> {
        let mut best: Option<(u64, usize)> = None;
        for number in (0..self.count()).filter(|number| *number != self.primary && self.lives(*number)) {
            // Received is not replayed: a replica whose replay is paused may be the one that has most.
            let sql = "SELECT GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'";
            let Ok(bytes) = self.value(number, sql) else { continue };
            let bytes = bytes.split('.').next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
            // The first of equals.
            if best.is_none_or(|(most, _)| bytes > most) {
                best = Some((bytes, number));
            }
        }
        best.map(|(_, number)| number).ok_or_else(|| PostgresError::Refused("no replica lives".to_owned()))
    }

    /// Makes a replica the primary, and points the others to it. A primary that still runs is ended in order first,
    /// so that nothing is lost and there are never two; one that is frozen or dead is left behind, with what only
    /// it had.
    pub fn promote(&mut self, number: usize) -> Result<Promotion, PostgresError> {
        let from = self.primary;
        if number == from || !self.lives(number) {
            let name = &self.nodes[number].name;
            return Err(PostgresError::Refused(format!("{name} is no living replica")));
        }
        if self.lives(from) {
            let alive = self.within(from, "SELECT 1", Duration::from_secs(1)).is_ok();
            if alive {
                self.stop(from)?;
            } else {
                // Whoever takes over makes sure that the other cannot come back as it was.
                self.kill(from)?;
            }
        }
        self.nodes[from].diverged = true;
        let clock = Clock::start();
        let paused = self.value(number, "SELECT pg_is_wal_replay_paused()")? == "t";
        if paused {
            self.ask(number, "SELECT pg_wal_replay_resume()")?;
        }
        if self.value(number, &format!("SELECT pg_promote(true, {})", PATIENCE.as_secs()))? != "t" {
            let words = self.nodes[number].process.as_ref().map(|process| process.last_words(9)).unwrap_or_default();
            return Err(PostgresError::Late {
                node: self.nodes[number].name.clone(),
                what: "is no primary".to_owned(),
                words,
            });
        }
        let writable = Duration::from_nanos(clock.now().as_nanos());
        self.primary = number;
        self.nodes[number].diverged = false;
        *self.whereabouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.address(number);
        for other in (0..self.count()).filter(|other| *other != number) {
            if self.lives(other) {
                self.repoint(other)?;
            }
        }
        // pg_rewind looks for the new timeline in the control file, which a checkpoint writes: before it, the tool
        // says that there is nothing to do, and the old primary never streams.
        self.ask(number, "CHECKPOINT")?;
        let checkpoint = Duration::from_nanos(clock.now().as_nanos()).saturating_sub(writable);
        for other in (0..self.count()).filter(|other| *other != number) {
            if self.lives(other) {
                self.until_streaming(other)?;
            }
        }
        Ok(Promotion { from, to: number, writable, checkpoint })
    }

    /// Takes a former primary back as a replica: what only it had is undone.
    pub fn rejoin(&mut self, number: usize) -> Result<(), PostgresError> {
        if number == self.primary {
            let name = &self.nodes[number].name;
            return Err(PostgresError::Refused(format!("{name} is the primary")));
        }
        self.kill(number)?;
        let source = connection(self.nodes[self.primary].address(), "rewind");
        let data = self.nodes[number].data.display().to_string();
        let rewound = self.tools.run("pg_rewind", &["--target-pgdata", &data, "--source-server", &source, "--no-sync"]);
        if rewound.is_err() {
            // What it takes to rewind may be gone, in a long run; a copy is always possible.
            self.copy_primary(number)?;
        }
        self.nodes[number].diverged = false;
        self.restart(number)
    }

    fn copy_primary(&mut self, number: usize) -> Result<(), PostgresError> {
        let data = &self.nodes[number].data;
        std::fs::remove_dir_all(data).map_err(super::node::file(data))?;
        self.tools.own_folder(data)?;
        let (data, port) = (data.display().to_string(), self.nodes[self.primary].port.number().to_string());
        let arguments =
            ["-D", &data, "-h", "127.0.0.1", "-p", &port, "-U", SUPERUSER, "-X", "stream", "-c", "fast", "--no-sync"];
        self.tools.run("pg_basebackup", &arguments)
    }
}
