//! Where a text ends: stop strings, bounds, a full context, an interruption.

use twinfer_engine::generation::{Bounds, Driver, End, Event, Generation, Speculation};
use twinfer_engine::sample::SamplerParams;
use twinfer_engine::{Error, Result};

use crate::{How, STORY, Subject, demo, pass, speculations, windowed};

#[test]
fn stop_strings_end_the_text() {
    stop_strings(demo(), STORY);
    // Here most drafts are right, also those behind the stop string.
    stop_strings(windowed(), "ab a cab ab a cab ab a cab ab a");
}

fn stop_strings(subject: &Subject, prompt: &str) {
    let prompt = subject.tokens(prompt);
    let greedy = SamplerParams::greedy();
    let limit = |stop: Vec<String>| Bounds {
        max_tokens: Some(32),
        stop,
        ..Bounds::default()
    };
    let whole = subject.plain(256, &prompt, &greedy, &limit(vec![])).text;
    let inner: Vec<usize> = whole.char_indices().map(|(i, _)| i).skip(1).collect();
    for &from in inner.iter().step_by(17) {
        let Some(stop) = whole.get(from..from + 6) else {
            continue;
        };
        let expected = &whole[..whole.find(stop).unwrap()];
        let bounds = limit(vec!["not there".into(), stop.into()]);
        let plain = subject.plain(256, &prompt, &greedy, &bounds);
        for speculation in speculations() {
            let how = How {
                n_ctx: 256,
                n_batch: 16,
                speculation,
                draft: false,
            };
            let made = subject.driven(&how, &prompt, &greedy, &bounds);
            assert_eq!(made.text, expected);
            assert_eq!(made.end, Some(End::Stop));
            made.is(&plain, &format!("{stop:?}"));
        }
    }
    // What may be the beginning of a stop string is held back, and given out at the end.
    let bounds = limit(vec![format!("{}?", whole.chars().last().unwrap())]);
    let how = How {
        n_ctx: 256,
        n_batch: 16,
        speculation: Speculation::OFF,
        draft: false,
    };
    let made = subject.driven(&how, &prompt, &greedy, &bounds);
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
        let bounds = Bounds {
            max_tokens: Some(5),
            stop: vec!["<|user|>".into()],
            special,
            ..Bounds::default()
        };
        let how = How {
            n_ctx: 64,
            n_batch: 8,
            speculation: Speculation::default(),
            draft: false,
        };
        let made = subject.driven(&how, &subject.tokens("The cat"), &params, &bounds);
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
            let bounds = Bounds {
                max_tokens: Some(n),
                ..Bounds::default()
            };
            let plain = subject.plain(256, &prompt, &params, &bounds);
            for speculation in speculations() {
                let how = How {
                    n_ctx: 256,
                    n_batch: 16,
                    speculation,
                    draft: false,
                };
                let made = subject.driven(&how, &prompt, &params, &bounds);
                assert_eq!(made.counts.generated, made.tokens.len());
                made.is(&plain, &format!("{n} tokens, {speculation:?}"));
            }
        }
        // As many as fit, and one that is not evaluated.
        for room in [0, 1, 2, 5] {
            let n_ctx = prompt.len() + room;
            let plain = subject.plain(n_ctx, &prompt, &params, &Bounds::default());
            for speculation in speculations() {
                let how = How {
                    n_ctx,
                    n_batch: 16,
                    speculation,
                    draft: false,
                };
                let made = subject.driven(&how, &prompt, &params, &Bounds::default());
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
fn an_interrupted_text_is_given_out_whole() {
    let subject = demo();
    let prompt = subject.tokens(STORY);
    let bounds = Bounds {
        max_tokens: Some(32),
        ..Bounds::default()
    };
    let greedy = SamplerParams::greedy();
    let whole = subject.plain(256, &prompt, &greedy, &bounds).text;
    let held = Bounds {
        // Everything from its first letter on is held back.
        stop: vec![format!("{whole}!")],
        ..bounds
    };
    let mut context = subject.context(256, 64, 1);
    let id = context.open().unwrap();
    let sampler = subject.sampler(&greedy, 256);
    let mut generation =
        Generation::new(&mut context, id, &prompt, sampler, &subject.tokenizer, &held).unwrap();
    let (mut driver, mut text) = (Driver::default(), String::new());
    for _ in 0..4 {
        pass(&mut context, &mut driver, &mut generation, &mut |event| {
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
