//! The tensor types of GGUF: ids, names and block sizes.
//!
//! Source: the `ggml_type` enumeration of ggml and the block layouts in its `ggml-common.h`.

use crate::{Error, Result};

macro_rules! types {
    ($($variant:ident = $id:literal, $name:literal, $block_len:literal, $block_bytes:literal;)*) => {
        /// A tensor's element type. Names are GGUF's own spellings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs)]
        #[repr(u32)]
        pub enum GgmlType { $($variant = $id,)* }

        impl GgmlType {
            /// Every type, by ascending id.
            pub const ALL: &'static [GgmlType] = &[$(GgmlType::$variant,)*];

            /// The type with this id in the file format.
            pub fn from_id(id: u32) -> Result<Self> {
                match id {
                    $($id => Ok(GgmlType::$variant),)*
                    _ => Err(Error::UnsupportedType { id, what: unknown(id).into() }),
                }
            }

            /// The name, lower case: `q4_k`.
            pub const fn name(self) -> &'static str {
                match self { $(GgmlType::$variant => $name,)* }
            }

            /// Weights per block: the unit that a row is made of.
            pub const fn block_len(self) -> usize {
                match self { $(GgmlType::$variant => $block_len,)* }
            }

            /// Bytes per block.
            pub const fn block_bytes(self) -> usize {
                match self { $(GgmlType::$variant => $block_bytes,)* }
            }
        }
    };
}

types! {
    F32 = 0, "f32", 1, 4;
    F16 = 1, "f16", 1, 2;
    Q4_0 = 2, "q4_0", 32, 18;
    Q4_1 = 3, "q4_1", 32, 20;
    Q5_0 = 6, "q5_0", 32, 22;
    Q5_1 = 7, "q5_1", 32, 24;
    Q8_0 = 8, "q8_0", 32, 34;
    Q2_K = 10, "q2_k", 256, 84;
    Q3_K = 11, "q3_k", 256, 110;
    Q4_K = 12, "q4_k", 256, 144;
    Q5_K = 13, "q5_k", 256, 176;
    Q6_K = 14, "q6_k", 256, 210;
    IQ2_XXS = 16, "iq2_xxs", 256, 66;
    IQ2_XS = 17, "iq2_xs", 256, 74;
    IQ3_XXS = 18, "iq3_xxs", 256, 98;
    IQ1_S = 19, "iq1_s", 256, 50;
    IQ4_NL = 20, "iq4_nl", 32, 18;
    IQ3_S = 21, "iq3_s", 256, 110;
    IQ2_S = 22, "iq2_s", 256, 82;
    IQ4_XS = 23, "iq4_xs", 256, 136;
    I8 = 24, "i8", 1, 1;
    I16 = 25, "i16", 1, 2;
    I32 = 26, "i32", 1, 4;
    I64 = 27, "i64", 1, 8;
    F64 = 28, "f64", 1, 8;
    IQ1_M = 29, "iq1_m", 256, 56;
    BF16 = 30, "bf16", 1, 2;
    TQ1_0 = 34, "tq1_0", 256, 54;
    TQ2_0 = 35, "tq2_0", 256, 66;
    MXFP4 = 39, "mxfp4", 32, 17;
    NVFP4 = 40, "nvfp4", 64, 36;
    Q1_0 = 41, "q1_0", 128, 18;
    Q2_0 = 42, "q2_0", 64, 18;
}

/// What is known of an id that is not in the table.
fn unknown(id: u32) -> &'static str {
    match id {
        4 => "q4_2 was removed from the format; convert the model anew",
        5 => "q4_3 was removed from the format; convert the model anew",
        9 => "q8_1 is an intermediate form that no model file should hold",
        15 => "q8_k is an intermediate form that no model file should hold",
        31..=33 => "the pre-interleaved q4_0 forms were removed from the format; use the plain q4_0 file",
        36..=38 => "the pre-interleaved iq4_nl forms were removed from the format; use the plain iq4_nl file",
        _ => "unknown id; the file may be damaged or newer than this engine",
    }
}

impl GgmlType {
    /// The id in the file format.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The type of this name (`q4_k`), case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Whether a tensor of this type can be a weight: floats and quantized types, not integers.
    pub const fn is_weight(self) -> bool {
        !matches!(
            self,
            GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64 | GgmlType::F64
        )
    }

    /// Whether it is F32, F16 or BF16: no blocks, no scales.
    pub const fn is_float(self) -> bool {
        matches!(self, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
    }

    /// Bytes of a row of `k` weights; `None` where `k` is not a whole number of blocks or it overflows.
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block_len()) {
            return None;
        }
        (k / self.block_len()).checked_mul(self.block_bytes())
    }
}
