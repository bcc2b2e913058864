//! Segment and gate descriptors (SDM vol. 3A, 3.4.5, 5.8.3 and 6.11).

use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::exception as ex;

use super::operand::load;
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};

/// System-descriptor types (SDM vol. 3A, table 3-2).
pub(super) mod kind {
    pub(in super::super) const TSS16_AVAILABLE: u32 = 1;
    pub(in super::super) const LDT: u32 = 2;
    pub(in super::super) const TSS16_BUSY: u32 = 3;
    pub(in super::super) const CALL_GATE16: u32 = 4;
    pub(in super::super) const TASK_GATE: u32 = 5;
    pub(in super::super) const INTERRUPT_GATE16: u32 = 6;
    pub(in super::super) const TRAP_GATE16: u32 = 7;
    pub(in super::super) const TSS_AVAILABLE: u32 = 9;
    pub(in super::super) const TSS_BUSY: u32 = 11;
    pub(in super::super) const CALL_GATE: u32 = 12;
    pub(in super::super) const INTERRUPT_GATE: u32 = 14;
    pub(in super::super) const TRAP_GATE: u32 = 15;
}

/// An entry of a descriptor table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptor {
    /// Linear address of the entry.
    pub(super) linear: u64,
    /// The first 8 bytes.
    pub(super) low: u64,
    /// The second 8 bytes of a 16-byte entry (long mode), else zero.
    pub(super) high: u64,
}

impl Descriptor {
    pub(super) fn attributes(&self) -> SegmentAttributes {
        SegmentAttributes((self.low >> 40) as u32 & 0xf0ff)
    }

    /// Type of a system descriptor; `None` for code and data.
    pub(super) fn system_kind(&self) -> Option<u32> {
        let attributes = self.attributes();
        (!attributes.is_code_or_data()).then_some(attributes.kind())
    }

    pub(super) fn base(&self) -> u64 {
        let low = self.low >> 16 & 0xff_ffff | self.low >> 32 & 0xff00_0000;
        low | self.high << 32
    }

    /// Last valid offset, granularity applied.
    pub(super) fn limit(&self) -> u32 {
        let limit = (self.low & 0xffff) as u32 | (self.low >> 32) as u32 & 0xf_0000;
        if self.low & 1 << 55 != 0 {
            limit << 12 | 0xfff
        } else {
            limit
        }
    }

    /// The segment register that `selector` loads from this entry, marked as accessed.
    pub(super) fn segment(&self, selector: u16) -> Segment {
        let mut attributes = self.attributes();
        if attributes.is_code_or_data() {
            attributes.0 |= 1;
        }
        Segment {
            base: self.base(),
            limit: self.limit(),
            attributes,
            selector,
        }
    }

    /// Target selector of a gate.
    pub(super) fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }

    /// Target offset of a gate: 16, 32 or 64 bits, by its kind and size.
    pub(super) fn gate_offset(&self) -> u64 {
        let low = self.low & 0xffff;
        if self.attributes().kind() & 8 == 0 {
            return low;
        }
        low | self.low >> 32 & 0xffff_0000 | self.high << 32
    }

    /// Parameter count of a call gate.
    pub(super) fn gate_parameters(&self) -> u64 {
        self.low >> 32 & 0x1f
    }

    /// Interrupt-stack-table index of a long-mode gate.
    pub(super) fn gate_ist(&self) -> u64 {
        self.low >> 32 & 7
    }
}

/// A fault with the error code of `selector`; `ext` is its EXT bit (SDM vol. 3A, 6.13).
pub(super) fn selector_fault(vector: u8, selector: u16, ext: u32) -> Trap {
    Trap::coded(vector, u32::from(selector & 0xfffc) | ext)
}

/// Whether the selector is null.
pub(super) const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// Requested privilege level of a selector.
pub(super) const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Linear address of a selector's table entry of `size` bytes; `None` beyond the table's limit.
fn entry(cpu: &Cpu, selector: u16, size: u32) -> Option<u64> {
    let index = u32::from(selector & 0xfff8);
    let (base, limit) = if selector & 4 == 0 {
        (cpu.gdtr.base, u32::from(cpu.gdtr.limit))
    } else if cpu.ldtr.attributes.unusable() {
        return None;
    } else {
        (cpu.ldtr.base, cpu.ldtr.limit)
    };
    if index + (size - 1) > limit {
        return None;
    }
    let linear = base.wrapping_add(u64::from(index));
    Some(if cpu.long_mode() {
        linear
    } else {
        linear & 0xffff_ffff
    })
}

