//! Arithmetic and logic with two operands, increments, exchanges with comparison, and the decimal
//! adjustments.

use iced_x86::{Instruction, Mnemonic, OpKind};
use ringfence_x86::flags::{AF, CF, OF, ZF};

use super::arithmetic::{self as arith, replace, szp, when};
use super::register::{self, mask};
use super::{address, operand, retire};
use crate::cpu::{Cpu, RAX, RBX, RCX, RDX};
use crate::env::{Env, Privilege, Trap};

/// ADD, ADC, SUB, SBB, AND, OR, XOR: operand 0 becomes the result.
pub fn binary<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let b = operand::read(cpu, env, instruction, 1, size)?;
    let mnemonic = instruction.mnemonic();
    operand::modify(cpu, env, instruction, size, |a, rflags| match mnemonic {
        Mnemonic::Add => arith::add(a, b, false, size, rflags),
        Mnemonic::Adc => arith::add(a, b, rflags & CF != 0, size, rflags),
        Mnemonic::Sub => arith::sub(a, b, false, size, rflags),
        Mnemonic::Sbb => arith::sub(a, b, rflags & CF != 0, size, rflags),
        Mnemonic::And => arith::logic(a & b, size, rflags),
        Mnemonic::Or => arith::logic(a | b, size, rflags),
        _ => arith::logic(a ^ b, size, rflags),
    })?;
    retire(cpu, instruction)
}

/// CMP and TEST: only flags change.
pub fn compare<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let a = operand::read(cpu, env, instruction, 0, size)?;
    let b = operand::read(cpu, env, instruction, 1, size)?;
    cpu.rflags = if instruction.mnemonic() == Mnemonic::Cmp {
        arith::sub(a, b, false, size, cpu.rflags).1
    } else {
        arith::logic(a & b, size, cpu.rflags).1
    };
    retire(cpu, instruction)
}

/// INC, DEC, NEG, NOT.
pub fn unary<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let mnemonic = instruction.mnemonic();
    operand::modify(cpu, env, instruction, size, |a, rflags| match mnemonic {
        Mnemonic::Inc => arith::inc(a, size, rflags),
        Mnemonic::Dec => arith::dec(a, size, rflags),
        Mnemonic::Neg => arith::neg(a, size, rflags),
        _ => (!a, rflags),
    })?;
    retire(cpu, instruction)
}

/// ADCX and ADOX: addition whose carry is CF alone or OF alone.
pub fn add_extended<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let flag = if instruction.mnemonic() == Mnemonic::Adcx {
        CF
    } else {
        OF
    };
    let b = operand::read(cpu, env, instruction, 1, size)?;
    let a = register::read(cpu, instruction.op0_register());
    let sum = u128::from(a) + u128::from(b) + u128::from(cpu.rflags & flag != 0);
    register::write(cpu, instruction.op0_register(), sum as u64);
    cpu.rflags = cpu.rflags & !flag | when(sum >> (8 * size) != 0, flag);
    retire(cpu, instruction)
}

/// XADD.
pub fn xadd<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let source = instruction.op1_register();
    let b = register::read(cpu, source);
    // The source is written first: XADD of a register with itself leaves the sum there.
    let a = if instruction.op0_kind() == OpKind::Register {
        let a = register::read(cpu, instruction.op0_register());
        let (sum, rflags) = arith::add(a, b, false, size, cpu.rflags);
        register::write(cpu, source, a);
        register::write(cpu, instruction.op0_register(), sum);
        cpu.rflags = rflags;
        return retire(cpu, instruction);
    } else {
        operand::modify(cpu, env, instruction, size, |a, rflags| {
            arith::add(a, b, false, size, rflags)
        })?
    };
    register::write(cpu, source, a);
    retire(cpu, instruction)
}

/// XCHG; with memory it is atomic even without LOCK.
pub fn xchg<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let source = instruction.op1_register();
    let new = register::read(cpu, source);
    let old = operand::modify(cpu, env, instruction, size, |_, rflags| (new, rflags))?;
    register::write(cpu, source, old);
    retire(cpu, instruction)
}

/// CMPXCHG.
pub fn cmpxchg<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let size = operand::size(instruction, 0);
    let source = register::read(cpu, instruction.op1_register());
    let expected = register::read_index(cpu, RAX, size);
    if instruction.op0_kind() == OpKind::Register {
        // A register keeps even its upper half when the comparison fails.
        let destination = instruction.op0_register();
        let old = register::read(cpu, destination);
        cpu.rflags = arith::sub(expected, old, false, size, cpu.rflags).1;
        if old == expected {
            register::write(cpu, destination, source);
        } else {
            register::write_index(cpu, RAX, size, old);
        }
        return retire(cpu, instruction);
    }
    // Memory is written in any case, with its old value when the comparison fails.
    let old = operand::modify(cpu, env, instruction, size, |old, rflags| {
        let (_, rflags) = arith::sub(expected, old, false, size, rflags);
        (if old == expected { source } else { old }, rflags)
    })?;
    if old != expected {
        register::write_index(cpu, RAX, size, old);
    }
    retire(cpu, instruction)
}

/// CMPXCHG8B.
pub fn cmpxchg8b<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let pair = |cpu: &Cpu, high, low| cpu.gpr[high] << 32 | cpu.gpr[low] & 0xffff_ffff;
    let (expected, source) = (pair(cpu, RDX, RAX), pair(cpu, RCX, RBX));
    let linear = address::operand_address(cpu, instruction, 8, true)?;
    let old = env.update(cpu, linear, 8, &mut |old| {
        if old == expected { source } else { old }
    })?;
    if old == expected {
        cpu.rflags |= ZF;
    } else {
        cpu.rflags &= !ZF;
        register::write_index(cpu, RAX, 4, old);
        register::write_index(cpu, RDX, 4, old >> 32);
    }
    retire(cpu, instruction)
}

