//! Multiplication and division.

use iced_x86::{Instruction, Mnemonic};
use ringfence_x86::flags::{CF, OF};

use super::arithmetic::{replace, when};
use super::register::{self, mask, sign_extend};
use super::undefined::{self, Class};
use super::{operand, retire};
use crate::cpu::{Cpu, RAX, RDX};
use crate::env::{Env, Trap};

/// AX, DX:AX, EDX:EAX or RDX:RAX.
fn accumulator(cpu: &Cpu, size: usize) -> u128 {
    if size == 1 {
        return u128::from(cpu.gpr[RAX] & 0xffff);
    }
    u128::from(register::read_index(cpu, RDX, size)) << (8 * size)
        | u128::from(register::read_index(cpu, RAX, size))
}

/// Sets the accumulator pair to `high:low`.
fn set_accumulator(cpu: &mut Cpu, size: usize, high: u64, low: u64) {
    if size == 1 {
        register::write_index(cpu, RAX, 2, (high & 0xff) << 8 | low & 0xff);
    } else {
        register::write_index(cpu, RAX, size, low);
        register::write_index(cpu, RDX, size, high);
    }
}

/// The flags of a product: CF and OF tell that it did not fit.
fn product_flags(cpu: &mut Cpu, overflow: bool, low: u64, size: usize) {
    let rflags = replace(cpu.rflags, when(overflow, CF | OF));
    cpu.rflags = undefined::settle(Class::Multiply, cpu.rflags, rflags, low, size);
}

/// MUL.
pub fn mul<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let b = operand::read(cpu, env, instruction, 0, size)?;
    let product = u128::from(register::read_index(cpu, RAX, size)) * u128::from(b);
    let high = (product >> (8 * size)) as u64;
    set_accumulator(cpu, size, high, product as u64);
    product_flags(cpu, high != 0, product as u64, size);
    retire(cpu, instruction)
}

/// IMUL with one, two or three operands.
pub fn imul<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let signed = |value| i128::from(sign_extend(value, size) as i64);
    let (a, b) = match instruction.op_count() {
        1 => {
            let b = operand::read(cpu, env, instruction, 0, size)?;
            (register::read_index(cpu, RAX, size), b)
        }
        2 => {
            let b = operand::read(cpu, env, instruction, 1, size)?;
            (register::read(cpu, instruction.op0_register()), b)
        }
        _ => {
            let a = operand::read(cpu, env, instruction, 1, size)?;
            (a, operand::read(cpu, env, instruction, 2, size)?)
        }
    };
    let product = signed(a) * signed(b);
    let low = product as u64 & mask(size);
    if instruction.op_count() == 1 {
        set_accumulator(cpu, size, (product >> (8 * size)) as u64, low);
    } else {
        register::write(cpu, instruction.op0_register(), low);
    }
    product_flags(cpu, signed(low) != product, low, size);
    retire(cpu, instruction)
}

/// MULX: no flags change.
pub fn mulx<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    super::bits::check_vex(cpu)?;
    let size = operand::size(instruction, 0);
    let b = operand::read(cpu, env, instruction, 2, size)?;
    let product = u128::from(register::read_index(cpu, RDX, size)) * u128::from(b);
    // When both destinations are one register, the high half stays.
    register::write(cpu, instruction.op1_register(), product as u64 & mask(size));
    register::write(
        cpu,
        instruction.op0_register(),
        (product >> (8 * size)) as u64,
    );
    retire(cpu, instruction)
}

/// DIV and IDIV: #DE for a zero divisor or a quotient that does not fit.
pub fn divide<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let divisor = operand::read(cpu, env, instruction, 0, size)?;
    if divisor == 0 {
        return Err(Trap::DE);
    }
    let dividend = accumulator(cpu, size);
    let (quotient, remainder) = if instruction.mnemonic() == Mnemonic::Div {
        let divisor = u128::from(divisor);
        let quotient = dividend / divisor;
        if quotient > u128::from(mask(size)) {
            return Err(Trap::DE);
        }
        (quotient as u64, (dividend % divisor) as u64)
    } else {
        let shift = 128 - 16 * size;
        let dividend = (dividend << shift) as i128 >> shift;
        let divisor = i128::from(sign_extend(divisor, size) as i64);
        let Some(quotient) = dividend.checked_div(divisor) else {
            return Err(Trap::DE);
        };
        if i128::from(sign_extend(quotient as u64, size) as i64) != quotient {
            return Err(Trap::DE);
        }
        (quotient as u64, dividend.wrapping_rem(divisor) as u64)
    };
    set_accumulator(cpu, size, remainder & mask(size), quotient & mask(size));
    cpu.rflags = undefined::settle(Class::Divide, cpu.rflags, cpu.rflags, quotient, size);
    retire(cpu, instruction)
}
