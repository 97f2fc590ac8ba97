//! Generation: driven in any way, with and without drafts, it gives the tokens, the text and the logits of the plain loop.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::digest::Digest;
use twinfer_engine::generation::{
    Counts, DraftModel, Driver, End, Event, Generation, Limits, Sampling, Speculation,
};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::sample::{Sampler, SamplerParams, Scratch};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, StopFilter, Tokenizer};
use twinfer_engine::{Error, Result};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; the counter is a plain thread-local without destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
    fn driven(&self, how: &How, prompt: &[u32], params: &SamplerParams, limits: &Limits) -> Made {
        let mut context = self.context(how.n_ctx, how.n_batch, 1);
        let id = context.open().unwrap();
        let sampler = self.sampler(params, how.n_ctx);
        let mut generation =
            Generation::new(&mut context, id, prompt, sampler, &self.tokenizer, limits).unwrap();
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
    fn plain(&self, n_ctx: usize, prompt: &[u32], params: &SamplerParams, limits: &Limits) -> Made {
        let mut context = self.context(n_ctx, n_ctx, 1);
        let id = context.open().unwrap();
        let mut sampler = self.sampler(params, n_ctx);
        let mut scratch = Scratch::default();
        let mut decoder = self.tokenizer.stream_decoder(limits.special);
        if limits.at_start {
            decoder = decoder.at_start();
        }
        let mut stop = StopFilter::new(&limits.stop);
        for &token in prompt {
            sampler.accept(token).unwrap();
        }
        let mut made = Made::default();
        let mut logits = context.prefill(id, prompt).unwrap().to_vec();
        loop {
            if limits.max_tokens.is_some_and(|n| made.tokens.len() >= n) {
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
            let (text, stopped) = stop.push(decoder.push(token));
            made.text.push_str(&text);
            if stopped {
                made.end = Some(End::Stop);
                return made;
            }
        }
        let (text, stopped) = stop.push(decoder.flush());
        made.text.push_str(&text);
        if !stopped {
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

#[test]
fn every_way_gives_the_plain_text() {
    let limits = Limits {
        max_tokens: Some(32),
        ..Limits::default()
    };
    let (mut accepted, mut drafted) = (0, 0);
    for (subject, prompt, n_ctx) in [(demo(), STORY, 256), (windowed(), "ab a cab ab a cab ab a", 128)] {
        let prompt = subject.tokens(prompt);
        for params in settings() {
            let plain = subject.plain(n_ctx, &prompt, &params, &limits);
            for speculation in speculations() {
                for n_batch in [1, 2, 3, 7, n_ctx] {
                    let how = How {
                        n_ctx,
                        n_batch,
                        speculation,
                        draft: false,
                    };
                    let made = subject.driven(&how, &prompt, &params, &limits);
                    made.is(&plain, &format!("{how:?}, {params:?}"));
                    assert!(made.counts.accepted <= made.counts.drafted);
                    assert_eq!(made.counts.read, prompt.len());
                    if speculation == Speculation::OFF || n_batch == 1 {
                        assert_eq!(made.counts.drafted, 0);
                    }
                    accepted += made.counts.accepted;
                    drafted += made.counts.drafted;
                }
            }
        }
    }
    println!("{accepted} of {drafted} drafts were right");
    // Where all or none are right, little is shown.
    assert!(accepted > 100 && drafted > accepted + 100);
}

#[test]
fn drafts_save_passes() {
    // A text that goes round in circles: greedy, of a model that knows little.
    let subject = windowed();
    let prompt = subject.tokens("ab a cab ab a cab ab a cab ab a");
    let limits = Limits {
        max_tokens: Some(100),
        ..Limits::default()
    };
    let plain = subject.plain(256, &prompt, &SamplerParams::greedy(), &limits);
    for speculation in [Speculation::default(), always(16)] {
        let how = How {
            n_ctx: 256,
            n_batch: 64,
            speculation,
            draft: false,
        };
        let made = subject.driven(&how, &prompt, &SamplerParams::greedy(), &limits);
        made.is(&plain, "circles");
        println!("{speculation:?}: {:?}", made.counts);
        assert!(made.counts.passes < 20, "{:?}", made.counts);
    }
}

#[test]
fn a_draft_model_drafts() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let limits = Limits {
        max_tokens: Some(32),
        ..Limits::default()
    };
    for params in settings() {
        let plain = subject.plain(256, &prompt, &params, &limits);
        for speculation in [
            Speculation::default(),
            always(4),
            Speculation {
                lookup: false,
                p_min: 0.0,
                ..always(7)
            },
        ] {
            let how = How {
                n_ctx: 256,
                n_batch: 32,
                speculation,
                draft: true,
            };
            let made = subject.driven(&how, &prompt, &params, &limits);
            made.is(&plain, &format!("{how:?}, {params:?}"));
            if params.temp == 0.0 && !speculation.lookup {
                // It drafts for itself, so every draft is right, but for what came after the end.
                assert!(
                    made.counts.accepted + 7 >= made.counts.drafted,
                    "{:?}",
                    made.counts
                );
                assert!(made.counts.passes < 6, "{:?}", made.counts);
            }
        }
    }
    let other = windowed();
    let error = DraftModel::new(other.context(64, 8, 1), &other.tokenizer, &subject.tokenizer).unwrap_err();
    assert!(error.to_string().contains("another vocabulary"), "{error}");
}

#[test]
fn what_shares_a_pass_changes_nothing() {
    let subject = demo();
    let prompts = [
        STORY,
        "The cat",
        "Once upon a time there was a little girl. She",
        "One day",
        STORY,
        "The dog and the cat went to the park. The dog and the cat went to",
    ];
    let limits = |i: usize| Limits {
        max_tokens: Some(8 + 5 * i),
        ..Limits::default()
    };
    let settings = settings();
    let params = |i: usize| &settings[i % settings.len()];
    let plain: Vec<Made> = (0..prompts.len())
        .map(|i| subject.plain(128, &subject.tokens(prompts[i]), params(i), &limits(i)))
        .collect();
    for (n_batch, speculation) in [
        (3, Speculation::OFF),
        (6, always(2)),
        (17, Speculation::default()),
        (512, always(4)),
    ] {
        let mut context = subject.context(128, n_batch, prompts.len());
        let mut generations: Vec<Generation> = (0..prompts.len())
            .map(|i| {
                let id = context.open().unwrap();
                let (prompt, sampler) = (subject.tokens(prompts[i]), subject.sampler(params(i), 128));
                Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &limits(i)).unwrap()
            })
            .collect();
        let mut driver = Driver::new(speculation, None);
        let made = drive(&mut context, &mut driver, &mut generations);
        for (i, (made, plain)) in made.iter().zip(&plain).enumerate() {
            made.is(plain, &format!("prompt {i}, n_batch {n_batch}, {speculation:?}"));
        }
    }
}

#[test]
fn stop_strings_end_the_text() {
    stop_strings(demo(), STORY);
    // Here most drafts are right, also those behind the stop string.
    stop_strings(windowed(), "ab a cab ab a cab ab a cab ab a");
}

fn stop_strings(subject: &Subject, prompt: &str) {
    let prompt = subject.tokens(prompt);
    let greedy = SamplerParams::greedy();
    let limit = |stop: Vec<String>| Limits {
        max_tokens: Some(32),
        stop,
        ..Limits::default()
    };
    let whole = subject.plain(256, &prompt, &greedy, &limit(vec![])).text;
    let inner: Vec<usize> = whole.char_indices().map(|(i, _)| i).skip(1).collect();
    for &from in inner.iter().step_by(17) {
        let Some(stop) = whole.get(from..from + 6) else {
            continue;
        };
        let expected = &whole[..whole.find(stop).unwrap()];
        let limits = limit(vec!["not there".into(), stop.into()]);
        let plain = subject.plain(256, &prompt, &greedy, &limits);
        for speculation in speculations() {
            let how = How {
                n_ctx: 256,
                n_batch: 16,
                speculation,
                draft: false,
            };
            let made = subject.driven(&how, &prompt, &greedy, &limits);
            assert_eq!(made.text, expected);
            assert_eq!(made.end, Some(End::Stop));
            made.is(&plain, &format!("{stop:?}"));
        }
    }
    // What may be the beginning of a stop string is held back, and given out at the end.
    let limits = limit(vec![format!("{}?", whole.chars().last().unwrap())]);
    let how = How {
        n_ctx: 256,
        n_batch: 16,
        speculation: Speculation::OFF,
        draft: false,
    };
    let made = subject.driven(&how, &prompt, &greedy, &limits);
    assert_eq!(made.text, whole);
}

#[test]
fn a_stop_string_that_is_a_control_token_ends_the_text() {
    let subject = demo();
    let token = subject.tokenizer.find_token(b"<|user|>").unwrap();
    // Chosen whatever comes.
    let params = SamplerParams {
        logit_bias: vec![(token, 1000.0)],
        ..SamplerParams::greedy()
    };
    for special in [false, true] {
        let limits = Limits {
            max_tokens: Some(5),
            stop: vec!["<|user|>".into()],
            special,
            ..Limits::default()
        };
        let how = How {
            n_ctx: 64,
            n_batch: 8,
            speculation: Speculation::default(),
            draft: false,
        };
        let made = subject.driven(&how, &subject.tokens("The cat"), &params, &limits);
        assert_eq!(
            (made.text.as_str(), made.end, made.tokens.as_slice()),
            ("", Some(End::Stop), [token].as_slice())
        );
    }
}

#[test]
fn limits_are_kept_to_the_token() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    for params in [SamplerParams::greedy(), SamplerParams::default()] {
        for n in [0, 1, 2, 3, 9] {
            let limits = Limits {
                max_tokens: Some(n),
                ..Limits::default()
            };
            let plain = subject.plain(256, &prompt, &params, &limits);
            for speculation in speculations() {
                let how = How {
                    n_ctx: 256,
                    n_batch: 16,
                    speculation,
                    draft: false,
                };
                let made = subject.driven(&how, &prompt, &params, &limits);
                assert_eq!(made.counts.generated, made.tokens.len());
                made.is(&plain, &format!("{n} tokens, {speculation:?}"));
            }
        }
        // As many as fit, and one that is not evaluated.
        for room in [0, 1, 2, 5] {
            let n_ctx = prompt.len() + room;
            let plain = subject.plain(n_ctx, &prompt, &params, &Limits::default());
            for speculation in speculations() {
                let how = How {
                    n_ctx,
                    n_batch: 16,
                    speculation,
                    draft: false,
                };
                let made = subject.driven(&how, &prompt, &params, &Limits::default());
                if made.end == Some(End::ContextFull) {
                    assert_eq!(made.tokens.len(), room + 1);
                }
                made.is(&plain, &format!("room for {room}, {speculation:?}"));
            }
        }
    }
    let mut context = subject.context(prompt.len() - 1, 16, 1);
    let id = context.open().unwrap();
    let sampler = || subject.sampler(&SamplerParams::greedy(), 16);
    let mut begin = |prompt: &[u32]| -> Result<Generation> {
        Generation::of_tokens(&mut context, id, prompt, sampler(), None)
    };
    assert!(matches!(begin(&prompt), Err(Error::ContextFull { .. })));
    assert!(matches!(begin(&[]), Err(Error::InvalidInput { .. })));
    assert!(matches!(begin(&[2048]), Err(Error::InvalidInput { .. })));
}

#[test]
fn what_the_cache_holds_is_not_read_again() {
    let subject = demo();
    let greedy = SamplerParams::greedy();
    let limits = Limits {
        max_tokens: Some(6),
        ..Limits::default()
    };
    let mut context = subject.context(256, 32, 1);
    let id = context.open().unwrap();
    let mut driver = Driver::default();
    let mut ask = |prompt: &[u32]| {
        let sampler = subject.sampler(&greedy, 256);
        let mut generation =
            Generation::new(&mut context, id, prompt, sampler, &subject.tokenizer, &limits).unwrap();
        let made = drive(&mut context, &mut driver, std::slice::from_mut(&mut generation));
        made.into_iter().next().unwrap()
    };
    let first = subject.tokens("Once upon a time there was a little girl. She");
    let made = ask(&first);
    assert_eq!((made.counts.reused, made.counts.read), (0, first.len()));
    // Again: the last token alone is computed, for its logits.
    let again = ask(&first);
    assert_eq!((again.counts.reused, again.counts.read), (first.len() - 1, 1));
    again.is(&made, "again");
    // It goes on after the answer, whose last token was not evaluated.
    let mut longer = [first.as_slice(), &made.tokens].concat();
    let held = longer.len() - usize::from(made.end != Some(End::ModelEnded));
    longer.extend(subject.tokens(" The end")[1..].iter());
    let next = ask(&longer);
    assert_eq!(next.counts.reused, held);
    next.is(&subject.plain(256, &longer, &greedy, &limits), "longer");
    // Another middle.
    let mut edited = longer.clone();
    edited[5] = first[2];
    let made = ask(&edited);
    assert_eq!(made.counts.reused, 5);
    made.is(&subject.plain(256, &edited, &greedy, &limits), "edited");
}

#[test]
fn a_generation_goes_on_in_another_sequence() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let limits = Limits {
        max_tokens: Some(24),
        ..Limits::default()
    };
    for params in settings() {
        let plain = subject.plain(256, &prompt, &params, &limits);
        let mut context = subject.context(256, 16, 2);
        let id = context.open().unwrap();
        let sampler = subject.sampler(&params, 256);
        let mut generation =
            Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &limits).unwrap();
        let (mut driver, mut text) = (Driver::new(always(3), None), String::new());
        let mut passes = 0;
        while !generation.is_over() {
            let generations = std::slice::from_mut(&mut generation);
            driver.pass(&mut context, generations).unwrap();
            driver.finish(
                &mut context,
                generations,
                Duration::ZERO,
                &mut |_, event| match event {
                    Event::Token { text: piece, .. } | Event::End { text: piece, .. } => text.push_str(piece),
                    Event::Failed(error) => panic!("{error}"),
                },
            );
            passes += 1;
            if passes % 9 == 0 && !generation.is_over() {
                // Put off: its pages go, and it is read again.
                context.close(generation.sequence()).unwrap();
                let id = context.open().unwrap();
                generation.go_on_in(&mut context, id).unwrap();
                assert!(generation.is_reading());
            }
        }
        assert!(passes > 9);
        assert_eq!(
            (text, generation.generated()),
            (plain.text, plain.tokens.as_slice())
        );
    }
}

