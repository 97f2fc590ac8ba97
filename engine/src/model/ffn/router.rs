//! The router of experts: which of them a token goes to, and with which weights.

use bytemuck::Zeroable;

use crate::kernels::functions::{exp, sigmoid, softplus, sum16};

/// What the router's logits become, and what the experts are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// Probabilities over all experts.
    Softmax,
    /// Each expert's by itself: `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Each expert's by itself: `sqrt(ln(1 + exp(x)))`.
    SqrtSoftplus,
    /// The logits choose; probabilities over those that were chosen.
    SoftmaxOfChosen,
    /// The logits choose; then each one's sigmoid.
    SigmoidOfChosen,
}

/// The least sum that weights are divided by: 2^-14.
const LEAST_SUM: f32 = 1.0 / 16384.0;

/// Groups of experts at most: a set of them is the bits of a number.
pub(super) const MAX_GROUPS: usize = 64;

/// An expert that a token goes to.
#[derive(Debug, Clone, Copy, PartialEq, Zeroable)]
#[repr(C)]
pub(super) struct Pick {
    pub(super) expert: u32,
    pub(super) weight: f32,
}

/// How experts are chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Router<'a> {
    pub(super) gating: Gating,
    /// Groups of experts of one size, and of how many of them a token's experts are.
    pub(super) groups: Option<(usize, usize)>,
    /// Added to what the experts are chosen by.
    pub(super) bias: Option<&'a [f32]>,
    /// Weights are divided by their sum.
    pub(super) normalise: bool,
    /// Factor of the weights.
    pub(super) scale: f32,
}

impl Router<'_> {
    /// A token's logits become what experts are chosen by and weights are made of.
    pub(super) fn gate(&self, logits: &mut [f32]) {
        match self.gating {
            Gating::Softmax => softmax(logits),
            Gating::Sigmoid => logits.iter_mut().for_each(|x| *x = sigmoid(*x)),
            Gating::SqrtSoftplus => logits.iter_mut().for_each(|x| *x = softplus(*x).sqrt()),
            Gating::SoftmaxOfChosen | Gating::SigmoidOfChosen => {}
        }
    }

    /// The experts of a token, as many as there are `picks`, the best one first; equal ones by number. All of `gated`,
    /// and of the bias, is finite.
    pub(super) fn choose(&self, gated: &[f32], picks: &mut [Pick]) {
        let value = |expert: usize| match self.bias {
            Some(bias) => gated[expert] + bias[expert],
            None => gated[expert],
        };
        let size = self.groups.map_or(gated.len(), |(count, _)| gated.len() / count);
        let open = self.groups.map_or(1, |groups| best_groups(groups, size, &value));
        let mut n = 0;
        for expert in (0..gated.len()).filter(|expert| open >> (expert / size) & 1 == 1) {
            let own = value(expert);
            let place = picks[..n].partition_point(|pick| pick.weight >= own);
            if place == picks.len() {
                continue;
            }
            n = picks.len().min(n + 1);
            picks[place..n].rotate_right(1);
            picks[place] = Pick {
                expert: expert as u32,
                weight: own,
            };
        }
        self.weigh(gated, picks);
    }

    /// The weights of those that are chosen.
    fn weigh(&self, gated: &[f32], picks: &mut [Pick]) {
        for pick in &mut *picks {
            pick.weight = gated[pick.expert as usize];
        }
        match self.gating {
            Gating::SoftmaxOfChosen => {
                // The first one is the largest.
                let max = picks.first().map_or(0.0, |pick| pick.weight);
                let mut sum = 0.0;
                for pick in &mut *picks {
                    pick.weight = exp(pick.weight - max);
                    sum += pick.weight;
                }
                picks.iter_mut().for_each(|pick| pick.weight /= sum);
            }
            Gating::SigmoidOfChosen => picks
                .iter_mut()
                .for_each(|pick| pick.weight = sigmoid(pick.weight)),
            Gating::Softmax | Gating::Sigmoid | Gating::SqrtSoftplus => {}
        }
        if self.normalise {
            let mut sum = 0.0;
            picks.iter().for_each(|pick| sum += pick.weight);
            let sum = if sum < LEAST_SUM { LEAST_SUM } else { sum };
            picks.iter_mut().for_each(|pick| pick.weight /= sum);
        }
        if self.scale != 1.0 {
            picks.iter_mut().for_each(|pick| pick.weight *= self.scale);
        }
    }
}

/// A bit for each group that experts are taken from: those with the largest sums of their two best ones, equal ones by
/// number.
fn best_groups((count, used): (usize, usize), size: usize, value: &impl Fn(usize) -> f32) -> u64 {
    let mut scores = [0.0; MAX_GROUPS];
    for (group, score) in scores.iter_mut().enumerate().take(count) {
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for expert in group * size..(group + 1) * size {
            let own = value(expert);
            if own > best {
                (best, second) = (own, best);
            } else if own > second {
                second = own;
            }
        }
        *score = best + second;
    }
    let mut open = 0u64;
    for _ in 0..used {
        let closed = (0..count).filter(|group| open >> group & 1 == 0);
        if let Some(best) = closed.reduce(|a, b| if scores[b] > scores[a] { b } else { a }) {
            open |= 1 << best;
        }
    }
    open
}

