//! IRET, IRETD and IRETQ (SDM vol. 2).

use iced_x86::{Code, Instruction};
use ringfence_x86::{cr, flags};

use super::super::next_rip;
use super::descriptor::{CodeTarget, rpl};
use super::far::{return_stack, return_target};
use super::segment::{drop_inner_segments, enter_stack, enter_virtual8086, set_real_mode_segment};
use super::stack::Stack;
use super::task;
use crate::cpu::{CS, Cpu, RSP};
use crate::env::{Env, Trap};

/// Flags that IRET loads at any level: the arithmetic ones, TF, DF and NT.
const ANY_LEVEL: u64 = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT;
/// And those that a 16-bit image does not have.
const UPPER: u64 = flags::RF | flags::AC | flags::ID;

/// What every IRET pops.
struct Frame {
    rip: u64,
    cs: u16,
    flags: u64,
}

/// IRET of each operand size.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    let size = match instruction.code() {
        Code::Iretw => 2,
        Code::Iretd => 4,
        Code::Iretq => 8,
        _ => return None,
    };
    let result = if cpu.real_mode() {
        real(cpu, env, size)
    } else if cpu.virtual8086() {
        virtual8086(cpu, env, size)
    } else {
        protected(cpu, env, size, next_rip(cpu, instruction))
    };
    if result.is_ok() {
        cpu.nmi_blocked = false;
    }
    Some(result)
}

fn pop_frame<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    stack: &mut Stack,
    size: usize,
) -> Result<Frame, Trap> {
    let rip = stack.pop(cpu, env, size)?;
    let cs = stack.pop(cpu, env, size)? as u16;
    let flags = stack.pop(cpu, env, size)?;
    Ok(Frame { rip, cs, flags })
}

/// Replaces the flags of `writable`.
fn load_flags(cpu: &mut Cpu, image: u64, writable: u64) {
    cpu.rflags = cpu.rflags & !writable | image & writable | flags::FIXED;
}

fn real<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize) -> Result<(), Trap> {
    let mut stack = Stack::current(cpu, 0);
    let frame = pop_frame(cpu, env, &mut stack, size)?;
    if frame.rip > u64::from(cpu.seg[CS].limit) {
        return Err(Trap::GP0);
    }
    cpu.gpr[RSP] = stack.pointer;
    set_real_mode_segment(cpu, CS, frame.cs);
    cpu.rip = frame.rip;
    let upper = if size == 2 { 0 } else { UPPER };
    load_flags(
        cpu,
        frame.flags,
        ANY_LEVEL | flags::IF | flags::IOPL | upper,
    );
    Ok(())
}

fn virtual8086<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize) -> Result<(), Trap> {
    let full = cpu.rflags & flags::IOPL == flags::IOPL;
    if !full && (cpu.cr4 & cr::CR4_VME == 0 || size != 2) {
        return Err(Trap::GP0);
    }
    let mut stack = Stack::current(cpu, 0);
    let frame = pop_frame(cpu, env, &mut stack, size)?;
    if frame.rip > u64::from(cpu.seg[CS].limit) {
        return Err(Trap::GP0);
    }
    let interrupts = frame.flags & flags::IF != 0;
    if !full && (frame.flags & flags::TF != 0 || interrupts && cpu.rflags & flags::VIP != 0) {
        return Err(Trap::GP0);
    }
    cpu.gpr[RSP] = stack.pointer;
    set_real_mode_segment(cpu, CS, frame.cs);
    cpu.rip = frame.rip;
    if full {
        let upper = if size == 2 { 0 } else { UPPER };
        load_flags(cpu, frame.flags, ANY_LEVEL | flags::IF | upper);
    } else {
        let image = if interrupts {
            frame.flags | flags::VIF
        } else {
            frame.flags & !flags::VIF
        };
        load_flags(cpu, image, ANY_LEVEL | flags::VIF);
    }
    Ok(())
}

/// Flags that IRET may load at the current level.
fn writable(cpu: &Cpu, size: usize) -> u64 {
    let mut writable = ANY_LEVEL;
    let iopl = (cpu.rflags & flags::IOPL) >> 12;
    if size > 2 {
        writable |= UPPER;
    }
    if u64::from(cpu.cpl) <= iopl {
        writable |= flags::IF;
    }
    if cpu.cpl == 0 {
        writable |= flags::IOPL;
        if size > 2 {
            writable |= flags::VIF | flags::VIP;
        }
    }
    writable
}

fn protected<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize, next: u64) -> Result<(), Trap> {
    if cpu.rflags & flags::NT != 0 {
        return if cpu.long_mode() {
            Err(Trap::GP0)
        } else {
            task::unnest(cpu, env, next)
        };
    }
    if cpu.mode64() {
        return from_64_bit(cpu, env, size);
    }
    let mut stack = Stack::current(cpu, 0);
    let frame = pop_frame(cpu, env, &mut stack, size)?;
    if frame.flags & flags::VM != 0 && cpu.cpl == 0 && size == 4 && !cpu.long_mode() {
        return to_virtual8086(cpu, env, &mut stack, &frame);
    }
    let target = return_target(cpu, env, frame.cs, frame.rip)?;
    let allowed = writable(cpu, size);
    let outer = rpl(frame.cs) > cpu.cpl;
    if !outer {
        cpu.gpr[RSP] = stack.pointer;
        target.enter(cpu);
        load_flags(cpu, frame.flags, allowed);
        return Ok(());
    }
    let pointer = stack.pop(cpu, env, size)?;
    let ss = stack.pop(cpu, env, size)? as u16;
    let segment = return_stack(cpu, env, ss, &target)?;
    leave(cpu, target, segment, pointer, outer);
    load_flags(cpu, frame.flags, allowed);
    Ok(())
}

/// 64-bit mode always pops SS and RSP as well.
fn from_64_bit<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize) -> Result<(), Trap> {
    let stack = Stack::current(cpu, 0);
    let [rip, cs, image, pointer, ss] = stack.peek_frame(cpu, env, size)?;
    let (cs, ss) = (cs as u16, ss as u16);
    let target = return_target(cpu, env, cs, rip)?;
    let allowed = writable(cpu, size);
    let outer = rpl(cs) > cpu.cpl;
    let segment = return_stack(cpu, env, ss, &target)?;
    leave(cpu, target, segment, pointer, outer);
    load_flags(cpu, image, allowed);
    Ok(())
}

fn leave(
    cpu: &mut Cpu,
    target: CodeTarget,
    stack: ringfence_engine::Segment,
    pointer: u64,
    outer: bool,
) {
    target.enter(cpu);
    enter_stack(cpu, stack, pointer);
    if outer {
        drop_inner_segments(cpu);
    }
}

fn to_virtual8086<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    stack: &mut Stack,
    frame: &Frame,
) -> Result<(), Trap> {
    let pointer = stack.pop(cpu, env, 4)?;
    let mut pop = |cpu: &mut Cpu| stack.pop(cpu, env, 4).map(|value| value as u16);
    let ss = pop(cpu)?;
    let (es, ds, fs, gs) = (pop(cpu)?, pop(cpu)?, pop(cpu)?, pop(cpu)?);
    if frame.rip & !0xffff != 0 {
        return Err(Trap::GP0);
    }
    let allowed = writable(cpu, 4) | flags::VM;
    load_flags(cpu, frame.flags, allowed);
    enter_virtual8086(cpu, [es, frame.cs, ss, ds, fs, gs]);
    cpu.rip = frame.rip;
    cpu.gpr[RSP] = pointer;
    Ok(())
}