#[test]
fn a_full_cache_leaves_everything_as_it_was() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let limits = Limits {
        max_tokens: Some(60),
        ..Limits::default()
    };
    let params = SamplerParams {
        seed: 5,
        logit_bias: subject
            .tokenizer
            .end_tokens()
            .iter()
            .map(|&id| (id, f32::NEG_INFINITY))
            .collect(),
        ..SamplerParams::default()
    };
    let plain = subject.plain(256, &prompt, &params, &limits);
    // Two pages each at the end, three are there.
    assert!(prompt.len() < 64 && prompt.len() + 60 > 64);
    let mut context = subject.context_of(256, 64, 2, Pool::Pages(3));
    let mut generations: Vec<Generation> = (0..2)
        .map(|_| {
            let id = context.open().unwrap();
            let sampler = subject.sampler(&params, 256);
            Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &limits).unwrap()
        })
        .collect();
    let mut driver = Driver::new(always(3), None);
    let mut full = 0;
    while generations.iter().any(|generation| !generation.is_over()) {
        match driver.pass(&mut context, &mut generations) {
            Ok(_) => {}
            Err(Error::CacheFull { .. }) => {
                full += 1;
                // The youngest one gives way.
                let put_off = generations.pop().unwrap();
                context.close(put_off.sequence()).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        driver.finish(&mut context, &mut generations, Duration::ZERO, &mut |_, _| {});
    }
    assert_eq!(full, 1);
    assert_eq!(generations[0].generated(), plain.tokens);
}

#[test]
fn an_interrupted_text_is_given_out_whole() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let limits = Limits {
        max_tokens: Some(32),
        ..Limits::default()
    };
    let greedy = SamplerParams::greedy();
    let whole = subject.plain(256, &prompt, &greedy, &limits).text;
    let held = Limits {
        // Everything from its first letter on is held back.
        stop: vec![format!("{whole}!")],
        ..limits
    };
    let mut context = subject.context(256, 64, 1);
    let id = context.open().unwrap();
    let sampler = subject.sampler(&greedy, 256);
    let mut generation =
        Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &held).unwrap();
    let (mut driver, mut text) = (Driver::default(), String::new());
    for _ in 0..4 {
        let generations = std::slice::from_mut(&mut generation);
        driver.pass(&mut context, generations).unwrap();
        driver.finish(&mut context, generations, Duration::ZERO, &mut |_, event| {
            assert!(matches!(event, Event::Token { text: "", .. }), "{event:?}");
        });
    }
    generation.interrupt(&mut |event| match event {
        Event::End {
            end: End::Interrupted,
            text: rest,
        } => text.push_str(rest),
        event => panic!("{event:?}"),
    });
    assert!(
        generation.is_over() && !text.is_empty() && whole.starts_with(&text),
        "{text:?}"
    );
    generation.interrupt(&mut |event| panic!("{event:?}"));
}

