//! What a guarded call costs with our policies and with the libraries that people use for the same.
//!
//! Every call succeeds at once, so what is measured is the guard. "Bare" is our state machine alone,
//! with the time as an argument, as the simulator drives it. "Shared" adds what every peer has: a
//! clock of its own (read at the start and at the end of a call) and a lock. "Service" is the same
//! behind tower's `Service`: the layers of crates/middleware, with a boxed future like tower-resilience's,
//! and for the bulkhead alone a service of its own.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --bin policies`

use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use failsafe::CircuitBreaker as _;
use governor::{Quota, RateLimiter};
use plimsoll_middleware::{ByResult, Cloned, PipelineLayer, PipelineService};
use plimsoll_peers::{Contender, Row, compare};
use plimsoll_policy::balance::{self, Balancer, Eligible};
use plimsoll_policy::bulkhead::{self, Bulkhead};
use plimsoll_policy::circuit_breaker::{self, CircuitBreaker};
use plimsoll_policy::pipeline::{self, Admission, Next, Pipeline, Reply};
use plimsoll_policy::rate_limit::gcra::Gcra;
use plimsoll_policy::rate_limit::{self, RateLimit, Scope};
use plimsoll_policy::{Outcome, Rejected, Time, retry, retry_budget};
use tokio::runtime::Runtime;
use tower::discover::ServiceList;
use tower::limit::ConcurrencyLimit;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_resilience::bulkhead::BulkheadLayer;
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::ratelimiter::RateLimiterLayer;
use tower_resilience::retry::RetryLayer;
use tower_resilience::timelimiter::TimeLimiterLayer;

const ROUNDS: usize = 21;
const SLICE: Duration = Duration::from_millis(20);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = &runtime.expect("a runtime");
    println!("| policy | contender | ns/call | ratio to the peer |");
    println!("|---|---|---:|---:|");
    print("circuit breaker", &breaker_alone());
    print("circuit breaker, a layer", &breaker_layer(runtime));
    print("rate limit, GCRA", &gcra());
    print("rate limit, GCRA, 10,000 keys", &gcra_keyed());
    print("bulkhead, a layer", &bulkhead_layer(runtime));
    print(
        "pipeline: deadline, retry, breaker, bulkhead",
        &stack(runtime),
    );
    print("pipeline, and rate limit", &stack_with_rate_limit(runtime));
    print("balance: P2C peak EWMA, 10 endpoints", &p2c(runtime));
}

fn print(title: &str, rows: &[Row]) {
    for row in rows {
        println!(
            "| {title} | {} | {:.1} | {:.2} |",
            row.name, row.ns, row.ratio
        );
    }
}

/// A driver's clock.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Clock(Instant::now())
    }

    fn now(self) -> Time {
        Time::ZERO + self.0.elapsed()
    }
}

/// A driver's faster clock, governor's own: the processor's counter.
struct CycleClock {
    clock: quanta::Clock,
    start: u64,
}

impl CycleClock {
    fn start() -> Self {
        let clock = quanta::Clock::new();
        CycleClock {
            start: clock.raw(),
            clock,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.clock.delta_as_nanos(self.start, self.clock.raw()))
    }
}

/// The simulator's clock: time passes because calls come, one each microsecond.
struct Ticks(u64);

impl Ticks {
    fn next(&mut self) -> Time {
        self.0 += 1_000;
        Time::from_nanos(self.0)
    }
}

fn breaker_alone() -> Vec<Row> {
    let failsafe = failsafe::Config::new().build();
    let config = circuit_breaker::Config::default();
    let mut bare = CircuitBreaker::new(config, Time::ZERO).expect("valid");
    let shared = Mutex::new(bare.clone());
    let clock = Clock::start();
    let mut ticks = Ticks(0);
    compare(
        &mut [
            Contender::new("failsafe", |n| {
                for _ in 0..n {
                    let _ = black_box(failsafe.call(|| black_box(Ok::<(), ()>(()))));
                }
            }),
            Contender::new("ours, shared", |n| {
                for _ in 0..n {
                    let permit = shared
                        .lock()
                        .expect("lock")
                        .admit(clock.now())
                        .expect("closed");
                    black_box(());
                    let now = clock.now();
                    shared
                        .lock()
                        .expect("lock")
                        .settle(now, permit, Outcome::Success, 0);
                }
            }),
            Contender::new("ours, bare", |n| {
                for _ in 0..n {
                    let permit = bare.admit(ticks.next()).expect("closed");
                    let permit = black_box(permit);
                    bare.settle(Time::from_nanos(ticks.0), permit, Outcome::Success, 0);
                }
            }),
        ],
        ROUNDS,
        SLICE,
    )
}

