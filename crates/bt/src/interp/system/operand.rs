//! Register and memory operands of system instructions.

use iced_x86::{Instruction, OpKind, Register};

use super::super::address::linear_address;
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};

/// Index of a segment register in [`Cpu::seg`].
pub(super) fn segment_index(register: Register) -> usize {
    match register {
        Register::ES => crate::cpu::ES,
        Register::CS => crate::cpu::CS,
        Register::SS => crate::cpu::SS,
        Register::FS => crate::cpu::FS,
        Register::GS => crate::cpu::GS,
        _ => crate::cpu::DS,
    }
}

/// Value of a general register of 8 to 64 bits, zero-extended; zero for other registers.
pub(super) fn register(cpu: &Cpu, register: Register) -> u64 {
    if register.is_gpr8() {
        let (index, shift) = byte_register(register);
        return cpu.gpr[index] >> shift & 0xff;
    }
    if !register.is_gpr() {
        return 0;
    }
    cpu.gpr[register.number() & 15] & mask(register.size())
}

/// Sets a general register; 32-bit writes clear the upper half.
pub(super) fn set_register(cpu: &mut Cpu, register: Register, value: u64) {
    if register.is_gpr8() {
        let (index, shift) = byte_register(register);
        cpu.gpr[index] = cpu.gpr[index] & !(0xff << shift) | (value & 0xff) << shift;
    } else if register.is_gpr() {
        let slot = &mut cpu.gpr[register.number() & 15];
        *slot = match register.size() {
            2 => *slot & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }
}

fn byte_register(register: Register) -> (usize, u32) {
    match register {
        Register::AH => (0, 8),
        Register::CH => (1, 8),
        Register::DH => (2, 8),
        Register::BH => (3, 8),
        // AL..BL come first, then the four above, then SPL, BPL, SIL, DIL, R8L to R15L.
        _ => {
            let position = register as usize - Register::AL as usize;
            (if position < 4 { position } else { position - 4 } & 15, 0)
        }
    }
}

/// The low `size` bytes.
pub(super) const fn mask(size: usize) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * size)) - 1
    }
}

/// Segment and offset of the explicit memory operand.
pub(super) fn effective(cpu: &Cpu, instruction: &Instruction) -> (usize, u64) {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let mut offset = instruction.memory_displacement64();
    let mut size = instruction.memory_displ_size() as usize;
    if instruction.is_ip_rel_memory_operand() {
        size = base.size();
    } else {
        if base != Register::None {
            size = base.size();
            offset = offset.wrapping_add(register(cpu, base));
        }
        if index != Register::None {
            size = index.size();
            let scale = u64::from(instruction.memory_index_scale());
            offset = offset.wrapping_add(register(cpu, index).wrapping_mul(scale));
        }
    }
    let size = if size < 2 {
        if cpu.mode64() { 8 } else { 4 }
    } else {
        size
    };
    (
        segment_index(instruction.memory_segment()),
        offset & mask(size),
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
