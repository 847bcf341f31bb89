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
    /// From then until the others stream from it, and a checkpoint is there, before which nobody can be rewound.
    pub settled: Duration,
}

impl Cluster {
    /// The living replica that has received most: the one to promote.
    pub fn most_advanced(&self) -> Result<usize, PostgresError> {
        let mut best: Option<(u64, usize)> = None;
        for number in (0..self.count()).filter(|number| *number != self.primary && self.lives(*number)) {
            // The first of equals.
            if let Some(bytes) = self.received(number)
                && best.is_none_or(|(most, _)| bytes > most)
            {
                best = Some((bytes, number));
            }
        }
        best.map(|(_, number)| number).ok_or_else(|| PostgresError::Refused("no replica lives".to_owned()))
    }

    /// How far in the write-ahead log a replica has received, if it answers. Received is not replayed: one whose replay
    /// is paused may be the one that has most.
    fn received(&self, number: usize) -> Option<u64> {
        let sql = "SELECT GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'";
        self.value(number, sql).ok()?.parse().ok()
    }

    /// Makes a replica the primary, and points the others to it. A primary that still runs is ended in order first,
    /// so that nothing is lost and there are never two; one that is frozen or dead is left behind, with what only
    /// it had.
    pub fn promote(&mut self, number: usize) -> Result<Promotion, PostgresError> {
        let (promotion, ahead) = self.take_over(number)?;
        let clock = Clock::start();
        self.settle(&ahead)?;
        Ok(Promotion { settled: Duration::from_nanos(clock.now().as_nanos()), ..promotion })
    }

    /// The first half of a promotion: the new primary takes writes when this returns. Beside it stand the replicas that
    /// are ahead of it, for the [second half](Cluster::settle).
    pub fn take_over(&mut self, number: usize) -> Result<(Promotion, Vec<usize>), PostgresError> {
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
        // Those that have more than the new primary have to undo it, as a former primary does.
        let most = self.received(number);
        let ahead: Vec<usize> = (0..self.count())
            .filter(|other| *other != number && self.lives(*other) && self.received(*other) > most)
            .collect();
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
        Ok((Promotion { from, to: number, writable, settled: Duration::ZERO }, ahead))
    }

    /// The second half: the other replicas follow the new primary, and a former one can be rewound.
    pub fn settle(&mut self, ahead: &[usize]) -> Result<(), PostgresError> {
        let number = self.primary;
        for other in (0..self.count()).filter(|other| *other != number) {
            if self.lives(other) {
                self.repoint(other)?;
            }
        }
        // pg_rewind looks for the new timeline in the control file, which a checkpoint writes: before it, the tool
        // says that there is nothing to do, and the old primary never streams.
        self.ask(number, "CHECKPOINT")?;
        for other in (0..self.count()).filter(|other| *other != number) {
            if ahead.contains(&other) {
                self.rejoin(other)?;
            } else if self.lives(other) {
                self.until_streaming(other)?;
            }
        }
        Ok(())
    }

    /// Starts a server that is down: as what it was, or, where another has become primary, as a replica that has undone
    /// what only it had.
    pub fn bring_back(&mut self, number: usize) -> Result<(), PostgresError> {
        if number != self.primary && self.nodes[number].diverged { self.rejoin(number) } else { self.restart(number) }
    }

    /// Takes a former primary back as a replica, or a replica that was ahead of the one that was promoted: what only it
    /// had is undone.
    pub fn rejoin(&mut self, number: usize) -> Result<(), PostgresError> {
        if number == self.primary {
            let name = &self.nodes[number].name;
            return Err(PostgresError::Refused(format!("{name} is the primary")));
        }
        // pg_rewind can make up for a primary that was killed, not for a replica.
        self.stop(number)?;
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
