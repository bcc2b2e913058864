//! Moves, conditional moves and sets, LEA, XLAT, and the instructions on single flags.

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};
use ringfence_x86::flags::{AF, CF, DF, OF, PF, SF, ZF};

use super::address::{
    address_size, effective_offset, linear_address, load, operand_address, operand_segment,
    segment_index,
};
use super::register::{self, mask, sign_extend};
use super::{operand, retire};
use crate::cpu::{Cpu, RAX};
use crate::env::{Env, Privilege, Trap};

/// Whether `condition` holds (SDM vol. 1, appendix B).
#[inline]
pub fn holds(condition: ConditionCode, rflags: u64) -> bool {
    let set = |flag: u64| rflags & flag != 0;
    let less = || set(SF) != set(OF);
    match condition {
        ConditionCode::o => set(OF),
        ConditionCode::no => !set(OF),
        ConditionCode::b => set(CF),
        ConditionCode::ae => !set(CF),
        ConditionCode::e => set(ZF),
        ConditionCode::ne => !set(ZF),
        ConditionCode::be => set(CF | ZF),
        ConditionCode::a => !set(CF | ZF),
        ConditionCode::s => set(SF),
        ConditionCode::ns => !set(SF),
        ConditionCode::p => set(PF),
        ConditionCode::np => !set(PF),
        ConditionCode::l => less(),
        ConditionCode::ge => !less(),
        ConditionCode::le => set(ZF) || less(),
        ConditionCode::g => !set(ZF) && !less(),
        ConditionCode::None => true,
    }
}

/// MOV between general registers, memory and immediates, and MOVNTI.
pub fn mov<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let value = operand::read(cpu, env, instruction, 1, size)?;
    operand::write(cpu, env, instruction, 0, size, value)?;
    retire(cpu, instruction)
}

/// MOVZX, MOVSX, MOVSXD.
pub fn extend<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 1);
    let value = operand::read(cpu, env, instruction, 1, size)?;
    let value = if instruction.mnemonic() == Mnemonic::Movzx {
        value
    } else {
        sign_extend(value, size)
    };
    register::write(cpu, instruction.op0_register(), value);
    retire(cpu, instruction)
}

/// CMOVcc: memory is read, and a 32-bit destination extended, whatever the condition.
pub fn cmov<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let source = operand::read(cpu, env, instruction, 1, size)?;
    let destination = instruction.op0_register();
    let value = if holds(instruction.condition_code(), cpu.rflags) {
        source
    } else {
        register::read(cpu, destination)
    };
    register::write(cpu, destination, value);
    retire(cpu, instruction)
}

/// SETcc.
pub fn set<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let value = u64::from(holds(instruction.condition_code(), cpu.rflags));
    operand::write(cpu, env, instruction, 0, 1, value)?;
    retire(cpu, instruction)
}

/// LEA.
pub fn lea(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    let offset = effective_offset(cpu, instruction);
    register::write(cpu, instruction.op0_register(), offset);
    retire(cpu, instruction)
}

/// XLAT.
pub fn xlat<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = address_size(cpu, instruction);
    let table = register::read(cpu, instruction.memory_base());
    let offset = table.wrapping_add(cpu.gpr[RAX] & 0xff) & mask(size);
    let segment = operand_segment(cpu, instruction);
    let linear = linear_address(cpu, segment, offset, 1, false)?;
    let value = load(cpu, env, linear, 1)?;
    register::write_index(cpu, RAX, 1, value);
    retire(cpu, instruction)
}

/// LAHF, SAHF, CLC, STC, CMC, CLD, STD, SALC.
pub fn flags(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    const LOW: u64 = SF | ZF | AF | PF | CF;
    match instruction.mnemonic() {
        Mnemonic::Lahf => register::write(
            cpu,
            Register::AH,
            cpu.rflags & LOW | ringfence_x86::flags::FIXED,
        ),
        Mnemonic::Sahf => {
            cpu.rflags = cpu.rflags & !LOW | register::read(cpu, Register::AH) & LOW;
        }
        Mnemonic::Clc => cpu.rflags &= !CF,
        Mnemonic::Stc => cpu.rflags |= CF,
        Mnemonic::Cmc => cpu.rflags ^= CF,
        Mnemonic::Cld => cpu.rflags &= !DF,
        Mnemonic::Std => cpu.rflags |= DF,
        _ => {
            let value = if cpu.rflags & CF != 0 { 0xff } else { 0 };
            register::write_index(cpu, RAX, 1, value);
        }
    }
    retire(cpu, instruction)
}

/// CLFLUSH, CLFLUSHOPT, CLWB: only the permission to read is checked.
pub fn flush_line<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let linear = operand_address(cpu, instruction, 1, false)?;
    if env.ram_page(cpu, linear, false).is_none() {
        load(cpu, env, linear, 1)?;
    }
    retire(cpu, instruction)
}

/// CLZERO: zeroes the line of 64 bytes at RAX.
pub fn clzero<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let (segment, size) = match instruction.op0_register() {
        Register::None => (instruction.memory_segment(), (cpu.bitness() / 8) as usize),
        name => (instruction.segment_prefix(), name.size()),
    };
    let offset = register::read_index(cpu, RAX, size) & !63;
    let linear = linear_address(cpu, segment_index(segment), offset, 64, true)?;
    env.store(cpu, linear, &[0; 64], Privilege::Current)?;
    retire(cpu, instruction)
}

/// BOUND: #BR when the register is outside the two limits in memory.
pub fn bound<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let linear = operand_address(cpu, instruction, 2 * size, false)?;
    let low = load(cpu, env, linear, size)?;
    let high = load(cpu, env, linear.wrapping_add(size as u64), size)?;
    let signed = |value| sign_extend(value, size) as i64;
    let index = signed(register::read(cpu, instruction.op0_register()));
    if index < signed(low) || index > signed(high) {
        return Err(Trap::fault(ringfence_x86::exception::BR));
    }
    retire(cpu, instruction)
}

/// Whether the operands are plain: neither segment, control nor debug registers.
#[inline]
pub fn is_plain_mov(instruction: &Instruction) -> bool {
    let plain = |index: u32| {
        instruction.op_kind(index) != OpKind::Register
            || register::gpr(instruction.op_register(index)).is_some()
    };
    plain(0) && plain(1)
}
