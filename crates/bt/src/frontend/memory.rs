//! Effective addresses and the TLB check.
//!
//! After a check R11 is the host address of the operand, R10 is free, and EFLAGS are lost.

use iced_x86::{Instruction, Register};

use super::lower::{Gpr, Lower, map};
use crate::context::{self, TlbEntry, at};
use crate::emit::asm::reg::{R9, R10, R11};
use crate::emit::asm::{Mem, cc, op};

/// A check that may fail, and how its slow path goes on.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// Displacement of the branch to the slow path.
    site: *mut u8,
    /// Where the slow path returns to.
    back: *const u8,
    /// Arguments of the helper.
    meta: u32,
    /// Offset of the guest instruction in the block.
    offset: u16,
    how: Recover,
}

/// How the slow path gets the address, and what it makes of the result.
#[derive(Clone, Copy, Debug)]
enum Recover {
    /// R11 is address xor tag, R10 the offset of the TLB entry.
    Entry { tag: i32 },
    /// R11 is address xor the stack entry's tag.
    Stack { tag: i32 },
    /// The address is constant; the operand is at R11 plus its offset in the page.
    Constant { address: u64 },
}

/// Fields of the helper's argument.
pub mod meta {
    /// Size of the access in bytes.
    pub const SIZE: u32 = 0xff;
    /// The access is a store.
    pub const WRITE: u32 = 1 << 8;
    /// Privilege class.
    pub const CLASS_SHIFT: u32 = 9;
    /// The stack entry is to be filled.
    pub const STACK: u32 = 1 << 10;
    /// Offset of the guest instruction in its block.
    pub const OFFSET_SHIFT: u32 = 16;
}

