//! Which memory accesses of a block share one check.
//!
//! Accesses relative to the same register values lie at known distances from each other. One
//! check of the whole window, made before the first of them, covers all: if the window is inside
//! one accessible page, none of them can fault. If it is not, the block is left for a variant in
//! which each access has a check of its own. The check is made where the flags are dead, if there
//! is such a place between the definition of the registers and the first access.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::classify::Kind;
use super::mode::{Mode, SegmentClass};
use super::segment::address_bits;
use super::string::string_size;
use super::translate::Decoded;
use crate::cpu::{DS, ES, FS, GS, SS};
use crate::interp::address::segment_index;

/// Bytes that a window may span.
const MAX_WINDOW: i64 = 256;
/// Bytes that a window on the stack may span.
const MAX_STACK_WINDOW: i64 = 512;
/// How far a register may be followed: sums with displacements of instructions stay small.
const MAX_SHIFT: i64 = 1 << 24;
/// Groups of a block.
pub const MAX_GROUPS: usize = 48;

/// What is followed through a block: general registers, then the bases of the segments.
const REGISTERS: usize = 22;
const BASES: usize = 16;
const RSP: u8 = 4;
const RBP: u8 = 5;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// What an address is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A general register, an optional scaled index, and the base of a segment.
    Registers {
        /// Base register number.
        base: Option<u8>,
        /// Index register number and log2 of its scale.
        index: Option<(u8, u8)>,
        /// Index of the segment register, unless offsets are linear addresses.
        segment: Option<u8>,
        /// Bits in which the offset is computed.
        bits: u8,
    },
    /// Zero: the address is constant.
    Constant,
}

/// One access of an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Index of its group.
    pub group: u8,
    /// Distance of the first byte from the group's origin.
    pub at: i64,
}

/// Accesses that share a check.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What the window is relative to, as the registers are at `place`.
    pub origin: Origin,
    versions: [u16; 3],
    /// First byte of the window, relative to the origin.
    pub low: i64,
    /// Byte after the window, relative to the origin.
    pub high: i64,
    /// Some access is a store.
    pub write: bool,
    /// How many accesses there are.
    pub uses: u8,
    /// Slot of the recent page to probe first; none where the address was computed or loaded just
    /// before, as hashes and chains of pointers go to another page each time.
    pub recent: Option<u8>,
    /// Instruction before which the check is made.
    pub place: u16,
    /// What the address has been moved by at `place`, in terms of the origin.
    pub shift: i64,
    first: u16,
    defined: u16,
}

impl Group {
    /// Bytes of the window.
    pub fn size(&self) -> u32 {
        (self.high - self.low) as u32
    }

    /// Whether both are relative to the same value of the same base register.
    pub fn has_base_of(&self, other: &Self) -> bool {
        let base = |group: &Self| match group.origin {
            Origin::Registers {
                base: Some(base),
                segment,
                ..
            } => Some((base, group.versions[0], segment, group.versions[2])),
            _ => None,
        };
        base(self).is_some() && base(self) == base(other)
    }

    /// One access, checked where it is made.
    pub fn is_single(&self) -> bool {
        self.uses == 1 && self.place == self.first
    }
}

/// The groups of a block and the accesses of each instruction.
#[derive(Debug, Default)]
pub struct Groups {
    /// The groups.
    pub groups: Vec<Group>,
    /// Up to two accesses of each instruction: the memory operand, the stack.
    pub accesses: Vec<[Option<Access>; 2]>,
}

/// What is known of a general register while the block is scanned.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    version: u16,
    shift: i64,
    /// First instruction that sees this version.
    defined: u16,
}

impl Known {
    fn shift(&mut self, by: i64, i: usize) {
        self.shift += by;
        if self.shift.abs() > MAX_SHIFT {
            renew(self, i);
        }
    }
}

