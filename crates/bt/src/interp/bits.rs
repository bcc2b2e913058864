//! Bit tests, scans and counts, BMI1 and BMI2, CRC32, byte swaps.

use iced_x86::{Instruction, Mnemonic, OpKind};
use ringfence_x86::flags::{CF, OF, PF, SF, ZF};

use super::address::{address_size, effective_offset, linear_address, load, operand_segment};
use super::arithmetic::{replace, szp, when};
use super::register::{self, mask, sign_extend};
use super::undefined::{self, Class};
use super::{operand, retire};
use crate::cpu::Cpu;
use crate::env::{Env, Trap};

/// #UD where VEX is not recognized: real mode and virtual-8086 mode.
pub fn check_vex(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.real_mode() || cpu.virtual8086() {
        Err(Trap::UD)
    } else {
        Ok(())
    }
}

/// BT, BTS, BTR, BTC. A bit offset in a register reaches beyond the memory operand.
pub fn bit_test<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let offset = operand::read(cpu, env, instruction, 1, size)?;
    let bit = 1u64 << (offset & (8 * size as u64 - 1));
    let mnemonic = instruction.mnemonic();
    let change = |value: u64| match mnemonic {
        Mnemonic::Bts => value | bit,
        Mnemonic::Btr => value & !bit,
        Mnemonic::Btc => value ^ bit,
        _ => value,
    };
    let old = if instruction.op0_kind() == OpKind::Register {
        let old = register::read(cpu, instruction.op0_register());
        if mnemonic != Mnemonic::Bt {
            register::write(cpu, instruction.op0_register(), change(old));
        }
        old
    } else {
        let mut effective = effective_offset(cpu, instruction);
        if instruction.op1_kind() == OpKind::Register {
            let units = sign_extend(offset, size) as i64 >> (8 * size).trailing_zeros();
            effective = effective.wrapping_add((units as u64).wrapping_mul(size as u64))
                & mask(address_size(cpu, instruction));
        }
        let segment = operand_segment(cpu, instruction);
        let write = mnemonic != Mnemonic::Bt;
        let linear = linear_address(cpu, segment, effective, size, write)?;
        if write {
            env.update(cpu, linear, size, &mut |value| change(value))?
        } else {
            load(cpu, env, linear, size)?
        }
    };
    cpu.rflags = cpu.rflags & !CF | when(old & bit != 0, CF);
    retire(cpu, instruction)
}

/// BSF, BSR, TZCNT, LZCNT, POPCNT.
pub fn scan<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let bits = 8 * size as u64;
    let source = operand::read(cpu, env, instruction, 1, size)?;
    let trailing = if source == 0 {
        bits
    } else {
        u64::from(source.trailing_zeros())
    };
    let leading = u64::from(source.leading_zeros()) - (64 - bits);
    let destination = instruction.op0_register();
    let count = match instruction.mnemonic() {
        Mnemonic::Bsf | Mnemonic::Bsr => {
            let before = cpu.rflags;
            cpu.rflags = before & !ZF | when(source == 0, ZF);
            // Zero leaves the destination as it is (APM; the SDM calls it undefined).
            if source != 0 {
                let forward = instruction.mnemonic() == Mnemonic::Bsf;
                let position = if forward {
                    trailing
                } else {
                    bits - 1 - leading
                };
                register::write(cpu, destination, position);
            }
            let after = register::read(cpu, destination);
            cpu.rflags = undefined::settle(Class::Scan, before, cpu.rflags, after, size);
            return retire(cpu, instruction);
        }
        Mnemonic::Popcnt => {
            cpu.rflags = replace(cpu.rflags, when(source == 0, ZF));
            register::write(cpu, destination, u64::from(source.count_ones()));
            return retire(cpu, instruction);
        }
        Mnemonic::Tzcnt => trailing,
        _ => leading,
    };
    let rflags = cpu.rflags & !(CF | ZF) | when(source == 0, CF) | when(count == 0, ZF);
    cpu.rflags = undefined::settle(Class::Count, cpu.rflags, rflags, count, size);
    register::write(cpu, destination, count);
    retire(cpu, instruction)
}

