//! Drafts: tokens that may come next, evaluated together with the last one; and the draft model.

use crate::batch::{Batch, Output};
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

/// A small model of the same vocabulary that drafts what the large one may say, for all texts of a pass together.
#[derive(Debug)]
pub struct DraftModel {
    context: Context,
    batch: Batch,
    sequences: Vec<Drafting>,
    /// Number of the last pass that it drafted or read for.
    turn: u64,
}

/// A sequence of the draft model's context.
#[derive(Debug)]
struct Drafting {
    id: SeqId,
    /// The last turn that had use of it.
    used: u64,
    /// No generation has it; what it holds may be of use to the next one.
    idle: bool,
}

/// What a generation wants of the draft model.
pub(super) struct Wish<'a> {
    /// Its sequence there. Where others needed the room, it is no longer one.
    pub(super) sequence: &'a mut Option<SeqId>,
    /// What is to be read.
    pub(super) tokens: &'a [u32],
    /// How many drafts after it at most, and where they go.
    pub(super) n: usize,
    pub(super) drafts: &'a mut Vec<u32>,
}

/// A wish under way.
struct Drafted<'w, 'a> {
    wish: &'w mut Wish<'a>,
    id: SeqId,
    /// How many tokens have been read.
    held: usize,
    /// The most likely next token and its probability.
    best: (u32, f32),
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
            batch: Batch::new(),
            sequences: Vec::new(),
            turn: 0,
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

    /// The sequence of a generation, or one for it.
    fn take(&mut self, sequence: &mut Option<SeqId>) -> Result<SeqId> {
        let of_it = |own: &Drafting| !own.idle && Some(own.id) == *sequence;
        let found = self.sequences.iter().position(of_it);
        let found = found.or_else(|| self.sequences.iter().rposition(|own| own.idle));
        let at = match found {
            Some(at) => at,
            None => {
                let id = match self.context.open() {
                    Err(Error::TooManySequences { .. }) if self.make_room() => self.context.open()?,
                    opened => opened?,
                };
                let (used, idle) = (0, false);
                self.sequences.push(Drafting { id, used, idle });
                self.sequences.len() - 1
            }
        };
        let own = &mut self.sequences[at];
        (own.used, own.idle) = (self.turn, false);
        *sequence = Some(own.id);
        Ok(own.id)
    }

    /// Takes a sequence back.
    pub(super) fn give_back(&mut self, sequence: &mut Option<SeqId>) {
        let Some(id) = sequence.take() else { return };
        let own = self.sequences.iter_mut().filter(|own| own.id == id);
        own.for_each(|own| own.idle = true);
    }

    /// Ends the sequence that was used least recently, not in this turn; false if there is none.
    fn make_room(&mut self) -> bool {
        let others = self.sequences.iter().enumerate();
        let others = others.filter(|(_, own)| own.used < self.turn);
        let Some((at, _)) = others.min_by_key(|(_, own)| own.used) else {
            return false;
        };
        let own = self.sequences.remove(at);
        self.context.close(own.id).is_ok()
    }

    /// Reads what the model reads, at the same time, and drafts what it would say then, as far as it is at least
    /// `p_min` sure. Where it has no room, or does not know a token, there are no drafts, and the text does without
    /// them.
    pub(super) fn draft(&mut self, wishes: &mut [Wish<'_>], p_min: f32) {
        self.turn += 1;
        let n_vocab = self.context.model().config().n_vocab;
        let mut all = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let Ok(id) = self.take(wish.sequence) else {
                continue;
            };
            let wanted = match wish.n {
                0 => wish.tokens,
                // The logits after the last one are not kept.
                _ => &wish.tokens[..wish.tokens.len().saturating_sub(1)],
            };
            let Ok(held) = self.context.reuse(id, wanted) else {
                continue;
            };
            let known = |token: &u32| (*token as usize) < n_vocab;
            if wish.tokens.len() > self.context.options().n_ctx || !wish.tokens[held..].iter().all(known) {
                continue;
            }
            let best = (0, 0.0);
            all.push(Drafted { wish, id, held, best });
        }
        while all.iter().any(|one| one.held < one.wish.tokens.len()) {
            match self.read(&mut all) {
                Ok(()) => {}
                Err(Error::CacheFull { .. } | Error::StatesFull { .. }) => {
                    // What others hold of earlier texts goes first, then the last one of this turn.
                    if !self.make_room() {
                        let Some(last) = all.pop() else { return };
                        let own = self.sequences.iter_mut().filter(|own| own.id == last.id);
                        own.for_each(|own| (own.used, own.idle) = (0, true));
                        *last.wish.sequence = None;
                    }
                }
                Err(_) => return,
            }
        }
        // Layers that keep a state cannot go back to here by themselves.
        let here: Vec<_> = match self.context.model().has_state() {
            true => {
                let drafting = all.iter().filter(|one| one.wish.n > 0);
                drafting
                    .map(|one| (one.id, self.context.checkpoint(one.id)))
                    .collect()
            }
            false => Vec::new(),
        };
        // An error ends the drafting; what there is already is as good as any.
        while self.say(&mut all, p_min).unwrap_or(false) {}
        for (id, here) in here {
            if let Ok(here) = here {
                let _ = self.context.restore(id, here);
                let _ = self.context.forget(here);
            }
        }
    }

    /// One pass that reads, of each as much as there is room for.
    fn read(&mut self, all: &mut [Drafted<'_, '_>]) -> Result<()> {
        let n_batch = self.context.options().n_batch;
        self.batch.clear();
        // Whose logits come, in the order of the rows.
        let mut ends = Vec::new();
        let mut rows = vec![0; all.len()];
        for (index, one) in all.iter().enumerate() {
            let rest = &one.wish.tokens[one.held..];
            let n = rest.len().min(n_batch - self.batch.len());
            rows[index] = n;
            for (i, &token) in rest[..n].iter().enumerate() {
                let output = if one.wish.n > 0 && i + 1 == rest.len() {
                    ends.push(index);
                    Output::Logits
                } else {
                    Output::None
                };
                self.batch.push(one.id, token, output);
            }
        }
        self.pass(all, &ends)?;
        for (one, n) in all.iter_mut().zip(rows) {
            one.held += n;
        }
        Ok(())
    }

    /// Drafts one more token of each that is sure enough of it; whether there may be more.
    fn say(&mut self, all: &mut [Drafted<'_, '_>], p_min: f32) -> Result<bool> {
        let n_ctx = self.context.options().n_ctx;
        let n_batch = self.context.options().n_batch;
        self.batch.clear();
        let mut ends = Vec::new();
        for (index, one) in all.iter_mut().enumerate() {
            let (token, p) = one.best;
            if one.wish.n == 0 || p < p_min {
                one.wish.n = 0;
                continue;
            }
            one.wish.drafts.push(token);
            one.wish.n -= 1;
            if one.wish.n > 0 && one.held < n_ctx && self.batch.len() < n_batch {
                ends.push(index);
                self.batch.push(one.id, token, Output::Logits);
                one.held += 1;
            } else {
                one.wish.n = 0;
            }
        }
        if self.batch.is_empty() {
            return Ok(false);
        }
        self.pass(all, &ends).map(|()| true)
    }

    /// A pass; `ends` are those whose logits come, in their order.
    fn pass(&mut self, all: &mut [Drafted<'_, '_>], ends: &[usize]) -> Result<()> {
        let mut ends = ends.iter();
        self.context.forward(&mut self.batch, &mut (), &mut |_, logits| {
            if let Some(index) = ends.next() {
                all[*index].best = best(logits);
            }
        })
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
