//! Effective and linear addresses, and values in memory (SDM vol. 1, 3.7.5; vol. 3A, 5.3).

use iced_x86::{Instruction, Register};
use ringfence_x86::{cr, exception, flags};

use super::register::{self, mask};
use crate::cpu::{self, Cpu};
use crate::env::{Env, Privilege, Trap};

/// Whether `address` is canonical with the paging mode in force.
#[inline]
pub fn canonical(cpu: &Cpu, address: u64) -> bool {
    let shift = if cpu.cr4 & cr::CR4_LA57 != 0 { 7 } else { 16 };
    ((address << shift) as i64 >> shift) as u64 == address
}

/// Linear address of `size` bytes at `offset` in the segment with index `segment` of
/// [`Cpu::seg`].
///
/// # Errors
/// #GP(0), or #SS(0) for the stack segment: the address is not canonical, beyond the limit, or
/// the segment is null or does not allow the access; #AC(0) for a misaligned access of user code
/// that asked for the check.
#[inline]
pub fn linear_address(
    cpu: &Cpu,
    segment: usize,
    offset: u64,
    size: usize,
    write: bool,
) -> Result<u64, Trap> {
    let linear = if cpu.mode64() {
        let linear = match segment {
            cpu::FS | cpu::GS => offset.wrapping_add(cpu.seg[segment].base),
            _ => offset,
        };
        let last = linear.wrapping_add(size.saturating_sub(1) as u64);
        // An operand does not wrap around the top of the address space either.
        if !canonical(cpu, linear) || !canonical(cpu, last) || last < linear {
            return Err(segment_fault(segment));
        }
        linear
    } else {
        legacy_linear(cpu, segment, offset, size, write)?
    };
    if cpu.rflags & flags::AC != 0 {
        check_alignment(cpu, linear, size)?;
    }
    Ok(linear)
}

fn segment_fault(segment: usize) -> Trap {
    if segment == cpu::SS {
        Trap::SS0
    } else {
        Trap::GP0
    }
}

fn check_alignment(cpu: &Cpu, linear: u64, size: usize) -> Result<(), Trap> {
    let checked = cpu.cpl == 3 && cpu.cr0 & cr::CR0_AM != 0 && matches!(size, 2 | 4 | 8);
    if checked && linear & (size as u64 - 1) != 0 {
        return Err(Trap::coded(exception::AC, 0));
    }
    Ok(())
}

/// [`linear_address`] outside 64-bit mode.
fn legacy_linear(
    cpu: &Cpu,
    index: usize,
    offset: u64,
    size: usize,
    write: bool,
) -> Result<u64, Trap> {
    let Some(segment) = cpu.seg.get(index) else {
        return Err(Trap::GP0);
    };
    let fault = || segment_fault(index);
    let kind = segment.attributes;
    if !cpu.real_mode() && !cpu.virtual8086() {
        let allowed = if write {
            kind.is_writable()
        } else {
            kind.is_readable()
        };
        if kind.unusable() || !allowed {
            return Err(fault());
        }
    }
    let offset = offset & 0xffff_ffff;
    let last = offset + size.saturating_sub(1) as u64;
    let inside = if kind.is_expand_down() && !kind.is_code() {
        let top = if kind.big() { 0xffff_ffff } else { 0xffff };
        offset > u64::from(segment.limit) && last <= top
    } else {
        last <= u64::from(segment.limit)
    };
    if !inside {
        return Err(fault());
    }
    Ok(segment.base.wrapping_add(offset) & 0xffff_ffff)
}

/// Index in [`Cpu::seg`] of a segment register; DS for other registers.
#[inline]
pub fn segment_index(register: Register) -> usize {
    match register {
        Register::ES => cpu::ES,
        Register::CS => cpu::CS,
        Register::SS => cpu::SS,
        Register::FS => cpu::FS,
        Register::GS => cpu::GS,
        _ => cpu::DS,
    }
}

/// Segment of the explicit memory operand. 64-bit code ignores overrides but for FS and GS, so
/// there the base register alone makes a stack access (SDM vol. 1, 3.3.7.1).
#[inline]
pub fn operand_segment(cpu: &Cpu, instruction: &Instruction) -> usize {
    let named = segment_index(instruction.memory_segment());
    if !cpu.mode64() || named == cpu::FS || named == cpu::GS {
        return named;
    }
    match instruction.memory_base() {
        Register::RSP | Register::RBP | Register::ESP | Register::EBP => cpu::SS,
        _ => cpu::DS,
    }
}

/// Address size in bytes of the explicit memory operand.
#[inline]
pub fn address_size(cpu: &Cpu, instruction: &Instruction) -> usize {
    for name in [instruction.memory_base(), instruction.memory_index()] {
        match name {
            Register::None => {}
            Register::RIP => return 8,
            Register::EIP => return 4,
            // A vector index does not tell; XLAT's AL does not either.
            name => match register::gpr(name) {
                Some(r) if r.size > 1 => return r.size,
                _ => {}
            },
        }
    }
    match instruction.memory_displ_size() {
        size @ (2 | 4 | 8) => size as usize,
        _ => (cpu.bitness() / 8) as usize,
    }
}

/// Offset that the explicit memory operand encodes, truncated to its address size. Vector
/// indices count as zero.
#[inline]
pub fn effective_offset(cpu: &Cpu, instruction: &Instruction) -> u64 {
    let base = instruction.memory_base();
    let mut offset = instruction.memory_displacement64();
    if base != Register::RIP && base != Register::EIP {
        offset = offset.wrapping_add(register::read(cpu, base));
        let index = instruction.memory_index();
        if index != Register::None {
            let scale = u64::from(instruction.memory_index_scale());
            offset = offset.wrapping_add(register::read(cpu, index).wrapping_mul(scale));
        }
    }
    offset & mask(address_size(cpu, instruction))
}

