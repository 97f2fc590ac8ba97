//! What a generation finds in the cache and leaves there, and what it allocates.

use std::sync::Arc;
use std::time::Duration;

use twinfer_engine::Error;
use twinfer_engine::cache::{Pool, SeqId};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::generation::{Bounds, Checkpoints, Driver, End, Event, Generation, Speculation};
use twinfer_engine::sample::SamplerParams;
use twinfer_engine::team::Team;

use crate::allocations::allocations;
use crate::{STORY, Subject, always, demo, drive, pass, recurrent, settings, windowed};

#[test]
fn what_the_cache_holds_is_not_read_again() {
    let subject = demo();
    let greedy = SamplerParams::greedy();
    let bounds = Bounds {
        max_tokens: Some(6),
        ..Bounds::default()
    };
    let mut context = subject.context(256, 32, 1);
    let id = context.open().unwrap();
    let mut driver = Driver::default();
    let mut ask = |prompt: &[u32]| {
        let sampler = subject.sampler(&greedy, 256);
        let mut generation =
            Generation::new(&mut context, id, prompt, sampler, &subject.tokenizer, &bounds).unwrap();
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
    next.is(&subject.plain(256, &longer, &greedy, &bounds), "longer");
    // Another middle.
    let mut edited = longer.clone();
    edited[5] = first[2];
    let made = ask(&edited);
    assert_eq!(made.counts.reused, 5);
    made.is(&subject.plain(256, &edited, &greedy, &bounds), "edited");
}

/// A conversation in one sequence, as `chat` has it.
struct Conversation {
    context: Context,
    id: SeqId,
    driver: Driver,
    checkpoints: Checkpoints,
    /// Passes that were made again because checkpoints had the room.
    dropped: usize,
}

impl Conversation {
    fn of(mut context: Context, limit: usize) -> Self {
        Conversation {
            id: context.open().unwrap(),
            context,
            driver: Driver::new(Speculation::OFF, None),
            checkpoints: Checkpoints::new(limit),
            dropped: 0,
        }
    }

    /// The tokens of the answer, and how many of the prompt were read.
    fn answer(&mut self, subject: &Subject, prompt: &[u32], n: usize) -> (Vec<u32>, usize) {
        let Conversation {
            context,
            id,
            driver,
            checkpoints,
            dropped,
        } = self;
        checkpoints.go_back(context, *id, prompt).unwrap();
        let sampler = subject.sampler(&SamplerParams::greedy(), N_CTX);
        let generation = Generation::of_tokens(context, *id, prompt, sampler, Some(n)).unwrap();
        let mut generation = generation.with_last_alone();
        while !generation.is_over() {
            if context.seq_len(*id).unwrap() + 1 == prompt.len() {
                checkpoints.keep(context, *id).unwrap();
            }
            let generations = std::slice::from_mut(&mut generation);
            while let Err(error) = driver.pass(context, generations) {
                assert!(matches!(
                    error,
                    Error::CacheFull { .. } | Error::StatesFull { .. }
                ));
                assert!(checkpoints.drop_oldest(context), "{error}");
                *dropped += 1;
            }
            driver.finish(context, generations, Duration::ZERO, &mut |_, _| {});
        }
        checkpoints.keep(context, *id).unwrap();
        (generation.generated().to_vec(), generation.counts().read)
    }
}

const N_CTX: usize = 512;

#[test]
fn a_conversation_goes_back_to_where_it_was() {
    for subject in [demo(), windowed(), recurrent()] {
        let alone = |prompt: &[u32], n: usize| {
            let context = subject.context(N_CTX, 32, 1);
            Conversation::of(context, 0).answer(subject, prompt, n).0
        };
        let text: Vec<u32> = (0..40).map(|i| 4 + i * 7 % 40).collect();
        let pool = Pool::WithCheckpoints(1);
        let mut talk = Conversation::of(subject.context_of(N_CTX, 32, 1, pool), 4);
        let (first, _) = talk.answer(subject, &text[..20], 100);
        assert_eq!(first, alone(&text[..20], 100));
        let next = [&text[..20], &first, &text[20..28]].concat();
        let (second, read) = talk.answer(subject, &next, 120);
        // The first answer's last token was not computed.
        assert_eq!((&second, read), (&alone(&next, 120), 9));
        // The same prompt again; another question after the first answer; the first question again.
        assert_eq!(talk.answer(subject, &next, 120), (second, 1));
        let edited = [&text[..20], &first, &text[30..36]].concat();
        let (third, read) = talk.answer(subject, &edited, 20);
        assert_eq!(third, alone(&edited, 20));
        assert!(read <= 7, "{read}");
        assert_eq!(talk.answer(subject, &text[..20], 30).0, first[..30]);
    }
}

#[test]
fn checkpoints_give_way() {
    let text: Vec<u32> = (0..400).map(|i| 4 + i * 7 % 40).collect();
    for (subject, pool, n_states) in [
        // As little as a sequence of this length takes.
        (windowed(), Pool::Pages(4), None),
        (recurrent(), Pool::Whole, Some(2)),
        (recurrent(), Pool::Whole, Some(3)),
        (recurrent(), Pool::Pages(4), Some(4)),
    ] {
        let options = ContextOptions {
            n_ctx: N_CTX,
            n_batch: 32,
            pool,
            n_states,
            ..ContextOptions::default()
        };
        let context = Context::new(Arc::clone(&subject.model), Team::single(), options).unwrap();
        let mut talk = Conversation::of(context, 4);
        for (from, len) in [
            (0, 20),
            (0, 60),
            (40, 60),
            (0, 60),
            (0, 90),
            (0, 20),
            (7, 3),
            (0, 90),
        ] {
            let prompt = &text[from..from + len];
            let plain = Conversation::of(subject.context(N_CTX, 32, 1), 0)
                .answer(subject, prompt, 150)
                .0;
            assert_eq!(talk.answer(subject, prompt, 150).0, plain, "{from}, {len}");
        }
        assert!(talk.dropped > 0);
        while talk.checkpoints.drop_oldest(&mut talk.context) {}
        assert_eq!(talk.context.usage().checkpoints, 0);
    }
}

#[test]
fn a_generation_goes_on_in_another_sequence() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let bounds = Bounds {
        max_tokens: Some(24),
        ..Bounds::default()
    };
    for params in settings() {
        let plain = subject.plain(256, &prompt, &params, &bounds);
        let mut context = subject.context(256, 16, 2);
        let id = context.open().unwrap();
        let sampler = subject.sampler(&params, 256);
        let mut generation =
            Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &bounds).unwrap();
        let (mut driver, mut text) = (Driver::new(always(3), None), String::new());
        let mut passes = 0;
        while !generation.is_over() {
            pass(
                &mut context,
                &mut driver,
                &mut generation,
                &mut |event| match event {
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
    let bounds = Bounds {
        max_tokens: Some(60),
        ..Bounds::default()
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
    let plain = subject.plain(256, &prompt, &params, &bounds);
    // Two pages each at the end, three are there.
    assert!(prompt.len() < 64 && prompt.len() + 60 > 64);
    let mut context = subject.context_of(256, 64, 2, Pool::Pages(3));
    let mut generations: Vec<Generation> = (0..2)
        .map(|_| {
            let id = context.open().unwrap();
            let sampler = subject.sampler(&params, 256);
            Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &bounds).unwrap()
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
            pass(&mut context, &mut driver, &mut generation, &mut |_| {});
            passes += 1;
            // The prompt's pass and the first one after it make what all others use.
            if passes == 2 {
                before = allocations();
            }
        }
        assert_eq!(allocations(), before, "{params:?}");
        assert_eq!(passes, 180);
    }
    // Drafts make the index grow, by doubling.
    let mut context = subject.context(512, 64, 1);
    let id = context.open().unwrap();
    let sampler = subject.sampler(&SamplerParams::greedy(), 512);
    let mut generation = Generation::of_tokens(&mut context, id, &prompt, sampler, Some(400)).unwrap();
    let mut driver = Driver::new(always(4), None);
    let before = allocations();
    while !generation.is_over() {
        pass(&mut context, &mut driver, &mut generation, &mut |_| {});
    }
    let count = allocations() - before;
    assert!(count < 60, "{count}");
}
