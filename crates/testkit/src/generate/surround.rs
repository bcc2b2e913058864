//! Instructions around the one under test, so that it is the middle of a block.
//!
//! They touch only scratch memory, by absolute address, and keep all general registers; those behind the
//! case read its flags and registers.

use crate::layout::ISLAND;
use crate::random::Random;

/// Scratch memory of the instructions before and after the case.
const SCRATCH: u64 = ISLAND + 0x400;
const SCRATCH_SIZE: u64 = 0x800;

fn absolute(random: &mut Random, bits: u32, size: u64, out: &mut Vec<u8>, reg: u8) {
    let address = SCRATCH + random.below(SCRATCH_SIZE / size) * size;
    if bits == 64 {
        out.extend([reg << 3 | 4, 0x25]);
    } else {
        out.push(reg << 3 | 5);
    }
    out.extend((address as u32).to_le_bytes());
}

/// Stores a register, general or vector.
fn store(random: &mut Random, bits: u32, out: &mut Vec<u8>) {
    let reg = random.below(8) as u8;
    let rex = if bits == 64 {
        Some(0x48 | (random.below(2) as u8) << 2)
    } else {
        None
    };
    match random.below(4) {
        0 => {
            // movups [scratch], xmm
            if let Some(rex) = rex {
                out.push(rex & 0xf7);
            }
            out.extend([0x0f, 0x11]);
            absolute(random, bits, 16, out, reg);
        }
        1 => {
            // mov [scratch], r8: AH to BH where no REX prefix is
            out.push(0x88);
            absolute(random, bits, 1, out, reg);
        }
        _ => {
            out.extend(rex);
            out.push(0x89);
            absolute(random, bits, 8, out, reg);
        }
    }
}

/// Up to three instructions, which keep all but flags.
pub(super) fn before(random: &mut Random, bits: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(3) {
        match random.below(6) {
            0 => out.push(0x90),
            1 => {
                // lea rcx, [rcx]
                out.extend((bits == 64).then_some(0x48));
                out.extend([0x8d, 0x09]);
            }
            // cmp cl, imm8: flags that the case finds in EFLAGS, not where they were at its start
            2 => out.extend([0x80, 0xf9, random.bits() as u8]),
            _ => store(random, bits, &mut out),
        }
    }
    out
}

/// Up to three instructions that store registers and, if all are `defined`, flags.
pub(super) fn after(random: &mut Random, bits: u32, defined: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(3) {
        match if defined { random.below(6) } else { 5 } {
            0 => {
                // setcc [scratch]
                out.extend([0x0f, 0x90 | random.below(16) as u8]);
                absolute(random, bits, 1, &mut out, 0);
            }
            1 => {
                // adc dword [scratch], imm8
                out.push(0x83);
                absolute(random, bits, 4, &mut out, 2);
                out.push(random.bits() as u8);
            }
            2 => {
                // inc dword [scratch]: keeps CF
                out.push(0xff);
                absolute(random, bits, 4, &mut out, 0);
            }
            3 => {
                // jcc over a NOP
                out.extend([0x70 | random.below(16) as u8, 1, 0x90]);
            }
            4 => {
                // cmovcc ecx, [scratch]
                out.extend([0x0f, 0x40 | random.below(16) as u8]);
                absolute(random, bits, 4, &mut out, 1);
            }
            _ => store(random, bits, &mut out),
        }
    }
    out
}
