//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no connections: standard streams, runtimes, the log, sockets that listen, name lookups.
const BESIDES: u64 = 64;

/// Raises the soft limit to the hard one, as Go's runtime does too: the soft one is often 1,024, so that programs with
/// `select` keep working, and none of that is here. Returns what the process may have; none is without a limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where the system has a lower bound of its own (macOS), what was is kept.
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(_) => getrlimit(Resource::Nofile).current,
    }
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
