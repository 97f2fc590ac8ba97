//! Checkpoints of a conversation: places that its sequence can go back to where cutting it would lose them, because a
//! sliding window has passed or the state is gone.

use crate::Result;
use crate::cache::{CheckpointId, SeqId};
use crate::context::Context;

/// Checkpoints of a sequence that goes from prompt to prompt, the oldest first. Where a sequence can be cut to any
/// length, none are made.
#[derive(Debug)]
pub struct Checkpoints {
    kept: Vec<CheckpointId>,
    limit: usize,
}

impl Checkpoints {
    /// At most `limit` of them.
    pub fn new(limit: usize) -> Self {
        Checkpoints {
            kept: Vec::new(),
            limit,
        }
    }

    /// Keeps what the sequence is now; where there are too many, the oldest one goes.
    ///
    /// # Errors
    /// A handle that is not of an open sequence; those of a context that the others are not of.
    pub fn keep(&mut self, context: &mut Context, id: SeqId) -> Result<()> {
        let tokens = context.tokens(id)?;
        if tokens.is_empty() || !context.cache().loses_lengths() {
            return Ok(());
        }
        let same = |kept: &CheckpointId| context.cache().tokens_of(*kept).is_ok_and(|kept| kept == tokens);
        let same = self.kept.iter().position(same).map(|at| self.kept.remove(at));
        let newest = match same {
            Some(same) => same,
            None => context.checkpoint(id)?,
        };
        self.kept.push(newest);
        if self.kept.len() > self.limit {
            self.drop_oldest(context);
        }
        Ok(())
    }

    /// Makes the sequence what a checkpoint is if it then holds more of what a generation of this prompt can make use
    /// of: all but the last token. Checkpoints that the prompt does not go on from are the first to be dropped from
    /// now on.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn go_back(&mut self, context: &mut Context, id: SeqId, prompt: &[u32]) -> Result<()> {
        let before_last = &prompt[..prompt.len().saturating_sub(1)];
        let mut most = context.cache().reusable(id, before_last)?;
        let mut best = None;
        for checkpoint in &self.kept {
            let len = context.cache().reusable_of(*checkpoint, before_last)?;
            if len > most {
                (most, best) = (len, Some(*checkpoint));
            }
        }
        if let Some(best) = best {
            context.restore(id, best)?;
        }
        let cache = context.cache();
        let goes_on = |kept: &CheckpointId| cache.tokens_of(*kept).is_ok_and(|kept| prompt.starts_with(kept));
        self.kept.sort_by_key(goes_on);
        Ok(())
    }

    /// Lets go of the oldest one, for others to have the room; false if there is none.
    pub fn drop_oldest(&mut self, context: &mut Context) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        // One of another context holds nothing here.
        let _ = context.forget(self.kept.remove(0));
        true
    }
}
