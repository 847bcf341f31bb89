//! A topic's broker: partitions with the messages that not every consumer has handled, and where each consumer is.
//!
//! | request | answer |
//! |---|---|
//! | `POST /publish?published=NS&context=C` | 200; 503 while it is down, with `Retry-After` where it is full |
//! | `POST /next?consumer=C&partition=P` | 200 with the first message that is not handled, once there is one |
//! | `POST /commit?consumer=C&partition=P&offset=O` | all up to it are handled |
//! | `POST /effect?...&logical=L` | a message took effect; with `ask=1` 204 if it has already |
//! | `POST /dead?...` | it is set aside |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use plimsoll_model::draw::{Draw, duration, scale};
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Topic, WhenFull};
use tokio::sync::Notify;

use super::{CannotRun, Process};
use crate::control::{self, Controlled, Order, State};
use crate::layout::Place;
use crate::tally::Of;
use crate::wire::server::{Handler, listen, serve};

struct Broker {
    process: Process,
    of: Of,
    number: u32,
    consumers: Vec<u32>,
    state: Mutex<Partitions>,
    came: Notify,
    room: Notify,
    down: AtomicBool,
    in_flight: AtomicU64,
}

#[derive(Default)]
struct Partitions {
    all: Vec<Partition>,
    held: usize,
    full_noted: bool,
    /// What has taken effect, by consumer.
    effects: BTreeSet<(u32, u64)>,
}

#[derive(Default)]
struct Partition {
    first: u64,
    log: VecDeque<Message>,
    /// By consumer: the offset of the first message that is not handled.
    committed: BTreeMap<u32, u64>,
}

#[derive(Clone)]
struct Message {
    published: String,
    appended: u64,
    context: String,
}

pub(super) async fn run(process: Process, place: Place, topic: u32) -> Result<(), CannotRun> {
    let spec = &process.system.topics[topic as usize];
    let of_topic = process.system.consumers.iter().enumerate().filter(|(_, consumer)| consumer.topic.0 == topic);
    let all = (0..spec.partitions).map(|_| Partition::default()).collect();
    let broker = Arc::new(Broker {
        of: Of::Topic(topic),
        number: topic,
        consumers: of_topic.map(|(at, _)| at as u32).collect(),
        state: Mutex::new(Partitions { all, ..Partitions::default() }),
        came: Notify::new(),
        room: Notify::new(),
        down: AtomicBool::new(false),
        in_flight: AtomicU64::new(0),
        process,
    });
    let listener = listen(place.main)?;
    tokio::spawn(control::answer(place.control, broker.process.tools.tally.clone(), broker.clone()));
    serve(listener, true, move || {
        let broker = broker.clone();
        let handler: Handler = Box::new(move |request| {
            let broker = broker.clone();
            Box::pin(async move { broker.answer(&request).await })
        });
        Some(handler)
    })
    .await;
    Ok(())
}

/// How long a consumer waits for a message before it asks again.
const PATIENCE: Duration = Duration::from_secs(1);

impl Broker {
    fn spec(&self) -> &Topic {
        &self.process.system.topics[self.number as usize]
    }

    fn lock(&self) -> MutexGuard<'_, Partitions> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let query = request.uri().query().unwrap_or_default();
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        let path = request.uri().path();
        let publishes = path == "/publish";
        if publishes {
            self.process.tools.tally.count(self.of, |totals| totals.offered += 1);
        }
        let response = if self.down.load(Ordering::Relaxed) {
            status(StatusCode::SERVICE_UNAVAILABLE)
        } else {
            let (consumer, partition, offset) = (number("consumer") as u32, number("partition"), number("offset"));
            match path {
                "/publish" => self.publish(value("published"), value("context")).await,
                "/next" => self.next(consumer, partition as usize).await,
                "/commit" => self.commit(consumer, partition as usize, offset),
                "/effect" => {
                    let logical = value("logical").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
                    self.effect(consumer, logical, value("ask").is_some())
                }
                "/dead" => {
                    self.process.tools.tally.extra(self.of, "dead_letters", 1.0);
                    status(StatusCode::OK)
                }
                _ => status(StatusCode::NOT_FOUND),
            }
        };
        if publishes {
            let well = response.status() == StatusCode::OK;
            self.process.tools.tally.count(self.of, |totals| {
                if well {
                    totals.ok += 1;
                } else {
                    totals.failed += 1;
                    totals.rejected += u64::from(response.headers().contains_key(header::RETRY_AFTER));
                }
            });
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        response
    }

