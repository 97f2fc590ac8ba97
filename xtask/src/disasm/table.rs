//! What the compiled kernels must look like. The only place to change when a kernel is renamed or rewritten.
//!
//! `symbols` is matched with the whole demangled name of a function; `*` stands for anything. `hot` must stand in a
//! loop that contains no further loop; such loops are what the other demands speak of.

/// What one group of functions must contain.
#[derive(Debug)]
pub(super) struct Rule {
    /// How the kernel is called in reports.
    pub(super) name: &'static str,
    /// Pattern of the demangled names.
    pub(super) symbols: &'static str,
    /// The instruction that the kernel is about, and on which registers it must work wherever it stands.
    pub(super) hot: (&'static str, Width),
    /// How often it must stand in the innermost loops that have it, taken together.
    pub(super) least: usize,
    /// Others that must stand in these loops.
    pub(super) with: &'static [&'static str],
    /// Instructions that must not stand in these loops: a spill of the accumulators, a slower way.
    pub(super) without: &'static [&'static str],
}

/// Registers by width. Of products of tiles the straight stretches of code count, not loops: the vector work between
/// them is written out, and what is asked for ahead has loops of its own beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    Ymm,
    Zmm,
    Tile,
}

/// Prefixes of instructions that no function of the engine may contain, and why.
pub(super) const NOWHERE: &[(&str, &str)] = &[
    (
        "vfmadd",
        "a fused multiply-add rounds once where the contract rounds twice",
    ),
    (
        "vfmsub",
        "a fused multiply-add rounds once where the contract rounds twice",
    ),
    (
        "vfnmadd",
        "a fused multiply-add rounds once where the contract rounds twice",
    ),
    (
        "vfnmsub",
        "a fused multiply-add rounds once where the contract rounds twice",
    ),
    ("vdpbf16ps", "it flushes denormals"),
    ("vcvtneps2bf16", "it flushes denormals"),
    ("vcvtne2ps2bf16", "it flushes denormals"),
    ("rcpps", "an approximation that differs between makers"),
    ("rcpss", "an approximation that differs between makers"),
    ("rsqrtps", "an approximation that differs between makers"),
    ("rsqrtss", "an approximation that differs between makers"),
    ("vrcp", "an approximation that differs between makers"),
    ("vrsqrt", "an approximation that differs between makers"),
    ("vdpps", "a sum of products in an order of its own"),
    ("vpdpbusds", "it saturates"),
    ("vpdpwssds", "it saturates"),
];

const fn vnni(width: Width, name: &'static str, symbols: &'static str, least: usize) -> Rule {
    Rule {
        name,
        symbols,
        hot: ("vpdpbusd", width),
        least,
        with: &[],
        without: &["vpmaddubsw"],
    }
}

const fn avx512(name: &'static str, symbols: &'static str, least: usize) -> Rule {
    vnni(Width::Zmm, name, symbols, least)
}

const fn avx_vnni(name: &'static str, symbols: &'static str, least: usize) -> Rule {
    vnni(Width::Ymm, name, symbols, least)
}

/// Products of weights and scales: no scale is left in the loop.
const fn products(width: Width, name: &'static str, symbols: &'static str, least: usize) -> Rule {
    Rule {
        without: &["vpmulld", "vpmaddubsw"],
        ..vnni(width, name, symbols, least)
    }
}

const fn avx2(name: &'static str, symbols: &'static str, least: usize) -> Rule {
    Rule {
        name,
        symbols,
        hot: ("vpmaddubsw", Width::Ymm),
        least,
        with: &["vpmaddwd"],
        without: &[],
    }
}

/// Products of tiles with the float steps of the tile before between them.
const fn amx(name: &'static str, symbols: &'static str, hot: &'static str, least: usize) -> Rule {
    Rule {
        name,
        symbols,
        hot: (hot, Width::Tile),
        least,
        with: &[
            "tileloadd",
            "tilestored",
            "tilezero",
            "vcvtdq2ps",
            "vmulps",
            "vaddps",
        ],
        without: &["vpmulld"],
    }
}

/// Attention reads keys and values in half precision; for one token as for many.
const fn attention(width: Width, name: &'static str, symbols: &'static str) -> Rule {
    Rule {
        name,
        symbols,
        hot: ("vcvtph2ps", width),
        least: 16,
        with: &["vmulps", "vaddps", "prefetcht1"],
        without: &[],
    }
}

