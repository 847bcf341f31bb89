//! nexosim: models with ports, on its single-threaded executor.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use nexosim::model::{Context, Model, schedulable};
use nexosim::ports::Output;
use nexosim::simulation::{EventKey, Mailbox, SimInit};
use nexosim::time::MonotonicTime;
use serde::{Deserialize, Serialize};

use crate::{Cost, cpu_seconds};

/// Requests made and answered, and the sum of response times: models cannot be looked into after a run.
static RESULT: Mutex<(u64, u64, f64)> = Mutex::new((0, 0, 0.0));

pub fn mm8(seconds: f64) -> Cost {
    let mut source = Source { random: Random(1), rate: 640.0, requests: 0, output: Output::default() };
    let mut station = Station { random: Random(2), free: 8, queue: VecDeque::new(), output: Output::default() };
    let sink = Sink { times: Histogram::default() };
    let (source_box, station_box, sink_box) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
    source.output.connect(Station::arrive, &station_box);
    station.output.connect(Sink::take, &sink_box);
    let bench = SimInit::with_num_threads(1)
        .add_model(source, source_box, "source")
        .add_model(station, station_box, "station")
        .add_model(sink, sink_box, "sink");
    run(bench, seconds)
}

pub fn chain(seconds: f64) -> Cost {
    let mut client = Client {
        random: Random(1),
        requests: 0,
        calls: Slab::default(),
        breaker: Breaker::default(),
        budget: Budget::default(),
        times: Histogram::default(),
        output: Output::default(),
    };
    let mut gateway = Gateway {
        random: Random(2),
        next: 0,
        calls: Slab::default(),
        breaker: Breaker::default(),
        budget: Budget::default(),
        reply: Output::default(),
        outputs: vec![Output::default(), Output::default(), Output::default()],
    };
    let mut database = Database {
        random: Random(3),
        free: 8,
        queue: VecDeque::new(),
        replies: vec![Output::default(), Output::default(), Output::default()],
    };
    let (client_box, gateway_box, database_box) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
    client.output.connect(Gateway::request, &gateway_box);
    gateway.reply.connect(Client::answer, &client_box);
    let mut apis = Vec::new();
    for number in 0..3 {
        let mut api = Api::new(number);
        let api_box = Mailbox::new();
        gateway.outputs[number].connect(Api::request, &api_box);
        database.replies[number].connect(Api::queried, &api_box);
        api.reply.connect(Gateway::answer, &gateway_box);
        api.query.connect(Database::query, &database_box);
        apis.push((api, api_box));
    }
    let mut bench = SimInit::with_num_threads(1)
        .add_model(client, client_box, "client")
        .add_model(gateway, gateway_box, "gateway")
        .add_model(database, database_box, "database");
    for (api, api_box) in apis {
        bench = bench.add_model(api, api_box, "api");
    }
    run(bench, seconds)
}

fn run(bench: SimInit, seconds: f64) -> Cost {
    *RESULT.lock().expect("one thread") = (0, 0, 0.0);
    let mut simulation = bench.init(MonotonicTime::EPOCH).expect("a sound bench");
    let start = cpu_seconds();
    simulation.step_until(Duration::from_secs_f64(seconds)).expect("no error");
    let spent = cpu_seconds() - start;
    drop(simulation);
    let (requests, answered, sum) = *RESULT.lock().expect("one thread");
    Cost { requests: requests as f64, seconds: spent, mean_ms: sum / answered as f64 * 1e3 }
}

// --- M/M/8

#[derive(Serialize, Deserialize)]
struct Source {
    random: Random,
    rate: f64,
    requests: u64,
    output: Output<MonotonicTime>,
}

#[Model]
impl Source {
    #[nexosim(init)]
    async fn init(&mut self, cx: &Context<Self>) {
        self.schedule(cx);
    }

    fn schedule(&mut self, cx: &Context<Self>) {
        let gap = self.random.exponential(1.0 / self.rate);
        cx.schedule_event(gap, schedulable!(Self::arrive), ()).expect("a time to come");
    }

    #[nexosim(schedulable)]
    async fn arrive(&mut self, _: (), cx: &Context<Self>) {
        self.requests += 1;
        self.schedule(cx);
        self.output.send(cx.time()).await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        RESULT.lock().expect("one thread").0 = self.requests;
    }
}

#[derive(Serialize, Deserialize)]
struct Station {
    random: Random,
    free: u32,
    queue: VecDeque<MonotonicTime>,
    output: Output<MonotonicTime>,
}

#[Model]
impl Station {
    async fn arrive(&mut self, born: MonotonicTime, cx: &Context<Self>) {
        if self.free > 0 {
            self.free -= 1;
            self.serve(born, cx);
        } else {
            self.queue.push_back(born);
        }
    }

