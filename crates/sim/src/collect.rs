//! What one replication leaves behind, in one shape for every component.

use plimsoll_model::run::{SubjectKind, Totals};
use plimsoll_model::system::{Component, ConsumerId, EdgeId, LeaseId, ServiceId, StoreId, StoreKind, TopicId};

use crate::component::redis::occupancy;
use crate::measure::{Audience, Counter, Gauge, GaugeSegment, Times};
use crate::world::{Happening, World};

/// One replication's record.
pub(crate) struct Sample {
    /// All clients, each client, each endpoint that clients call.
    pub(crate) audiences: Vec<Audience>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) log: Vec<Happening>,
    pub(crate) requests: u64,
    /// Requests that had not ended when the run was over.
    pub(crate) unfinished: u64,
}

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Component(Component),
    Instance(u32, u32),
    Node(u32, u32),
    Edge(u32),
}

/// One component's, instance's, node's or edge's record.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) of: Of,
    pub(crate) kind: SubjectKind,
    pub(crate) name: String,
    pub(crate) counter: Counter,
    pub(crate) times: Vec<Times>,
    /// What can be used up.
    pub(crate) resources: Vec<Resource>,
    pub(crate) waiting: Option<Level>,
    pub(crate) in_flight: Option<Level>,
    /// Figures of its own, by segment: `trips`, `ejections`, `hits`, `lookups`, `backlog`...
    pub(crate) extras: Vec<(&'static str, Vec<f64>)>,
}

/// Something of a component that can be used up.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) name: &'static str,
    pub(crate) capacity: f64,
    pub(crate) level: Level,
}

/// A gauge's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level {
    pub(crate) segments: Vec<GaugeSegment>,
    pub(crate) seconds: Vec<f32>,
}

impl Level {
    fn of(gauge: &Gauge) -> Self {
        Level { segments: gauge.segments.clone(), seconds: gauge.seconds.clone() }
    }

    fn sum(levels: impl IntoIterator<Item = Level>) -> Self {
        levels.into_iter().fold(Level::default(), |mut sum, level| {
            sum.segments.resize(sum.segments.len().max(level.segments.len()), GaugeSegment::default());
            for (sum, segment) in sum.segments.iter_mut().zip(&level.segments) {
                sum.area += segment.area;
                sum.max += segment.max;
            }
            sum.seconds.resize(sum.seconds.len().max(level.seconds.len()), 0.0);
            for (sum, second) in sum.seconds.iter_mut().zip(&level.seconds) {
                *sum += second;
            }
            sum
        })
    }

    /// The time average over segments of this length in all, ns.
    pub(crate) fn mean(&self, segments: &[usize], length: u64) -> f64 {
        segments.iter().filter_map(|&s| self.segments.get(s)).map(|s| s.area).sum::<f64>() / length.max(1) as f64
    }

    pub(crate) fn max(&self, segments: &[usize]) -> f64 {
        segments.iter().filter_map(|&s| self.segments.get(s)).map(|s| s.max).fold(0.0, f64::max)
    }
}

impl Sample {
    pub(crate) fn subject(&self, of: Of) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.of == of)
    }
}

impl Subject {
    fn new(of: Of, kind: SubjectKind, name: String, counter: &Counter) -> Self {
        Subject {
            of,
            kind,
            name,
            counter: counter.clone(),
            times: Vec::new(),
            resources: Vec::new(),
            waiting: None,
            in_flight: None,
            extras: Vec::new(),
        }
    }

    /// Counts over segments.
    pub(crate) fn totals(&self, segments: &[usize]) -> Totals {
        let mut sum = Totals::default();
        for totals in segments.iter().filter_map(|&s| self.counter.segments.get(s)) {
            sum.add(totals);
        }
        sum
    }

    /// A figure of its own over segments, summed.
    pub(crate) fn extra(&self, name: &str, segments: &[usize]) -> Option<f64> {
        let (_, values) = self.extras.iter().find(|(known, _)| *known == name)?;
        Some(segments.iter().filter_map(|&s| values.get(s)).sum())
    }

