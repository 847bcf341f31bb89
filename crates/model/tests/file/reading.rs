//! What a file becomes.

use plimsoll_model::system::{
    Action, Arrivals, Bound, Component, Count, Dist, FaultKind, Indicator, Load, Metric, Phase, Process, Scalability,
    ServiceKind, StoreKind, Subject, Target,
};

use crate::{files, parse_text, small};

fn everything() -> plimsoll_model::system::System {
    let (name, bytes) = files().into_iter().find(|(name, _)| name.ends_with("everything.yaml")).expect("the fixture");
    parse_text(&bytes).unwrap_or_else(|problems| panic!("{name}: {}", problems.render(false)))
}

#[test]
fn components_have_the_order_of_the_file() {
    let system = everything();
    let names: Vec<&str> = system.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["edge", "api", "front", "small", "async", "activity", "index"]);
    assert_eq!(system.zones, ["a", "b", "c"]);
    assert_eq!(system.consumers[1].service.index(), 6);
    let hidden = &system.services[6];
    assert_eq!((hidden.instances, hidden.workers, hidden.endpoints[0].name.as_str()), (2, 4, "handle"));
    assert_eq!(system.component_name(Component::Topic(system.consumers[0].topic)), "note-created");
}

#[test]
fn a_gateway_has_the_endpoints_behind_it() {
    let system = everything();
    let ServiceKind::Gateway(routes) = &system.services[0].kind else { panic!("a gateway") };
    let names: Vec<&str> = system.services[0].endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["GET /notes/:id", "GET /notes", "POST /notes", "GET /report", "GET /front"]);
    for (position, route) in routes.iter().enumerate() {
        assert_eq!(route.endpoint as usize, position);
        assert_eq!(system.services[1].endpoints[route.to.index as usize].name, names[position]);
    }
    // A route's own policies are on an edge beside the first of the pair.
    let [own, shared] = [routes[0].edge, routes[2].edge].map(|edge| &system.edges[edge.index()]);
    assert_eq!((own.from, own.to), (shared.from, shared.to));
    assert_eq!(own.policies.pipeline.timeout, Some(std::time::Duration::from_secs(1)));
    assert_eq!(shared.policies.pipeline.timeout, Some(std::time::Duration::from_secs(60)));
    assert_eq!(system.same_pair(routes[0].edge).count(), 2);
    assert!(routes[0].cache.is_some() && routes[0].fallback && routes[2].cache.is_none());
    // What stands on a gateway is about what it gets; its calls have no such limit.
    assert!(system.services[0].rate_limit.is_some() && shared.policies.pipeline.rate_limit.is_none());
    // A request that an idempotency key guards may be repeated, whatever its method.
    assert!(system.services[0].endpoints[2].idempotent);
    assert_eq!(system.services[0].endpoints[0].response_size, 4096);
    assert!(system.services[0].asynchronous && system.services[0].queue.capacity == 100);
}

#[test]
fn every_call_has_an_edge() {
    let system = everything();
    let mut names: Vec<String> = (0..system.edges.len()).map(|index| system.edge_name(index.into())).collect();
    names.sort();
    names.dedup();
    assert_eq!(
        names,
        [
            "again -> edge",
            "api -> async",
            "api -> db",
            "api -> q",
            "api -> sessions",
            "api -> small",
            "batch -> api",
            "constant -> api",
            "edge -> api",
            "edge -> sessions",
            "front -> api",
            "index -> db",
            "recorded -> small",
            "web -> edge",
        ]
    );
}

#[test]
fn clients_without_a_timeout_get_one_and_services_get_none() {
    let system = parse_text(small(&[]).as_bytes()).unwrap();
    let timeouts: Vec<_> = system.edges.iter().map(|edge| edge.policies.pipeline.timeout).collect();
    assert_eq!(timeouts, [Some(std::time::Duration::from_secs(30)), None]);
    assert_eq!(system.edges[1].line, 0);
    assert_eq!(system.edges[0].policies.pipeline.retry, None);
}

#[test]
fn arrivals() {
    let system = everything();
    let Arrivals::Open { rate, process: Process::Bursty { peak, burst, quiet } } = system.clients[0].arrivals else {
        panic!("bursty")
    };
    assert_eq!((rate, peak, burst, quiet), (300.0, 5.0, 2e9, 18e9));
    let Arrivals::Closed { users: 50, think: Dist::Exponential { mean } } = system.clients[1].arrivals else {
        panic!("closed")
    };
    assert_eq!(mean, 2e9);
    let Arrivals::Trace { times, span } = &system.clients[2].arrivals else { panic!("a trace") };
    assert_eq!((&times[..], *span), (&[0, 1_000_000_000, 2_500_000_000][..], 3_750_000_000));
    assert!(matches!(system.clients[3].arrivals, Arrivals::Open { rate: 10.0, process: Process::Constant }));
}

