//! LODS, STOS, MOVS, SCAS and CMPS without a repeat prefix, and XLAT. They go forwards: with DF set, the
//! interpreter executes them.

use iced_x86::{Instruction, OpKind, Register};
use ringfence_x86::flags;

use super::classify::Kind;
use super::lower::{Held, Lower};
use super::mode::Mode;
use super::translate::Decoded;
use crate::context::at;
use crate::cpu::ES;
use crate::emit::asm::reg::{R10, R11, RAX, RDI, RSI};
use crate::emit::asm::{Mem, cc, op};
use crate::emit::rewrite::sized;
use crate::interp::address::segment_index;

/// Address size in bits of a string instruction.
pub fn string_bits(instruction: &Instruction) -> u32 {
    for index in 0..instruction.op_count() {
        match instruction.op_kind(index) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => return 16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => return 32,
            _ => {}
        }
    }
    64
}

/// Bytes that a string instruction moves.
pub fn string_size(instruction: &Instruction) -> u32 {
    instruction.memory_size().size().max(1) as u32
}

/// Whether it is translated: without a repeat prefix, and with addresses as wide as the code's.
pub fn is_simple(instruction: &Instruction, mode: Mode) -> bool {
    !instruction.has_rep_prefix()
        && !instruction.has_repne_prefix()
        && string_bits(instruction) == mode.bits()
}

impl Lower<'_> {
    /// Emits a string instruction.
    pub(super) fn string(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let size = string_size(instruction);
        let narrow = u8::from(size == 1);
        self.clobber_flags(decoded.live_before());
        self.test_flag(flags::DF);
        self.interpret_if(cc::NE, decoded);
        let source = segment_index(instruction.memory_segment());
        match decoded.kind {
            Kind::Lods => {
                let (base, disp) = self.string_operand(0, decoded, RSI, source, size, false);
                sized(self.hot, size, op::LOAD - narrow, RAX, Mem::at(base, disp));
                self.advance(RSI, size);
            }
            Kind::Stos => {
                let (base, disp) = self.string_operand(1, decoded, RDI, ES, size, true);
                sized(self.hot, size, op::STORE - narrow, RAX, Mem::at(base, disp));
                self.advance(RDI, size);
            }
            Kind::Scas => {
                let (base, disp) = self.string_operand(1, decoded, RDI, ES, size, false);
                sized(self.hot, size, op::CMP - narrow, RAX, Mem::at(base, disp));
                self.flags_written(decoded);
                self.advance(RDI, size);
            }
            kind => {
                let compares = kind == Kind::Cmps;
                let (base, disp) = self.string_operand(0, decoded, RSI, source, size, false);
                sized(self.hot, size, op::LOAD - narrow, R10, Mem::at(base, disp));
                self.held[0] = Held::Nothing;
                self.hot.store(Mem::gs(at!(scratch)), R10);
                let (base, disp) = self.string_operand(1, decoded, RDI, ES, size, !compares);
                self.hot.load(R10, Mem::gs(at!(scratch)));
                self.held[0] = Held::Nothing;
                let opcode = if compares { op::CMP } else { op::STORE };
                sized(self.hot, size, opcode - narrow, R10, Mem::at(base, disp));
                if compares {
                    self.flags_written(decoded);
                }
                self.advance(RSI, size);
                self.advance(RDI, size);
            }
        }
    }

    fn string_operand(
        &mut self,
        which: usize,
        decoded: &Decoded,
        register: u8,
        segment: usize,
        size: u32,
        write: bool,
    ) -> (u8, i32) {
        self.access(which, decoded, false).unwrap_or_else(|| {
            let bits = self.mode.bits();
            self.sum(bits, Some(register), None, 0);
            self.add_segment(segment, size, bits, None);
            self.check(size, write, None);
            self.held[1] = Held::Nothing;
            (R11, 0)
        })
    }

    fn advance(&mut self, register: u8, size: u32) {
        if self.mode.bits() == 16 {
            self.hot.byte(0x66);
        }
        let mem = Mem::at(register, size as i32);
        self.hot.lea(self.mode.long(), register, mem);
    }

    /// XLAT.
    pub(super) fn xlat(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let bits = match instruction.memory_base() {
            Register::BX => 16,
            Register::EBX => 32,
            _ => 64,
        };
        self.clobber_flags(decoded.live_before());
        // movzx r10d, al
        self.hot.bytes(&[0x44, 0x0f, 0xb6, 0xd0]);
        self.held = [Held::Nothing; 2];
        let mem = Mem {
            base: Some(3),
            index: Some((R10, 0)),
            ..Mem::default()
        };
        self.hot.lea(bits == 64, R11, mem);
        if bits == 16 {
            // movzx r11d, r11w
            self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xdb]);
        }
        let segment = segment_index(instruction.memory_segment());
        self.add_segment(segment, 1, bits, None);
        self.check(1, false, None);
        self.held[1] = Held::Nothing;
        self.hot
            .op_mem(false, &[op::LOAD - 1], RAX, Mem::at(R11, 0));
    }
}
