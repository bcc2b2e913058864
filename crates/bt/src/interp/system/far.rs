//! Far JMP, CALL and RET (SDM vol. 2; vol. 3A, 5.8).

use iced_x86::{Code, Instruction};
use ringfence_engine::Segment;
use ringfence_x86::exception as ex;

use super::super::next_rip;
use super::descriptor::{CodeTarget, Descriptor, is_null, kind, require, rpl, selector_fault};
use super::operand::{self, mask};
use super::segment::{
    self, Faults, drop_inner_segments, enter_stack, load_far_pointer, null_stack, stack_segment,
};
use super::stack::Stack;
use super::task::{self, Reason};
use crate::cpu::{CS, Cpu, RSP, SS};
use crate::env::{Env, Privilege, Trap};

/// A far transfer: where to, and how wide its operands are.
#[derive(Clone, Copy)]
struct Far {
    selector: u16,
    offset: u64,
    /// Operand size in bytes.
    size: usize,
    /// CALL rather than JMP.
    call: bool,
    next: u64,
}

/// Far JMP, CALL and RET.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let size = match instruction.code() {
        Jmp_ptr1616 | Jmp_m1616 | Call_ptr1616 | Call_m1616 | Retfw | Retfw_imm16 => 2,
        Jmp_ptr1632 | Jmp_m1632 | Call_ptr1632 | Call_m1632 | Retfd | Retfd_imm16 => 4,
        Jmp_m1664 | Call_m1664 | Retfq | Retfq_imm16 => 8,
        _ => return None,
    };
    let (selector, offset) = match instruction.code() {
        Retfw | Retfd | Retfq => return Some(ret(cpu, env, size, 0)),
        Retfw_imm16 | Retfd_imm16 | Retfq_imm16 => {
            return Some(ret(cpu, env, size, u64::from(instruction.immediate16())));
        }
        Jmp_ptr1616 | Call_ptr1616 => (
            instruction.far_branch_selector(),
            u64::from(instruction.far_branch16()),
        ),
        Jmp_ptr1632 | Call_ptr1632 => (
            instruction.far_branch_selector(),
            u64::from(instruction.far_branch32()),
        ),
        _ => match load_far_pointer(cpu, env, instruction, size) {
            Ok((offset, selector)) => (selector, offset),
            Err(trap) => return Some(Err(trap)),
        },
    };
    let call = matches!(
        instruction.code(),
        Call_ptr1616 | Call_m1616 | Call_ptr1632 | Call_m1632 | Call_m1664
    );
    let far = Far {
        selector,
        offset,
        size,
        call,
        next: next_rip(cpu, instruction),
    };
    Some(if cpu.real_mode() || cpu.virtual8086() {
        real(cpu, env, far)
    } else {
        protected(cpu, env, far)
    })
}

fn real<E: Env>(cpu: &mut Cpu, env: &mut E, far: Far) -> Result<(), Trap> {
    if far.offset > u64::from(cpu.seg[CS].limit) {
        return Err(Trap::GP0);
    }
    let mut stack = Stack::current(cpu, 0);
    if far.call {
        push_return(cpu, env, &mut stack, far.size, far.next)?;
    }
    cpu.gpr[RSP] = stack.pointer;
    segment::set_real_mode_segment(cpu, CS, far.selector);
    cpu.rip = far.offset;
    Ok(())
}

fn push_return<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    stack: &mut Stack,
    size: usize,
    next: u64,
) -> Result<(), Trap> {
    let selector = u64::from(cpu.seg[CS].selector);
    stack.push(cpu, env, size, selector)?;
    stack.push(cpu, env, size, next)
}

