//! Programs of many instructions, with forward branches, bounded loops and calls.
//!
//! Some registers have a role for the whole program: RBX, RBP and RSP address the data area, R14
//! is a small index, R15 counts down the loops. All others are the instructions' own.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};

use super::{Generator, encode, values};
use crate::layout::DATA;
use crate::random::Random;
use crate::state::{MXCSR, State};

/// Registers that keep their role.
const KEPT: [Register; 5] = [
    Register::RBX,
    Register::RBP,
    Register::RSP,
    Register::R14,
    Register::R15,
];
/// Loops of a program run at most so often together.
const LOOPS: u64 = 12;

/// A program and its inputs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its code, which ends in INT3.
    pub code: Vec<u8>,
    /// Offsets of its instructions.
    pub starts: Vec<usize>,
    /// Registers before it.
    pub state: State,
}

/// A piece of a program.
enum Piece {
    Plain(Vec<u8>),
    /// A branch with a 32-bit distance at its end.
    Branch(Vec<u8>, usize),
    /// LEA RAX, [RIP+distance], then an indirect way to go there.
    Indirect(&'static [u8], usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Branch(bytes, _) => bytes.len() + 4,
            Self::Indirect(bytes, _) => 7 + bytes.len(),
        }
    }
}

impl Generator {
    /// A program of 10 to 60 instructions at `address`, in 64-bit code.
    pub fn program(&mut self, address: u64) -> Program {
        let count = 10 + self.random().below(51) as usize;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut flags_known = true;
        while pieces.len() < count {
            let index = pieces.len();
            match self.random().below(16) {
                // Jcc or JMP forward.
                0 | 1 => {
                    let ahead = index + 1 + self.random().below(6) as usize;
                    let condition = self.random().below(17) as u8;
                    let bytes = if condition == 16 {
                        vec![0xe9]
                    } else {
                        vec![0x0f, 0x80 | condition]
                    };
                    pieces.push(Piece::Branch(bytes, ahead));
                }
                // DEC R15; JG back.
                2 if index > 3 => {
                    let back = index - 1 - self.random().below(index as u64 - 1) as usize;
                    pieces.push(Piece::Branch(vec![0x49, 0xff, 0xcf, 0x0f, 0x8f], back));
                }
                // CALL forward, never to return.
                3 if self.random().one_in(2) => {
                    let ahead = index + 1 + self.random().below(4) as usize;
                    pieces.push(Piece::Branch(vec![0xe8], ahead));
                }
                4 if self.random().one_in(2) => {
                    // JMP RAX; CALL RAX; PUSH RAX, RET.
                    let ways: [&[u8]; 3] = [&[0xff, 0xe0], &[0xff, 0xd0], &[0x50, 0xc3]];
                    let way = self.random().pick(&ways);
                    let ahead = index + 1 + self.random().below(4) as usize;
                    pieces.push(Piece::Indirect(way, ahead));
                }
                _ => {
                    let (bytes, undefined) = self.straight();
                    pieces.push(Piece::Plain(bytes));
                    flags_known &= !undefined;
                    if !flags_known {
                        // CMP AL, imm8: what the instruction left undefined is not looked at.
                        let byte = self.random().bits() as u8;
                        pieces.push(Piece::Plain(vec![0x3c, byte]));
                        flags_known = true;
                    }
                }
            }
        }
        let mut starts = vec![0];
        for piece in &pieces {
            starts.push(starts[starts.len() - 1] + piece.len());
        }
        let mut code = Vec::new();
        for piece in &pieces {
            let target = |index: usize| starts[index.min(pieces.len())] as i64;
            match piece {
                Piece::Plain(bytes) => code.extend(bytes),
                Piece::Branch(bytes, index) => {
                    code.extend(bytes);
                    let distance = target(*index) - code.len() as i64 - 4;
                    code.extend((distance as i32).to_le_bytes());
                }
                Piece::Indirect(bytes, index) => {
                    code.extend([0x48, 0x8d, 0x05]);
                    let distance = target(*index) - code.len() as i64 - 4;
                    code.extend((distance as i32).to_le_bytes());
                    code.extend(*bytes);
                }
            }
        }
        code.push(0xcc);
        let mut state = values::state(self.random(), 64);
        state.rip = address;
        state.rflags &= !(1 << 18);
        state.gpr[3] = DATA + 0x800 + self.random().below(16) * 64;
        state.gpr[5] = DATA + 0x1800 + self.random().below(16) * 64;
        state.gpr[4] = DATA + 0x1400 + self.random().below(8) * 8;
        state.gpr[14] = self.random().below(64);
        state.gpr[15] = self.random().below(LOOPS);
        // All exceptions masked, or a program would not get far.
        state.xsave[0] |= 0x3f;
        state.xsave[2] = 0;
        state.xsave[3] &= 0x7f;
        state.xsave[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        Program {
            code,
            starts,
            state,
        }
    }

    /// An instruction that goes on to the next, and whether it leaves flags undefined.
    fn straight(&mut self) -> (Vec<u8>, bool) {
        loop {
            let random = &mut self.random;
            let code = random.pick(&self.codes);
            let bytes = encode::encode(random, code, 64);
            let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
            let mut instruction = decoder.decode();
            let length = instruction.len();
            if self.codes.binary_search(&instruction.code()).is_err()
                || !fits(&instruction, &bytes[..length])
            {
                continue;
            }
            let undefined = instruction.rflags_undefined() != 0;
            if !(0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory) {
                return (bytes[..length].to_vec(), undefined);
            }
            point(&mut self.random, &mut instruction);
            let mut encoder = Encoder::new(64);
            if encoder.encode(&instruction, 0x1000_0000).is_ok() {
                let bytes = encoder.take_buffer();
                let again = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                if again.code() == instruction.code() {
                    return (bytes, undefined);
                }
            }
        }
    }
}

/// Gives the memory operand an address in the data area.
fn point(random: &mut Random, instruction: &mut Instruction) {
    instruction.set_segment_prefix(Register::None);
    let base = random.pick(&[Register::RBX, Register::RBX, Register::RBP, Register::RSP]);
    instruction.set_memory_base(base);
    let wide = instruction.memory_size().size() >= 16;
    if random.one_in(3) && !wide {
        instruction.set_memory_index(Register::R14);
        instruction.set_memory_index_scale(random.pick(&[1, 2, 4, 8]));
    } else {
        instruction.set_memory_index(Register::None);
        instruction.set_memory_index_scale(1);
    }
    let displacement = random.below(0x200) as i64 - 0x100;
    // Aligned, mostly, for what must be; the stack pointer is aligned to 8 at best.
    let displacement = if wide || random.one_in(2) {
        displacement & !63
    } else {
        displacement
    };
    instruction.set_memory_displ_size(8);
    instruction.set_memory_displacement64(displacement as u64);
    if i8::try_from(displacement).is_ok() && random.one_in(2) {
        instruction.set_memory_displ_size(1);
    }
}

/// Whether an instruction can stand in a program: it goes on to the next, faults seldom, and
/// keeps the registers with a role.
fn fits(instruction: &Instruction, bytes: &[u8]) -> bool {
    use Mnemonic as M;
    if instruction.is_invalid()
        || instruction.flow_control() != FlowControl::Next
        || super::exclude::excluded_form(instruction.code()).is_some()
        || super::exclude::touches_segment(instruction.code())
        || instruction.is_privileged()
        || instruction.is_string_instruction()
        || instruction.memory_index().is_vector_register()
        || instruction.memory_base().size() == 4
        || matches!(
            instruction.mnemonic(),
            M::Div
                | M::Idiv
                | M::Ldmxcsr
                | M::Vldmxcsr
                | M::Fldcw
                | M::Popf
                | M::Popfd
                | M::Popfq
                | M::Enter
                | M::Leave
                | M::Maskmovq
                | M::Maskmovdqu
                | M::Vmaskmovdqu
                | M::Xlatb
                | M::Sti
                | M::Cli
                | M::Int3
                | M::Fninit
                | M::Pause
                | M::Fnclex
        )
    {
        return false;
    }
    if matches!(
        instruction.code(),
        Code::Pop_r16 | Code::Pop_rm16 | Code::Pop_rm64
    ) || bytes.starts_with(&[0x67])
    {
        return false;
    }
    if matches!(instruction.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
    {
        return false;
    }
    let double_shift = matches!(instruction.mnemonic(), M::Shld | M::Shrd);
    if double_shift && instruction.op1_register().size() == 2 {
        return false;
    }
    if instruction.mnemonic() == M::Pop
        && instruction.op0_register().full_register() == Register::RSP
    {
        return false;
    }
    let pushes = matches!(
        instruction.mnemonic(),
        M::Push | M::Pop | M::Pushf | M::Pushfq
    );
    let mut factory = InstructionInfoFactory::new();
    factory
        .info(instruction)
        .used_registers()
        .iter()
        .all(|used| {
            let register = used.register();
            let read = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            let full = if register.is_gpr() {
                register.full_register()
            } else {
                register
            };
            read || !KEPT.contains(&full) || pushes && full == Register::RSP
        })
}
