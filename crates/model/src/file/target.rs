//! What a fault strikes and what a figure is about: `api`, `api/2`, `30% of api`, `primary of db`,
//! `zone a`, `api -> db`.

use super::decode::{Decoder, sort_of};
use super::quantity::share;
use super::suggest;
use super::tree::{Span, shorten};
use crate::system::{Component, EdgeId, MetricTarget, StoreId, Target};

impl Decoder<'_> {
    /// What a fault strikes.
    pub(super) fn target(&mut self, at: Span, text: &str) -> Option<Target> {
        if text.is_empty() {
            return None;
        }
        if let Some((from, to)) = text.split_once("->") {
            return self.edge_between(at, from.trim(), to.trim()).map(Target::Edge);
        }
        if let Some(zone) = text.strip_prefix("zone ") {
            let zone = zone.trim();
            let found = self.names.zone(zone);
            if found.is_none() {
                let known = self.names.zones.iter().map(String::as_str);
                super::names::unknown(at, "zone", zone, known, self.report);
            }
            return found.map(Target::Zone);
        }
        if let Some((what, of)) = text.split_once(" of ") {
            let (what, of) = (what.trim(), of.trim());
            let of_at = at.part(text.chars().count() - of.chars().count(), of.chars().count());
            match what {
                "primary" | "replicas" => {
                    let store = self.store_named(of_at, of)?;
                    return self.replicated(at, store, what);
                }
                _ => match share(what) {
                    Ok(0.0) => {
                        self.report.at(at, "0% is nothing".to_owned());
                        return None;
                    }
                    Ok(share) => return self.process_named(of_at, of).map(|id| Target::Share(id, share)),
                    Err(_) => {
                        let expected = "`primary of`, `replicas of` or a percentage `of`";
                        self.report.mismatch(at, expected, &format!("`{} of`", shorten(what)), None);
                        return None;
                    }
                },
            }
        }
        match text.split_once('/') {
            Some((name, number)) => {
                let (component, index) = self.instance(at, name, number)?;
                Some(Target::Instance(component, index))
            }
            None => self.component_named(at, text).map(Target::All),
        }
    }

    /// What a figure is about.
    pub(super) fn metric_target(&mut self, at: Span, text: &str) -> Option<MetricTarget> {
        if let Some((from, to)) = text.split_once("->") {
            return self.edge_between(at, from.trim(), to.trim()).map(MetricTarget::Edge);
        }
        match text.split_once('/') {
            Some((name, number)) => {
                let (component, index) = self.instance(at, name, number)?;
                Some(MetricTarget::Instance(component, index))
            }
            None => self.component_named(at, text).map(MetricTarget::Component),
        }
    }

    fn replicated(&mut self, at: Span, store: StoreId, what: &str) -> Option<Target> {
        let name = self.names.stores[store.index()].name;
        if !self.is_postgres(store) {
            self.report.at(at, format!("`{name}` has no {what}: it is not a PostgreSQL"));
            return None;
        }
        let replicas = self.names.stores[store.index()].filled.get("replicas").count();
        if what == "replicas" && replicas == 0 {
            self.report.at(at, format!("`{name}` has no replicas"));
            return None;
        }
        Some(if what == "primary" { Target::Primary(store) } else { Target::Replicas(store) })
    }

    /// `api/2`, counted from 1, as a component and a position from 0.
    pub(super) fn instance(&mut self, at: Span, name: &str, number: &str) -> Option<(Component, u32)> {
        let (name, number) = (name.trim(), number.trim());
        let component = self.process_named(at.part(0, name.chars().count()), name)?;
        let most = self.instances(component);
        match number.parse::<u32>() {
            Ok(index) if (1..=most).contains(&index) => Some((component, index - 1)),
            _ => {
                let what = if matches!(component, Component::Store(_)) { "nodes" } else { "instances" };
                let message = format!("`{name}` has {what} 1 to {most}, not `{}`", shorten(number));
                self.report.at(at, message);
                None
            }
        }
    }

    /// Instances of a service or consumer, as many as it may grow to; nodes of a store.
    fn instances(&self, component: Component) -> u32 {
        match (component, self.names.acting(component)) {
            (Component::Store(id), _) => self.nodes(id),
            (_, Component::Service(id)) => {
                let filled = self.names.services[id.index()].filled;
                let most = filled.maybe("autoscale").map_or(0, |autoscale| autoscale.get("max").count());
                filled.get("instances").count().max(most)
            }
            _ => 0,
        }
    }

    /// A service, consumer or store: something that runs as processes.
    pub(super) fn process_named(&mut self, at: Span, name: &str) -> Option<Component> {
        self.named(at, name, "service, consumer or store", |component| match component {
            Component::Service(_) | Component::Consumer(_) | Component::Store(_) => Some(component),
            _ => None,
        })
    }

    pub(super) fn component_named(&mut self, at: Span, name: &str) -> Option<Component> {
        self.named(at, name, "component", Some)
    }

    /// The edge between two components, who must be caller and called.
    pub(super) fn edge_between(&mut self, at: Span, from: &str, to: &str) -> Option<EdgeId> {
        let start = self.component_named(at.part(0, from.chars().count()), from)?;
        let end = self.component_named(at, to)?;
        let edge = self.existing_edge(start, end);
        // Where something was refused, that may have been the call.
        if edge.is_none() && self.report.is_empty() {
            let known = self.edge_names();
            let wanted = format!("{from} -> {to}");
            let reverse = self.existing_edge(end, start).is_some();
            let help = match reverse {
                true => format!("did you mean `{to} -> {from}`? The caller comes first"),
                false => suggest::help(&wanted, known.iter().map(String::as_str), "nothing calls anything"),
            };
            let message = format!("the {} `{from}` never calls the {} `{to}`", sort_of(start), sort_of(end));
            self.report.at(at, message).help(help);
        }
        edge
    }
}
