//! Near branches: jumps, calls, returns, loops.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::address::check_branch_target;
use super::register::{self, mask};
use super::transfer::holds;
use super::{next_rip, operand, retire, stack};
use crate::cpu::{Cpu, RCX};
use crate::env::{Env, Trap};

/// Jcc.
pub fn conditional(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    if holds(instruction.condition_code(), cpu.rflags) {
        jump_to(cpu, direct(cpu, instruction))
    } else {
        retire(cpu, instruction)
    }
}

/// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ: the count register has the address size.
pub fn counted(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    use iced_x86::Code::*;
    let size = match instruction.code() {
        Loopne_rel8_16_CX | Loopne_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loop_rel8_16_CX | Loop_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => 2,
        Loopne_rel8_16_RCX | Loopne_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX
        | Loop_rel8_16_RCX | Loop_rel8_64_RCX | Jrcxz_rel8_16 | Jrcxz_rel8_64 => 8,
        _ => 4,
    };
    let count = register::read_index(cpu, RCX, size);
    let zero = cpu.rflags & ringfence_x86::flags::ZF != 0;
    let (taken, left) = match instruction.mnemonic() {
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => (count == 0, None),
        mnemonic => {
            let left = count.wrapping_sub(1) & mask(size);
            let wanted = match mnemonic {
                Mnemonic::Loope => zero,
                Mnemonic::Loopne => !zero,
                _ => true,
            };
            (left != 0 && wanted, Some(left))
        }
    };
    if taken {
        jump_to(cpu, direct(cpu, instruction))?;
    } else {
        cpu.rip = next_rip(cpu, instruction);
    }
    if let Some(left) = left {
        register::write_index(cpu, RCX, size, left);
    }
    Ok(())
}

/// JMP near.
pub fn jmp<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let target = target(cpu, env, instruction)?;
    jump_to(cpu, target)
}

/// CALL near.
pub fn call<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let target = target(cpu, env, instruction)?;
    check_branch_target(cpu, target)?;
    let size = stack::transfer_size(cpu, instruction);
    let return_rip = next_rip(cpu, instruction);
    stack::push(cpu, env, size, return_rip)?;
    cpu.rip = target;
    Ok(())
}

/// RET near, with or without bytes to release.
pub fn ret<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    use iced_x86::Code;
    let size = match instruction.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    };
    let released = if instruction.op_count() == 1 {
        u64::from(instruction.immediate16())
    } else {
        0
    };
    let target = stack::peek(cpu, env, 0, size)?;
    check_branch_target(cpu, target)?;
    stack::release(cpu, size as u64 + released);
    cpu.rip = target;
    Ok(())
}

/// Target of a direct branch. The decoder may have been given another address than RIP, such as
/// the linear one, so only the distance counts.
fn direct(cpu: &Cpu, instruction: &Instruction) -> u64 {
    let distance = instruction
        .near_branch_target()
        .wrapping_sub(instruction.next_ip());
    let next = cpu.rip.wrapping_add(instruction.len() as u64);
    let target = next.wrapping_add(distance);
    match instruction.op0_kind() {
        OpKind::NearBranch16 => target & mask(2),
        OpKind::NearBranch32 => target & mask(4),
        _ => target,
    }
}

fn jump_to(cpu: &mut Cpu, target: u64) -> Result<(), Trap> {
    check_branch_target(cpu, target)?;
    cpu.rip = target;
    Ok(())
}

/// Target of a near jump or call, direct or indirect.
fn target<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<u64, Trap> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Ok(direct(cpu, instruction))
        }
        _ => {
            let size = operand::size(instruction, 0);
            operand::read(cpu, env, instruction, 0, size)
        }
    }
}
