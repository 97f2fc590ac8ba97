//! A text in the making: from tokens as they are sampled to what is written. The same rules as `run`'s.

use twinfer_engine::Result;
use twinfer_engine::sample::Sampler;
use twinfer_engine::tokenizer::{StopFilter, StreamDecoder, TokenKind, Tokenizer};

use super::answer::Finish;

/// One answer's text and what decides it.
pub(super) struct Writing {
    sampler: Sampler,
    decoder: StreamDecoder,
    stop: StopFilter,
    /// Stop texts that are one control token each: what they print is nothing.
    stop_tokens: Vec<u32>,
    /// Tokens at most; `None` for as many as fit.
    predict: Option<usize>,
    pub(super) text: String,
    /// Tokens so far, without one that ends the text by the model's wish.
    pub(super) n_tokens: usize,
}

impl Writing {
    /// After the prompt. `at_start`: the text begins with the first token rather than going on after a prompt.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        mut sampler: Sampler,
        prompt: &[u32],
        stop: &[String],
        predict: Option<usize>,
        at_start: bool,
    ) -> Result<Self> {
        for &token in prompt {
            sampler.accept(token)?;
        }
        let decoder = tokenizer.stream_decoder(false);
        let control = |text: &String| {
            let id = tokenizer.find_token(text.as_bytes())?;
            (tokenizer.token_kind(id) == TokenKind::Control).then_some(id)
        };
        Ok(Writing {
            sampler,
            decoder: if at_start { decoder.at_start() } else { decoder },
            stop: StopFilter::new(stop),
            stop_tokens: stop.iter().filter_map(control).collect(),
            predict,
            text: String::new(),
            n_tokens: 0,
        })
    }

    /// Samples the next token. `room`: whether one more can be evaluated. The token, if the text goes on after it.
    pub(super) fn sample(
        &mut self,
        tokenizer: &Tokenizer,
        logits: &[f32],
        room: bool,
    ) -> Result<std::result::Result<u32, Finish>> {
        let token = self.sampler.sample(logits)?;
        if self.predict == Some(0) {
            return Ok(Err(Finish::Length));
        }
        if tokenizer.is_end(token) {
            self.flush();
            return Ok(Err(Finish::Stop));
        }
        self.n_tokens += 1;
        self.sampler.accept(token)?;
        if self.stop_tokens.contains(&token) {
            self.flush();
            return Ok(Err(Finish::Stop));
        }
        let (text, stopped) = self.stop.push(self.decoder.push(token));
        self.text.push_str(&text);
        if stopped {
            return Ok(Err(Finish::Stop));
        }
        if !room || self.predict.is_some_and(|n| self.n_tokens >= n) {
            self.flush();
            return Ok(Err(Finish::Length));
        }
        Ok(Ok(token))
    }

    /// What was held back, as far as no stop text is in it.
    fn flush(&mut self) {
        let (text, stopped) = self.stop.push(self.decoder.flush());
        self.text.push_str(&text);
        if !stopped {
            self.text.push_str(&self.stop.finish());
        }
    }
}
