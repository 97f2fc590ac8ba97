//! The forward pass of every family, whole. A pass is some rows (tokens of one or more sequences); it reads and extends
//! the cache and gives what is wanted of some rows: logits, hidden states, or vectors of whole texts
//! ([`super::pooling`]).
//!
//! Read [`Model::forward`] from top to bottom: embedding, layers, output head. A layer is two parts ([`super::mixer`],
//! [`super::ffn`]), each with a norm before it; what a family does not have (norms after a part, caps) its
//! configuration leaves out.

use super::Model;
use super::config::{Config, LayerConfig, OutputMatrix};
use super::ffn::FfnBuffers;
use super::mixer::MixerBuffers;
use super::ops::{FFN, MIXER, Ops, PER_LAYER, Run};
use super::per_layer::PerLayerBuffers;
use super::pooling::{self, HeadBuffers};
use super::probe::Probe;
use super::product::product;
use crate::batch::{Input, Output, Row};
use crate::cache::{LayerCache, Sizes, Slots};
use crate::kernels::{ActBuffer, ActFormat};
use crate::memory::Buffers;
use crate::team::Team;
use crate::{Error, Result};

/// Rows of logits that are computed at once: as many as there are sequences, within these bounds. The weights are read
/// once for all of them; beyond the upper one arithmetic takes longer than that, and logits of a large vocabulary are
/// much memory.
const HEAD_ROWS: (usize, usize) = (16, 64);

/// What a pass computes: rows with their positions already given.
pub(crate) struct Pass<'a> {
    pub(crate) rows: &'a [Row],
    /// Embedding rows for inputs that are not tokens.
    pub(crate) embeddings: &'a [f32],
    pub(crate) sequences: &'a Slots,
    /// Length of the context: longrope chooses by it.
    pub(crate) n_ctx: usize,
}

/// What a pass computes in, made once for the largest one.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Residual stream, n_embd wide.
    x: Vec<f32>,
    /// Normed input of a part.
    h: Vec<f32>,
    /// Output of a part, before it is added to the residual stream.
    delta: Vec<f32>,
    mixer: MixerBuffers,
    ffn: FfnBuffers,
    per_layer: PerLayerBuffers,
    acts: ActBuffer,
    /// Per kind of rotation: cosines and sines, one row per token.
    angles: Vec<(Vec<f32>, Vec<f32>)>,
    heads: HeadBuffers,
    logits: Vec<f32>,
}

impl Workspace {
    /// For passes of these sizes, by some workers, with matrices that ask for these forms of activations.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn make(
        config: &Config,
        formats: &[ActFormat],
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let (m, n_embd) = (sizes.n_batch, config.n_embd);
        let inner = |layer: &LayerConfig| layer.mixer.inner_width().max(layer.ffn.inner_width());
        let per_layer = config.per_layer.map_or(0, |own| own.width);
        let widest = config
            .layers
            .iter()
            .map(inner)
            .fold(n_embd.max(per_layer), usize::max);
        let widest = widest.max(config.pooling.widest());
        let mut multiplied = vec![(m, widest)];
        for layer in &config.layers {
            multiplied.extend([layer.mixer.more_rows(m), layer.ffn.more_rows(config, m)]);
        }
        let mut angles = Vec::new();
        for rope in &config.ropes {
            let half = rope.n_rot() / 2;
            angles.push((
                buffers.rows("angles of rotations", m, half)?,
                buffers.rows("angles of rotations", m, half)?,
            ));
        }
        Ok(Workspace {
            x: buffers.outputs("residual stream", m, n_embd)?,
            h: buffers.outputs("normed rows", m, n_embd)?,
            delta: buffers.outputs("a part's output", m, n_embd)?,
            mixer: MixerBuffers::make(config, sizes, workers, buffers)?,
            ffn: FfnBuffers::make(config, sizes, buffers)?,
            per_layer: PerLayerBuffers::make(config, m, buffers)?,
            acts: ActBuffer::make(&multiplied, formats, buffers)?,
            angles,
            heads: HeadBuffers::make(config, sizes, buffers)?,
            logits: buffers.rows(
                "logits of a pass",
                sizes.n_sequences.clamp(HEAD_ROWS.0, HEAD_ROWS.1).min(m),
                match config.output.matrix {
                    OutputMatrix::None => 0,
                    _ => config.n_vocab,
                },
            )?,
        })
    }
}