/// CMPXCHG16B: #GP(0) when the operand is not aligned.
pub fn cmpxchg16b<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let pair = |cpu: &Cpu, high: usize, low: usize| {
        u128::from(cpu.gpr[high]) << 64 | u128::from(cpu.gpr[low])
    };
    let (expected, source) = (pair(cpu, RDX, RAX), pair(cpu, RCX, RBX));
    let linear = match address::operand_address(cpu, instruction, 16, true) {
        Ok(linear) if linear & 15 == 0 => linear,
        // Alignment comes before the form of the address.
        Err(trap) if address::effective_offset(cpu, instruction) & 15 == 0 => return Err(trap),
        _ => return Err(Trap::GP0),
    };
    env.check_store(cpu, linear, 16, Privilege::Current)?;
    let old = match env.ram_page(cpu, linear, true) {
        Some(pointer) if is_x86_feature_detected!("cmpxchg16b") => {
            // SAFETY: the page is writable RAM and the aligned operand does not cross it; the
            // processor has the instruction.
            unsafe { exchange16(pointer.cast(), expected, source) }
        }
        _ => {
            let mut bytes = [0; 16];
            env.load(cpu, linear, &mut bytes, Privilege::Current)?;
            let old = u128::from_le_bytes(bytes);
            let new = if old == expected { source } else { old };
            env.store(cpu, linear, &new.to_le_bytes(), Privilege::Current)?;
            old
        }
    };
    if old == expected {
        cpu.rflags |= ZF;
    } else {
        cpu.rflags &= !ZF;
        (cpu.gpr[RAX], cpu.gpr[RDX]) = (old as u64, (old >> 64) as u64);
    }
    retire(cpu, instruction)
}

/// Stores `new` when the value is `expected`; returns the old value.
///
/// # Safety
/// `pointer` is valid for reads and writes and aligned to 16; the processor has CMPXCHG16B.
unsafe fn exchange16(pointer: *mut u128, expected: u128, new: u128) -> u128 {
    let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
    // SAFETY: guaranteed by the caller. RBX, which can't be named as an operand, is exchanged
    // around; the class `reg` may hold it, so the others have fixed registers.
    unsafe {
        std::arch::asm!(
            "xchg rbx, rsi",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            inout("rsi") new as u64 => _,
            in("rdi") pointer,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// AAA, AAS, AAM, AAD, DAA, DAS (SDM vol. 2A).
pub fn decimal(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    let ax = cpu.gpr[RAX] as u16;
    let al = ax as u8;
    let (carry, adjust) = (cpu.rflags & CF != 0, cpu.rflags & AF != 0);
    let low = al & 0xf > 9 || adjust;
    let (ax, arithmetic) = match instruction.mnemonic() {
        Mnemonic::Aaa | Mnemonic::Aas => {
            let mut ax = ax;
            if low {
                ax = if instruction.mnemonic() == Mnemonic::Aaa {
                    ax.wrapping_add(0x106)
                } else {
                    ax.wrapping_sub(0x106)
                };
            }
            let ax = ax & 0xff0f;
            (ax, szp(u64::from(ax as u8), 1) | when(low, AF | CF))
        }
        Mnemonic::Aam => {
            let base = instruction.immediate8();
            if base == 0 {
                return Err(Trap::DE);
            }
            (
                u16::from(al / base) << 8 | u16::from(al % base),
                szp(u64::from(al % base), 1),
            )
        }
        Mnemonic::Aad => {
            let sum = (ax >> 8).wrapping_mul(u16::from(instruction.immediate8()));
            let al = al.wrapping_add(sum as u8);
            (u16::from(al), szp(u64::from(al), 1))
        }
        mnemonic => {
            let high = al > 0x99 || carry;
            let correction = if low { 6u8 } else { 0 } + if high { 0x60 } else { 0 };
            let (new, borrow) = if mnemonic == Mnemonic::Daa {
                (al.wrapping_add(correction), false)
            } else {
                // A borrow out of the low digit alone also sets CF.
                (al.wrapping_sub(correction), low && al < 6)
            };
            let arithmetic = szp(u64::from(new), 1) | when(low, AF) | when(high || borrow, CF);
            (ax & 0xff00 | u16::from(new), arithmetic)
        }
    };
    register::write_index(cpu, RAX, 2, u64::from(ax));
    cpu.rflags = replace(cpu.rflags, arithmetic);
    retire(cpu, instruction)
}

/// CBW, CWDE, CDQE, CWD, CDQ, CQO.
pub fn convert(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    let extend = |cpu: &mut Cpu, from: usize| {
        let value = register::sign_extend(cpu.gpr[RAX] & mask(from), from);
        register::write_index(cpu, RAX, 2 * from, value);
    };
    let double = |cpu: &mut Cpu, size: usize| {
        let sign = register::sign_extend(cpu.gpr[RAX] & mask(size), size) as i64 >> 63;
        register::write_index(cpu, RDX, size, sign as u64);
    };
    match instruction.mnemonic() {
        Mnemonic::Cbw => extend(cpu, 1),
        Mnemonic::Cwde => extend(cpu, 2),
        Mnemonic::Cdqe => extend(cpu, 4),
        Mnemonic::Cwd => double(cpu, 2),
        Mnemonic::Cdq => double(cpu, 4),
        _ => double(cpu, 8),
    }
    retire(cpu, instruction)
}
