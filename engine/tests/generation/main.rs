//! Generation: driven in any way, with and without drafts, it gives the tokens, the text and the logits of the plain
//! loop.

#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "../support/allocations.rs"]
mod allocations;
mod cache;
mod drafts;
mod ends;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::digest::Digest;
use twinfer_engine::generation::{
    Bounds, Counts, DraftModel, Driver, End, Event, Generation, Sampling, Speculation,
};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::sample::{Sampler, SamplerParams, Scratch};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, StopFilter, Tokenizer};

struct Subject {
    model: Arc<Model>,
    tokenizer: Tokenizer,
}

fn load(path: &str) -> Subject {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    Subject {
        tokenizer: Tokenizer::from_metadata(file.metadata()).unwrap(),
        model: Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap()),
    }
}

/// A model that was trained, on stories; its vocabulary has control tokens.
fn demo() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| load("../models/demo/twinfer-demo-q4_k_m.gguf"))
}

/// Random weights; a sliding window of 8 positions.
fn windowed() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| load("../tests/oracle/vectors/gemma3.gguf"))
}

/// Random weights; most layers keep a state.
fn recurrent() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| load("../tests/oracle/vectors/granitehybrid.gguf"))
}

impl Subject {
    fn context(&self, n_ctx: usize, n_batch: usize, n_sequences: usize) -> Context {
        self.context_of(n_ctx, n_batch, n_sequences, Pool::Whole)
    }

    fn context_of(&self, n_ctx: usize, n_batch: usize, n_sequences: usize, pool: Pool) -> Context {
        let options = ContextOptions {
            n_ctx,
            n_batch,
            n_sequences,
            pool,
            n_states: None,
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
        };
        Context::new(Arc::clone(&self.model), Team::single(), options).unwrap()
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        self.tokenizer.encode(text, options).unwrap()
    }

    fn sampler(&self, params: &SamplerParams, n_ctx: usize) -> Sampler {
        let sampling = Sampling::from(params.clone());
        sampling.sampler(&self.tokenizer, n_ctx).unwrap()
    }

    /// Text in a context of its own.
    fn driven(&self, how: &How, prompt: &[u32], params: &SamplerParams, bounds: &Bounds) -> Made {
        let mut context = self.context(how.n_ctx, how.n_batch, 1);
        let id = context.open().unwrap();
        let sampler = self.sampler(params, how.n_ctx);
        let mut generation =
            Generation::new(&mut context, id, prompt, sampler, &self.tokenizer, bounds).unwrap();
        let mut driver = Driver::new(how.speculation, how.draft_model());
        let made = drive(&mut context, &mut driver, std::slice::from_mut(&mut generation));
        let made = made.into_iter().next().unwrap();
        // The cache is what the tokens say, and the last one is not in it unless it was a draft.
        let held = context.tokens(id).unwrap();
        assert_eq!(held, &generation.tokens()[..held.len()]);
        if how.speculation == Speculation::OFF && made.end != Some(End::ModelEnded) && !made.tokens.is_empty()
        {
            assert_eq!(held.len() + 1, generation.tokens().len());
        }
        made
    }

    /// The same by prefill and decode, token by token.
    fn plain(&self, n_ctx: usize, prompt: &[u32], params: &SamplerParams, bounds: &Bounds) -> Made {
        let mut context = self.context(n_ctx, n_ctx, 1);
        let id = context.open().unwrap();
        let mut sampler = self.sampler(params, n_ctx);
        let mut scratch = Scratch::default();
        let mut decoder = self.tokenizer.stream_decoder(bounds.special);
        if bounds.at_start {
            decoder = decoder.at_start();
        }
        let mut stop = StopFilter::new(&bounds.stop);
        for &token in prompt {
            sampler.accept(token).unwrap();
        }
        let mut made = Made::default();
        let mut logits = context.prefill(id, prompt).unwrap().to_vec();
        loop {
            if bounds.max_tokens.is_some_and(|n| made.tokens.len() >= n) {
                made.end = Some(End::Limit);
                break;
            }
            if prompt.len() + made.tokens.len() > n_ctx {
                made.end = Some(End::ContextFull);
                break;
            }
            if let Some(&last) = made.tokens.last() {
                logits = context.decode(id, last).unwrap().to_vec();
            }
            made.saw(prompt.len() + made.tokens.len() - 1, &logits);
            let token = sampler.sample(&logits, &mut scratch).unwrap();
            if self.tokenizer.is_end(token) {
                made.end = Some(End::ModelEnded);
                break;
            }
            sampler.accept(token).unwrap();
            made.tokens.push(token);
            if stop.push(decoder.push(token), &mut made.text) {
                made.end = Some(End::Stop);
                return made;
            }
        }
        if !stop.push(decoder.flush(), &mut made.text) {
            made.text.push_str(&stop.finish());
        }
        made
    }
}

