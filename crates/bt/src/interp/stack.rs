//! PUSH and POP in their forms, ENTER and LEAVE, PUSHF and POPF.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use ringfence_x86::{cr, flags};

use super::address::{linear_address, load, store};
use super::register::{self, mask};
use super::{operand, retire};
use crate::cpu::{Cpu, RBP, RSP, SS};
use crate::env::{Env, Privilege, Trap};

/// Size of the stack pointer in bytes.
#[inline]
fn pointer_size(cpu: &Cpu) -> usize {
    (cpu.stack_bits() / 8) as usize
}

/// Bytes that a push, a pop or a near call moves.
#[inline]
pub fn transfer_size(cpu: &Cpu, instruction: &Instruction) -> usize {
    match instruction.stack_pointer_increment().unsigned_abs() {
        size @ (2 | 4 | 8) => size as usize,
        _ => (cpu.bitness() / 8) as usize,
    }
}

/// Pushes the low `size` bytes of `value`.
///
/// # Errors
/// #SS(0), or the faults of a store; RSP is then unchanged.
#[inline]
pub fn push<E: Env>(cpu: &mut Cpu, env: &mut E, size: usize, value: u64) -> Result<(), Trap> {
    let width = pointer_size(cpu);
    let pointer = cpu.gpr[RSP].wrapping_sub(size as u64) & mask(width);
    let linear = linear_address(cpu, SS, pointer, size, true)?;
    store(cpu, env, linear, size, value)?;
    register::write_index(cpu, RSP, width, pointer);
    Ok(())
}

/// Loads `size` bytes at `displacement` above the top of the stack.
///
/// # Errors
/// #SS(0), or the faults of a load.
#[inline]
pub fn peek<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    displacement: u64,
    size: usize,
) -> Result<u64, Trap> {
    let pointer = cpu.gpr[RSP].wrapping_add(displacement) & mask(pointer_size(cpu));
    let linear = linear_address(cpu, SS, pointer, size, false)?;
    load(cpu, env, linear, size)
}

/// Adds `bytes` to the stack pointer.
#[inline]
pub fn release(cpu: &mut Cpu, bytes: u64) {
    let width = pointer_size(cpu);
    let pointer = cpu.gpr[RSP].wrapping_add(bytes);
    register::write_index(cpu, RSP, width, pointer);
}

/// PUSH of a general register, memory or an immediate.
pub fn push_operand<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let size = transfer_size(cpu, instruction);
    let value = operand::read(cpu, env, instruction, 0, size)?;
    push(cpu, env, size, value)?;
    retire(cpu, instruction)
}

/// POP to a general register or memory.
pub fn pop_operand<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let size = transfer_size(cpu, instruction);
    let value = peek(cpu, env, 0, size)?;
    let old = cpu.gpr[RSP];
    release(cpu, size as u64);
    if instruction.op0_kind() == OpKind::Register {
        register::write(cpu, instruction.op0_register(), value);
        return retire(cpu, instruction);
    }
    // An address based on RSP uses its value after the pop.
    let written = operand::write(cpu, env, instruction, 0, size, value);
    if written.is_err() {
        cpu.gpr[RSP] = old;
        return written;
    }
    retire(cpu, instruction)
}

/// PUSHA and PUSHAD.
pub fn push_all<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = if instruction.code() == Code::Pushaw {
        2
    } else {
        4
    };
    let width = pointer_size(cpu);
    let old = cpu.gpr[RSP];
    let address = |cpu: &Cpu, index: usize| {
        let pointer = old.wrapping_sub((size * (index + 1)) as u64) & mask(width);
        linear_address(cpu, SS, pointer, size, true)
    };
    for index in 0..8 {
        let linear = address(cpu, index)?;
        env.check_store(cpu, linear, size, Privilege::Current)?;
    }
    for index in 0..8 {
        let linear = address(cpu, index)?;
        store(cpu, env, linear, size, cpu.gpr[index])?;
    }
    register::write_index(cpu, RSP, width, old.wrapping_sub(8 * size as u64));
    retire(cpu, instruction)
}

/// POPA and POPAD: the stored stack pointer is skipped.
pub fn pop_all<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = if instruction.code() == Code::Popaw {
        2
    } else {
        4
    };
    let mut values = [0; 8];
    for (slot, value) in values.iter_mut().enumerate() {
        *value = peek(cpu, env, (slot * size) as u64, size)?;
    }
    for (slot, value) in values.into_iter().enumerate() {
        if 7 - slot != RSP {
            register::write_index(cpu, 7 - slot, size, value);
        }
    }
    release(cpu, 8 * size as u64);
    retire(cpu, instruction)
}

