//! How many files the process may have open: each connection is one.

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no connections: standard streams, runtimes, the log, sockets that listen, name lookups.
const BESIDES: u64 = 64;

/// Raises the soft limit to the hard one, as Go's runtime does too: the soft one is often 1,024, so that programs with
/// `select` keep working, and none of that is here. Returns what the process may have; none is without a limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where the system has a lower bound of its own (macOS), what was is kept.
    let may_open = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(_) => getrlimit(Resource::Nofile).current,
    };
    make_room(may_open.map_or(ROOM, |most| most.min(ROOM)));
    may_open
}

/// Files that there is room for from the start: half a MiB of the kernel's memory.
const ROOM: u64 = 65_536;

/// Has the kernel make its table of open files as large as it may become. Linux doubles it when it is full, and where a
/// process has threads, whoever then opens a file waits for every processor to have been idle once: 10 to 20 ms, at the
/// 256th connection, the 512th, the 1,024th, each just when connections surge. The table never gets smaller.
fn make_room(files: u64) {
    let last = i32::try_from(files.saturating_sub(1)).unwrap_or(i32::MAX);
    // One that has no number so high has all the room there is.
    let _ = fcntl_dupfd_cloexec(rustix::stdio::stdin(), last);
}

/// What `may_open` says to people.
pub fn describe(may_open: Option<u64>) -> String {
    may_open.map_or("may open any number of files".to_owned(), |most| format!("may open {most} files"))
}

/// What is to be said where more connections of clients are allowed than there can be.
pub fn warning(may_open: Option<u64>, connections: u32) -> Option<String> {
    let most = may_open?;
    (u64::from(connections) + BESIDES > most).then(|| {
        format!(
            "limits.connections is {connections}, but the process may open {most} files only, and connections to \
             instances need some too: beyond that, clients wait to be accepted; raise `ulimit -Hn`, or lower \
             limits.connections"
        )
    })
}
