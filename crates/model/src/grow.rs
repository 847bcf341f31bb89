//! A system as its file says it grows with the load.

use crate::scale::scaled;
use crate::system::{Component, Growth, GrowthKey, KeyDist, Service, ServiceKind, StoreKind, System};

/// The system at `factor` times its load, and what was changed, each as `api.instances 3 -> 30`.
///
/// What `growth:` names is multiplied and rounded up, as far as its `max`; an autoscaled service's
/// bounds grow with its instances. Users, keys and stored data grow with the factor whatever the
/// file says, since they cause the load or come with it. The load itself is not changed: see
/// [`System::scale_load`]. A factor of 1 or less changes nothing: plans do not shrink.
pub fn grow(system: &System, factor: f64) -> (System, Vec<String>) {
    let mut grown = system.clone();
    let mut changes = Vec::new();
    if factor.is_nan() || factor <= 1.0 {
        return (grown, changes);
    }
    for growth in &system.growth {
        component(&mut grown, growth, factor, &mut changes);
    }
    data(&mut grown, factor);
    (grown, changes)
}

fn component(system: &mut System, growth: &Growth, factor: f64, changes: &mut Vec<String>) {
    let name = system.component_name(growth.component).to_owned();
    let mut change = Change { name: &name, growth, factor, changes };
    match growth.component {
        Component::Service(id) => change.service(&mut system.services[id.index()]),
        Component::Consumer(id) => {
            let consumer = &mut system.consumers[id.index()];
            let service = &mut system.services[consumer.service.index()];
            change.service(service);
            consumer.instances = service.instances;
        }
        Component::Store(id) => match &mut system.stores[id.index()].kind {
            StoreKind::Postgres(postgres) => match growth.what {
                GrowthKey::Replicas => change.count("replicas", &mut postgres.replicas),
                GrowthKey::Shards => change.count("shards", &mut postgres.shards),
                GrowthKey::MaxConnections => change.count("max_connections", &mut postgres.max_connections),
                GrowthKey::Concurrency => change.count("concurrency", &mut postgres.concurrency),
                GrowthKey::Cores => change.count("cores", &mut postgres.cores),
                _ => {}
            },
            StoreKind::Redis(redis) => match growth.what {
                GrowthKey::Capacity => change.count("capacity", &mut redis.capacity),
                GrowthKey::MaxRate => change.rate("max_rate", &mut redis.max_rate),
                _ => {}
            },
            StoreKind::Quorum(quorum) => match growth.what {
                GrowthKey::Nodes => change.count("nodes", &mut quorum.nodes),
                GrowthKey::Concurrency => change.count("concurrency", &mut quorum.concurrency),
                GrowthKey::Cores => change.count("cores", &mut quorum.cores),
                _ => {}
            },
        },
        Component::Topic(id) => {
            let topic = &mut system.topics[id.index()];
            match growth.what {
                GrowthKey::Partitions => change.count("partitions", &mut topic.partitions),
                GrowthKey::Capacity => change.count("capacity", &mut topic.capacity),
                _ => {}
            }
        }
        Component::Client(_) | Component::Lease(_) => {}
    }
}

struct Change<'c> {
    name: &'c str,
    growth: &'c Growth,
    factor: f64,
    changes: &'c mut Vec<String>,
}

impl Change<'_> {
    fn service(&mut self, service: &mut Service) {
        match self.growth.what {
            GrowthKey::Instances => {
                self.count("instances", &mut service.instances);
                if let Some(autoscale) = &mut service.autoscale {
                    self.count("autoscale.min", &mut autoscale.min);
                    self.count("autoscale.max", &mut autoscale.max);
                }
            }
            GrowthKey::Workers => self.count("workers", &mut service.workers),
            // A consumer's `concurrency` is its hidden service's workers.
            GrowthKey::Concurrency => self.count("concurrency", &mut service.workers),
            GrowthKey::Cores => self.count("cores", &mut service.cores),
            _ => {}
        }
    }

    fn count(&mut self, key: &str, count: &mut u32) {
        let before = *count;
        let wanted = (f64::from(before) * self.factor).ceil() as u32;
        *count = self.growth.max.map_or(wanted, |max| wanted.min(max)).max(before);
        if *count != before {
            let capped = if *count < wanted { " (its max)" } else { "" };
            self.changes.push(format!("{}.{key} {before} -> {count}{capped}", self.name));
        }
    }

    fn rate(&mut self, key: &str, rate: &mut f64) {
        let before = *rate;
        let wanted = before * self.factor;
        *rate = self.growth.max.map_or(wanted, |max| wanted.min(f64::from(max))).max(before);
        if *rate != before {
            let capped = if *rate < wanted { " (its max)" } else { "" };
            self.changes.push(format!("{}.{key} {before}/s -> {rate}/s{capped}", self.name));
        }
    }
}

