//! Effective addresses and the TLB check.
//!
//! A check leaves the host address of the operand in R11; R10 and EFLAGS are lost.

use super::groups::{Group, Origin, stack_access, stack_bits};
use super::lower::{Gpr, Held, Lower, map};
use super::segment::address_bits;
use super::translate::Decoded;
use crate::context::{self, RecentPage, TlbEntry, at};
use crate::cpu::SS;
use crate::emit::asm::reg::{R10, R11};
use crate::emit::asm::{Asm, Mem, cc, op, patch};
use crate::interp::address::segment_index;

/// A check that may fail, and how its slow path goes on.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// Displacement of the branch to the slow path.
    site: *mut u8,
    /// Where the slow path returns to.
    back: *const u8,
    /// Arguments of the helper.
    meta: u32,
    /// Offset of the guest instruction in the page.
    offset: u16,
    /// Instructions of the block before it.
    index: u16,
    how: Recover,
    /// For windows: the flags that the variant with separate checks needs.
    window: Option<u8>,
    /// What R10 must hold afterwards.
    keep: Keep,
}

/// What R10 holds behind a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Nothing of use.
    Nothing,
    /// This guest register.
    Guest(u8),
    /// The offset of the access's TLB entry.
    Entry,
    /// The host address of this group's window.
    Window(u8),
}

/// How the slow path gets the address, and what it makes of the result.
#[derive(Clone, Copy, Debug)]
enum Recover {
    /// R11 is address xor tag, R10 the offset of the TLB entry.
    Entry { tag: i32 },
    /// The same, but the entry is that of another address.
    Reused { tag: i32 },
    /// R11 is address xor the recent page's tag.
    Recent { page: i32 },
    /// The address is constant; the operand is at R11 plus its offset in the page.
    Constant { address: u64 },
}

/// Fields of the helper's argument.
pub mod meta {
    /// Size of the access in bytes.
    pub const SIZE: u32 = 0x3ff;
    /// The access is a store.
    pub const WRITE: u32 = 1 << 10;
    /// The access is a window: a failure returns to the code.
    pub const WINDOW: u32 = 1 << 12;
    /// Offset of the guest instruction in its page.
    pub const OFFSET_SHIFT: u32 = 13;
    /// Above it, the slot of the recent page to fill.
    pub const RECENT_SHIFT: u32 = 25;
    /// Slots; this one means none.
    pub const RECENT: u32 = 31;
    /// Above it, the privilege class.
    pub const CLASS_SHIFT: u32 = 30;
    /// What the helper returns when a window can't be accessed as a whole.
    pub const FAILED: u64 = 1;
}

