//! How parts' processes are started.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use plimsoll_model::system::{Component, EdgeId, ServiceId, StoreId};

use super::process::Kept;
use super::{Part, Stack, StackError, blocking};
use crate::emulated::Role;
use crate::layout::Place;
use crate::process::Spec;
use crate::route::acting;

impl Stack {
    /// Starts a part's process.
    pub async fn begin(&self, part: Part, role: Role) -> Result<(), StackError> {
        let mut arguments = self.launch.arguments.clone();
        arguments.push(self.file.display().to_string());
        arguments.push(self.directory().display().to_string());
        arguments.push(serde_json::to_string(&role).map_err(std::io::Error::other)?);
        let spec = Spec {
            // No name in the file has a dot: no two parts get one log.
            name: self.name(part).replace('/', "."),
            program: self.launch.program.display().to_string(),
            arguments,
            environment: if self.is_own(part) { self.environment(part) } else { BTreeMap::new() },
            // Where plimsoll was started: the reader's commands and paths are seen from there.
            folder: Some(".".to_owned()),
            ..Spec::default()
        };
        let (supervisor, before) = (self.supervisor.clone(), self.kept().get(&part).map(|of| of.process.clone()));
        let process = blocking(move || {
            // Of one that ended by itself, something that it started may be left, and have its port.
            let _ = before.map(|before| before.kill());
            supervisor.spawn(spec)
        });
        let process = process.await?;
        let mut kept = self.kept();
        match kept.get_mut(&part) {
            Some(known) => (known.process, known.role, known.leaving) = (process, role, false),
            None => {
                kept.insert(part, Kept { process, role, killed: 0, paused: 0, leaving: false });
            }
        }
        Ok(())
    }

    /// The reader's own command for an instance.
    pub(super) fn command(&self, part: Part) -> Option<String> {
        let Part::Instance(service, instance) = part else { return None };
        let command = self.system.services[service as usize].run.as_ref()?;
        let port = self.place(part).main.port();
        Some(command.replace("{port}", &port.to_string()).replace("{instance}", &(instance + 1).to_string()))
    }

    /// Where everything else is, for the reader's own commands: `PLIMSOLL_DB=127.0.0.1:1,127.0.0.1:2`.
    fn environment(&self, part: Part) -> BTreeMap<String, Option<String>> {
        let name = |name: &str| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            format!("PLIMSOLL_{}", name.chars().map(plain).collect::<String>())
        };
        let list =
            |places: Vec<SocketAddr>| Some(places.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","));
        let (caller, own) = match part {
            Part::Instance(service, instance) => (Some(service), instance),
            _ => (None, 0),
        };
        // As this instance finds it, where it calls it.
        let find = |to: Component, places: &[Place]| {
            let edges = self.system.edges.iter();
            let edge = edges.clone().position(|edge| edge.to == to && acting(&self.system, edge.from) == caller);
            match edge.filter(|_| caller.is_some()) {
                Some(edge) => self.layout.callees(&self.system, EdgeId::from(edge), own),
                None => places.iter().map(|place| place.main).collect(),
            }
        };
        let services = self.system.services.iter().zip(&self.layout.services).enumerate();
        let stores = self.system.stores.iter().zip(&self.layout.stores).enumerate();
        services
            .map(|(at, (service, places))| {
                let mut all = find(Component::Service(ServiceId::from(at)), places);
                all.truncate(service.instances as usize);
                (name(&service.name), list(all))
            })
            .chain(stores.map(|(at, (store, places))| {
                (name(&store.name), list(find(Component::Store(StoreId::from(at)), places)))
            }))
            .collect()
    }
}
