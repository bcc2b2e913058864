//! System instructions that are frequent enough to be done in translated code. Each leaves to the
//! interpreter when anything but its common case is at hand.

use std::mem::offset_of;

use iced_x86::OpKind;
use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::{cr, flags};

use super::classify::Kind;
use super::exit;
use super::lower::{Gpr, Held, Lower, map};
use super::translate::{ALL_FLAGS, Decoded};
use crate::context::{self, at, gpr};
use crate::cpu::{CS, GS, SS};
use crate::emit::asm::reg::{R10, R11, RAX, RCX, RDX};
use crate::emit::asm::{Mem, cc, op};
use crate::emit::rewrite::sized;

/// Extensions of opcode 81h.
const ADD: u8 = 0;
const OR: u8 = 1;
const AND: u8 = 4;
const SUB: u8 = 5;
const CMP: u8 = 7;
/// Extensions of opcode C1h.
const SHL: u8 = 4;
const SHR: u8 = 5;
const SAR: u8 = 7;

/// Guest R11, in which SYSCALL keeps RFLAGS.
const GUEST_R11: u8 = 11;
const DPL3: u32 = 3 << 5;
/// Flags that SYSRET takes from R11.
const SYSRET_FLAGS: u64 = flags::ARITHMETIC
    | flags::TF
    | flags::IF
    | flags::DF
    | flags::IOPL
    | flags::NT
    | flags::AC
    | flags::VIF
    | flags::VIP
    | flags::ID;

