//! System-management mode: entry by SMI, and RSM (AMD APM vol. 2, chapter 10; SDM vol. 3C, chapter
//! 32).
//!
//! Processors with 64-bit mode save their state in the layout of AMD64 (APM vol. 2, table 10-1),
//! others in the one of the P6 family (SDM vol. 3C, table 32-1); firmware tells them apart by the
//! revision. Left out: restart of I/O instructions, and the state of the floating-point unit, which
//! handlers have to save themselves.

use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::{cr, flags};

use super::cpuid::{Feature, Offered as _};
use crate::cpu::{CS, Cpu, SS};
use crate::env::{Env, Flush, Privilege, Trap};

/// Offset of the handler's first instruction from SMBASE, and of what offsets in the state-save
/// map are relative to.
const ENTRY: u64 = 0x8000;
/// Revision of the AMD64 layout; SMBASE can be relocated.
const REVISION64: u32 = 0x0002_0064;
/// Revision of the P6 layout; SMBASE can be relocated.
const REVISION32: u32 = 0x0002_0000;
/// Bit of the revision that says so.
const RELOCATION: u32 = 0x2_0000;

/// A field of the state-save map: offset, bytes, value.
type Field = (u64, usize, u64);

/// Where each segment register's selector, attributes, limit and base are, and their sizes in the
/// case of selector and base.
struct SegmentPlace {
    selector: u64,
    attributes: u64,
    limit: u64,
    base: u64,
    wide: bool,
}

/// ES, CS, SS, DS, FS, GS, LDTR, TR.
fn segment_place(index: usize, long: bool) -> SegmentPlace {
    let i = index as u64;
    if long {
        let at = match index {
            6 => 0x7e70,
            7 => 0x7e90,
            _ => 0x7e00 + i * 16,
        };
        return SegmentPlace {
            selector: at,
            attributes: at + 2,
            limit: at + 4,
            base: at + 8,
            wide: true,
        };
    }
    let (selector, at) = match index {
        6 => (0x7fc0, 0x7f78),
        7 => (0x7fc4, 0x7f5c),
        ..3 => (0x7fa8 + i * 4, 0x7f84 + i * 12),
        _ => (0x7fa8 + i * 4, 0x7f2c + (i - 3) * 12),
    };
    SegmentPlace {
        selector,
        attributes: at,
        limit: at + 4,
        base: at + 8,
        wide: false,
    }
}

fn segments(cpu: &Cpu) -> [Segment; 8] {
    let [es, cs, ss, ds, fs, gs] = cpu.seg;
    [es, cs, ss, ds, fs, gs, cpu.ldtr, cpu.tr]
}

/// Attributes as the map has them: descriptor bits 8 to 23 without the limit's. A null selector's
/// segment is not present.
fn saved_attributes(segment: &Segment) -> u64 {
    if segment.attributes.unusable() {
        0
    } else {
        u64::from(segment.attributes.0 & 0xf0ff)
    }
}

/// Where general register `index` is saved.
fn register_place(index: u64, long: bool) -> u64 {
    if long {
        0x7ff8 - index * 8
    } else {
        0x7fd0 + index * 4
    }
}

