//! Generation: from a prompt's tokens to text, a pass at a time.
//!
//! A [`Generation`] is one text in the making: `rows -> pass -> events`. It puts the rows that it wants into a batch,
//! is given their logits while the pass runs and samples at once, and gives out tokens and text when the pass is over.
//! A [`Driver`] makes passes of any number of them; who calls it decides what happens between two passes, and has the
//! clock.
//!
//! What holds between two passes:
//! - `tokens` is the prompt and what was given out after it. The cache holds the first `computed` of them, at least one
//!   is still to be computed unless the text has ended, and nothing that follows the last token is ever computed.
//! - A token is given out after the pass that chose it, before it is evaluated itself.
//!
//! Speculation changes none of this: drafts are rows after the last token, whose logits are sampled in order by the
//! same sampler as long as each token chosen is the draft that was evaluated. The rest of the drafts are forgotten. So
//! tokens, text, and the logits that chose them are those without it, greedy or not.

mod checkpoints;
mod cost;
mod draft;
mod driver;
mod lookup;
mod sampling;

pub use checkpoints::Checkpoints;
pub use draft::{DraftModel, MAX_DRAFT, Speculation};
pub use driver::Driver;
pub use sampling::Sampling;

use std::ops::Range;
use std::time::Duration;

use crate::batch::{Batch, Output};
use crate::cache::SeqId;
use crate::context::Context;
use crate::sample::{Sampler, Scratch};
use crate::tokenizer::{StopFilter, StreamDecoder, TokenKind, Tokenizer};
use crate::{Error, Result};
use draft::{Drafts, Wish};
use lookup::History;

/// Tokens after the prompt that lists have room for from the beginning where nobody said how many there may be.
const ROOM: usize = 4096;

/// Bytes of text that a pass gives out without growing a list: more than all but the longest tokens have.
const SHOWN_ROOM: usize = 256;

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The model said so.
    ModelEnded,
    /// A stop string appeared.
    Stop,
    /// As many tokens as were asked for.
    Limit,
    /// No room is left.
    ContextFull,
    /// Whoever drives it wants no more.
    Interrupted,
}

/// What a generation may do.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Tokens at most; `None` for as many as fit. 0 reads the prompt and chooses nothing.
    pub max_tokens: Option<usize>,
    /// Strings that end the text and are not part of it. One that is a control token ends it where that token comes.
    pub stop: Vec<String>,
    /// Special tokens are printed, too.
    pub special: bool,
    /// Texts of special tokens that are printed in any case. What is no token is passed over.
    pub shown: Vec<String>,
    /// The text begins with the first token rather than going on after a prompt.
    pub at_start: bool,
}

/// What came of a pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A token, with the text that it completes, which may be none.
    Token {
        /// Its id.
        id: u32,
        /// Whole characters that cannot be the beginning of a stop string.
        text: &'a str,
    },
    /// The end, with the text that was held back until then. Nothing comes after it.
    End {
        /// Why.
        end: End,
        /// The rest of the text.
        text: &'a str,
    },
    /// The end by an error of this text alone. Nothing comes after it.
    Failed(Error),
}

/// Counts and times of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the prompt that the cache held already.
    pub reused: usize,
    /// Tokens that were read: the prompt's others, and what had to be computed again in another sequence.
    pub read: usize,
    /// Tokens given out, and a last one that was a stop string.
    pub generated: usize,
    /// Tokens that passes after the prompt's chose, also one that ended the text.
    pub decoded: usize,
    /// Passes after the prompt's.
    pub passes: usize,
    /// Drafts that were evaluated.
    pub drafted: usize,
    /// Drafts that were right.
    pub accepted: usize,
    /// Time of the passes that read.
    pub reading: Duration,
    /// Time of the others.
    pub decoding: Duration,
}

/// Tokens to text.
struct Text {
    decoder: StreamDecoder,
    stop: StopFilter,
    end_tokens: Vec<u32>,
    stop_tokens: Vec<u32>,
}

impl Text {
    fn new(tokenizer: &Tokenizer, bounds: &Bounds) -> Self {
        let shown = bounds.shown.iter();
        let mut decoder = tokenizer
            .stream_decoder(bounds.special)
            .showing(shown.filter_map(|text| tokenizer.find_token(text.as_bytes())));
        if bounds.at_start {
            decoder = decoder.at_start();
        }
        // What such a token prints is nothing unless special tokens are printed, so no text would show it.
        let control = |text: &String| {
            let id = tokenizer.find_token(text.as_bytes())?;
            (tokenizer.token_kind(id) == TokenKind::Control).then_some(id)
        };
        Text {
            decoder,
            stop: StopFilter::new(&bounds.stop),
            end_tokens: tokenizer.end_tokens().to_vec(),
            stop_tokens: bounds.stop.iter().filter_map(control).collect(),
        }
    }

