//! What a run asks of its processes, on an address of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::tally::{Report, Tally};
use crate::wire::client::{Links, request};
use crate::wire::server::{Handler, listen, serve};

/// Something that a process is to do or to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// It takes this many times as long, and so many ns more.
    Slow(f64, u64),
    /// It takes no new requests, ends those that it has and goes.
    Drain,
    /// Who is asked instead of those before, by instance or node number.
    Members {
        /// The service.
        service: u32,
        /// Its instances that may be asked.
        instances: Vec<u32>,
    },
    /// Statements of a real store's node take this many times as long, and so many ns more.
    SlowNode {
        /// The store.
        store: u32,
        /// The node.
        node: u32,
        /// Times as long.
        factor: f64,
        /// And so much more, ns.
        added: u64,
    },
    /// A store's primaries, by shard: node numbers.
    Primaries {
        /// The store.
        store: u32,
        /// By shard.
        primaries: Vec<u32>,
        /// By shard: the timeline that began, and the last commit before it.
        kept: Vec<(u32, u64)>,
    },
    /// This node is its shard's primary from now on, on this timeline.
    Promote(u32),
    /// A node follows this one from now on, counted within the shard.
    Follow(u32),
    /// Replicas are so much further behind, ns.
    Lag(u64),
    /// All keys are lost.
    Flush,
    /// A migration holds this table's lock, or lets it go.
    Lock(u32, bool),
    /// It has no connection left for who comes, or has again.
    Exhaust(bool),
    /// A topic neither takes nor gives, or does again.
    Down(bool),
    /// It dies when a request has done the first of two named steps and not the second.
    Crash(String, String),
    /// Its clock is ahead by so many ns, or behind.
    Skew(i64),
}

/// What a process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Whether it does what it is for.
    pub ready: bool,
    /// Requests that it has.
    pub in_flight: u64,
    /// How slow it is: factor and ns.
    pub slow: (f64, u64),
    /// How far its clock is ahead, ns.
    pub skew: i64,
    /// Of a database's node: the last commit that it has, and the last that was acknowledged here.
    pub commits: (u64, u64),
    /// Of a database's node: whether it is a primary.
    pub primary: bool,
    /// Of a node or broker: whether what it was told to be, it is.
    pub note: String,
}

/// A process that takes orders.
pub trait Controlled: Send + Sync + 'static {
    /// What it says of itself.
    fn state(&self) -> State;
    /// Does as it is told, or says why it cannot.
    fn obey(&self, order: Order) -> Result<(), String>;
}

/// Answers a run for as long as the process lives.
pub async fn answer(address: SocketAddr, tally: Arc<Tally>, of: Arc<dyn Controlled>) -> std::io::Result<()> {
    let listener = listen(address)?;
    serve(listener, false, move || {
        let (tally, of) = (tally.clone(), of.clone());
        let handler: Handler = Box::new(move |request| {
            let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
            let (status, body) = match request.uri().path() {
                "/state" => (StatusCode::OK, json(serde_json::to_string(&of.state()))),
                "/report" => (StatusCode::OK, json(serde_json::to_string(&tally.report()))),
                "/order" => match serde_json::from_slice(request.body()).map_err(|error| error.to_string()) {
                    Ok(order) => match of.obey(order) {
                        Ok(()) => (StatusCode::OK, String::new()),
                        Err(why) => (StatusCode::CONFLICT, why),
                    },
                    Err(why) => (StatusCode::BAD_REQUEST, why),
                },
                _ => (StatusCode::NOT_FOUND, String::new()),
            };
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = status;
            Box::pin(async move { response })
        });
        Some(handler)
    })
    .await;
    Ok(())
}

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Asks processes.
#[derive(Debug, Default)]
pub struct Asker {
    links: Links,
}

impl Asker {
    /// Its connections, for those who ask in another way.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// What a process says of itself; none if it does not answer.
    pub async fn state(&self, address: SocketAddr) -> Option<State> {
        serde_json::from_slice(&self.ask(address, "/state", &[]).await.ok()?).ok()
    }

    /// What is new there; none if it does not answer.
    pub async fn report(&self, address: SocketAddr) -> Option<Report> {
        serde_json::from_slice(&self.ask(address, "/report", &[]).await.ok()?).ok()
    }

    /// Tells a process what to do, or says why it did not.
    pub async fn order(&self, address: SocketAddr, order: &Order) -> Result<(), String> {
        let body = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        self.ask(address, "/order", &body).await.map(drop)
    }

    async fn ask(&self, address: SocketAddr, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let request = request("POST", path, &[], body);
        let asked = self.links.ask(address, &request, "POST", true);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) if answer.status == 200 => Ok(answer.body),
            Ok(Ok(answer)) => Err(String::from_utf8_lossy(&answer.body).into_owned()),
            Ok(Err(_)) => Err("it cannot be reached".to_owned()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }
}
