//! One flipped bit in each operation of each SIMD backend: the matrix differs, and the layer, operation and element are
//! named.

use twinfer_engine::context::CacheType;
use twinfer_engine::kernels::{Backend, Storage};
use twinfer_engine::trace::Comparison;

use crate::cells::{self, Cell, Subject};
use crate::fault::{Fault, Faulty, N_OPS, Op};
use crate::{built_in, simd_backends};

const N_TOKENS: usize = 12;

// The built-in model.
const N_LAYERS: usize = 4;
const N_HEADS: usize = 8;
const N_KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;

/// Matrices in the order in which a model binds them: the embedding, the output, then of each layer these.
const MATRICES: [&str; 7] = ["q", "k", "v", "gate", "up", "attn_output", "ffn_down"];

/// Calls of a step of one token.
fn calls_per_step(op: Op) -> usize {
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
struct Case {
    op: Op,
    /// Position, layer, and which of the layer's calls.
    at: (usize, usize, usize),
    element: usize,
    bit: u32,
    /// The operation named, and its element; of what the error enters many elements, no element.
    found: (&'static str, Option<usize>),
}

const CASES: [Case; 14] = [
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

fn cell(backend: &'static dyn Backend) -> Cell {
    Cell {
        backend,
        storage: Storage::Packed,
        threads: 1,
        split: 1,
        cache: (CacheType::F16, CacheType::F16),
    }
}

/// Calls of one evaluation, and matrices of the model.
fn count(subject: &Subject, backend: &'static dyn Backend) -> [usize; N_OPS] {
    let counting = Faulty::counting(backend);
    let outcome = subject.compare(&[cell(counting)], &cells::teams());
    // A backend that only hands on is no fault.
    assert!(outcome.failures.is_empty());
    counting.calls()
}

#[test]
fn one_bit_of_any_operation_is_found() {
    let subject = Subject::open(&built_in(), N_TOKENS);
    let teams = cells::teams();
    for backend in simd_backends() {
        let period = count(&subject, backend);
        for case in &CASES {
            let per_step = calls_per_step(case.op);
            assert_eq!(period[case.op as usize], N_TOKENS * per_step, "{:?}", case.op);
            let (position, layer, index) = case.at;
            let fault = Fault {
                op: case.op,
                call: position * per_step + layer * (per_step / N_LAYERS) + index,
                element: case.element,
                bit: case.bit,
            };
            let outcome = subject.compare(&[cell(Faulty::new(backend, fault, period))], &teams);
            let [(_, Comparison::Differs(difference))] = outcome.failures.as_slice() else {
                panic!("{fault:?} in {}: {:?}", backend.name(), outcome.failures);
            };
            println!("planted in {}, {:?}: found {difference}", backend.name(), case.op);
            let (name, element) = case.found;
            let place = &difference.place;
            assert_eq!((place.position, place.layer, &*place.op), (position, layer, name));
            if let Some(element) = element {
                assert_eq!(difference.element, element, "{fault:?}");
            }
            if case.op != Op::Quantize && case.op != Op::ToHalves {
                assert_eq!(difference.differing, 1, "{fault:?}");
                let [a, b] = difference.values.map(f32::to_bits);
                // Two words that differ in the bit flipped, where nothing came after it.
                assert!(case.bit != 0 || a ^ b == 1, "{fault:?}: {a:08x} {b:08x}");
            }
        }
    }
}

/// One bit of one weight, in what a backend packs: every cell of the backend differs, and says the same of it.
#[test]
fn one_bit_of_a_weight_is_found_in_every_cell() {
    let subject = Subject::open(&built_in(), N_TOKENS);
    let teams = cells::teams();
    for backend in simd_backends() {
        let period = count(&subject, backend);
        assert_eq!(period[Op::Pack as usize], 2 + N_LAYERS * MATRICES.len());
        for (layer, matrix, row, op) in [
            (1, "k", 40, "k"),
            (2, "attn_output", 255, "attn_output"),
            (3, "gate", 6, "ffn_act"),
        ] {
            let index = MATRICES.iter().position(|name| *name == matrix).unwrap();
            let fault = Fault {
                op: Op::Pack,
                call: 2 + layer * MATRICES.len() + index,
                element: row,
                bit: 0,
            };
            let cells = cells::covering(Faulty::new(backend, fault, period), &subject.config);
            let outcome = subject.compare(&cells, &teams);
            assert_eq!(outcome.failures.len(), cells.len(), "a cell has the right digest");
            for (cell, found) in &outcome.failures {
                let Comparison::Differs(difference) = found else {
                    panic!("{cell}: {found:?}");
                };
                let place = &difference.place;
                assert_eq!(
                    (place.layer, &*place.op, difference.element),
                    (layer, op, row),
                    "{cell}"
                );
            }
            println!(
                "planted in {}, a weight of {matrix}: {}",
                backend.name(),
                outcome.complaints("found")[0]
            );
        }
    }
}