impl Lower<'_> {
    /// Emits a system instruction of the kinds done here.
    pub(super) fn inline_system(&mut self, decoded: &Decoded) {
        match decoded.kind {
            Kind::PushFlags => self.push_flags(decoded),
            Kind::ReadSelector => self.read_selector(decoded),
            Kind::Cli => {
                self.clobber_flags(decoded.live_before());
                self.immediate(AND, Mem::gs(at!(cpu.rflags)), !flags::IF as u32);
            }
            Kind::Sti => {
                self.clobber_flags(decoded.live_before());
                self.interpret_if_interrupt(decoded);
                self.immediate(OR, Mem::gs(at!(cpu.rflags)), flags::IF as u32);
            }
            Kind::Cld => {
                self.clobber_flags(decoded.live_before());
                self.immediate(AND, Mem::gs(at!(cpu.rflags)), !flags::DF as u32);
            }
            Kind::Pause => self.pause(decoded),
            Kind::Swapgs => {
                let (base, kernel) = (context::segment_base(GS), at!(cpu.msr.kernel_gs_base));
                self.hot.load(R10, Mem::gs(base));
                self.hot.load(R11, Mem::gs(kernel));
                self.hot.store(Mem::gs(kernel), R10);
                self.hot.store(Mem::gs(base), R11);
                self.held = [Held::Nothing; 2];
            }
            Kind::Rdtsc => self.rdtsc(decoded, false),
            Kind::Rdtscp => self.rdtsc(decoded, true),
            Kind::Clac => self.user_access(decoded, false),
            Kind::Stac => self.user_access(decoded, true),
            Kind::Syscall => self.syscall(decoded),
            _ => self.sysret(decoded),
        }
    }

    /// PAUSE. Who pauses again and again waits for another processor, which may need this thread's
    /// place on the host.
    fn pause(&mut self, decoded: &Decoded) {
        if self.mode.counted() {
            return;
        }
        self.clobber_flags(decoded.live_before());
        self.hot.bytes(&[0xf3, 0x90]);
        self.immediate(SUB, Mem::gs(at!(pauses)), 1);
        self.hot.jcc(cc::B, self.cold.here());
        self.cold.mov_imm(R11, decoded.next_ip);
        self.cold.store(Mem::gs(at!(cpu.rip)), R11);
        self.cold
            .store_imm32(Mem::gs(at!(exit)), exit::code(self.id, exit::PAUSED));
        self.cold.jmp(self.stubs.exit_memory_flags);
    }

    /// `operation dword [mem], imm32`.
    fn immediate(&mut self, operation: u8, mem: Mem, value: u32) {
        self.hot.op_mem(false, &[0x81], operation, mem);
        self.hot.dword(value);
    }

    /// `operation reg32, imm32`.
    fn immediate_register(&mut self, operation: u8, register: u8, value: u64) {
        self.hot.op_reg(false, 0x81, operation, register);
        self.hot.dword(value as u32);
    }

    fn shift(&mut self, wide: bool, operation: u8, register: u8, count: u8) {
        self.hot.op_reg(wide, 0xc1, operation, register);
        self.hot.byte(count);
    }

    /// `test dword [mem], imm32`.
    fn test(&mut self, mem: Mem, value: u64) {
        self.hot.op_mem(false, &[0xf7], 0, mem);
        self.hot.dword(value as u32);
    }

    /// Leaves to the interpreter, which executes the current instruction, if `condition` holds.
    /// The flags are in the context, if they matter.
    pub(super) fn interpret_if(&mut self, condition: u8, decoded: &Decoded) {
        self.hot.jcc(condition, self.cold.here());
        self.cold.mov_imm(R11, decoded.instruction.ip());
        self.cold.store(Mem::gs(at!(cpu.rip)), R11);
        self.tell_executed(self.index as u16);
        self.cold
            .store_imm32(Mem::gs(at!(exit)), exit::code(self.id, exit::INTERPRET));
        self.cold.jmp(self.stubs.exit_memory_flags);
    }

    /// Leaves if an interrupt waits for IF.
    fn interpret_if_interrupt(&mut self, decoded: &Decoded) {
        self.hot.cmp_mem_zero(Mem::gs(at!(interrupt_waits)));
        self.interpret_if(cc::NE, decoded);
    }

    /// R10 = RFLAGS as PUSHF and SYSCALL see it; the arithmetic flags are in the context. R11 and
    /// EFLAGS are lost.
    fn flags_image(&mut self) {
        let kept = !(flags::ARITHMETIC | flags::RF | flags::VM);
        // LAHF's image is the low byte of RFLAGS; OF is bit 0 of the other byte.
        self.hot
            .op_mem(false, &[0x0f, 0xb6], R10, Mem::gs(at!(flags) + 1));
        self.hot
            .op_mem(false, &[0x0f, 0xb6], R11, Mem::gs(at!(flags)));
        self.shift(false, SHL, R11, 11);
        self.hot.op_reg(false, op::OR, R10, R11);
        self.hot
            .op_mem(false, &[op::LOAD], R11, Mem::gs(at!(cpu.rflags)));
        self.immediate_register(AND, R11, kept);
        self.hot.op_reg(false, op::OR, R10, R11);
        self.held = [Held::Nothing; 2];
    }

    /// PUSHF outside virtual-8086 mode.
    fn push_flags(&mut self, decoded: &Decoded) {
        let slot = i32::from(decoded.slot);
        self.clobber_flags(ALL_FLAGS);
        self.flags_image();
        self.hot.store(Mem::gs(at!(scratch)), R10);
        let (base, disp) = self.stack_operand(decoded, true);
        self.hot.load(R10, Mem::gs(at!(scratch)));
        sized(self.hot, slot as u32, op::STORE, R10, Mem::at(base, disp));
        self.held[0] = Held::Nothing;
        self.move_stack(-slot);
    }

    /// POPF. Leaves to the interpreter if TF, IOPL, NT or a higher flag changes, or IF where that
    /// is not for sure allowed.
    pub(super) fn pop_flags(&mut self, decoded: &Decoded) {
        let slot = i32::from(decoded.slot);
        let mut kept = flags::TF | flags::IOPL | flags::NT;
        if slot > 2 {
            kept |= flags::AC | flags::ID | flags::VIF | flags::VIP | flags::RF | flags::VM;
        }
        if self.mode.user() {
            kept |= flags::IF;
        }
        self.clobber_flags(decoded.live_before());
        let (base, disp) = self.stack_operand(decoded, false);
        // The image stays in the context: R11 may hold the place of the operand.
        if slot == 2 {
            self.hot
                .op_mem(false, &[0x0f, 0xb7], R10, Mem::at(base, disp));
        } else {
            sized(self.hot, 4, op::LOAD, R10, Mem::at(base, disp));
        }
        self.hot.op_reg(false, op::LOAD, R11, R10);
        self.held = [Held::Nothing; 2];
        self.hot
            .op_mem(false, &[op::XOR], R11, Mem::gs(at!(cpu.rflags)));
        // test r11d, kept
        self.hot.op_reg(false, 0xf7, 0, R11);
        self.hot.dword(kept as u32);
        self.interpret_if(cc::NE, decoded);
        // test r10d, IF
        self.hot.op_reg(false, 0xf7, 0, R10);
        self.hot.dword(flags::IF as u32);
        let clear = self.hot.short(0x70 | cc::E);
        self.interpret_if_interrupt(decoded);
        self.hot.bind_short(clear);
        self.set_flags_image();
        self.move_stack(slot);
    }

    /// RFLAGS gets DF, IF and the arithmetic flags of R10, these in the context. R10, R11 and
    /// EFLAGS are lost.
    pub(super) fn set_flags_image(&mut self) {
        let taken = flags::IF | flags::DF;
        self.hot.op_reg(false, op::LOAD, R11, R10);
        self.immediate_register(AND, R11, taken);
        self.immediate(AND, Mem::gs(at!(cpu.rflags)), !taken as u32);
        self.hot
            .op_mem(false, &[0x09], R11, Mem::gs(at!(cpu.rflags)));
        self.hot.op_reg(false, op::LOAD, R11, R10);
        self.shift(false, SHR, R11, 11);
        self.immediate_register(AND, R11, 1);
        self.immediate_register(AND, R10, 0xff);
        self.shift(false, SHL, R10, 8);
        self.hot.op_reg(false, op::OR, R10, R11);
        self.hot
            .op_mem(false, &[op::STORE], R10, Mem::gs(at!(flags)));
        (self.in_register, self.in_memory) = (false, true);
        self.held = [Held::Nothing; 2];
    }

    /// `test` of bits of RFLAGS that live in the context.
    pub(super) fn test_flag(&mut self, bits: u64) {
        self.test(Mem::gs(at!(cpu.rflags)), bits);
    }

    /// MOV from a segment register to a register of 32 or 64 bits.
    fn read_selector(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        debug_assert_eq!(instruction.op0_kind(), OpKind::Register);
        let target = instruction.op0_register().full_register().number() as u8;
        let selector = selector(instruction.op1_register().number());
        let host = match map(target) {
            Gpr::Host(host) => host,
            Gpr::Memory(_) => R10,
        };
        if decoded.info.operand == Some(2) {
            self.hot.byte(0x66);
        }
        self.hot
            .op_mem(false, &[0x0f, 0xb7], host, Mem::gs(selector));
        if let Gpr::Memory(n) = map(target) {
            self.forget_guest(n);
            self.hot.store(Mem::gs(gpr(n)), R10);
            self.held[0] = Held::Guest(n);
        }
    }

    fn rdtsc(&mut self, decoded: &Decoded, with_processor: bool) {
        self.clobber_flags(decoded.live_before());
        if with_processor {
            self.hot.bytes(&[0x0f, 0x01, 0xf9]);
            self.hot
                .op_mem(false, &[op::LOAD], RCX, Mem::gs(at!(cpu.msr.tsc_aux)));
        } else {
            self.hot.bytes(&[0x0f, 0x31]);
        }
        self.shift(true, SHL, RDX, 32);
        self.hot.op_reg(true, op::OR, RAX, RDX);
        self.hot
            .op_mem(true, &[op::ADD], RAX, Mem::gs(at!(tsc_offset)));
        self.hot.mov(RDX, RAX);
        self.shift(true, SHR, RDX, 32);
        self.hot.op_reg(false, op::LOAD, RAX, RAX);
    }

    /// CLAC and STAC. What follows is code of another privilege class, if CR4.SMAP is set.
    fn user_access(&mut self, decoded: &Decoded, open: bool) {
        self.clobber_flags(decoded.live_before());
        self.test(Mem::gs(at!(cpu.cr4)), cr::CR4_SMAP);
        self.interpret_if(cc::E, decoded);
        self.target_mode_check(if open { 2 } else { 0 }, decoded);
        let (operation, operand) = if open {
            (OR, flags::AC as u32)
        } else {
            (AND, !flags::AC as u32)
        };
        self.immediate(operation, Mem::gs(at!(cpu.rflags)), operand);
        let next = decoded.instruction.next_ip();
        self.branch_with_access(next, open, decoded.live_after);
    }

    /// SYSCALL in 64-bit mode whose mask clears all arithmetic flags, as every kernel's does.
    fn syscall(&mut self, decoded: &Decoded) {
        self.clobber_flags(ALL_FLAGS);
        self.test(Mem::gs(at!(cpu.efer)), cr::EFER_SCE);
        self.interpret_if(cc::E, decoded);
        self.target_mode_check(0, decoded);
        self.hot
            .op_mem(false, &[op::LOAD], R10, Mem::gs(at!(cpu.msr.fmask)));
        self.immediate_register(AND, R10, flags::ARITHMETIC);
        self.immediate_register(CMP, R10, flags::ARITHMETIC);
        self.interpret_if(cc::NE, decoded);
        // RFLAGS.AC that stays set may open user pages.
        self.test(Mem::gs(at!(cpu.msr.fmask)), flags::AC);
        let cleared = self.hot.short(0x70 | cc::NE);
        self.test(Mem::gs(at!(cpu.rflags)), flags::AC);
        self.interpret_if(cc::NE, decoded);
        self.hot.bind_short(cleared);
        self.flags_image();
        self.hot.store(Mem::gs(gpr(GUEST_R11)), R10);
        self.hot.mov_imm(RCX, decoded.next_ip);
        self.hot
            .op_mem(false, &[op::LOAD], R11, Mem::gs(at!(cpu.msr.fmask)));
        // not r11d
        self.hot.op_reg(false, 0xf7, 2, R11);
        self.hot.op_reg(false, op::AND, R11, R10);
        self.immediate_register(OR, R11, flags::FIXED);
        self.hot.store(Mem::gs(at!(cpu.rflags)), R11);
        self.hot.store_imm32(Mem::gs(at!(flags)), 0);
        self.hot
            .op_mem(false, &[op::LOAD], R11, Mem::gs(at!(cpu.msr.star) + 4));
        self.immediate_register(AND, R11, 0xfffc);
        self.set_selector(CS);
        self.immediate_register(ADD, R11, 8);
        self.set_selector(SS);
        self.flat_segments(0);
        self.hot.load(R10, Mem::gs(at!(cpu.msr.lstar)));
        self.jump_to_class(0, true);
    }

    /// SYSRET to 64-bit mode at level 3, neither single-stepping nor with alignment checks.
    fn sysret(&mut self, decoded: &Decoded) {
        self.clobber_flags(decoded.live_before());
        self.test(Mem::gs(at!(cpu.efer)), cr::EFER_SCE);
        self.interpret_if(cc::E, decoded);
        self.test(Mem::gs(gpr(GUEST_R11)), flags::TF | flags::AC);
        self.interpret_if(cc::NE, decoded);
        self.target_mode_check(1, decoded);
        self.interpret_if_interrupt(decoded);
        self.hot.mov(R11, RCX);
        self.shift(true, SHL, R11, 16);
        self.shift(true, SAR, R11, 16);
        self.hot.op_reg(true, op::CMP, R11, RCX);
        self.interpret_if(cc::NE, decoded);
        self.hot
            .op_mem(false, &[op::LOAD], R10, Mem::gs(gpr(GUEST_R11)));
        self.immediate_register(AND, R10, SYSRET_FLAGS);
        self.immediate_register(OR, R10, flags::FIXED);
        self.hot.store(Mem::gs(at!(cpu.rflags)), R10);
        self.hot.op_reg(false, op::LOAD, R11, R10);
        self.shift(false, SHR, R11, 11);
        self.immediate_register(AND, R11, 1);
        self.immediate_register(AND, R10, 0xff);
        self.shift(false, SHL, R10, 8);
        self.hot.op_reg(false, op::OR, R10, R11);
        self.hot
            .op_mem(false, &[op::STORE], R10, Mem::gs(at!(flags)));
        // movzx r11d, word [star + 6]
        self.hot
            .op_mem(false, &[0x0f, 0xb7], R11, Mem::gs(at!(cpu.msr.star) + 6));
        self.immediate_register(ADD, R11, 16);
        self.immediate_register(OR, R11, 3);
        self.set_selector(CS);
        self.immediate_register(SUB, R11, 8);
        self.set_selector(SS);
        self.flat_segments(3);
        self.hot.mov(R10, RCX);
        self.jump_to_class(1, true);
    }

    /// Leaves unless the branch targets of `class` are those of 64-bit code.
    fn target_mode_check(&mut self, class: usize, decoded: &Decoded) {
        self.hot
            .cmp_mem_zero(Mem::gs(at!(targets64) + class as i32 * 4));
        self.interpret_if(cc::E, decoded);
    }

    /// Stores R11W as a selector.
    fn set_selector(&mut self, segment: usize) {
        self.hot.byte(0x66);
        self.hot
            .op_mem(false, &[op::STORE], R11, Mem::gs(selector(segment)));
    }

    /// Makes CS and SS flat segments of privilege level `cpl`.
    fn flat_segments(&mut self, cpl: u8) {
        let level = if cpl == 3 { DPL3 } else { 0 };
        for (segment, attributes) in [
            (CS, SegmentAttributes::CODE64),
            (SS, SegmentAttributes::DATA32),
        ] {
            let base = context::segment_base(segment);
            self.hot.op_mem(true, &[0xc7], 0, Mem::gs(base));
            self.hot.dword(0);
            let limit = offset_of!(Segment, limit) as i32;
            self.hot.store_imm32(Mem::gs(base + limit), u32::MAX);
            let place = offset_of!(Segment, attributes) as i32;
            self.hot
                .store_imm32(Mem::gs(base + place), attributes.0 | level);
        }
        // mov byte [cpl], cpl
        self.hot.op_mem(false, &[0xc6], 0, Mem::gs(at!(cpu.cpl)));
        self.hot.byte(cpl);
    }
}

/// Offset of the selector of a segment register.
fn selector(segment: usize) -> i32 {
    context::segment_base(segment) + offset_of!(Segment, selector) as i32
}
