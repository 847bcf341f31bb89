//! Who is known to callers: instances of services, primaries of stores.

use std::net::SocketAddr;
use std::sync::PoisonError;

use super::{Stack, StackError};
use crate::control::Order;
use crate::emulated::gateway::addresses_file;

impl Stack {
    /// The instances of a service that callers know of.
    pub fn members(&self, service: u32) -> Vec<u32> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize].clone()
    }

    /// Where they are.
    pub fn addresses(&self, service: u32) -> Vec<SocketAddr> {
        let places = &self.layout.services[service as usize];
        self.members(service).into_iter().map(|at| places[at as usize].main).collect()
    }

    /// Callers know of these instances from now on.
    pub async fn set_members(&self, service: u32, members: Vec<u32>) -> Result<(), StackError> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize] = members.clone();
        self.write_addresses(service)?;
        let order = Order::Members { service, instances: members };
        for part in self.parts() {
            if self.takes_orders(part) {
                let _ = self.order(part, &order).await;
            }
        }
        Ok(())
    }

    /// Writes the file that gateways look into: whole or not at all.
    pub(super) fn write_addresses(&self, service: u32) -> std::io::Result<()> {
        let text: String = self.addresses(service).iter().map(|address| format!("{address}\n")).collect();
        let path = self.directory().join(addresses_file(service));
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }

    /// A store's primaries by shard, with their timelines.
    pub fn primaries(&self, store: u32) -> Vec<(u32, u32)> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)[store as usize].clone()
    }

    /// Another node is a shard's primary from now on.
    pub fn set_primary(&self, store: u32, shard: u32, node: u32, timeline: u32) {
        let mut primaries = self.primaries.lock().unwrap_or_else(PoisonError::into_inner);
        primaries[store as usize][shard as usize] = (node, timeline);
    }
}