/// The call under guard: succeeds at once.
#[derive(Clone, Copy)]
struct Ready;

impl Service<u64> for Ready {
    type Response = u64;
    type Error = Failed;
    type Future = std::future::Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        std::future::ready(Ok(black_box(request)))
    }
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // what a caller would look at
enum Failed {
    Rejected(Rejected),
    TimedOut,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failed {}

fn drive<S>(runtime: &Runtime, service: &mut S, n: u64)
where
    S: Service<u64>,
{
    runtime.block_on(async {
        for i in 0..n {
            let Ok(service) = service.ready().await else {
                panic!("not ready")
            };
            if service.call(i).await.is_err() {
                panic!("failed");
            }
        }
    });
}

/// Our pipeline as a tower layer, as people put it around their clients.
fn guarded(config: pipeline::Config) -> PipelineService<Ready, Cloned, ByResult> {
    let layer = PipelineLayer::new(config).expect("valid");
    layer.requests(Cloned).classify(ByResult).layer(Ready)
}

/// Our pipeline as the simulator drives it.
fn bare_pipeline(config: pipeline::Config) -> impl FnMut(u64) {
    let mut pipeline = Pipeline::new(config, Time::ZERO).expect("valid");
    let mut ticks = Ticks(0);
    move |n| {
        for i in 0..n {
            let now = ticks.next();
            let mut flight = pipeline.start(now, None, true);
            let Ok(Admission::Now(attempt)) = pipeline.attempt(now, &mut flight, i) else {
                panic!("rejected");
            };
            let attempt = black_box(attempt);
            let reply = black_box(Reply::new(Outcome::Success));
            let settled = pipeline.settle(now, &mut flight, attempt, reply, i);
            assert!(settled.next == Next::Done);
        }
    }
}

fn breaker_layer(runtime: &Runtime) -> Vec<Row> {
    // Its window of calls, which never slides in time: its time window visits every call of the
    // window at each call, so that its cost is a matter of the load and not of the code.
    let layer = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100);
    let mut theirs = layer.build().expect("valid").layer(Ready);
    let config = pipeline::Config {
        breaker: Some(circuit_breaker::Config::default()),
        ..pipeline::Config::default()
    };
    let mut ours = guarded(config);
    compare(
        &mut [
            Contender::new("tower-resilience, last 100 calls", |n| {
                drive(runtime, &mut theirs, n)
            }),
            Contender::new("ours, service", |n| drive(runtime, &mut ours, n)),
            Contender::new("ours, bare", bare_pipeline(config)),
        ],
        ROUNDS,
        SLICE,
    )
}

const PER_SECOND: u32 = 1_000_000_000;

fn gcra() -> Vec<Row> {
    let quota = Quota::per_second(NonZeroU32::new(PER_SECOND).expect("not zero"));
    let governor = RateLimiter::direct(quota);
    let config = rate_limit::Config::new(PER_SECOND, Duration::from_secs(1));
    let mut bare = RateLimit::new(config, Time::ZERO).expect("valid");
    // A limit of one state needs no lock: its rule is a function of one number.
    let shared = Gcra::new(PER_SECOND, Duration::from_secs(1), PER_SECOND / 10);
    let tat = AtomicU64::new(0);
    let clock = CycleClock::start();
    let mut ticks = Ticks(0);
    compare(
        &mut [
            Contender::new("governor", |n| {
                for _ in 0..n {
                    black_box(governor.check()).expect("within the quota");
                }
            }),
            Contender::new("ours, shared, compare-and-swap", |n| {
                for _ in 0..n {
                    let now = clock.now();
                    let mut seen = tat.load(Ordering::Acquire);
                    let decision = loop {
                        let (new, decision) = shared.decide(Time::from_nanos(seen), now, 1);
                        let new = new.as_nanos();
                        match tat.compare_exchange_weak(
                            seen,
                            new,
                            Ordering::AcqRel,
                            Ordering::Acquire,
                        ) {
                            Ok(_) => break decision,
                            Err(other) => seen = other,
                        }
                    };
                    black_box(decision).expect("within the quota");
                }
            }),
            Contender::new("ours, bare", |n| {
                for _ in 0..n {
                    black_box(bare.admit(ticks.next(), 0, 1)).expect("within the quota");
                }
            }),
        ],
        ROUNDS,
        SLICE,
    )
}

