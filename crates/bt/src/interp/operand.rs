//! Operands of ordinary instructions: registers, immediates and memory alike.

use iced_x86::{Instruction, OpKind};

use super::address::{load, operand_address, store};
use super::arithmetic::Outcome;
use super::register::{self, mask};
use crate::cpu::Cpu;
use crate::env::{Env, Trap};

/// Size in bytes (1 to 8) of operand `index`, a general register or memory.
#[inline]
pub fn size(instruction: &Instruction, index: u32) -> usize {
    if instruction.op_kind(index) == OpKind::Register {
        register::gpr(instruction.op_register(index)).map_or(8, |r| r.size)
    } else {
        instruction.memory_size().size().clamp(1, 8)
    }
}

/// Value of operand `index` as `size` bytes, zero-extended; immediates are sign-extended first.
///
/// # Errors
/// The faults of a load, for memory.
#[inline]
pub fn read<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    index: u32,
    size: usize,
) -> Result<u64, Trap> {
    match instruction.op_kind(index) {
        OpKind::Register => Ok(register::read(cpu, instruction.op_register(index)) & mask(size)),
        OpKind::Memory => {
            let linear = operand_address(cpu, instruction, size, false)?;
            load(cpu, env, linear, size)
        }
        _ => Ok(instruction.immediate(index) & mask(size)),
    }
}

/// Writes operand `index`, a register or memory of `size` bytes.
///
/// # Errors
/// The faults of a store, for memory.
#[inline]
pub fn write<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    index: u32,
    size: usize,
    value: u64,
) -> Result<(), Trap> {
    if instruction.op_kind(index) == OpKind::Register {
        register::write(cpu, instruction.op_register(index), value);
        return Ok(());
    }
    let linear = operand_address(cpu, instruction, size, true)?;
    store(cpu, env, linear, size, value)
}

/// Replaces operand 0 by a function of its value and RFLAGS; memory atomically.
///
/// # Errors
/// The faults of a store, for memory; flags are then unchanged.
#[inline]
pub fn modify<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
    operation: impl Fn(u64, u64) -> Outcome,
) -> Result<u64, Trap> {
    let rflags = cpu.rflags;
    if instruction.op0_kind() == OpKind::Register {
        let name = instruction.op0_register();
        let old = register::read(cpu, name);
        let (result, rflags) = operation(old, rflags);
        register::write(cpu, name, result);
        cpu.rflags = rflags;
        return Ok(old);
    }
    let linear = operand_address(cpu, instruction, size, true)?;
    let mut after = rflags;
    let old = env.update(cpu, linear, size, &mut |old| {
        let (result, flags) = operation(old, rflags);
        after = flags;
        result
    })?;
    cpu.rflags = after;
    Ok(old)
}
