//! One measurement of candle (candle-transformers' quantized llama), in a process of its own; prints one JSON object.
//!
//! `candle-runner MODEL --test pp512|tg128|tg64@d4096`, or `--test logits --tokens 1,2,3 --output FILE`. Threads are rayon's:
//! `RAYON_NUM_THREADS`. A prompt is one forward pass: its attention mask knows no earlier positions.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

/// The same tokens as `twinfer bench`: spread over the vocabulary.
fn token(i: usize, n_vocab: usize) -> u32 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed % n_vocab.max(1) as u64) as u32
}

struct Session {
    model: ModelWeights,
    n_vocab: usize,
}

impl Session {
    fn load(path: &str) -> Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let content = Content::read(&mut file)?;
        let embedding = content
            .tensor_infos
            .get("token_embd.weight")
            .context("no token_embd.weight")?;
        let n_vocab = embedding.shape.dims()[0];
        let model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
        Ok(Session { model, n_vocab })
    }

    /// The logits of the last of these tokens; position 0 starts anew.
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&input, position)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn tokens(&self, first: usize, n: usize) -> Vec<u32> {
        (first..first + n).map(|i| token(i, self.n_vocab)).collect()
    }

    /// Runs a test once; seconds.
    fn measure(&mut self, prompt: bool, n: usize, depth: usize) -> Result<f64> {
        if depth > 0 {
            if prompt {
                bail!("a prompt behind other tokens is not supported");
            }
            let before = self.tokens(0, depth);
            self.forward(&before, 0)?;
        }
        let tokens = self.tokens(depth, n);
        let start = Instant::now();
        if prompt {
            self.forward(&tokens, 0)?;
        } else {
            for (i, token) in tokens.iter().enumerate() {
                self.forward(&[*token], depth + i)?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// `pp512`, `tg128`, `tg64@d4096`.
fn parse(test: &str) -> Option<(bool, usize, usize)> {
    let (kind, rest) = test.split_at_checked(2)?;
    let (n, depth) = rest.split_once("@d").unwrap_or((rest, "0"));
    let prompt = match kind {
        "pp" => true,
        "tg" => false,
        _ => return None,
    };
    Some((prompt, n.parse().ok()?, depth.parse().ok()?))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let model = args.first().context("expected a model file")?;
    let test = value("--test").context("expected --test")?;
    let mut session = Session::load(model)?;
    let mut seconds = String::new();
    if test == "logits" {
        let tokens = value("--tokens").context("expected --tokens")?;
        let tokens: Vec<u32> = tokens.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = session
            .forward(&tokens, 0)?
            .iter()
            .flat_map(|logit| logit.to_le_bytes())
            .collect();
        std::fs::write(value("--output").context("expected --output")?, bytes)?;
    } else {
        let Some((prompt, n, depth)) = parse(&test) else {
            bail!("unknown test {test}");
        };
        // Faults pages in and wakes the threads.
        session.measure(prompt, n.min(if prompt { 512 } else { 4 }), 0)?;
        seconds = session.measure(prompt, n, depth)?.to_string();
    }
    println!(
        "{{\"engine\": \"candle\", \"version\": \"candle 0.11.1\", \"test\": \"{test}\", \"seconds\": [{seconds}]}}"
    );
    Ok(())
}
