//! AMX: eight tiles of 16 rows of 64 bytes, and instructions that multiply whole tiles of int8.
//!
//! The tiles are state of the thread that the operating system keeps for it once it was asked: Linux by a call of the
//! process. What a tile holds is declared before use (`ldtilecfg`) and given up afterwards (`tilerelease`), so that a
//! thread that does something else carries no tiles around.
//!
//! The compiler has no stable intrinsics for it, so the instructions are written as text. It never uses tiles by
//! itself, so what a tile holds stays from one instruction to the next.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;

use crate::kernels::tiles::{TILE_ROWS, TileSums, TileUnit, Tiles};

/// Proof that the machine has AMX with int8 (Sapphire Rapids and later), and that the system keeps its tiles.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Amx(());

/// The features of leaf 7 of CPUID, by the bit of edx.
const FEATURES: [(u32, &str); 2] = [(24, "amx-tile"), (25, "amx-int8")];

/// What is lacking where the instructions are there and the system refuses them.
const REFUSED: &str = "the system's leave to use tiles";

impl Amx {
    /// The value, where this machine has the instructions and the system gives leave to use them.
    pub(in crate::kernels) fn detect() -> Option<Self> {
        Self::lacking().is_empty().then_some(Amx(()))
    }

    /// The features that this machine lacks; or the system's leave.
    pub(in crate::kernels) fn lacking() -> Vec<&'static str> {
        let leaf_7 = match __cpuid(0).eax {
            0..7 => 0,
            _ => __cpuid_count(7, 0).edx,
        };
        let mut lacking: Vec<_> = FEATURES
            .iter()
            .filter(|(bit, _)| leaf_7 >> bit & 1 == 0)
            .map(|(_, name)| *name)
            .collect();
        if lacking.is_empty() && !(state_is_kept() && leave()) {
            lacking.push(REFUSED);
        }
        lacking
    }
}

/// Whether the system keeps the tiles of a thread that does not run: bits 17 and 18 of XCR0.
fn state_is_kept() -> bool {
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: the feature is there, as the caller looked.
        unsafe { _xgetbv(0) }
    }
    // OSXSAVE: the system has told which state it keeps.
    let told = __cpuid(1).ecx >> 27 & 1 == 1;
    // SAFETY: where the system has told so, the instruction that asks for it is there.
    told && unsafe { kept() } >> 17 & 3 == 3
}

/// Asks Linux for the tiles of all threads of this process, those to come included. Asking twice changes nothing.
#[cfg(target_os = "linux")]
fn leave() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let answer: isize;
    // SAFETY: a call of the system that reads and writes no memory of the process; it changes the two registers that
    // are named.
    unsafe {
        asm!(
            "syscall",
            inout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Of other systems it is not known how to ask.
#[cfg(not(target_os = "linux"))]
fn leave() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles of a thread while they are declared for depths of K bytes.
#[derive(Debug)]
pub(in crate::kernels) struct Declared<const K: usize>(
    /// Tiles belong to the thread that declared them.
    PhantomData<*const ()>,
);

/// An instruction on tiles. It is a barrier to the compiler: what stands before and behind it in the program stays
/// there.
macro_rules! tile_op {
    ([$($option:ident)*] $text:literal $(, $($operands:tt)+)?) => {
        // SAFETY: tiles are declared while a value of `Declared` exists, which only detection leads to; what touches
        // memory says beside it why it stays within a slice.
        unsafe {
            asm!(
                $text,
                $($($operands)+,)?
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options($($option,)* nostack, preserves_flags),
            );
        }
    };
}

impl TileUnit for Amx {
    const NAME: &'static str = "amx";

    type Tiles<const K: usize> = Declared<K>;

    #[inline(always)]
    fn tiles<const K: usize>(self) -> Declared<K> {
        const { assert!(K.is_multiple_of(4) && K >= 4 && K <= 64) };
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        config.row_bytes[..8].fill(64);
        config.rows[..8].fill(TILE_ROWS as u8);
        config.row_bytes[4] = K as u16;
        config.rows[6..8].fill(K as u8 / 4);
        tile_op!([readonly] "ldtilecfg [{config}]", config = in(reg) &raw const config);
        Declared(PhantomData)
    }
}

impl<const K: usize> Drop for Declared<K> {
    #[inline(always)]
    fn drop(&mut self) {
        tile_op!([nomem] "tilerelease");
    }
}

impl<const K: usize> Tiles for Declared<K> {
    #[inline(always)]
    fn zero<const C: usize>(&mut self) {
        const { assert!(C < 8) };
        tile_op!([nomem] "tilezero tmm{c}", c = const C);
    }

    #[inline(always)]
    fn load_tokens<const STRIDE: usize>(&mut self, x: &[u8]) {
        let x = &x[..(TILE_ROWS - 1) * STRIDE + K];
        // 16 rows of K bytes are read, a stride apart: the length of the slice.
        tile_op!([] "tileloadd tmm4, [{x} + {stride}*1]", x = in(reg) x.as_ptr(), stride = in(reg) STRIDE);
    }

    #[inline(always)]
    fn load_weights<const B: usize>(&mut self, w: &[u8]) {
        const { assert!(B == 6 || B == 7) };
        let w = &w[..K / 4 * 64];
        // K / 4 rows of 64 bytes are read, one after the other: the length of the slice.
        tile_op!([] "tileloadd tmm{b}, [{w} + {stride}*1]", b = const B, w = in(reg) w.as_ptr(), stride = in(reg) 64usize);
    }

    #[inline(always)]
    fn store<const C: usize>(&mut self, out: &mut TileSums) {
        const { assert!(C < 4) };
        // 16 rows of 64 bytes are written: the size of a tile.
        tile_op!([] "tilestored [{out} + {stride}*1], tmm{c}", c = const C, out = in(reg) out.0.as_mut_ptr(), stride = in(reg) 64usize);
    }

    #[inline(always)]
    fn dot_signed<const C: usize, const B: usize>(&mut self) {
        const { assert!(C < 4 && (B == 6 || B == 7)) };
        tile_op!([nomem] "tdpbssd tmm{c}, tmm4, tmm{b}", c = const C, b = const B);
    }

    #[inline(always)]
    fn dot_unsigned<const C: usize, const B: usize>(&mut self) {
        const { assert!(C < 4 && (B == 6 || B == 7)) };
        tile_op!([nomem] "tdpbsud tmm{c}, tmm4, tmm{b}", c = const C, b = const B);
    }
}
