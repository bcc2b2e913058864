//! Loads and stores of segment registers (SDM vol. 2, MOV, POP and LDS; vol. 3A, 5.5 and 5.6).

use iced_x86::{Code, Instruction, Register};
use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::exception as ex;

use super::super::next_rip;
use super::descriptor::{is_null, lookup, mark_accessed, require, rpl, selector_fault};
use super::operand::{self, segment_index};
use super::stack::{Stack, set_pointer};
use crate::cpu::{CS, Cpu, DS, ES, FS, GS, RSP, SS};
use crate::env::{Env, Privilege, Trap};

/// Attributes of every segment in virtual-8086 mode: present, DPL 3, writable data, accessed.
const VIRTUAL8086: SegmentAttributes = SegmentAttributes(0xf3);

/// Loads ES, SS, DS, FS or GS (its index in [`Cpu::seg`]) with all checks of the current mode.
///
/// # Errors
/// What `MOV Sreg` raises.
pub fn load_segment<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    index: usize,
    selector: u16,
) -> Result<(), Trap> {
    if cpu.real_mode() || cpu.virtual8086() {
        set_real_mode_segment(cpu, index, selector);
        return Ok(());
    }
    let segment = if index == SS {
        let (cpl, null) = (cpu.cpl, cpu.mode64() && cpu.cpl < 3);
        stack_segment(cpu, env, selector, cpl, null, Faults::LOAD)?
    } else {
        data_segment(cpu, env, selector)?
    };
    if let Some(slot) = cpu.seg.get_mut(index) {
        *slot = segment;
    }
    Ok(())
}

/// Loads a segment register as real mode and virtual-8086 mode do.
///
/// Real mode changes the base alone: limit and attributes stay what protected mode left.
pub fn set_real_mode_segment(cpu: &mut Cpu, index: usize, selector: u16) {
    let virtual8086 = cpu.virtual8086();
    let Some(segment) = cpu.seg.get_mut(index) else {
        return;
    };
    segment.selector = selector;
    segment.base = u64::from(selector) << 4;
    if virtual8086 {
        segment.limit = 0xffff;
        segment.attributes = VIRTUAL8086;
    } else if segment.attributes.unusable() {
        // A null selector of protected mode left no attributes to keep.
        segment.limit = 0xffff;
        segment.attributes = SegmentAttributes::DATA16;
    }
}

/// A segment register that holds null selector `selector`.
pub(super) fn null_segment(selector: u16) -> Segment {
    Segment {
        attributes: SegmentAttributes(SegmentAttributes::UNUSABLE),
        selector,
        ..Segment::default()
    }
}

/// Vectors that a check of SS raises, with the EXT bit of their error codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// #GP, or #TS where the selector comes from a task-state segment.
    pub(super) invalid: u8,
    pub(super) ext: u32,
}

impl Faults {
    pub(super) const LOAD: Self = Self {
        invalid: ex::GP,
        ext: 0,
    };
}

/// Checks a selector for SS at privilege level `cpl`; `null_allowed` in 64-bit mode below 3.
pub(super) fn stack_segment<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    cpl: u8,
    null_allowed: bool,
    faults: Faults,
) -> Result<Segment, Trap> {
    if is_null(selector) {
        if null_allowed && rpl(selector) == cpl {
            return Ok(null_stack(cpl));
        }
        return Err(Trap::coded(faults.invalid, faults.ext));
    }
    let descriptor = require(cpu, env, selector, faults.invalid, faults.ext)?;
    let attributes = descriptor.attributes();
    if rpl(selector) != cpl || !attributes.is_writable() || attributes.dpl() != cpl {
        return Err(selector_fault(faults.invalid, selector, faults.ext));
    }
    if !attributes.present() {
        return Err(selector_fault(ex::SS, selector, faults.ext));
    }
    mark_accessed(cpu, env, &descriptor)?;
    Ok(descriptor.segment(selector))
}

/// SS with a null selector, as 64-bit mode uses it at level `cpl`.
pub(super) fn null_stack(cpl: u8) -> Segment {
    let mut segment = null_segment(u16::from(cpl));
    segment.attributes.0 |= u32::from(cpl) << 5;
    segment
}

