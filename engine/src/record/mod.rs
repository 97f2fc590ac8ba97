//! The digest record of a model: what its logits and a sampled text are for fixed prompts, to be checked on another
//! machine, backend or platform.
//!
//! Prompts are token ids made from the size of the vocabulary, so that a record needs no tokenizer. Each is evaluated
//! in one pass and then continued token by token with the default sampler, so a record covers passes of many tokens,
//! passes of one, the sampler's arithmetic and its random numbers. Beside the digest of everything stand digests per
//! prompt and per position, which say where a difference begins.

mod json;

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::cache::{CacheType, Pool};
use crate::context::{Context, ContextOptions};
use crate::digest::Digest;
use crate::generation::{Driver, Event, Generation, Speculation};
use crate::kernels::NUMERICS_VERSION;
use crate::sample::{Sampler, SamplerParams};
use crate::{Error, Result};

/// Version of the prompts and of what is done with them. A change of either bumps it.
pub const PROMPT_SET: u32 = 1;

/// Positions of the context: a part of the prompt set, for longrope chooses its factors by it.
pub const N_CTX: usize = 256;

/// Hexadecimal digits of a position's digest: enough to tell, for it proves nothing by itself.
const SHORT: usize = 16;

/// Tokens to evaluate and how many to sample after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its name in records.
    pub name: &'static str,
    /// Token ids, given to the model as they are.
    pub tokens: Vec<u32>,
    /// Tokens sampled after them, with llama.cpp's default chain.
    pub sampled: usize,
    /// The sampler's seed.
    pub seed: u32,
}

/// The prompts for a vocabulary of `n_vocab` tokens.
pub fn prompts(n_vocab: usize) -> Vec<Prompt> {
    // One token; a few; more than two of attention's blocks of 64 positions.
    [("one", 1, 8), ("few", 7, 24), ("many", 150, 16)]
        .into_iter()
        .zip(1..)
        .map(|((name, n, sampled), seed)| {
            // Numerical Recipes' linear congruential generator; its high bits scaled to the vocabulary.
            let mut state: u32 = seed;
            let token = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((u64::from(state) * n_vocab as u64) >> 32) as u32
            };
            Prompt {
                name,
                tokens: (0..n).map(token).collect(),
                sampled,
                seed,
            }
        })
        .collect()
}

/// The options of a context that records are made in.
pub fn context_options(cache_type_k: CacheType, cache_type_v: CacheType) -> ContextOptions {
    ContextOptions {
        n_ctx: N_CTX,
        n_batch: N_CTX,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k,
        cache_type_v,
    }
}

/// Tokens that are computed for a record: what [`Record::make`] counts.
pub fn total_tokens() -> usize {
    prompts(1)
        .iter()
        .map(|prompt| prompt.tokens.len() + prompt.sampled)
        .sum()
}

/// The model that a record is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// For people; takes no part in a comparison.
    pub name: String,
    /// SHA-256 of each of its files, as `sha256sum` prints it; none where the record was made without the files at
    /// hand, as in a browser: then nothing is said about them.
    pub sha256: Vec<String>,
}

/// What came of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The prompt's name.
    pub prompt: String,
    /// The token ids that were evaluated: the prompt's, then the sampled ones.
    pub tokens: Vec<u32>,
    /// How many of them were sampled.
    pub sampled: usize,
    /// [`Digest`] of the logits of all positions.
    pub digest: String,
    /// The first digits of each position's own digest.
    pub positions: Vec<String>,
}

/// A record; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the engine that made it.
    pub engine_version: String,
    /// Version of the numerics contract: equal numbers are promised within one.
    pub numerics_version: u64,
    /// The backend that made it. For people.
    pub backend: String,
    /// The model.
    pub model: Subject,
    /// Version of the prompts.
    pub prompt_set: u64,
    /// Type of cached keys.
    pub cache_type_k: CacheType,
    /// Type of cached values.
    pub cache_type_v: CacheType,
    /// [`Digest`] of all logits, prompt after prompt.
    pub digest: String,
    /// Per prompt.
    pub answers: Vec<Answer>,
}

