//! Where instances are: a list, a name, or a file.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::system::Addresses;
use tokio::task::spawn_local;

use super::Control;
use crate::upstream::{Found, Upstream};

/// Instances of one service, at most.
const MOST: usize = 10_000;

/// Looks addresses up, once. A name takes as long as the system's resolver does.
pub fn find(addresses: &Addresses, folder: &Path) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    match addresses {
        Addresses::List(list) => {
            for address in list {
                look_up(&address.address, address.weight, &mut found)?;
            }
        }
        Addresses::Dns { host, port, .. } => {
            look_up(&format!("{host}:{port}"), 1.0, &mut found)?;
            // Name servers turn their answers round; `weights` go by the order.
            found.sort_by_key(|found| found.address);
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
                look_up(address, weight, &mut found).map_err(|error| format!("{}: {error}", place()))?;
            }
        }
    }
    if found.len() > MOST {
        return Err(format!("{} addresses are more than {MOST}", found.len()));
    }
    Ok(found)
}

fn look_up(address: &str, weight: f64, found: &mut Vec<Found>) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    for address in resolved {
        if !found.iter().any(|other| other.address == address) {
            found.push(Found { address, weight });
        }
    }
    Ok(())
}

/// How long until the next look; none for addresses that cannot change.
fn every(addresses: &Addresses) -> Option<Duration> {
    match addresses {
        Addresses::List(list) if list.iter().all(|address| address.address.parse::<std::net::SocketAddr>().is_ok()) => {
            None
        }
        // A name in a list is looked up as often as one alone.
        Addresses::List(_) => Some(Duration::from_secs(10)),
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
        tokio::time::sleep(every).await;
        let (addresses, folder) = (addresses.clone(), control.folder.clone());
        // The system's resolver waits, and so must not do it here.
        let found = tokio::task::spawn_blocking(move || find(&addresses, &folder)).await;
        let problem = match found {
            Ok(Ok(found)) if found.is_empty() => Some("no addresses".to_owned()),
            Ok(Ok(found)) => {
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
    }
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
        let found = find(&file, folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.address.to_string(), found.weight)).collect();
        assert_eq!(found, [("127.0.0.1:80".to_owned(), 1.0), ("127.0.0.2:80".to_owned(), 0.5)]);
        for (text, place) in
            [("127.0.0.1:80 x\n", "a.txt:1"), ("\n127.0.0.1:80 1 2\n", "a.txt:2"), ("nowhere\n", "a.txt:1")]
        {
            write(text);
            assert!(find(&file, folder.path()).unwrap_err().contains(place), "{text}");
        }
        let missing = Addresses::File { path: "b.txt".to_owned(), every: 1 };
        assert!(find(&missing, folder.path()).unwrap_err().contains("b.txt"));
    }

    #[test]
    fn only_names_and_files_are_looked_at_again() {
        let list = |address: &str| Addresses::List(vec![Address { address: address.to_owned(), weight: 1.0 }]);
        assert_eq!(every(&list("127.0.0.1:80")), None);
        assert_eq!(every(&list("localhost:80")), Some(Duration::from_secs(10)));
    }
}