/// Reads the entry of a selector that is not null; system entries have 16 bytes in long mode.
/// `None` beyond the table's limit.
pub(super) fn lookup<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
) -> Result<Option<Descriptor>, Trap> {
    let Some(linear) = entry(cpu, selector, 8) else {
        return Ok(None);
    };
    let low = load(cpu, env, linear, 8, Privilege::System)?;
    let mut descriptor = Descriptor {
        linear,
        low,
        high: 0,
    };
    let wide = cpu.long_mode()
        && matches!(
            descriptor.system_kind(),
            Some(kind::LDT | kind::TSS_AVAILABLE | kind::TSS_BUSY | kind::CALL_GATE)
        );
    if wide {
        if entry(cpu, selector, 16).is_none() {
            return Ok(None);
        }
        descriptor.high = load(cpu, env, linear.wrapping_add(8), 8, Privilege::System)?;
        // The upper half repeats the type field, which must be zero.
        if descriptor.high >> 40 & 0x1f != 0 {
            return Ok(None);
        }
    }
    Ok(Some(descriptor))
}

/// Reads the entry of a selector; `vector` with its error code beyond the table's limit.
pub(super) fn require<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    vector: u8,
    ext: u32,
) -> Result<Descriptor, Trap> {
    lookup(cpu, env, selector)?.ok_or_else(|| selector_fault(vector, selector, ext))
}

/// Changes the access byte of a descriptor in memory, as supervisor.
pub(super) fn update_access<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    linear: u64,
    f: &mut dyn FnMut(u64) -> u64,
) -> Result<u64, Trap> {
    // `Env::update` works at the current level; descriptor tables are the supervisor's.
    let level = std::mem::replace(&mut cpu.cpl, 0);
    let result = env.update(cpu, linear.wrapping_add(5), 1, f);
    cpu.cpl = level;
    result
}

/// Sets the accessed bit of a code or data descriptor, if it is not set.
pub(super) fn mark_accessed<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    descriptor: &Descriptor,
) -> Result<(), Trap> {
    if descriptor.attributes().0 & 1 == 0 {
        update_access(cpu, env, descriptor.linear, &mut |access| access | 1)?;
    }
    Ok(())
}

/// A code segment that control is transferred to: checked and marked as accessed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodeTarget {
    pub(super) segment: Segment,
    pub(super) rip: u64,
}

impl CodeTarget {
    /// `descriptor` as CS at level `cpl` with the instruction pointer `offset`.
    ///
    /// # Errors
    /// #NP when it is not present, #GP(0) when the offset is not valid in it.
    pub(super) fn new<E: Env>(
        cpu: &mut Cpu,
        env: &mut E,
        descriptor: &Descriptor,
        selector: u16,
        cpl: u8,
        offset: u64,
        ext: u32,
    ) -> Result<Self, Trap> {
        let attributes = descriptor.attributes();
        if !attributes.present() {
            return Err(selector_fault(ex::NP, selector, ext));
        }
        let segment = descriptor.segment(selector & !3 | u16::from(cpl));
        let rip = if cpu.long_mode() && attributes.long() {
            if attributes.big() {
                return Err(selector_fault(ex::GP, selector, ext));
            }
            if !ringfence_x86::paging::is_canonical(offset) {
                return Err(Trap::coded(ex::GP, ext));
            }
            offset
        } else {
            let offset = offset & 0xffff_ffff;
            if offset > u64::from(segment.limit) {
                return Err(Trap::coded(ex::GP, ext));
            }
            offset
        };
        mark_accessed(cpu, env, descriptor)?;
        Ok(Self { segment, rip })
    }

    /// Makes it the current code segment, at the privilege level of its selector.
    pub(super) fn enter(self, cpu: &mut Cpu) {
        cpu.cpl = rpl(self.segment.selector);
        cpu.seg[crate::cpu::CS] = self.segment;
        cpu.rip = self.rip;
    }
}
