//! PUSH, POP and LEAVE.

use iced_x86::OpKind;

use super::lower::{Gpr, Held, Lower, map};
use super::translate::Decoded;
use crate::context::{self, at};
use crate::emit::asm::reg::{R9, R10};
use crate::emit::asm::{Mem, op};
use crate::emit::rewrite::sized;

impl Lower<'_> {
    /// Adds to the guest's stack pointer. Flags are kept.
    pub(super) fn move_stack(&mut self, by: i32) {
        self.stack_at(R9, by);
    }

    /// The guest's stack pointer becomes a register plus a displacement.
    fn stack_at(&mut self, base: u8, disp: i32) {
        if self.mode.stack16() {
            self.hot.byte(0x66);
        }
        self.hot.lea(self.mode.long(), R9, Mem::at(base, disp));
    }

    pub(super) fn push(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let slot = u32::from(decoded.slot);
        if instruction.op0_kind() == OpKind::Memory {
            let (base, disp) = self.operand(decoded, slot, false, false);
            sized(self.hot, slot, op::LOAD, R10, Mem::at(base, disp));
            self.held[0] = Held::Nothing;
            self.hot.store(Mem::gs(at!(scratch)), R10);
        }
        let (base, disp) = self.stack_operand(decoded, true);
        let place = Mem::at(base, disp);
        match Self::general(instruction, 0).map(|(n, _)| map(n)) {
            Some(Gpr::Host(host)) => sized(self.hot, slot, op::STORE, host, place),
            Some(Gpr::Memory(n)) => {
                self.hot.load(R10, Mem::gs(context::gpr(n)));
                self.held[0] = Held::Guest(n);
                sized(self.hot, slot, op::STORE, R10, place);
            }
            None if instruction.op0_kind() == OpKind::Memory => {
                self.hot.load(R10, Mem::gs(at!(scratch)));
                self.held[0] = Held::Nothing;
                sized(self.hot, slot, op::STORE, R10, place);
            }
            None => self.store_immediate(slot, place, instruction.immediate(0) as u32),
        }
        self.move_stack(-(slot as i32));
    }

    /// `mov [place], value`, sign-extended to 8 bytes.
    pub(super) fn store_immediate(&mut self, size: u32, place: Mem, value: u32) {
        sized(self.hot, size, 0xc7, 0, place);
        if size == 2 {
            self.hot.bytes(&(value as u16).to_le_bytes());
        } else {
            self.hot.dword(value);
        }
    }

    pub(super) fn pop(&mut self, decoded: &Decoded) {
        let slot = i32::from(decoded.slot);
        let (base, disp) = self.stack_operand(decoded, false);
        let place = Mem::at(base, disp);
        let Some((n, _)) = Self::general(&decoded.instruction, 0) else {
            return;
        };
        match map(n) {
            Gpr::Host(R9) => {
                // The half that is not popped has moved.
                if slot == 2 {
                    self.move_stack(slot);
                }
                sized(self.hot, slot as u32, op::LOAD, R9, place);
            }
            Gpr::Host(host) => {
                sized(self.hot, slot as u32, op::LOAD, host, place);
                self.move_stack(slot);
            }
            Gpr::Memory(n) => {
                self.hot.load(R10, place);
                self.forget_guest(n);
                self.held[0] = Held::Guest(n);
                self.hot.store(Mem::gs(context::gpr(n)), R10);
                self.move_stack(slot);
            }
        }
    }

    /// ENTER with nesting level 0.
    pub(super) fn enter(&mut self, decoded: &Decoded) {
        const RBP: u8 = 5;
        let slot = i32::from(decoded.slot);
        let allocated = i32::from(decoded.instruction.immediate16());
        let (base, disp) = self.stack_operand(decoded, true);
        let place = Mem::at(base, disp + allocated);
        sized(self.hot, slot as u32, op::STORE, RBP, place);
        self.hot.lea(false, R10, Mem::at(R9, -slot));
        if self.mode.stack16() {
            // movzx r10d, r10w
            self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xd2]);
        }
        self.held[0] = Held::Nothing;
        if slot == 2 {
            self.hot.byte(0x66);
        }
        self.hot.op_reg(false, op::LOAD, RBP, R10);
        self.move_stack(-slot - allocated);
    }

    pub(super) fn leave(&mut self, decoded: &Decoded) {
        const RBP: u8 = 5;
        let slot = i32::from(decoded.slot);
        let (base, disp) = self.stack_operand(decoded, false);
        self.stack_at(RBP, slot);
        sized(self.hot, slot as u32, op::LOAD, RBP, Mem::at(base, disp));
    }
}