fn gcra_keyed() -> Vec<Row> {
    const KEYS: u64 = 10_000;
    let quota = Quota::per_second(NonZeroU32::new(PER_SECOND).expect("not zero"));
    let governor = RateLimiter::keyed(quota);
    let scope = Scope::PerKey {
        max_keys: KEYS as u32,
    };
    let config = rate_limit::Config {
        scope,
        ..rate_limit::Config::new(PER_SECOND, Duration::from_secs(1))
    };
    let mut bare = RateLimit::new(config, Time::ZERO).expect("valid");
    let shared = Mutex::new(bare.clone());
    let clock = CycleClock::start();
    let mut ticks = Ticks(0);
    // The same scattered keys for all.
    let key = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let key = move |i| key(i) % KEYS;
    compare(
        &mut [
            Contender::new("governor", move |n| {
                for i in 0..n {
                    black_box(governor.check_key(&key(i))).expect("within the quota");
                }
            }),
            Contender::new("ours, shared", move |n| {
                for i in 0..n {
                    let now = clock.now();
                    let decision = shared.lock().expect("lock").admit(now, key(i), 1);
                    black_box(decision).expect("within the quota");
                }
            }),
            Contender::new("ours, bare", move |n| {
                for i in 0..n {
                    black_box(bare.admit(ticks.next(), key(i), 1)).expect("within the quota");
                }
            }),
        ],
        ROUNDS,
        SLICE,
    )
}

/// Our bulkhead as a tower service, with a future that is not boxed, like tower's own.
struct Bulkheaded {
    inner: Ready,
    bulkhead: Arc<Mutex<Bulkhead>>,
}

struct BulkheadedFuture {
    inner: std::future::Ready<Result<u64, Failed>>,
    permit: Result<Option<bulkhead::Permit>, Rejected>,
    bulkhead: Arc<Mutex<Bulkhead>>,
}

impl Service<u64> for Bulkheaded {
    type Response = u64;
    type Error = Failed;
    type Future = BulkheadedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Self::Future {
        let permit = self
            .bulkhead
            .lock()
            .expect("lock")
            .admit(Time::ZERO)
            .map(Some);
        let bulkhead = Arc::clone(&self.bulkhead);
        BulkheadedFuture {
            inner: self.inner.call(request),
            permit,
            bulkhead,
        }
    }
}

