//! One token, or a few one by one or by fours: straight from the bits of a panel to dot products, a panel after the
//! other, a fill after the other. All tokens take a fill before the next one, so it comes from memory once.

use std::marker::PhantomData;
use std::ops::Range;

use super::drivers::{Drivers, NoReads, OfShard};
use super::fill::{Buffer, Inputs, Panel, ShardPanels, show, shown};
use super::{Format, ROWS};
use crate::kernels::Activations;
use crate::kernels::isa::Op;
use crate::kernels::matrix::Shard;
use crate::team::Tile;

/// Does `$body` for every `Isa::SIDE_BY_SIDE` vectors of a panel's rows, the first of which is number `$part`. Where
/// those are all of them there is no loop: the compiler sees that it has one round only after it has analysed the
/// unfolded body as one (measured: half of the engine's build for tests).
macro_rules! by_vectors {
    ($part:ident of $isa:ty => $body:block) => {
        if ROWS / <$isa>::LANES == <$isa>::SIDE_BY_SIDE {
            let $part = 0;
            $body
        } else {
            for $part in (0..ROWS / <$isa>::LANES).step_by(<$isa>::SIDE_BY_SIDE) {
                $body
            }
        }
    };
}

pub(super) use by_vectors;

/// Tokens that may be multiplied one by one.
pub(in crate::kernels) const FEW: usize = 8;

/// Rows of a packed weight times one token, or one by one a few: at most [`FEW`].
pub(super) struct TokenByToken<'a, 'b, 'c, F> {
    pub(super) weight: &'a Shard,
    pub(super) rows: Range<usize>,
    pub(super) x: &'a Activations<'b>,
    pub(super) out: &'a mut Tile<'c>,
    pub(super) format: PhantomData<F>,
}

impl<I: Drivers, F: Format> Op<I> for TokenByToken<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self, isa: I) {
        let shard = ShardPanels::<F>::new(self.weight);
        let all = I::Ahead::new(self.weight);
        let inputs = Inputs::<F>::new(self.x);
        for number in self.panels() {
            let Panel::Packed(panel) = shard.panel(number) else {
                return;
            };
            let mut acc = [[0.0f32; ROWS]; FEW];
            let acc = &mut acc[..self.x.m().min(FEW)];
            for i in 0..shard.fills() {
                let (first, n) = shard.blocks_of(i);
                let blocks = panel.some::<F>(first, n);
                let (ahead, inputs) = (shard.ahead(all, number, first), inputs.fill(i));
                let mut token = 0;
                if F::BY_FOURS && I::BY_FOURS {
                    while let Some(acc) = acc[token..].first_chunk_mut() {
                        F::four_tokens(isa, blocks, n, &inputs.tokens(token), acc);
                        token += 4;
                    }
                }
                for (token, acc) in (token..).zip(&mut acc[token..]) {
                    F::one_token(isa, blocks, n, ahead, &inputs.token(token), acc);
                }
            }
            self.show(number, acc);
        }
    }
}

/// The same for one token where the weight is not packed: there is nothing to gain from weights unpacked to bytes.
pub(super) struct OneMappedToken<'a, 'b, 'c, F>(pub(super) TokenByToken<'a, 'b, 'c, F>);

impl<I: Drivers, F: Format> Op<I> for OneMappedToken<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self, isa: I) {
        let shard = ShardPanels::<F>::new(self.0.weight);
        let inputs = Inputs::<F>::new(self.0.x);
        let mut buffer = Buffer::new();
        for number in self.0.panels() {
            let panel = shard.panel(number);
            let mut acc = [0.0f32; ROWS];
            for i in 0..shard.fills() {
                let (blocks, n) = shard.fill(isa, &panel, i, &mut buffer);
                F::one_token(isa, blocks, n, NoReads, &inputs.fill(i).token(0), &mut acc);
            }
            self.0.show(number, &[acc]);
        }
    }
}

impl<F> TokenByToken<'_, '_, '_, F> {
    /// The panels that have some of the rows.
    fn panels(&self) -> Range<usize> {
        self.rows.start / ROWS..self.rows.end.div_ceil(ROWS)
    }

    /// Copies the tokens' sums of panel `number` to where they are shown.
    #[inline(always)]
    fn show(&mut self, number: usize, acc: &[[f32; ROWS]]) {
        let (lanes, columns) = shown(number, &self.rows);
        for (token, acc) in acc.iter().enumerate() {
            show(acc, &lanes, &mut self.out.row(token)[columns.clone()]);
        }
    }
}
