//! [`Work`] on an instruction set: what [`Peak`] must offer, and the patterns of reading, written once.

use super::{Done, Exercise, LINE, NOTHING, PAGE, Work, sum_words};
use crate::kernels::isa::{Isa, Op};

/// The peak rates of an instruction set. All methods are `#[inline(always)]`.
pub(crate) trait Peak: Isa {
    /// Four sums of 32-bit words, so that additions do not wait for each other.
    type Sums: Copy;

    /// Zeros.
    fn sums(self) -> Self::Sums;
    /// Adds the words of a cache line by the widest loads, or by those of 16 bytes.
    fn add_line<const NARROW: bool>(self, sums: &mut Self::Sums, line: &[u8; LINE]);
    /// The sum of all words.
    fn total(self, sums: Self::Sums) -> u32;
    /// [`Work::Dot`].
    fn dots(self, rounds: usize) -> Done;
    /// [`Work::MultiplyAdd`].
    fn multiply_adds(self, rounds: usize) -> Done;
}

/// The peak rates of an instruction set.
#[derive(Debug)]
struct SimdPeak<I>(I);

/// Work for an instruction set. Only detection makes `isa`, so it is made for one that is there.
pub(in crate::kernels) fn exercise<I: Peak>(isa: I) -> &'static dyn Exercise {
    Box::leak(Box::new(SimdPeak(isa)))
}

impl<I: Peak> Exercise for SimdPeak<I> {
    fn exercise(&self, work: &Work<'_>) -> Done {
        self.0.run(Enabled(work))
    }
}

/// Some work, to be run with the instruction set enabled.
struct Enabled<'a>(&'a Work<'a>);

impl<I: Peak> Op<I> for Enabled<'_> {
    type Output = Done;

    #[inline(always)]
    fn run(self, isa: I) -> Done {
        match *self.0 {
            Work::Dot { rounds } => isa.dots(rounds),
            Work::TileDot { .. } => NOTHING,
            Work::MultiplyAdd { rounds } => isa.multiply_adds(rounds),
            Work::Read { bytes, pattern } => {
                let bytes = &bytes[..bytes.len() / PAGE * PAGE];
                let whole = bytes.len() / (PAGE * pattern.streams) * (PAGE * pattern.streams);
                let (whole, rest) = bytes.split_at(whole);
                let block = if pattern.pages {
                    PAGE * pattern.streams
                } else {
                    whole.len().max(1)
                };
                let ahead = pattern.prefetch;
                let mut sums = isa.sums();
                for block in whole.chunks_exact(block) {
                    let block = block.as_chunks::<LINE>().0;
                    match (pattern.streams, pattern.narrow, pattern.backward, ahead > 0) {
                        (1, true, ..) => streams::<I, 1, true, false, false>(isa, &mut sums, block, 0),
                        (1, _, true, _) => streams::<I, 1, false, true, false>(isa, &mut sums, block, 0),
                        (1, .., true) => streams::<I, 1, false, false, true>(isa, &mut sums, block, ahead),
                        (2, ..) => streams::<I, 2, false, false, false>(isa, &mut sums, block, 0),
                        (4, .., true) => streams::<I, 4, false, false, true>(isa, &mut sums, block, ahead),
                        (4, ..) => streams::<I, 4, false, false, false>(isa, &mut sums, block, 0),
                        (8, ..) => streams::<I, 8, false, false, false>(isa, &mut sums, block, 0),
                        (16, ..) => streams::<I, 16, false, false, false>(isa, &mut sums, block, 0),
                        _ => streams::<I, 1, false, false, false>(isa, &mut sums, block, 0),
                    }
                }
                let rest = sum_words(rest);
                Done {
                    operations: whole.len() as u64 + rest.operations,
                    checksum: isa.total(sums).wrapping_add(rest.checksum as u32).into(),
                }
            }
        }
    }
}

/// Reads S parts of `lines`, of the same length, in turn.
#[inline(always)]
fn streams<I: Peak, const S: usize, const NARROW: bool, const BACKWARD: bool, const PREFETCH: bool>(
    isa: I,
    sums: &mut I::Sums,
    lines: &[[u8; LINE]],
    ahead: usize,
) {
    let n = lines.len() / S;
    let parts: [&[[u8; LINE]]; S] = std::array::from_fn(|i| &lines[i * n..(i + 1) * n]);
    let mut own = *sums;
    for i in 0..n {
        let i = if BACKWARD { n - 1 - i } else { i };
        for part in parts {
            let line = &part[i];
            if PREFETCH {
                isa.prefetch(line, ahead);
            }
            isa.add_line::<NARROW>(&mut own, line);
        }
    }
    *sums = own;
}
