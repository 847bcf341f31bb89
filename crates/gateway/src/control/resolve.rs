//! Where instances are: a list, a name, or a file.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::system::Addresses;
use tokio::task::spawn_local;

use super::Control;
use crate::dns;
use crate::random::mix;
use crate::upstream::{Found, Upstream};

/// Instances of one service, at most.
const MOST: usize = 10_000;
/// Between two looks for names in a list or a file, at most.
const NAMES: Duration = Duration::from_secs(10);
/// Between two looks, at least, however short a record's time to live: some servers say zero, and mean that
/// nobody may keep an answer, not that everybody should ask all the time.
const SOONEST: Duration = Duration::from_secs(1);

/// Addresses, and how long they hold where a name server has said so.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// The addresses.
    pub found: Vec<Found>,
    ttl: Option<Duration>,
}

/// Looks addresses up, once, which may wait for name servers. `random` is what nobody else knows.
pub fn find(addresses: &Addresses, folder: &Path, random: u64) -> Result<Looked, String> {
    let mut looked = Looked::default();
    match addresses {
        Addresses::List(list) => {
            for address in list {
                looked.add(&address.address, None, address.weight, random)?;
            }
        }
        Addresses::Dns { host, port, server, .. } => {
            looked.add(&format!("{host}:{port}"), *server, 1.0, random)?;
            // Name servers turn their answers round; `weights` go by the order.
            looked.found.sort_by_key(|found| found.address);
        }
        Addresses::File { path, .. } => {
            let path = folder.join(path);
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            for (number, line) in text.lines().enumerate() {
                let mut words = line.split_whitespace();
                let Some(address) = words.next().filter(|word| !word.starts_with('#')) else { continue };
                let place = || format!("{}:{}", path.display(), number + 1);
                let weight = match words.next() {
                    None => Some(1.0),
                    Some(word) => word.parse().ok().filter(|weight| (0.0..=1e6).contains(weight)),
                };
                let (Some(weight), None) = (weight, words.next()) else {
                    return Err(format!("{}: expected an address and perhaps a weight, found `{line}`", place()));
                };
                looked.add(address, None, weight, random).map_err(|error| format!("{}: {error}", place()))?;
            }
        }
    }
    if looked.found.len() > MOST {
        return Err(format!("{} addresses are more than {MOST}", looked.found.len()));
    }
    Ok(looked)
}

impl Looked {
    /// All addresses of one that may have a name.
    fn add(&mut self, address: &str, server: Option<SocketAddr>, weight: f64, random: u64) -> Result<(), String> {
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts else {
            return Err(format!("{address}: expected a name or an address, and a port"));
        };
        let named = dns::look_up(host, server, random)?;
        self.ttl = [self.ttl, named.ttl].into_iter().flatten().min();
        for address in named.addresses.into_iter().map(|address| SocketAddr::new(address, port)) {
            if !self.found.iter().any(|other| other.address == address) {
                self.found.push(Found { address, weight });
            }
        }
        Ok(())
    }
}

/// How long until the next look, at most; none for addresses that cannot change.
fn every(addresses: &Addresses) -> Option<Duration> {
    match addresses {
        Addresses::List(list) if list.iter().all(|address| address.address.parse::<std::net::SocketAddr>().is_ok()) => {
            None
        }
        // A name in a list is looked up as often as one alone.
        Addresses::List(_) => Some(NAMES),
        Addresses::Dns { every, .. } | Addresses::File { every, .. } => Some(Duration::from_nanos(*every)),
    }
}

/// Looks addresses up again and again, for all targets there are.
pub(super) async fn keep(control: Arc<Control>) {
    loop {
        let live = control.shared.live();
        let tasks: Vec<_> = live
            .plan
            .targets
            .iter()
            .zip(&live.upstreams)
            .filter_map(|(target, upstream)| {
                let every = every(&target.addresses)?;
                let watch = watch(control.clone(), target.addresses.clone(), upstream.clone(), every);
                Some(spawn_local(watch))
            })
            .collect();
        drop(live);
        control.changed.notified().await;
        tasks.iter().for_each(|task| task.abort());
    }
}

