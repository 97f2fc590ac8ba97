//! Errors planted in the backends that a platform has, one bit each, and whether the comparison of traces finds them.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Value, json};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Backend, Storage, select};
use twinfer_engine::model::config::Config;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::trace::{self, Comparison};
use twinfer_engine::{Error, Result};

use crate::fault::{Fault, Faulty, N_OPS, Op};
use crate::file::open;
use crate::model::simd_backends;

/// Tokens of an evaluation.
pub const N_TOKENS: usize = 12;

/// Layers of the built-in model; the next constants speak of it as well.
pub const N_LAYERS: usize = 4;
const N_HEADS: usize = 8;
const N_KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;

/// Matrices in the order in which a model binds them: the embedding, the output, then of each layer these.
pub const MATRICES: [&str; 7] = ["q", "k", "v", "attn_output", "gate", "up", "ffn_down"];

/// Calls of a pass of one token.
pub fn calls_per_pass(op: Op) -> usize {
    match op {
        Op::Pack => 0,
        // Blocks of 256 of the inputs of q/k/v, of the attention's output, of gate and up, of down; then of the head.
        Op::Quantize => N_LAYERS * (1 + 2 + 1 + 3) + 1,
        Op::RmsNorm => N_LAYERS * 2 + 1,
        Op::Add => N_LAYERS * 2,
        Op::Gate => N_LAYERS,
        Op::Rotate => N_LAYERS * (N_HEADS + N_KV_HEADS),
        Op::Attend | Op::Merge => N_LAYERS * N_KV_HEADS,
        // Keys, then values.
        Op::ToHalves => N_LAYERS * 2 * N_KV_HEADS,
    }
}

/// A planted error and where it must be found.
#[derive(Debug)]
pub struct Case {
    /// What makes the wrong number.
    pub op: Op,
    /// Position, layer, and which of the layer's calls.
    pub at: (usize, usize, usize),
    element: usize,
    /// The bit that is flipped.
    pub bit: u32,
    /// The operation named, and its element; of what the error enters many elements, no element.
    pub found: (&'static str, Option<usize>),
}

impl Case {
    /// The error.
    pub fn fault(&self) -> Fault {
        let (position, layer, index) = self.at;
        let per_pass = calls_per_pass(self.op);
        Fault {
            op: self.op,
            call: position * per_pass + layer * (per_pass / N_LAYERS) + index,
            element: self.element,
            bit: self.bit,
        }
    }
}

/// One or more for each operation.
pub const CASES: [Case; 14] = [
    case(Op::RmsNorm, (5, 1, 1), 7, 0, "ffn_norm", Some(7)),
    case(Op::RmsNorm, (0, 0, 0), 255, 0, "attn_norm", Some(255)),
    case(Op::RmsNorm, (11, N_LAYERS, 0), 100, 0, "output_norm", Some(100)),
    case(Op::Add, (10, 2, 0), 3, 0, "attn_residual", Some(3)),
    case(Op::Add, (1, 3, 1), 254, 0, "ffn_residual", Some(254)),
    case(Op::Gate, (4, 3, 0), 765, 0, "ffn_act", Some(765)),
    case(Op::Rotate, (9, 2, 3), 11, 0, "q_rope", Some(3 * HEAD_DIM + 11)),
    case(
        Op::Rotate,
        (9, 2, N_HEADS + 1),
        63,
        0,
        "k_rope",
        Some(HEAD_DIM + 63),
    ),
    // The sums are divided by the softmax's afterwards, which may swallow the last bit.
    case(
        Op::Attend,
        (6, 1, 2),
        70,
        3,
        "attention",
        Some(2 * 2 * HEAD_DIM + 70),
    ),
    case(
        Op::Merge,
        (7, 0, 3),
        127,
        3,
        "attention",
        Some(3 * 2 * HEAD_DIM + 127),
    ),
    // A value of kv head 1, which the queries 2 and 3 read.
    case(
        Op::ToHalves,
        (3, 0, N_KV_HEADS + 1),
        9,
        0,
        "attention",
        Some(2 * HEAD_DIM + 9),
    ),
    case(Op::Quantize, (2, 1, 0), 200, 0, "q", None),
    case(Op::Quantize, (8, 2, 5), 17, 0, "ffn_down", None),
    case(Op::Quantize, (3, N_LAYERS, 0), 17, 0, "logits", None),
];

const fn case(
    op: Op,
    at: (usize, usize, usize),
    element: usize,
    bit: u32,
    name: &'static str,
    found: Option<usize>,
) -> Case {
    Case {
        op,
        at,
        element,
        bit,
        found: (name, found),
    }
}

/// Plants each of [`CASES`] in each SIMD backend that there is, in turn, and compares its trace with the scalar
/// backend's: where they first differ, which must be the same on every backend. The blobs: the built-in model.
pub fn locate(blobs: Vec<Vec<u8>>) -> Result<Value> {
    let file = open(blobs)?;
    let n_vocab = Config::from_file(&file)?.n_vocab;
    let tokens: Vec<u32> = (0..N_TOKENS).map(|i| ((i * 37 + 11) % n_vocab) as u32).collect();
    let mut right = context(&file, select::choose(Some("scalar"))?)?;
    let mut answers = Vec::new();
    for case in &CASES {
        let mut answer = None;
        for backend in simd_backends() {
            let mut wrong = context(&file, faulty(backend, case))?;
            let found = find(&mut wrong, &mut right, &tokens, case)?;
            match &answer {
                None => answer = Some(found),
                Some(first) if *first == found => {}
                Some(first) => {
                    return Err(Error::InvalidInput {
                        what: format!("{}: {found}, another backend: {first}", backend.name()),
                    });
                }
            }
        }
        answers.push(answer);
    }
    Ok(json!(answers))
}

/// The backend with a case's error, which comes back in each evaluation.
fn faulty(backend: &'static dyn Backend, case: &Case) -> &'static dyn Backend {
    let mut period = [usize::MAX; N_OPS];
    period[case.op as usize] = N_TOKENS * calls_per_pass(case.op);
    Faulty::new(backend, case.fault(), period)
}

/// What is found of one error.
fn find(wrong: &mut Context, right: &mut Context, tokens: &[u32], case: &Case) -> Result<Value> {
    let missed = |what: String| Error::InvalidInput {
        what: format!("{case:?}: {what}"),
    };
    let goes_on = &mut |_, _| ControlFlow::Continue(());
    let found = match trace::compare(wrong, right, tokens, goes_on)? {
        Comparison::Differs(found) => found,
        other => return Err(missed(format!("{other:?}"))),
    };
    let place = &found.place;
    let named = (place.position, place.layer, &*place.op) == (case.at.0, case.at.1, case.found.0);
    if !named || case.found.1.is_some_and(|element| element != found.element) {
        return Err(missed(format!("found {found}")));
    }
    Ok(json!({
        "op": format!("{:?}", case.op),
        "place": place.to_string(),
        "element": found.element,
        "bits": found.values.map(f32::to_bits),
        "differing": found.differing,
    }))
}

fn context(file: &ModelFile, backend: &'static dyn Backend) -> Result<Context> {
    let team = Team::single();
    let options = LoadOptions {
        storage: Storage::Packed,
        team: Some(team.clone()),
        ..LoadOptions::default()
    };
    let model = Model::load_for(backend, file, &options, &mut |_, _| {})?;
    let options = ContextOptions {
        n_ctx: N_TOKENS + 64,
        n_batch: 1,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: CacheType::F16,
        cache_type_v: CacheType::F16,
    };
    Context::new(Arc::new(model), team, options)
}