/// What there is more of when there are more users.
fn data(system: &mut System, factor: f64) {
    for client in &mut system.clients {
        client.users = scaled(client.users, factor);
        for key in client.calls.iter_mut().filter_map(|call| call.key.as_mut()) {
            match key {
                KeyDist::Uniform { keys } | KeyDist::Zipf { keys, .. } | KeyDist::Hot { keys, .. } => {
                    *keys = scaled(*keys, factor);
                }
            }
        }
    }
    for keyspace in &mut system.keyspaces {
        keyspace.keys = scaled(keyspace.keys, factor);
    }
    for store in &mut system.stores {
        match &mut store.kind {
            StoreKind::Postgres(postgres) => postgres.storage = (postgres.storage as f64 * factor) as u64,
            StoreKind::Quorum(quorum) => quorum.storage = (quorum.storage as f64 * factor) as u64,
            StoreKind::Redis(_) => {}
        }
    }
}

/// Whether a number of a component is among those that can grow; the file's `growth:` is checked
/// by it.
pub(crate) fn can_grow(system: &System, component: Component, what: GrowthKey) -> bool {
    use GrowthKey::{
        Capacity, Concurrency, Cores, Instances, MaxConnections, MaxRate, Nodes, Partitions, Replicas, Shards, Workers,
    };
    match component {
        Component::Service(id) => match system.services[id.index()].kind {
            ServiceKind::Service => matches!(what, Instances | Workers | Cores),
            ServiceKind::Gateway(_) => matches!(what, Instances | Cores),
        },
        Component::Consumer(_) => matches!(what, Instances | Concurrency | Cores),
        Component::Store(id) => match system.stores[id.index()].kind {
            StoreKind::Postgres(_) => matches!(what, Replicas | Shards | MaxConnections | Concurrency | Cores),
            StoreKind::Redis(_) => matches!(what, MaxRate | Capacity),
            StoreKind::Quorum(_) => matches!(what, Nodes | Concurrency | Cores),
        },
        Component::Topic(_) => matches!(what, Partitions | Capacity),
        Component::Client(_) | Component::Lease(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, parse};

    fn file(growth: &str) -> System {
        let text = format!(
            "
system: growing
clients:
  c: {{ rate: 100/s, users: 50, calls: [ {{ endpoint: api GET /, key: uniform(1k) }} ] }}
services:
  api:
    instances: 3
    autoscale: {{ min: 2, max: 4 }}
    endpoints: {{ GET /: [ {{ query: db.read }}, {{ cache: redis, key: k }}, {{ publish: t }} ] }}
stores:
  db: {{ kind: postgres, replicas: 2, storage: 10GB, operations: {{ read: 1ms }} }}
  redis: {{ kind: redis }}
topics: {{ t: {{}} }}
consumers: {{ w: {{ topic: t, handler: 1ms, concurrency: 2 }} }}
growth: {growth}
"
        );
        parse(&Source::alone("growing.yaml", &text)).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn multiplies_what_the_file_names() {
        let system = file(
            "{ api.instances: { max: 7 }, db.replicas: linear, redis.max_rate: linear, w.concurrency: linear, w.instances: linear }",
        );
        let (grown, changes) = grow(&system, 2.5);
        assert_eq!(
            changes,
            [
                "api.instances 3 -> 7 (its max)",
                "api.autoscale.min 2 -> 5",
                "api.autoscale.max 4 -> 7 (its max)",
                "db.replicas 2 -> 5",
                "redis.max_rate 100000/s -> 250000/s",
                "w.concurrency 2 -> 5",
                "w.instances 1 -> 3",
            ]
        );
        assert_eq!(grown.consumers[0].instances, grown.services[1].instances);
    }

    #[test]
    fn users_and_data_grow_without_being_named_and_the_load_does_not() {
        let (grown, changes) = grow(&file("{}"), 10.0);
        assert!(changes.is_empty());
        assert_eq!(grown.clients[0].users, 500);
        assert_eq!(grown.keyspaces[0].keys, 10_000);
        let StoreKind::Postgres(postgres) = &grown.stores[0].kind else { panic!("a PostgreSQL") };
        assert_eq!(postgres.storage, 100_000_000_000);
        let crate::system::Arrivals::Open { rate, .. } = grown.clients[0].arrivals else { panic!("an open loop") };
        assert_eq!(rate, 100.0);
    }

    #[test]
    fn a_factor_of_one_or_none_changes_nothing() {
        let system = file("{ api.instances: linear }");
        for factor in [1.0, 0.5, 0.0, -1.0, f64::NAN] {
            let (grown, changes) = grow(&system, factor);
            assert!(changes.is_empty());
            assert_eq!(format!("{grown:?}"), format!("{system:?}"));
        }
    }
}