/// What the constant moves of registers have added to an address.
fn moved(origin: Origin, known: &[Known; REGISTERS]) -> i64 {
    let Origin::Registers { base, index, .. } = origin else {
        return 0;
    };
    let base = base.map_or(0, |r| known[usize::from(r)].shift);
    base + index.map_or(0, |(r, scale)| known[usize::from(r)].shift << scale)
}

impl Groups {
    /// Finds the groups of `block`.
    pub fn find(&mut self, block: &[Decoded], mode: Mode) {
        let separate = mode.separate();
        self.groups.clear();
        self.accesses.clear();
        let mut known = [Known::default(); REGISTERS];
        for (i, decoded) in block.iter().enumerate() {
            let accesses = [
                self.operand(decoded, i, &known, mode, separate),
                self.stack(decoded, i, &known, mode, separate),
            ];
            self.accesses.push(accesses);
            advance(decoded, i, &mut known, mode);
        }
        self.place(block, mode);
    }

    /// The group access of a memory operand.
    fn operand(
        &mut self,
        decoded: &Decoded,
        i: usize,
        known: &[Known; REGISTERS],
        mode: Mode,
        separate: bool,
    ) -> Option<Access> {
        let instruction = &decoded.instruction;
        if matches!(decoded.kind, Kind::Lods | Kind::Movs | Kind::Cmps) {
            let segment = segment_index(instruction.memory_segment());
            let (origin, size) = string(instruction, RSI, segment, mode);
            return self.add(origin, 0, size, false, i, known, separate);
        }
        let operand =
            (0..instruction.op_count()).find(|&n| instruction.op_kind(n) == OpKind::Memory)?;
        let taken = match decoded.kind {
            Kind::Plain
            | Kind::Push
            | Kind::CallIndirect
            | Kind::JumpIndirect
            | Kind::LoadSelector
            | Kind::FarPointer => true,
            Kind::AbsoluteMove => !mode.long(),
            _ => false,
        };
        if !taken {
            return None;
        }
        let (origin, disp) = origin(instruction, mode)?;
        let size = instruction.memory_size().size().max(1);
        let stores = matches!(decoded.kind, Kind::Plain | Kind::AbsoluteMove);
        let write = stores && decoded.operand_written(operand);
        self.add(origin, disp, size, write, i, known, separate)
    }