    /// What is held back still.
    fn finish(&mut self) -> String {
        let mut text = String::new();
        if !self.stop.push(self.decoder.flush(), &mut text) {
            text.push_str(&self.stop.finish());
        }
        text
    }
}

/// One text in the making; see the module.
pub struct Generation {
    id: SeqId,
    tokens: Vec<u32>,
    n_prompt: usize,
    computed: usize,
    capacity: usize,
    sampler: Sampler,
    text: Option<Text>,
    max_tokens: Option<usize>,
    /// Logits of the prompt's positions are wanted as well.
    every: bool,
    /// The prompt's last token is in a pass of its own.
    last_alone: bool,
    pass: Pass,
    /// Tokens of the pass under way that are to be given out, with the end of their text in `shown`.
    out: Vec<(u32, usize)>,
    /// Their texts, one after the other.
    shown: String,
    /// Why the text ends and what was held back, to be given out.
    end: Option<End>,
    rest: String,
    error: Option<Error>,
    /// The end has been given out.
    over: bool,
    history: History,
    /// Its sequence in the draft model's context.
    draft_sequence: Option<SeqId>,
    counts: Counts,
}

/// What a generation has in the pass under way.
#[derive(Debug, Default)]
struct Pass {
    /// Of `tokens`, from `computed` on.
    rows: usize,
    drafts: Drafts,
    /// How many of them the draft model was asked for.
    wanted: usize,
    /// Tokens chosen from its rows.
    chosen: usize,
    /// It reads a prompt, or what has to be computed again.
    reading: bool,
    /// Of the logits that are at hand those that are its own, and the row that the first of them belongs to.
    logits: Range<usize>,
    first_row: usize,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("id", &self.id)
            .field("tokens", &self.tokens.len())
            .field("computed", &self.computed)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl AsMut<Generation> for Generation {
    fn as_mut(&mut self) -> &mut Generation {
        self
    }
}

impl Generation {
    /// Text after a prompt, in a sequence of this context. What the sequence holds of the prompt stays, the rest of it
    /// is forgotten; the last token of the prompt is always computed, for its logits. The sampler takes the prompt into
    /// its history.
    ///
    /// # Errors
    /// A prompt without tokens, with ids outside the vocabulary or longer than the context; a handle that is not of an
    /// open sequence.
    pub fn new(
        context: &mut Context,
        id: SeqId,
        prompt: &[u32],
        sampler: Sampler,
        tokenizer: &Tokenizer,
        bounds: &Bounds,
    ) -> Result<Self> {
        let text = Text::new(tokenizer, bounds);
        let mut generation = Self::of_tokens(context, id, prompt, sampler, bounds.max_tokens)?;
        generation.text = Some(text);
        Ok(generation)
    }

    /// The same without a text: no token ends it, and the text of its events is empty.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_tokens(
        context: &mut Context,
        id: SeqId,
        prompt: &[u32],
        mut sampler: Sampler,
        max_tokens: Option<usize>,
    ) -> Result<Self> {
        let capacity = context.options().n_ctx;
        let Some(before_last) = prompt.len().checked_sub(1) else {
            return Err(Error::InvalidInput {
                what: "there are no tokens to go on from".into(),
            });
        };
        if prompt.len() > capacity {
            return Err(Error::ContextFull {
                needed: prompt.len(),
                capacity,
            });
        }
        for &token in prompt {
            sampler.accept(token)?;
        }
        let reused = context.reuse(id, &prompt[..before_last])?;
        // One more than the context holds: the last token may be given out without being evaluated.
        let most = capacity + 1 - prompt.len();
        // A text that has no end yet grows beyond it.
        let room = prompt.len() + max_tokens.unwrap_or(ROOM).min(most);
        let mut tokens = Vec::with_capacity(room);
        tokens.extend_from_slice(prompt);
        context.make_room(id, room)?;
        Ok(Generation {
            id,
            tokens,
            n_prompt: prompt.len(),
            computed: reused,
            capacity,
            sampler,
            text: None,
            max_tokens,
            every: false,
            last_alone: false,
            pass: Pass::default(),
            out: Vec::new(),
            shown: String::with_capacity(SHOWN_ROOM),
            end: None,
            rest: String::new(),
            error: None,
            over: false,
            history: History::default(),
            draft_sequence: None,
            counts: Counts {
                reused,
                ..Counts::default()
            },
        })
    }

