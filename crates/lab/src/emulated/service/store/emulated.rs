//! A database's node that is emulated, as it is asked: over HTTP.

use std::sync::PoisonError;

use super::super::pool::Taken;
use super::Asker;
use super::hop::Hop;
use super::rows::{Asked, Told};
use crate::answer::{Answer, Took};
use crate::tally::Time;
use crate::wire::client::Answer as Wire;

/// Acknowledged commits that are remembered, for the next failover.
const REMEMBERED: usize = 100_000;

impl Asker {
    pub(super) async fn emulated_begin(&self, taken: &mut Taken, hop: &mut Hop<'_>) -> Result<(), Answer> {
        let answer = taken.ask("/begin").await?;
        hop.answered(&answer);
        if answer.status == 200 { Ok(()) } else { Err(Answer::Unavailable) }
    }

    pub(super) async fn emulated_operate(
        &self,
        taken: &mut Taken,
        shard: u32,
        asked: &Asked,
        hop: &mut Hop<'_>,
    ) -> Result<Told, Answer> {
        let mut target = format!("/op/{}?key={}", asked.number, asked.key);
        if let Some(most) = asked.max_lag {
            target.push_str(&format!("&max_lag={most}"));
        }
        if let Some((timeline, number)) = asked.floor {
            target.push_str(&format!("&floor={timeline}:{number}&wait={}", asked.wait));
        }
        let answer = taken.ask(&target).await?;
        hop.answered(&answer);
        Ok(match answer.status {
            200 if asked.within => Ok(None),
            200 => Ok(self.acknowledge(shard, &answer)),
            421 => Err(Answer::Conflict),
            _ => Err(Answer::Unavailable),
        })
    }

    pub(super) async fn emulated_commit(&self, taken: &mut Taken, shard: u32) -> Told {
        let clock = self.process.tools.clock;
        let asked = clock.now();
        let answer = taken.ask("/commit").await?;
        if answer.status != 200 {
            return Err(Answer::Unavailable);
        }
        let waited = answer.field("took").and_then(Took::read).map_or(0, |took| took.nanos);
        let took = clock.now().nanos_since(asked).saturating_sub(waited);
        self.process.tools.tally.took(Time::Commit(self.store.0), took);
        Ok(self.acknowledge(shard, &answer))
    }

    pub(super) async fn emulated_second_shard(&self, taken: &mut Taken) -> Result<(), Answer> {
        for target in ["/begin", "/commit", "/begin", "/commit"] {
            if taken.ask(target).await?.status != 200 {
                return Err(Answer::Unavailable);
            }
        }
        Ok(())
    }

    fn acknowledge(&self, shard: u32, answer: &Wire) -> Option<(u32, u64)> {
        let (timeline, number) = answer.field("at")?.split_once(':')?;
        let at = (timeline.parse().ok()?, number.parse().ok()?);
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.push_back((shard, at.0, at.1));
        if acknowledged.len() > REMEMBERED {
            acknowledged.pop_front();
        }
        Some(at)
    }

    /// How many of the acknowledged commits are not on the primaries' logs any more. A timeline that began keeps what
    /// came up to a number of the one before.
    pub(super) fn emulated_lost(&self, kept: &[(u32, u64)]) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = acknowledged.iter().filter(|(shard, timeline, number)| {
            kept.get(*shard as usize).is_some_and(|(of, kept)| timeline < of && number > kept)
        });
        lost.count() as u64
    }
}
