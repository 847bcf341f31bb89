//! Names of instances and nodes, as files and reports give them.

use plimsoll_model::system::{StoreKind, System};

/// An instance: `api/2`.
pub fn instance(system: &System, service: u32, instance: u32) -> String {
    format!("{}/{}", system.services[service as usize].name, instance + 1)
}

/// A node of a store: `db/primary`, `db/replica-1`, `db/shard-2/primary`, `sessions/1`.
pub fn node(system: &System, store: u32, node: u32) -> String {
    let of = &system.stores[store as usize];
    let name = &of.name;
    match &of.kind {
        StoreKind::Redis(_) | StoreKind::Quorum(_) => format!("{name}/{}", node + 1),
        StoreKind::Postgres(pg) => {
            let (shard, number) = (node / (1 + pg.replicas), node % (1 + pg.replicas));
            let role = if number == 0 { "primary".to_owned() } else { format!("replica-{number}") };
            if pg.shards > 1 { format!("{name}/shard-{}/{role}", shard + 1) } else { format!("{name}/{role}") }
        }
    }
}
