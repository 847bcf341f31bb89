//! A lease: who holds it, until when by its own clock, and the resource that it guards. A lease that programs take
//! (`lease:` around steps) is a lock of requests; any other is held by one instance of its service at a time.
//!
//! | request | answer |
//! |---|---|
//! | `POST /acquire?who=S.N` | 200 with the token and its end; 409 when it is worth asking again |
//! | `POST /renew?who=S.N&token=T` | 200 with its end; 409 if it was over |
//! | `POST /release?who=S.N&token=T` | it is given back |
//! | `POST /lost?who=S.N&token=T&why=W` | an instance no longer believes that it holds it |
//! | `POST /write?who=S.N&token=T` | 200; 409 if the resource refuses it |
//! | `POST /lock?who=S.N` | 200 with the token, once it is the request's turn |
//! | `POST /unlock?who=S.N&token=T&done=1` | 200; 409 if what was done is refused |
//! | `POST /present?who=S.N` | none: when the connection breaks, the process is gone |

mod kept;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use plimsoll_model::system::{Action, Service, System};
use plimsoll_policy::Time;
use plimsoll_policy::lease::Token;
use tokio::sync::{Notify, oneshot};

use super::{CannotRun, Process};
use crate::control::{self, Controlled, Order, State};
use crate::layout::Place;
use crate::refuse::each_step;
use crate::tally::Of;
use crate::wire::server::{Handler, listen, serve};
use kept::{Kept, Turn};

struct Keeper {
    process: Process,
    number: u32,
    kept: Mutex<Kept>,
    /// Instances that have asked for it before anybody had it.
    asked: Mutex<BTreeSet<u32>>,
    /// It was given back, or granted for the first time; of a lock: somebody waits.
    changed: Notify,
    tickets: AtomicU64,
}

/// Whether requests take a lease in turn, of whichever instance.
pub(crate) fn is_lock(system: &System, lease: u32) -> bool {
    is_taken(system, lease, |_| true)
}

/// Whether requests of some services, or consumers, take a lease.
pub(crate) fn is_taken(system: &System, lease: u32, of: impl Fn(&Service) -> bool) -> bool {
    let services = system.services.iter().filter(|service| of(service));
    let services = services.flat_map(|service| &service.endpoints).map(|endpoint| &endpoint.program);
    let handlers = system.consumers.iter().map(|consumer| &consumer.handler);
    let mut found = false;
    for program in services.chain(handlers) {
        each_step(program, &mut |action, _| {
            found |= matches!(action, Action::Lease { lease: taken, .. } if taken.0 == lease);
        });
    }
    found
}

/// What an instance says when it no longer believes: as it goes over the wire, and in words.
pub(super) const REASONS: [(&str, &str); 2] = [
    ("cut_off", "it cannot renew it, and its time is over by its own clock"),
    ("over", "its time is over by its own clock"),
];

/// How long the first grant waits for all instances: the one with the lowest number has it, as in the simulation.
const FIRST: Duration = Duration::from_secs(5);

pub(super) async fn run(process: Process, place: Place, lease: u32) -> Result<(), CannotRun> {
    let spec = &process.system.leases[lease as usize];
    let policy = |why| CannotRun::Policy { about: spec.name.clone(), why };
    // Tokens of one that starts again are above all that it has granted before.
    let begun = begun(&process, lease)?;
    let (of, tally) = (Of::Lease(lease), process.tools.tally.clone());
    let kept = Kept::new(spec, is_lock(&process.system, lease), begun << 32, of, tally).map_err(policy)?;
    let keeper = Arc::new(Keeper {
        number: lease,
        kept: Mutex::new(kept),
        asked: Mutex::default(),
        changed: Notify::new(),
        tickets: AtomicU64::new(0),
        process,
    });
    let listener = listen(place.main)?;
    tokio::spawn(control::answer(place.control, keeper.process.tools.tally.clone(), keeper.clone()));
    tokio::spawn(keeper.clone().look());
    serve(listener, true, move || {
        let keeper = keeper.clone();
        let handler: Handler = Box::new(move |request| {
            let keeper = keeper.clone();
            Box::pin(async move { keeper.answer(&request).await })
        });
        Some(handler)
    })
    .await;
    Ok(())
}

/// How often a lease's process has begun before.
fn begun(process: &Process, lease: u32) -> std::io::Result<u64> {
    use std::io::Write;
    let path = process.own.join(format!("lease-{lease}.starts"));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    file.write_all(b".")?;
    Ok(before)
}

/// An instance that asks.
struct Who {
    instance: u32,
    name: String,
}