/// Follows one target's addresses. What cannot be looked up stays as it was.
async fn watch(control: Arc<Control>, addresses: Addresses, upstream: Arc<Upstream>, every: Duration) {
    let mut last: Option<String> = None;
    loop {
        let random = mix(control.shared.secret ^ control.shared.clock.now().as_nanos());
        let (addresses, folder) = (addresses.clone(), control.folder.clone());
        // A look waits, and so must not be taken here.
        let looked = tokio::task::spawn_blocking(move || find(&addresses, &folder, random)).await;
        let mut ttl = None;
        let problem = match looked {
            Ok(Ok(Looked { found, .. })) if found.is_empty() => Some("no addresses".to_owned()),
            Ok(Ok(Looked { found, ttl: holds })) => {
                ttl = holds;
                let now = control.shared.clock.now();
                let changed = upstream.set_instances(&found, &control.shared.slots, now, false);
                match changed {
                    Ok((0, 0)) => None,
                    Ok((came, gone)) => {
                        control.say(&format!("{}: {came} instances came, {gone} went", upstream.service));
                        None
                    }
                    Err(refused) => Some(refused.to_string()),
                }
            }
            Ok(Err(problem)) => Some(problem),
            Err(_) => None,
        };
        if let Some(problem) = problem.as_ref().filter(|problem| last.as_ref() != Some(problem)) {
            control.say(&format!("{}: {problem}; its instances stay as they are", upstream.service));
        }
        last = problem;
        tokio::time::sleep(pause(every, ttl)).await;
    }
}

/// Until the time to live is over, within bounds.
fn pause(every: Duration, ttl: Option<Duration>) -> Duration {
    ttl.map_or(every, |ttl| ttl.max(SOONEST).min(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::system::Address;

    #[test]
    fn files_are_read_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = Addresses::File { path: "a.txt".to_owned(), every: 1 };
        let write = |text: &str| std::fs::write(folder.path().join("a.txt"), text).unwrap();
        write("# comment\n127.0.0.1:80\n\n127.0.0.2:80 0.5\n127.0.0.1:80\n");
        let found = find(&file, folder.path(), 0).unwrap().found;
        let found: Vec<_> = found.iter().map(|found| (found.address.to_string(), found.weight)).collect();
        assert_eq!(found, [("127.0.0.1:80".to_owned(), 1.0), ("127.0.0.2:80".to_owned(), 0.5)]);
        for (text, place) in
            [("127.0.0.1:80 x\n", "a.txt:1"), ("\n127.0.0.1:80 1 2\n", "a.txt:2"), ("nowhere\n", "a.txt:1")]
        {
            write(text);
            assert!(find(&file, folder.path(), 0).unwrap_err().contains(place), "{text}");
        }
        let missing = Addresses::File { path: "b.txt".to_owned(), every: 1 };
        assert!(find(&missing, folder.path(), 0).unwrap_err().contains("b.txt"));
    }

    #[test]
    fn a_time_to_live_is_kept_within_bounds() {
        let seconds = Duration::from_secs;
        for (every, ttl, expected) in [
            (seconds(10), None, seconds(10)),
            (seconds(10), Some(seconds(5)), seconds(5)),
            (seconds(10), Some(seconds(3_600)), seconds(10)),
            (seconds(10), Some(seconds(0)), seconds(1)),
            (Duration::from_millis(20), Some(seconds(0)), Duration::from_millis(20)),
        ] {
            assert_eq!(pause(every, ttl), expected, "{every:?} {ttl:?}");
        }
    }

    #[test]
    fn only_names_and_files_are_looked_at_again() {
        let list = |address: &str| Addresses::List(vec![Address { address: address.to_owned(), weight: 1.0 }]);
        assert_eq!(every(&list("127.0.0.1:80")), None);
        assert_eq!(every(&list("localhost:80")), Some(Duration::from_secs(10)));
    }
}