/// Linear address of the `size`-byte explicit memory operand.
///
/// # Errors
/// Those of [`linear_address`].
#[inline]
pub fn operand_address(
    cpu: &Cpu,
    instruction: &Instruction,
    size: usize,
    write: bool,
) -> Result<u64, Trap> {
    let segment = operand_segment(cpu, instruction);
    linear_address(
        cpu,
        segment,
        effective_offset(cpu, instruction),
        size,
        write,
    )
}

/// Loads a value of `size` (1 to 8) bytes.
#[inline]
pub fn load<E: Env>(cpu: &mut Cpu, env: &mut E, linear: u64, size: usize) -> Result<u64, Trap> {
    let mut bytes = [0; 8];
    env.load(cpu, linear, &mut bytes[..size.min(8)], Privilege::Current)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Stores the low `size` (1 to 8) bytes of `value`.
#[inline]
pub fn store<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    linear: u64,
    size: usize,
    value: u64,
) -> Result<(), Trap> {
    env.store(
        cpu,
        linear,
        &value.to_le_bytes()[..size.min(8)],
        Privilege::Current,
    )
}

/// #GP(0) when `rip` can't be a target of a near branch in the current code segment.
#[inline]
pub fn check_branch_target(cpu: &Cpu, rip: u64) -> Result<(), Trap> {
    let valid = if cpu.mode64() {
        canonical(cpu, rip)
    } else {
        rip <= u64::from(cpu.seg[cpu::CS].limit)
    };
    if valid { Ok(()) } else { Err(Trap::GP0) }
}

#[cfg(test)]
mod tests {
    use ringfence_engine::{Segment, SegmentAttributes};

    use super::*;

    const USER_DATA: SegmentAttributes = SegmentAttributes(0xc0f3);

    fn protected() -> Box<Cpu> {
        let mut cpu = Cpu::new();
        cpu.cr0 |= cr::CR0_PE;
        let data = Segment {
            base: 0,
            limit: u32::MAX,
            attributes: USER_DATA,
            selector: 0x2b,
        };
        cpu.seg = [data; 6];
        cpu.seg[cpu::CS].attributes = SegmentAttributes::CODE32;
        cpu
    }

    #[test]
    fn limits_and_rights() {
        let mut cpu = protected();
        cpu.seg[cpu::DS].limit = 0xfff;
        cpu.seg[cpu::DS].base = 0xffff_f800;
        assert_eq!(linear_address(&cpu, cpu::DS, 0xffc, 4, true), Ok(0x7fc));
        assert_eq!(
            linear_address(&cpu, cpu::DS, 0xffd, 4, true),
            Err(Trap::GP0)
        );
        assert_eq!(linear_address(&cpu, cpu::CS, 0, 4, true), Err(Trap::GP0));
        assert_eq!(linear_address(&cpu, cpu::CS, 0, 4, false), Ok(0));
        cpu.seg[cpu::SS].attributes.0 |= SegmentAttributes::UNUSABLE;
        assert_eq!(linear_address(&cpu, cpu::SS, 0, 4, false), Err(Trap::SS0));
    }

    #[test]
    fn expand_down() {
        let mut cpu = protected();
        cpu.seg[cpu::DS].limit = 0xfff;
        cpu.seg[cpu::DS].attributes.0 = 0xc097;
        assert_eq!(
            linear_address(&cpu, cpu::DS, 0xfff, 1, false),
            Err(Trap::GP0)
        );
        assert_eq!(linear_address(&cpu, cpu::DS, 0x1000, 4, false), Ok(0x1000));
        cpu.seg[cpu::DS].attributes.0 = 0x97;
        assert_eq!(
            linear_address(&cpu, cpu::DS, 0xfffd, 4, false),
            Err(Trap::GP0)
        );
    }

    #[test]
    fn canonical_form() {
        let mut cpu = protected();
        cpu.efer = cr::EFER_LMA;
        cpu.seg[cpu::CS].attributes = SegmentAttributes::CODE64;
        cpu.seg[cpu::GS].base = 0xffff_8000_0000_0000;
        assert_eq!(
            linear_address(&cpu, cpu::DS, 0x7fff_ffff_fff8, 8, true),
            Ok(0x7fff_ffff_fff8)
        );
        assert_eq!(
            linear_address(&cpu, cpu::DS, 0x7fff_ffff_fff9, 8, true),
            Err(Trap::GP0)
        );
        assert_eq!(
            linear_address(&cpu, cpu::DS, u64::MAX - 6, 8, true),
            Err(Trap::GP0)
        );
        assert_eq!(
            linear_address(&cpu, cpu::SS, 1 << 47, 8, true),
            Err(Trap::SS0)
        );
        assert_eq!(
            linear_address(&cpu, cpu::GS, 0x10, 8, true),
            Ok(0xffff_8000_0000_0010)
        );
    }

    #[test]
    fn alignment_check_is_for_user_code() {
        let mut cpu = protected();
        (cpu.cr0, cpu.rflags, cpu.cpl) = (cpu.cr0 | cr::CR0_AM, cpu.rflags | flags::AC, 3);
        let fault = Err(Trap::coded(exception::AC, 0));
        assert_eq!(linear_address(&cpu, cpu::DS, 0x1001, 2, false), fault);
        assert_eq!(linear_address(&cpu, cpu::DS, 0x1001, 1, false), Ok(0x1001));
        cpu.cpl = 0;
        assert_eq!(linear_address(&cpu, cpu::DS, 0x1001, 2, false), Ok(0x1001));
    }
}
