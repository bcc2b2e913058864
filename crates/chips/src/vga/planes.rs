//! Accesses of the processor to the planes.
//!
//! Source: IBM PS/2 hardware technical reference, "Graphics controller registers"; the order of
//! rotate, set/reset, function and bit mask is that of the figure of write mode 0 there.

use ringfence_memory::Mapping;

use super::registers::*;

/// Spreads a byte to all planes.
const SPREAD: u32 = 0x0101_0101;

/// Where an access goes: index of the four planes' bytes, and the planes it reaches.
struct Place {
    /// In units of four bytes.
    index: usize,
    /// The plane that a read takes, when addresses choose one.
    plane: Option<u8>,
    /// Planes that a write may reach.
    planes: u8,
}

/// Four bits of planes as masks of bytes.
const fn spread_bits(bits: u8) -> u32 {
    let bits = bits as u32;
    ((bits & 1) | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21) * 0xff
}

fn place(registers: &Registers, memory: &Mapping, address: u64, odd_even: bool) -> Option<Place> {
    if registers.misc & MISC_MEMORY == 0 {
        return None;
    }
    let (start, size) = registers.window();
    let offset = address.checked_sub(start).filter(|&offset| offset < size)? as usize;
    let planes = memory.size() / 4;
    let mode = registers.sequencer[MEMORY_MODE];
    if mode & CHAIN_4 != 0 {
        let plane = (offset & 3) as u8;
        return Some(Place {
            index: (offset >> 2) & (planes - 1),
            plane: Some(plane),
            planes: 1 << plane,
        });
    }
    // Without bit 1 a plane has 16 KiB, as on a card with 64 KiB.
    let limit = if mode & EXTENDED != 0 { 0xffff } else { 0x3fff };
    if odd_even {
        let plane = (offset & 1) as u8;
        let chained = registers.graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN != 0;
        // Address bit 0 has chosen the plane: address bit 16 or the page bit takes its place.
        let low = match (chained, size > 0x10000) {
            (false, _) => offset & 1,
            (true, true) => offset >> 16 & 1,
            (true, false) => usize::from(registers.misc & MISC_PAGE == 0),
        };
        return Some(Place {
            index: (offset & limit & !1 | low) & (planes - 1),
            plane: Some(plane),
            planes: 0b0101 << plane,
        });
    }
    let bank = registers.bank.map_or(0, |(bank, _)| bank);
    Some(Place {
        index: ((offset & limit) + bank) & (planes - 1),
        plane: None,
        planes: 0x0f,
    })
}

/// Offset in memory of an access to a linear mode's window.
fn linear(registers: &Registers, memory: &Mapping, address: u64) -> Option<Option<usize>> {
    let (bank, true) = registers.bank? else {
        return None;
    };
    let offset = address.checked_sub(0xa0000).filter(|&at| at < 0x10000);
    Some(offset.map(|at| (bank + at as usize) & (memory.size() - 1)))
}

/// Reads a byte, which loads the latches; all ones where nothing answers.
pub fn read(registers: &mut Registers, memory: &Mapping, address: u64) -> u8 {
    if let Some(offset) = linear(registers, memory, address) {
        return offset.map_or(0xff, |offset| memory.byte(offset));
    }
    let odd_even = registers.graphics[MODE] & HOST_ODD_EVEN != 0;
    let Some(place) = place(registers, memory, address, odd_even) else {
        return 0xff;
    };
    registers.latches = memory.dword(place.index * 4);
    let mode = registers.graphics[MODE];
    if mode & READ_COMPARE != 0 {
        let wanted = spread_bits(registers.graphics[COLOR_COMPARE]);
        let care = spread_bits(registers.graphics[COLOR_CARE]);
        let differing = (registers.latches ^ wanted) & care;
        return !(differing | differing >> 8 | differing >> 16 | differing >> 24) as u8;
    }
    let plane = match place.plane {
        // Odd/even addressing takes the upper pair of planes with read map select 2 and 3.
        Some(plane) if registers.sequencer[MEMORY_MODE] & CHAIN_4 == 0 => {
            registers.graphics[READ_MAP] & 2 | plane
        }
        Some(plane) => plane,
        None => registers.graphics[READ_MAP],
    };
    (registers.latches >> (plane * 8)) as u8
}

/// Writes a byte through the write mode; ignored where nothing answers.
pub fn write(registers: &mut Registers, memory: &Mapping, address: u64, value: u8) {
    if let Some(offset) = linear(registers, memory, address) {
        if let Some(offset) = offset {
            memory.set_byte(offset, value);
        }
        return;
    }
    let odd_even = registers.sequencer[MEMORY_MODE] & NO_ODD_EVEN == 0;
    let Some(place) = place(registers, memory, address, odd_even) else {
        return;
    };
    let graphics = &registers.graphics;
    let latches = registers.latches;
    let rotate = u32::from(graphics[DATA_ROTATE] & 7);
    let rotated = value.rotate_right(rotate);
    let set_reset = spread_bits(graphics[SET_RESET]);
    let (source, mask) = match graphics[MODE] & 3 {
        0 => {
            let enabled = spread_bits(graphics[ENABLE_SET_RESET]);
            let data = u32::from(rotated) * SPREAD;
            (data & !enabled | set_reset & enabled, graphics[BIT_MASK])
        }
        1 => (latches, 0xff),
        2 => (spread_bits(value & 0x0f), graphics[BIT_MASK]),
        _ => (set_reset, rotated & graphics[BIT_MASK]),
    };
    let result = if graphics[MODE] & 3 == 1 {
        latches
    } else {
        let combined = match graphics[DATA_ROTATE] >> 3 & 3 {
            0 => source,
            1 => source & latches,
            2 => source | latches,
            _ => source ^ latches,
        };
        let mask = u32::from(mask) * SPREAD;
        combined & mask | latches & !mask
    };
    let planes = spread_bits(place.planes & registers.sequencer[MAP_MASK]);
    let offset = place.index * 4;
    let old = memory.dword(offset);
    memory.set_dword(offset, old & !planes | result & planes);
}