/// How a text is made.
#[derive(Debug, Clone, Copy)]
struct How {
    n_ctx: usize,
    n_batch: usize,
    speculation: Speculation,
    /// The demo model drafts.
    draft: bool,
}

impl How {
    fn draft_model(&self) -> Option<DraftModel> {
        let demo = demo();
        self.draft.then(|| {
            let context = demo.context(self.n_ctx, 16, 4);
            DraftModel::new(context, &demo.tokenizer, &demo.tokenizer).unwrap()
        })
    }
}

/// What came of a generation.
#[derive(Debug, Default, Clone)]
struct Made {
    tokens: Vec<u32>,
    text: String,
    end: Option<End>,
    /// Position and digest of the logits that chose tokens.
    logits: Vec<(usize, String)>,
    counts: Counts,
}

impl Made {
    fn saw(&mut self, position: usize, logits: &[f32]) {
        let mut digest = Digest::new();
        digest.update(logits);
        self.logits.push((position, digest.finish()));
    }

    #[track_caller]
    fn is(&self, expected: &Made, what: &str) {
        assert_eq!(self.text, expected.text, "{what}");
        assert_eq!(self.tokens, expected.tokens, "{what}");
        assert_eq!(self.end, expected.end, "{what}");
        assert_eq!(self.logits, expected.logits, "{what}");
    }
}

/// A pass of one, whose time nobody measures.
fn pass(
    context: &mut Context,
    driver: &mut Driver,
    generation: &mut Generation,
    on_event: &mut dyn FnMut(Event<'_>),
) {
    let generations = std::slice::from_mut(generation);
    driver.pass(context, generations).unwrap();
    driver.finish(context, generations, Duration::ZERO, &mut |_, event| {
        on_event(event)
    });
}

/// Passes until all are over. The clock says that a row costs a tenth of a pass of one.
fn drive(context: &mut Context, driver: &mut Driver, generations: &mut [Generation]) -> Vec<Made> {
    let mut made = vec![Made::default(); generations.len()];
    while generations.iter().any(|generation| !generation.is_over()) {
        let n_batch = context.options().n_batch;
        let rows = driver
            .pass_with(context, generations, &mut |index, position, logits| {
                made[index].saw(position, logits);
            })
            .unwrap();
        assert!(rows <= n_batch);
        let elapsed = Duration::from_micros(900 + 100 * rows as u64);
        driver.finish(context, generations, elapsed, &mut |index, event| match event {
            Event::Token { text, .. } => {
                assert_eq!(made[index].end, None);
                made[index].text.push_str(text);
            }
            Event::End { end, text } => {
                assert_eq!(made[index].end.replace(end), None);
                made[index].text.push_str(text);
            }
            Event::Failed(error) => panic!("{error}"),
        });
    }
    for (made, generation) in made.iter_mut().zip(generations) {
        made.tokens = generation.generated().to_vec();
        made.counts = *generation.counts();
    }
    made
}

fn always(draft_max: usize) -> Speculation {
    Speculation {
        always: true,
        draft_max,
        ..Speculation::default()
    }
}

fn speculations() -> [Speculation; 6] {
    [
        Speculation::OFF,
        Speculation::default(),
        always(1),
        always(3),
        always(48),
        Speculation {
            draft_min: 2,
            ..always(5)
        },
    ]
}

fn settings() -> [SamplerParams; 4] {
    let seeded = |seed| SamplerParams {
        seed,
        ..SamplerParams::default()
    };
    [
        SamplerParams::greedy(),
        seeded(1),
        SamplerParams {
            temp: 1.2,
            xtc_probability: 0.3,
            penalty_repeat: 1.1,
            dry_multiplier: 0.8,
            ..seeded(2)
        },
        SamplerParams {
            mirostat: 2,
            ..seeded(3)
        },
    ]
}

const STORY: &str = "Once upon a time there was a little girl. She had a red ball. One day the little girl went to the park. \
    Once upon a time there was a little girl. She had a red ball. One day";
