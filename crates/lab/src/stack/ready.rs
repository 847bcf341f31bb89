//! Whether parts do what they are for.

use std::time::Duration;

use plimsoll_model::system::{Component, Edge, ServiceId};

use super::{Part, Stack, StackError};
use crate::control::{Order, State};
use crate::wire::client::request;

impl Stack {
    /// Waits until processes are ready; false if it was interrupted.
    pub async fn ready(&self, parts: &[Part], patience: Duration, stop: impl Fn() -> bool) -> Result<bool, StackError> {
        let deadline = tokio::time::sleep(patience);
        let mut deadline = std::pin::pin!(deadline);
        let mut waiting = parts.to_vec();
        loop {
            let mut still = Vec::new();
            for part in waiting {
                if !self.state(part).await.is_some_and(|state| state.ready) {
                    still.push(part);
                }
            }
            waiting = still;
            if waiting.is_empty() {
                return Ok(true);
            }
            if stop() {
                return Ok(false);
            }
            for part in &waiting {
                if let Some(process) = self.process(*part)
                    && let Some(how) = process.exit()
                {
                    let (how, words) = (how.to_string(), process.last_words(5));
                    let words = if words.is_empty() { words } else { format!(":\n{words}") };
                    return Err(StackError::Ended { name: self.name(*part), how, words });
                }
            }
            let pause = tokio::time::sleep(Duration::from_millis(10));
            let mut pause = std::pin::pin!(pause);
            let late = std::future::poll_fn(|cx| {
                use std::future::Future;
                use std::task::Poll;
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                pause.as_mut().poll(cx).map(|()| false)
            })
            .await;
            if late {
                let names: Vec<String> = waiting.iter().map(|part| self.name(*part)).collect();
                return Err(StackError::Late { seconds: patience.as_secs(), names: names.join(", ") });
            }
        }
    }

    /// What a part says of itself; none if it does not answer. Of one of the reader's own it is known that it listens,
    /// and answers health checks where it has any.
    pub async fn state(&self, part: Part) -> Option<State> {
        if self.is_own(part) {
            return self.answers(part).await.then(|| State { ready: true, slow: (1.0, 0), ..State::default() });
        }
        if let Some(stores) = self.real(part) {
            return stores.runs(part).then(|| State { ready: true, slow: (1.0, 0), ..State::default() });
        }
        self.asker.state(self.place(part).control).await
    }

    async fn answers(&self, part: Part) -> bool {
        let Part::Instance(service, _) = part else { return false };
        let address = self.place(part).main;
        let to_here = |edge: &&Edge| edge.to == Component::Service(ServiceId(service));
        let checks = self.system.edges.iter().filter(to_here).find_map(|edge| edge.policies.health.as_ref());
        let asked = async {
            let Some(health) = checks else { return tokio::net::TcpStream::connect(address).await.is_ok() };
            let request = request("GET", &health.path, &[("connection", "close")], &[]);
            let answer = self.asker.links().ask(address, &request, "GET", true).await;
            answer.is_ok_and(|answer| (200..400).contains(&answer.status))
        };
        tokio::time::timeout(Duration::from_secs(1), asked).await.unwrap_or(false)
    }

    /// Tells a part what to do.
    pub async fn order(&self, part: Part, order: &Order) -> Result<(), String> {
        let told = self.asker.order(self.place(part).control, order).await;
        told.map_err(|why| format!("{}: {why}", self.name(part)))
    }
}
