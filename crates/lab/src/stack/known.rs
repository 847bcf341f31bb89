//! Who is known to callers: instances of services, primaries of stores.

use std::net::SocketAddr;
use std::sync::PoisonError;

use super::{Part, Stack, StackError};
use crate::control::Order;
use crate::emulated::gateway::{addresses_file, edge_to};

impl Stack {
    /// The instances of a service that callers know of.
    pub fn members(&self, service: u32) -> Vec<u32> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize].clone()
    }

    /// Callers know of these instances from now on.
    pub async fn set_members(&self, service: u32, members: Vec<u32>) -> Result<(), StackError> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize] = members;
        self.write_addresses(service)?;
        // One after another: nobody is told last of what was true before.
        let _turn = self.telling.lock().await;
        for part in self.parts() {
            if self.takes_orders(part) {
                let _ = self.order(part, &Order::Members { service, instances: self.members(service) }).await;
            }
        }
        Ok(())
    }

    /// Tells a new process which instances of every service there are.
    pub async fn tell_members(&self, part: Part) {
        let _turn = self.telling.lock().await;
        for service in 0..self.system.services.len() as u32 {
            let _ = self.order(part, &Order::Members { service, instances: self.members(service) }).await;
        }
    }

    /// Writes the files that gateways look into.
    pub(super) fn write_addresses(&self, service: u32) -> std::io::Result<()> {
        let direct: Vec<SocketAddr> = self.layout.services[service as usize].iter().map(|place| place.main).collect();
        self.write(&addresses_file(service, None), service, &direct)?;
        for (gateway, places) in (0..).zip(&self.layout.services) {
            let edge = edge_to(&self.system, gateway, service).filter(|edge| self.layout.is_proxied(*edge));
            let Some(edge) = edge.filter(|_| self.system.services[gateway as usize].is_gateway()) else { continue };
            for instance in 0..places.len() as u32 {
                let callees = self.layout.callees(&self.system, edge, instance);
                self.write(&addresses_file(service, Some((gateway, instance))), service, &callees)?;
            }
        }
        Ok(())
    }

    /// Writes a file with the addresses of a service's instances that are known: whole or not at all.
    fn write(&self, name: &str, service: u32, places: &[SocketAddr]) -> std::io::Result<()> {
        let text: String = self.members(service).iter().map(|at| format!("{}\n", places[*at as usize])).collect();
        let path = self.directory().join(name);
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