#[test]
fn distributions() {
    let dist = |text: &str| {
        let system = parse_text(small(&[("query: db.read", &format!("work: {text}"))]).as_bytes());
        let system = system.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let Action::Work(dist) = system.services[0].endpoints[0].program[0].action.clone() else { panic!("work") };
        dist
    };
    assert_eq!(dist("5ms"), Dist::Constant(5_000_000));
    assert_eq!(dist("0.3ms"), Dist::Constant(300_000));
    assert_eq!(dist("1ms..3ms"), Dist::Uniform { low: 1_000_000, high: 3_000_000 });
    assert_eq!(dist("exp(5ms)"), Dist::Exponential { mean: 5e6 });
    assert_eq!(dist("60s ± 10%"), Dist::Uniform { low: 54_000_000_000, high: 66_000_000_000 });
    assert_eq!(dist("60s +- 10%"), dist("60s ± 10%"));
    assert_eq!(dist("{ p50: 4ms, p99: 40ms }"), Dist::lognormal_through(4e6, 40e6));
    assert_eq!(dist("{ mean: 4ms, cv: 0.5 }"), Dist::lognormal_mean_cv(4e6, 0.5));
    assert_eq!(dist("{ pareto: 1ms, alpha: 1.5 }"), Dist::Pareto { min: 1e6, alpha: 1.5 });
    // 0.1 ms to 10 ms in steps of 0.1 ms, in two intervals, recorded with three digits.
    let Dist::Empirical(steps) = dist("histogram(times.hlog)") else { panic!("recorded") };
    assert_eq!(steps.len(), 100);
    assert_eq!((steps[49].0, steps[99].0), (0.5, 1.0));
    assert!((5_000_000..5_005_000).contains(&steps[49].1), "{}", steps[49].1);
    let Dist::Empirical(scaled) = dist("{ histogram: times.hlog, unit: us }") else { panic!("recorded") };
    assert_eq!(scaled[49].1, steps[49].1 * 1_000);
}

#[test]
fn what_running_at_once_costs() {
    let system = everything();
    let law = |contention, coherency| Some(Scalability { contention, coherency });
    assert_eq!(system.services[1].scalability, law(0.01, 0.0001));
    assert_eq!(system.services[6].scalability, law(0.02, 0.0));
    assert_eq!(system.services[2].scalability, None);
    let StoreKind::Postgres(postgres) = &system.stores[0].kind else { panic!("a PostgreSQL") };
    assert_eq!(postgres.scalability, law(0.03, 0.001));
    // Alone, nobody is in the way: 1 + 0.01 x 9 + 0.0001 x 90.
    let law = system.services[1].scalability.unwrap();
    assert_eq!(law.stretch(1.0), 1.0);
    assert!((law.stretch(10.0) - 1.099).abs() < 1e-12);
}