/// A record in the making, a pass at a time: who makes it can listen to others in between.
#[derive(Debug)]
pub struct Recording {
    model: Subject,
    /// Prompts that are not done; the first one is under way where there is a [`Run`].
    rest: VecDeque<Prompt>,
    run: Option<Run>,
    driver: Driver,
    all: Digest,
    answers: Vec<Answer>,
    done: usize,
}

/// A prompt under way.
#[derive(Debug)]
struct Run {
    generation: Generation,
    digest: Digest,
    positions: Vec<String>,
}

impl Recording {
    /// Begins the record of the context's model. The context is made with [`context_options`] and has no other
    /// sequence.
    ///
    /// # Errors
    /// The context has another length.
    pub fn new(context: &Context, model: Subject) -> Result<Self> {
        let n_ctx = context.options().n_ctx;
        if n_ctx != N_CTX {
            return Err(Error::InvalidInput {
                what: format!("a record is made with a context of {N_CTX}, found {n_ctx}"),
            });
        }
        Ok(Recording {
            model,
            rest: prompts(context.model().config().n_vocab).into(),
            run: None,
            driver: Driver::new(Speculation::OFF, None),
            all: Digest::new(),
            answers: Vec::new(),
            done: 0,
        })
    }

    /// Tokens computed so far, of [`total_tokens`].
    pub fn done(&self) -> usize {
        self.done
    }

    /// Makes a pass over the prompt or over one sampled token; the record once there is nothing more.
    ///
    /// # Errors
    /// As [`Context::forward`].
    pub fn advance(&mut self, context: &mut Context) -> Result<Option<Record>> {
        let Some(prompt) = self.rest.front() else {
            return Ok(Some(self.record(context)));
        };
        let run = match &mut self.run {
            Some(run) => run,
            none => none.insert(Run::new(prompt, context)?),
        };
        let (digest, positions, all) = (&mut run.digest, &mut run.positions, &mut self.all);
        let generations = std::slice::from_mut(&mut run.generation);
        self.done += self.driver.pass_with(context, generations, &mut |_, _, logits| {
            all.update(logits);
            digest.update(logits);
            let mut one = Digest::new();
            one.update(logits);
            let mut one = one.finish();
            one.truncate(SHORT);
            positions.push(one);
        })?;
        let mut failed = Ok(());
        self.driver
            .finish(context, generations, Duration::ZERO, &mut |_, event| {
                if let Event::Failed(error) = event {
                    failed = Err(error);
                }
            });
        failed?;
        if !run.generation.is_over() {
            return Ok(None);
        }
        if let (Some(prompt), Some(run)) = (self.rest.pop_front(), self.run.take()) {
            context.close(run.generation.sequence())?;
            self.answers.push(Answer {
                prompt: prompt.name.into(),
                tokens: run.generation.tokens()[..prompt.tokens.len() + prompt.sampled].to_vec(),
                sampled: prompt.sampled,
                digest: run.digest.finish(),
                positions: run.positions,
            });
        }
        Ok(self.rest.is_empty().then(|| self.record(context)))
    }

    fn record(&self, context: &Context) -> Record {
        let options = context.options();
        Record {
            engine_version: env!("CARGO_PKG_VERSION").into(),
            numerics_version: NUMERICS_VERSION.into(),
            backend: context.model().backend().name().into(),
            model: self.model.clone(),
            prompt_set: PROMPT_SET.into(),
            cache_type_k: options.cache_type_k,
            cache_type_v: options.cache_type_v,
            digest: self.all.clone().finish(),
            answers: self.answers.clone(),
        }
    }
}

impl Run {
    fn new(prompt: &Prompt, context: &mut Context) -> Result<Self> {
        let params = SamplerParams {
            seed: prompt.seed,
            ..SamplerParams::default()
        };
        let sampler = Sampler::new(params, context.model().config().n_vocab)?;
        let id = context.open()?;
        // The last one of these is chosen and not computed: it is in no record.
        let chosen = Some(prompt.sampled + 1);
        let generation = Generation::of_tokens(context, id, &prompt.tokens, sampler, chosen)?;
        Ok(Run {
            generation: generation.with_all_logits(),
            digest: Digest::new(),
            positions: Vec::new(),
        })
    }
}