impl Lower<'_> {
    /// Whether `instruction` addresses the stack by a plain displacement.
    fn stack_operand(instruction: &Instruction) -> bool {
        matches!(instruction.memory_base(), Register::RSP | Register::ESP)
            && instruction.memory_index() == Register::None
    }

    /// Emits the effective address of `instruction`'s memory operand into R11, R10 lost. Segment
    /// base included; flags are kept unless the segment has a base.
    pub(super) fn effective_address(&mut self, instruction: &Instruction) {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let narrow = self.mode.bits() == 32 || base.is_gpr32() || index.is_gpr32();
        let displacement = instruction.memory_displacement64();
        if base == Register::None && index == Register::None || instruction.is_ip_rel_memory_operand()
        {
            let address = if narrow { displacement & 0xffff_ffff } else { displacement };
            self.hot.mov_imm(R11, address);
        } else {
            let mut mem = Mem { disp: displacement as i32, ..Mem::default() };
            if base != Register::None {
                mem.base = Some(self.address_register(base, R11));
            }
            if index != Register::None {
                let scale = instruction.memory_index_scale().trailing_zeros() as u8;
                mem.index = Some((self.address_register(index, R10), scale));
            }
            self.hot.lea(!narrow, R11, mem);
        }
        let segment = instruction.memory_segment();
        if matches!(segment, Register::FS | Register::GS) {
            let base = Mem::gs(context::segment_base(segment.number()));
            self.hot.op_mem(self.mode.bits() == 64, &[op::ADD], R11, base);
        }
    }

    fn address_register(&mut self, register: Register, scratch: u8) -> u8 {
        match map(register.number() as u8) {
            Gpr::Host(host) => host,
            Gpr::Memory(index) => {
                self.hot.load(scratch, Mem::gs(context::gpr(index)));
                scratch
            }
        }
    }

    /// Checks the memory operand of `instruction`; returns base and displacement on the host.
    pub(super) fn operand(&mut self, instruction: &Instruction, size: u32, write: bool) -> (u8, i32) {
        if Self::stack_operand(instruction) && instruction.segment_prefix() == Register::None {
            let disp = instruction.memory_displacement64() as i32;
            let wide = self.mode.bits() == 64 && instruction.memory_base() == Register::RSP;
            self.hot.lea(wide, R11, Mem::at(R9, disp));
            self.stack_check(size, write);
            return (R11, 0);
        }
        let segment = instruction.memory_segment();
        let based = matches!(segment, Register::FS | Register::GS);
        let absolute = instruction.is_ip_rel_memory_operand()
            || instruction.memory_base() == Register::None
                && instruction.memory_index() == Register::None;
        if absolute && !based {
            let mut address = instruction.memory_displacement64();
            if self.mode.bits() == 32 || instruction.memory_base() == Register::EIP {
                address &= 0xffff_ffff;
            }
            if let Some(place) = self.constant_check(address, size, write) {
                return place;
            }
        }
        self.effective_address(instruction);
        self.check(size, write);
        (R11, 0)
    }

    fn meta(&self, size: u32, write: bool) -> u32 {
        let class = (self.mode.class() as u32) << meta::CLASS_SHIFT;
        size & meta::SIZE | if write { meta::WRITE } else { 0 } | class
    }

    fn defer(&mut self, site: *mut u8, meta: u32, how: Recover) {
        let back = self.hot.here();
        let offset = self.offset;
        self.slow.push(Slow { site, back, meta, offset, how });
    }

    /// Checks an access of `size` bytes at the linear address in R11.
    pub(super) fn check(&mut self, size: u32, write: bool) {
        let entries = context::tlb(self.mode.class());
        let tag = entries + tag_offset(write);
        // R10 = offset of the entry: bits 23:12 of the address, times 32.
        if self.bmi2 {
            // rorx r10, r11, 7
            self.hot.bytes(&[0xc4, 0x43, 0xfb, 0xf0, 0xd3, 7]);
        } else {
            self.hot.mov(R10, R11);
            // shr r10, 7
            self.hot.bytes(&[0x49, 0xc1, 0xea, 7]);
        }
        // and r10d, 0x1ffe0
        self.hot.bytes(&[0x41, 0x81, 0xe2]);
        self.hot.dword(0x1ffe0);
        self.hot.op_mem(true, &[op::XOR], R11, Mem::gs_at(R10, tag));
        self.hot.cmp_imm(R11, 4096 - size as i32);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        let host = entries + std::mem::offset_of!(TlbEntry, host) as i32;
        self.hot.op_mem(true, &[op::ADD], R11, Mem::gs_at(R10, host));
        self.defer(site, self.meta(size, write), Recover::Entry { tag });
    }

    /// Checks an access of `size` bytes at the stack address in R11.
    pub(super) fn stack_check(&mut self, size: u32, write: bool) {
        let entry = context::stack(self.mode.class());
        self.hot.op_mem(true, &[op::XOR], R11, Mem::gs(entry));
        self.hot.cmp_imm(R11, 4096 - size as i32);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        self.hot.op_mem(true, &[op::ADD], R11, Mem::gs(entry + 8));
        let meta = self.meta(size, write) | meta::STACK;
        self.defer(site, meta, Recover::Stack { tag: entry });
    }

    /// Checks an access at a constant address: index and offset are known. `None` when it must
    /// go through the general check.
    fn constant_check(&mut self, address: u64, size: u32, write: bool) -> Option<(u8, i32)> {
        let page = (address & !0xfff) as i64;
        let offset = (address & 0xfff) as i32;
        let page = i32::try_from(page).ok()?;
        if offset as u32 + size > 4096 {
            return None;
        }
        let entry = context::tlb(self.mode.class())
            + (TlbEntry::index(address) * size_of::<TlbEntry>()) as i32;
        // cmp qword gs:[tag], page
        self.hot.op_mem(true, &[0x81], 7, Mem::gs(entry + tag_offset(write)));
        self.hot.dword(page as u32);
        let site = self.hot.jcc(cc::NE, std::ptr::null());
        self.hot.load(R11, Mem::gs(entry + std::mem::offset_of!(TlbEntry, host) as i32));
        self.defer(site, self.meta(size, write), Recover::Constant { address });
        Some((R11, offset))
    }

    /// Emits the slow paths of all checks of the block.
    pub(super) fn slow_paths(&mut self) {
        for slow in std::mem::take(&mut self.slow) {
            let here = self.cold.here();
            // SAFETY: the site is a branch emitted for this check.
            unsafe { crate::emit::asm::patch(slow.site, here) };
            match slow.how {
                Recover::Entry { tag } => {
                    self.cold.op_mem(true, &[op::XOR], R11, Mem::gs_at(R10, tag));
                }
                Recover::Stack { tag } => self.cold.op_mem(true, &[op::XOR], R11, Mem::gs(tag)),
                Recover::Constant { address } => self.cold.mov_imm(R11, address),
            }
            let offset = u32::from(slow.offset) << meta::OFFSET_SHIFT;
            self.cold.mov_imm(R10, u64::from(slow.meta | offset));
            self.cold.store_imm32(Mem::gs(at!(exit)), self.id);
            self.cold.call(self.stubs.memory_miss);
            if let Recover::Constant { address } = slow.how {
                let disp = -((address & 0xfff) as i32);
                self.cold.lea(true, R11, Mem::at(R11, disp));
            }
            self.cold.jmp(slow.back);
        }
    }
}

fn tag_offset(write: bool) -> i32 {
    let read = std::mem::offset_of!(TlbEntry, tag_read);
    (if write { std::mem::offset_of!(TlbEntry, tag_write) } else { read }) as i32
}