impl Lower<'_> {
    /// R11 = base + index + displacement, in `bits` bits. Flags are kept.
    pub(super) fn sum(&mut self, bits: u32, base: Option<u8>, index: Option<(u8, u8)>, disp: i32) {
        let wide = bits == 64;
        let index = index.map(|(r, scale)| (self.address_register(r, R10), scale));
        let base = base.map(|r| self.address_register(r, R11));
        self.held[1] = Held::Nothing;
        match (base, index, disp) {
            // A move between registers takes no time.
            (Some(R11), None, 0) if wide => {}
            (Some(base), None, 0) if bits == 16 => {
                // movzx r11d, base16
                self.hot
                    .bytes(&[0x44 | base >> 3, 0x0f, 0xb7, 0xd8 | base & 7]);
                return;
            }
            (Some(base), None, 0) => self.hot.op_reg(wide, op::LOAD, R11, base),
            _ => self.hot.lea(
                wide,
                R11,
                Mem {
                    gs: false,
                    base,
                    index,
                    disp,
                },
            ),
        }
        if bits == 16 {
            // movzx r11d, r11w
            self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xdb]);
        }
    }

    fn address_register(&mut self, register: u8, scratch: u8) -> u8 {
        match map(register) {
            Gpr::Host(host) => host,
            Gpr::Memory(n) => {
                if let Some(i) = self.held.iter().position(|&h| h == Held::Guest(n)) {
                    return R10 + i as u8;
                }
                self.held[usize::from(scratch - R10)] = Held::Guest(n);
                self.hot.load(scratch, Mem::gs(context::gpr(n)));
                scratch
            }
        }
    }

    /// Makes the checks of windows whose place is the current instruction.
    pub(super) fn windows(&mut self, decoded: &Decoded) {
        let groups = self.groups;
        for (number, group) in groups.groups.iter().enumerate() {
            if usize::from(group.place) != self.index || group.is_single() {
                continue;
            }
            if self.mode.counted() {
                self.keep_flags();
            }
            let live = self.carried(decoded.live_before());
            self.clobber_flags(live);
            if let [Held::Nothing, Held::Window(other)] = self.held
                && self.left[usize::from(other)] != 0
            {
                self.hot.mov(R10, R11);
                self.held[0] = Held::Window(other);
            }
            self.group_check(number, group, Some(live));
            self.hot.store(window(number as u8), R11);
            self.held[1] = Held::Window(number as u8);
        }
    }

    /// Checks a group's window; R11 becomes the host address of its first byte, or of its page.
    fn group_check(&mut self, number: usize, group: &Group, window: Option<u8>) {
        let (size, write) = (group.size(), group.write);
        self.bias[number] = group.low;
        match group.origin {
            Origin::Constant => {
                let address = group.low as u64;
                if self.constant_check(address, size, write, window) {
                    self.bias[number] = group.low & !0xfff;
                } else {
                    self.hot.mov_imm(R11, address);
                    self.check(size, write, window);
                }
            }
            Origin::Registers {
                base,
                index,
                segment,
                bits,
            } => {
                let disp = (group.low - group.shift) as i32;
                let bits = u32::from(bits);
                self.sum(bits, base, index, disp);
                if let Some(segment) = segment {
                    self.add_segment(usize::from(segment), size, bits, window);
                }
                match (group.recent, self.reusable(group)) {
                    (Some(slot), _) => self.recent_check(slot, size, write, window),
                    (None, Some(check)) => self.reused_check(check, size, write, window),
                    (None, None) => {
                        self.check(size, write, window);
                        self.held[0] = Held::Entry(number as u8, self.slow.len() as u16 - 1);
                    }
                }
            }
        }
        self.held[1] = Held::Nothing;
    }

    /// The check that left the TLB entry of an earlier access off the same register in R10: the
    /// fields of a structure are mostly in one page.
    fn reusable(&self, group: &Group) -> Option<u16> {
        let Held::Entry(number, check) = self.held[0] else {
            return None;
        };
        let other = &self.groups.groups[usize::from(number)];
        other.has_base_of(group).then_some(check)
    }

    /// Base and displacement on the host of an access of the current instruction: 0 the memory
    /// operand, 1 the implied stack operand. `None` if it belongs to no group. The base is R11, or
    /// R10 if `either` allows it.
    pub(super) fn access(
        &mut self,
        which: usize,
        decoded: &Decoded,
        either: bool,
    ) -> Option<(u8, i32)> {
        let access = self.groups.accesses[self.index][which]?;
        let number = usize::from(access.group);
        let group = self.groups.groups[number];
        if group.is_single() {
            self.clobber_flags(decoded.live_before());
            self.group_check(number, &group, None);
            return Some((R11, (access.at - self.bias[number]) as i32));
        }
        let base = self.window_base(access.group, either);
        self.left[number] = self.left[number].saturating_sub(1);
        Some((base, (access.at - self.bias[number]) as i32))
    }

    /// The register, R11 or R10, that holds the host address of a group's window.
    fn window_base(&mut self, group: u8, either: bool) -> u8 {
        let wanted = Held::Window(group);
        if self.held[1] == wanted {
            self.older = 0;
            return R11;
        }
        if self.held[0] == wanted {
            if either {
                self.older = 1;
                return R10;
            }
            self.hot.mov(R11, R10);
            self.held[1] = wanted;
            return R11;
        }
        let useful =
            |held| matches!(held, Held::Window(other) if self.left[usize::from(other)] != 0);
        let to_r10 = either
            && useful(self.held[1])
            && match self.held[0] {
                Held::Nothing => true,
                Held::Window(_) => !useful(self.held[0]) || self.older == 0,
                Held::Guest(_) | Held::Entry(..) => false,
            };
        let place = usize::from(!to_r10);
        let base = R10 + place as u8;
        self.hot.load(base, window(group));
        self.held[place] = wanted;
        self.older = 1 - place as u8;
        base
    }

    /// Base and displacement on the host of the memory operand; the base is R11, or R10 if
    /// `either` allows it.
    pub(super) fn operand(
        &mut self,
        decoded: &Decoded,
        size: u32,
        write: bool,
        either: bool,
    ) -> (u8, i32) {
        self.access(0, decoded, either).unwrap_or_else(|| {
            self.clobber_flags(decoded.live_before());
            let instruction = &decoded.instruction;
            self.effective_offset(instruction);
            let bits = address_bits(instruction, self.mode);
            let segment = segment_index(instruction.memory_segment());
            self.add_segment(segment, size, bits, None);
            self.check(size, write, None);
            self.held[1] = Held::Nothing;
            (R11, 0)
        })
    }

    /// Base and displacement on the host of the implied stack operand.
    pub(super) fn stack_operand(&mut self, decoded: &Decoded, write: bool) -> (u8, i32) {
        self.access(1, decoded, false).unwrap_or_else(|| {
            let (base, disp, size) = stack_access(decoded);
            self.clobber_flags(decoded.live_before());
            let bits = stack_bits(self.mode);
            self.sum(bits, Some(base), None, disp as i32);
            self.add_segment(SS, size, bits, None);
            self.recent_check(4, size, write, None);
            self.held[1] = Held::Nothing;
            (R11, 0)
        })
    }

    fn meta(&self, size: u32, write: bool, window: bool, recent: u32) -> u32 {
        let class = (self.mode.class() as u32) << meta::CLASS_SHIFT;
        let size = size | if window { meta::WINDOW } else { 0 };
        size | if write { meta::WRITE } else { 0 } | class | recent << meta::RECENT_SHIFT
    }

    fn defer(&mut self, site: *mut u8, meta: u32, how: Recover, window: Option<u8>) {
        let back = self.hot.here();
        let (offset, index) = (self.offset, self.index as u16);
        self.slow.push(Slow {
            site,
            back,
            meta,
            offset,
            index,
            how,
            window,
            keep: Keep::Nothing,
        });
    }

    /// As [`Lower::check`] with the TLB entry whose offset is in R10, from check number `check`.
    fn reused_check(&mut self, check: u16, size: u32, write: bool, window: Option<u8>) {
        self.slow[usize::from(check)].keep = Keep::Entry;
        let tag = self.compare_entry(size, write);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        self.add_entry_host();
        let meta = self.meta(size, write, window.is_some(), meta::RECENT);
        self.defer(site, meta, Recover::Reused { tag }, window);
        if let Some(slow) = self.slow.last_mut() {
            slow.keep = Keep::Entry;
        }
    }

    /// Compares the address in R11 with the TLB entry at R10; returns the offset of the tag.
    fn compare_entry(&mut self, size: u32, write: bool) -> i32 {
        let tag = context::tlb(self.mode.class()) + tag_offset(write);
        self.hot.op_mem(true, &[op::XOR], R11, Mem::gs_at(R10, tag));
        self.hot.cmp_imm(R11, 4096 - size as i32);
        tag
    }

    fn add_entry_host(&mut self) {
        let host = context::tlb(self.mode.class()) + HOST;
        self.hot
            .op_mem(true, &[op::ADD], R11, Mem::gs_at(R10, host));
    }

    /// Checks an access of `size` bytes at the linear address in R11.
    pub(super) fn check(&mut self, size: u32, write: bool, window: Option<u8>) {
        probe_index(self.hot, self.bmi2);
        let tag = self.compare_entry(size, write);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        self.add_entry_host();
        self.held[0] = Held::Nothing;
        let meta = self.meta(size, write, window.is_some(), meta::RECENT);
        self.defer(site, meta, Recover::Entry { tag }, window);
    }

    /// Checks an access of `size` bytes at the linear address in R11, off the register whose
    /// recent page is in `slot`.
    fn recent_check(&mut self, slot: u8, size: u32, write: bool, window: Option<u8>) {
        let page = context::recent(self.mode.class(), slot);
        self.hot
            .op_mem(true, &[op::XOR], R11, Mem::gs(page + recent_tag(write)));
        self.hot.cmp_imm(R11, 4096 - size as i32);
        let site = self.hot.jcc(cc::A, std::ptr::null());
        self.hot
            .op_mem(true, &[op::ADD], R11, Mem::gs(page + recent_host(write)));
        let meta = self.meta(size, write, window.is_some(), u32::from(slot));
        self.defer(site, meta, Recover::Recent { page }, window);
        self.keep_held();
    }

    /// The last check does without R10: what is there is loaded again if it fails.
    fn keep_held(&mut self) {
        match (self.held[0], self.slow.last_mut()) {
            (Held::Guest(n), Some(slow)) => slow.keep = Keep::Guest(n),
            (Held::Window(group), Some(slow)) => slow.keep = Keep::Window(group),
            _ => self.held[0] = Held::Nothing,
        }
    }

    /// Checks an access at a constant address: index and offset are known, and R11 becomes the
    /// host address of the page. Returns false when it must go through the general check.
    fn constant_check(&mut self, address: u64, size: u32, write: bool, window: Option<u8>) -> bool {
        let offset = (address & 0xfff) as i32;
        let Ok(page) = i32::try_from((address & !0xfff) as i64) else {
            return false;
        };
        if offset as u32 + size > 4096 || !self.mode.long() && page < 0 {
            return false;
        }
        let entry = context::tlb(self.mode.class())
            + (TlbEntry::index(address) * size_of::<TlbEntry>()) as i32;
        // cmp qword gs:[tag], page
        self.hot
            .op_mem(true, &[0x81], 7, Mem::gs(entry + tag_offset(write)));
        self.hot.dword(page as u32);
        let site = self.hot.jcc(cc::NE, std::ptr::null());
        self.hot.load(R11, Mem::gs(entry + HOST));
        let meta = self.meta(size, write, window.is_some(), meta::RECENT);
        self.defer(site, meta, Recover::Constant { address }, window);
        self.keep_held();
        true
    }

    /// Emits the slow paths of all checks of the block.
    pub(super) fn slow_paths(&mut self) {
        for slow in std::mem::take(&mut self.slow) {
            let here = self.cold.here();
            // SAFETY: the site is a branch emitted for this check.
            unsafe { patch(slow.site, here) };
            match slow.how {
                Recover::Entry { tag } => {
                    let tag = Mem::gs_at(R10, tag);
                    self.cold.op_mem(true, &[op::XOR], R11, tag);
                }
                Recover::Reused { tag } => {
                    let host = context::tlb(self.mode.class()) + HOST;
                    let (tag, host) = (Mem::gs_at(R10, tag), Mem::gs_at(R10, host));
                    self.cold.op_mem(true, &[op::XOR], R11, tag);
                    probe_index(self.cold, self.bmi2);
                    self.cold.op_mem(true, &[op::XOR], R11, tag);
                    let size = slow.meta & meta::SIZE;
                    self.cold.cmp_imm(R11, 4096 - size as i32);
                    let miss = self.cold.jcc(cc::A, std::ptr::null());
                    self.cold.op_mem(true, &[op::ADD], R11, host);
                    self.cold.jmp(slow.back);
                    // SAFETY: the site is the branch just emitted.
                    unsafe { patch(miss, self.cold.here()) };
                    self.cold.op_mem(true, &[op::XOR], R11, tag);
                }
                Recover::Recent { page } => {
                    let tag = Mem::gs(page + recent_tag(slow.meta & meta::WRITE != 0));
                    self.cold.op_mem(true, &[op::XOR], R11, tag);
                }
                Recover::Constant { address } => self.cold.mov_imm(R11, address),
            }
            if slow.keep == Keep::Entry {
                self.cold.store(Mem::gs(at!(entry)), R10);
            }
            let offset = u32::from(slow.offset) << meta::OFFSET_SHIFT;
            self.cold.mov_imm(R10, u64::from(slow.meta | offset));
            self.cold.store_imm32(Mem::gs(at!(exit)), self.id);
            self.tell_executed(slow.index);
            self.cold.call(match slow.how {
                Recover::Recent { .. } => {
                    let write = usize::from(slow.meta & meta::WRITE != 0);
                    let slot = slow.meta >> meta::RECENT_SHIFT & meta::RECENT;
                    self.stubs.recent_miss[self.mode.class()][slot as usize][write]
                }
                _ => self.stubs.memory_miss,
            });
            let failed = slow.window.map(|live| {
                self.cold.cmp_imm(R11, meta::FAILED as i32);
                (self.cold.jcc(cc::E, std::ptr::null()), live)
            });
            if let Recover::Constant { address } = slow.how {
                let disp = -((address & 0xfff) as i32);
                self.cold.lea(true, R11, Mem::at(R11, disp));
            }
            match slow.keep {
                Keep::Nothing => {}
                Keep::Guest(n) => self.cold.load(R10, Mem::gs(context::gpr(n))),
                Keep::Entry => self.cold.load(R10, Mem::gs(at!(entry))),
                Keep::Window(group) => self.cold.load(R10, window(group)),
            }
            self.cold.jmp(slow.back);
            if let Some((site, live)) = failed {
                // SAFETY: the site is the branch just emitted.
                unsafe { patch(site, self.cold.here()) };
                if live != 0 {
                    self.cold.restore_flags(at!(flags));
                }
                self.account_cold(slow.index);
                let site = self.cold.jmp(std::ptr::null());
                let ip = self.mode.ip(self.page + u64::from(slow.offset));
                self.add_exit(site, ip, true);
            }
        }
    }
}

