//! Register and memory operands of system instructions.

use iced_x86::{Instruction, OpKind};

use super::super::address::{effective_offset, linear_address};
pub(super) use super::super::address::{operand_segment, segment_index};
pub(super) use super::super::register::{mask, read as register, write as set_register};
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};

/// Segment and offset of the explicit memory operand.
pub(super) fn effective(cpu: &Cpu, instruction: &Instruction) -> (usize, u64) {
    (
        operand_segment(cpu, instruction),
        effective_offset(cpu, instruction),
    )
}

/// Linear address of `size` bytes at `displacement` from the memory operand's start, checked.
pub(super) fn memory(
    cpu: &Cpu,
    instruction: &Instruction,
    displacement: u64,
    size: usize,
    write: bool,
) -> Result<u64, Trap> {
    let (segment, offset) = effective(cpu, instruction);
    linear_address(
        cpu,
        segment,
        offset.wrapping_add(displacement),
        size as _,
        write,
    )
}

/// Loads a little-endian value of up to 8 bytes.
pub(super) fn load<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    linear: u64,
    size: usize,
    privilege: Privilege,
) -> Result<u64, Trap> {
    let mut bytes = [0; 8];
    env.load(cpu, linear, &mut bytes[..size], privilege)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Stores the low `size` bytes of `value`.
pub(super) fn store<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    linear: u64,
    size: usize,
    value: u64,
    privilege: Privilege,
) -> Result<(), Trap> {
    env.store(cpu, linear, &value.to_le_bytes()[..size], privilege)
}

/// Reads register or memory operand `operand`; memory gives `size` bytes.
pub(super) fn read<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    operand: u32,
    size: usize,
) -> Result<u64, Trap> {
    if instruction.op_kind(operand) == OpKind::Register {
        return Ok(register(cpu, instruction.op_register(operand)) & mask(size));
    }
    let linear = memory(cpu, instruction, 0, size, false)?;
    load(cpu, env, linear, size, Privilege::Current)
}

/// Writes a 16-bit system register to operand 0: memory gets 16 bits, a register all of `value`
/// that it holds.
pub(super) fn write<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    value: u64,
) -> Result<(), Trap> {
    if instruction.op_kind(0) == OpKind::Register {
        set_register(cpu, instruction.op_register(0), value);
        return Ok(());
    }
    let linear = memory(cpu, instruction, 0, 2, true)?;
    store(cpu, env, linear, 2, value, Privilege::Current)
}
