//! The search for types with a minimum: w = d * scale * q - dmin * min.
//!
//! One level (q4_1, q5_1): half-precision scale and offset for 32 weights. Two levels (q2_k, q4_k, q5_k): integer
//! scale and minimum per group, two half-precision factors for 256 weights.
//!
//! A group's scale and offset are found by trying spans on both ends of its range, each refined by least squares and
//! renewed codes in turn. With two levels both factors and all integers are then fitted in turn, every error measured
//! with the numbers as they will be stored.

use super::group::{CodeSums, Group, SUBNORMAL, clamp, round, to_half, to_half_scale};
use super::scaled::TINY;
use crate::quant::Step;

/// A group's scale and offset (w = scale * q + offset).
type Line = (f32, f32);

/// The least squares line for given codes; with `negative` the offset is at most 0. `None` where the codes do not
/// determine it.
fn fit(sums: CodeSums, w: f32, wx: f32, negative: bool) -> Option<Line> {
    let det = w * sums.qq - sums.q * sums.q;
    if det > 1e-6 * w * sums.qq {
        let s = (w * sums.xq - wx * sums.q) / det;
        let offset = (sums.qq * wx - sums.q * sums.xq) / det;
        if s > 0.0 && (offset <= 0.0 || !negative) {
            return Some((s, offset));
        }
    }
    if negative && sums.qq > 0.0 && sums.xq > 0.0 {
        return Some((sums.xq / sums.qq, 0.0));
    }
    None
}

/// The line of least squared error with codes 0 ..= top, as far as the search goes.
fn best_line(g: Group<'_>, top: f32, spans: &[(f32, f32)], negative: bool) -> Line {
    let (mut low, high) = g.range();
    if negative && low > 0.0 {
        low = 0.0;
    }
    let (w, wx) = g.moments();
    let flat = (0.0, if negative && wx > 0.0 { 0.0 } else { wx / w });
    if high - low < TINY {
        return flat;
    }
    let mut best = (g.affine_error(flat.0, flat.1, top), flat);
    let step = (high - low) / top;
    for &(below, above) in spans {
        let mut line = (step * (top - above - below) / top, low + below * step);
        if negative && line.1 > 0.0 {
            line.1 = 0.0;
        }
        let mut last = f32::INFINITY;
        for _ in 0..4 {
            let Some(next) = fit(g.affine_sums(1.0 / line.0, line.1, top), w, wx, negative) else {
                break;
            };
            line = next;
            let error = g.affine_error(line.0, line.1, top);
            if error < best.0 {
                best = (error, line);
            }
            if error >= 0.999 * last {
                break;
            }
            last = error;
        }
    }
    best.1
}

/// Spans for five and four bits: how many codes of the range's lower and upper end are cut off (or added, where
/// negative).
pub(super) const FINE: &[(f32, f32)] = &[
    (0.0, 0.0),
    (0.4, 0.4),
    (0.0, 0.7),
    (0.7, 0.0),
    (0.8, 0.8),
    (-0.4, -0.4),
    (0.3, -0.3),
    (-0.3, 0.3),
];

/// Spans for two bits.
pub(super) const COARSE: &[(f32, f32)] = &[
    (0.0, 0.0),
    (0.2, 0.2),
    (0.4, 0.4),
    (0.0, 0.3),
    (0.3, 0.0),
    (0.0, 0.6),
    (0.6, 0.0),
    (-0.3, -0.3),
    (-0.3, 0.3),
    (0.3, -0.3),
    (0.6, 0.3),
    (0.3, 0.6),
];

/// Which part of the greatest integer the block's largest scale and largest minimum get at first. With few integers it
/// matters much; where half precision has few digits left, the factors may have to be well above.
const ENDS_MANY: &[(f32, f32)] = &[(1.0, 1.0), (0.95, 0.95)];
const ENDS_FEW: &[(f32, f32)] = &[
    (1.0, 1.0),
    (0.93, 1.0),
    (1.0, 0.93),
    (0.93, 0.93),
    (0.83, 0.93),
    (0.93, 0.83),
    (1.13, 1.0),
    (1.0, 1.13),
];
const ENDS_SUBNORMAL: &[(f32, f32)] = &[
    (1.0, 1.0),
    (0.93, 0.93),
    (0.8, 0.8),
    (0.8, 0.5),
    (0.5, 0.8),
    (0.6, 0.6),
    (0.3, 0.6),
    (0.6, 0.3),
];

/// One level: fills `q`, `d` and `dmin` of the step.
pub(super) fn one_level(g: Group<'_>, top: f32, out: &mut Step) {
    let (s, offset) = best_line(g, top, FINE, false);
    let (w, wx) = g.moments();
    let mut best = (f32::INFINITY, (0.0, 0.0));
    let mut d = to_half(s);
    // The offset follows the scale as it is stored; then the scale once more.
    for _ in 0..3 {
        let mut m = offset;
        if d != 0.0 {
            let sums = g.affine_sums(1.0 / d, m, top);
            m = (wx - d * sums.q) / w;
        }
        let m = to_half(m);
        let error = g.affine_error(d, m, top);
        if error < best.0 {
            best = (error, (d, m));
        }
        if d == 0.0 {
            break;
        }
        let sums = g.affine_sums(1.0 / d, m, top);
        if sums.qq == 0.0 {
            break;
        }
        let next = to_half((sums.xq - m * sums.q) / sums.qq);
        if next == d || next <= 0.0 {
            break;
        }
        d = next;
    }
    let (d, m) = best.1;
    out.d = d;
    out.dmin = -m;
    g.affine_codes(d, m, top, &mut out.q);
}