    fn serve(&mut self, born: MonotonicTime, cx: &Context<Self>) {
        cx.schedule_event(self.random.exponential(0.01), schedulable!(Self::done), born).expect("a time to come");
    }

    #[nexosim(schedulable)]
    async fn done(&mut self, born: MonotonicTime, cx: &Context<Self>) {
        match self.queue.pop_front() {
            Some(next) => self.serve(next, cx),
            None => self.free += 1,
        }
        self.output.send(born).await;
    }
}

#[derive(Serialize, Deserialize)]
struct Sink {
    times: Histogram,
}

#[Model]
impl Sink {
    async fn take(&mut self, born: MonotonicTime, cx: &Context<Self>) {
        self.times.record(cx.time().duration_since(born));
    }
}

// --- the chain

/// A call on its way: its number at the caller, and where it came from.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Job {
    id: u64,
    api: usize,
    ok: bool,
}

/// A call that a caller waits for.
#[derive(Serialize, Deserialize)]
struct Call {
    /// The caller's own caller's number.
    parent: u64,
    born: MonotonicTime,
    attempt: u32,
    deadline: Option<EventKey>,
}

#[derive(Serialize, Deserialize)]
struct Client {
    random: Random,
    requests: u64,
    calls: Slab<Call>,
    breaker: Breaker,
    budget: Budget,
    times: Histogram,
    output: Output<Job>,
}

#[Model]
impl Client {
    #[nexosim(init)]
    async fn init(&mut self, cx: &Context<Self>) {
        self.schedule(cx);
    }

    fn schedule(&mut self, cx: &Context<Self>) {
        cx.schedule_event(self.random.exponential(0.001), schedulable!(Self::arrive), ()).expect("a time to come");
    }

    #[nexosim(schedulable)]
    async fn arrive(&mut self, _: (), cx: &Context<Self>) {
        self.requests += 1;
        self.schedule(cx);
        self.budget.deposit();
        self.attempt((cx.time(), 1), cx).await;
    }

    #[nexosim(schedulable)]
    async fn attempt(&mut self, (born, attempt): (MonotonicTime, u32), cx: &Context<Self>) {
        let left = Duration::from_secs(2).saturating_sub(cx.time().duration_since(born));
        if left.is_zero() || !self.breaker.admits(cx.time()) {
            return self.times.record(cx.time().duration_since(born));
        }
        let id = self.calls.insert(Call { parent: 0, born, attempt, deadline: None });
        let key = cx.schedule_keyed_event(left, schedulable!(Self::late), id).expect("a time to come");
        self.calls.get(id).expect("just put there").deadline = Some(key);
        self.output.send(Job { id, api: 0, ok: true }).await;
    }

    async fn answer(&mut self, job: Job, cx: &Context<Self>) {
        let Some(call) = self.calls.remove(job.id) else { return };
        if let Some(deadline) = call.deadline {
            deadline.cancel();
        }
        self.breaker.settle(cx.time(), job.ok);
        if !job.ok && call.attempt < 3 && self.budget.pays() {
            let wait = self.random.backoff(call.attempt);
            cx.schedule_event(wait, schedulable!(Self::attempt), (call.born, call.attempt + 1)).expect("a time to come");
        } else {
            self.times.record(cx.time().duration_since(call.born));
        }
    }

    #[nexosim(schedulable)]
    async fn late(&mut self, id: u64, cx: &Context<Self>) {
        if let Some(call) = self.calls.remove(id) {
            self.breaker.settle(cx.time(), false);
            self.times.record(cx.time().duration_since(call.born));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        RESULT.lock().expect("one thread").0 = self.requests;
    }
}

#[derive(Serialize, Deserialize)]
struct Gateway {
    random: Random,
    next: usize,
    calls: Slab<Call>,
    breaker: Breaker,
    budget: Budget,
    reply: Output<Job>,
    outputs: Vec<Output<Job>>,
}

#[Model]
impl Gateway {
    async fn request(&mut self, job: Job, cx: &Context<Self>) {
        self.budget.deposit();
        self.attempt((job.id, cx.time(), 1), cx).await;
    }

    #[nexosim(schedulable)]
    async fn attempt(&mut self, (parent, born, attempt): (u64, MonotonicTime, u32), cx: &Context<Self>) {
        let left = Duration::from_secs(1).saturating_sub(cx.time().duration_since(born));
        if left.is_zero() || !self.breaker.admits(cx.time()) {
            return self.reply.send(Job { id: parent, api: 0, ok: false }).await;
        }
        let id = self.calls.insert(Call { parent, born, attempt, deadline: None });
        let key = cx.schedule_keyed_event(left, schedulable!(Self::late), id).expect("a time to come");
        self.calls.get(id).expect("just put there").deadline = Some(key);
        let api = self.next;
        self.next = (api + 1) % self.outputs.len();
        self.outputs[api].send(Job { id, api, ok: true }).await;
    }