/// ENTER.
pub fn enter<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = match instruction.code() {
        Code::Enterw_imm16_imm8 => 2,
        Code::Enterd_imm16_imm8 => 4,
        _ => 8,
    };
    let width = pointer_size(cpu);
    let allocated = u64::from(instruction.immediate16());
    let level = u64::from(instruction.immediate8_2nd() & 0x1f);
    let (frame, top) = (cpu.gpr[RBP], cpu.gpr[RSP]);
    let step = size as u64;
    let slot = |cpu: &Cpu, base: u64, below: u64, write: bool| {
        let pointer = base.wrapping_sub(below.wrapping_mul(step)) & mask(width);
        linear_address(cpu, SS, pointer, size, write)
    };
    let new_frame = top.wrapping_sub(step) & mask(width);
    let pushed = if level > 0 { level + 1 } else { 1 };
    for index in 1..level {
        let linear = slot(cpu, frame, index, false)?;
        load(cpu, env, linear, size)?;
    }
    let bottom = top.wrapping_sub(pushed * step).wrapping_sub(allocated) & mask(width);
    for index in 0..pushed {
        let linear = slot(cpu, top, index + 1, true)?;
        env.check_store(cpu, linear, size, Privilege::Current)?;
    }
    // The final stack pointer must be writable as well, though nothing is stored there.
    let linear = linear_address(cpu, SS, bottom, size, true)?;
    env.check_store(cpu, linear, size, Privilege::Current)?;
    for index in 0..pushed {
        // The frames may overlap: each pointer is read after the one before it was pushed.
        let value = match index {
            0 => frame,
            _ if index == level => new_frame,
            _ => {
                let linear = slot(cpu, frame, index, false)?;
                load(cpu, env, linear, size)?
            }
        };
        let linear = slot(cpu, top, index + 1, true)?;
        store(cpu, env, linear, size, value)?;
    }
    register::write_index(cpu, RBP, size, new_frame);
    register::write_index(cpu, RSP, width, bottom);
    retire(cpu, instruction)
}

/// LEAVE.
pub fn leave<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = match instruction.code() {
        Code::Leavew => 2,
        Code::Leaved => 4,
        _ => 8,
    };
    let width = pointer_size(cpu);
    let frame = cpu.gpr[RBP] & mask(width);
    let linear = linear_address(cpu, SS, frame, size, false)?;
    let value = load(cpu, env, linear, size)?;
    register::write_index(cpu, RSP, width, frame.wrapping_add(size as u64));
    register::write_index(cpu, RBP, size, value);
    retire(cpu, instruction)
}

/// Whether virtual-8086 code must use VME's virtual interrupt flag; #GP(0) where it may not.
fn virtual_interrupts(cpu: &Cpu, size: usize) -> Result<bool, Trap> {
    if !cpu.virtual8086() || cpu.rflags & flags::IOPL == flags::IOPL {
        return Ok(false);
    }
    if cpu.cr4 & cr::CR4_VME != 0 && size == 2 {
        Ok(true)
    } else {
        Err(Trap::GP0)
    }
}

/// PUSHF, PUSHFD, PUSHFQ: VM and RF read as zero.
pub fn push_flags<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let size = match instruction.code() {
        Code::Pushfw => 2,
        Code::Pushfd => 4,
        _ => 8,
    };
    let mut image = cpu.rflags & !(flags::VM | flags::RF);
    if virtual_interrupts(cpu, size)? {
        let interrupt = if cpu.rflags & flags::VIF != 0 {
            flags::IF
        } else {
            0
        };
        image = image & !flags::IF | flags::IOPL | interrupt;
    }
    push(cpu, env, size, image)?;
    retire(cpu, instruction)
}

/// POPF, POPFD, POPFQ (SDM vol. 2B, table 4-16).
pub fn pop_flags<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    use flags::{AC, ARITHMETIC, DF, FIXED, ID, IF, IOPL, NT, RF, TF, VIF, VIP};
    let size = match instruction.code() {
        Code::Popfw => 2,
        Code::Popfd => 4,
        _ => 8,
    };
    let virtualized = virtual_interrupts(cpu, size)?;
    let image = peek(cpu, env, 0, size)?;
    let iopl = (cpu.rflags & IOPL) >> 12;
    let mut changed = ARITHMETIC | TF | DF | NT;
    if size > 2 {
        changed |= AC | ID;
    }
    let mut rflags = cpu.rflags;
    if virtualized {
        if image & TF != 0 || image & IF != 0 && rflags & VIP != 0 {
            return Err(Trap::GP0);
        }
        rflags = rflags & !VIF | if image & IF != 0 { VIF } else { 0 };
    } else if cpu.virtual8086() || u64::from(cpu.cpl) <= iopl {
        changed |= IF;
    }
    if cpu.cpl == 0 {
        changed |= IOPL;
    }
    rflags = rflags & !changed | image & changed;
    cpu.rflags = rflags & !RF | FIXED;
    release(cpu, size as u64);
    retire(cpu, instruction)
}

/// Whether operand 0 is a segment register, and so not for this module.
#[inline]
pub fn is_segment_operand(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_segment_register()
}

/// Whether `instruction` loads SS: single-step traps wait for the instruction after it.
pub fn loads_ss(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::SS
}
