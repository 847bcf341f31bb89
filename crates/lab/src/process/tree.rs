//! What a process has started, as `/proc` tells it. A group is not enough: PostgreSQL's backends, say, have
//! each a session and a group of their own, and freezing the postmaster alone would leave them serving.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// A process, by its number and when it was started: numbers are used again.
pub(super) type Key = (i32, u64);

/// A process as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) state: char,
}

impl Entry {
    fn parse(stat: &str) -> Option<Entry> {
        // The name may have spaces and brackets in it.
        let (pid, rest) = stat.split_once(" (")?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
        Some(Entry {
            key: (pid.parse().ok()?, u64::try_from(number(19)?).ok()?),
            parent: i32::try_from(number(1)?).ok()?,
            group: i32::try_from(number(2)?).ok()?,
            session: i32::try_from(number(3)?).ok()?,
            state: fields.first()?.chars().next()?,
        })
    }

    /// Whether it has ended, and only its parent's question is missing.
    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// What belonged to a process when it was last looked at. A child whose parent has died since is an orphan like any
/// other: its group and session still tell whose it is, as no number is given again while anybody has it as either.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: BTreeSet<Key>,
    groups: BTreeSet<i32>,
    sessions: BTreeSet<i32>,
}

impl Known {
    /// `shared` is the session of whoever keeps it, and so of others too.
    pub(super) fn of(members: &[Entry], shared: i32) -> Known {
        Known {
            keys: members.iter().map(|entry| entry.key).collect(),
            groups: members.iter().map(|entry| entry.group).collect(),
            sessions: members.iter().map(|entry| entry.session).filter(|session| *session != shared).collect(),
        }
    }

    fn has(&self, entry: &Entry) -> bool {
        self.keys.contains(&entry.key) || self.groups.contains(&entry.group) || self.sessions.contains(&entry.session)
    }
}

/// Every living process below this one.
pub(super) fn below(root: i32) -> Vec<Entry> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            let stat = std::fs::read_to_string(entry.path().join("stat"));
            all.extend(stat.ok().as_deref().and_then(Entry::parse));
        }
    }
    let found = closure(&all, |entry| entry.parent == root);
    found.into_iter().filter(|entry| !entry.is_over()).collect()
}

/// Those of `entries` that belong to a process that was started with a group of its own: its group, what was
/// known to be its before, and what any of these has started.
pub(super) fn members(entries: &[Entry], root: i32, known: &Known) -> Vec<Entry> {
    closure(entries, |entry| entry.group == root || entry.key.0 == root || known.has(entry))
}

fn closure(entries: &[Entry], first: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut pids: BTreeSet<i32> = entries.iter().filter(|entry| first(entry)).map(|entry| entry.key.0).collect();
    loop {
        let more: Vec<i32> = entries
            .iter()
            .filter(|entry| pids.contains(&entry.parent) && !pids.contains(&entry.key.0))
            .map(|entry| entry.key.0)
            .collect();
        if more.is_empty() {
            return entries.iter().filter(|entry| pids.contains(&entry.key.0)).copied().collect();
        }
        pids.extend(more);
    }
}

/// Sends a signal to each. What has ended meanwhile needs none.
pub(super) fn signal(entries: &[Entry], signal: Signal) {
    for pid in entries.iter().filter_map(|entry| Pid::from_raw(entry.key.0)) {
        let _ = kill_process(pid, signal);
    }
}

/// How long processes may take to stop.
const STOPS: Duration = Duration::from_millis(500);

/// Stops all that `find` finds, until it finds nothing that runs: what one of them starts meanwhile is found
/// the next time. Returns them all, and whether they have stopped.
///
/// A process that waits within the kernel (`D`: for a disk, or after `vfork` for a child that is stopped) does
/// not stop before that ends. It runs nothing of its own before it does, which is what counts.
pub(super) fn freeze(mut find: impl FnMut() -> Vec<Entry>) -> (Vec<Entry>, bool) {
    let clock = clock::Clock::start();
    let mut told = BTreeSet::new();
    loop {
        let found = find();
        let runs = |entry: &&Entry| match entry.state {
            'T' | 't' => false,
            'D' => !told.contains(&entry.key),
            _ => true,
        };
        let running: Vec<Entry> = found.iter().filter(runs).copied().collect();
        if running.is_empty() || clock.now().as_nanos() > STOPS.as_nanos() as u64 {
            return (found, running.is_empty());
        }
        signal(&running, Signal::STOP);
        told.extend(running.iter().map(|entry| entry.key));
        clock::block(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let stat = "12 (a) S 3 (b) T 7 9 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5555 100 200";
        let entry = Entry { key: (12, 5555), parent: 7, group: 9, session: 9, state: 'T' };
        assert_eq!(Entry::parse(stat), Some(entry));
        for short in ["", "12", "12 (a", "12 (a) S 1 2", "x (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19"] {
            assert_eq!(Entry::parse(short), None, "{short}");
        }
    }

    #[test]
    fn a_process_has_its_group_its_children_and_what_it_was_known_to_have() {
        let entry = |pid, parent, group| Entry { key: (pid, 1), parent, group, session: 1, state: 'S' };
        // 10 leads a group; 11 left it; 12 is 11's; 13 is an orphan of the group; 20 and 21 are another's; 30 was
        // known, and 31's number was, but is now somebody else's. 42 came after 40, who was known, and is now an
        // orphan of its group; 52 of 50's session.
        let all = [
            entry(10, 1, 10),
            entry(11, 10, 11),
            entry(12, 11, 11),
            entry(13, 1, 10),
            entry(20, 1, 20),
            entry(21, 20, 20),
            entry(30, 1, 30),
            entry(31, 1, 31),
            entry(42, 1, 40),
            Entry { session: 50, ..entry(52, 1, 51) },
        ];
        let before = [
            entry(30, 10, 29),
            Entry { key: (31, 0), ..entry(31, 10, 29) },
            entry(40, 10, 40),
            Entry { session: 50, ..entry(50, 10, 50) },
        ];
        let known = Known::of(&before, 1);
        let found: Vec<i32> = members(&all, 10, &known).iter().map(|entry| entry.key.0).collect();
        assert_eq!(found, [10, 11, 12, 13, 30, 42, 52]);
    }
}
