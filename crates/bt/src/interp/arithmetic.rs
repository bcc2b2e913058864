//! Results and flags of the integer operations (SDM vol. 1, appendix A), on values of 1, 2, 4 or
//! 8 bytes. Every function is pure: it takes flags and returns the new ones.

use ringfence_x86::flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};

use super::register::{mask, sign_bit};

/// A result and RFLAGS after it.
pub type Outcome = (u64, u64);

/// SF, ZF and PF of a result.
#[inline]
pub fn szp(result: u64, size: usize) -> u64 {
    let mut flags = 0;
    if result & sign_bit(size) != 0 {
        flags |= SF;
    }
    if result & mask(size) == 0 {
        flags |= ZF;
    }
    if (result as u8).count_ones() & 1 == 0 {
        flags |= PF;
    }
    flags
}

/// `rflags` with the six arithmetic flags replaced.
#[inline]
pub fn replace(rflags: u64, arithmetic: u64) -> u64 {
    rflags & !ARITHMETIC | arithmetic
}

/// The flag when the condition holds.
#[inline]
pub fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// ADD, and ADC with `carry`.
#[inline]
pub fn add(a: u64, b: u64, carry: bool, size: usize, rflags: u64) -> Outcome {
    let (a, b) = (a & mask(size), b & mask(size));
    let result = a.wrapping_add(b).wrapping_add(u64::from(carry)) & mask(size);
    let carries = a & b | (a | b) & !result;
    let arithmetic = szp(result, size)
        | when(carries & sign_bit(size) != 0, CF)
        | when(carries & 8 != 0, AF)
        | when((a ^ result) & (b ^ result) & sign_bit(size) != 0, OF);
    (result, replace(rflags, arithmetic))
}

/// SUB and CMP, and SBB with `borrow`.
#[inline]
pub fn sub(a: u64, b: u64, borrow: bool, size: usize, rflags: u64) -> Outcome {
    let (a, b) = (a & mask(size), b & mask(size));
    let result = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & mask(size);
    let borrows = !a & b | (!a | b) & result;
    let arithmetic = szp(result, size)
        | when(borrows & sign_bit(size) != 0, CF)
        | when(borrows & 8 != 0, AF)
        | when((a ^ b) & (a ^ result) & sign_bit(size) != 0, OF);
    (result, replace(rflags, arithmetic))
}

/// Flags of AND, OR, XOR and TEST: CF and OF clear.
#[inline]
pub fn logic(result: u64, size: usize, rflags: u64) -> Outcome {
    let result = result & mask(size);
    (result, replace(rflags, szp(result, size)))
}

/// INC: CF is kept.
#[inline]
pub fn inc(a: u64, size: usize, rflags: u64) -> Outcome {
    let (result, new) = add(a, 1, false, size, rflags);
    (result, new & !CF | rflags & CF)
}

/// DEC: CF is kept.
#[inline]
pub fn dec(a: u64, size: usize, rflags: u64) -> Outcome {
    let (result, new) = sub(a, 1, false, size, rflags);
    (result, new & !CF | rflags & CF)
}

/// NEG.
#[inline]
pub fn neg(a: u64, size: usize, rflags: u64) -> Outcome {
    sub(0, a, false, size, rflags)
}

/// The count of a shift or rotate: 6 bits for 64-bit operands, 5 for shorter ones.
#[inline]
pub fn shift_count(count: u64, size: usize) -> u32 {
    (count & if size == 8 { 0x3f } else { 0x1f }) as u32
}

/// SHL. `count` is masked already.
pub fn shl(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    let result = a.checked_shl(count).unwrap_or(0) & mask(size);
    let carry = count <= bits && a >> (bits - count) & 1 != 0;
    let overflow = (result & sign_bit(size) != 0) != carry;
    (
        result,
        replace(
            rflags,
            szp(result, size) | when(carry, CF) | when(overflow, OF),
        ),
    )
}

/// SHR.
pub fn shr(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let a = a & mask(size);
    let result = a.checked_shr(count).unwrap_or(0);
    let carry = a.checked_shr(count - 1).unwrap_or(0) & 1 != 0;
    // OF is the bit that leaves the sign position; beyond a count of 1 it is undefined.
    let overflow = (result << 1 ^ result) & sign_bit(size) != 0;
    (
        result,
        replace(
            rflags,
            szp(result, size) | when(carry, CF) | when(overflow, OF),
        ),
    )
}

