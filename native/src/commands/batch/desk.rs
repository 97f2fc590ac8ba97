//! Between the files and the scheduler: lines of the input become jobs, and what comes of jobs becomes lines of the
//! output, in the input's order unless that is not wanted.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};
use twinfer_engine::generation::{Bounds, Generation, Sampling};
use twinfer_engine::sample::{Sampler, SamplerKind, SamplerParams};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
use twinfer_template::reasoning::{Part, Reasoning};
use twinfer_template::{ChatTemplate, CivilTime, Inputs};

use super::answer::{About, Answer, Asked, Finish};
use super::input::Lines;
use super::journal::{Done, Journal};
use super::request::{self, Defaults, Endpoint, Fault, Form, Prompt, Request, Seed};
use crate::generate;

/// What turns prompts into tokens.
#[derive(Debug)]
pub(super) struct Prompts {
    pub(super) tokenizer: Tokenizer,
    /// Or why there is none.
    pub(super) template: Result<ChatTemplate, String>,
    /// What the template is told, the same for all.
    pub(super) now: CivilTime,
    pub(super) n_ctx: usize,
}

/// A line that is to be answered by a model.
pub(super) struct Job {
    /// Place among the lines that this run answers.
    place: u64,
    asked: Asked,
    /// The prompt's tokens.
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: Sampling,
    pub(super) limits: Bounds,
    /// Made when the line was read, so that what is wrong with it is said then; taken when it begins.
    pub(super) sampler: Option<Sampler>,
    /// Of a conversation, how the model marks what it thinks.
    reasoning: Option<Reasoning>,
    /// Where it was begun and put back to the queue.
    pub(super) begun: Option<Generation>,
    pub(super) text: String,
    /// Tokens of the text.
    pub(super) given: u64,
    seed: Option<u32>,
}

impl Job {
    /// What is to be computed: the prompt, and what was generated after it.
    pub(super) fn tokens(&self) -> &[u32] {
        self.begun.as_ref().map_or(&self.prompt, Generation::tokens)
    }
}

/// Where lines come from and answers go.
pub(super) struct Desk<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) done: Done,
    pub(super) defaults: Defaults,
    /// The command's seed.
    pub(super) seed: Option<u32>,
    pub(super) prompts: Prompts,
    pub(super) about: About,
    pub(super) journal: Journal,
    pub(super) unordered: bool,
    /// Lines that were taken from the input, answered before or not.
    pub(super) taken: u64,
    /// Answers that wait for those before them.
    pub(super) held: BTreeMap<u64, String>,
    pub(super) counts: Counts,
}

/// What became of the lines of this run.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Lines that became jobs or errors.
    pub(super) begun: u64,
    pub(super) answers: u64,
    pub(super) errors: u64,
    /// Of both, those that are in the output.
    pub(super) written: u64,
}

impl Desk<'_> {
    /// The next job. Lines that cannot become one are answered here.
    pub(super) fn next(&mut self) -> Result<Option<Job>> {
        loop {
            let Some(raw) = self.lines.next()? else {
                return Ok(None);
            };
            let is_done = match &self.done {
                Done::First(n) => self.taken < *n as u64,
                Done::Some(lines) => lines.contains_key(&raw.number),
            };
            self.taken += 1;
            if is_done {
                continue;
            }
            let mut line = request::read(raw.bytes, &self.defaults);
            if let Some(why) = raw.too_long() {
                line.request = Err(Fault::whole(why));
            }
            let asked = Asked {
                line: raw.number,
                digest: raw.digest,
                form: line.form,
                custom_id: line.custom_id,
            };
            let place = self.counts.begun;
            self.counts.begun += 1;
            match line.request.and_then(|request| self.job(place, &asked, request)) {
                Ok(job) => return Ok(Some(job)),
                Err(fault) => self.write(place, &asked, &Err(fault))?,
            }
        }
    }

    fn job(&self, place: u64, asked: &Asked, request: Request) -> Result<Job, Fault> {
        let Request {
            prompt,
            generation,
            seed,
            stop,
        } = request;
        let at_start = match &prompt {
            Prompt::Text(text) => text.is_empty(),
            Prompt::Tokens(_) => false,
            Prompt::Messages { .. } => true,
        };
        let seed = match seed {
            Seed::Given(seed) => seed,
            Seed::Unsaid => self.seed.unwrap_or_else(generate::random_seed),
            Seed::Random => generate::random_seed(),
        };
        let mut sampling = generation.sampling;
        sampling.params.seed = seed;
        let (prompt, reasoning) = self.prompts.tokens(prompt)?;
        let sampler = sampling
            .sampler(&self.prompts.tokenizer, self.prompts.n_ctx)
            .map_err(|error| Fault::whole(error.to_string()))?;
        // As `run --chat` prints them.
        let marks = reasoning.iter().flat_map(Reasoning::marks).map(String::from);
        Ok(Job {
            place,
            asked: asked.clone(),
            prompt,
            seed: is_random(&sampling.params).then_some(seed),
            sampling,
            limits: Bounds {
                max_tokens: generation.predict,
                stop,
                special: false,
                shown: marks.collect(),
                at_start,
            },
            sampler: Some(sampler),
            reasoning,
            begun: None,
            text: String::new(),
            given: 0,
        })
    }

    /// Answers a job, with the number of its tokens and why they ended.
    pub(super) fn answer(&mut self, job: Job, outcome: Result<(usize, Finish), Fault>) -> Result<()> {
        // OpenAI's form has a place for what a model thinks.
        let chat = job.asked.form == Form::OpenAi(Endpoint::Chat);
        let (thinking, text) = match job.reasoning.filter(|_| chat) {
            Some(reasoning) => told_apart(&reasoning, &job.text),
            None => (String::new(), job.text),
        };
        let outcome = outcome.map(|(completion_tokens, finish)| Answer {
            text,
            thinking,
            finish,
            prompt_tokens: job.prompt.len(),
            completion_tokens,
            seed: job.seed,
        });
        self.write(job.place, &job.asked, &outcome)
    }

    fn write(&mut self, place: u64, asked: &Asked, outcome: &Result<Answer, Fault>) -> Result<()> {
        match outcome {
            Ok(_) => self.counts.answers += 1,
            Err(_) => self.counts.errors += 1,
        }
        let line = asked.answer(outcome, &self.about);
        if self.unordered {
            self.counts.written += 1;
            return self.journal.write(&line);
        }
        self.held.insert(place, line);
        while let Some(line) = self.held.remove(&self.counts.written) {
            self.journal.write(&line)?;
            self.counts.written += 1;
        }
        Ok(())
    }
}

