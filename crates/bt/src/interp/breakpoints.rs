//! The breakpoint address registers DR0 to DR3 under DR7 (SDM vol. 3B, 17.2).
//!
//! Pages with an enabled breakpoint are kept out of translated code and out of its TLB, so that
//! the interpreter sees each of their accesses. Instruction breakpoints are faults before the
//! instruction; the others are noted in [`Cpu::breakpoints_hit`] and become a trap after it.

use ringfence_x86::{cr, exception, flags};

use super::system::linear_rip;
use crate::cpu::Cpu;
use crate::env::Trap;

/// DR7: local and global enable bits of the four breakpoints.
const ENABLES: u64 = 0xff;

/// What touches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An instruction begins there.
    Execute,
    /// A load.
    Read,
    /// A store.
    Write,
    /// An I/O port.
    Port,
}

/// Whether any breakpoint is enabled.
#[inline]
pub fn armed(cpu: &Cpu) -> bool {
    cpu.dr[7] & ENABLES != 0
}

/// Numbers, kinds (the R/W fields), first addresses and sizes of the enabled breakpoints.
fn enabled(cpu: &Cpu) -> impl Iterator<Item = (usize, u64, u64, u64)> + '_ {
    let control = cpu.dr[7];
    (0..4)
        .filter(move |n| control >> (2 * n) & 3 != 0)
        .map(move |n| {
            let size = match control >> (18 + 4 * n) & 3 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            let address = cpu.dr[n] & !(size - 1);
            (n, control >> (16 + 4 * n) & 3, address, size)
        })
}

fn is_for(cpu: &Cpu, kind: u64, access: Access) -> bool {
    match kind {
        0 => access == Access::Execute,
        1 => access == Access::Write,
        // Undefined without CR4.DE.
        2 => access == Access::Port && cpu.cr4 & cr::CR4_DE != 0,
        _ => matches!(access, Access::Read | Access::Write),
    }
}

/// The enabled breakpoints that `size` bytes at `address` touch, as the low bits of DR6.
pub fn touched(cpu: &Cpu, access: Access, address: u64, size: u64) -> u8 {
    let hit = |&(_, kind, start, length): &(usize, u64, u64, u64)| {
        is_for(cpu, kind, access) && address.wrapping_sub(start) < length.max(1)
            || is_for(cpu, kind, access) && start.wrapping_sub(address) < size
    };
    enabled(cpu)
        .filter(hit)
        .fold(0, |hits, (n, ..)| hits | 1 << n)
}

/// Notes an access that succeeded.
#[inline]
pub fn note(cpu: &mut Cpu, access: Access, address: u64, size: u64) {
    if armed(cpu) {
        cpu.breakpoints_hit |= touched(cpu, access, address, size);
    }
}

/// Whether the page of `linear` has a breakpoint on data, or on instructions.
#[inline]
pub fn on_page(cpu: &Cpu, linear: u64, instructions: bool) -> bool {
    armed(cpu)
        && enabled(cpu).any(|(_, kind, address, _)| {
            address ^ linear < 0x1000
                && if instructions {
                    kind == 0
                } else {
                    kind & 1 != 0
                }
        })
}

/// The fault of an instruction breakpoint at RIP, unless RFLAGS.RF masks it.
///
/// # Errors
/// #DB.
#[inline]
pub fn before_instruction(cpu: &mut Cpu) -> Result<(), Trap> {
    if !armed(cpu) || cpu.rflags & flags::RF != 0 {
        return Ok(());
    }
    match touched(cpu, Access::Execute, linear_rip(cpu), 1) {
        0 => Ok(()),
        hits => {
            cpu.dr[6] |= u64::from(hits);
            Err(Trap::fault(exception::DB))
        }
    }
}
