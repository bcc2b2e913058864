//! Shifts and rotates.

use iced_x86::{Instruction, Mnemonic};

use super::undefined::{self, Class};
use super::{arithmetic as arith, operand, register, retire};
use crate::cpu::Cpu;
use crate::env::{Env, Trap};

/// SHL, SHR, SAR, ROL, ROR, RCL, RCR.
pub fn shift<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let count = arith::shift_count(operand::read(cpu, env, instruction, 1, 1)?, size);
    let mnemonic = instruction.mnemonic();
    // A count of zero still writes the operand: memory must be writable.
    operand::modify(cpu, env, instruction, size, |a, rflags| match mnemonic {
        Mnemonic::Shl | Mnemonic::Sal => settled(arith::shl, a, count, size, rflags),
        Mnemonic::Shr => settled(arith::shr, a, count, size, rflags),
        Mnemonic::Sar => settled(arith::sar, a, count, size, rflags),
        Mnemonic::Rol => arith::rol(a, count, size, rflags),
        Mnemonic::Ror => arith::ror(a, count, size, rflags),
        Mnemonic::Rcl => arith::rcl(a, count, size, rflags),
        _ => arith::rcr(a, count, size, rflags),
    })?;
    retire(cpu, instruction)
}

/// The outcome of a shift, its undefined flags as the host has them.
fn settled(
    shift: impl Fn(u64, u32, usize, u64) -> arith::Outcome,
    a: u64,
    count: u32,
    size: usize,
    before: u64,
) -> arith::Outcome {
    let (result, rflags) = shift(a, count, size, before);
    if count == 0 {
        return (result, rflags);
    }
    let settled = undefined::settle(Class::Shift, before, rflags, result, size);
    (result, settled)
}

/// SHLD and SHRD.
pub fn double_shift<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let b = register::read(cpu, instruction.op1_register());
    let count = arith::shift_count(operand::read(cpu, env, instruction, 2, 1)?, size);
    let left = instruction.mnemonic() == Mnemonic::Shld;
    operand::modify(cpu, env, instruction, size, |a, rflags| {
        let shift = |a, count, size, rflags| {
            if left {
                arith::shld(a, b, count, size, rflags)
            } else {
                arith::shrd(a, b, count, size, rflags)
            }
        };
        settled(shift, a, count, size, rflags)
    })?;
    retire(cpu, instruction)
}

/// SHLX, SHRX, SARX, RORX: no flags change.
pub fn flagless<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    super::bits::check_vex(cpu)?;
    let size = operand::size(instruction, 0);
    let a = operand::read(cpu, env, instruction, 1, size)?;
    let count = arith::shift_count(operand::read(cpu, env, instruction, 2, 1)?, size);
    let (result, _) = match instruction.mnemonic() {
        Mnemonic::Shlx => arith::shl(a, count, size, 0),
        Mnemonic::Shrx => arith::shr(a, count, size, 0),
        Mnemonic::Sarx => arith::sar(a, count, size, 0),
        _ => arith::ror(a, count, size, 0),
    };
    register::write(cpu, instruction.op0_register(), result);
    retire(cpu, instruction)
}
