//! Matrix products with 1 to 16 rows and with a prompt's 512, of a matrix that comes from memory: what a row more
//! costs.
//!
//! `cargo bench -p twinfer-benches -- batches` or `batches/TYPE`. All sizes are timed in turn, one call each, so that a
//! neighbour's load meets them alike; the numbers are medians, in times of one row's. Where memory bounds one row, what
//! stays near 1 is free.

use std::hint::black_box;
use std::time::Instant;

use twinfer_benches::statistics::median;
use twinfer_engine::kernels::{Backend, Operand, Packing, Storage, select};
use twinfer_engine::quant::GgmlType;

use crate::matmul::{FROM_MEMORY, TYPES, activations, weights};
use crate::meter::{Meter, timing};

const ROWS: [usize; 10] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 512];

/// Calls of each size.
const ROUNDS: usize = 9;

pub(crate) fn run(meter: &Meter) {
    let filter = std::env::args().skip(1).find(|arg| arg.starts_with("batches"));
    let Some(filter) = filter.filter(|_| timing()) else {
        return;
    };
    println!("times of one row's, medians of {ROUNDS} in turn; 512 rows: per row");
    println!(
        "{:<28} {:>9}  {}",
        "rows",
        "1, ms",
        ROWS[1..].iter().map(|m| format!("{m:>6}")).collect::<String>()
    );
    for &ty in TYPES {
        for &backend in select::available() {
            for (storage, storage_name) in [(Storage::Packed, "packed"), (Storage::Mapped, "mapped")] {
                let name = format!("batches/{}/{}/{storage_name}", ty.name(), backend.name());
                if backend.name() != "scalar" && name.starts_with(&filter) {
                    println!(
                        "{:<28} {}",
                        &name["batches/".len()..],
                        line(meter, backend, ty, storage)
                    );
                }
            }
        }
    }
}

/// One row's time and those of more rows.
fn line(meter: &Meter, backend: &dyn Backend, ty: GgmlType, storage: Storage) -> String {
    let k = 2048;
    let n = FROM_MEMORY / ty.row_bytes(k).expect("whole blocks");
    let pack = |n| {
        let packing = Packing::on_heap(storage, &meter.team);
        backend
            .pack(ty, n, k, weights(ty, n, k), &packing)
            .expect("a shape that fits the type")
    };
    // A prompt takes so long that it need not come from memory.
    let (all, few) = (pack(n), pack(n / 32));
    let operand =
        |m| Operand::new(backend, &meter.team, &all, activations(m, k)).expect("finite activations");
    let operands = ROWS.map(operand);
    let mut out = vec![0.0f32; ROWS[8].max(ROWS[9] / 32) * n];
    let mut times: [Vec<f64>; 10] = Default::default();
    for _ in 0..ROUNDS {
        for ((operand, m), times) in operands.iter().zip(ROWS).zip(&mut times) {
            let (weight, per_call) = if m > 16 {
                (&few, 32.0 / m as f64)
            } else {
                (&all, 1.0)
            };
            let out = &mut out[..m * weight.n()];
            let start = Instant::now();
            operand
                .matmul(&meter.team, weight, out)
                .expect("shapes that agree");
            times.push(start.elapsed().as_secs_f64() * per_call);
            black_box(&out);
        }
    }
    let medians = times.map(|times| median(&times).unwrap_or_default());
    let ratios = medians[1..]
        .iter()
        .map(|time| format!("{:6.2}", time / medians[0]));
    format!("{:>9.2}  {}", medians[0] * 1e3, ratios.collect::<String>())
}
