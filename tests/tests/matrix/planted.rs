//! One flipped bit in each operation of each SIMD backend: the matrix differs, and the layer, operation and element are
//! named. The wasm backends have the same errors planted in `wasm_parity`.

use twinfer_engine::cache::CacheType;
use twinfer_engine::kernels::{Backend, Storage};
use twinfer_engine::trace::Comparison;
use twinfer_tests::fault::{Fault, Faulty, N_OPS, Op};
use twinfer_tests::planted::{CASES, MATRICES, N_LAYERS, N_TOKENS, calls_per_pass};

use crate::cells::{self, Cell, Subject};
use crate::{built_in, simd_backends};

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
            let per_pass = calls_per_pass(case.op);
            assert_eq!(period[case.op as usize], N_TOKENS * per_pass, "{:?}", case.op);
            let (position, layer, _) = case.at;
            let fault = case.fault();
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
