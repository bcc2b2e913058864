//! Instructions that 64-bit code does not have: PUSHA and POPA, and loads of segment registers as
//! the 8086 does them, which change a base and nothing else.

use std::mem::offset_of;

use iced_x86::{OpKind, Register};
use ringfence_engine::Segment;

use super::classify::Kind;
use super::lower::{Gpr, Held, Lower, map};
use super::translate::Decoded;
use crate::context::{self, at};
use crate::cpu::{RSP, SS};
use crate::emit::asm::reg::{R9, R10};
use crate::emit::asm::{Mem, op};
use crate::emit::rewrite::sized;
use crate::interp::address::segment_index;

impl Lower<'_> {
    /// Emits an instruction of the kinds done here.
    pub(super) fn legacy(&mut self, decoded: &Decoded) {
        match decoded.kind {
            Kind::PushAll => self.push_all(decoded),
            Kind::PopAll => self.pop_all(decoded),
            Kind::PushSelector => {
                let slot = u32::from(decoded.slot);
                let (base, disp) = self.stack_operand(decoded, true);
                let segment = segment_index(decoded.instruction.op0_register());
                self.load_word(R10, Mem::gs(selector(segment)));
                sized(self.hot, slot, op::STORE, R10, Mem::at(base, disp));
                self.move_stack(-(slot as i32));
            }
            Kind::PopSelector => {
                let (base, disp) = self.stack_operand(decoded, false);
                self.load_word(R10, Mem::at(base, disp));
                self.set_segment(decoded.instruction.op0_register(), true);
                self.move_stack(i32::from(decoded.slot));
            }
            Kind::LoadSelector => self.load_selector(decoded),
            _ => self.far_pointer(decoded),
        }
    }

    /// MOVZX reg32, word memory.
    fn load_word(&mut self, register: u8, mem: Mem) {
        self.hot.op_mem(false, &[0x0f, 0xb7], register, mem);
        if register == R10 {
            self.held[0] = Held::Nothing;
        }
    }

    fn push_all(&mut self, decoded: &Decoded) {
        let slot = i32::from(decoded.slot);
        let (base, disp) = self.stack_operand(decoded, true);
        for register in 0..8u8 {
            let host = if register == RSP as u8 { R9 } else { register };
            let place = Mem::at(base, disp + (7 - i32::from(register)) * slot);
            sized(self.hot, slot as u32, op::STORE, host, place);
        }
        self.move_stack(-8 * slot);
    }

    fn pop_all(&mut self, decoded: &Decoded) {
        let slot = i32::from(decoded.slot);
        let (base, disp) = self.stack_operand(decoded, false);
        for register in (0..8u8).filter(|&r| r != RSP as u8) {
            let place = Mem::at(base, disp + (7 - i32::from(register)) * slot);
            sized(self.hot, slot as u32, op::LOAD, register, place);
        }
        self.move_stack(8 * slot);
    }

    fn load_selector(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        if instruction.op1_kind() == OpKind::Memory {
            let (base, disp) = self.operand(decoded, 2, false, false);
            self.load_word(R10, Mem::at(base, disp));
        } else if let Gpr::Host(host) = map(instruction.op1_register().number() as u8) {
            // movzx r10d, host16
            self.hot
                .bytes(&[0x44 | host >> 3, 0x0f, 0xb7, 0xd0 | host & 7]);
            self.held[0] = Held::Nothing;
        }
        self.set_segment(instruction.op0_register(), true);
    }

    fn far_pointer(&mut self, decoded: &Decoded) {
        use iced_x86::Mnemonic as M;
        let instruction = &decoded.instruction;
        let target = instruction.op0_register();
        let size = target.size() as u32;
        let (base, disp) = self.operand(decoded, size + 2, false, false);
        self.load_word(R10, Mem::at(base, disp + size as i32));
        if let Gpr::Host(host) = map(target.number() as u8) {
            sized(self.hot, size, op::LOAD, host, Mem::at(base, disp));
        }
        let segment = match instruction.mnemonic() {
            M::Les => Register::ES,
            M::Lds => Register::DS,
            M::Lss => Register::SS,
            M::Lfs => Register::FS,
            _ => Register::GS,
        };
        self.set_segment(segment, false);
    }

    /// Loads a segment register with the selector in R10, which is lost.
    fn set_segment(&mut self, register: Register, shadow: bool) {
        let segment = segment_index(register);
        self.hot.byte(0x66);
        self.hot
            .op_mem(false, &[op::STORE], R10, Mem::gs(selector(segment)));
        // Times 16, without flags.
        let times8 = Mem {
            index: Some((R10, 3)),
            ..Mem::default()
        };
        self.hot.lea(false, R10, times8);
        let twice = Mem {
            base: Some(R10),
            index: Some((R10, 0)),
            ..Mem::default()
        };
        self.hot.lea(false, R10, twice);
        self.hot.store(Mem::gs(context::segment_base(segment)), R10);
        self.held[0] = Held::Nothing;
        if segment == SS && shadow {
            // It may outlast the next instruction, which delays an interrupt by another one.
            self.hot
                .op_mem(false, &[0xc6], 0, Mem::gs(at!(cpu.interrupt_shadow)));
            self.hot.byte(1);
        }
    }
}

/// Offset of the selector of a segment register.
fn selector(segment: usize) -> i32 {
    context::segment_base(segment) + offset_of!(Segment, selector) as i32
}
