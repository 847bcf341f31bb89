//! Quorum stores, which are always emulated.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::rows::Asked;
use super::{Asker, Got, Op, What};
use crate::answer::Answer;
use crate::context::Context;

/// Nobody waits longer for a node whose answer is not needed any more.
const LATE: Duration = Duration::from_secs(30);

impl Asker {
    /// Asks all nodes at once and goes on when enough have answered. The others answer in their own time: nodes do all
    /// that they are asked for, and were the slowest left out, calibration would take the rest for all.
    pub(super) async fn quorum(
        self: &Arc<Self>,
        read: u32,
        write: u32,
        op: &Op,
        context: &Context,
    ) -> Result<Got, Answer> {
        let What::Operation(number) = op.what else { return Err(Answer::Error) };
        let needed = if self.spec().operations[number as usize].write { write } else { read };
        let mut asks = JoinSet::new();
        for node in 0..self.pools.len() {
            let context = Context { draw: context.draw.part(node as u64 | 1 << 43), ..context.clone() };
            let (asker, asked) = (self.clone(), Asked::new(number, context.key));
            asks.spawn(async move {
                let answer = tokio::time::timeout(LATE, asker.ask_node(node, &asked, 0, &context)).await;
                answer.unwrap_or(Err(Answer::Timeout))
            });
        }
        // A caller that gives up takes all of them along.
        let got = enough(&mut asks, needed).await?;
        asks.detach_all();
        Ok(got)
    }
}

/// Goes on with the last of so many that went well, or fails once there cannot be so many any more.
async fn enough<T: 'static>(asks: &mut JoinSet<Result<T, Answer>>, needed: u32) -> Result<T, Answer> {
    let mut well = 0;
    let mut worst = Answer::Unavailable;
    while well + asks.len() >= needed as usize {
        match asks.join_next().await {
            Some(Ok(Ok(got))) => {
                well += 1;
                if well >= needed as usize {
                    return Ok(got);
                }
            }
            Some(Ok(Err(answer))) => worst = answer,
            Some(Err(_)) => worst = Answer::Error,
            None => break,
        }
    }
    Err(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_is_enough() {
        let run = |answers: [Option<Result<u32, Answer>>; 3]| {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                let mut asks = JoinSet::new();
                for answer in answers {
                    asks.spawn(async move {
                        match answer {
                            Some(answer) => answer,
                            None => std::future::pending().await,
                        }
                    });
                }
                (enough(&mut asks, 2).await, asks.len())
            })
        };
        let refused = Some(Err(Answer::Refused));
        // The one that is late is left, and not waited for.
        assert_eq!(run([Some(Ok(1)), None, Some(Ok(2))]), (Ok(2), 1));
        assert_eq!(run([Some(Ok(1)), refused, Some(Ok(2))]), (Ok(2), 0));
        assert_eq!(run([None, refused, refused]), (Err(Answer::Refused), 1));
    }
}
