//! A plan's runtime state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::StartError;
use crate::access_log::LogSender;
use crate::answers::{Records, Sharing, kept};
use crate::clock::Clock;
use crate::control;
use crate::core::Live;
use crate::inbound::Inbound;
use crate::net::tls;
use crate::plan::Plan;
use crate::random;
use crate::redis::SharedQuota;
use crate::upstream::{Slots, Upstream};

/// Makes a plan's runtime state, or takes over that of the plan before.
pub(super) fn build(
    plan: Plan,
    folder: &Path,
    old: Option<&Live>,
    slots: &Slots,
    clock: Clock,
    secret: u64,
) -> Result<Live, StartError> {
    // What may fail comes first: a plan is taken up whole or not at all.
    let tls = match &plan.serving.tls {
        None => None,
        Some(setting) => Some(tls::load(setting, folder).map_err(StartError::Tls)?),
    };
    let quota = plan.shared_quota.as_ref().map(|stored| SharedQuota::load(stored, folder)).transpose();
    let quota = quota.map_err(StartError::Redis)?;
    let log = match &plan.serving.access_log {
        None => None,
        Some(setting) => match old.and_then(|old| old.log.clone()).filter(|log| log.is(setting)) {
            Some(log) => Some(log),
            None => {
                let failed = |why| StartError::Log { to: setting.to.clone(), why };
                Some(LogSender::open(setting, folder).map_err(failed)?)
            }
        },
    };
    let now = clock.now();
    let mut upstreams = Vec::new();
    for (position, target) in plan.targets.iter().enumerate() {
        let about = |why| StartError::Policy { about: target.service.clone(), why };
        let known = old.and_then(|old| old.upstreams.iter().find(|upstream| upstream.key == target.key));
        let upstream = match known {
            Some(upstream) => {
                upstream.reconfigure(&target.policies, now).map_err(about)?;
                upstream.clone()
            }
            None => {
                let seed = random::mix(secret ^ position as u64);
                Arc::new(Upstream::new(target, now, seed).map_err(about)?)
            }
        };
        // Names are looked up here too, so that the first requests have somewhere to go; if that fails,
        // it is tried again.
        let bits = random::mix(secret ^ now.as_nanos() ^ position as u64);
        if let Ok(looked) = control::resolve::find(&target.addresses, folder, bits) {
            upstream.set_instances(&looked.found, slots, now, known.is_none()).map_err(about)?;
        }
        upstreams.push(upstream);
    }
    let policy = |why| StartError::Policy { about: plan.name.clone(), why };
    let inbound = match old {
        Some(old) => {
            old.inbound.reconfigure(&plan, quota, now).map_err(policy)?;
            old.inbound.clone()
        }
        None => Arc::new(Inbound::new(&plan, quota, clock, now).map_err(policy)?),
    };
    let nothing = BTreeMap::new();
    let stores = kept::stores(&plan, old.map_or(&nothing, |old| &old.stores), clock).map_err(policy)?;
    let caches = plan.routes.iter().map(|route| stores.get(&route.cache.as_ref()?.0).cloned()).collect();
    let mut sharing = Vec::new();
    for target in &plan.targets {
        let flights = target.policies.coalesce.then(Sharing::new).transpose().map_err(policy)?;
        sharing.push(flights.map(Arc::new));
    }
    let records = match (&plan.idempotency, old.and_then(|old| old.records.clone())) {
        (None, _) => None,
        (Some((config, _)), Some(records)) => {
            records.reconfigure(*config).map_err(policy)?;
            Some(records)
        }
        (Some((config, _)), None) => Some(Arc::new(Records::new(*config).map_err(policy)?)),
    };
    Ok(Live { plan, upstreams, caches, stores, sharing, records, inbound, tls, log })
}