    /// The busiest of its resources over segments: name and busy share.
    pub(crate) fn utilization(&self, segments: &[usize], length: u64) -> Option<(&'static str, f64)> {
        self.resources
            .iter()
            .filter(|resource| resource.capacity > 0.0)
            .map(|resource| (resource.name, resource.level.mean(segments, length) / resource.capacity))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl World<'_> {
    /// Visits everything that is averaged over time or counted.
    pub(crate) fn each_measure(
        &mut self,
        mut gauge: impl FnMut(&mut Gauge, u64),
        mut counter: impl FnMut(&mut Counter),
    ) {
        let now = self.now;
        for service in &mut self.services {
            counter(&mut service.counter);
        }
        for instance in &mut self.instances {
            counter(&mut instance.counter);
            for g in [&mut instance.workers, &mut instance.cores, &mut instance.waiting, &mut instance.in_flight] {
                gauge(g, now);
            }
        }
        for end in &mut self.ends {
            counter(&mut end.counter);
            gauge(&mut end.in_flight, now);
            if let Some(connections) = &mut end.connections {
                gauge(&mut connections.used, now);
                gauge(&mut connections.queue, now);
            }
            for pool in &mut end.pools {
                gauge(&mut pool.used, now);
                gauge(&mut pool.queue, now);
            }
        }
        for store in &mut self.stores {
            counter(&mut store.counter);
        }
        for node in &mut self.nodes {
            counter(&mut node.counter);
            for g in [&mut node.busy, &mut node.waiting, &mut node.connected] {
                gauge(g, now);
            }
        }
        for topic in &mut self.topics {
            counter(&mut topic.counter);
            gauge(&mut topic.backlog, now);
        }
        for consumer in &mut self.consumers {
            counter(&mut consumer.counter);
            gauge(&mut consumer.backlog, now);
        }
        for lease in &mut self.leases {
            counter(&mut lease.counter);
            gauge(&mut lease.waiting, now);
        }
    }

    /// Sums up what was recorded once, where it first belonged.
    pub(crate) fn sum_up(&mut self) {
        for audience in &mut self.audiences {
            audience.sum_up(&self.groups);
        }
        for end in &mut self.ends {
            end.times.cut();
        }
        for instance in &mut self.instances {
            instance.times.cut();
            let service = &mut self.services[instance.service as usize];
            service.counter.add(&instance.counter);
            for (sum, times) in service.times.iter_mut().zip(&instance.times.ended) {
                sum.add(times);
            }
        }
        for node in &self.nodes {
            if !matches!(self.plan.system.stores[node.store as usize].kind, StoreKind::Quorum(_)) {
                self.stores[node.store as usize].counter.add(&node.counter);
            }
        }
    }

    /// Ends a replication.
    pub(crate) fn collect(mut self) -> Sample {
        let mut subjects = Vec::new();
        self.collect_services(&mut subjects);
        self.collect_stores(&mut subjects);
        self.collect_edges(&mut subjects);
        self.collect_messaging(&mut subjects);
        Sample {
            subjects,
            requests: self.requests,
            unfinished: self.unfinished,
            log: std::mem::take(&mut self.log),
            audiences: std::mem::take(&mut self.audiences),
        }
    }

    fn collect_services(&self, subjects: &mut Vec<Subject>) {
        let segments = self.plan.cuts.len();
        for (s, service) in self.plan.system.services.iter().enumerate() {
            let state = &self.services[s];
            let component = Component::Service(ServiceId(s as u32));
            let mut of_service =
                Subject::new(Of::Component(component), SubjectKind::Service, service.name.clone(), &state.counter);
            of_service.times = state.times.clone();
            let mut instances = Vec::new();
            for i in self.slots(s as u32) {
                let instance = &self.instances[i];
                let used =
                    instance.number < service.instances || instance.in_flight.segments.iter().any(|s| s.max > 0.0);
                if !used {
                    continue;
                }
                let mut subject = Subject::new(
                    Of::Instance(s as u32, instance.number),
                    SubjectKind::Instance,
                    self.instance_name(i as u32),
                    &instance.counter,
                );
                subject.times = instance.times.ended.clone();
                let (name, capacity) = if service.asynchronous {
                    ("max_in_flight", service.max_in_flight as f64)
                } else {
                    ("workers", service.workers as f64)
                };
                subject.resources.push(Resource { name, capacity, level: Level::of(&instance.workers) });
                subject.resources.push(Resource {
                    name: "cores",
                    capacity: service.cores as f64,
                    level: Level::of(&instance.cores),
                });
                subject.waiting = Some(Level::of(&instance.waiting));
                subject.in_flight = Some(Level::of(&instance.in_flight));
                instances.push(subject);
            }
            let count = instances.len().max(1) as f64;
            for at in 0..instances.first().map_or(0, |first: &Subject| first.resources.len()) {
                let first = &instances[0].resources[at];
                of_service.resources.push(Resource {
                    name: first.name,
                    capacity: first.capacity * count,
                    level: Level::sum(instances.iter().map(|i| i.resources[at].level.clone())),
                });
            }
            of_service.waiting = Some(Level::sum(instances.iter().filter_map(|i| i.waiting.clone())));
            of_service.in_flight = Some(Level::sum(instances.iter().filter_map(|i| i.in_flight.clone())));
            let up = self.wanted(s as u32) as f64;
            of_service.extras.push(("instances", vec![up; segments]));
            subjects.push(of_service);
            subjects.extend(instances);
        }
    }

    fn collect_stores(&self, subjects: &mut Vec<Subject>) {
        for (s, store) in self.plan.system.stores.iter().enumerate() {
            let state = &self.stores[s];
            let component = Component::Store(StoreId(s as u32));
            let mut of_store =
                Subject::new(Of::Component(component), SubjectKind::Store, store.name.clone(), &state.counter);
            let hits: Vec<f64> = state.hits.iter().map(|&(hits, _)| hits as f64).collect();
            let lookups: Vec<f64> = state.hits.iter().map(|&(_, lookups)| lookups as f64).collect();
            of_store.extras.push(("hits", hits));
            of_store.extras.push(("lookups", lookups));
            let mut nodes = Vec::new();
            for n in state.first..state.first + state.nodes {
                let node = &self.nodes[n as usize];
                let mut subject = Subject::new(
                    Of::Node(s as u32, n - state.first),
                    SubjectKind::Node,
                    self.node_name(n),
                    &node.counter,
                );
                match &store.kind {
                    StoreKind::Postgres(pg) => {
                        subject.resources.push(Resource {
                            name: "concurrency",
                            capacity: pg.concurrency as f64,
                            level: Level::of(&node.busy),
                        });
                        subject.resources.push(Resource {
                            name: "max_connections",
                            capacity: pg.max_connections as f64,
                            level: Level::of(&node.connected),
                        });
                    }
                    StoreKind::Quorum(quorum) => subject.resources.push(Resource {
                        name: "concurrency",
                        capacity: quorum.concurrency as f64,
                        level: Level::of(&node.busy),
                    }),
                    StoreKind::Redis(redis) => {
                        // Its thread is busy for a fixed time with each command.
                        let busy = node.slow.apply(occupancy(redis)) as f64;
                        let segments = node.counter.segments.iter();
                        subject.resources.push(Resource {
                            name: "max_rate",
                            capacity: 1.0,
                            level: Level {
                                segments: segments
                                    .map(|totals| GaugeSegment { area: totals.offered as f64 * busy, max: 1.0 })
                                    .collect(),
                                seconds: node
                                    .counter
                                    .seconds
                                    .iter()
                                    .map(|totals| (totals.offered as f64 * busy / 1e9) as f32)
                                    .collect(),
                            },
                        });
                    }
                }
                subject.waiting = Some(Level::of(&node.waiting));
                nodes.push(subject);
            }
            // A store is as busy as its busiest node: a hot shard is not helped by idle ones.
            let all: Vec<usize> = (1..self.plan.cuts.len()).collect();
            let length = self.plan.length(&all);
            let busiest = nodes.iter().max_by(|a, b| {
                let busy = |subject: &Subject| subject.utilization(&all, length).map_or(0.0, |(_, share)| share);
                busy(a).total_cmp(&busy(b))
            });
            of_store.resources = busiest.map(|node| node.resources.clone()).unwrap_or_default();
            of_store.waiting = Some(Level::sum(nodes.iter().filter_map(|node| node.waiting.clone())));
            subjects.push(of_store);
            subjects.extend(nodes);
        }
    }

    fn collect_edges(&self, subjects: &mut Vec<Subject>) {
        let segments = self.plan.cuts.len() + 1;
        for e in 0..self.plan.system.edges.len() {
            // Routes with policies of their own are edges of the same pair: one to those who read.
            let pair: Vec<u32> = self.plan.system.same_pair(EdgeId(e as u32)).map(|edge| edge.0).collect();
            if pair[0] != e as u32 {
                continue;
            }
            let ends: Vec<_> = self.ends.iter().filter(|end| pair.contains(&end.edge)).collect();
            let mut counter = Counter::default();
            let mut times = vec![Times::new(); segments];
            for end in &ends {
                counter.add(&end.counter);
                for (sum, of_end) in times.iter_mut().zip(&end.times.ended) {
                    sum.add(of_end);
                }
            }
            let name = self.plan.system.edge_name(EdgeId(e as u32));
            let mut subject = Subject::new(Of::Edge(e as u32), SubjectKind::Edge, name, &counter);
            subject.times = times;
            subject.in_flight = Some(Level::sum(ends.iter().map(|end| Level::of(&end.in_flight))));
            let pools: Vec<_> = ends.iter().flat_map(|end| &end.pools).collect();
            if !pools.is_empty() {
                // Pools of nodes that are not used, such as idle replicas', would hide a full one.
                let nodes = ends[0].pools.len();
                let of_node = |node: usize| ends.iter().filter_map(move |end| end.pools.get(node));
                let busiest = (0..nodes)
                    .map(|node| {
                        let level = Level::sum(of_node(node).map(|pool| Level::of(&pool.used)));
                        (of_node(node).map(|pool| pool.size as f64).sum::<f64>(), level)
                    })
                    .max_by(|a, b| {
                        let area = |level: &Level| level.segments.iter().skip(1).map(|s| s.area).sum::<f64>();
                        (area(&a.1) / a.0).total_cmp(&(area(&b.1) / b.0))
                    });
                if let Some((capacity, level)) = busiest {
                    subject.resources.push(Resource { name: "connections", capacity, level });
                }
                subject.waiting = Some(Level::sum(pools.iter().map(|pool| Level::of(&pool.queue))));
            }
            let bounded: Vec<_> = ends.iter().filter_map(|end| end.connections.as_deref()).collect();
            if let Component::Service(id) = self.plan.system.edges[e].to
                && let Some(first) = bounded.first()
            {
                let instances = self.plan.system.services[id.index()].instances;
                let capacity = f64::from(first.most) * f64::from(instances) * bounded.len() as f64;
                let level = Level::sum(bounded.iter().map(|connections| Level::of(&connections.used)));
                subject.resources.push(Resource { name: "connections", capacity, level });
                subject.waiting = Some(Level::sum(bounded.iter().map(|connections| Level::of(&connections.queue))));
            }
            let sum = |of: fn(&crate::component::edge::EdgeEnd) -> &Vec<u32>| -> Vec<f64> {
                (0..segments).map(|s| ends.iter().map(|end| of(end)[s] as f64).sum()).collect()
            };
            subject.extras.push(("trips", sum(|end| &end.trips)));
            subject.extras.push(("ejections", sum(|end| &end.ejections)));
            let sharing: Vec<_> = ends.iter().filter_map(|end| end.sharing.as_deref()).collect();
            if !sharing.is_empty() {
                let joined = |s: usize| sharing.iter().map(|sharing| f64::from(sharing.joined[s])).sum();
                subject.extras.push(("coalesced", (0..segments).map(joined).collect()));
            }
            subjects.push(subject);
        }
    }

    fn collect_messaging(&self, subjects: &mut Vec<Subject>) {
        for (t, topic) in self.plan.system.topics.iter().enumerate() {
            let state = &self.topics[t];
            let component = Component::Topic(TopicId(t as u32));
            let mut subject =
                Subject::new(Of::Component(component), SubjectKind::Topic, topic.name.clone(), &state.counter);
            subject.resources.push(Resource {
                name: "capacity",
                capacity: topic.capacity as f64,
                level: Level::of(&state.backlog),
            });
            subject.waiting = Some(Level::of(&state.backlog));
            subject.extras.push(("dead_letters", state.dead_letters.iter().map(|&n| n as f64).collect()));
            subjects.push(subject);
        }
        for (c, consumer) in self.plan.system.consumers.iter().enumerate() {
            let state = &self.consumers[c];
            let component = Component::Consumer(ConsumerId(c as u32));
            let mut subject =
                Subject::new(Of::Component(component), SubjectKind::Consumer, consumer.name.clone(), &state.counter);
            subject.times = state.times.clone();
            subject.waiting = Some(Level::of(&state.backlog));
            subjects.push(subject);
        }
        for (l, lease) in self.plan.system.leases.iter().enumerate() {
            let component = Component::Lease(LeaseId(l as u32));
            let state = &self.leases[l];
            let mut subject =
                Subject::new(Of::Component(component), SubjectKind::Lease, lease.name.clone(), &state.counter);
            subject.waiting = Some(Level::of(&state.waiting));
            subjects.push(subject);
        }
    }
}
