//! What a failover of a real database lost: rows of its ledger whose commit was acknowledged to this process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio_postgres::types::Type;

use super::sql::{Real, SqlLink};
use crate::answer::Answer;
use crate::tally::Of;

/// How often, and with what pause, ns, it is tried to count lost rows.
const COUNTS: u32 = 100;
const COUNT_AGAIN: u64 = 100_000_000;

impl Real {
    /// Whether it is not known yet what a failover lost.
    pub(super) fn is_counting(&self) -> bool {
        self.counting.load(Ordering::Relaxed) > 0
    }

    /// Other nodes are the primaries from now on: rows that they do not have and that were acknowledged are lost.
    pub(super) fn moved(self: &Arc<Self>, primaries: &[u32], kept: &[(u32, u64)]) {
        for (shard, (node, (timeline, _))) in primaries.iter().zip(kept).enumerate() {
            {
                let mut timelines = self.timelines.lock().unwrap_or_else(PoisonError::into_inner);
                if *timeline <= timelines[shard] {
                    continue;
                }
                timelines[shard] = *timeline;
            }
            let place = self.process.layout.stores[self.store.index()][*node as usize].main;
            let (real, shard, timeline) = (self.clone(), shard as u32, *timeline);
            real.counting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                for _ in 0..COUNTS {
                    if let Ok(lost) = real.lost(place, shard, timeline).await {
                        let of = Of::Store(real.store.0);
                        real.process.tools.tally.count(of, |totals| totals.lost += lost);
                        break;
                    }
                    real.process.tools.timer.wait(COUNT_AGAIN).await;
                }
                real.counting.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    async fn lost(&self, at: SocketAddr, shard: u32, timeline: u32) -> Result<u64, Answer> {
        let link = SqlLink::connect(at).await?;
        let sql = "SELECT number FROM plimsoll_ledger WHERE number >= $1 AND number < $2";
        let last = self.next.load(Ordering::Relaxed);
        let rows = link.client.query_typed(sql, &[(&self.first, Type::INT8), (&last, Type::INT8)]).await;
        let there: BTreeSet<i64> = rows.map_err(|error| self.answer(&error))?.iter().map(|row| row.get(0)).collect();
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = 0;
        // Each is looked for once.
        acknowledged.retain(|(of, on, number)| {
            let before = *of == shard && *on < timeline;
            lost += u64::from(before && !there.contains(number));
            !before
        });
        Ok(lost)
    }
}