#[test]
fn publishing_within_a_transaction_goes_through_an_outbox() {
    let text = |step: &str| {
        small(&[
            ("query: db.read", &format!("transaction: db\n          do: [ {step} ]\n        - publish: t")),
            ("stores:", "topics: { t: {} }\nstores:"),
        ])
    };
    let outboxes = |step: &str| {
        let system = parse_text(text(step).as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let program = &system.services[0].endpoints[0].program;
        let Action::Transaction { steps, .. } = &program[0].action else { panic!("a transaction") };
        [&steps[0], &program[1]].map(|step| matches!(step.action, Action::Publish { outbox: true, .. }))
    };
    assert_eq!(outboxes("{ publish: t }"), [true, false]);
    assert_eq!(outboxes("{ publish: t, outbox: false }"), [false, false]);
}

#[test]
fn steps() {
    let system = everything();
    let program = |endpoint: usize| &system.services[1].endpoints[endpoint].program;
    let Action::ForEach { count, limit, steps } = &program(1)[0].action else { panic!("for_each") };
    assert_eq!((*count, *limit, steps.len()), (Count::Uniform(5, 20), 4, 1));
    let Action::Parallel { branches, limit } = &program(3)[0].action else { panic!("parallel") };
    assert_eq!((branches[0].len(), branches[1].len(), *limit), (1, 2, 1));
    let Action::Choice(alternatives) = &program(3)[1].action else { panic!("choice") };
    assert_eq!((alternatives[0].0, alternatives[0].1.len(), alternatives[1].0), (9.0, 0, 1.0));
    assert_eq!(program(1)[1].optional.as_deref(), Some("suggestions"));
    assert_eq!(program(2)[0].line + 1, program(2)[1].line);
}

#[test]
fn keyspaces_have_as_many_keys_as_lead_to_them() {
    let keys = |client: &str, step: &str| {
        let text =
            small(&[("[ api GET / ]", client), ("query: db.read", step), ("stores:", "stores:\n  r: { kind: redis }")]);
        let system = parse_text(text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        system.keyspaces[0].keys
    };
    assert_eq!(keys("[ { endpoint: api, key: uniform(5k) } ]", "{ cache: r, key: k }"), 5_000);
    assert_eq!(
        keys("[ { endpoint: api, key: uniform(5k) }, { endpoint: api, key: uniform(7k) } ]", "{ cache: r, key: k }"),
        7_000
    );
    assert_eq!(keys("[ api ]", "{ cache: r, key: k }"), u32::MAX);
    assert_eq!(keys("[ api ]", "{ cache: r, key: k, keys: 1 }"), 1);
}

#[test]
fn locks_and_tables() {
    let system = everything();
    let operations = &system.stores[0].operations;
    assert_eq!(operations.iter().map(|operation| operation.table).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(operations[2].lock, plimsoll_model::system::Lock::Row);
    assert_eq!(operations[1].lock, plimsoll_model::system::Lock::None);
    let StoreKind::Postgres(postgres) = &system.stores[0].kind else { panic!("a PostgreSQL") };
    assert_eq!(postgres.concurrency, 20);
    assert_eq!(system.stores[1].operations[0].time, Dist::Constant(300_000));
    assert!(system.stores[1].operations[1].write);
}

#[test]
fn objectives() {
    let system = everything();
    assert_eq!(system.objectives[0].indicator, Indicator::Success);
    assert_eq!(system.objectives[0].subject, Subject::All);
    assert_eq!(system.objectives[0].target, 0.999);
    assert_eq!(system.objectives[1].indicator, Indicator::LatencyBelow(200_000_000));
    assert!(matches!(system.objectives[1].subject, Subject::Endpoint(_)));
    assert!(matches!(system.objectives[2].subject, Subject::Client(_)));
    let unstated = parse_text(small(&[]).as_bytes()).unwrap().objectives;
    assert_eq!(unstated.len(), 2);
    assert!(unstated.iter().all(|objective| !objective.stated && objective.line == 0));
}

#[test]
fn experiments() {
    let system = everything();
    let experiment = &system.experiments[0];
    assert_eq!((experiment.duration, experiment.warmup), (60_000_000_000, 10_000_000_000));
    let loads: Vec<&Load> = experiment.load.iter().map(|(_, load)| load).collect();
    assert_eq!(
        loads,
        [&Load::Ramp(100.0, 600.0), &Load::Users(100), &Load::Steps(vec![10.0, 20.0]), &Load::Rate(50.0)]
    );
    let texts: Vec<&str> = experiment.faults.iter().map(|fault| fault.text.as_str()).collect();
    assert_eq!(texts[..4], ["kill api/2", "kill primary of db", "pause 30% of api", "slow db by 5x"]);
    assert_eq!(texts[15], "crash between insert and publish of api");
    let FaultKind::Kill(Target::Instance(_, 1)) = experiment.faults[0].kind else { panic!("the second instance") };
    assert_eq!((experiment.faults[1].at, experiment.faults[1].until), (1_000_000_000, 6_000_000_000));
    let FaultKind::Slow { factor: 1.0, added: Dist::Exponential { .. }, target: Target::Edge(_) } =
        experiment.faults[4].kind
    else {
        panic!("an added delay")
    };
    assert!(matches!(experiment.faults[16].kind, FaultKind::Skew { by: -3_000_000_000, .. }));
    assert!(matches!(experiment.faults[18].kind, FaultKind::Surge { client: None, factor: 2.0 }));
    let flush = &experiment.faults[9];
    assert_eq!(flush.at, flush.until);

    let expect = &experiment.expect;
    assert_eq!(
        (expect[0].metric, expect[0].phase, expect[0].bound),
        (Metric::Errors(Subject::All), Phase::Whole, Bound::Below(0.001))
    );
    assert!(matches!(expect[4].metric, Metric::Percentile(99.9, Subject::Endpoint(_))));
    assert_eq!((expect[4].phase, expect[4].bound), (Phase::During, Bound::AtMost(2e9)));
    assert_eq!(expect[8].bound, Bound::Below(1.5));
    assert!(matches!(expect[9].metric, Metric::Share(_, 0)));
    assert_eq!(expect[9].bound, Bound::Between(0.45, 0.55));
    assert_eq!(expect[10].phase, Phase::End);
    assert_eq!(expect[9].text, "share(api/1) during fault between 45% and 55%");
}

#[test]
fn lines_point_into_the_file() {
    let (_, bytes) = files().into_iter().find(|(name, _)| name.ends_with("everything.yaml")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let line = |number: u32| text.lines().nth(number as usize - 1).unwrap().trim();
    let system = everything();
    assert_eq!(line(system.services[1].line), "api:");
    assert_eq!(line(system.services[1].endpoints[0].line), "GET /notes/:id:");
    assert_eq!(line(system.stores[2].line), "q:");
    assert_eq!(line(system.experiments[0].faults[3].line), "- { at: 1s, slow: db, by: 5x, until: 6s }");
    assert_eq!(line(system.experiments[0].expect[3].line), "- p(95) < 100ms");
    assert_eq!(
        line(system.objectives[1].line),
        "- { name: fast, indicator: latency(edge GET /notes/:id) < 200ms, target: 99% }"
    );
}