    async fn answer(&mut self, job: Job, cx: &Context<Self>) {
        let Some(call) = self.calls.remove(job.id) else { return };
        if let Some(deadline) = call.deadline {
            deadline.cancel();
        }
        self.breaker.settle(cx.time(), job.ok);
        if !job.ok && call.attempt < 2 && self.budget.pays() {
            let wait = self.random.backoff(call.attempt);
            let next = (call.parent, call.born, call.attempt + 1);
            cx.schedule_event(wait, schedulable!(Self::attempt), next).expect("a time to come");
        } else {
            self.reply.send(Job { id: call.parent, api: 0, ok: job.ok }).await;
        }
    }

    #[nexosim(schedulable)]
    async fn late(&mut self, id: u64, cx: &Context<Self>) {
        if let Some(call) = self.calls.remove(id) {
            self.breaker.settle(cx.time(), false);
            self.reply.send(Job { id: call.parent, api: 0, ok: false }).await;
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Api {
    random: Random,
    number: usize,
    workers: u32,
    queue: VecDeque<Job>,
    cores: u32,
    run_queue: VecDeque<Job>,
    connections: u32,
    /// Calls that wait for a connection.
    pool_queue: VecDeque<u64>,
    calls: Slab<Call>,
    breaker: Breaker,
    budget: Budget,
    reply: Output<Job>,
    query: Output<Job>,
}

#[Model]
impl Api {
    async fn request(&mut self, job: Job, cx: &Context<Self>) {
        if self.workers > 0 {
            self.workers -= 1;
            self.begin(job, cx);
        } else if self.queue.len() < 1_000 {
            self.queue.push_back(job);
        } else {
            self.reply.send(Job { ok: false, ..job }).await;
        }
    }

    fn begin(&mut self, job: Job, cx: &Context<Self>) {
        if self.cores > 0 {
            self.cores -= 1;
            self.work(job, cx);
        } else {
            self.run_queue.push_back(job);
        }
    }

    fn work(&mut self, job: Job, cx: &Context<Self>) {
        cx.schedule_event(self.random.exponential(0.005), schedulable!(Self::worked), job).expect("a time to come");
    }

    #[nexosim(schedulable)]
    async fn worked(&mut self, job: Job, cx: &Context<Self>) {
        match self.run_queue.pop_front() {
            Some(next) => self.work(next, cx),
            None => self.cores += 1,
        }
        self.budget.deposit();
        self.attempt((job.id, cx.time(), 1), cx).await;
    }

    #[nexosim(schedulable)]
    async fn attempt(&mut self, (parent, born, attempt): (u64, MonotonicTime, u32), cx: &Context<Self>) {
        let left = Duration::from_millis(500).saturating_sub(cx.time().duration_since(born));
        if left.is_zero() || !self.breaker.admits(cx.time()) {
            return self.end(parent, false, cx).await;
        }
        let id = self.calls.insert(Call { parent, born, attempt, deadline: None });
        let key = cx.schedule_keyed_event(left, schedulable!(Self::late), id).expect("a time to come");
        self.calls.get(id).expect("just put there").deadline = Some(key);
        if self.connections > 0 {
            self.connections -= 1;
            self.query.send(Job { id, api: self.number, ok: true }).await;
        } else {
            self.pool_queue.push_back(id);
        }
    }

    async fn queried(&mut self, job: Job, cx: &Context<Self>) {
        loop {
            match self.pool_queue.pop_front() {
                Some(id) if self.calls.get(id).is_some() => {
                    self.query.send(Job { id, api: self.number, ok: true }).await;
                    break;
                }
                Some(_) => {}
                None => {
                    self.connections += 1;
                    break;
                }
            }
        }
        let Some(call) = self.calls.remove(job.id) else { return };
        if let Some(deadline) = call.deadline {
            deadline.cancel();
        }
        self.breaker.settle(cx.time(), job.ok);
        if !job.ok && call.attempt < 2 && self.budget.pays() {
            let wait = self.random.backoff(call.attempt);
            let next = (call.parent, call.born, call.attempt + 1);
            cx.schedule_event(wait, schedulable!(Self::attempt), next).expect("a time to come");
        } else {
            self.end(call.parent, job.ok, cx).await;
        }
    }

    #[nexosim(schedulable)]
    async fn late(&mut self, id: u64, cx: &Context<Self>) {
        if let Some(call) = self.calls.remove(id) {
            self.breaker.settle(cx.time(), false);
            self.end(call.parent, false, cx).await;
        }
    }

    async fn end(&mut self, parent: u64, ok: bool, cx: &Context<Self>) {
        match self.queue.pop_front() {
            Some(next) => self.begin(next, cx),
            None => self.workers += 1,
        }
        self.reply.send(Job { id: parent, api: self.number, ok }).await;
    }
}

impl Api {
    fn new(number: usize) -> Self {
        Api {
            random: Random(10 + number as u64),
            number,
            workers: 32,
            queue: VecDeque::new(),
            cores: 2,
            run_queue: VecDeque::new(),
            connections: 4,
            pool_queue: VecDeque::new(),
            calls: Slab::default(),
            breaker: Breaker::default(),
            budget: Budget::default(),
            reply: Output::default(),
            query: Output::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Database {
    random: Random,
    free: u32,
    queue: VecDeque<Job>,
    replies: Vec<Output<Job>>,
}

#[Model]
impl Database {
    async fn query(&mut self, job: Job, cx: &Context<Self>) {
        if self.free > 0 {
            self.free -= 1;
            self.serve(job, cx);
        } else {
            self.queue.push_back(job);
        }
    }

    fn serve(&mut self, job: Job, cx: &Context<Self>) {
        cx.schedule_event(self.random.exponential(0.006), schedulable!(Self::done), job).expect("a time to come");
    }

    #[nexosim(schedulable)]
    async fn done(&mut self, job: Job, cx: &Context<Self>) {
        match self.queue.pop_front() {
            Some(next) => self.serve(next, cx),
            None => self.free += 1,
        }
        self.replies[job.api].send(job).await;
    }
}

// --- what the models are made of

#[derive(Serialize, Deserialize)]
struct Random(u64);

impl Random {
    /// SplitMix64, in (0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        Duration::from_nanos(((-mean * self.unit().ln()) * 1e9) as u64 + 1)
    }

    fn backoff(&mut self, attempt: u32) -> Duration {
        Duration::from_nanos((self.unit() * 50e6 * f64::from(1 << attempt.min(8))) as u64 + 1)
    }
}

/// Entries by number; a number is never given twice.
#[derive(Serialize, Deserialize)]
struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, value: T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, entry) = &mut self.slots[slot as usize];
        *entry = Some(value);
        u64::from(*generation) << 32 | u64::from(slot)
    }

    fn get(&mut self, id: u64) -> Option<&mut T> {
        let (generation, entry) = &mut self.slots[id as u32 as usize];
        entry.as_mut().filter(|_| u64::from(*generation) == id >> 32)
    }

    fn remove(&mut self, id: u64) -> Option<T> {
        self.get(id)?;
        let (generation, entry) = &mut self.slots[id as u32 as usize];
        *generation += 1;
        self.free.push(id as u32);
        entry.take()
    }
}

/// A breaker that opens for 5 s at half of at least 20 calls failed in ten seconds.
#[derive(Default, Serialize, Deserialize)]
struct Breaker {
    buckets: [(u64, u32, u32); 10],
    open_until: Option<MonotonicTime>,
}

impl Breaker {
    fn admits(&mut self, now: MonotonicTime) -> bool {
        self.open_until.is_none_or(|until| now >= until)
    }

    fn settle(&mut self, now: MonotonicTime, ok: bool) {
        let second = now.as_secs() as u64;
        let bucket = &mut self.buckets[second as usize % 10];
        if bucket.0 != second {
            *bucket = (second, 0, 0);
        }
        bucket.1 += 1;
        bucket.2 += u32::from(!ok);
        if !ok {
            let recent = self.buckets.iter().filter(|bucket| bucket.0 + 10 > second);
            let (calls, failed) = recent.fold((0, 0), |sum, bucket| (sum.0 + bucket.1, sum.1 + bucket.2));
            if calls >= 20 && failed * 2 >= calls {
                self.open_until = Some(now + Duration::from_secs(5));
            }
        }
    }
}

/// Retries for a fifth of the calls.
#[derive(Default, Serialize, Deserialize)]
struct Budget(f64);

impl Budget {
    fn deposit(&mut self) {
        self.0 = (self.0 + 0.2).min(1_000.0);
    }

    fn pays(&mut self) -> bool {
        let pays = self.0 >= 1.0;
        if pays {
            self.0 -= 1.0;
        }
        pays
    }
}

/// 64 buckets an octave of nanoseconds.
#[derive(Default, Serialize, Deserialize)]
struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn record(&mut self, time: Duration) {
        let nanos = time.as_nanos() as u64 | 64;
        let octave = 63 - nanos.leading_zeros();
        let bucket = (octave as usize) * 64 + ((nanos >> (octave - 6)) & 63) as usize;
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum += time.as_secs_f64();
    }
}

impl Drop for Histogram {
    fn drop(&mut self) {
        let mut result = RESULT.lock().expect("one thread");
        (result.1, result.2) = (self.count, self.sum);
    }
}
