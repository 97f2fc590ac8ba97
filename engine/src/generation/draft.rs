//! Drafts: tokens that may come next, evaluated together with the last one; and the draft model.

use crate::cache::SeqId;
use crate::context::Context;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Drafts of one pass at most: fewer than a sliding window can take back.
pub const MAX_DRAFT: usize = 48;

/// How speculation is done. It never changes a text. There is none for a model whose layers keep a state
/// ([`Model::has_state`](crate::model::Model::has_state)): it cannot take drafts back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speculation {
    /// Drafts are looked up in the prompt and the text so far.
    pub lookup: bool,
    /// Drafts are evaluated whether or not that has paid so far.
    pub always: bool,
    /// Drafts of one pass at most; 0 is none. Never more than [`MAX_DRAFT`].
    pub draft_max: usize,
    /// Fewer drafts than this are not evaluated.
    pub draft_min: usize,
    /// The draft model stops where its best token is less likely than this.
    pub p_min: f32,
}

impl Speculation {
    /// None.
    pub const OFF: Self = Speculation {
        lookup: false,
        always: false,
        draft_max: 0,
        draft_min: 0,
        p_min: 0.0,
    };
}

impl Default for Speculation {
    /// By lookup, where it pays.
    fn default() -> Self {
        Speculation {
            lookup: true,
            always: false,
            draft_max: 16,
            draft_min: 0,
            p_min: 0.75,
        }
    }
}

/// Who made drafts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Lookup,
    Model,
}

/// Drafts for the next pass.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) list: Vec<u32>,
    pub(super) source: Source,
}

impl Drafts {
    pub(super) fn tokens(&self) -> &[u32] {
        &self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn truncate(&mut self, n: usize) {
        self.list.truncate(n);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }
}

/// A small model of the same vocabulary that drafts what the large one may say.
#[derive(Debug)]
pub struct DraftModel {
    context: Context,
    /// Sequences that no generation has; what they hold may be of use to the next one.
    idle: Vec<SeqId>,
}

impl DraftModel {
    /// Drafts from this context for a model whose tokenizer is `target`.
    ///
    /// # Errors
    /// A vocabulary that is another one. As in llama.cpp, one of them may have up to 128 tokens more, which padding
    /// adds.
    pub fn new(context: Context, own: &Tokenizer, target: &Tokenizer) -> Result<Self> {
        Self::check(own, target)?;
        Ok(DraftModel {
            context,
            idle: Vec::new(),
        })
    }

    /// Whether a model of this tokenizer can draft for one of the other, before any of them is loaded.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(own: &Tokenizer, target: &Tokenizer) -> Result<()> {
        const PADDING: usize = 128;
        let other = |what: String| {
            Err(Error::InvalidInput {
                what: format!("the draft model has another vocabulary: {what}"),
            })
        };
        let (n, n_target) = (own.n_vocab(), target.n_vocab());
        if n.abs_diff(n_target) > PADDING {
            return other(format!("it has {n} tokens, the model {n_target}"));
        }
        for id in 0..u32::try_from(n.min(n_target)).unwrap_or(u32::MAX) {
            let (text, expected) = (own.token_text(id), target.token_text(id));
            if text != expected {
                let shown =
                    |text: Option<&[u8]>| String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
                return other(format!(
                    "token {id} is `{}`, in the model `{}`",
                    shown(text),
                    shown(expected)
                ));
            }
        }
        Ok(())
    }

    /// A sequence for a generation.
    fn take(&mut self, sequence: &mut Option<SeqId>) -> Result<SeqId> {
        if let Some(id) = *sequence {
            return Ok(id);
        }
        let id = match self.idle.pop() {
            Some(id) => id,
            None => self.context.open()?,
        };
        *sequence = Some(id);
        Ok(id)
    }

    /// Takes a sequence back.
    pub(super) fn give_back(&mut self, sequence: &mut Option<SeqId>) {
        self.idle.extend(sequence.take());
    }

    /// Reads what the model reads, at the same time.
    pub(super) fn follow(&mut self, sequence: &mut Option<SeqId>, tokens: &[u32]) -> Result<()> {
        let id = self.take(sequence)?;
        let held = self.context.reuse(id, tokens)?;
        if held < tokens.len() {
            self.context.prefill(id, &tokens[held..])?;
        }
        Ok(())
    }

    /// Appends at most `n` tokens that it would say after `tokens`.
    pub(super) fn draft(
        &mut self,
        sequence: &mut Option<SeqId>,
        tokens: &[u32],
        n: usize,
        p_min: f32,
        drafts: &mut Vec<u32>,
    ) -> Result<()> {
        let n = n.min((self.context.options().n_ctx + 1).saturating_sub(tokens.len()));
        let Some(before_last) = tokens.len().checked_sub(1).filter(|_| n > 0) else {
            return Ok(());
        };
        let id = self.take(sequence)?;
        let held = self.context.reuse(id, &tokens[..before_last])?;
        let mut best = best(self.context.prefill(id, &tokens[held..])?);
        // Layers that keep a state cannot go back to here by themselves.
        let here = match self.context.model().has_state() {
            true => Some(self.context.checkpoint(id)?),
            false => None,
        };
        let drafted = self.draft_on(id, &mut best, n, p_min, drafts);
        if let Some(here) = here {
            self.context.restore(id, here)?;
            self.context.forget(here)?;
        }
        drafted
    }

    /// Goes on from its best token.
    fn draft_on(
        &mut self,
        id: SeqId,
        best: &mut (u32, f32),
        n: usize,
        p_min: f32,
        drafts: &mut Vec<u32>,
    ) -> Result<()> {
        for left in (0..n).rev() {
            let (token, p) = *best;
            if p < p_min {
                break;
            }
            drafts.push(token);
            if left > 0 {
                *best = self::best(self.context.decode(id, token)?);
            }
        }
        Ok(())
    }
}

/// The most likely token and its probability.
fn best(logits: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (&logit, id) in logits.iter().zip(0u32..) {
        if best.1 < logit {
            best = (id, logit);
        }
    }
    let sum: f32 = logits.iter().map(|&logit| libm::expf(logit - best.1)).sum();
    (best.0, 1.0 / sum)
}