/// What a model thought, and what it said.
fn told_apart(reasoning: &Reasoning, text: &str) -> (String, String) {
    let (mut thinking, mut said) = (String::new(), String::new());
    let mut splitter = reasoning.splitter();
    let mut take = |part: Part<'_>| match part {
        Part::Thinking(text) => thinking.push_str(text),
        Part::Answer(text) => said.push_str(text),
    };
    splitter.push(text, &mut take);
    splitter.finish(&mut take);
    (thinking, said)
}

/// Whether the seed decides anything: greedy text is the same for all of them.
fn is_random(params: &SamplerParams) -> bool {
    let runs = |kind| params.samplers.contains(&kind);
    if params.mirostat != 0 {
        return params.temp > 0.0;
    }
    params.temp > 0.0
        || !runs(SamplerKind::Temperature)
        || (runs(SamplerKind::Xtc) && params.xtc_probability > 0.0 && params.xtc_threshold <= 0.5)
}

impl Prompts {
    /// A prompt's tokens, and of a conversation how the model marks what it thinks.
    fn tokens(&self, prompt: Prompt) -> Result<(Vec<u32>, Option<Reasoning>), Fault> {
        let mut reasoning = None;
        let (field, tokens) = match prompt {
            Prompt::Text(text) => {
                let options = EncodeOptions {
                    add_special: true,
                    parse_special: true,
                };
                let tokens = self.tokenizer.encode(&text, options);
                (
                    "prompt",
                    tokens.map_err(|error| Fault::new("prompt", error.to_string()))?,
                )
            }
            Prompt::Tokens(tokens) => {
                let n_vocab = self.tokenizer.n_vocab();
                if let Some(token) = tokens.iter().find(|&&token| token as usize >= n_vocab) {
                    let what = format!("token {token} is outside the vocabulary of {n_vocab}");
                    return Err(Fault::new("prompt", what));
                }
                ("prompt", tokens)
            }
            Prompt::Messages { messages, variables } => {
                let (tokens, marked) = self.conversation(messages, variables)?;
                reasoning = Some(marked);
                ("messages", tokens)
            }
        };
        if tokens.is_empty() {
            let what = "it is empty, and this model has no begin token to start from";
            return Err(Fault::new(field, what));
        }
        if tokens.len() >= self.n_ctx {
            let (found, room) = (tokens.len(), self.n_ctx);
            let what = format!(
                "{found} tokens, and the context has room for {room}; shorten it or raise --ctx-size"
            );
            return Err(Fault::new(field, what));
        }
        Ok((tokens, reasoning))
    }

    fn conversation(
        &self,
        messages: Vec<Value>,
        variables: Map<String, Value>,
    ) -> Result<(Vec<u32>, Reasoning), Fault> {
        let fault = |error: String| Fault::new("messages", error);
        let template = self.template.as_ref().map_err(|why| fault(why.clone()))?;
        let (bos, eos) = self.tokenizer.special_texts();
        let mut inputs = Inputs::chat(messages.into(), true, self.now)
            .with("bos_token", bos)
            .with("eos_token", eos);
        inputs.variables.extend(variables);
        let text = template
            .render_conversation(&inputs)
            .map_err(|error| fault(error.to_string()))?;
        let tokens = self.tokenizer.encode_conversation(&text);
        let tokens = tokens.map_err(|error| fault(error.to_string()))?;
        Ok((tokens, Reasoning::of(template.source(), &text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_of_greedy_text_is_not_written() {
        let greedy = SamplerParams::greedy();
        assert!(!is_random(&greedy) && is_random(&SamplerParams::default()));
        let changed = |change: &dyn Fn(&mut SamplerParams)| {
            let mut params = greedy.clone();
            change(&mut params);
            is_random(&params)
        };
        assert!(changed(&|p| p.xtc_probability = 0.5));
        assert!(!changed(&|p| (p.xtc_probability, p.xtc_threshold) = (0.5, 0.6)));
        // The temperature acts only where its sampler runs.
        assert!(changed(&|p| p.samplers = vec![SamplerKind::TopK]));
        assert!(!changed(&|p| (p.samplers, p.mirostat) = (vec![], 2)));
    }
}
