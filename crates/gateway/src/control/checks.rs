//! Health checks as they are sent.

use std::sync::Arc;

use plimsoll_policy::Time;
use plimsoll_policy::outlier_ejection::Transition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Control;
use crate::http1::request::room;
use crate::http1::{Response, head};
use crate::random::Random;
use crate::upstream::probe::Due;
use crate::upstream::{Instance, Upstream};

/// Bytes of a check's answer that are looked at.
const HEAD_MAX: usize = 16 << 10;

/// Does what time alone does, and sends the checks that are due.
pub fn tick(control: &Arc<Control>, upstream: &Arc<Upstream>, random: &Random, now: Time) {
    for due in upstream.due(now, || random.bits()) {
        spawn_local(check(control.clone(), upstream.clone(), due));
    }
}

/// Sends one check and tells its target how it went.
async fn check(control: Arc<Control>, upstream: Arc<Upstream>, due: Due) {
    let Due { index, probe, instance, path } = due;
    let clock = control.shared.clock;
    let passed = tokio::time::timeout_at(clock.instant(probe.deadline), ask(&instance, &path)).await;
    for transition in upstream.checked(clock.now(), index, &instance, probe, passed.unwrap_or(false)) {
        match transition {
            Transition::Unhealthy { .. } => {
                control.say(&format!("{} {}: fails its health checks", upstream.service, instance.name));
            }
            Transition::Healthy { .. } => {
                control.say(&format!("{} {}: passes its health checks", upstream.service, instance.name));
            }
            _ => {}
        }
    }
}

/// Whether an instance answers a check with a success.
async fn ask(instance: &Instance, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(instance.address).await else { return false };
    let name = &instance.name;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nuser-agent: plimsoll-health\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut bytes = Vec::new();
    let mut seen = 0;
    loop {
        match head::end(&bytes, &mut seen, HEAD_MAX) {
            Ok(Some(end)) => {
                let mut room = room();
                let status = Response::parse(&bytes[..end], &mut room, "GET").map(|response| response.status);
                return matches!(status, Ok(200..=399));
            }
            Ok(None) => {}
            Err(_) => return false,
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}