impl Future for BulkheadedFuture {
    type Output = Result<u64, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(rejected) = self.permit {
            return Poll::Ready(Err(Failed::Rejected(rejected)));
        }
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl Drop for BulkheadedFuture {
    fn drop(&mut self) {
        if let Ok(Some(permit)) = std::mem::replace(&mut self.permit, Ok(None)) {
            self.bulkhead
                .lock()
                .expect("lock")
                .settle(Time::ZERO, permit, Outcome::Success);
        }
    }
}

fn bulkhead_layer(runtime: &Runtime) -> Vec<Row> {
    let mut tower = ConcurrencyLimit::new(Ready, 25);
    let layer = BulkheadLayer::builder()
        .max_concurrent_calls(25)
        .reject_when_full();
    let mut resilience = layer.build().expect("valid").layer(Ready);
    let mut bare = Bulkhead::new(bulkhead::Config::default(), Time::ZERO).expect("valid");
    let mut ours = Bulkheaded {
        inner: Ready,
        bulkhead: Arc::new(Mutex::new(bare.clone())),
    };
    compare(
        &mut [
            Contender::new("tower ConcurrencyLimit", |n| drive(runtime, &mut tower, n)),
            Contender::new("tower-resilience", |n| drive(runtime, &mut resilience, n)),
            Contender::new("ours, service", |n| drive(runtime, &mut ours, n)),
            Contender::new("ours, bare", |n| {
                for _ in 0..n {
                    let permit = black_box(bare.admit(Time::ZERO)).expect("room");
                    let granted = bare.settle(Time::ZERO, black_box(permit), Outcome::Success);
                    assert!(granted.is_none());
                }
            }),
        ],
        ROUNDS,
        SLICE,
    )
}

fn our_stack() -> pipeline::Config {
    pipeline::Config {
        timeout: Some(Duration::from_secs(5)),
        retry: Some(retry::Config::default()),
        budget: Some(retry_budget::Config::default()),
        breaker: Some(circuit_breaker::Config::default()),
        bulkhead: Some(bulkhead::Config::default()),
        ..pipeline::Config::default()
    }
}

fn stack(runtime: &Runtime) -> Vec<Row> {
    let mut theirs = ServiceBuilder::new()
        .layer(
            TimeLimiterLayer::builder()
                .timeout_duration(Duration::from_secs(5))
                .build(),
        )
        .layer(RetryLayer::builder().max_attempts(3).build())
        .layer(
            CircuitBreakerLayer::builder()
                .sliding_window_size(100)
                .build()
                .expect("valid"),
        )
        .layer(
            BulkheadLayer::builder()
                .max_concurrent_calls(25)
                .build()
                .expect("valid"),
        )
        .service(Ready);
    let mut ours = guarded(our_stack());
    compare(
        &mut [
            Contender::new("tower-resilience, no budget", |n| {
                drive(runtime, &mut theirs, n)
            }),
            Contender::new("ours, service, with budget", |n| {
                drive(runtime, &mut ours, n)
            }),
            Contender::new("ours, bare, with budget", bare_pipeline(our_stack())),
        ],
        ROUNDS,
        SLICE,
    )
}

fn stack_with_rate_limit(runtime: &Runtime) -> Vec<Row> {
    let limit = RateLimiterLayer::builder()
        .limit_for_period(PER_SECOND as usize)
        .refresh_period(Duration::from_secs(1));
    let mut theirs = ServiceBuilder::new()
        .layer(
            TimeLimiterLayer::builder()
                .timeout_duration(Duration::from_secs(5))
                .build(),
        )
        .layer(RetryLayer::builder().max_attempts(3).build())
        .layer(
            CircuitBreakerLayer::builder()
                .sliding_window_size(100)
                .build()
                .expect("valid"),
        )
        .layer(limit.build().expect("valid"))
        .layer(
            BulkheadLayer::builder()
                .max_concurrent_calls(25)
                .build()
                .expect("valid"),
        )
        .service(Ready);
    let config = pipeline::Config {
        rate_limit: Some(rate_limit::Config::new(PER_SECOND, Duration::from_secs(1))),
        ..our_stack()
    };
    let mut ours = guarded(config);
    compare(
        &mut [
            Contender::new("tower-resilience, no budget", |n| {
                drive(runtime, &mut theirs, n)
            }),
            Contender::new("ours, service, with budget", |n| {
                drive(runtime, &mut ours, n)
            }),
            Contender::new("ours, bare, with budget", bare_pipeline(config)),
        ],
        ROUNDS,
        SLICE,
    )
}

fn p2c(runtime: &Runtime) -> Vec<Row> {
    const ENDPOINTS: usize = 10;
    let services = ServiceList::new::<u64>(vec![Ready; ENDPOINTS]);
    let (seed, decay) = (Duration::from_millis(30), Duration::from_secs(10));
    let discover =
        PeakEwmaDiscover::new::<u64>(services, seed, decay, CompleteOnResponse::default());
    let mut tower = tower::balance::p2c::Balance::new(discover);
    let config = balance::Config {
        algorithm: balance::Algorithm::P2c,
        ..balance::Config::default()
    };
    let mut bare = Balancer::new(config, ENDPOINTS, 1).expect("valid");
    let eligible = Eligible::all(ENDPOINTS);
    let shared = Mutex::new(bare.clone());
    let shared_eligible = eligible.clone();
    let clock = Clock::start();
    let mut ticks = Ticks(0);
    let random = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    compare(
        &mut [
            Contender::new("tower p2c", |n| drive(runtime, &mut tower, n)),
            Contender::new("ours, shared", |n| {
                for i in 0..n {
                    let start = clock.now();
                    let mut balancer = shared.lock().expect("lock");
                    let picked = balancer.pick(start, i, random(i), &shared_eligible);
                    let endpoint = picked.expect("eligible");
                    balancer.on_start(endpoint, start);
                    drop(balancer);
                    let endpoint = black_box(endpoint);
                    let now = clock.now();
                    let took = now.nanos_since(start);
                    let mut balancer = shared.lock().expect("lock");
                    balancer.on_done(endpoint, now, took, Outcome::Success, None);
                }
            }),
            Contender::new("ours, bare", |n| {
                for i in 0..n {
                    let now = ticks.next();
                    let endpoint = bare.pick(now, i, random(i), &eligible).expect("eligible");
                    bare.on_start(endpoint, now);
                    let endpoint = black_box(endpoint);
                    bare.on_done(endpoint, now, 1_000, Outcome::Success, None);
                }
            }),
        ],
        ROUNDS,
        SLICE,
    )
}
