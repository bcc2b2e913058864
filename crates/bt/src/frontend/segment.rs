//! Offsets and segments: from what an instruction encodes to a linear address (SDM vol. 1, 3.7.5;
//! vol. 3A, 5.3). Outside 64-bit mode offsets are checked against limits, and bases are added.

use std::mem::offset_of;

use iced_x86::{Instruction, Register};
use ringfence_engine::Segment;

use super::exit;
use super::lower::{Held, Lower};
use super::mode::{Mode, SegmentClass};
use crate::context::{self, at};
use crate::cpu::{CS, FS, GS};
use crate::emit::asm::reg::{R10, R11};
use crate::emit::asm::{Mem, cc, op, patch};

/// A check of a limit that may fail, and what comes then.
#[derive(Clone, Copy, Debug)]
pub struct LimitCheck {
    /// Displacement of the branch.
    site: *mut u8,
    /// Instruction pointer of the instruction.
    ip: u64,
    /// Instructions of the block before it.
    index: u16,
    /// For windows: the flags that the variant with separate checks needs. Otherwise the
    /// interpreter executes the instruction.
    window: Option<u8>,
}

/// Address size in bits of the memory operand.
pub fn address_bits(instruction: &Instruction, mode: Mode) -> u32 {
    for register in [instruction.memory_base(), instruction.memory_index()] {
        match register {
            Register::RIP => return 64,
            Register::EIP => return 32,
            r if r.is_gpr16() => return 16,
            r if r.is_gpr32() => return 32,
            r if r.is_gpr64() => return 64,
            _ => {}
        }
    }
    match instruction.memory_displ_size() {
        size @ (2 | 4 | 8) if !mode.long() => size * 8,
        _ => mode.bits(),
    }
}

impl Lower<'_> {
    /// Emits the offset of `instruction`'s memory operand into R11, R10 lost. Flags are kept.
    pub(super) fn effective_offset(&mut self, instruction: &Instruction) {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let bits = address_bits(instruction, self.mode);
        let displacement = instruction.memory_displacement64();
        let number = |r: Register| (r != Register::None).then(|| r.number() as u8);
        if base == Register::None && index == Register::None
            || instruction.is_ip_rel_memory_operand()
        {
            let address = match bits {
                64 => displacement,
                32 => displacement & 0xffff_ffff,
                _ => displacement & 0xffff,
            };
            self.held[1] = Held::Nothing;
            self.hot.mov_imm(R11, address);
        } else {
            let scale = instruction.memory_index_scale().trailing_zeros() as u8;
            let index = number(index).map(|r| (r, scale));
            self.sum(bits, number(base), index, displacement as i32);
        }
    }

    /// Makes the offset in R11 of an access of `size` bytes, which was computed in `bits` bits, a
    /// linear address. R10 and EFLAGS are lost.
    pub(super) fn add_segment(&mut self, segment: usize, size: u32, bits: u32, window: Option<u8>) {
        if self.mode.long() {
            if matches!(segment, FS | GS) {
                let base = Mem::gs(context::segment_base(segment));
                self.hot.op_mem(true, &[op::ADD], R11, base);
            }
            return;
        }
        // Accesses of a window must not wrap around apart from each other.
        let wraps = bits == 16 && window.is_some();
        match self.mode.segment(segment) {
            SegmentClass::Flat | SegmentClass::Unlimited | SegmentClass::Checked => {
                if wraps {
                    self.check_64k(size, window);
                }
            }
            SegmentClass::Limit64K => {
                if bits != 16 || size > 1 {
                    self.check_64k(size, window);
                }
            }
            SegmentClass::Limited => {
                if wraps {
                    self.check_64k(size, window);
                }
                self.check_limit(segment, size, window);
            }
        }
        if self.mode.segment(segment) == SegmentClass::Flat {
            return;
        }
        if segment == CS {
            // add r11d, imm32
            self.hot.op_reg(false, 0x81, 0, R11);
            self.hot.dword(self.mode.linear(0) as u32);
        } else {
            let base = Mem::gs(context::segment_base(segment));
            self.hot.op_mem(false, &[op::ADD], R11, base);
        }
    }

    fn check_64k(&mut self, size: u32, window: Option<u8>) {
        self.hot.cmp_imm(R11, 0x1_0000 - size as i32);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        self.defer_limit(site, window);
    }

    fn check_limit(&mut self, segment: usize, size: u32, window: Option<u8>) {
        let last = size as i32 - 1;
        if segment == CS {
            let bound = i64::from(self.mode.limit()) - i64::from(last);
            self.hot.mov_imm(R10, bound as u64);
        } else {
            let limit = context::segment_base(segment) + offset_of!(Segment, limit) as i32;
            self.hot.op_mem(false, &[op::LOAD], R10, Mem::gs(limit));
            if last > 0 {
                self.hot.lea(true, R10, Mem::at(R10, -last));
            }
        }
        self.held[0] = Held::Nothing;
        self.hot.op_reg(true, op::CMP, R11, R10);
        let site = self.hot.jcc(cc::G, std::ptr::null());
        self.defer_limit(site, window);
    }

    fn defer_limit(&mut self, site: *mut u8, window: Option<u8>) {
        let ip = self.ip;
        let index = self.index as u16;
        self.limits.push(LimitCheck {
            site,
            ip,
            index,
            window,
        });
    }

    /// Emits what failed checks of limits lead to.
    pub(super) fn limit_paths(&mut self) {
        for check in std::mem::take(&mut self.limits) {
            // SAFETY: the site is a branch emitted for this check.
            unsafe { patch(check.site, self.cold.here()) };
            if let Some(live) = check.window {
                if live != 0 {
                    self.cold.restore_flags(at!(flags));
                }
                self.account_cold(check.index);
                let site = self.cold.jmp(std::ptr::null());
                self.add_exit(site, check.ip, true);
                continue;
            }
            self.cold.mov_imm(R11, check.ip);
            self.cold.store(Mem::gs(at!(cpu.rip)), R11);
            self.tell_executed(check.index);
            let reason = exit::code(self.id, exit::INTERPRET);
            self.cold.store_imm32(Mem::gs(at!(exit)), reason);
            self.cold.jmp(self.stubs.exit_memory_flags);
        }
    }
}
