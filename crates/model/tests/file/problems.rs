//! What a reader is told, word for word. `UPDATE_EXPECT=1` writes the expected texts anew.

use expect_test::{Expect, expect};

use crate::{parse_text, small};

/// Every problem of the small file after these changes, one a line, with its help.
fn check(changes: &[(&str, &str)], expected: Expect) {
    let problems = parse_text(small(changes).as_bytes()).expect_err("problems");
    let lines: Vec<String> = problems
        .list
        .iter()
        .map(|problem| {
            let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}:{} {}: {}{help}\n", problem.line, problem.column, problem.path, problem.message)
        })
        .collect();
    expected.assert_eq(&lines.concat());
}

/// One change, given as a line to put behind `rate: 10/s` of the client.
fn client(line: &str, expected: Expect) {
    check(&[("rate: 10/s\n", &format!("rate: 10/s\n    {line}\n"))], expected);
}

fn service(line: &str, expected: Expect) {
    check(&[("  api:\n", &format!("  api:\n    {line}\n"))], expected);
}

fn step(step: &str, expected: Expect) {
    check(&[("query: db.read", step)], expected);
}

fn experiment(body: &str, expected: Expect) {
    check(&[("stores:", &format!("experiments:\n  e: {{ for: 60s, {body} }}\nstores:"))], expected);
}