/// Dot products of a block of 256 weights and 16 rows with one token, and with four.
const FEW_TOKENS: usize = 64 + 4 * 64;

/// The hot kernels. A register tile is 6 tokens x 32 outputs with AVX-512, 3 x 16 with AVX2, an output being a lane of
/// one of two vectors: per group of 32 weights 8 dot products for each token and vector. The kernels for one token are
/// written out over a whole block, and those for four.
pub(super) const RULES: &[Rule] = &[
    avx512(
        "avx512 q4_k tile",
        "*::avx512::enter::<*::Tokens<*::Q45K<false>>>>",
        64,
    ),
    avx512(
        "avx512 q4_k few tokens",
        "*::avx512::enter::<*::TokenByToken<*::Q45K<false>>>>",
        FEW_TOKENS,
    ),
    avx512(
        "avx512 q5_k tile",
        "*::avx512::enter::<*::Tokens<*::Q45K<true>>>>",
        64,
    ),
    avx512(
        "avx512 q5_k few tokens",
        "*::avx512::enter::<*::TokenByToken<*::Q45K<true>>>>",
        FEW_TOKENS,
    ),
    avx512("avx512 q6_k tile", "*::avx512::enter::<*::Tokens<*::Q6K>>>", 32),
    avx512(
        "avx512 q6_k few tokens",
        "*::avx512::enter::<*::TokenByToken<*::Q6K>>>",
        FEW_TOKENS,
    ),
    products(
        Width::Zmm,
        "avx512 q2_k tile",
        "*::avx512::enter::<*::Tokens<*::Q2K>>>",
        64,
    ),
    products(
        Width::Zmm,
        "avx512 q3_k tile",
        "*::avx512::enter::<*::Tokens<*::Q3K>>>",
        64,
    ),
    avx512(
        "avx512 iq4_xs tile",
        "*::avx512::enter::<*::Tokens<*::Iq4Xs>>>",
        64,
    ),
    avx512(
        "avx512 iq4_xs few tokens",
        "*::avx512::enter::<*::TokenByToken<*::Iq4Xs>>>",
        FEW_TOKENS,
    ),
    avx512(
        "avx512 q8_0 tile",
        "*::avx512::enter::<*::Tokens<*::layouts_32::Q8>>>",
        64,
    ),
    avx512(
        "avx512 q8_0 one token",
        "*::avx512::enter::<*::TokenByToken<*::layouts_32::Q8>>>",
        8,
    ),
    avx512(
        "avx512 q4_0 tile",
        "*::avx512::enter::<*::Tokens<*::Q4<false>>>>",
        64,
    ),
    avx512(
        "avx512 q4_0 one token",
        "*::avx512::enter::<*::TokenByToken<*::Q4<false>>>>",
        8,
    ),
    avx512(
        "avx512 int8 tile",
        "*::avx512::enter::<*::Tokens<*::layouts_256::Int8>>>",
        32,
    ),
    // The same with prefetches to the second-level cache, as Intel's processors have them.
    avx512(
        "avx512 q4_k few tokens, L2",
        "*::avx512::enter_l2::<*::TokenByToken<*::Q45K<false>>>>",
        FEW_TOKENS,
    ),
    avx512(
        "avx512 q6_k few tokens, L2",
        "*::avx512::enter_l2::<*::TokenByToken<*::Q6K>>>",
        FEW_TOKENS,
    ),
    // Two panels, each with four products a digit; with floats between them and, for the first tokens, without.
    amx(
        "amx q4_k",
        "*::avx512::enter::<*::InTiles<*::Q45K<false>>>>",
        "tdpbsud",
        32,
    ),
    amx(
        "amx q6_k",
        "*::avx512::enter::<*::InTiles<*::Q6K>>>",
        "tdpbssd",
        32,
    ),
    amx(
        "amx q3_k",
        "*::avx512::enter::<*::InTiles<*::Q3K>>>",
        "tdpbssd",
        16,
    ),
    amx(
        "amx int8",
        "*::avx512::enter::<*::InTiles<*::layouts_256::Int8>>>",
        "tdpbssd",
        32,
    ),
    // Eight steps, of a panel in a loop.
    amx(
        "amx q8_0",
        "*::avx512::enter::<*::InTiles<*::layouts_32::Q8>>>",
        "tdpbssd",
        8,
    ),
    avx2(
        "avx2 q4_k tile",
        "*::avx2::enter::<*::Tokens<*::Q45K<false>>>>",
        48,
    ),
    avx2(
        "avx2 q4_k one token",
        "*::avx2::enter::<*::TokenByToken<*::Q45K<false>>>>",
        64,
    ),
    avx2(
        "avx2 q5_k tile",
        "*::avx2::enter::<*::Tokens<*::Q45K<true>>>>",
        48,
    ),
    avx2(
        "avx2 q5_k one token",
        "*::avx2::enter::<*::TokenByToken<*::Q45K<true>>>>",
        64,
    ),
    avx2("avx2 q6_k tile", "*::avx2::enter::<*::Tokens<*::Q6K>>>", 20),
    avx2(
        "avx2 q6_k one token",
        "*::avx2::enter::<*::TokenByToken<*::Q6K>>>",
        64,
    ),
    avx2("avx2 iq4_xs tile", "*::avx2::enter::<*::Tokens<*::Iq4Xs>>>", 40),
    avx2(
        "avx2 iq4_xs one token",
        "*::avx2::enter::<*::TokenByToken<*::Iq4Xs>>>",
        64,
    ),
    avx2(
        "avx2 q8_0 tile",
        "*::avx2::enter::<*::Tokens<*::layouts_32::Q8>>>",
        32,
    ),
    avx2(
        "avx2 q8_0 one token",
        "*::avx2::enter::<*::TokenByToken<*::layouts_32::Q8>>>",
        8,
    ),
    avx2("avx2 q4_0 tile", "*::avx2::enter::<*::Tokens<*::Q4<false>>>>", 40),
    avx2(
        "avx2 q4_0 one token",
        "*::avx2::enter::<*::TokenByToken<*::Q4<false>>>>",
        8,
    ),
    avx2(
        "avx2 int8 tile",
        "*::avx2::enter::<*::Tokens<*::layouts_256::Int8>>>",
        16,
    ),
    avx2(
        "avx2 q4_k one token, L2",
        "*::avx2::enter_l2::<*::TokenByToken<*::Q45K<false>>>>",
        64,
    ),
    avx_vnni(
        "avx-vnni q4_k one token, L2",
        "*::avx2::enter_vnni_l2::<*::TokenByToken<*::Q45K<false>>>>",
        64,
    ),
    avx_vnni(
        "avx-vnni q4_k tile",
        "*::avx2::enter_vnni::<*::Tokens<*::Q45K<false>>>>",
        48,
    ),
    avx_vnni(
        "avx-vnni q4_k one token",
        "*::avx2::enter_vnni::<*::TokenByToken<*::Q45K<false>>>>",
        64,
    ),
    avx_vnni(
        "avx-vnni q6_k tile",
        "*::avx2::enter_vnni::<*::Tokens<*::Q6K>>>",
        24,
    ),
    avx_vnni(
        "avx-vnni q6_k one token",
        "*::avx2::enter_vnni::<*::TokenByToken<*::Q6K>>>",
        64,
    ),
    products(
        Width::Ymm,
        "avx-vnni q3_k tile",
        "*::avx2::enter_vnni::<*::Tokens<*::Q3K>>>",
        48,
    ),
    avx_vnni(
        "avx-vnni q8_0 tile",
        "*::avx2::enter_vnni::<*::Tokens<*::layouts_32::Q8>>>",
        48,
    ),
    attention(
        Width::Zmm,
        "avx512 attention",
        "*::avx512::enter::<*::attention::Attend>",
    ),
    attention(
        Width::Zmm,
        "avx512 attention, numbers in registers",
        "*::avx512::enter_splat::<*::attention::Attend>",
    ),
    attention(
        Width::Ymm,
        "avx2 attention",
        "*::avx2::enter::<*::attention::Attend>",
    ),
];

/// Whether `text` matches `pattern`, in which `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((end, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, is) in [
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*b*", "abc", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*::Q4K>, 8>>", "x::Q4K>, 8>>", true),
            ("*::Q4K>, 8>>", "x::Q4K>, 18>>", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(
                RULES[..i].iter().all(|other| other.name != rule.name),
                "{}",
                rule.name
            );
        }
    }
}