    /// Has the logits of the prompt's positions computed as well, for [`Driver::pass_with`] to show. Those that the
    /// sequence held already are not.
    #[must_use]
    pub fn with_all_logits(mut self) -> Self {
        self.every = true;
        self
    }

    /// Has the prompt's last token computed in a pass of its own. Where layers keep states, a sequence has one of what
    /// came before that token then, from which the same prompt can be answered once more.
    #[must_use]
    pub fn with_last_alone(mut self) -> Self {
        self.last_alone = true;
        self
    }

    /// The sequence that it computes in.
    pub fn sequence(&self) -> SeqId {
        self.id
    }

    /// The prompt and what was given out after it.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many of the tokens are the prompt's.
    pub fn n_prompt(&self) -> usize {
        self.n_prompt
    }

    /// What was given out.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.n_prompt..]
    }

    /// Tokens that are still to be computed before the next one can be chosen: one while the text is made, more while a
    /// prompt is read, none at the end.
    pub fn pending(&self) -> usize {
        if self.end.is_some() || self.error.is_some() {
            0
        } else {
            self.tokens.len() - self.computed
        }
    }

    /// Whether the prompt, or what has to be computed again, is being read.
    pub fn is_reading(&self) -> bool {
        self.pending() > 1 || (self.pending() == 1 && self.tokens.len() == self.n_prompt)
    }

    /// Whether there is nothing more to come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Why the text ended.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Counts and times so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The sampler as it is, for a text that goes on with its random numbers.
    pub fn into_sampler(self) -> Sampler {
        self.sampler
    }

    /// Goes on in another sequence, of this context or one of the same kind: what that one holds of the tokens stays,
    /// the others are computed again. Between passes.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn go_on_in(&mut self, context: &mut Context, id: SeqId) -> Result<()> {
        self.computed = context.reuse(id, &self.tokens[..self.tokens.len() - 1])?;
        context.make_room(id, self.tokens.capacity())?;
        self.id = id;
        Ok(())
    }

    /// Ends the text here; what was held back of it is given out.
    pub fn interrupt(&mut self, on_event: &mut dyn FnMut(Event<'_>)) {
        if self.over {
            return;
        }
        self.stop(End::Interrupted);
        self.give_out(on_event);
    }

    /// Puts at most `room` rows into the batch: what is to be computed of the tokens, then drafts. Returns how many.
    /// `drafts` were made for the tokens as they are.
    fn rows(&mut self, batch: &mut Batch, room: usize) -> usize {
        self.pass.chosen = 0;
        self.pass.reading = self.is_reading();
        let mut pending = self.pending().min(room);
        if self.last_alone && pending > 1 && self.computed + pending == self.n_prompt {
            pending -= 1;
        }
        let whole = pending == self.pending();
        let wanted = self.max_tokens.is_none_or(|n| self.counts.generated < n);
        let rows = &self.tokens[self.computed..self.computed + pending];
        for (i, &token) in rows.iter().enumerate() {
            let chooses = whole && wanted && i + 1 == pending;
            let output = if chooses || self.every {
                Output::Logits
            } else {
                Output::None
            };
            batch.push(self.id, token, output);
        }
        self.pass.rows = pending;
        let drafts = &mut self.pass.drafts;
        drafts.truncate(if whole && wanted { room - pending } else { 0 });
        for &token in drafts.tokens() {
            batch.push(self.id, token, Output::Logits);
        }
        pending + drafts.len()
    }

    /// Drafts that a pass may have at most: as many as can be given out, fit the context and can be taken back.
    fn most_drafts(&self) -> usize {
        if self.pending() != 1 || self.every {
            return 0;
        }
        let left = self
            .max_tokens
            .map_or(usize::MAX, |n| n.saturating_sub(self.counts.generated));
        let room = self.capacity - self.computed;
        (left.min(room).saturating_sub(1)).min(MAX_DRAFT)
    }

    /// What it wants of the draft model: drafts after its tokens.
    fn wish(&mut self) -> Wish<'_> {
        Wish {
            sequence: &mut self.draft_sequence,
            tokens: &self.tokens,
            n: self.pass.wanted,
            drafts: &mut self.pass.drafts.list,
        }
    }

    /// Takes the logits of one of its rows in the pass under way; whether they are of a position of the text, not of a
    /// draft that is not in it.
    fn logits(&mut self, row: usize, logits: &[f32], scratch: &mut Scratch) -> bool {
        let Some(after) = (row + 1).checked_sub(self.pass.rows) else {
            return true;
        };
        // Rows come in order. One after a draft that was not chosen, or after the end, says nothing.
        if after != self.pass.chosen || self.end.is_some() || self.error.is_some() {
            return false;
        }
        let drafted = after.checked_sub(1).map(|i| self.pass.drafts.tokens()[i]);
        if drafted.is_some_and(|draft| self.tokens.last() != Some(&draft)) {
            return false;
        }
        let whole = self.computed + self.pass.rows + after == self.tokens.len();
        let wanted = self.max_tokens.is_none_or(|n| self.counts.generated < n);
        if whole && wanted {
            let taken = self
                .sampler
                .sample(logits, scratch)
                .and_then(|token| self.take(token));
            self.pass.chosen += 1;
            if let Err(error) = taken {
                self.error = Some(error);
            }
        }
        true
    }

    /// A token was chosen.
    fn take(&mut self, token: u32) -> Result<()> {
        let text = self.text.as_ref();
        if text.is_some_and(|text| text.end_tokens.contains(&token)) {
            self.stop(End::ModelEnded);
            return Ok(());
        }
        self.sampler.accept(token)?;
        self.counts.generated += 1;
        self.tokens.push(token);
        if let Some(text) = &mut self.text {
            if text.stop_tokens.contains(&token) {
                self.stop(End::Stop);
                return Ok(());
            }
            let start = self.shown.len();
            if text.stop.push(text.decoder.push(token), &mut self.shown) {
                self.rest = self.shown.split_off(start);
                self.end = Some(End::Stop);
                return Ok(());
            }
        }
        self.out.push((token, self.shown.len()));
        if self.max_tokens.is_some_and(|n| self.counts.generated >= n) {
            self.stop(End::Limit);
        } else if self.tokens.len() > self.capacity {
            self.stop(End::ContextFull);
        }
        Ok(())
    }

    fn stop(&mut self, end: End) {
        self.rest = self.text.as_mut().map(Text::finish).unwrap_or_default();
        self.end = Some(end);
    }

    /// The pass failed. Where nothing was chosen, everything is as it was before; where something was, its random
    /// numbers and its history have moved on, and it cannot be repeated.
    fn pass_failed(&mut self, error: &Error) {
        if self.pass.chosen > 0 && self.error.is_none() {
            self.error = Some(error.clone());
        }
        self.pass.rows = 0;
    }

    /// The pass is over: drafts that are not in the text leave the cache, and what it gave is given out.
    fn finish_pass(&mut self, context: &mut Context, elapsed: Duration, on_event: &mut dyn FnMut(Event<'_>)) {
        if self.over {
            return;
        }
        if self.pass.rows > 0 {
            self.take_rows_back(context);
            if self.pass.reading {
                self.counts.read += self.pass.rows;
                self.counts.reading += elapsed;
            } else {
                self.counts.passes += 1;
                self.counts.decoded += self.pass.chosen;
                self.counts.decoding += elapsed;
            }
            self.pass.rows = 0;
            if self.max_tokens == Some(0) && self.computed == self.tokens.len() {
                self.stop(End::Limit);
            }
        }
        self.give_out(on_event);
    }

    /// The cache holds all rows of the pass; those of the text stay.
    fn take_rows_back(&mut self, context: &mut Context) {
        let evaluated = self.computed + self.pass.rows;
        let drafts = self.pass.drafts.tokens();
        let given = &self.tokens[evaluated.min(self.tokens.len())..];
        let right = given.iter().zip(drafts).take_while(|(a, b)| a == b).count();
        self.counts.drafted += drafts.len();
        self.counts.accepted += right;
        self.computed = evaluated + right;
        if right < drafts.len()
            && let Err(error) = context.truncate(self.id, self.computed)
        {
            self.error.get_or_insert(error);
        }
        self.pass.drafts.clear();
    }

    fn give_out(&mut self, on_event: &mut dyn FnMut(Event<'_>)) {
        let mut start = 0;
        for (id, end) in self.out.drain(..) {
            let text = &self.shown[start..end];
            on_event(Event::Token { id, text });
            start = end;
        }
        self.shown.clear();
        if let Some(error) = &self.error {
            self.over = true;
            on_event(Event::Failed(error.clone()));
        } else if let Some(end) = self.end {
            self.over = true;
            let text = &self.rest;
            on_event(Event::End { end, text });
        }
    }
}
