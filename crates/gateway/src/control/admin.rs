//! What operators and their programs ask, on an address of its own.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | 200 while the process lives |
//! | `GET /ready` | 200 while it takes requests; 503 once it is to stop, or a service has no instance |
//! | `GET /metrics` | figures for Prometheus |
//! | `GET /config` | the system file in force, with every default, and how many files the process may open |
//! | `GET /upstreams` | services and instances, as JSON |
//! | `POST /upstreams/SERVICE/ADDRESS/drain` | no new requests to an instance; `/undrain` ends that |
//! | `POST /upstreams/SERVICE/ADDRESS/weight/2.5` | another weight, until the configuration gives one |

use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local};

use super::{Admins, Control, metrics};
use crate::access_log::json_text;
use crate::core::Shared;
use crate::http1::request::room;
use crate::http1::{Request, head};
use crate::net::files;

/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an address that was given up is still answered at.
const LINGER: Duration = Duration::from_millis(300);
/// Bytes of a request.
const HEAD_MAX: usize = 16 << 10;
/// Connections at once.
const MOST: usize = 64;

/// Answers at each address in turn, for ever.
pub(super) async fn serve(control: Arc<Control>, mut admins: Admins) {
    let places = Rc::new(tokio::sync::Semaphore::new(MOST));
    let mut before: Option<AbortHandle> = None;
    while let Some(listener) = admins.recv().await {
        if let Some(before) = before.take() {
            // Whoever is on the way to the old address still finds it.
            spawn_local(async move {
                tokio::time::sleep(LINGER).await;
                before.abort();
            });
        }
        before = listener.map(|listener| spawn_local(accept(control.clone(), places.clone(), listener)).abort_handle());
    }
}

async fn accept(control: Arc<Control>, places: Rc<tokio::sync::Semaphore>, listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return control.say("the admin address cannot be listened on");
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(place) = places.clone().try_acquire_owned_rc() else { continue };
                let control = control.clone();
                spawn_local(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(PATIENCE, one(&control, stream)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A place among those allowed.
trait Places {
    fn try_acquire_owned_rc(self) -> Result<Place, ()>;
}

struct Place(Rc<tokio::sync::Semaphore>);

impl Places for Rc<tokio::sync::Semaphore> {
    fn try_acquire_owned_rc(self) -> Result<Place, ()> {
        match self.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(()),
        }
        Ok(Place(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

async fn one(control: &Control, mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut seen = 0;
    let end = loop {
        match head::end(&bytes, &mut seen, HEAD_MAX) {
            Ok(Some(end)) => break Some(end),
            Ok(None) => {}
            Err(_) => break None,
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let mut room = room();
    let request = end.and_then(|end| Request::parse(&bytes[..end], &mut room, 100).ok());
    let (status, kind, body) = match &request {
        Some(request) => answer(control, request.method, request.target),
        None => (400, TEXT, "bad request\n".to_owned()),
    };
    let words = crate::answers::own::reason(status);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {words}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    if request.is_none_or(|request| request.method != "HEAD") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn answer(control: &Control, method: &str, target: &str) -> (u16, &'static str, String) {
    let shared = &control.shared;
    let path = target.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, &parts[..]) {
        ("GET" | "HEAD", ["health"]) => (200, TEXT, "ok\n".to_owned()),
        ("GET" | "HEAD", ["ready"]) => match unready(shared) {
            None => (200, TEXT, "ready\n".to_owned()),
            Some(why) => (503, TEXT, format!("not ready: {why}\n")),
        },
        ("GET" | "HEAD", ["metrics"]) => (200, "text/plain; version=0.0.4; charset=utf-8", metrics::render(shared)),
        ("GET" | "HEAD", ["config"]) => (200, TEXT, config(shared)),
        ("GET" | "HEAD", ["upstreams"]) => (200, JSON, upstreams(shared)),
        ("POST", ["upstreams", service, address, change @ ..]) => {
            match change_instance(shared, service, address, change) {
                Ok(()) => (200, JSON, upstreams(shared)),
                Err(why) => (404, TEXT, why),
            }
        }
        (_, ["health" | "ready" | "metrics" | "config" | "upstreams", ..]) => {
            (405, TEXT, "method not allowed\n".to_owned())
        }
        _ => (404, TEXT, "not found: /health, /ready, /metrics, /config, /upstreams\n".to_owned()),
    }
}

/// The file in force, and what the process has beside it.
fn config(shared: &Shared) -> String {
    format!("# The process {}.\n{}", files::describe(shared.may_open), shared.live().plan.text)
}

/// Why no requests should be sent here, if they should not.
fn unready(shared: &Shared) -> Option<String> {
    if shared.is_stopping() {
        return Some("stopping".to_owned());
    }
    let live = shared.live();
    let empty = live.upstreams.iter().find(|upstream| upstream.lock().instances.iter().all(Option::is_none));
    empty.map(|upstream| format!("no instances of {}", upstream.service))
}

/// Changes an instance in all targets that have it.
fn change_instance(shared: &Shared, service: &str, address: &str, change: &[&str]) -> Result<(), String> {
    let weight = match change {
        ["drain" | "undrain"] => None,
        ["weight", weight] => {
            let weight = weight.parse::<f64>().ok().filter(|weight| (0.0..=1e6).contains(weight));
            Some(weight.ok_or("a weight is a number from 0 to 1000000\n")?)
        }
        _ => return Err("expected drain, undrain or weight/NUMBER\n".to_owned()),
    };
    let mut found = false;
    for upstream in shared.live().upstreams.iter().filter(|upstream| upstream.service == service) {
        let mut state = upstream.lock();
        let at = address.parse().ok().and_then(|address| state.position(address));
        let Some(i) = at else { continue };
        found = true;
        match weight {
            Some(weight) => state.set_weight(i, weight).map_err(|error| format!("{error}\n"))?,
            None => state.set_draining(i, change == ["drain"]),
        }
    }
    if found { Ok(()) } else { Err(format!("no instance {address} of {service}\n")) }
}

fn upstreams(shared: &Shared) -> String {
    let mut out = String::from("[");
    for (n, upstream) in shared.live().upstreams.iter().enumerate() {
        let state = upstream.lock();
        let breaker = state.pipeline.breaker().map_or("none", |breaker| metrics::state_name(breaker.state()));
        let comma = if n > 0 { "," } else { "" };
        let _ =
            write!(out, "{comma}{{\"service\":{},\"key\":{}", json_text(&upstream.service), json_text(&upstream.key));
        let _ = write!(out, ",\"breaker\":\"{breaker}\",\"panic\":{},\"instances\":[", state.members.in_panic());
        let mut first = true;
        for (i, member) in state.instances.iter().enumerate() {
            let Some(member) = member else { continue };
            let comma = if first { "" } else { "," };
            first = false;
            let _ = write!(
                out,
                "{comma}{{\"address\":{},\"weight\":{},\"draining\":{},\"healthy\":{},\"ejected\":{},\"eligible\":{},\"in_flight\":{}}}",
                json_text(&member.instance.name),
                member.weight,
                member.draining,
                state.members.is_healthy(i),
                state.members.ejection().is_ejected(i),
                state.members.eligible().contains(i),
                state.balancer.in_flight(i),
            );
        }
        out.push_str("]}");
    }
    out.push_str("]\n");
    out
}