    /// The group access of an implied stack operand.
    fn stack(
        &mut self,
        decoded: &Decoded,
        i: usize,
        known: &[Known; REGISTERS],
        mode: Mode,
        separate: bool,
    ) -> Option<Access> {
        if matches!(
            decoded.kind,
            Kind::Stos | Kind::Movs | Kind::Scas | Kind::Cmps
        ) {
            let (origin, size) = string(&decoded.instruction, RDI, ES, mode);
            let write = matches!(decoded.kind, Kind::Stos | Kind::Movs);
            return self.add(origin, 0, size, write, i, known, separate);
        }
        let write = match decoded.kind {
            Kind::Enter
            | Kind::Push
            | Kind::PushFlags
            | Kind::Call
            | Kind::CallIndirect
            | Kind::PushAll
            | Kind::PushSelector => true,
            Kind::PopFlags => false,
            Kind::Pop | Kind::Return | Kind::PopAll | Kind::PopSelector | Kind::Leave => false,
            _ => return None,
        };
        let (base, disp, size) = stack_access(decoded);
        let bits = stack_bits(mode);
        let linear = mode.segment(SS) == SegmentClass::Flat && bits != 16;
        let origin = Origin::Registers {
            base: Some(base),
            index: None,
            segment: (!linear).then_some(SS as u8),
            bits: bits as u8,
        };
        self.add(origin, disp, size as usize, write, i, known, separate)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "an access has this many properties"
    )]
    fn add(
        &mut self,
        origin: Origin,
        disp: i64,
        size: usize,
        write: bool,
        i: usize,
        known: &[Known; REGISTERS],
        separate: bool,
    ) -> Option<Access> {
        let i = i as u16;
        let (versions, shift, defined, recent) = match origin {
            Origin::Constant => ([0; 3], 0, 0, None),
            Origin::Registers {
                base,
                index,
                segment,
                ..
            } => {
                let slot = match (segment.map(usize::from), base, index) {
                    (Some(FS), ..) => 16,
                    (Some(GS), ..) => 17,
                    (_, Some(base), _) => base,
                    (_, None, Some((index, _))) => index,
                    // Slots of registers that code with such segments does not have.
                    (Some(segment), None, None) => 8 + segment as u8,
                    (None, None, None) => RSP,
                };
                let base = base.map_or(Known::default(), |r| known[usize::from(r)]);
                let index = index.map_or(Known::default(), |(r, _)| known[usize::from(r)]);
                let segment = segment.map_or(Known::default(), |s| known[BASES + usize::from(s)]);
                let defined = base.defined.max(index.defined).max(segment.defined);
                let steady = slot == RSP || base.version == 0 && index.version == 0;
                let recent = steady.then_some(slot);
                let versions = [base.version, index.version, segment.version];
                (versions, moved(origin, known), defined, recent)
            }
        };
        if shift != 0 && i32::try_from(disp.abs() + (1 << 30)).is_err() {
            // The sum may not fit a displacement.
            return None;
        }
        let at = disp + shift;
        let end = at + size as i64;
        let limit = if is_stack(origin) {
            MAX_STACK_WINDOW
        } else {
            MAX_WINDOW
        };
        if !separate {
            for (number, group) in self.groups.iter_mut().enumerate() {
                if group.origin != origin || group.versions != versions {
                    continue;
                }
                let (low, high) = (group.low.min(at), group.high.max(end));
                let same_page = origin != Origin::Constant || low >> 12 == (high - 1) >> 12;
                if high - low <= limit && same_page {
                    (group.low, group.high) = (low, high);
                    group.write |= write;
                    group.uses = group.uses.saturating_add(1);
                    return Some(Access {
                        group: number as u8,
                        at,
                    });
                }
            }
        }
        if self.groups.len() == MAX_GROUPS {
            return None;
        }
        let (first, place) = (i, i);
        let uses = 1;
        let group = Group {
            origin,
            versions,
            low: at,
            high: end,
            write,
            uses,
            recent,
            place,
            shift,
            first,
            defined,
        };
        self.groups.push(group);
        Some(Access {
            group: (self.groups.len() - 1) as u8,
            at,
        })
    }

    /// Moves checks to where no flags have to be saved for them.
    fn place(&mut self, block: &[Decoded], mode: Mode) {
        if mode.separate() {
            return;
        }
        for group in &mut self.groups {
            let first = usize::from(group.first);
            let earliest = usize::from(group.defined);
            let dead = (earliest..=first)
                .rev()
                .find(|&j| block[j].live_before() == 0);
            if let Some(j) = dead {
                group.place = j as u16;
            }
        }
        // The base register's shift where the check is made.
        let mut known = [Known::default(); REGISTERS];
        for (i, decoded) in block.iter().enumerate() {
            for group in self.groups.iter_mut().filter(|g| usize::from(g.place) == i) {
                group.shift = moved(group.origin, &known);
            }
            advance(decoded, i, &mut known, mode);
        }
    }
}

/// Whether an address is relative to the stack pointer alone.
fn is_stack(origin: Origin) -> bool {
    matches!(
        origin,
        Origin::Registers {
            base: Some(RSP),
            index: None,
            ..
        }
    )
}