    async fn publish(&self, published: Option<&str>, context: Option<&str>) -> Response<Bytes> {
        let (Some(published), Some(context)) = (published, context) else { return status(StatusCode::BAD_REQUEST) };
        let spec = self.spec();
        let key = context.split('.').nth(2).and_then(|key| key.parse::<u32>().ok()).unwrap_or(0);
        let partition = scale(Draw(u64::from(key)).bits(PARTITION), spec.partitions) as usize;
        self.process.tools.timer.wait(duration(&spec.publish, self.process.bits())).await;
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                self.expire(&mut state);
                if state.held >= spec.capacity as usize {
                    self.note_full(&mut state);
                    match spec.when_full {
                        WhenFull::Reject => return busy(),
                        WhenFull::Block => {}
                        WhenFull::DropOldest => self.lose_oldest(&mut state),
                    }
                }
                if state.held < spec.capacity as usize {
                    let appended = self.process.tools.clock.now().as_nanos();
                    let message = Message { published: published.to_owned(), appended, context: context.to_owned() };
                    state.all[partition].log.push_back(message);
                    state.held += 1;
                    self.process.tools.tally.level(self.of, "backlog", 1);
                    // A topic that nobody listens to keeps nothing.
                    self.trim(&mut state, partition);
                    break;
                }
            }
            room.await;
        }
        self.came.notify_waiters();
        status(StatusCode::OK)
    }

    async fn next(&self, consumer: u32, partition: usize) -> Response<Bytes> {
        let found = async {
            loop {
                let came = self.came.notified();
                if let Some(response) = self.first(consumer, partition) {
                    return response;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| status(StatusCode::NO_CONTENT))
    }

    fn first(&self, consumer: u32, partition: usize) -> Option<Response<Bytes>> {
        let state = self.lock();
        let of = state.all.get(partition)?;
        let at = of.committed.get(&consumer).copied().unwrap_or(0).max(of.first);
        let message = of.log.get((at - of.first) as usize)?;
        let mut response = status(StatusCode::OK);
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        put("x-plimsoll-offset", &at.to_string());
        put("x-plimsoll-published", &message.published);
        put("x-plimsoll-context", &message.context);
        Some(response)
    }

    fn commit(&self, consumer: u32, partition: usize, offset: u64) -> Response<Bytes> {
        let mut state = self.lock();
        let Some(of) = state.all.get_mut(partition) else { return status(StatusCode::NOT_FOUND) };
        let at = of.committed.entry(consumer).or_default();
        *at = (*at).max(offset + 1);
        self.trim(&mut state, partition);
        status(StatusCode::OK)
    }

    /// Drops what every consumer has handled.
    fn trim(&self, state: &mut Partitions, partition: usize) {
        let of = &mut state.all[partition];
        let handled = self.consumers.iter().map(|consumer| of.committed.get(consumer).copied().unwrap_or(0)).min();
        let handled = handled.unwrap_or(u64::MAX);
        let mut gone = 0;
        while of.first < handled && of.log.pop_front().is_some() {
            of.first += 1;
            gone += 1;
        }
        self.gone(state, gone);
    }

    fn gone(&self, state: &mut Partitions, gone: usize) {
        if gone > 0 {
            state.held -= gone;
            state.full_noted &= state.held > self.spec().capacity as usize / 2;
            self.process.tools.tally.level(self.of, "backlog", -(gone as i64));
            self.room.notify_waiters();
        }
    }

    /// Drops what was kept for longer than the topic keeps messages: whoever had not handled it has lost it.
    fn expire(&self, state: &mut Partitions) {
        let (now, retention) = (self.process.tools.clock.now().as_nanos(), self.spec().retention);
        let mut gone = 0;
        for of in &mut state.all {
            while of.log.front().is_some_and(|front| front.appended.saturating_add(retention) <= now) {
                of.log.pop_front();
                of.first += 1;
                gone += 1;
            }
        }
        self.lose(state, gone);
    }

    fn lose_oldest(&self, state: &mut Partitions) {
        let oldest = (0..state.all.len()).filter_map(|at| Some((state.all[at].log.front()?.appended, at))).min();
        if let Some((_, at)) = oldest {
            state.all[at].log.pop_front();
            state.all[at].first += 1;
            self.lose(state, 1);
        }
    }

    fn lose(&self, state: &mut Partitions, gone: usize) {
        if gone > 0 {
            self.process.tools.tally.count(self.of, |totals| totals.lost += gone as u64);
            self.gone(state, gone);
        }
    }

    fn note_full(&self, state: &mut Partitions) {
        if !std::mem::replace(&mut state.full_noted, true) {
            let spec = self.spec();
            let text = match spec.when_full {
                WhenFull::Reject => "the topic is full: publishers are refused",
                WhenFull::Block => "the topic is full: publishers wait",
                WhenFull::DropOldest => "the topic is full: its oldest messages are dropped",
            };
            self.process.tools.tally.happened(EventKind::QueueFull, &*spec.name, text);
        }
    }

    fn effect(&self, consumer: u32, logical: u64, ask: bool) -> Response<Bytes> {
        let mut state = self.lock();
        let known = state.effects.contains(&(consumer, logical));
        if ask {
            return status(if known { StatusCode::NO_CONTENT } else { StatusCode::OK });
        }
        state.effects.insert((consumer, logical));
        if known {
            self.process.tools.tally.count(Of::Consumer(consumer), |totals| totals.duplicates += 1);
        }
        status(StatusCode::OK)
    }
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn busy() -> Response<Bytes> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

const PARTITION: u64 = 3;

impl Controlled for Broker {
    fn state(&self) -> State {
        let down = self.down.load(Ordering::Relaxed);
        let note = if down { "down".to_owned() } else { String::new() };
        State {
            ready: true,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            note,
            slow: (1.0, 0),
            ..State::default()
        }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Down(down) => {
                self.down.store(down, Ordering::Relaxed);
                if !down {
                    self.came.notify_waiters();
                }
                Ok(())
            }
            other => Err(format!("a broker does not know {other:?}")),
        }
    }
}
