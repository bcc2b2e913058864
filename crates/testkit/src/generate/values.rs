//! Random registers, vector state and memory.

use crate::layout::DATA;
use crate::random::Random;
use crate::state::{MXCSR, State, layout};

/// Flags that a case may begin with, beside the arithmetic ones.
const DF: u64 = 1 << 10;
const AC: u64 = 1 << 18;
const ID: u64 = 1 << 21;
const ARITHMETIC: u64 = 0x8d5;

/// Random registers; the stack pointer lies in the data area.
pub(super) fn state(random: &mut Random, bits: u32) -> State {
    let mut state = State::new();
    for register in &mut state.gpr {
        *register = random.value();
        if bits == 32 {
            *register &= 0xffff_ffff;
        }
    }
    if bits == 32 {
        state.gpr[8..].fill(0);
    }
    state.gpr[4] = DATA + 0x1400 + random.below(0x100) * 8;
    if random.one_in(6) {
        state.gpr[4] += random.below(8);
    }
    state.rflags = 0x202 | random.bits() & ARITHMETIC;
    if random.one_in(4) {
        state.rflags |= DF;
    }
    if random.one_in(16) {
        state.rflags |= ID;
    }
    if random.one_in(50) {
        state.rflags |= AC;
    }
    vector_state(random, &mut state);
    state
}

fn vector_state(random: &mut Random, state: &mut State) {
    let image = &mut state.xsave;
    if random.one_in(3) {
        // Control word: masks, precision and rounding; bit 6 is always set.
        let masks = if random.one_in(2) {
            0x3f
        } else {
            random.bits() as u16 & 0x3f
        };
        let control = 0x40 | masks | (random.bits() as u16 & 0xf00);
        image[0..2].copy_from_slice(&control.to_le_bytes());
    }
    // Status: top of stack and condition codes, now and then exceptions.
    let mut status = random.bits() as u16 & 0x7f00;
    if random.one_in(16) {
        status |= random.bits() as u16 & 0x7f;
    }
    let control = u16::from_le_bytes([image[0], image[1]]);
    if status & !control & 0x3f != 0 {
        status |= 0x8080;
    }
    image[2..4].copy_from_slice(&status.to_le_bytes());
    image[4] = match random.below(4) {
        0 => 0xff,
        1 => random.bits() as u8,
        _ => 0x3f << random.below(3),
    };
    let mxcsr: u32 = match random.below(4) {
        0 => random.bits() as u32 & 0xffff,
        1 => 0x1f80 | random.bits() as u32 & 0xe07f,
        _ => 0x1f80,
    };
    image[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    for register in 0..8 {
        let at = 32 + register * 16;
        let value = extended(random);
        image[at..at + 10].copy_from_slice(&value);
    }
    fill_data(random, &mut image[160..416]);
    for index in [2, 6, 7] {
        fill_data(random, &mut image[layout().component(index)]);
    }
    for mask in image[layout().component(5)].chunks_exact_mut(8) {
        let value = match random.below(4) {
            0 => u64::MAX,
            1 => random.bits() & random.bits() & random.bits(),
            _ => random.bits(),
        };
        mask.copy_from_slice(&value.to_le_bytes());
    }
}

/// An 80-bit number: integers, ordinary and special ones, or an MMX register's image.
fn extended(random: &mut Random) -> [u8; 10] {
    let mut bytes = [0; 10];
    let mut mantissa = random.bits() | 1 << 63;
    let exponent: u16 = match random.below(8) {
        0 => 0,
        1 => 0x7fff,
        2 => 0x3fff + random.below(70) as u16,
        3 => random.bits() as u16 & 0x7fff,
        4 => {
            mantissa = random.bits();
            0xffff
        }
        5 => {
            mantissa = random.value();
            random.pick(&[0, 1, 0x3fff, 0x7fff, 0xffff])
        }
        _ => {
            mantissa &= u64::MAX << random.below(63);
            mantissa |= 1 << 63;
            0x3ff0 + random.below(32) as u16
        }
    };
    bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
    let sign = (random.bits() as u16) & 0x8000;
    bytes[8..].copy_from_slice(&(exponent | sign).to_le_bytes());
    bytes
}

fn single(random: &mut Random) -> u32 {
    match random.below(6) {
        0 => (random.below(200) as f32 - 100.0).to_bits(),
        1 => random.pick(&[
            0,
            0x8000_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7fa0_0000,
            1,
        ]),
        2 => random.bits() as u32 & 0x807f_ffff,
        3 => 0x3f80_0000 ^ random.bits() as u32 & 0x83ff_ffff,
        _ => random.bits() as u32,
    }
}

fn double(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => (random.below(200) as f64 - 100.0).to_bits(),
        1 => random.pick(&[
            0,
            1 << 63,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff4_0000_0000_0000,
            1,
        ]),
        2 => random.bits() & 0x800f_ffff_ffff_ffff,
        3 => 0x3ff0_0000_0000_0000 ^ random.bits() & 0x803f_ffff_ffff_ffff,
        _ => random.bits(),
    }
}

/// Fills `out`, whose length is a multiple of 16, with integers and floating-point numbers.
pub fn fill_data(random: &mut Random, out: &mut [u8]) {
    for chunk in out.chunks_exact_mut(16) {
        match random.below(5) {
            0 => {
                for lane in chunk.chunks_exact_mut(4) {
                    lane.copy_from_slice(&single(random).to_le_bytes());
                }
            }
            1 => {
                for lane in chunk.chunks_exact_mut(8) {
                    lane.copy_from_slice(&double(random).to_le_bytes());
                }
            }
            2 => {
                for lane in chunk.chunks_exact_mut(8) {
                    lane.copy_from_slice(&random.value().to_le_bytes());
                }
            }
            3 => {
                let value = extended(random);
                chunk[..10].copy_from_slice(&value);
                random.fill(&mut chunk[10..]);
            }
            _ => random.fill(chunk),
        }
    }
}