#[test]
fn a_pass_allocates_no_more_than_its_text() {
    let subject = windowed();
    let prompt = subject.tokens("ab a cab ab a cab ab a");
    for params in settings() {
        let mut context = subject.context(256, 64, 1);
        let id = context.open().unwrap();
        let sampler = subject.sampler(&params, 256);
        let mut generation = Generation::of_tokens(&mut context, id, &prompt, sampler, Some(180)).unwrap();
        let mut driver = Driver::new(Speculation::OFF, None);
        let (mut passes, mut before) = (0, 0);
        while !generation.is_over() {
            let generations = std::slice::from_mut(&mut generation);
            driver.pass(&mut context, generations).unwrap();
            driver.finish(&mut context, generations, Duration::ZERO, &mut |_, _| {});
            passes += 1;
            // The prompt's pass and the first one after it make what all others use.
            if passes == 2 {
                before = ALLOCATIONS.with(Cell::get);
            }
        }
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "{params:?}");
        assert_eq!(passes, 180);
    }
    // Drafts make the index grow, by doubling.
    let mut context = subject.context(512, 64, 1);
    let id = context.open().unwrap();
    let sampler = subject.sampler(&SamplerParams::greedy(), 512);
    let mut generation = Generation::of_tokens(&mut context, id, &prompt, sampler, Some(400)).unwrap();
    let mut driver = Driver::new(always(4), None);
    let before = ALLOCATIONS.with(Cell::get);
    while !generation.is_over() {
        let generations = std::slice::from_mut(&mut generation);
        driver.pass(&mut context, generations).unwrap();
        driver.finish(&mut context, generations, Duration::ZERO, &mut |_, _| {});
    }
    let count = ALLOCATIONS.with(Cell::get) - before;
    assert!(count < 60, "{count}");
}
