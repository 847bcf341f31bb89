//! What is done to parts' processes. Faults that do so are counted: the end of one leaves what others do.

use super::{Part, Stack, blocking};
use crate::emulated::Role;
use crate::process::Process;

/// What one process is.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) process: Process,
    pub(super) role: Role,
    /// Faults that keep it down, and those that keep it stopped.
    pub(super) killed: u32,
    pub(super) paused: u32,
    /// Whether it is to be gone: nobody starts it again.
    pub(super) leaving: bool,
}

impl Stack {
    /// A part's process, as it was started last.
    pub(super) fn process(&self, part: Part) -> Option<Process> {
        self.kept().get(&part).map(|of| of.process.clone())
    }

    /// Ends a part's process, and all that it has started, at once.
    pub async fn kill(&self, part: Part) -> Result<(), String> {
        if let Some(stores) = self.real(part) {
            stores.kill(part).await?;
            return self.answers_at_proxies(part, false);
        }
        let process = {
            let mut kept = self.kept();
            let Some(of) = kept.get_mut(&part) else { return Err(self.is_nowhere(part)) };
            of.killed += 1;
            of.paused = 0;
            of.process.clone()
        };
        blocking(move || process.kill().map(drop).map_err(|error| error.to_string())).await?;
        self.answers_at_proxies(part, false)
    }

    /// One fault less keeps a part down: whether it may start again.
    pub fn revive(&self, part: Part) -> bool {
        if let Some(stores) = self.real(part) {
            return stores.revive(part);
        }
        let mut kept = self.kept();
        let Some(of) = kept.get_mut(&part) else { return false };
        of.killed = of.killed.saturating_sub(1);
        of.killed == 0 && !of.leaving && of.process.exit().is_some()
    }

    /// Stops a part where it is, and sees to it that it stands still. What is down stands still already.
    pub async fn pause(&self, part: Part) -> Result<(), String> {
        if let Some(stores) = self.real(part) {
            return stores.pause(part).await;
        }
        let process = {
            let mut kept = self.kept();
            let Some(of) = kept.get_mut(&part) else { return Err(self.is_nowhere(part)) };
            if of.process.exit().is_some() {
                return Ok(());
            }
            of.paused += 1;
            of.process.clone()
        };
        blocking(move || process.pause().map(drop).map_err(|error| error.to_string())).await
    }

    /// One fault less stops a part.
    pub async fn resume(&self, part: Part) -> Result<(), String> {
        if let Some(stores) = self.real(part) {
            return stores.resume(part).await;
        }
        let process = {
            let mut kept = self.kept();
            let Some(of) = kept.get_mut(&part) else { return Ok(()) };
            if of.paused == 0 {
                return Ok(());
            }
            of.paused -= 1;
            if of.paused > 0 || of.process.exit().is_some() {
                return Ok(());
            }
            of.process.clone()
        };
        blocking(move || process.resume().map(drop).map_err(|error| error.to_string())).await
    }

    fn is_nowhere(&self, part: Part) -> String {
        format!("{} does not run", self.name(part))
    }

    /// A part is to end by itself, and not to come back.
    pub fn leaves(&self, part: Part) {
        if let Some(stores) = self.real(part) {
            return stores.leaves(part);
        }
        if let Some(of) = self.kept().get_mut(&part) {
            of.leaving = true;
        }
    }

    /// Whether a part is gone for good, or about to be.
    pub fn has_left(&self, part: Part) -> bool {
        if self.real(part).is_some() {
            return false;
        }
        self.kept().get(&part).is_none_or(|of| of.leaving)
    }

    /// Whether a part's process is gone.
    pub fn is_gone(&self, part: Part) -> bool {
        if let Some(stores) = self.real(part) {
            return !stores.runs(part);
        }
        self.kept().get(&part).is_none_or(|of| of.process.exit().is_some())
    }

    /// Whether a part's process runs, and is not stopped.
    pub fn is_up(&self, part: Part) -> bool {
        if let Some(stores) = self.real(part) {
            return stores.is_up(part);
        }
        self.kept().get(&part).is_some_and(|of| of.process.exit().is_none() && of.paused == 0)
    }

    /// The version that an instance runs.
    pub fn version(&self, part: Part) -> Option<(f64, f64)> {
        match self.kept().get(&part)?.role {
            Role::Service { version, .. } => version,
            _ => None,
        }
    }

    /// Ends a part's process without counting it as a fault.
    pub async fn end(&self, part: Part) {
        self.leaves(part);
        if let Some(process) = self.process(part) {
            // Without a keeper nothing runs any more.
            let _ = blocking(move || process.kill()).await;
            let _ = self.answers_at_proxies(part, false);
        }
    }

    /// Parts whose process ended by itself: with what they were, and how they ended.
    pub fn lost(&self) -> Vec<(Part, Role, String)> {
        let kept = self.kept();
        let lost = kept.iter().filter(|(_, of)| of.killed == 0 && !of.leaving);
        let told = lost.filter_map(|(part, of)| {
            let (how, words) = (of.process.exit()?, of.process.last_words(2));
            let how = if words.is_empty() { how.to_string() } else { format!("{how}: {words}") };
            Some((*part, of.role.clone(), how))
        });
        let stores = self.stores.get().into_iter().flat_map(|stores| stores.lost());
        told.chain(stores.map(|(part, how)| (part, self.role(part, 0, None), how))).collect()
    }
}