/// What a memory operand is relative to, and its displacement. `None` for forms whose address is
/// computed in fewer bits than the mode has.
fn origin(instruction: &Instruction, mode: Mode) -> Option<(Origin, i64)> {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let bits = address_bits(instruction, mode);
    let number = segment_index(instruction.memory_segment());
    let linear = mode.segment(number) == SegmentClass::Flat && bits != 16;
    let segment = (!linear).then_some(number as u8);
    let displacement = instruction.memory_displacement64();
    let disp = match bits {
        16 => i64::from(displacement as i16),
        _ => i64::from(displacement as i32),
    };
    let absolute =
        instruction.is_ip_rel_memory_operand() || base == Register::None && index == Register::None;
    if absolute {
        let narrow = base == Register::EIP
            || mode.long()
                && !instruction.is_ip_rel_memory_operand()
                && instruction.memory_displ_size() != 8
                && i32::try_from(displacement as i64).is_err();
        if narrow {
            return None;
        }
        let address = match bits {
            64 => displacement,
            32 => displacement & 0xffff_ffff,
            _ => displacement & 0xffff,
        } as i64;
        if segment.is_none() {
            return Some((Origin::Constant, address));
        }
        let disp = if mode.long() {
            i64::from(i32::try_from(address).ok()?)
        } else {
            i64::from(address as i32)
        };
        let origin = Origin::Registers {
            base: None,
            index: None,
            segment,
            bits: bits as u8,
        };
        return Some((origin, disp));
    }
    if mode.long() && bits != 64 {
        return None;
    }
    let number = |r: Register| r.number() as u8;
    let base = (base != Register::None).then(|| number(base));
    // A register that moves by itself may wrap where the address does not.
    let scale = instruction.memory_index_scale().trailing_zeros() as u8;
    let index = (index != Register::None).then(|| (number(index), scale));
    let moves = |r: u8| match r {
        RSP => bits != stack_bits(mode),
        RSI | RDI => bits != mode.bits(),
        _ => false,
    };
    if base.is_some_and(moves) || index.is_some_and(|(r, _)| moves(r)) {
        return None;
    }
    let origin = Origin::Registers {
        base,
        index,
        segment,
        bits: bits as u8,
    };
    Some((origin, disp))
}

/// What an operand of a string instruction is relative to, and its size.
fn string(instruction: &Instruction, register: u8, segment: usize, mode: Mode) -> (Origin, usize) {
    let bits = mode.bits();
    let linear = mode.segment(segment) == SegmentClass::Flat && bits != 16;
    let origin = Origin::Registers {
        base: Some(register),
        index: None,
        segment: (!linear).then_some(segment as u8),
        bits: bits as u8,
    };
    (origin, string_size(instruction) as usize)
}

/// Bits of the stack pointer.
pub fn stack_bits(mode: Mode) -> u32 {
    if mode.stack16() {
        16
    } else if mode.long() {
        64
    } else {
        32
    }
}

/// Base register, displacement and size in bytes of the implied stack operand.
pub fn stack_access(decoded: &Decoded) -> (u8, i64, u32) {
    let slot = i64::from(decoded.slot);
    match decoded.kind {
        Kind::Pop | Kind::Return | Kind::PopSelector | Kind::PopFlags => (RSP, 0, slot as u32),
        Kind::Enter => {
            let size = slot + i64::from(decoded.instruction.immediate16());
            (RSP, -size, size as u32)
        }
        Kind::Leave => (RBP, 0, slot as u32),
        Kind::PushAll => (RSP, -8 * slot, 8 * slot as u32),
        Kind::PopAll => (RSP, 0, 8 * slot as u32),
        _ => (RSP, -slot, slot as u32),
    }
}