/// Two levels over groups of `LEN` weights with integer scales and minima up to `integers`: fills the whole step.
pub(super) fn two_levels<const LEN: usize>(
    block: Group<'_>,
    top: f32,
    integers: f32,
    spans: &[(f32, f32)],
    out: &mut Step,
) {
    let groups = || {
        block
            .x
            .chunks_exact(LEN)
            .zip(block.w.chunks_exact(LEN))
            .map(|(x, w)| Group { x, w })
    };
    let mut ideal = [(0.0f32, 0.0f32); 16];
    let (mut scale, mut min) = (0.0f32, 0.0f32);
    for (line, g) in ideal.iter_mut().zip(groups()) {
        *line = best_line(g, top, spans, true);
        scale = if line.0 > scale { line.0 } else { scale };
        min = if -line.1 > min { -line.1 } else { min };
    }
    let mut best = (f32::INFINITY, 0.0f32, 0.0f32, [(0.0f32, 0.0f32); 16]);
    let ends = if scale / integers < SUBNORMAL || min / integers < SUBNORMAL {
        ENDS_SUBNORMAL
    } else if integers < 32.0 {
        ENDS_FEW
    } else {
        ENDS_MANY
    };
    for &(for_scale, for_min) in ends {
        let (mut d, mut dmin) = (
            to_half_scale(scale / (integers * for_scale)),
            to_half_scale(min / (integers * for_min)),
        );
        for _ in 0..4 {
            let (mut error, mut chosen) = (0.0, [(0.0f32, 0.0f32); 16]);
            let mut normal = Normal::default();
            for ((pair, &line), g) in chosen.iter_mut().zip(&ideal).zip(groups()) {
                let (e, sc, m) = integer_line(g, line, (d, dmin), top, integers);
                *pair = (sc, m);
                error += e;
                normal.add(g, (d, dmin), (sc, m), top);
            }
            if error >= best.0 {
                break;
            }
            best = (error, d, dmin, chosen);
            let next = normal.solve();
            if next == (d, dmin) {
                break;
            }
            (d, dmin) = next;
        }
    }
    let (_, d, dmin, chosen) = best;
    out.d = d;
    out.dmin = dmin;
    for (i, (&(sc, m), g)) in chosen.iter().zip(groups()).enumerate() {
        g.affine_codes(d * sc, -dmin * m, top, &mut out.q[LEN * i..][..LEN]);
        for j in LEN / 16 * i..LEN / 16 * (i + 1) {
            out.scale[j] = sc as i8;
            out.min[j] = m as u8;
        }
    }
}

/// The integer scale and minimum near the ideal line of least error: (error, scale, minimum).
fn integer_line(
    g: Group<'_>,
    (s, offset): Line,
    (d, dmin): (f32, f32),
    top: f32,
    integers: f32,
) -> (f32, f32, f32) {
    let near = |v: f32, d: f32| {
        if d > 0.0 {
            round(clamp(v / d, 0.0, integers))
        } else {
            0.0
        }
    };
    let (w, wx) = g.moments();
    let near_scale = near(s, d);
    let mut best = (f32::INFINITY, 0.0, 0.0);
    for step in [0.0, -1.0, 1.0] {
        let sc = clamp(near_scale + step, 0.0, integers);
        let s = d * sc;
        // The minimum that goes best with this scale, and its neighbour on the other side.
        let mut m = -offset;
        if s != 0.0 {
            let sums = g.affine_sums(1.0 / s, offset, top);
            m = (s * sums.q - wx) / w;
        }
        let near_min = near(m, dmin);
        for step in [0.0, if m > near_min * dmin { 1.0 } else { -1.0 }] {
            let m = clamp(near_min + step, 0.0, integers);
            let error = g.affine_error(s, -dmin * m, top);
            if error < best.0 {
                best = (error, sc, m);
            }
        }
    }
    best
}

/// The normal equations of both factors over a block, the integers given.
#[derive(Default)]
struct Normal {
    ll: f64,
    lm: f64,
    mm: f64,
    xl: f64,
    xm: f64,
}

impl Normal {
    fn add(&mut self, g: Group<'_>, (d, dmin): (f32, f32), (sc, m): (f32, f32), top: f32) {
        let s = d * sc;
        let sums = if s == 0.0 {
            CodeSums::default()
        } else {
            g.affine_sums(1.0 / s, -dmin * m, top)
        };
        let (w, wx) = g.moments();
        let (sc, m) = (f64::from(sc), f64::from(m));
        self.ll += sc * sc * f64::from(sums.qq);
        self.lm += sc * m * f64::from(sums.q);
        self.mm += m * m * f64::from(w);
        self.xl += sc * f64::from(sums.xq);
        self.xm += m * f64::from(wx);
    }

    /// (d, dmin), as they are stored; neither is negative.
    fn solve(&self) -> (f32, f32) {
        let det = self.ll * self.mm - self.lm * self.lm;
        if det > 1e-9 * self.ll * self.mm {
            let d = (self.xl * self.mm - self.lm * self.xm) / det;
            let dmin = (self.lm * self.xl - self.ll * self.xm) / det;
            if d >= 0.0 && dmin >= 0.0 {
                return (to_half_scale(d as f32), to_half_scale(dmin as f32));
            }
        }
        if self.ll > 0.0 && self.xl > 0.0 {
            return (to_half_scale((self.xl / self.ll) as f32), 0.0);
        }
        (0.0, 0.0)
    }
}