fn data_segment<E: Env>(cpu: &mut Cpu, env: &mut E, selector: u16) -> Result<Segment, Trap> {
    if is_null(selector) {
        return Ok(null_segment(selector));
    }
    let descriptor = require(cpu, env, selector, ex::GP, 0)?;
    let attributes = descriptor.attributes();
    let level = cpu.cpl.max(rpl(selector));
    if !attributes.is_readable() || !attributes.is_conforming() && level > attributes.dpl() {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    if !attributes.present() {
        return Err(selector_fault(ex::NP, selector, 0));
    }
    mark_accessed(cpu, env, &descriptor)?;
    Ok(descriptor.segment(selector))
}

/// After a return to an outer level: data segments that it may not use become null (SDM vol. 2,
/// RET).
pub(super) fn drop_inner_segments(cpu: &mut Cpu) {
    for index in [ES, DS, FS, GS] {
        let segment = &mut cpu.seg[index];
        let attributes = segment.attributes;
        let inner = attributes.dpl() < cpu.cpl && !attributes.is_conforming();
        if !attributes.unusable() && inner {
            *segment = null_segment(0);
        }
    }
}

/// `MOV Sreg, r/m16`, `MOV r/m, Sreg`, PUSH and POP of segment registers, LDS and friends.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    Some(match instruction.code() {
        Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 => move_to(cpu, env, instruction),
        Mov_rm16_Sreg | Mov_r32m16_Sreg | Mov_r64m16_Sreg => move_from(cpu, env, instruction),
        Pushw_ES | Pushw_CS | Pushw_SS | Pushw_DS | Pushw_FS | Pushw_GS => {
            push(cpu, env, instruction, 2)
        }
        Pushd_ES | Pushd_CS | Pushd_SS | Pushd_DS | Pushd_FS | Pushd_GS => {
            push(cpu, env, instruction, 4)
        }
        Pushq_FS | Pushq_GS => push(cpu, env, instruction, 8),
        Popw_ES | Popw_SS | Popw_DS | Popw_FS | Popw_GS => pop(cpu, env, instruction, 2),
        Popd_ES | Popd_SS | Popd_DS | Popd_FS | Popd_GS => pop(cpu, env, instruction, 4),
        Popq_FS | Popq_GS => pop(cpu, env, instruction, 8),
        Les_r16_m1616 | Les_r32_m1632 => far_pointer(cpu, env, instruction, ES),
        Lds_r16_m1616 | Lds_r32_m1632 => far_pointer(cpu, env, instruction, DS),
        Lss_r16_m1616 | Lss_r32_m1632 | Lss_r64_m1664 => far_pointer(cpu, env, instruction, SS),
        Lfs_r16_m1616 | Lfs_r32_m1632 | Lfs_r64_m1664 => far_pointer(cpu, env, instruction, FS),
        Lgs_r16_m1616 | Lgs_r32_m1632 | Lgs_r64_m1664 => far_pointer(cpu, env, instruction, GS),
        _ => return None,
    })
}

fn move_to<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    if instruction.op0_register() == Register::CS {
        return Err(Trap::UD);
    }
    let index = segment_index(instruction.op0_register());
    let selector = operand::read(cpu, env, instruction, 1, 2)? as u16;
    let next = next_rip(cpu, instruction);
    load_segment(cpu, env, index, selector)?;
    cpu.interrupt_shadow |= index == SS;
    cpu.rip = next;
    Ok(())
}

fn move_from<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let selector = cpu.seg[segment_index(instruction.op1_register())].selector;
    operand::write(cpu, env, instruction, u64::from(selector))?;
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

fn push<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
) -> Result<(), Trap> {
    let selector = cpu.seg[segment_index(instruction.op0_register())].selector;
    let mut stack = Stack::current(cpu, 0);
    stack.push(cpu, env, size, u64::from(selector))?;
    cpu.gpr[RSP] = stack.pointer;
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

fn pop<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
) -> Result<(), Trap> {
    let index = segment_index(instruction.op0_register());
    let mut stack = Stack::current(cpu, 0);
    let selector = stack.pop(cpu, env, size)? as u16;
    let next = next_rip(cpu, instruction);
    load_segment(cpu, env, index, selector)?;
    // The pointer moves by the width of the stack that was popped from.
    cpu.gpr[RSP] = stack.pointer;
    cpu.interrupt_shadow |= index == SS;
    cpu.rip = next;
    Ok(())
}

fn far_pointer<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    index: usize,
) -> Result<(), Trap> {
    let destination = instruction.op0_register();
    let (offset, selector) = load_far_pointer(cpu, env, instruction, destination.size())?;
    let next = next_rip(cpu, instruction);
    load_segment(cpu, env, index, selector)?;
    operand::set_register(cpu, destination, offset);
    cpu.rip = next;
    Ok(())
}

/// Loads a far pointer from the memory operand: an offset of `size` bytes, then the selector.
pub(super) fn load_far_pointer<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
) -> Result<(u64, u16), Trap> {
    let linear = operand::memory(cpu, instruction, 0, size, false)?;
    let offset = operand::load(cpu, env, linear, size, Privilege::Current)?;
    let linear = operand::memory(cpu, instruction, size as u64, 2, false)?;
    let selector = operand::load(cpu, env, linear, 2, Privilege::Current)? as u16;
    Ok((offset, selector))
}

/// What LAR, LSL, VERR and VERW see of a selector: its attributes and limit, when the current
/// level may know them. `system_kinds` has a bit for each system type that counts.
pub(super) fn visible<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    system_kinds: u16,
) -> Result<Option<(SegmentAttributes, u64)>, Trap> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(descriptor) = lookup(cpu, env, selector)? else {
        return Ok(None);
    };
    let attributes = descriptor.attributes();
    if !attributes.is_code_or_data() && system_kinds & 1 << attributes.kind() == 0 {
        return Ok(None);
    }
    if !attributes.is_conforming() && cpu.cpl.max(rpl(selector)) > attributes.dpl() {
        return Ok(None);
    }
    Ok(Some((attributes, u64::from(descriptor.limit()))))
}

/// Makes a checked SS and its pointer current.
pub(super) fn enter_stack(cpu: &mut Cpu, segment: Segment, pointer: u64) {
    cpu.seg[SS] = segment;
    set_pointer(cpu, pointer);
}

/// Loads all segment registers of virtual-8086 mode; RFLAGS.VM is set.
pub(super) fn enter_virtual8086(cpu: &mut Cpu, selectors: [u16; 6]) {
    for (index, selector) in [ES, CS, SS, DS, FS, GS].into_iter().zip(selectors) {
        set_real_mode_segment(cpu, index, selector);
    }
    cpu.cpl = 3;
}
