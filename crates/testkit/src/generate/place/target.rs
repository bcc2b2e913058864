//! Addresses for operands and branches.

use super::super::SLOT;
use crate::layout::{ABSENT, AREA, AREA_SIZE, DATA, ISLAND, PAGE, READ_ONLY};
use crate::random::Random;

/// Distance from the data area up to which nothing is mapped.
const MARGIN: u64 = 0x1_0000;

/// An address in the slot that holds INT3: before the case's code, or well behind it.
pub(super) fn landing(random: &mut Random, base: u64, start: u64, after: u64) -> u64 {
    let end = base + SLOT;
    if random.one_in(2) || after + 1 >= end {
        base + random.below(start - base)
    } else {
        after + random.below(end - after)
    }
}

/// An address of `size` bytes that cross `boundary`, or of one byte beside it.
pub(super) fn crossing(random: &mut Random, size: u64, boundary: u64) -> u64 {
    if size > 1 {
        boundary - 1 - random.below(size - 1)
    } else {
        boundary - random.below(2)
    }
}

/// An address for an operand of `size` bytes: mostly ordinary, sometimes one that faults.
pub(super) fn target(random: &mut Random, size: u64, wild: bool) -> u64 {
    let across = |random: &mut Random, page: u64| page - 1 - random.below(size.max(2) - 1);
    match random.below(if wild { 64 } else { 60 }) {
        // Within a page, aligned or not.
        0..=44 => {
            let at = DATA + random.below(2 * PAGE);
            if random.one_in(2) {
                at & !63
            } else {
                at & !(size.next_power_of_two() - 1)
            }
        }
        45..=48 => DATA + random.below(2 * PAGE),
        // Across two good pages.
        49..=50 => across(random, DATA + PAGE),
        51 => across(random, DATA + 2 * PAGE),
        52 => across(random, READ_ONLY),
        53 => across(random, ABSENT),
        54 => READ_ONLY + random.below(PAGE - size.min(PAGE - 1)),
        55 => across(random, ISLAND + PAGE),
        56 => across(random, ISLAND),
        57 => ABSENT + random.below(PAGE - size.min(PAGE - 1)),
        58 => across(random, DATA),
        59 => READ_ONLY - size,
        // Not canonical.
        60..=61 => random.bits() | 1 << 63 & !(1 << 62),
        62 => 0x0000_8000_0000_0000 - random.below(size.max(2)),
        _ => 0xffff_7fff_ffff_ffff - random.below(size.max(2)),
    }
}

pub(super) fn canonical(address: u64) -> bool {
    ((address << 16) as i64 >> 16) as u64 == address
}

/// In the data area or around it where nothing is mapped, or not canonical.
pub(super) fn harmless(address: u64, size: u64) -> bool {
    let end = address.wrapping_add(size);
    let near = address >= AREA - MARGIN && end <= AREA + AREA_SIZE + MARGIN && end > address;
    near || !canonical(address) && !canonical(end)
}

/// All of the bytes can be read.
pub(super) fn readable(address: u64, size: u64) -> bool {
    let absent = |at: u64| {
        let page = at & !(PAGE - 1);
        !(DATA..ABSENT).contains(&page) && page != ISLAND
    };
    !absent(address) && !absent(address.wrapping_add(size - 1))
}