impl Keeper {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.process.tools.clock.now()
    }

    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let query = request.uri().query().unwrap_or_default();
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let Some(who) = value("who").and_then(|who| self.who(who)) else { return status(StatusCode::BAD_REQUEST) };
        let token = value("token").and_then(|token| token.parse().ok()).map(Token::from_number);
        match (request.uri().path(), token) {
            ("/acquire", _) => self.acquire(&who).await,
            ("/renew", Some(token)) => match self.kept().renew(self.now(), token, who.instance, &who.name) {
                Ok(grant) => self.granted(token, Some(grant.until)),
                Err(_) => status(StatusCode::CONFLICT),
            },
            ("/release", Some(token)) => {
                self.kept().give_back(token, who.instance, &who.name);
                self.changed.notify_waiters();
                status(StatusCode::OK)
            }
            ("/lost", Some(token)) => {
                let why = REASONS.iter().find(|(short, _)| value("why") == Some(short));
                let why = why.map_or("it says so", |(_, words)| words);
                self.kept().lost(who.instance, token, &who.name, why);
                status(StatusCode::OK)
            }
            ("/write", Some(token)) => passed(self.kept().write(token, who.instance, &who.name)),
            ("/lock", _) => self.lock(&who).await,
            ("/unlock", Some(token)) => {
                passed(self.kept().unlock(self.now(), token, value("done") == Some("1"), &who.name))
            }
            ("/present", _) => {
                let _present = Present { keeper: self, who };
                std::future::pending().await
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn who(&self, text: &str) -> Option<Who> {
        let (service, instance) = text.split_once('.')?;
        let (service, instance) = (service.parse().ok()?, instance.parse().ok()?);
        self.process.layout.services.get(service as usize)?;
        Some(Who { instance, name: crate::names::instance(&self.process.system, service, instance) })
    }

    async fn acquire(&self, who: &Who) -> Response<Bytes> {
        self.until_first(who.instance).await;
        let changed = self.changed.notified();
        let now = self.now();
        let free = {
            let mut kept = self.kept();
            match kept.acquire(now, who.instance, &who.name) {
                Ok(grant) => {
                    if kept.last_token() == 1 {
                        self.changed.notify_waiters();
                    }
                    return self.granted(grant.token, Some(grant.until));
                }
                Err(held) => held.retry_at.unwrap_or(now),
            }
        };
        // Who is told asks again: one that was stopped meanwhile is not to get it.
        let left = Duration::from_nanos(free.nanos_since(now));
        let _ = tokio::time::timeout(left, changed).await;
        status(StatusCode::CONFLICT)
    }

    /// Waits, before the first grant, until the instance with the lowest number has it.
    async fn until_first(&self, instance: u32) {
        let lease = &self.process.system.leases[self.number as usize];
        let instances = self.process.system.services[lease.service.index()].instances as usize;
        let first = async {
            loop {
                let changed = self.changed.notified();
                if self.kept().last_token() > 0 {
                    return;
                }
                {
                    let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                    if asked.insert(instance) && asked.len() >= instances {
                        self.changed.notify_waiters();
                    }
                    if asked.len() >= instances && asked.first() == Some(&instance) {
                        return;
                    }
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(FIRST, first).await;
    }

    async fn lock(&self, who: &Who) -> Response<Bytes> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let turn = self.kept().take(self.now(), &who.name, ticket);
        match turn {
            Turn::Now(token) => self.granted(token, None),
            Turn::Later(comes) => {
                self.changed.notify_one();
                let mut waits = Waits { keeper: self, ticket, comes: Some(comes) };
                let Some(comes) = &mut waits.comes else { return status(StatusCode::SERVICE_UNAVAILABLE) };
                let Ok(token) = comes.await else { return status(StatusCode::SERVICE_UNAVAILABLE) };
                waits.comes = None;
                self.granted(token, None)
            }
        }
    }

    /// While requests wait for the lock, its holder is looked at when its time is over.
    async fn look(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            let due = self.kept().due();
            match due {
                None => changed.await,
                Some(at) => {
                    self.process.tools.timer.until(at.as_nanos()).await;
                    self.kept().look(self.now());
                }
            }
        }
    }

    fn granted(&self, token: Token, until: Option<Time>) -> Response<Bytes> {
        let mut response = status(StatusCode::OK);
        response.headers_mut().insert("x-plimsoll-token", HeaderValue::from(token.get()));
        // By the clock that all processes of a machine share.
        let until = until.map(|until| self.process.tools.clock.wall(until).as_nanos().to_string());
        if let Some(until) = until.and_then(|until| HeaderValue::from_str(&until).ok()) {
            response.headers_mut().insert("x-plimsoll-until", until);
        }
        response
    }
}

/// A request that waits for the lock, until it has it or is gone.
struct Waits<'k> {
    keeper: &'k Keeper,
    ticket: u64,
    comes: Option<oneshot::Receiver<Token>>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Some(mut comes) = self.comes.take() else { return };
        let mut kept = self.keeper.kept();
        match comes.try_recv() {
            // Its turn came when it had gone already.
            Ok(token) => {
                kept.unlock(self.keeper.now(), token, false, "");
            }
            Err(_) => kept.leave(self.ticket),
        }
    }
}

/// An instance's process, for as long as there is one.
struct Present<'k> {
    keeper: &'k Keeper,
    who: Who,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.keeper.kept().gone(self.who.instance, &self.who.name);
    }
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn passed(passed: bool) -> Response<Bytes> {
    status(if passed { StatusCode::OK } else { StatusCode::CONFLICT })
}

impl Controlled for Keeper {
    fn state(&self) -> State {
        State { ready: true, slow: (1.0, 0), ..State::default() }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        Err(format!("a lease does not know {order:?}"))
    }
}
