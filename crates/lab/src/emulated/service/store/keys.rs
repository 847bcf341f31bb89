//! Stores in memory, emulated or real: both speak Redis' protocol.

use std::sync::PoisonError;

use plimsoll_model::draw::duration;
use plimsoll_model::system::StoreKind;

use super::super::pool::Taken;
use super::hop::Hop;
use super::{Asker, Got, Op, What};
use crate::answer::Answer;
use crate::context::Context;
use crate::emulated::keys::{LOOKUP, lock_of};
use crate::tally::{Of, Time};
use crate::wire::resp::Value;

impl Asker {
    pub(super) async fn keys(&self, op: &Op, context: &Context) -> Result<Got, Answer> {
        let mut hop = Hop::new(self);
        hop.delay(0, context.draw, 0).await;
        let mut taken = hop.without(self.pools[0].take()).await?;
        let started = self.process.tools.clock.now().as_nanos();
        let now = crate::clock::wall_ms(self.process.tools.clock).to_string();
        let value = match &op.what {
            What::Lookup(key, right) => {
                let right = right.to_string();
                let parts: [&[u8]; 4] = [key, &lock_of(key), now.as_bytes(), right.as_bytes()];
                self.script(&mut taken, LOOKUP, b"2", &parts).await?
            }
            What::Quota(key, script) => {
                let key = [script.prefix.as_bytes(), key].concat();
                let mut parts: Vec<&[u8]> = vec![&key];
                parts.extend(script.arguments.iter().map(String::as_bytes));
                self.script(&mut taken, script.text, b"1", &parts).await?
            }
            What::Set(key, value, ms) => {
                taken.command(&[b"SET", key, value, b"PX", ms.max(&1).to_string().as_bytes()]).await?
            }
            What::Delete(key) if self.process.layout.real[self.store.index()] => {
                taken.command(&[b"DEL", key, &lock_of(key)]).await?
            }
            What::Delete(key) => taken.command(&[b"DEL", key]).await?,
            What::Operation(_) => taken.command(&[b"GET", format!("key:{}", context.key).as_bytes()]).await?,
            What::Begin(_) => return Err(Answer::Error),
        };
        let real = self.process.layout.real[self.store.index()];
        if real {
            if let What::Set(key, ..) = &op.what {
                // Whoever waits for the fetch looks again. An emulated store does that by itself.
                taken.command(&[b"DEL", &lock_of(key)]).await?;
            }
            // A real one is not slow: whoever asks it waits as much longer.
            self.process.tools.timer.wait(self.slower()).await;
        }
        taken.back();
        hop.delay(0, context.draw, 1).await;
        if real {
            self.count_keys(started, &op.what, &value);
        } else {
            self.process.tools.tally.took(Time::Exchange(self.edge()), hop.so_far());
        }
        match value {
            Value::Error(_) => Err(Answer::Error),
            value => Ok(Got { value: Some(value), ..Got::default() }),
        }
    }

    /// How much longer a command of a real store takes because of faults, ns.
    fn slower(&self) -> u64 {
        let StoreKind::Redis(redis) = &self.spec().kind else { return 0 };
        let (factor, added) = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let drawn = duration(&redis.time, self.process.bits()) as f64;
        (drawn * (factor - 1.0)).max(0.0) as u64 + added
    }

    /// Counts a command about a real store's node, which does not count for itself.
    fn count_keys(&self, started: u64, what: &What, value: &Value) {
        let (tools, of) = (&self.process.tools, Of::Node(self.store.0, 0));
        let took = tools.clock.now().as_nanos() - started;
        let failed = matches!(value, Value::Error(_));
        tools.tally.ended(of, took, |totals| {
            totals.offered += 1;
            *(if failed { &mut totals.failed } else { &mut totals.ok }) += 1;
        });
        if let (What::Lookup(..), Value::List(parts)) = (what, value) {
            let hit = matches!(parts.first(), Some(Value::Text(entry)) if !entry.is_empty());
            tools.tally.extra(of, "lookups", 1.0);
            tools.tally.extra(of, "hits", f64::from(u8::from(hit)));
        }
    }

    /// Runs a script, which the server is given first where it does not know it.
    async fn script(
        &self,
        taken: &mut Taken,
        script: &'static str,
        keys: &[u8],
        parts: &[&[u8]],
    ) -> Result<Value, Answer> {
        let known = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(script).cloned();
        let mut name = match known {
            Some(name) => name,
            None => self.load(taken, script).await?,
        };
        loop {
            let mut command: Vec<&[u8]> = vec![b"EVALSHA", &name, keys];
            command.extend_from_slice(parts);
            match taken.command(&command).await? {
                Value::Error(why) if why.starts_with("NOSCRIPT") => name = self.load(taken, script).await?,
                value => return Ok(value),
            }
        }
    }

    async fn load(&self, taken: &mut Taken, script: &'static str) -> Result<Vec<u8>, Answer> {
        let Value::Text(name) = taken.command(&[b"SCRIPT", b"LOAD", script.as_bytes()]).await? else {
            return Err(Answer::Error);
        };
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).insert(script, name.clone());
        Ok(name)
    }
}