fn protected<E: Env>(cpu: &mut Cpu, env: &mut E, far: Far) -> Result<(), Trap> {
    if is_null(far.selector) {
        return Err(Trap::GP0);
    }
    let descriptor = require(cpu, env, far.selector, ex::GP, 0)?;
    let attributes = descriptor.attributes();
    let refused = Err(selector_fault(ex::GP, far.selector, 0));
    let Some(kind) = descriptor.system_kind() else {
        let allowed = attributes.is_code()
            && if attributes.is_conforming() {
                attributes.dpl() <= cpu.cpl
            } else {
                attributes.dpl() == cpu.cpl && rpl(far.selector) <= cpu.cpl
            };
        return if allowed {
            same_level(cpu, env, far, &descriptor)
        } else {
            refused
        };
    };
    if attributes.dpl() < cpu.cpl.max(rpl(far.selector)) {
        return refused;
    }
    let long = cpu.long_mode();
    match kind {
        kind::CALL_GATE => through_gate(cpu, env, far, &descriptor, if long { 8 } else { 4 }),
        kind::CALL_GATE16 if !long => through_gate(cpu, env, far, &descriptor, 2),
        kind::TSS_AVAILABLE | kind::TSS16_AVAILABLE if !long => task::switch(
            cpu,
            env,
            far.selector,
            &descriptor,
            reason(far),
            far.next,
            0,
        ),
        kind::TASK_GATE if !long => task::through_gate(
            cpu,
            env,
            far.selector,
            &descriptor,
            reason(far),
            far.next,
            0,
        ),
        _ => refused,
    }
}

fn reason(far: Far) -> Reason {
    if far.call { Reason::Call } else { Reason::Jump }
}

/// To a code segment at the current privilege level.
fn same_level<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    far: Far,
    descriptor: &Descriptor,
) -> Result<(), Trap> {
    let cpl = cpu.cpl;
    let offset = far.offset & mask(far.size);
    let mut stack = Stack::current(cpu, 0);
    let target = CodeTarget::new(cpu, env, descriptor, far.selector, cpl, offset, 0)?;
    if far.call {
        push_return(cpu, env, &mut stack, far.size, far.next)?;
    }
    cpu.gpr[RSP] = stack.pointer;
    target.enter(cpu);
    Ok(())
}

/// Through a call gate whose frame has items of `size` bytes.
fn through_gate<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    far: Far,
    gate: &Descriptor,
    size: usize,
) -> Result<(), Trap> {
    if !gate.attributes().present() {
        return Err(selector_fault(ex::NP, far.selector, 0));
    }
    let selector = gate.gate_selector();
    if is_null(selector) {
        return Err(Trap::GP0);
    }
    let descriptor = require(cpu, env, selector, ex::GP, 0)?;
    let attributes = descriptor.attributes();
    let dpl = attributes.dpl();
    let inner = far.call && !attributes.is_conforming() && dpl < cpu.cpl;
    let allowed = if far.call || attributes.is_conforming() {
        dpl <= cpu.cpl
    } else {
        dpl == cpu.cpl
    };
    let wide = !cpu.long_mode() || attributes.long() && !attributes.big();
    if !attributes.is_code() || !allowed || !wide {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    let cpl = if inner { dpl } else { cpu.cpl };
    let target = CodeTarget::new(cpu, env, &descriptor, selector, cpl, gate.gate_offset(), 0)?;
    if !far.call {
        target.enter(cpu);
        return Ok(());
    }
    if !inner {
        let mut stack = Stack::current(cpu, 0);
        push_return(cpu, env, &mut stack, size, far.next)?;
        cpu.gpr[RSP] = stack.pointer;
        target.enter(cpu);
        return Ok(());
    }
    let (segment, mut stack) = inner_stack(cpu, env, cpl, 0)?;
    let old = Stack::current(cpu, 0);
    let selector = u64::from(cpu.seg[SS].selector);
    stack.push(cpu, env, size, selector)?;
    stack.push(cpu, env, size, old.pointer)?;
    let parameters = if size == 8 { 0 } else { gate.gate_parameters() };
    for index in (0..parameters).rev() {
        let value = old.peek(cpu, env, index * size as u64, size)?;
        stack.push(cpu, env, size, value)?;
    }
    push_return(cpu, env, &mut stack, size, far.next)?;
    target.enter(cpu);
    enter_stack(cpu, segment, stack.pointer);
    Ok(())
}

/// SS and the stack of inner level `cpl`, from the task-state segment (SDM vol. 3A, 5.8.5).
pub(super) fn inner_stack<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    cpl: u8,
    ext: u32,
) -> Result<(Segment, Stack), Trap> {
    let level = u64::from(cpl);
    if cpu.long_mode() {
        let pointer = task_field(cpu, env, 4 + 8 * level, 8, ext)?;
        if !ringfence_x86::paging::is_canonical(pointer) {
            return Err(Trap::coded(ex::SS, ext));
        }
        return Ok((null_stack(cpl), Stack::flat(cpu, pointer, cpl, ext)));
    }
    let wide = cpu.tr.attributes.kind() & 8 != 0;
    let (size, at) = if wide {
        (4, 4 + 8 * level)
    } else {
        (2, 2 + 4 * level)
    };
    let pointer = task_field(cpu, env, at, size, ext)?;
    let selector = task_field(cpu, env, at + size as u64, 2, ext)? as u16;
    let faults = Faults {
        invalid: ex::TS,
        ext,
    };
    let segment = stack_segment(cpu, env, selector, cpl, false, faults)?;
    Ok((segment, Stack::inner(segment, pointer, ext)))
}