fn fields(cpu: &Cpu, long: bool) -> Vec<Field> {
    let mut fields = Vec::with_capacity(80);
    let size = if long { 8 } else { 4 };
    let registers = if long { 16 } else { 8 };
    for (index, &value) in cpu.gpr.iter().enumerate().take(registers) {
        fields.push((register_place(index as u64, long), size, value));
    }
    for (index, segment) in segments(cpu).iter().enumerate() {
        let place = segment_place(index, long);
        let (selector, attributes) = if long { (2, 2) } else { (4, 4) };
        fields.extend([
            (place.selector, selector, u64::from(segment.selector)),
            (place.attributes, attributes, saved_attributes(segment)),
            (place.limit, 4, u64::from(segment.limit)),
            (place.base, if place.wide { 8 } else { 4 }, segment.base),
        ]);
    }
    let (gdtr, idtr) = (cpu.gdtr, cpu.idtr);
    if long {
        fields.extend([
            (0x7e64, 4, u64::from(gdtr.limit)),
            (0x7e68, 8, gdtr.base),
            (0x7e84, 4, u64::from(idtr.limit)),
            (0x7e88, 8, idtr.base),
            (0x7ec9, 1, u64::from(cpu.halted)),
            (0x7ecb, 1, u64::from(cpu.cpl)),
            (0x7ed0, 8, cpu.efer),
            (0x7efc, 4, u64::from(REVISION64)),
            (0x7f00, 4, u64::from(cpu.smbase)),
            (0x7f48, 8, cpu.cr4),
            (0x7f50, 8, cpu.cr3),
            (0x7f58, 8, cpu.cr0),
            (0x7f60, 8, cpu.dr[7]),
            (0x7f68, 8, cpu.dr[6]),
            (0x7f70, 8, cpu.rflags),
            (0x7f78, 8, cpu.rip),
        ]);
    } else {
        fields.extend([
            (0x7f70, 4, u64::from(gdtr.limit)),
            (0x7f74, 4, gdtr.base),
            (0x7f54, 4, u64::from(idtr.limit)),
            (0x7f58, 4, idtr.base),
            (0x7f02, 2, u64::from(cpu.halted)),
            (0x7efc, 4, u64::from(REVISION32)),
            (0x7ef8, 4, u64::from(cpu.smbase)),
            (0x7f14, 4, cpu.cr4),
            (0x7ff8, 4, cpu.cr3),
            (0x7ffc, 4, cpu.cr0),
            (0x7fc8, 4, cpu.dr[7]),
            (0x7fcc, 4, cpu.dr[6]),
            (0x7ff4, 4, cpu.rflags),
            (0x7ff0, 4, cpu.rip),
        ]);
    }
    fields
}

/// Enters system-management mode: saves the state at SMBASE and goes to the handler, in real
/// mode with 4 GiB limits. What lies where no memory is, is lost.
pub fn enter_smm<E: Env>(cpu: &mut Cpu, env: &mut E) {
    let long = Feature::LM.offered(cpu, env);
    let saved = fields(cpu, long);
    let nmi_blocked = cpu.nmi_blocked;
    cpu.cr0 &= !(cr::CR0_PE | cr::CR0_EM | cr::CR0_TS | cr::CR0_PG);
    (cpu.cr4, cpu.efer) = (0, 0);
    cpu.rflags = flags::FIXED;
    cpu.cpl = 0;
    env.flush(cpu, Flush::All);
    let base = u64::from(cpu.smbase) + ENTRY;
    for (offset, size, value) in saved {
        let bytes = value.to_le_bytes();
        let linear = (base + offset) & 0xffff_ffff;
        let _ = env.store(cpu, linear, &bytes[..size], Privilege::System);
    }
    let data = Segment {
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes(0x8093),
        selector: 0,
    };
    cpu.seg = [data; 6];
    cpu.seg[CS] = Segment {
        base: u64::from(cpu.smbase),
        selector: (cpu.smbase >> 4) as u16,
        ..data
    };
    cpu.rip = ENTRY;
    cpu.dr[7] = 0x400;
    cpu.smm = true;
    cpu.smm_nmi_blocked = nmi_blocked;
    cpu.nmi_blocked = true;
    cpu.interrupt_shadow = false;
    cpu.halted = false;
}

/// RSM: loads the state that SMI saved, as the handler left it.
///
/// # Errors
/// #UD outside system-management mode.
pub(super) fn resume<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    if !cpu.smm {
        return Err(Trap::UD);
    }
    // The map is at physical addresses, whatever paging the handler uses.
    let cr0 = cpu.cr0;
    cpu.cr0 &= !cr::CR0_PG;
    env.flush(cpu, Flush::All);
    let result = load_state(cpu, env);
    if result.is_err() {
        cpu.cr0 = cr0;
    }
    env.flush(cpu, Flush::All);
    result
}

