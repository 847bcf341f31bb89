//! Health checks, and what else time alone does to a target.

use std::sync::Arc;

use plimsoll_policy::Time;
use plimsoll_policy::health::Probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{Instance, Upstream};
use crate::control::Control;
use crate::http1::request::room;
use crate::http1::{Response, head};
use crate::random::Random;

/// Bytes of a check's answer that are looked at.
const HEAD_MAX: usize = 16 << 10;

/// Ends ejections and slow starts that are due, and sends the checks that are.
pub fn tick(control: &Arc<Control>, upstream: &Arc<Upstream>, random: &Random, now: Time) {
    let mut probes = Vec::new();
    {
        let mut state = upstream.lock();
        let state = &mut *state;
        state.pipeline.on_wake(now);
        if state.members.next_wake().is_none_or(|at| at > now) {
            return;
        }
        let transitions = state.members.on_wake(now).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        while let Some((i, probe)) = state.members.poll_check(now, random.bits()) {
            let member = state.instances.get(i).and_then(Option::as_ref);
            if let (Some(member), Some(path)) = (member, &state.health_path) {
                probes.push((i, probe, member.instance.clone(), path.clone()));
            }
        }
    }
    for (i, probe, instance, path) in probes {
        spawn_local(check(control.clone(), upstream.clone(), i, probe, instance, path));
    }
}

/// Sends one check and tells its target how it went.
async fn check(
    control: Arc<Control>,
    upstream: Arc<Upstream>,
    i: usize,
    probe: Probe,
    instance: Arc<Instance>,
    path: String,
) {
    let clock = control.shared.clock;
    let passed = tokio::time::timeout_at(clock.instant(probe.deadline), ask(&instance, &path)).await;
    let passed = passed.unwrap_or(false);
    let now = clock.now();
    let mut state = upstream.lock();
    // Another instance may have taken its place meanwhile.
    if state.position(instance.address) == Some(i) {
        let transitions = state.members.settle_check(now, i, probe, passed).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        drop(state);
        for transition in transitions {
            use plimsoll_policy::outlier_ejection::Transition;
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
