//! The page walk (SDM vol. 3A, 4.3 to 4.6): 2-level, PAE and 4-level paging.

use ringfence_x86::exception::{PF_FETCH, PF_PRESENT, PF_RESERVED, PF_USER, PF_WRITE};
use ringfence_x86::paging::{A, ADDRESS, D, G, P, PS, RW, US, XD};
use ringfence_x86::{cr, flags};

use super::phys::Phys;
use crate::cpu::Cpu;

/// What a linear address is translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A store.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// At user privilege.
    pub user: bool,
    /// Not by an operand: descriptor tables, task-state segments. RFLAGS.AC does not count.
    pub implicit: bool,
}

/// A translation.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Guest physical address.
    pub gpa: u64,
    /// Stores at this privilege are allowed and the page is dirty already.
    pub writable: bool,
    /// The page is global.
    pub global: bool,
    /// The page is larger than 4 KiB.
    pub large: bool,
}

/// Translates `linear`; sets accessed and dirty bits.
///
/// # Errors
/// The error code of the page fault.
pub fn walk(cpu: &Cpu, phys: &Phys, linear: u64, access: Access) -> Result<Translation, u32> {
    if cpu.cr0 & cr::CR0_PG == 0 {
        return Ok(Translation {
            gpa: linear & phys.mask(),
            writable: true,
            global: false,
            large: false,
        });
    }
    // An entry that another processor changes under the walk starts it again.
    loop {
        if let Some(result) = attempt(cpu, phys, linear, access) {
            return result;
        }
    }
}

/// Shape of one level of paging structures.
struct Level {
    shift: u32,
    bits: u32,
    large: bool,
}

const fn level(shift: u32, bits: u32, large: bool) -> Level {
    Level { shift, bits, large }
}

const LEGACY: [Level; 2] = [level(22, 10, true), level(12, 10, false)];
const PAE: [Level; 3] = [level(30, 2, false), level(21, 9, true), level(12, 9, false)];
const LONG: [Level; 4] = [
    level(39, 9, false),
    level(30, 9, true),
    level(21, 9, true),
    level(12, 9, false),
];

fn attempt(
    cpu: &Cpu,
    phys: &Phys,
    linear: u64,
    access: Access,
) -> Option<Result<Translation, u32>> {
    let long = cpu.efer & cr::EFER_LMA != 0;
    let pae = cpu.cr4 & cr::CR4_PAE != 0;
    let (levels, wide): (&[Level], bool) = match (long, pae) {
        (true, _) => (&LONG, true),
        (false, true) => (&PAE, true),
        (false, false) => (&LEGACY, false),
    };
    let no_execute = cpu.efer & cr::EFER_NXE != 0 && wide;
    let smep = cpu.cr4 & cr::CR4_SMEP != 0;
    let code = |bits: u32| {
        bits | if access.write { PF_WRITE } else { 0 }
            | if access.user { PF_USER } else { 0 }
            | if access.fetch && (no_execute || smep) {
                PF_FETCH
            } else {
                0
            }
    };
    let size = if wide { 8 } else { 4 };
    let mut table = match (long, pae) {
        (true, _) => cpu.cr3 & ADDRESS,
        (false, true) => cpu.cr3 & 0xffff_ffe0,
        (false, false) => cpu.cr3 & 0xffff_f000,
    };
    let (mut writable, mut user, mut executable) = (true, true, true);
    for (depth, level) in levels.iter().enumerate() {
        let index = linear >> level.shift & ((1 << level.bits) - 1);
        let at = table + index * size;
        let entry = phys.read_entry(at, wide);
        if entry & P == 0 {
            return Some(Err(code(0)));
        }
        let pdpte = wide && !long && depth == 0;
        let leaf = level.shift == 12
            || level.large && entry & PS != 0 && (wide || cpu.cr4 & cr::CR4_PSE != 0);
        if wide && reserved(entry, level, leaf, pdpte, long, no_execute) {
            return Some(Err(code(PF_PRESENT | PF_RESERVED)));
        }
        if !pdpte {
            writable &= entry & RW != 0;
            user &= entry & US != 0;
            executable &= !(no_execute && entry & XD != 0);
        }
        if !leaf {
            if !pdpte && entry & A == 0 && !phys.set_entry_bits(at, wide, entry, A) {
                return None;
            }
            table = if wide {
                entry & ADDRESS
            } else {
                entry & 0xffff_f000
            };
            continue;
        }
        let may_write = writable || !access.user && cpu.cr0 & cr::CR0_WP == 0;
        let smap = cpu.cr4 & cr::CR4_SMAP != 0 && (access.implicit || cpu.rflags & flags::AC == 0);
        let denied = access.user && !user
            || access.write && !may_write
            || access.fetch && (!executable || !access.user && user && smep)
            || !access.user && !access.fetch && user && smap;
        if denied {
            return Some(Err(code(PF_PRESENT)));
        }
        let set = A | if access.write { D } else { 0 };
        if entry & set != set && !phys.set_entry_bits(at, wide, entry, set) {
            return None;
        }
        let mask = (1u64 << level.shift) - 1;
        let base = if wide {
            entry & ADDRESS & !mask
        } else if level.shift == 22 {
            // PSE-36: bits 20:13 are address bits 39:32.
            entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
        } else {
            entry & 0xffff_f000
        };
        return Some(Ok(Translation {
            gpa: (base | linear & mask) & phys.mask(),
            writable: may_write && (entry | set) & D != 0,
            global: entry & G != 0 && cpu.cr4 & cr::CR4_PGE != 0,
            large: level.shift > 12,
        }));
    }
    None
}

/// Whether a 64-bit entry has a reserved bit set. 48 physical-address bits are offered.
fn reserved(entry: u64, level: &Level, leaf: bool, pdpte: bool, long: bool, nx: bool) -> bool {
    let address = 0x000f_0000_0000_0000;
    let mut mask = if long { address } else { 0x7fff_0000_0000_0000 };
    if !nx || pdpte {
        mask |= XD;
    }
    if pdpte {
        mask |= 0x1e6;
    }
    if leaf && level.shift > 12 {
        // Bits between the PAT bit and the address of a large page.
        mask |= ((1u64 << level.shift) - 1) & !0x1fff;
    }
    if !leaf && !level.large && level.shift > 12 && !pdpte {
        mask |= PS;
    }
    entry & mask != 0
}