#[test]
fn renders_the_line_and_a_mark() {
    let problems = parse_text(small(&[("rate: 10/s", "rate: 10")]).as_bytes()).unwrap_err();
    expect![[r#"
        error: expected a rate above 0 such as `300/s`, found `10`: the unit is missing
         --> test.yaml:4:11
          |
        4 |     rate: 10
          |           ^^
          = at: clients.web.rate
          = help: `10/s` is by the second

        1 problem in test.yaml
    "#]]
    .assert_eq(&problems.render(false));
    expect![[r#"
        [1;31merror[0m[1m: expected a rate above 0 such as `300/s`, found `10`: the unit is missing[0m
         [1;34m-->[0m test.yaml:4:11
          [1;34m|[0m
        [1;34m4[0m [1;34m|[0m     rate: 10
          [1;34m|[0m           [1;31m^^[0m
          [1;34m=[0m [1;36mat[0m: clients.web.rate
          [1;34m=[0m [1;36mhelp[0m: `10/s` is by the second

        1 problem in test.yaml
    "#]]
    .assert_eq(&problems.render(true));
    expect![
        "test.yaml:4:11: clients.web.rate: expected a rate above 0 such as `300/s`, found `10`: the unit is missing"
    ]
    .assert_eq(&problems.to_string());
}

#[test]
fn all_problems_come_at_once() {
    check(
        &[
            ("rate: 10/s", "rat: 10/s"),
            ("GET /:", "GRT /:"),
            ("db.read", "db.raed"),
            ("read: 1ms", "read: 1"),
            ("postgres", "postgers"),
        ],
        expect![[r#"
            4:5 clients.web.rat: client has no key `rat` (did you mean `rate`?)
            5:18 clients.web.calls[0]: there is no endpoint of `api` called `GET /` (did you mean `GRT /`?)
            13:11 stores.db.kind: expected the kind of a store: `postgres`, `redis` or `quorum`, found `postgers` (did you mean `postgres`?)
        "#]],
    );
    check(
        &[("rate: 10/s", "rate: ten"), ("db.read", "db.raed"), ("read: 1ms", "read: 1 ms")],
        expect![[r#"
        4:11 clients.web.rate: expected a rate above 0 such as `300/s`, found `ten`: it has no `/`, as in `/s`
        10:21 services.api.endpoints.GET /[0].query: there is no operation of `db` called `raed` (did you mean `read`?)
        15:13 stores.db.operations.read: expected a duration or a distribution of durations such as `5ms`, `1ms..3ms`, `exp(5ms)`, `60s ± 10%` or `{ p50: 4ms, p99: 40ms }`, found `1 ms`: there is a space before the unit (write `1ms`)
    "#]],
    );
}

#[test]
fn keys() {
    client(
        "timeoutt: 5s",
        expect![[r#"
        5:5 clients.web.timeoutt: client has no key `timeoutt` (did you mean `timeout`?)
    "#]],
    );
    service(
        "wrokers: 5",
        expect![[r#"
        8:5 services.api.wrokers: service has no key `wrokers` (did you mean `workers`?)
    "#]],
    );
    service(
        "<<: *x",
        expect![[r#"
        8:9 : this is not YAML: while parsing node, found unknown anchor (check the indentation and that brackets and quotes are closed)
    "#]],
    );
    service(
        "<<: { a: 1 }",
        expect![[r#"
        8:5 services.api.<<: service has no key `<<` (merge keys belong to YAML 1.1; write the keys out)
    "#]],
    );
    check(
        &[("    rate: 10/s\n", "")],
        expect![[r#"
        4:5 clients.web.calls: the client asks for nothing: it has no `rate` (`rate: 300/s` is an open loop; `users: 500` with `think: exp(2s)` a closed one)
    "#]],
    );
    check(
        &[("    calls: [ api GET / ]\n", "")],
        expect![[r#"
        4:5 clients.web.rate: the key `calls` is missing: what is called, each with its share
    "#]],
    );
    check(
        &[("clients:", "clientes:")],
        expect![[r#"
        2:1 clientes: system_file has no key `clientes` (did you mean `clients`?)
    "#]],
    );
    client(
        "rate: 20/s",
        expect![[r#"
        5:5 clients.web.rate: the key `rate` is here twice (it first stands on line 4)
    "#]],
    );
    client(
        "retry:",
        expect![[r#"
        5:10 clients.web.retry: expected a mapping (retry), found nothing
    "#]],
    );
    client(
        "retry: [3]",
        expect![[r#"
        5:12 clients.web.retry: expected a mapping (retry), found a list of 1
    "#]],
    );
}

#[test]
fn units() {
    client(
        "timeout: 5",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `5`: the unit is missing (`5s` are seconds, `5ms` milliseconds)
    "#]],
    );
    client(
        "timeout: 5 s",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `5 s`: there is a space before the unit (write `5s`)
    "#]],
    );
    client(
        "timeout: 5sec",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `5sec`: seconds are `s` (write `5s`)
    "#]],
    );
    client(
        "timeout: 5parsec",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `5parsec`: `parsec` is not a unit of time: ns, us, ms, s, min, h, d or w
    "#]],
    );
    client(
        "timeout: -5s",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `-5s`: it must not be negative
    "#]],
    );
    client(
        "timeout: 0s",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `0s`: it must be above 0
    "#]],
    );
    client(
        "timeout: 0.0000000001ns",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `0.0000000001ns`: it is shorter than a nanosecond
    "#]],
    );
    client(
        "timeout: 99999999999999d",
        expect![[r#"
        5:14 clients.web.timeout: expected a duration above 0 such as `5s`, found `99999999999999d`: it is longer than 100 years
    "#]],
    );
    client(
        "users: 1_000",
        expect![[r#"
        5:12 clients.web.users: expected a whole number from 1 such as `3`, found `1_000`: a number without a unit is needed, not `_000`
    "#]],
    );
    client(
        "users: 1,000",
        expect![[r#"
        5:12 clients.web.users: expected a whole number from 1 such as `3`, found `1,000`: a number without a unit is needed, not `,000`
    "#]],
    );
    client(
        "users: 10K",
        expect![[r#"
        5:12 clients.web.users: expected a whole number from 1 such as `3`, found `10K`: thousands are `k` (write `10k`)
    "#]],
    );
    client(
        "users: 1.5",
        expect![[r#"
        5:12 clients.web.users: expected a whole number from 1 such as `3`, found `1.5`: it is not whole
    "#]],
    );
    client(
        "users: 5G",
        expect![[r#"
        5:12 clients.web.users: expected a whole number from 1 such as `3`, found `5G`: it is above 4,294,967,295
    "#]],
    );
    service(
        "workers: 5ms",
        expect![[r#"
        8:14 services.api.workers: expected a whole number from 1 such as `3`, found `5ms`: a number without a unit is needed, not `ms`
    "#]],
    );
    service(
        "memory: 512",
        expect![[r#"
        8:13 services.api.memory: expected a size such as `2KiB`, found `512`: the unit is missing (`512B` are bytes, `512KiB` 1024 of them)
    "#]],
    );
    service(
        "memory: 512M",
        expect![[r#"
        8:13 services.api.memory: expected a size such as `2KiB`, found `512M`: `M` is not a unit of size: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB
    "#]],
    );
    service(
        "async: yes",
        expect![[r#"
        8:12 services.api.async: expected `true` or `false`, found `yes`: YAML 1.2 has only two of these (write `true`)
    "#]],
    );
    check(
        &[("rate: 10/s", "rate: 10/sec")],
        expect![[r#"
        4:11 clients.web.rate: expected a rate above 0 such as `300/s`, found `10/sec`: `/sec` is not a unit: /s, /min, /h or /d
    "#]],
    );
    check(
        &[("rate: 10/s", "rate: 0/s")],
        expect![[r#"
        4:11 clients.web.rate: expected a rate above 0 such as `300/s`, found `0/s`: it must be above 0
    "#]],
    );
    client(
        "breaker: { failure_rate: 0.5 }",
        expect![[r#"
        5:30 clients.web.breaker.failure_rate: expected a percentage above 0%, up to 100% such as `10%`, found `0.5`: the sign `%` is missing (write `0.5%`)
    "#]],
    );
    client(
        "breaker: { failure_rate: 150% }",
        expect![[r#"
        5:30 clients.web.breaker.failure_rate: expected a percentage above 0%, up to 100% such as `10%`, found `150%`: it is above 100%
    "#]],
    );
    client(
        "breaker: { failure_rate: 0% }",
        expect![[r#"
        5:30 clients.web.breaker.failure_rate: expected a percentage above 0%, up to 100% such as `10%`, found `0%`: it must be above 0%
    "#]],
    );
    step(
        "work: 3ms..1ms",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: expected a duration or a distribution of durations such as `5ms`, `1ms..3ms`, `exp(5ms)`, `60s ± 10%` or `{ p50: 4ms, p99: 40ms }`, found `3ms..1ms`: the first is longer than the second
    "#]],
    );
    step(
        "work: exp(0s)",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: expected a duration or a distribution of durations such as `5ms`, `1ms..3ms`, `exp(5ms)`, `60s ± 10%` or `{ p50: 4ms, p99: 40ms }`, found `exp(0s)`: the mean must be above 0
    "#]],
    );
    step(
        "work: normal(5ms)",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: expected a duration or a distribution of durations such as `5ms`, `1ms..3ms`, `exp(5ms)`, `60s ± 10%` or `{ p50: 4ms, p99: 40ms }`, found `normal(5ms)`: `normal` is not a distribution: exp or histogram
    "#]],
    );
    step(
        "work: { p50: 5ms, p99: 1ms }",
        expect![[r#"
        10:34 services.api.endpoints.GET /[0].work.p99: the 99th percentile is below the median
    "#]],
    );
    step(
        "work: { p50: 5ms }",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: the key `p99` is missing: the 99th percentile
    "#]],
    );
    step(
        "work: histogram(gone.hlog)",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: cannot read `gone.hlog`: no such file
    "#]],
    );
    step(
        "work: histogram(arrivals.csv)",
        expect![[r#"
        10:17 services.api.endpoints.GET /[0].work: `arrivals.csv` is not a histogram log: entry 1 is malformed
    "#]],
    );
    check(
        &[("rate: 10/s", "arrivals: trace(gone.csv)")],
        expect![[r#"
        4:15 clients.web.arrivals: cannot read `gone.csv`: no such file
    "#]],
    );
}

#[test]
fn policies_refuse_in_the_files_words() {
    client(
        "retry: { attempts: 101 }",
        expect![[r#"
        5:24 clients.web.retry.attempts: expected `attempts` to be from 1 to 100, found `101`
    "#]],
    );
    client(
        "retry: { backoff: 2s..1s }",
        expect![[r#"
        5:23 clients.web.retry.backoff: expected a duration, or a first and a longest one such as `100ms..2s`, found `2s..1s`: the first is longer than the second
    "#]],
    );
    client(
        "breaker: { open_for: 2min, open_for_max: 1min }",
        expect![[r#"
        5:46 clients.web.breaker.open_for_max: expected `open_for_max` to be at least `open_for`, found `1min`
    "#]],
    );
    client(
        "limit: { min: 50, max: 20 }",
        expect![[r#"
        5:28 clients.web.limit.max: expected `max` to be at least min, found `20`
    "#]],
    );
    client(
        "limit: { algorithm: aimd, tolerance: 2 }",
        expect![[r#"
        5:31 clients.web.limit.tolerance: `tolerance` plays a part only where `algorithm` is `gradient`
    "#]],
    );
    client(
        "balance: least_conections",
        expect![[r#"
        5:14 clients.web.balance: expected one of `round_robin`, `weighted`, `least_connections`, `ip_hash`, `ring`, `maglev` or `p2c`, found `least_conections` (did you mean `least_connections`?)
    "#]],
    );
    client(
        "balance: { ewma_decay: 1s }",
        expect![[r#"
        5:16 clients.web.balance.ewma_decay: `ewma_decay` plays a part only where an algorithm is `p2c`
    "#]],
    );
    client(
        "health: { path: health, every: 1s, timeout: 2s }",
        expect![[r#"
        5:21 clients.web.health.path: expected a path that starts with `/`, found `health`
        5:49 clients.web.health.timeout: expected `timeout` to be above zero, at most `every`, found `2s`
    "#]],
    );
    client(
        "hedge: { percentile: 40% }",
        expect![[r#"
        5:26 clients.web.hedge.percentile: expected `percentile` to be at least 0.5, below 1, found `40%`
    "#]],
    );
    client(
        "retry: { budget: 10% }\n    hedge: { budget: 10% }",
        expect![[r#"
        6:22 clients.web.hedge.budget: retries and hedges share one budget: state it in `retry`
    "#]],
    );
    client(
        "per_try_timeout: 1min",
        expect![[r#"
        5:22 clients.web.per_try_timeout: `per_try_timeout` is longer than `timeout`, and so never acts
    "#]],
    );
    service(
        "rate_limit: { per: user }",
        expect![[r#"
        8:17 services.api.rate_limit: the key `quota` is missing: requests in a stretch of time, such as `100/min`
    "#]],
    );
    service(
        "rate_limit: { quota: 10/s, store: db }",
        expect![[r#"
        8:39 services.api.rate_limit.store: `db` cannot share counts: it is not a Redis
    "#]],
    );
    service(
        "rate_limit: { quota: 10/s, store_down: closed }",
        expect![[r#"
        8:32 services.api.rate_limit.store_down: `store_down` plays a part only beside `store`
    "#]],
    );
    service(
        "queue: { size: 5, target: 3ms }",
        expect![[r#"
        8:23 services.api.queue.target: `target` plays a part only where `discipline` is `codel` or `adaptive_lifo`
    "#]],
    );
    service(
        "degradation: { levels: [ { name: a, enter: 50%, leave: 60%, reject: [GET /x], skip: [y] } ] }",
        expect![[r#"
        8:60 services.api.degradation.levels[0].leave: `leave` must be below `enter`, or the level would flap
        8:74 services.api.degradation.levels[0].reject[0]: there is no endpoint `GET /x` (did you mean `GET /`?)
        8:90 services.api.degradation.levels[0].skip[0]: there is no optional step `y` (the file has none)
    "#]],
    );
    service(
        "autoscale: { min: 2, max: 5 }",
        expect![[r#"
        8:5 services.api.autoscale: `instances` must be from 2 to 5, as `autoscale` says
    "#]],
    );
    service(
        "scalability: { contention: 0% }",
        expect![[r#"
        8:18 services.api.scalability: it changes nothing: state `contention` or `coherency` above 0%, or leave it out
    "#]],
    );
    service(
        "scalability: { contention: 1% }",
        expect![[r#"
        8:18 services.api.scalability: it changes nothing: there is no `work` and no `wait` that could take longer
    "#]],
    );
    service(
        "max_in_flight: 5",
        expect![[r#"
        8:5 services.api.max_in_flight: `max_in_flight` plays a part only where `async` is `true`
    "#]],
    );
}

#[test]
fn names() {
    check(
        &[("api GET /", "apo GET /")],
        expect![[r#"
        5:14 clients.web.calls[0]: there is no service `apo` (did you mean `api`?)
    "#]],
    );
    check(
        &[("api GET /", "api GET /x")],
        expect![[r#"
        5:18 clients.web.calls[0]: there is no endpoint of `api` called `GET /x` (did you mean `GET /`?)
    "#]],
    );
    check(
        &[("api GET /", "db GET /")],
        expect![[r#"
        5:14 clients.web.calls[0]: expected a service, but `db` is a store (there is `api`)
    "#]],
    );
    check(
        &[("  db:", "  api:")],
        expect![[r#"
        10:18 services.api.endpoints.GET /[0].query: there is no store `db` (the file has none)
        12:3 stores.api: the name `api` is taken (line 7 has it too; every component has a name of its own)
    "#]],
    );
    check(
        &[("  db:", "  all:")],
        expect![[r#"
        10:18 services.api.endpoints.GET /[0].query: there is no store `db` (there is `all`)
        12:3 stores.all: expected a store's name, found `all`: the word has a meaning of its own
    "#]],
    );
    check(
        &[("  db:", "  d b:")],
        expect![[r#"
        10:18 services.api.endpoints.GET /[0].query: there is no store `db` (did you mean `d b`?)
        12:3 stores.d b: expected a store's name, found `d b`: ` ` is not allowed in a name
    "#]],
    );
    check(
        &[("db.read", "db.write")],
        expect![[r#"
        10:21 services.api.endpoints.GET /[0].query: there is no operation of `db` called `write` (there is `read`)
    "#]],
    );
    check(
        &[("db.read", "dc.read")],
        expect![[r#"
        10:18 services.api.endpoints.GET /[0].query: there is no store `dc` (there is `db`)
    "#]],
    );
    step(
        "call: api GET /",
        expect![[r#"
        10:9 services.api.endpoints.GET /: calls in a circle: api GET / -> api GET / (a request that waits for itself never ends; publish a message instead, or merge the two)
    "#]],
    );
    step(
        "publish: topic",
        expect![[r#"
        10:20 services.api.endpoints.GET /[0].publish: there is no topic `topic` (the file has none)
    "#]],
    );
    step(
        "lease: x",
        expect![[r#"
        10:11 services.api.endpoints.GET /[0].lease: the key `do` is missing: steps within it
        10:18 services.api.endpoints.GET /[0].lease: there is no lease `x` (the file has none)
    "#]],
    );
    step(
        "{ cache: db, key: k }",
        expect![[r#"
        10:20 services.api.endpoints.GET /[0].cache: `db` cannot cache: it is not a Redis
    "#]],
    );
    step(
        "{ query: db.read, call: api }",
        expect![[r#"
        10:29 services.api.endpoints.GET /[0].call: a step has either `query` or `call`, not both (write one entry for each)
    "#]],
    );
    step(
        "qurey: db.read",
        expect![[r#"
        10:11 services.api.endpoints.GET /[0].qurey: expected a step with one of `work`, `wait`, `fail`, `call`, `query`, `cache`, `write_through`, `write_behind`, `invalidate`, `transaction`, `publish`, `parallel`, `for_each`, `choice`, `fallback` or `lease`, found `qurey` (did you mean `query`?)
    "#]],
    );
    service(
        "calls: { bd: { timeout: 1s } }",
        expect![[r#"
        8:14 services.api.calls.bd: `api` never calls `bd` (there is `db`)
    "#]],
    );
    service(
        "calls: { db: { balance: p2c } }",
        expect![[r#"
        8:29 services.api.calls.db.balance: `balance` plays no part in calls to a store (a store's connections are bounded by its `pool`)
    "#]],
    );
    check(
        &[("system: small", "system: small\nowner: me\nowners: { team: {} }")],
        expect![[r#"
        2:8 owner: there is no owner `me` (there is `team`)
    "#]],
    );
    check(
        &[("stores:", "growth: { api.instnaces: linear, db.workers: linear, x.y: linear, z: linear }\nstores:")],
        expect![[r#"
        11:15 growth.api.instnaces: `api` has no number `instnaces` that can grow (did you mean `instances`?)
        11:37 growth.db.workers: `db` has no number `workers` that can grow (there is `cores`, `replicas`, `shards`, `max_connections` and `concurrency`)
        11:54 growth.x.y: there is no component that can grow `x` (there is `api` and `db`)
        11:67 growth.z: expected a component and one of its numbers, found `z`: it has the form `api.instances`
    "#]],
    );
    check(
        &[("stores:", "prices: { vcpus: $1/h, memory: $1/h, postgres: 1 }\nstores:")],
        expect![[r#"
        11:11 prices.vcpus: prices has no key `vcpus` (did you mean `vcpu`?)
        11:32 prices.memory: expected a price in US$ `/GB-h`, found `$1/h`: it does not end in `/GB-h`
        11:48 prices.postgres: expected a price in US$ `/h`, found `1`: it does not start with `$`
    "#]],
    );
    check(
        &[("  api:\n", "  gw: { kind: gateway }\n  api:\n")],
        expect![[r#"
        7:7 services.gw: the gateway leads nowhere: it has no `upstream` and no `routes`
    "#]],
    );
    check(
        &[("  api:\n", "  gw: { kind: gateway, routes: [ { match: \"POST *\", to: api } ] }\n  api:\n")],
        expect![[r#"
        7:43 services.gw.routes[0].match: there is no endpoint of `api` that matches `POST *` (there is `GET /`)
    "#]],
    );
    check(
        &[("  api:\n", "  a: { kind: gateway, upstream: b }\n  b: { kind: gateway, upstream: a }\n  api:\n")],
        expect![[r#"
        8:33 services.b.upstream: gateways in a circle: `a` leads back here
    "#]],
    );
}

#[test]
fn circles() {
    let other = "  api:\n    endpoints:\n      GET /:\n        - call: other\n  other:\n    endpoints:\n      GET /:\n        - call: api\n  third:\n";
    check(
        &[("  api:\n", other)],
        expect![[r#"
        14:9 services.other.endpoints.GET /: calls in a circle: api GET / -> other GET / -> api GET / (a request that waits for itself never ends; publish a message instead, or merge the two)
    "#]],
    );
}

#[test]
fn stores() {
    check(
        &[("kind: postgres", "kind: postgres\n    reads: replicas")],
        expect![[r#"
        14:12 stores.db.reads: reading from replicas needs `replicas`, and there are none
    "#]],
    );
    check(
        &[("kind: postgres", "kind: postgres\n    reads: { max_lag: 1s }")],
        expect![[r#"
        14:14 stores.db.reads.max_lag: `max_lag` plays a part only where reads come `from: replicas`
    "#]],
    );
    check(
        &[("kind: postgres", "kind: postgres\n    pool: 200")],
        expect![[r#"
        14:11 stores.db.pool: one instance's pool alone exceeds `max_connections`
    "#]],
    );
    check(
        &[("kind: postgres", "kind: quorum\n    nodes: 3\n    read: 4")],
        expect![[r#"
        15:11 stores.db.read: `read: 4` can never be met by 3 nodes
    "#]],
    );
    check(
        &[("    kind: postgres\n", "")],
        expect![[r#"
        13:5 stores.db.operations: the key `kind` of a store is missing: `postgres`, `redis` or `quorum`
    "#]],
    );
    check(
        &[("read: 1ms", "read: { time: 1ms, lock: rows }")],
        expect![[r#"
        15:32 stores.db.operations.read.lock: expected one of `none`, `row` or `table`, found `rows` (did you mean `row`?)
    "#]],
    );
}

#[test]
fn objectives() {
    let objective = |text: &str, expected| check(&[("stores:", &format!("objectives: [ {text} ]\nstores:"))], expected);
    objective(
        "{ name: a, indicator: success(all), target: 100% }",
        expect![[r#"
        11:59 objectives[0].target: expected a percentage above 0% and below 100% such as `99.9%`, found `100%`: 100% leaves no error budget, and no system meets it
    "#]],
    );
    objective(
        "{ name: a, indicator: latency(all), target: 99% }",
        expect![[r#"
        11:37 objectives[0].indicator: expected an indicator such as `success(all)` or `latency(edge GET /notes) < 200ms`, found `latency(all)`: `latency` needs a bound, as in `< 200ms`
    "#]],
    );
    objective(
        "{ name: a, indicator: latency(all) < 5, target: 99% }",
        expect![[r#"
        11:37 objectives[0].indicator: expected an indicator such as `success(all)` or `latency(edge GET /notes) < 200ms`, found `latency(all) < 5`: `5`: the unit is missing (`5s` are seconds, `5ms` milliseconds)
    "#]],
    );
    objective(
        "{ name: a, indicator: sucess(all), target: 99% }",
        expect![[r#"
        11:37 objectives[0].indicator: expected an indicator such as `success(all)` or `latency(edge GET /notes) < 200ms`, found `sucess(all)`: `sucess` is no indicator (did you mean `success`?)
    "#]],
    );
    objective(
        "{ name: a, indicator: success(wbe), target: 99% }",
        expect![[r#"
        11:45 objectives[0].indicator: there is no client `wbe` (did you mean `web`?)
    "#]],
    );
    objective(
        "{ name: a, indicator: success(api GET /x), target: 99% }",
        expect![[r#"
        11:49 objectives[0].indicator: there is no endpoint of `api` called `GET /x` (did you mean `GET /`?)
    "#]],
    );
}

#[test]
fn faults() {
    experiment(
        "faults: [ { at: 1s, kill: api/2, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: `api` has instances 1 to 1, not `2`
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: api } ]",
        expect![[r#"
        12:28 experiments.e.faults[0]: the fault never ends: it has neither `for` nor `until`
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: api, for: 1s, until: 3s } ]",
        expect![[r#"
        12:65 experiments.e.faults[0].until: a fault has either `for` or `until`, not both
    "#]],
    );
    experiment(
        "faults: [ { at: 5s, kill: api, until: 3s } ]",
        expect![[r#"
        12:56 experiments.e.faults[0].until: the fault ends before it starts
    "#]],
    );
    experiment(
        "faults: [ { at: 50s, kill: api, for: 20s } ]",
        expect![[r#"
        12:55 experiments.e.faults[0].for: the fault ends at 70s, after the experiment's end at 60s (make the experiment longer: what comes after a fault tells most)
    "#]],
    );
    experiment(
        "faults: [ { at: 70s, kill: api, for: 20s } ]",
        expect![[r#"
        12:34 experiments.e.faults[0].at: the experiment is over before the fault starts
    "#]],
    );
    experiment(
        "faults: [ { kill: api, for: 20s } ]",
        expect![[r#"
        12:28 experiments.e.faults[0]: the key `at` is missing: start, from the start of the measured part
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: web, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: a client has no processes here (faults strike what answers, not who asks)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: api -> db, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: an edge has no processes (`partition:`, `drop:`, `reset:`, `slow:` and `bandwidth:` strike edges)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, drop: db -> api, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].drop: the store `db` never calls the service `api` (did you mean `api -> db`? The caller comes first)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: zone a, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: there is no zone `a` (the file has none)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: half of api, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: expected `primary of`, `replicas of` or a percentage `of`, found `half of`
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, kill: replicas of db, for: 1s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].kill: `db` has no replicas
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, slow: db, by: 500ms, for: 1s } ]",
        expect![[r#"
        12:52 experiments.e.faults[0].by: expected a factor or an added delay such as `5x` or `+500ms`, found `500ms`: the sign is missing (an added delay is written `+500ms`)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, slow: db, by: 0.5x, for: 1s } ]",
        expect![[r#"
        12:52 experiments.e.faults[0].by: a fault makes slower: the factor must be at least 1x
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, flush: db } ]",
        expect![[r#"
        12:45 experiments.e.faults[0].flush: `db` cannot be flushed: it is not a Redis
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, promote: db } ]",
        expect![[r#"
        12:47 experiments.e.faults[0].promote: `db` has no replicas: nothing can be promoted
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, lock: db.notes, for: 1s } ]",
        expect![[r#"
        12:47 experiments.e.faults[0].lock: there is no table of `db` called `notes` (there is `main`)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, exhaust: api, for: 1s } ]",
        expect![[r#"
        12:47 experiments.e.faults[0].exhaust: `api` has no connections that could run out: it is not a PostgreSQL
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, crash_between: [a], of: api } ]",
        expect![[r#"
        12:53 experiments.e.faults[0].crash_between: two steps are needed: the one that was done and the one that was not
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, crash_between: [a, b], of: api } ]",
        expect![[r#"
        12:54 experiments.e.faults[0].crash_between[0]: there is no step of `api` with the name `a` (the file has none)
        12:57 experiments.e.faults[0].crash_between[1]: there is no step of `api` with the name `b` (the file has none)
    "#]],
    );
    experiment(
        "faults: [ { at: 1s, surge: wbe, by: 3x, for: 1s } ]",
        expect![[r#"
        12:45 experiments.e.faults[0].surge: there is no client `wbe` (did you mean `web`?)
    "#]],
    );
    experiment(
        "load: { wbe: 1/s, web: { users: 5 } }",
        expect![[r#"
        12:26 experiments.e.load.wbe: there is no client `wbe` (did you mean `web`?)
        12:41 experiments.e.load.web: `web` is an open loop, whose load is a rate
    "#]],
    );
    experiment(
        "load: { web: [] }",
        expect![[r#"
        12:31 experiments.e.load.web: steps need at least one rate
    "#]],
    );
}

#[test]
fn expectations() {
    let expectation = |text: &str, expected| experiment(&format!("expect: [ {text} ]"), expected);
    expectation(
        "error < 1%",
        expect![[r#"
        12:28 experiments.e.expect[0]: there is no metric `error` (did you mean `errors`?)
    "#]],
    );
    expectation(
        "errors",
        expect![[r#"
        12:28 experiments.e.expect[0]: the bound is missing, as in `< 100ms`
    "#]],
    );
    expectation(
        "errors < 1",
        expect![[r#"
        12:35 experiments.e.expect[0]: expected a percentage such as `0.1%`, found `1`: the sign `%` is missing (write `1%`)
    "#]],
    );
    expectation(
        "errors < 1% please",
        expect![[r#"
        12:35 experiments.e.expect[0]: expected a percentage such as `0.1%`, found `1% please`: a percentage ends in `%`, not in `% please`
    "#]],
    );
    expectation(
        "errors durign fault < 1%",
        expect![[r#"
        12:35 experiments.e.expect[0]: expected a phase or a bound such as `< 100ms` or `between 45% and 55%`, found `durign fault < 1%` (phases are `before fault`, `during fault`, `after fault` and `at end`)
    "#]],
    );
    expectation(
        "errors(api GET /x) < 1%",
        expect![[r#"
        12:39 experiments.e.expect[0]: there is no endpoint of `api` called `GET /x` (did you mean `GET /`?)
    "#]],
    );
    expectation(
        "p < 1s",
        expect![[r#"
        12:28 experiments.e.expect[0]: `p` needs to know what it is about, as in `p(95)`
    "#]],
    );
    expectation(
        "p(95) <",
        expect![[r#"
        12:34 experiments.e.expect[0]: the value of the bound is missing
    "#]],
    );
    expectation(
        "p(101) < 1s",
        expect![[r#"
        12:30 experiments.e.expect[0]: expected a percentile above 0, up to 100, such as `99.9`, found `101`
    "#]],
    );
    expectation(
        "p(99, api GET /) < 1s",
        expect![[r#"
        12:28 experiments.e.expect[0]: expected an expectation such as `errors < 0.1%` or `p(95, edge GET /notes) during fault < 100ms`, found `p(99`: a parenthesis is open (within `[ ]` a comma ends an item: put expectations with commas on lines of their own, or in quotes)
        12:34 experiments.e.expect[1]: there is no metric `api` (there is `errors`, `success`, `goodput`, `p`, `mean`, `gap`, `degraded`, `amplification`, `share`, `utilization`, `queue`, `rejected`, `stale_reads`, `lost_writes`, `duplicates`, `backlog`, `dead_letters`, `trips`, `ejections`, `hits` and `instances`)
    "#]],
    );
    expectation(
        "share(api) > 10%",
        expect![[r#"
        12:34 experiments.e.expect[0]: expected an instance such as `api/1`, found `api`
    "#]],
    );
    expectation(
        "share(api/1) between 60% and 50%",
        expect![[r#"
        12:41 experiments.e.expect[0]: the first value is above the second
    "#]],
    );
    expectation(
        "trips(db) == 0",
        expect![[r#"
        12:34 experiments.e.expect[0]: expected an edge such as `api -> db`, found `db`
    "#]],
    );
    expectation(
        "hits(db) > 5%",
        expect![[r#"
        12:33 experiments.e.expect[0]: `hits` has no meaning for `db`
    "#]],
    );
    expectation(
        "backlog(db) == 0",
        expect![[r#"
        12:36 experiments.e.expect[0]: expected a topic, but `db` is a store (the file has no topic)
    "#]],
    );
    expectation(
        "utilization < 5%",
        expect![[r#"
        12:28 experiments.e.expect[0]: `utilization` needs to know what it is about, as in `utilization(db)`
    "#]],
    );
}

#[test]
fn what_does_nothing_itself_cannot_be_slow() {
    experiment(
        "faults: [ { at: 1s, slow: api, by: 5x, for: 5s } ]",
        expect![[r#"
        12:44 experiments.e.faults[0].slow: `api` has no step that could be slow: none works or waits (slow what it calls, or the edge there: `slow: api -> ...`)
    "#]],
    );
}

#[test]
fn nothing_waits_for_what_is_not_bounded() {
    client(
        "max_pending: 10",
        expect![[r#"
        5:18 clients.web.max_pending: nothing waits for a connection where none is bounded (state `max_connections` too)
    "#]],
    );
}

#[test]
fn weights_are_of_the_instances() {
    client(
        "balance: { algorithm: weighted, weights: [1, 2] }",
        expect![[r#"
            5:50 clients.web.balance.weights[1]: `api` has 1 instance, and here are 2 weights
        "#]],
    );
    client(
        "balance: { algorithm: weighted, weights: [0] }",
        expect![[r#"
        5:46 clients.web.balance.weights: all weights are 0: nobody would be asked
    "#]],
    );
    client(
        "balance: { algorithm: weighted, weights: [2000000] }",
        expect![[r#"
            5:47 clients.web.balance.weights[0]: a weight is at most 1000000
        "#]],
    );
    client(
        "balance: { weights: [1] }",
        expect![[r#"
        5:16 clients.web.balance.weights: `weights` plays a part only where the algorithm is not `round_robin`, which knows none
    "#]],
    );
}