fn softmax(x: &mut [f32]) {
    let max = x
        .iter()
        .fold(f32::NEG_INFINITY, |a, b| if a < *b { *b } else { a });
    x.iter_mut().for_each(|x| *x = exp(*x - max));
    let sum = sum16(x.len(), |i| x[i]);
    x.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math;

    const PLAIN: Router<'_> = Router {
        gating: Gating::Softmax,
        groups: None,
        bias: None,
        normalise: false,
        scale: 1.0,
    };

    fn route(router: &Router<'_>, logits: &[f32], n: usize) -> Vec<(u32, f32)> {
        let mut gated = logits.to_vec();
        router.gate(&mut gated);
        let mut picks = vec![Pick::zeroed(); n];
        router.choose(&gated, &mut picks);
        picks.iter().map(|pick| (pick.expert, pick.weight)).collect()
    }

    fn experts(router: &Router<'_>, logits: &[f32], n: usize) -> Vec<u32> {
        route(router, logits, n).iter().map(|pick| pick.0).collect()
    }

    #[test]
    fn the_best_come_first_and_equal_ones_by_number() {
        assert_eq!(experts(&PLAIN, &[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(experts(&PLAIN, &[0.5; 6], 4), [0, 1, 2, 3]);
        assert_eq!(experts(&PLAIN, &[0.0, 1.0, 0.0, 1.0, 0.0], 5), [1, 3, 0, 2, 4]);
        // Against a full sort, with many ties.
        let mut seed = 1u32;
        for round in 0..200usize {
            let n = 1 + round % 70;
            let logits: Vec<f32> = (0..n)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 29) as f32
                })
                .collect();
            let mut all: Vec<u32> = (0..n as u32).collect();
            all.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            for used in [1, n.div_ceil(3), n] {
                assert_eq!(experts(&PLAIN, &logits, used), all[..used], "{logits:?}");
            }
        }
    }

    #[test]
    fn a_bias_chooses_and_does_not_weigh() {
        let gating = Gating::Sigmoid;
        let bias = Some(&[0.0, 0.0, 9.0, 0.0][..]);
        let router = Router {
            gating,
            bias,
            ..PLAIN
        };
        let logits = [2.0, 1.0, -3.0, 0.0];
        let expected = [(2, sigmoid(-3.0f32)), (0, sigmoid(2.0f32))];
        assert_eq!(route(&router, &logits, 2), expected);
        let (a, b) = (expected[0].1, expected[1].1);
        let router = Router {
            normalise: true,
            scale: 2.5,
            ..router
        };
        let expected = [(2, a / (a + b) * 2.5), (0, b / (a + b) * 2.5)];
        assert_eq!(route(&router, &logits, 2), expected);
    }

    #[test]
    fn groups_are_those_with_the_best_two() {
        // Sums of the best two: 5 + 0, 3 + 2.5, 4 + 1, 1 + 1.
        let logits = [5.0, 0.0, 3.0, 2.5, 4.0, 1.0, 1.0, 1.0];
        let of = |used| Router {
            gating: Gating::SoftmaxOfChosen,
            groups: Some((4, used)),
            ..PLAIN
        };
        assert_eq!(experts(&of(1), &logits, 2), [2, 3]);
        // Of the equal ones the first.
        assert_eq!(experts(&of(2), &logits, 3), [0, 2, 3]);
        assert_eq!(experts(&of(3), &logits, 6), [0, 4, 2, 3, 5, 1]);
        assert_eq!(experts(&of(4), &logits, 2), [0, 4]);
        let negative = [-5.0, -6.0, -1.0, -2.0];
        let router = Router {
            groups: Some((2, 1)),
            ..of(1)
        };
        assert_eq!(experts(&router, &negative, 2), [2, 3]);
    }

    #[test]
    fn weights_follow_their_gating() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let close = |found: &[(u32, f32)], expected: &[(u32, f64)]| {
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.0, expected.0);
                assert!(
                    (f64::from(found.1) - expected.1).abs() < 1e-6,
                    "{found:?} {expected:?}"
                );
            }
        };
        let e = |x: f64| math::exp(x);
        let all = e(0.0) + e(1.0) + e(2.0) + e(3.0);
        close(
            &route(&PLAIN, &logits, 2),
            &[(3, e(3.0) / all), (2, e(2.0) / all)],
        );
        let of = |gating| Router { gating, ..PLAIN };
        let two = e(3.0) + e(2.0);
        close(
            &route(&of(Gating::SoftmaxOfChosen), &logits, 2),
            &[(3, e(3.0) / two), (2, e(2.0) / two)],
        );
        close(
            &route(&of(Gating::SigmoidOfChosen), &logits, 1),
            &[(3, 1.0 / (1.0 + e(-3.0)))],
        );
        close(
            &route(&of(Gating::SqrtSoftplus), &[-40.0, 50.0, 1.0], 3),
            &[
                (1, 50f64.sqrt()),
                (2, math::ln(1.0 + e(1.0)).sqrt()),
                (0, e(-20.0)),
            ],
        );
        // A sum of nearly nothing divides nothing.
        let router = Router {
            gating: Gating::Sigmoid,
            normalise: true,
            ..PLAIN
        };
        let weight = route(&router, &[-80.0, -90.0], 1)[0].1;
        assert_eq!(weight, sigmoid(-80.0f32) * 16384.0);
    }
}
