//! A backend with a planted error: it hands everything to another backend and flips one bit of one element of what one
//! call of one operation made. It stands on the engine's public interface alone.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use twinfer_engine::Result;
use twinfer_engine::kernels::{
    Activation, Backend, KvBlock, PackedMatrix, Packing, Partials, Queries, RopeKind,
};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::GgmlType;

/// The operations of a backend, as [`Faulty`] counts their calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A bit in the middle of a row of the packed weights; the element is the row.
    Pack,
    /// [`Backend::quantize`].
    Quantize,
    /// [`Backend::rms_norm`].
    RmsNorm,
    /// [`Backend::add`].
    Add,
    /// [`Backend::gate`].
    Gate,
    /// [`Backend::rotate`].
    Rotate,
    /// [`Backend::attend`].
    Attend,
    /// [`Backend::merge`].
    Merge,
    /// [`Backend::to_halves`].
    ToHalves,
}

/// How many they are.
pub const N_OPS: usize = Op::ToHalves as usize + 1;

/// What is flipped.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What makes the wrong number.
    pub op: Op,
    /// The call, counted over one evaluation (of [`Op::Pack`]: over one model).
    pub call: usize,
    /// The number, counted over what the call made.
    pub element: usize,
    /// Its bit, the lowest being 0.
    pub bit: u32,
}

/// The backend.
#[derive(Debug)]
pub struct Faulty {
    inner: &'static dyn Backend,
    fault: Option<Fault>,
    /// Calls of an evaluation: the error comes back in each one.
    period: [usize; N_OPS],
    calls: [AtomicUsize; N_OPS],
}

impl Faulty {
    /// A backend that only counts.
    pub fn counting(inner: &'static dyn Backend) -> &'static Faulty {
        Self::leak(inner, None, [usize::MAX; N_OPS])
    }

    /// A backend with a fault; `period` as a counting one counted. Calls are counted as they come, so that everything
    /// but [`Op::Pack`] wants one thread.
    pub fn new(inner: &'static dyn Backend, fault: Fault, period: [usize; N_OPS]) -> &'static Faulty {
        Self::leak(inner, Some(fault), period)
    }

    fn leak(inner: &'static dyn Backend, fault: Option<Fault>, period: [usize; N_OPS]) -> &'static Faulty {
        // A backend is never dropped; those of a test are few.
        Box::leak(Box::new(Faulty {
            inner,
            fault,
            period,
            calls: Default::default(),
        }))
    }

    /// Calls of each operation so far.
    pub fn calls(&self) -> [usize; N_OPS] {
        self.calls.each_ref().map(|calls| calls.load(Ordering::Relaxed))
    }

    /// Counts a call; the element and the bit to flip in what it made.
    fn hit(&self, op: Op) -> Option<(usize, u32)> {
        let call = self.calls[op as usize].fetch_add(1, Ordering::Relaxed) % self.period[op as usize];
        let fault = self.fault.filter(|fault| fault.op == op && fault.call == call);
        fault.map(|fault| (fault.element, fault.bit))
    }

    fn flip(&self, op: Op, values: &mut [f32]) {
        if let Some((element, bit)) = self.hit(op) {
            values[element] = f32::from_bits(values[element].to_bits() ^ 1 << bit);
        }
    }
}

impl Backend for Faulty {
    crate::forward!(inner: name, layer_norm, add_scaled, activate, conv_row, delta_row, scan_row);

    fn pack(
        &self,
        ty: GgmlType,
        n: usize,
        k: usize,
        bytes: Bytes,
        packing: &Packing<'_>,
    ) -> Result<PackedMatrix> {
        let bytes = match self.hit(Op::Pack) {
            Some((row, bit)) => {
                let row_bytes = bytes.len() / n;
                let mut changed = bytes.to_vec();
                changed[row * row_bytes + row_bytes / 2] ^= 1 << bit;
                Bytes::from_vec(changed)
            }
            None => bytes,
        };
        self.inner.pack(ty, n, k, bytes, packing)
    }

    fn quantize(&self, step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool {
        let finite = self.inner.quantize(step, x, q, d, sums);
        if let Some((element, bit)) = self.hit(Op::Quantize) {
            q[element] ^= 1 << bit;
        }
        finite
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        self.inner.rms_norm(x, weight, eps, out);
        self.flip(Op::RmsNorm, out);
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        self.inner.add(x, y);
        self.flip(Op::Add, x);
    }

    fn gate(&self, f: Activation, gate: &mut [f32], up: &[f32]) {
        self.inner.gate(f, gate, up);
        self.flip(Op::Gate, gate);
    }

    fn rotate(&self, kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        self.inner.rotate(kind, head, cos, sin);
        self.flip(Op::Rotate, head);
    }

    fn attend(
        &self,
        queries: &Queries<'_>,
        visible: &[Range<usize>],
        block: &KvBlock<'_>,
        sum: &mut Partials<'_>,
        scratch: &mut [f32],
    ) {
        self.inner.attend(queries, visible, block, sum, scratch);
        self.flip(Op::Attend, sum.o);
    }

    fn merge(&self, sum: &mut Partials<'_>, later: &Partials<'_>) {
        self.inner.merge(sum, later);
        self.flip(Op::Merge, sum.o);
    }

    fn to_halves(&self, x: &[f32], out: &mut [u16]) -> bool {
        let finite = self.inner.to_halves(x, out);
        if let Some((element, bit)) = self.hit(Op::ToHalves) {
            out[element] ^= 1 << bit;
        }
        finite
    }
}
