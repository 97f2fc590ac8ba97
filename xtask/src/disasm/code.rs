//! A function's machine code: decoded instructions and the loops that they form.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter};

use super::table::Width;

/// A decoded function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) instructions: Vec<Instruction>,
}

impl Function {
    pub(super) fn decode(name: String, code: &[u8], address: u64) -> Self {
        let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        Function {
            name,
            instructions: decoder.into_iter().collect(),
        }
    }

    /// Loops without a loop in them, as ranges of instructions: from the target of a jump backwards to that jump.
    pub(super) fn innermost_loops(&self) -> Vec<Range<usize>> {
        let mut loops: Vec<Range<usize>> = Vec::new();
        for (i, instruction) in self.instructions.iter().enumerate() {
            if !is_jump(instruction) {
                continue;
            }
            let target = instruction.near_branch_target();
            // Instructions lie in ascending order of addresses.
            if let Ok(start) = self.instructions[..=i].binary_search_by_key(&target, Instruction::ip) {
                // A loop that goes on from several places is one loop.
                match loops.iter_mut().find(|known| known.start == start) {
                    Some(known) => known.end = i + 1,
                    None => loops.push(start..i + 1),
                }
            }
        }
        let holds = |outer: &Range<usize>, inner: &Range<usize>| {
            outer != inner && outer.start <= inner.start && inner.end <= outer.end
        };
        loops
            .iter()
            .filter(|outer| !loops.iter().any(|inner| holds(outer, inner)))
            .cloned()
            .collect()
    }

    /// Stretches without a jump or a call, as ranges of instructions.
    pub(super) fn stretches(&self) -> Vec<Range<usize>> {
        let mut stretches = Vec::new();
        let mut start = 0;
        for (i, instruction) in self.instructions.iter().enumerate() {
            if instruction.flow_control() != FlowControl::Next {
                stretches.push(start..i);
                start = i + 1;
            }
        }
        stretches.push(start..self.instructions.len());
        stretches
    }

    /// The instructions as text, one a line.
    pub(super) fn text(&self, range: Range<usize>) -> String {
        let mut formatter = IntelFormatter::new();
        let mut out = String::new();
        for instruction in &self.instructions[range] {
            out += &format!("  {:8x}  ", instruction.ip());
            formatter.format(instruction, &mut out);
            out.push('\n');
        }
        out
    }
}

fn is_jump(i: &Instruction) -> bool {
    i.is_jcc_short_or_near() || i.is_jmp_short_or_near()
}

pub(super) fn is_call(i: &Instruction) -> bool {
    i.is_call_near() || i.is_call_near_indirect()
}

/// The instruction's name in lower case.
pub(super) fn mnemonic(i: &Instruction) -> String {
    format!("{:?}", i.mnemonic()).to_ascii_lowercase()
}

/// Whether it is of the old floating-point unit, whose results have more digits than the contract allows.
pub(super) fn is_x87(i: &Instruction) -> bool {
    let name = mnemonic(i);
    name.starts_with('f') && !matches!(name.as_str(), "fxsave" | "fxrstor" | "fxsave64" | "fxrstor64")
}

/// The widest vector register that it names, a tile being the widest.
pub(super) fn width(i: &Instruction) -> Option<Width> {
    (0..i.op_count())
        .filter_map(|operand| {
            let register = i.op_register(operand);
            if register.is_tmm() {
                Some(Width::Tile)
            } else if register.is_zmm() {
                Some(Width::Zmm)
            } else if register.is_ymm() {
                Some(Width::Ymm)
            } else {
                None
            }
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_calls_and_registers() {
        let code = [
            0x31, 0xc0, // 0: xor eax, eax
            0x62, 0xf2, 0x75, 0x48, 0x50, 0xc2, // 2: vpdpbusd zmm0, zmm1, zmm2
            0xff, 0xc8, // 8: dec eax
            0x75, 0xf6, // 10: jne 2
            0xe8, 0, 0, 0, 0, // 12: call 17
            0xc5, 0xf5, 0xfe, 0xc2, // 17: vpaddd ymm0, ymm1, ymm2
            0xeb, 0xe9, // 21: jmp 0
            0xd9, 0xe8, // 23: fld1
            0xc3, // 25: ret
        ];
        let f = Function::decode("f".into(), &code, 0);
        assert_eq!(f.innermost_loops(), vec![Range { start: 1, end: 4 }]);
        assert_eq!(f.stretches(), vec![0..3, 4..4, 5..6, 7..8, 9..9]);
        let names: Vec<String> = f.instructions.iter().map(mnemonic).collect();
        assert_eq!(
            names,
            [
                "xor", "vpdpbusd", "dec", "jne", "call", "vpaddd", "jmp", "fld1", "ret"
            ]
        );
        let widths: Vec<_> = [1, 5, 0].map(|i| width(&f.instructions[i])).into();
        assert_eq!(widths, [Some(Width::Zmm), Some(Width::Ymm), None]);
        assert!(is_call(&f.instructions[4]) && !is_call(&f.instructions[3]));
        assert!(is_x87(&f.instructions[7]) && !is_x87(&f.instructions[5]));
        assert!(f.text(0..2).contains("vpdpbusd zmm0"), "{}", f.text(0..2));
    }
}