fn load_state<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    let base = u64::from(cpu.smbase) + ENTRY;
    let mut image = [0; 0x200];
    // The map from 7E00h to 7FFFh.
    let linear = (base + 0x7e00) & 0xffff_ffff;
    env.load(cpu, linear, &mut image, Privilege::System)?;
    let get = |offset: u64, size: usize| {
        let at = (offset - 0x7e00) as usize;
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&image[at..at + size]);
        u64::from_le_bytes(bytes)
    };
    let long = Feature::LM.offered(cpu, env);
    let size = if long { 8 } else { 4 };
    for index in 0..if long { 16 } else { 8 } {
        cpu.gpr[index as usize] = get(register_place(index, long), size);
    }
    let mut loaded = [Segment::default(); 8];
    for (index, segment) in loaded.iter_mut().enumerate() {
        let place = segment_place(index, long);
        let attributes = get(place.attributes, 2) as u32;
        *segment = Segment {
            selector: get(place.selector, 2) as u16,
            attributes: SegmentAttributes(if attributes == 0 {
                SegmentAttributes::UNUSABLE
            } else {
                attributes
            }),
            limit: get(place.limit, 4) as u32,
            base: get(place.base, if place.wide { 8 } else { 4 }),
        };
    }
    let (segments, rest) = loaded.split_at(6);
    cpu.seg.copy_from_slice(segments);
    (cpu.ldtr, cpu.tr) = (rest[0], rest[1]);
    let (revision, halted);
    if long {
        (cpu.gdtr.limit, cpu.gdtr.base) = (get(0x7e64, 2) as u16, get(0x7e68, 8));
        (cpu.idtr.limit, cpu.idtr.base) = (get(0x7e84, 2) as u16, get(0x7e88, 8));
        halted = get(0x7ec9, 1) & 1;
        revision = get(0x7efc, 4) as u32;
        (cpu.efer, cpu.cr4) = (get(0x7ed0, 8), get(0x7f48, 8));
        (cpu.cr3, cpu.cr0) = (get(0x7f50, 8), get(0x7f58, 8));
        (cpu.dr[7], cpu.dr[6]) = (get(0x7f60, 8), get(0x7f68, 8));
        (cpu.rflags, cpu.rip) = (get(0x7f70, 8), get(0x7f78, 8));
        if revision & RELOCATION != 0 {
            cpu.smbase = get(0x7f00, 4) as u32;
        }
    } else {
        (cpu.gdtr.limit, cpu.gdtr.base) = (get(0x7f70, 2) as u16, get(0x7f74, 4));
        (cpu.idtr.limit, cpu.idtr.base) = (get(0x7f54, 2) as u16, get(0x7f58, 4));
        halted = get(0x7f02, 2) & 1;
        revision = get(0x7efc, 4) as u32;
        cpu.cr4 = get(0x7f14, 4);
        (cpu.cr3, cpu.cr0) = (get(0x7ff8, 4), get(0x7ffc, 4));
        (cpu.dr[7], cpu.dr[6]) = (get(0x7fc8, 4), get(0x7fcc, 4));
        (cpu.rflags, cpu.rip) = (get(0x7ff4, 4), get(0x7ff0, 4));
        if revision & RELOCATION != 0 {
            cpu.smbase = get(0x7ef8, 4) as u32;
        }
    }
    cpu.rflags |= flags::FIXED;
    cpu.cr0 |= cr::CR0_ET;
    cpu.cpl = if cpu.virtual8086() {
        3
    } else if cpu.real_mode() {
        0
    } else {
        cpu.seg[SS].attributes.dpl()
    };
    cpu.halted = halted != 0;
    cpu.smm = false;
    cpu.nmi_blocked = cpu.smm_nmi_blocked;
    Ok(())
}