/// Reads a field of the current task-state segment; #TS beyond its limit.
pub(super) fn task_field<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    offset: u64,
    size: usize,
    ext: u32,
) -> Result<u64, Trap> {
    if cpu.tr.attributes.unusable() || offset + size as u64 - 1 > u64::from(cpu.tr.limit) {
        return Err(selector_fault(ex::TS, cpu.tr.selector, ext));
    }
    let linear = cpu.tr.base.wrapping_add(offset);
    let linear = if cpu.long_mode() {
        linear
    } else {
        linear & 0xffff_ffff
    };
    operand::load(cpu, env, linear, size, Privilege::System)
}

/// Far RET that drops `release` bytes of parameters.
fn ret<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize, release: u64) -> Result<(), Trap> {
    let mut stack = Stack::current(cpu, 0);
    let offset = stack.pop(cpu, env, size)?;
    let selector = stack.pop(cpu, env, size)? as u16;
    stack.adjust(release);
    if cpu.real_mode() || cpu.virtual8086() {
        if offset > u64::from(cpu.seg[CS].limit) {
            return Err(Trap::GP0);
        }
        cpu.gpr[RSP] = stack.pointer;
        segment::set_real_mode_segment(cpu, CS, selector);
        cpu.rip = offset;
        return Ok(());
    }
    let target = return_target(cpu, env, selector, offset)?;
    let cpl = rpl(selector);
    if cpl == cpu.cpl {
        cpu.gpr[RSP] = stack.pointer;
        target.enter(cpu);
        return Ok(());
    }
    let pointer = stack.pop(cpu, env, size)?;
    let ss = stack.pop(cpu, env, size)? as u16;
    let segment = return_stack(cpu, env, ss, &target)?;
    target.enter(cpu);
    let mut outer = pointer;
    cpu.seg[SS] = segment;
    match cpu.stack_bits() {
        16 => outer = outer & !0xffff | outer.wrapping_add(release) & 0xffff,
        _ => outer = outer.wrapping_add(release),
    }
    enter_stack(cpu, segment, outer);
    drop_inner_segments(cpu);
    Ok(())
}

/// Checks the CS that RET or IRET popped.
pub(super) fn return_target<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    offset: u64,
) -> Result<CodeTarget, Trap> {
    if is_null(selector) {
        return Err(Trap::GP0);
    }
    let descriptor = require(cpu, env, selector, ex::GP, 0)?;
    let attributes = descriptor.attributes();
    let level = rpl(selector);
    let allowed = attributes.is_code()
        && level >= cpu.cpl
        && if attributes.is_conforming() {
            attributes.dpl() <= level
        } else {
            attributes.dpl() == level
        };
    if !allowed {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    CodeTarget::new(cpu, env, &descriptor, selector, level, offset, 0)
}

/// Checks the SS that RET or IRET popped for the level and mode of `target`.
pub(super) fn return_stack<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    target: &CodeTarget,
) -> Result<Segment, Trap> {
    let cpl = rpl(target.segment.selector);
    let null_allowed = cpu.long_mode() && target.segment.attributes.long() && cpl < 3;
    stack_segment(cpu, env, selector, cpl, null_allowed, Faults::LOAD)
}
