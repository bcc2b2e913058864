//! General registers by their names in the decoder.

use iced_x86::Register;

use crate::cpu::Cpu;

/// The low `size` bytes set.
#[inline]
pub const fn mask(size: usize) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * size)) - 1
    }
}

/// The topmost bit of a value of `size` (1, 2, 4, 8) bytes.
#[inline]
pub const fn sign_bit(size: usize) -> u64 {
    1 << (8 * size - 1)
}

/// A `size`-byte value, sign-extended to 64 bits.
#[inline]
pub const fn sign_extend(value: u64, size: usize) -> u64 {
    let shift = 64 - 8 * size;
    ((value << shift) as i64 >> shift) as u64
}

const AL: usize = Register::AL as usize;
const AX: usize = Register::AX as usize;
const EAX: usize = Register::EAX as usize;
const RAX: usize = Register::RAX as usize;
const R15: usize = Register::R15 as usize;

/// A general register: its index in [`Cpu::gpr`], its size in bytes, the position of its low bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpr {
    /// Index in [`Cpu::gpr`].
    pub index: usize,
    /// 1, 2, 4 or 8 bytes.
    pub size: usize,
    /// 8 for AH, CH, DH and BH.
    pub shift: u32,
}

/// Which general register `register` is; `None` when it is another kind of register.
#[inline]
pub fn gpr(register: Register) -> Option<Gpr> {
    // The decoder numbers AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L.., AX.., EAX.., RAX.. in a row.
    let number = register as usize;
    if !(AL..=R15).contains(&number) {
        return None;
    }
    Some(if number >= RAX {
        Gpr {
            index: number - RAX,
            size: 8,
            shift: 0,
        }
    } else if number >= EAX {
        Gpr {
            index: number - EAX,
            size: 4,
            shift: 0,
        }
    } else if number >= AX {
        Gpr {
            index: number - AX,
            size: 2,
            shift: 0,
        }
    } else {
        match number - AL {
            position @ 0..=3 => Gpr {
                index: position,
                size: 1,
                shift: 0,
            },
            position @ 4..=7 => Gpr {
                index: position - 4,
                size: 1,
                shift: 8,
            },
            position => Gpr {
                index: position - 4,
                size: 1,
                shift: 0,
            },
        }
    })
}

/// Value of a general register, zero-extended; zero for any other register.
#[inline]
pub fn read(cpu: &Cpu, register: Register) -> u64 {
    match gpr(register) {
        Some(r) => cpu.gpr[r.index & 15] >> r.shift & mask(r.size),
        None => 0,
    }
}

/// Sets a general register: 32-bit writes clear the upper half, shorter ones keep the rest.
#[inline]
pub fn write(cpu: &mut Cpu, register: Register, value: u64) {
    let Some(r) = gpr(register) else { return };
    let slot = &mut cpu.gpr[r.index & 15];
    *slot = match r.size {
        8 => value,
        4 => value & 0xffff_ffff,
        2 => *slot & !0xffff | value & 0xffff,
        _ => *slot & !(0xff << r.shift) | (value & 0xff) << r.shift,
    };
}

/// Value of the low `size` bytes of the register with `index`.
#[inline]
pub fn read_index(cpu: &Cpu, index: usize, size: usize) -> u64 {
    cpu.gpr[index & 15] & mask(size)
}

/// Sets the low `size` bytes of the register with `index`, as [`write`] does.
#[inline]
pub fn write_index(cpu: &mut Cpu, index: usize, size: usize, value: u64) {
    let slot = &mut cpu.gpr[index & 15];
    *slot = match size {
        8 => value,
        4 => value & 0xffff_ffff,
        _ => *slot & !mask(size) | value & mask(size),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_encodings() {
        for (register, index, size, shift) in [
            (Register::BL, 3, 1, 0),
            (Register::AH, 0, 1, 8),
            (Register::BH, 3, 1, 8),
            (Register::SPL, 4, 1, 0),
            (Register::R15L, 15, 1, 0),
            (Register::DI, 7, 2, 0),
            (Register::ESP, 4, 4, 0),
            (Register::R8, 8, 8, 0),
        ] {
            assert_eq!(
                gpr(register),
                Some(Gpr { index, size, shift }),
                "{register:?}"
            );
        }
        assert_eq!(gpr(Register::XMM0), None);
        assert_eq!(gpr(Register::EIP), None);
    }

    #[test]
    fn partial_writes() {
        let mut cpu = Cpu::new();
        cpu.gpr[0] = u64::MAX;
        write(&mut cpu, Register::AH, 0x12);
        assert_eq!(cpu.gpr[0], 0xffff_ffff_ffff_12ff);
        write(&mut cpu, Register::AX, 0x3456);
        assert_eq!(cpu.gpr[0], 0xffff_ffff_ffff_3456);
        write(&mut cpu, Register::EAX, 0x7777_8888);
        assert_eq!(cpu.gpr[0], 0x7777_8888);
    }
}