/// SAR.
pub fn sar(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let extended = super::register::sign_extend(a, size) as i64;
    let result = (extended >> count.min(63)) as u64 & mask(size);
    let carry = extended >> (count - 1).min(63) & 1 != 0;
    (result, replace(rflags, szp(result, size) | when(carry, CF)))
}

/// ROL. Only CF and OF change, and only when the masked count is not zero.
pub fn rol(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let result = rotate(a, count % (8 * size as u32), size);
    let carry = result & 1 != 0;
    let overflow = (result & sign_bit(size) != 0) != carry;
    (
        result,
        rflags & !(CF | OF) | when(carry, CF) | when(overflow, OF),
    )
}

/// ROR.
pub fn ror(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    let result = rotate(a, (bits - count % bits) % bits, size);
    let carry = result & sign_bit(size) != 0;
    let overflow = (result << 1 ^ result) & sign_bit(size) != 0;
    (
        result,
        rflags & !(CF | OF) | when(carry, CF) | when(overflow, OF),
    )
}

/// Rotates left by less than the width.
fn rotate(a: u64, count: u32, size: usize) -> u64 {
    let a = a & mask(size);
    if count == 0 {
        a
    } else {
        (a << count | a >> (8 * size as u32 - count)) & mask(size)
    }
}

/// RCL: rotates through CF, so by the width plus one.
pub fn rcl(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    // A full turn changes nothing but OF.
    let count = count % (bits + 1);
    let (result, carry) = rotate_carry(a, count, size, rflags & CF != 0);
    let overflow = (result & sign_bit(size) != 0) != carry;
    (
        result,
        rflags & !(CF | OF) | when(carry, CF) | when(overflow, OF),
    )
}

/// RCR.
pub fn rcr(a: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    // A full turn changes nothing but OF.
    let count = count % (bits + 1);
    let (result, carry) = rotate_carry(a, bits + 1 - count, size, rflags & CF != 0);
    let overflow = (result << 1 ^ result) & sign_bit(size) != 0;
    (
        result,
        rflags & !(CF | OF) | when(carry, CF) | when(overflow, OF),
    )
}

/// Rotates the value with the carry above it left by 1 to its width.
fn rotate_carry(a: u64, count: u32, size: usize, carry: bool) -> (u64, bool) {
    let bits = 8 * size as u32;
    let wide = u128::from(carry) << bits | u128::from(a & mask(size));
    let rotated = wide << count | wide >> (bits + 1 - count);
    (rotated as u64 & mask(size), rotated >> bits & 1 != 0)
}

/// SHLD: shifts `a` left, bits of `b` come in. Counts above 16 for 16 bits are undefined;
/// here the bits of `b` come in again, as on AMD's processors.
pub fn shld(a: u64, b: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    let (a, b) = (a & mask(size), b & mask(size));
    let (wide, width) = if size == 2 {
        (
            u128::from(a) << 32 | u128::from(b) << 16 | u128::from(a),
            48,
        )
    } else {
        (u128::from(a) << bits | u128::from(b), 2 * bits)
    };
    let result = (wide << count >> (width - bits)) as u64 & mask(size);
    let carry = wide >> (width - count) & 1 != 0;
    let overflow = (result ^ a) & sign_bit(size) != 0;
    (
        result,
        replace(
            rflags,
            szp(result, size) | when(carry, CF) | when(overflow, OF),
        ),
    )
}

/// SHRD: shifts `a` right, bits of `b` come in.
pub fn shrd(a: u64, b: u64, count: u32, size: usize, rflags: u64) -> Outcome {
    if count == 0 {
        return (a, rflags);
    }
    let bits = 8 * size as u32;
    let (a, b) = (a & mask(size), b & mask(size));
    let wide = if size == 2 {
        u128::from(b) << 32 | u128::from(b) << 16 | u128::from(a)
    } else {
        u128::from(b) << bits | u128::from(a)
    };
    let result = (wide >> count) as u64 & mask(size);
    let carry = wide >> (count - 1) & 1 != 0;
    let overflow = (result << 1 ^ result) & sign_bit(size) != 0;
    (
        result,
        replace(
            rflags,
            szp(result, size) | when(carry, CF) | when(overflow, OF),
        ),
    )
}
