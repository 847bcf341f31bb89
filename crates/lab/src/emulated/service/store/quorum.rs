//! Quorum stores, which are always emulated.

use super::rows::Asked;
use super::{Asker, Got, Op, What};
use crate::answer::Answer;
use crate::context::Context;

impl Asker {
    /// Asks all nodes at once and goes on when enough have answered.
    pub(super) async fn quorum(&self, read: u32, write: u32, op: &Op, context: &Context) -> Result<Got, Answer> {
        let What::Operation(number) = op.what else { return Err(Answer::Error) };
        let needed = if self.spec().operations[number as usize].write { write } else { read };
        let asks = (0..self.pools.len()).map(|node| {
            let context = Context { draw: context.draw.part(node as u64 | 1 << 43), ..context.clone() };
            let asked = Asked::new(number, context.key);
            async move { self.ask_node(node, &asked, 0, &context).await }
        });
        super::super::join::enough(asks, needed as usize).await
    }
}