/// Who gets what a pass computes.
pub(crate) trait Sink {
    /// What a row wants, or a text, with the first row that is part of it.
    fn take(&mut self, row: usize, values: &[f32]);

    /// Logits of as many rows as there are, `n_vocab` of each. The team has nothing else to do meanwhile.
    fn take_logits(
        &mut self,
        _team: &Team,
        rows: &mut dyn Iterator<Item = usize>,
        logits: &[f32],
        n_vocab: usize,
    ) -> Result<()> {
        for (logits, row) in logits.chunks_exact(n_vocab).zip(rows) {
            self.take(row, logits);
        }
        Ok(())
    }
}

/// A function that gets one row after the other.
pub(crate) struct InTurn<'a>(pub(crate) &'a mut dyn FnMut(usize, &[f32]));

impl Sink for InTurn<'_> {
    fn take(&mut self, row: usize, values: &[f32]) {
        (self.0)(row, values);
    }
}

impl Model {
    /// One pass. The sink gets what is wanted of each row that wants something, in order; of a text, once, with the first such
    /// row.
    pub(crate) fn forward<P: Probe>(
        &self,
        pass: &Pass<'_>,
        ws: &mut Workspace,
        cache: &mut [LayerCache],
        team: &Team,
        probe: &mut P,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let config = &self.config;
        let (m, n_embd) = (pass.rows.len(), config.n_embd);
        let x = &mut ws.x[..m * n_embd];
        let h = &mut ws.h[..m * n_embd];
        let delta = &mut ws.delta[..m * n_embd];

        let ops = Ops {
            backend: self.backend,
            team,
            layer: 0,
        };
        // Embedding: decoded rows of the token matrix, scaled where the family does.
        for (row, x) in pass.rows.iter().zip(x.chunks_exact_mut(n_embd)) {
            match row.input {
                Input::Token(id) => {
                    self.weights.embedding.decode_row(id as usize, x)?;
                    if config.embedding_scale != 1.0 {
                        x.iter_mut().for_each(|x| *x *= config.embedding_scale);
                    }
                }
                Input::Embedding(i) => {
                    x.copy_from_slice(&pass.embeddings[i * n_embd..(i + 1) * n_embd]);
                }
            }
        }
        if let Some(encoder) = &self.weights.encoder {
            encoder.embed(&ops, pass.rows, x, h)?;
        }
        probe.op(0, "embedding", n_embd, x);
        for (rope, (cos, sin)) in config.ropes.iter().zip(&mut ws.angles) {
            let half = rope.n_rot() / 2;
            for (i, row) in pass.rows.iter().enumerate() {
                let part = i * half..(i + 1) * half;
                rope.angles(row.position, pass.n_ctx, &mut cos[part.clone()], &mut sin[part]);
            }
        }

        let mut run = Run {
            ops,
            config,
            pass,
            angles: &ws.angles,
            acts: &mut ws.acts,
            probe,
        };
        if let Some(per_layer) = &self.weights.per_layer {
            per_layer.embed(&mut run, x, &mut ws.per_layer)?;
        }
        // What nobody asks for is not computed where no later layer needs it: from the last layer on that keeps
        // something of all rows only from the first row that is asked for to the last; from the last layer's mixer on,
        // and in the head, those rows alone that are asked for.
        let wanted = |row: &Row| row.output != Output::None;
        let asked = pass.rows.iter().position(wanted).map_or(m..m, |first| {
            first..pass.rows.iter().rposition(wanted).map_or(m, |last| last + 1)
        });
        let n_wanted = pass.rows.iter().filter(|row| wanted(row)).count();
        let keeper = config
            .layers
            .iter()
            .rposition(|layer| layer.mixer.needs_all_rows());
        // The rows of the pass that x has.
        let mut live = 0..m;
        for (i, layer) in self.weights.layers.iter().enumerate() {
            run.ops.layer = i;
            let last = i + 1 == config.layers.len();
            let rows = if Some(i) == keeper {
                asked.clone()
            } else {
                live.clone()
            };
            let part = (rows.start - live.start) * n_embd..(rows.end - live.start) * n_embd;
            let (x, h) = (&mut x[..live.len() * n_embd], &mut h[..live.len() * n_embd]);
            let per_layer = config.per_layer.map_or(0, |own| own.all);
            let config = &config.layers[i];
            // x += mixer(norm(x))
            if !layer.mixer.is_none() {
                run.read("attn_norm", x, layer.mixer_norms.before.as_ref(), h)?;
                let out = &mut delta[..part.len()];
                let cache = LayerCache::of(cache, i)?;
                layer
                    .mixer
                    .forward(&mut run, h, rows.clone(), out, &mut ws.mixer, cache)?;
                run.join(
                    &MIXER,
                    &layer.mixer_norms,
                    config.residual_scale,
                    &mut x[part.clone()],
                    out,
                    &mut h[part],
                )?;
            }
            if last || rows.len() < live.len() {
                let kept = |row: usize| rows.contains(&row) && (!last || wanted(&pass.rows[row]));
                keep(live.clone().map(kept), n_embd, x);
                if config.parallel {
                    keep(live.clone().map(kept), n_embd, h);
                }
                keep(live.clone().map(kept), per_layer, &mut ws.per_layer.made);
            }
            live = rows;
            let len = if last { n_wanted } else { live.len() } * n_embd;
            if len == 0 {
                break;
            }
            let (x, h, delta) = (&mut x[..len], &mut h[..len], &mut delta[..len]);
            // x += ffn(norm(x))
            if !layer.ffn.is_none() {
                if !config.parallel {
                    run.read("ffn_norm", x, layer.ffn_norms.before.as_ref(), h)?;
                }
                layer.ffn.forward(&mut run, (x, h), delta, &mut ws.ffn)?;
                run.join(&FFN, &layer.ffn_norms, config.residual_scale, x, delta, h)?;
            }
            // x += per_layer(x)
            if let Some(part) = &layer.per_layer {
                part.forward(&mut run, x, delta, &mut ws.per_layer)?;
                run.join(&PER_LAYER, &part.norms, 1.0, x, delta, h)?;
            }
            if let Some(factor) = layer.output_scale {
                run.ops.scale(x, factor, n_embd)?;
                run.look("layer_scale", n_embd, x);
            }
        }

        run.ops.layer = config.layers.len();
        let (x, h) = (&mut x[..n_wanted * n_embd], &mut h[..n_wanted * n_embd]);
        if n_wanted == 0 {
            return Ok(());
        }
        let output = pooling::wanted(pass.rows)?;
        if output != Output::Logits {
            run.read("output_norm", x, self.weights.output_norm.as_ref(), h)?;
            return pooling::give(
                &mut run,
                &self.weights.heads,
                (output, h),
                &mut ws.heads,
                &mut |row, values| {
                    sink.take(row, values);
                },
            );
        }

        // Output head: only of the rows that want one, some at a time.
        let Some(output) = &self.weights.output else {
            return Err(no_logits());
        };
        let mut rows = (0..m).filter(|row| wanted(&pass.rows[*row]));
        for x in x.chunks(ws.logits.len() / config.n_vocab * n_embd) {
            let h = &mut h[..x.len()];
            run.read("output_norm", x, self.weights.output_norm.as_ref(), h)?;
            let logits = &mut ws.logits[..x.len() / n_embd * config.n_vocab];
            run.products("output", h, &mut [product(output, &mut *logits)])?;
            let finite = run
                .ops
                .finish_logits(logits, config.logit_scale, config.logit_softcap)?;
            let finite = finite && h.iter().all(|value| value.is_finite());
            run.ops.check(finite, "output")?;
            run.look("logits", config.n_vocab, logits);
            sink.take_logits(team, &mut rows, logits, config.n_vocab)?;
        }
        Ok(())
    }
}

/// The error where a model makes no logits.
pub(crate) fn no_logits() -> Error {
    Error::InvalidInput {
        what: "the model makes no logits: it is an encoder, which makes vectors of texts".into(),
    }
}

/// Moves those rows of `n` that are kept to the front, in their order.
fn keep(kept: impl Iterator<Item = bool>, n: usize, x: &mut [f32]) {
    let mut next = 0;
    for (row, kept) in kept.enumerate() {
        if kept {
            x.copy_within(row * n..(row + 1) * n, next * n);
            next += 1;
        }
    }
}