/// Where the context keeps the host address of a group's window.
fn window(group: u8) -> Mem {
    Mem::gs(at!(windows) + i32::from(group) * 8)
}

/// Offset of the host address in a TLB entry.
pub const HOST: i32 = std::mem::offset_of!(TlbEntry, host) as i32;

/// R10 = offset of the TLB entry of the address in R11: its bits 23:12, times 32.
pub fn probe_index(asm: &mut Asm, bmi2: bool) {
    if bmi2 {
        // rorx r10, r11, 7
        asm.bytes(&[0xc4, 0x43, 0xfb, 0xf0, 0xd3, 7]);
    } else {
        asm.mov(R10, R11);
        // shr r10, 7
        asm.bytes(&[0x49, 0xc1, 0xea, 7]);
    }
    // and r10d, 0x1ffe0
    asm.bytes(&[0x41, 0x81, 0xe2]);
    asm.dword(0x1ffe0);
}

/// Offset of the tag of loads or stores in a TLB entry.
pub fn tag_offset(write: bool) -> i32 {
    let read = std::mem::offset_of!(TlbEntry, tag_read);
    (if write {
        std::mem::offset_of!(TlbEntry, tag_write)
    } else {
        read
    }) as i32
}

/// Offset of the tag of loads or stores in a recent page.
pub fn recent_tag(write: bool) -> i32 {
    let read = std::mem::offset_of!(RecentPage, tag_read);
    (if write {
        std::mem::offset_of!(RecentPage, tag_write)
    } else {
        read
    }) as i32
}

/// Offset of the host address of loads or stores in a recent page.
pub fn recent_host(write: bool) -> i32 {
    let read = std::mem::offset_of!(RecentPage, host_read);
    (if write {
        std::mem::offset_of!(RecentPage, host_write)
    } else {
        read
    }) as i32
}
