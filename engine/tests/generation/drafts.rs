//! With and without drafts, alone and beside others, greedy and sampled: the plain loop's text.

use twinfer_engine::cache::Pool;
use twinfer_engine::generation::{Bounds, DraftModel, Driver, Generation, Speculation};
use twinfer_engine::sample::SamplerParams;

use crate::{How, Made, STORY, always, demo, drive, settings, speculations, windowed};

#[test]
fn every_way_gives_the_plain_text() {
    let bounds = Bounds {
        max_tokens: Some(32),
        ..Bounds::default()
    };
    let (mut accepted, mut drafted) = (0, 0);
    for (subject, prompt, n_ctx) in [(demo(), STORY, 256), (windowed(), "ab a cab ab a cab ab a", 128)] {
        let prompt = subject.tokens(prompt);
        for params in settings() {
            let plain = subject.plain(n_ctx, &prompt, &params, &bounds);
            for speculation in speculations() {
                for n_batch in [1, 2, 3, 7, n_ctx] {
                    let how = How {
                        n_ctx,
                        n_batch,
                        speculation,
                        draft: false,
                    };
                    let made = subject.driven(&how, &prompt, &params, &bounds);
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
    let bounds = Bounds {
        max_tokens: Some(100),
        ..Bounds::default()
    };
    let plain = subject.plain(256, &prompt, &SamplerParams::greedy(), &bounds);
    for speculation in [Speculation::default(), always(16)] {
        let how = How {
            n_ctx: 256,
            n_batch: 64,
            speculation,
            draft: false,
        };
        let made = subject.driven(&how, &prompt, &SamplerParams::greedy(), &bounds);
        made.is(&plain, "circles");
        println!("{speculation:?}: {:?}", made.counts);
        assert!(made.counts.passes < 20, "{:?}", made.counts);
    }
}

#[test]
fn a_draft_model_drafts() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let bounds = Bounds {
        max_tokens: Some(32),
        ..Bounds::default()
    };
    for params in settings() {
        let plain = subject.plain(256, &prompt, &params, &bounds);
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
            let made = subject.driven(&how, &prompt, &params, &bounds);
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
fn a_draft_model_drafts_for_all_texts() {
    let subject = demo();
    let prompts = [
        "Once upon a time",
        "The cat",
        "One day",
        STORY,
        "The dog and the cat",
    ];
    let bounds = Bounds {
        max_tokens: Some(24),
        ..Bounds::default()
    };
    let speculation = Speculation {
        lookup: false,
        p_min: 0.0,
        ..always(5)
    };
    let greedy = SamplerParams::greedy();
    let plain = prompts.map(|prompt| subject.plain(128, &subject.tokens(prompt), &greedy, &bounds));
    // For all, for some of them, and where its cache holds the texts of some.
    for (n_sequences, pool) in [(5, Pool::Whole), (2, Pool::Whole), (5, Pool::Pages(3))] {
        let context = subject.context_of(128, 64, n_sequences, pool);
        let model = DraftModel::new(context, &subject.tokenizer, &subject.tokenizer).unwrap();
        let mut driver = Driver::new(speculation, Some(model));
        let mut context = subject.context(128, 64, prompts.len());
        // Twice, so that the second texts find what those before them left.
        for _ in 0..2 {
            let mut generations: Vec<Generation> = prompts
                .iter()
                .map(|prompt| {
                    let id = context.open().unwrap();
                    let (prompt, sampler) = (subject.tokens(prompt), subject.sampler(&greedy, 128));
                    Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &bounds).unwrap()
                })
                .collect();
            let made = drive(&mut context, &mut driver, &mut generations);
            let mut with_few = 0;
            for (made, plain) in made.iter().zip(&plain) {
                made.is(plain, &format!("{n_sequences} sequences, {pool:?}"));
                with_few += usize::from(made.counts.passes < 10);
            }
            let all = (n_sequences, pool) == (5, Pool::Whole);
            assert!(if all { with_few == 5 } else { with_few > 0 }, "{with_few}");
            for generation in generations {
                context.close(generation.sequence()).unwrap();
            }
        }
    }
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
    let bounds = |i: usize| Bounds {
        max_tokens: Some(8 + 5 * i),
        ..Bounds::default()
    };
    let settings = settings();
    let params = |i: usize| &settings[i % settings.len()];
    let plain: Vec<Made> = (0..prompts.len())
        .map(|i| subject.plain(128, &subject.tokens(prompts[i]), params(i), &bounds(i)))
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
                Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &bounds(i)).unwrap()
            })
            .collect();
        let mut driver = Driver::new(speculation, None);
        let made = drive(&mut context, &mut driver, &mut generations);
        for (i, (made, plain)) in made.iter().zip(&plain).enumerate() {
            made.is(plain, &format!("prompt {i}, n_batch {n_batch}, {speculation:?}"));
        }
    }
}