/// ANDN, BLSI, BLSMSK, BLSR, BZHI, BEXTR, PDEP, PEXT.
pub fn bmi<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    check_vex(cpu)?;
    let size = operand::size(instruction, 0);
    let bits = 8 * size as u32;
    let a = operand::read(cpu, env, instruction, 1, size)?;
    let b = match instruction.op_count() {
        3 => operand::read(cpu, env, instruction, 2, size)?,
        _ => 0,
    };
    let (result, carry) = match instruction.mnemonic() {
        Mnemonic::Andn => (!a & b, false),
        Mnemonic::Blsi => (a & a.wrapping_neg(), a != 0),
        Mnemonic::Blsmsk => (a ^ a.wrapping_sub(1), a == 0),
        Mnemonic::Blsr => (a & a.wrapping_sub(1), a == 0),
        Mnemonic::Bzhi => {
            let index = b as u32 & 0xff;
            (
                if index < bits {
                    a & ((1 << index) - 1)
                } else {
                    a
                },
                index >= bits,
            )
        }
        Mnemonic::Bextr => {
            let (start, length) = (b as u32 & 0xff, (b >> 8) as u32 & 0xff);
            let field = a.checked_shr(start).unwrap_or(0);
            (
                if length < 64 {
                    field & ((1 << length) - 1)
                } else {
                    field
                },
                false,
            )
        }
        mnemonic => {
            let result = if mnemonic == Mnemonic::Pdep {
                deposit(a, b)
            } else {
                extract(a, b)
            };
            register::write(cpu, instruction.op0_register(), result);
            return retire(cpu, instruction);
        }
    };
    let result = result & mask(size);
    register::write(cpu, instruction.op0_register(), result);
    // PF and AF are undefined; BEXTR's SF as well.
    let before = cpu.rflags;
    cpu.rflags = replace(
        cpu.rflags,
        szp(result, size) & (SF | ZF | PF) | when(carry, CF),
    );
    if instruction.mnemonic() == Mnemonic::Bextr {
        cpu.rflags = undefined::settle(Class::Extract, before, cpu.rflags, result, size);
    }
    debug_assert!(cpu.rflags & OF == 0);
    retire(cpu, instruction)
}

/// PDEP: the low bits of `value` go to the set bits of `selector`.
fn deposit(value: u64, selector: u64) -> u64 {
    let (mut result, mut left, mut position) = (0, selector, 0);
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        if value >> position & 1 != 0 {
            result |= lowest;
        }
        left ^= lowest;
        position += 1;
    }
    result
}

/// PEXT: the bits of `value` at the set bits of `selector` become the low bits.
fn extract(value: u64, selector: u64) -> u64 {
    let (mut result, mut left, mut position) = (0, selector, 0);
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        if value & lowest != 0 {
            result |= 1 << position;
        }
        left ^= lowest;
        position += 1;
    }
    result
}

/// CRC32: polynomial 11EDC6F41h, reflected.
pub fn crc32<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 1);
    let source = operand::read(cpu, env, instruction, 1, size)?;
    let mut crc = register::read(cpu, instruction.op0_register()) as u32;
    for byte in &source.to_le_bytes()[..size] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    register::write(cpu, instruction.op0_register(), u64::from(crc));
    retire(cpu, instruction)
}

/// BSWAP; of a 16-bit register it yields zero, as processors do.
pub fn bswap(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    let name = instruction.op0_register();
    let value = register::read(cpu, name);
    let swapped = match operand::size(instruction, 0) {
        8 => value.swap_bytes(),
        4 => u64::from((value as u32).swap_bytes()),
        _ => 0,
    };
    register::write(cpu, name, swapped);
    retire(cpu, instruction)
}

/// MOVBE.
pub fn movbe<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let value = operand::read(cpu, env, instruction, 1, size)?;
    let swapped = value.swap_bytes() >> (64 - 8 * size);
    operand::write(cpu, env, instruction, 0, size, swapped)?;
    retire(cpu, instruction)
}

/// RDRAND and RDSEED, from the host's generator or the machine's own.
pub fn random<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    if let Some(value) = env.random() {
        register::write(cpu, instruction.op0_register(), value);
        cpu.rflags = replace(cpu.rflags, CF);
        return retire(cpu, instruction);
    }
    let seed = instruction.mnemonic() == Mnemonic::Rdseed;
    let available = if seed {
        is_x86_feature_detected!("rdseed")
    } else {
        is_x86_feature_detected!("rdrand")
    };
    if !available {
        return Err(Trap::UD);
    }
    let (value, valid): (u64, u8);
    // SAFETY: the processor has the instruction; it changes only its register and flags.
    unsafe {
        if seed {
            std::arch::asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) valid,
                options(nomem, nostack));
        } else {
            std::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) valid,
                options(nomem, nostack));
        }
    }
    register::write(cpu, instruction.op0_register(), value);
    cpu.rflags = replace(cpu.rflags, when(valid != 0, CF));
    retire(cpu, instruction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_and_extract_are_inverse() {
        let selector = 0xf0f0_1248_8000_0001;
        for value in [0, 1, 0x5a5, 0xfff] {
            assert_eq!(extract(deposit(value, selector), selector), value & 0x3fff);
        }
        assert_eq!(deposit(0b101, 0b1001_1000), 0b1000_1000);
    }
}
