//! Health checks, and what else time alone does to a target.

use std::sync::Arc;

use plimsoll_policy::Time;
use plimsoll_policy::health::Probe;
use plimsoll_policy::outlier_ejection::Transition;
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

/// A check that is due.
#[derive(Debug)]
pub struct Due {
    /// The instance's index.
    pub index: usize,
    /// What the policy knows it by.
    pub probe: Probe,
    /// The instance.
    pub instance: Arc<Instance>,
    /// The path to ask for.
    pub path: String,
}

impl Upstream {
    /// Ends ejections and slow starts that are due, and says which checks are. Each check, and the last look for
    /// one, takes random bits.
    pub fn due(&self, now: Time, mut random: impl FnMut() -> u64) -> Vec<Due> {
        let mut due = Vec::new();
        let mut state = self.lock();
        let state = &mut *state;
        state.pipeline.on_wake(now);
        if state.members.next_wake().is_none_or(|at| at > now) {
            return due;
        }
        let transitions = state.members.on_wake(now).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        while let Some((index, probe)) = state.members.poll_check(now, random()) {
            let member = state.instances.get(index).and_then(Option::as_ref);
            if let (Some(member), Some(path)) = (member, &state.health_path) {
                due.push(Due { index, probe, instance: member.instance.clone(), path: path.clone() });
            }
        }
        due
    }

    /// A check has ended. What has changed.
    pub fn checked(&self, now: Time, index: usize, instance: &Instance, probe: Probe, passed: bool) -> Vec<Transition> {
        let mut state = self.lock();
        // Another instance may have taken its place meanwhile.
        if state.position(instance.address) != Some(index) {
            return Vec::new();
        }
        let transitions = state.members.settle_check(now, index, probe, passed).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        transitions
    }
}

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
