//! An instance of a gateway: the gateway itself, as `plimsoll gateway` serves it, at the run's addresses.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_gateway::{Gateway, Plan};
use plimsoll_model::system::{Addresses, Component, EdgeId, RedisAt, ServiceId, ServiceKind, StoreKind, System};

use super::{CannotRun, Process};
use crate::context::{CLASS, USER};
use crate::control::{self, Controlled, Order, State};
use crate::layout::{Layout, Place};

/// The file with the addresses of a service's instances, in the run's directory: as this instance of a gateway finds
/// them, where that is through proxies.
pub fn addresses_file(service: u32, through: Option<(u32, u32)>) -> String {
    match through {
        Some((gateway, instance)) => format!("service-{service}.of-{gateway}-{instance}.addresses"),
        None => format!("service-{service}.addresses"),
    }
}

/// A gateway's edge to a service.
pub fn edge_to(system: &System, gateway: u32, service: u32) -> Option<EdgeId> {
    let (from, to) = (Component::Service(ServiceId(gateway)), Component::Service(ServiceId(service)));
    system.edges.iter().position(|edge| edge.from == from && edge.to == to).map(EdgeId::from)
}

/// How often a gateway looks into it, ns.
const LOOK: u64 = 50_000_000;

struct Running {
    ready: AtomicBool,
    leaving: tokio::sync::Notify,
}

pub(super) async fn run(
    process: Process,
    place: Place,
    (service, instance): (u32, u32),
    startup: u64,
    folder: &Path,
    own: &Path,
) -> Result<(), CannotRun> {
    let running = Arc::new(Running { ready: AtomicBool::new(false), leaving: tokio::sync::Notify::new() });
    let system = at_places(&process.system, &process.layout, place, (service, instance), own);
    let plan = Plan::new(&system, Some(&system.services[service as usize].name))?;
    tokio::spawn(control::answer(place.control, process.tools.tally.clone(), running.clone()));
    process.tools.timer.wait(startup).await;
    let gateway = Gateway::start(plan, folder)?;
    running.ready.store(true, Ordering::Release);
    running.leaving.notified().await;
    // It waits for its cores, and this thread has nothing else to do.
    gateway.stop(false);
    Ok(())
}

/// The system with the addresses of this run.
fn at_places(original: &System, layout: &Layout, place: Place, (service, instance): (u32, u32), own: &Path) -> System {
    let mut system = original.clone();
    for (at, of) in system.services.iter_mut().enumerate() {
        let edge = edge_to(original, service, at as u32);
        let through = edge.filter(|edge| layout.is_proxied(*edge)).map(|_| (service, instance));
        let path = own.join(addresses_file(at as u32, through)).display().to_string();
        of.at = Some(Addresses::File { path, every: LOOK });
        if let Some(serving) = &mut of.serving
            && matches!(of.kind, ServiceKind::Gateway(_))
            && at == service as usize
        {
            serving.listen = vec![place.main];
            serving.admin = Some(place.admin);
            serving.tls = None;
            serving.access_log = None;
            serving.headers.user.get_or_insert_with(|| USER.to_owned());
            serving.headers.class.get_or_insert_with(|| CLASS.to_owned());
            // All of a run's clients come from one address.
            serving.limits.connections_per_client = serving.limits.connections;
        }
    }
    for (at, store) in system.stores.iter_mut().enumerate() {
        if let StoreKind::Redis(redis) = &mut store.kind {
            redis.at = layout.stores[at].first().map(|place| RedisAt {
                address: place.main.to_string(),
                database: 0,
                user: None,
                password_file: None,
                tls: None,
            });
        }
    }
    system
}

impl Controlled for Running {
    fn state(&self) -> State {
        State { ready: self.ready.load(Ordering::Acquire), slow: (1.0, 0), ..State::default() }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Drain => {
                self.leaving.notify_one();
                Ok(())
            }
            other => Err(format!("a gateway does not know {other:?}")),
        }
    }
}
