//! Backends that hand operations to another one: [`forward!`](crate::forward!) writes the ones that are only handed on.

/// Operations of a [`Backend`](twinfer_engine::kernels::Backend) that a field, a backend as well, does as it is:
/// `forward!(inner: add, rotate);` within the `impl`.
#[macro_export]
macro_rules! forward {
    ($inner:ident: $($op:ident),+ $(,)?) => {
        $($crate::forward!(@ $op $inner);)+
    };
    (@ name $inner:ident) => {
        fn name(&self) -> &'static str {
            self.$inner.name()
        }
    };
    (@ pack $inner:ident) => {
        fn pack(
            &self,
            ty: ::twinfer_engine::quant::GgmlType,
            n: usize,
            k: usize,
            bytes: ::twinfer_engine::memory::Bytes,
            packing: &::twinfer_engine::kernels::Packing<'_>,
        ) -> ::twinfer_engine::Result<::twinfer_engine::kernels::PackedMatrix> {
            self.$inner.pack(ty, n, k, bytes, packing)
        }
    };
    (@ quantize $inner:ident) => {
        fn quantize(&self, step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool {
            self.$inner.quantize(step, x, q, d, sums)
        }
    };
    (@ rms_norm $inner:ident) => {
        fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
            self.$inner.rms_norm(x, weight, eps, out);
        }
    };
    (@ layer_norm $inner:ident) => {
        fn layer_norm(&self, x: &[f32], weights: (&[f32], Option<&[f32]>), eps: f32, out: &mut [f32]) {
            self.$inner.layer_norm(x, weights, eps, out);
        }
    };
    (@ add $inner:ident) => {
        fn add(&self, x: &mut [f32], y: &[f32]) {
            self.$inner.add(x, y);
        }
    };
    (@ add_scaled $inner:ident) => {
        fn add_scaled(&self, x: &mut [f32], y: &[f32], scale: f32) {
            self.$inner.add_scaled(x, y, scale);
        }
    };
    (@ gate $inner:ident) => {
        fn gate(&self, f: ::twinfer_engine::kernels::Activation, gate: &mut [f32], up: &[f32]) {
            self.$inner.gate(f, gate, up);
        }
    };
    (@ activate $inner:ident) => {
        fn activate(&self, f: ::twinfer_engine::kernels::Activation, x: &mut [f32]) {
            self.$inner.activate(f, x);
        }
    };
    (@ rotate $inner:ident) => {
        fn rotate(
            &self,
            kind: ::twinfer_engine::kernels::RopeKind,
            head: &mut [f32],
            cos: &[f32],
            sin: &[f32],
        ) {
            self.$inner.rotate(kind, head, cos, sin);
        }
    };
    (@ conv_row $inner:ident) => {
        fn conv_row(
            &self,
            recent: &mut [f32],
            x: &[f32],
            taps: &[f32],
            bias: Option<&[f32]>,
            out: &mut [f32],
        ) {
            self.$inner.conv_row(recent, x, taps, bias, out);
        }
    };
    (@ delta_row $inner:ident) => {
        fn delta_row(
            &self,
            state: &mut [f32],
            qkv: (&[f32], &[f32], &[f32]),
            gates: (f32, f32),
            out: &mut [f32],
        ) {
            self.$inner.delta_row(state, qkv, gates, out);
        }
    };
    (@ scan_row $inner:ident) => {
        fn scan_row(
            &self,
            state: &mut [f32],
            bcx: (&[f32], &[f32], &[f32]),
            gates: (f32, f32, f32),
            out: &mut [f32],
        ) {
            self.$inner.scan_row(state, bcx, gates, out);
        }
    };
    (@ to_halves $inner:ident) => {
        fn to_halves(&self, x: &[f32], out: &mut [u16]) -> bool {
            self.$inner.to_halves(x, out)
        }
    };
}