/// Follows what an instruction does to the general registers.
fn advance(decoded: &Decoded, i: usize, known: &mut [Known; REGISTERS], mode: Mode) {
    let slot = i64::from(decoded.slot);
    let rsp = usize::from(RSP);
    match decoded.kind {
        Kind::Push | Kind::PushFlags | Kind::Call | Kind::CallIndirect | Kind::PushSelector => {
            known[rsp].shift(-slot, i);
        }
        Kind::Lods => {
            renew(&mut known[0], i);
            known[usize::from(RSI)].shift(i64::from(string_size(&decoded.instruction)), i);
        }
        Kind::Stos | Kind::Scas => {
            known[usize::from(RDI)].shift(i64::from(string_size(&decoded.instruction)), i);
        }
        Kind::Movs | Kind::Cmps => {
            let size = i64::from(string_size(&decoded.instruction));
            known[usize::from(RSI)].shift(size, i);
            known[usize::from(RDI)].shift(size, i);
        }
        Kind::Enter => {
            renew(&mut known[usize::from(RBP)], i);
            known[rsp].shift(-slot - i64::from(decoded.instruction.immediate16()), i);
        }
        Kind::PopFlags => known[rsp].shift(slot, i),
        Kind::PushAll => known[rsp].shift(-8 * slot, i),
        Kind::PopAll => {
            for register in (0..8).filter(|&r| r != rsp) {
                renew(&mut known[register], i);
            }
            known[rsp].shift(8 * slot, i);
        }
        Kind::PopSelector => {
            renew(&mut known[base_of(decoded)], i);
            known[rsp].shift(slot, i);
        }
        Kind::LoadSelector => renew(&mut known[base_of(decoded)], i),
        Kind::FarPointer => {
            renew(&mut known[base_of(decoded)], i);
            let target = decoded.instruction.op0_register().full_register();
            renew(&mut known[target.number()], i);
        }
        Kind::Swapgs => renew(&mut known[BASES + GS], i),
        Kind::Pop if !pops_rsp(decoded) => {
            let register = decoded.instruction.op0_register().number();
            renew(&mut known[register], i);
            known[rsp].shift(slot, i);
        }
        _ => match constant_move(&decoded.instruction, mode) {
            Some((register, by)) => known[register].shift(by, i),
            None => {
                for (number, register) in known.iter_mut().take(16).enumerate() {
                    if decoded.written & 1 << number != 0 {
                        renew(register, i);
                    }
                }
            }
        },
    }
}

/// Index in what is known of the base of the segment register that is loaded.
fn base_of(decoded: &Decoded) -> usize {
    BASES
        + match decoded.instruction.mnemonic() {
            Mnemonic::Les => ES,
            Mnemonic::Lds => DS,
            Mnemonic::Lss => SS,
            Mnemonic::Lfs => FS,
            Mnemonic::Lgs => GS,
            _ => segment_index(decoded.instruction.op0_register()),
        }
}

fn pops_rsp(decoded: &Decoded) -> bool {
    decoded.instruction.op0_register().full_register() == Register::RSP
}

fn renew(register: &mut Known, i: usize) {
    let next = i as u16 + 1;
    let version = register.version + 1;
    *register = Known {
        version,
        shift: 0,
        defined: next,
    };
}

/// A register that an instruction moves by a constant, over its whole width.
fn constant_move(instruction: &Instruction, mode: Mode) -> Option<(usize, i64)> {
    let register = instruction.op0_register();
    let whole = if mode.long() {
        register.is_gpr64()
    } else {
        register.is_gpr32()
    };
    if instruction.op0_kind() != OpKind::Register || !whole {
        return None;
    }
    let number = register.number();
    let immediate = || -> Option<i64> {
        let is_immediate = matches!(
            instruction.op1_kind(),
            OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32
                | OpKind::Immediate32to64
        );
        is_immediate.then(|| i64::from(instruction.immediate(1) as i32))
    };
    match instruction.mnemonic() {
        Mnemonic::Add => Some((number, immediate()?)),
        Mnemonic::Sub => Some((number, -immediate()?)),
        Mnemonic::Inc => Some((number, 1)),
        Mnemonic::Dec => Some((number, -1)),
        Mnemonic::Lea => {
            let same = instruction.memory_base() == register
                && instruction.memory_index() == Register::None;
            same.then(|| {
                (
                    number,
                    i64::from(instruction.memory_displacement64() as i32),
                )
            })
        }
        _ => None,
    }
}