impl Record {
    /// The whole record at once, by [`Recording`]. `progress(done, total)` counts tokens and may end it, which gives
    /// `None`.
    ///
    /// # Errors
    /// As [`Recording`]'s.
    pub fn make(
        context: &mut Context,
        model: Subject,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Record>> {
        let mut recording = Recording::new(context, model)?;
        loop {
            let record = recording.advance(context)?;
            if progress(recording.done(), total_tokens()).is_break() {
                return Ok(None);
            }
            if record.is_some() {
                return Ok(record);
            }
        }
    }

    /// Whether a record of that model can be checked by this engine at all: what can be said before anything is
    /// computed.
    ///
    /// # Errors
    /// The reason why its numbers may differ and nobody is to blame.
    pub fn applies_to(&self, sha256: &[String]) -> std::result::Result<(), Mismatch> {
        let unequal = |what, recorded: String, found: String| {
            Err(Mismatch::Subject {
                what,
                recorded,
                found,
            })
        };
        let known = !self.model.sha256.is_empty() && !sha256.is_empty();
        if known && self.model.sha256 != sha256 {
            return unequal("model files", self.model.sha256.join(" "), sha256.join(" "));
        }
        for (what, recorded, found) in [
            ("numerics version", self.numerics_version, NUMERICS_VERSION),
            ("prompt set", self.prompt_set, PROMPT_SET),
        ] {
            if recorded != u64::from(found) {
                return unequal(what, recorded.to_string(), found.to_string());
            }
        }
        Ok(())
    }

    /// Compares what was recorded (`self`) with what was `found` here.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, found: &Record) -> std::result::Result<(), Mismatch> {
        self.applies_to(&found.model.sha256)?;
        let types =
            |record: &Record| format!("{}/{}", record.cache_type_k.name(), record.cache_type_v.name());
        if types(self) != types(found) {
            return Err(Mismatch::Subject {
                what: "cache types",
                recorded: types(self),
                found: types(found),
            });
        }
        let damaged = |what: &str| Err(Mismatch::Damaged { what: what.into() });
        for (answer, theirs) in found.answers.iter().zip(&self.answers) {
            let shape = |answer: &Answer| {
                let (tokens, positions) = (answer.tokens.len(), answer.positions.len());
                (answer.prompt.clone(), tokens, positions, answer.sampled)
            };
            if shape(answer) != shape(theirs) {
                return damaged(&format!("its prompt `{}` is not the prompt set's", theirs.prompt));
            }
            let given = answer.tokens.len().saturating_sub(answer.sampled);
            for (position, (&token, logits)) in answer.tokens.iter().zip(&answer.positions).enumerate() {
                let recorded = theirs.tokens[position];
                if token != recorded && position < given {
                    return damaged(&format!("its prompt `{}` is not the prompt set's", theirs.prompt));
                }
                if token != recorded {
                    return Err(Mismatch::Sampled {
                        prompt: answer.prompt.clone(),
                        position,
                        recorded,
                        found: token,
                    });
                }
                if *logits != theirs.positions[position] {
                    return Err(Mismatch::Logits {
                        prompt: answer.prompt.clone(),
                        position,
                    });
                }
            }
            if answer.digest != theirs.digest {
                return damaged(&format!(
                    "its positions are equal, but not its digest of prompt `{}`",
                    theirs.prompt
                ));
            }
        }
        if self.answers.len() != found.answers.len() || self.digest != found.digest {
            return damaged("its answers are equal, but not its digest of all");
        }
        Ok(())
    }
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The record is of something else; its numbers were not compared.
    Subject {
        /// What is another one.
        what: &'static str,
        /// In the record.
        recorded: String,
        /// Here.
        found: String,
    },
    /// Logits differ: the engine, its compiler or the machine has a fault, here or where the record was made.
    Logits {
        /// The first prompt that they differ in.
        prompt: String,
        /// The first position in it.
        position: usize,
    },
    /// The logits up to there are equal, and a sampled token differs: the sampler has a fault.
    Sampled {
        /// The first prompt that it differs in.
        prompt: String,
        /// The position that it stands at.
        position: usize,
        /// In the record.
        recorded: u32,
        /// Here.
        found: u32,
    },
    /// The record contradicts itself.
    Damaged {
        /// How.
        what: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Subject {
                what,
                recorded,
                found,
            } => write!(
                f,
                "the record cannot be checked: {what} {recorded} in the record, {found} here"
            ),
            Mismatch::Logits { prompt, position } => {
                write!(
                    f,
                    "logits differ, first in prompt `{prompt}` at position {position}"
                )
            }
            Mismatch::Sampled {
                prompt,
                position,
                recorded,
                found,
            } => write!(
                f,
                "sampled text differs, first in prompt `{prompt}` at position {position}: token {recorded} in the record, \
                 {found} here, from equal logits"
            ),
            Mismatch::Damaged { what } => write!(f, "the record contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Answer, Mismatch, PROMPT_SET, Record, Subject, prompts};
    use crate::cache::CacheType;
    use crate::kernels::NUMERICS_VERSION;

    pub(super) fn record() -> Record {
        let answer = |prompt: &str| Answer {
            prompt: prompt.into(),
            tokens: vec![1, 2, 3, 4],
            sampled: 2,
            digest: format!("d-{prompt}"),
            positions: ["a", "b", "c", "d"].map(String::from).into(),
        };
        Record {
            engine_version: "9".into(),
            numerics_version: NUMERICS_VERSION.into(),
            backend: "scalar".into(),
            model: Subject {
                name: "m".into(),
                sha256: vec!["ab".into()],
            },
            prompt_set: PROMPT_SET.into(),
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::Q8_0,
            digest: "all".into(),
            answers: vec![answer("one"), answer("few")],
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let want = record();
        let mut found = record();
        found.engine_version = "10".into();
        found.backend = "avx2".into();
        found.model.name = "elsewhere".into();
        assert_eq!(want.check(&found), Ok(()));

        let changed = |change: &dyn Fn(&mut Record)| {
            let mut found = record();
            change(&mut found);
            want.check(&found).unwrap_err()
        };
        let logits = |position| Mismatch::Logits {
            prompt: "few".into(),
            position,
        };
        let sampled = |position: usize| Mismatch::Sampled {
            prompt: "few".into(),
            position,
            recorded: position as u32 + 1,
            found: 9,
        };
        assert_eq!(changed(&|r| r.answers[1].positions[1] = "x".into()), logits(1));
        // The logits come before the token that was sampled from them, and the token before what follows from it.
        let both = |position: usize| {
            changed(&|r| {
                r.answers[1].positions[position] = "x".into();
                r.answers[1].tokens[2] = 9;
            })
        };
        assert_eq!((both(1), both(2)), (logits(1), sampled(2)));
        assert_eq!(changed(&|r| r.answers[1].tokens[3] = 9), sampled(3));
        let subject = |mismatch| matches!(mismatch, Mismatch::Subject { .. });
        assert!(subject(changed(&|r| r.model.sha256[0] = "cd".into())));
        assert!(subject(changed(&|r| r.cache_type_k = CacheType::F32)));
        let damaged = |mismatch| matches!(mismatch, Mismatch::Damaged { .. });
        assert!(damaged(changed(&|r| r.answers[0].digest = "x".into())));
        assert!(damaged(changed(&|r| r.digest = "x".into())));
        assert!(damaged(changed(&|r| r.answers[1].tokens[0] = 9)));
        assert!(damaged(changed(&|r| drop(r.answers.pop()))));
        // Where no file was at hand, nothing is said about files.
        let mut fileless = record();
        fileless.model.sha256.clear();
        assert_eq!((want.check(&fileless), fileless.check(&want)), (Ok(()), Ok(())));
        let mut newer = record();
        newer.numerics_version += 1;
        assert!(subject(newer.check(&record()).unwrap_err()));
    }

    #[test]
    fn prompts_are_inside_the_vocabulary_and_stay() {
        for n_vocab in [1, 40, 262_144] {
            let prompts = prompts(n_vocab);
            assert!(
                prompts
                    .iter()
                    .all(|p| p.tokens.iter().all(|t| (*t as usize) < n_vocab))
            );
            let longest = prompts.iter().map(|p| p.tokens.len() + p.sampled).max();
            assert!(longest.unwrap() <= super::N_CTX);
        }
        // A change of the prompts is a new prompt set.
        assert_eq!(prompts(1000)[1].tokens, [236, 459, 188, 741, 717, 117, 205]);
    }
}
