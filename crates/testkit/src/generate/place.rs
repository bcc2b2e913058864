//! Chooses registers and memory with which an instruction works on the data area and nowhere else.

use iced_x86::{
    ConstantOffsets, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
    UsedMemory,
};

use super::SLOT;
use super::exclude::{excluded_form, touches_segment};
use crate::layout::{ABSENT, AREA, AREA_SIZE, DATA, ISLAND, PAGE, READ_ONLY};
use crate::random::Random;
use crate::state::State;

/// Distance from the data area up to which nothing is mapped.
const MARGIN: u64 = 0x1_0000;
/// Bytes that an instruction may be long, with what may follow it.
const TAIL: u64 = 96;

/// Where an instruction will be.
pub(super) struct Site<'a> {
    /// Start of the slot.
    pub base: u64,
    /// Start of the case's code.
    pub start: u64,
    /// Address of the instruction.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'a mut [u8],
    /// Where its constants are.
    pub offsets: ConstantOffsets,
    /// The operand is to cross this address.
    pub boundary: Option<u64>,
}

/// Sets the constants of an instruction that decide about addresses: displacements without a
/// base register, branch distances. `false` if it can't be used.
pub(super) fn adjust(
    random: &mut Random,
    site: &mut Site<'_>,
    instruction: &Instruction,
    bits: u32,
) -> bool {
    if excluded_form(instruction.code()).is_some() {
        return false;
    }
    let prefix = instruction.segment_prefix();
    if bits == 32
        && (matches!(prefix, Register::FS | Register::GS)
            || prefix == Register::CS && instruction.mnemonic() == Mnemonic::Maskmovq)
    {
        // Null, or not writable: what comes first, #GP or other effects, is the processor's.
        return false;
    }
    if bits == 32
        && matches!(
            instruction.mnemonic(),
            Mnemonic::Vzeroupper | Mnemonic::Vzeroall
        )
    {
        // The translator clears registers 8 to 15 too, which 32-bit code can't see.
        return false;
    }
    let double_shift = matches!(instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd);
    if double_shift
        && instruction.op1_register().size() == 2
        && instruction.op2_kind() == OpKind::Immediate8
        && instruction.immediate8() & 0x1f > 16
    {
        // The result is undefined.
        return false;
    }
    if instruction.flow_control() != FlowControl::Next && site.bytes.contains(&0x66) {
        // AMD takes the operand size of a near branch, where Intel ignores it.
        return false;
    }
    if matches!(
        instruction.mnemonic(),
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne
    ) && site.bytes.iter().any(|byte| matches!(byte, 0xf2 | 0xf3))
    {
        // AMD takes REP LOOPNE for LOOPE.
        return false;
    }
    if is_near_branch(instruction) {
        let size = site.offsets.immediate_size();
        let next = site.address + site.bytes.len() as u64;
        let target = landing(random, site.base, site.start, next + TAIL / 2);
        let distance = target.wrapping_sub(next) as i64;
        let fits = match size {
            1 => i8::try_from(distance).is_ok(),
            _ => i32::try_from(distance).is_ok() && size == 4,
        };
        if fits {
            let at = site.offsets.immediate_offset();
            site.bytes[at..at + size].copy_from_slice(&distance.to_le_bytes()[..size]);
        }
        return fits;
    }
    if instruction.mnemonic() == Mnemonic::Pause && site.bytes.len() > 2 {
        // With REX.B this is XCHG, which the decoder does not see.
        return false;
    }
    if instruction.mnemonic() == Mnemonic::Enter {
        // A frame that leaves the stack faults when part of it is written already.
        let at = site.bytes.len() - 3;
        site.bytes[at..at + 2].copy_from_slice(&(random.below(0x200) as u16).to_le_bytes());
    }
    if !has_memory(instruction) {
        return true;
    }
    let free =
        instruction.memory_base() == Register::None && instruction.memory_index() == Register::None;
    if !free && !instruction.is_ip_rel_memory_operand() {
        return true;
    }
    let size = instruction.memory_size().size().max(1) as u64;
    let target = match site.boundary {
        Some(boundary) => crossing(random, size, boundary),
        None => target(random, size, false),
    };
    let value = if instruction.is_ip_rel_memory_operand() {
        let value = target.wrapping_sub(site.address + site.bytes.len() as u64);
        if bits == 64 && i32::try_from(value as i64).is_err() {
            return false;
        }
        value
    } else {
        target
    };
    let (at, length) = (
        site.offsets.displacement_offset(),
        site.offsets.displacement_size(),
    );
    if length < 4 {
        return false;
    }
    site.bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    true
}

/// An address in the slot that holds INT3: before the case's code, or well behind it.
fn landing(random: &mut Random, base: u64, start: u64, after: u64) -> u64 {
    let end = base + SLOT;
    if random.one_in(2) || after + 1 >= end {
        base + random.below(start - base)
    } else {
        after + random.below(end - after)
    }
}

fn is_near_branch(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| {
        matches!(
            instruction.op_kind(i),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        )
    })
}

fn is_string_operand(instruction: &Instruction, operand: u32) -> bool {
    matches!(
        instruction.op_kind(operand),
        OpKind::MemorySegRSI
            | OpKind::MemorySegESI
            | OpKind::MemoryESRDI
            | OpKind::MemoryESEDI
            | OpKind::MemorySegRDI
            | OpKind::MemorySegEDI
    )
}

fn has_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory)
}

/// An address of `size` bytes that cross `boundary`, or of one byte beside it.
fn crossing(random: &mut Random, size: u64, boundary: u64) -> u64 {
    if size > 1 {
        boundary - 1 - random.below(size - 1)
    } else {
        boundary - random.below(2)
    }
}

/// Whether `instruction` accesses memory, by an operand or without.
pub(super) fn accesses_memory(instruction: &Instruction) -> bool {
    !InstructionInfoFactory::new()
        .info(instruction)
        .used_memory()
        .is_empty()
}

/// An address for an operand of `size` bytes: mostly ordinary, sometimes one that faults.
fn target(random: &mut Random, size: u64, wild: bool) -> u64 {
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

/// A case whose registers are being chosen.
pub(super) struct Place<'a> {
    /// Random numbers.
    pub random: &'a mut Random,
    /// The instruction.
    pub instruction: &'a Instruction,
    /// Bits of code.
    pub bits: u32,
    /// Start of the slot.
    pub slot: u64,
    /// First address behind the case's code.
    pub after: u64,
    /// Memory operands are to cross this address.
    pub boundary: Option<u64>,
    /// Registers.
    pub state: &'a mut State,
    /// Changes to data memory.
    pub pokes: &'a mut Vec<(u64, Vec<u8>)>,
}

impl Place<'_> {
    /// Makes the registers fit; `false` if other random ones must be tried.
    pub fn fit(&mut self) -> bool {
        if self.instruction.is_invalid() {
            return true;
        }
        let frame = matches!(
            self.instruction.mnemonic(),
            Mnemonic::Enter | Mnemonic::Bound
        );
        if self.vector() || frame || touches_segment(self.instruction.code()) {
            // Processors differ in which vector operands alignment checking covers, and in what
            // ENTER and BOUND do before it; the interpreter does not check pushes of selectors.
            self.state.rflags &= !(1 << 18);
        }
        self.implied();
        let vsib = self.vsib();
        let mut address = 0;
        if has_memory(self.instruction) {
            let size = self.instruction.memory_size().size().max(1) as u64;
            let wanted = match self.boundary {
                Some(boundary) => crossing(self.random, size, boundary),
                None if vsib => DATA + PAGE,
                None => target(self.random, size, true),
            };
            if !self.solve(wanted) {
                return false;
            }
            address = self.linear().unwrap_or(wanted);
        }
        self.values(address);
        let control = matches!(
            self.instruction.mnemonic(),
            Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr
        );
        if control && self.pokes.is_empty() && readable(address, 4) {
            // Any bits may be there, those that only some processors have among them.
            return false;
        }
        self.safe(vsib)
    }

    /// An x87, MMX, SSE or AVX instruction.
    fn vector(&self) -> bool {
        use iced_x86::CpuidFeature as F;
        let integer = [
            F::INTEL8086,
            F::INTEL186,
            F::INTEL286,
            F::INTEL386,
            F::INTEL486,
            F::X64,
            F::CMOV,
            F::CX8,
            F::CMPXCHG16B,
            F::MOVBE,
            F::POPCNT,
            F::ADX,
        ];
        !self
            .instruction
            .cpuid_features()
            .iter()
            .all(|feature| integer.contains(feature))
    }

    fn register(&self, register: Register) -> u64 {
        let value = if register.is_gpr() {
            self.state.gpr[register.full_register().number()]
        } else {
            return 0;
        };
        match register.size() {
            4 => value & 0xffff_ffff,
            2 => value & 0xffff,
            1 => value & 0xff,
            _ => value,
        }
    }

    fn segment_base(&self, register: Register) -> u64 {
        match register {
            Register::FS => self.state.fs_base,
            Register::GS => self.state.gs_base,
            _ => 0,
        }
    }

    /// What the offset register of BT and its kin on memory adds to the address.
    fn bit_offset(&self) -> u64 {
        use Mnemonic::{Bt, Btc, Btr, Bts};
        let i = self.instruction;
        if !matches!(i.mnemonic(), Bt | Btc | Btr | Bts) || i.op1_kind() != OpKind::Register {
            return 0;
        }
        let value = self.register(i.op1_register());
        match i.op1_register().size() {
            2 => ((value as i16 >> 4) as i64 * 2) as u64,
            4 => ((value as i32 >> 5) as i64 * 4) as u64,
            _ => ((value as i64) >> 6).wrapping_mul(8) as u64,
        }
    }

    /// Address width of the memory operand in bits.
    fn address_bits(&self) -> u32 {
        let (base, index) = (
            self.instruction.memory_base(),
            self.instruction.memory_index(),
        );
        let size = if base != Register::None {
            base.size()
        } else {
            index.size()
        };
        match size {
            8 => 64,
            4 if base != Register::None || !index.is_vector_register() => 32,
            2 => 16,
            _ => self.bits,
        }
    }

    /// Linear address of the memory operand, as the processor computes it.
    fn linear(&self) -> Option<u64> {
        self.instruction
            .virtual_address(0, 0, |register, _, _| {
                Some(if register.is_segment_register() {
                    self.segment_base(register)
                } else {
                    self.register(register)
                })
            })
            .map(|address| address.wrapping_add(self.bit_offset()))
            .map(|address| {
                if self.bits == 32 {
                    address & 0xffff_ffff
                } else {
                    address
                }
            })
    }

    /// Sets registers so that the memory operand is at `wanted`.
    fn solve(&mut self, wanted: u64) -> bool {
        let i = self.instruction;
        let segment = i.memory_segment();
        if matches!(segment, Register::FS | Register::GS) && self.bits == 64 {
            let absolute = i.memory_base() == Register::None && i.memory_index() == Register::None
                || i.is_ip_rel_memory_operand();
            let base = if absolute {
                // The displacement is in the data area already.
                self.random.below(PAGE)
            } else {
                self.random.bits() >> 17
            };
            if segment == Register::FS {
                self.state.fs_base = base;
            } else {
                self.state.gs_base = base;
            }
        }
        let bits = self.address_bits();
        if bits == 16 {
            return false;
        }
        let mask = if bits == 32 { 0xffff_ffff } else { u64::MAX };
        let (base, index) = (i.memory_base(), i.memory_index());
        if base == Register::None && index == Register::None || i.is_ip_rel_memory_operand() {
            return true;
        }
        let displacement = i.memory_displacement64();
        let offset = wanted
            .wrapping_sub(self.segment_base(segment))
            .wrapping_sub(displacement)
            .wrapping_sub(self.bit_offset());
        let scale = u64::from(i.memory_index_scale());
        let (register, value) = if base == index {
            (base, offset / (scale + 1))
        } else if base != Register::None {
            let scaled = if index.is_gpr() {
                self.register(index).wrapping_mul(scale)
            } else {
                0
            };
            (base, offset.wrapping_sub(scaled))
        } else if index.is_gpr() {
            (index, (offset & mask) / scale)
        } else {
            return true;
        };
        let upper = if bits == 32 && self.bits == 64 {
            self.random.bits() & !mask
        } else {
            0
        };
        self.state.gpr[register.full_register().number()] = value & mask | upper;
        true
    }

    /// Registers that instructions use without naming them.
    fn implied(&mut self) {
        let narrow = |random: &mut Random, bits: u64| random.bits() & bits;
        let wide = self.bits == 64;
        let upper = if wide {
            narrow(self.random, !0xffff_ffff)
        } else {
            0
        };
        let i = self.instruction;
        // Those two leave other traces before they fault: MMX state, part of a frame.
        let partial = matches!(i.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Enter);
        let boundary = self.boundary.filter(|_| !partial);
        if let Some(boundary) = boundary
            && i.is_stack_instruction()
        {
            self.state.gpr[4] = boundary - 4 + self.random.below(16);
        }
        // Which of two operands that fault is reported is the processor's.
        let pointers = (0..i.op_count())
            .filter(|&operand| is_string_operand(i, operand))
            .count();
        let mut chosen = pointers < 2 || self.random.one_in(2);
        let mut pointer = |random: &mut Random, kind: OpKind, size: u64| {
            let crosses = chosen;
            chosen = !chosen || pointers < 2;
            let mut at = match boundary.filter(|_| crosses) {
                Some(boundary) => crossing(random, size, boundary),
                None => DATA + PAGE + random.below(PAGE),
            };
            // MASKMOVQ leaves x87 for MMX state even when it faults, on some processors.
            if boundary.is_none()
                && crosses
                && random.one_in(8)
                && i.mnemonic() != Mnemonic::Maskmovq
            {
                at = target(random, size, false);
            }
            match kind {
                OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI if wide => {
                    at | upper
                }
                _ => at,
            }
        };
        let size = i.memory_size().size().max(1) as u64;
        for operand in 0..i.op_count() {
            match i.op_kind(operand) {
                kind @ (OpKind::MemorySegRSI | OpKind::MemorySegESI) => {
                    self.state.gpr[6] = pointer(self.random, kind, size);
                }
                kind @ (OpKind::MemoryESRDI
                | OpKind::MemoryESEDI
                | OpKind::MemorySegRDI
                | OpKind::MemorySegEDI) => {
                    self.state.gpr[7] = pointer(self.random, kind, size);
                }
                _ => {}
            }
        }
        let counted = i.has_rep_prefix() || i.has_repne_prefix();
        if counted && i.is_string_instruction() {
            let most = if self.random.one_in(4) { 300 } else { 12 };
            let count = self.random.below(most);
            let narrow = i.op0_kind() == OpKind::MemoryESEDI
                || i.op1_kind() == OpKind::MemorySegESI
                || i.op1_kind() == OpKind::MemoryESEDI
                || i.op0_kind() == OpKind::MemorySegESI;
            self.state.gpr[1] = if narrow && wide { count | upper } else { count };
        }
        match i.mnemonic() {
            Mnemonic::Loop
            | Mnemonic::Loope
            | Mnemonic::Loopne
            | Mnemonic::Jrcxz
            | Mnemonic::Jecxz
            | Mnemonic::Jcxz => {
                self.state.gpr[1] =
                    self.random.below(3) | if self.random.one_in(2) { upper } else { 0 };
            }
            Mnemonic::Enter | Mnemonic::Leave => {
                self.state.gpr[5] = DATA + 0x1000 + self.random.below(0x200) * 8;
            }
            _ => {}
        }
    }

    /// Fits the index vector of a gather; `true` if there is one.
    fn vsib(&mut self) -> bool {
        let index = self.instruction.memory_index();
        if !index.is_vector_register() {
            return false;
        }
        let wide = self.instruction.memory_size().size() != 0
            && matches!(
                self.instruction.code().op_code().op_kind(1),
                iced_x86::OpCodeOperandKind::mem_vsib64x | iced_x86::OpCodeOperandKind::mem_vsib64y
            );
        let number = index.number();
        for lane in 0..8 {
            let value = self.random.below(256).wrapping_sub(128);
            let lanes = if wide { 4 } else { 8 };
            let size = 32 / lanes;
            let at = lane * size;
            if at >= 32 {
                break;
            }
            let place = if at < 16 {
                160 + number * 16 + at
            } else {
                576 + number * 16 + at - 16
            };
            self.state.xsave[place..place + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        true
    }

    fn poke(&mut self, address: u64, bytes: &[u8]) {
        let end = address.wrapping_add(bytes.len() as u64);
        if address >= DATA && end <= READ_ONLY {
            self.pokes.push((address, bytes.to_vec()));
        }
    }

    /// Values that make an instruction do what it is for.
    fn values(&mut self, address: u64) {
        let i = self.instruction;
        match i.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv if !self.random.one_in(3) => {
                self.state.gpr[2] = match self.random.below(3) {
                    0 => 0,
                    1 => ((self.state.gpr[0] as i64) >> 63) as u64,
                    _ => self.random.below(4),
                };
                if i.memory_size().size() == 1 || i.op0_register().size() == 1 {
                    self.state.gpr[0] &= 0x3ff;
                }
            }
            Mnemonic::Cmpxchg if self.random.one_in(2) => {
                let value = self.state.gpr[0].to_le_bytes();
                let size = i.memory_size().size().min(8);
                self.poke(address, &value[..size]);
            }
            Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if self.random.one_in(2) => {
                let half = i.memory_size().size() / 2;
                let mut value = self.state.gpr[0].to_le_bytes()[..half].to_vec();
                value.extend(&self.state.gpr[2].to_le_bytes()[..half]);
                self.poke(address, &value);
            }
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
                // TF would trap behind the case, AC after the instruction that follows.
                let value = self.random.bits() & 0x20_4ed5 | 2;
                let top = self.state.gpr[4];
                self.poke(top, &value.to_le_bytes());
            }
            Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => {
                // Bit 17 is AMD's misaligned-exception mask, reserved elsewhere.
                let reserved = if self.random.one_in(4) {
                    0xfffd_0000
                } else {
                    0
                };
                let value = self.random.bits() as u32 & (0xffff | reserved);
                self.poke(address, &value.to_le_bytes());
            }
            Mnemonic::Ret | Mnemonic::Jmp | Mnemonic::Call if !is_near_branch(i) => {
                let target = landing(self.random, self.slot, self.slot + 32, self.after);
                let width = if self.bits == 64 { 8 } else { 4 };
                if i.mnemonic() == Mnemonic::Ret {
                    let top = self.state.gpr[4];
                    self.poke(top, &target.to_le_bytes()[..width]);
                } else if i.op0_kind() == OpKind::Register {
                    self.state.gpr[i.op0_register().full_register().number()] = target;
                } else {
                    self.poke(address, &target.to_le_bytes()[..width]);
                }
            }
            Mnemonic::Shld | Mnemonic::Shrd if i.op1_register().size() == 2 => {
                // The result of a count above 16 is undefined.
                self.state.gpr[1] = self.state.gpr[1] & !0x1f | self.random.below(17);
            }
            _ => {}
        }
    }

    /// Whether no access leaves the data area and the unmapped space around it, and no branch
    /// leaves the slot.
    fn safe(&self, vsib: bool) -> bool {
        let i = self.instruction;
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(i);
        let accesses = info.used_memory();
        let vectors = |used: &UsedMemory, lane: usize| {
            used.virtual_address(lane, |register, element, size| {
                Some(if register.is_segment_register() {
                    self.segment_base(register)
                } else if register.is_vector_register() {
                    // An index vector has fewer lanes than the loop, if they are wide.
                    let at = element * size % 32;
                    let number = register.number();
                    let from = if at < 16 {
                        160 + number * 16 + at
                    } else {
                        576 + number * 16 + at - 16
                    };
                    let mut bytes = [0; 8];
                    bytes[..size].copy_from_slice(&self.state.xsave[from..from + size]);
                    let value = u64::from_le_bytes(bytes);
                    if size == 4 {
                        i64::from(value as i32) as u64
                    } else {
                        value
                    }
                } else {
                    self.register(register)
                })
            })
        };
        for used in accesses {
            for lane in 0..if vsib { 8 } else { 1 } {
                let Some(mut address) = vectors(used, lane) else {
                    return false;
                };
                address = address.wrapping_add(self.bit_offset());
                if self.bits == 32 {
                    address &= 0xffff_ffff;
                }
                let size = used.memory_size().size().max(64) as u64;
                if !harmless(address, size) {
                    return false;
                }
            }
        }
        if i.is_string_instruction() {
            // Up to 300 elements of 8 bytes in either direction.
            return self.strings_in_area();
        }
        self.branch_returns()
    }

    fn strings_in_area(&self) -> bool {
        let i = self.instruction;
        let wide = self.bits == 64;
        (0..i.op_count()).all(|operand| {
            let mut at = match i.op_kind(operand) {
                OpKind::MemorySegRSI => self.state.gpr[6],
                OpKind::MemorySegESI => self.state.gpr[6] & 0xffff_ffff,
                OpKind::MemoryESRDI | OpKind::MemorySegRDI => self.state.gpr[7],
                OpKind::MemoryESEDI | OpKind::MemorySegEDI => self.state.gpr[7] & 0xffff_ffff,
                OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return false,
                _ => return true,
            };
            if wide
                && matches!(
                    i.op_kind(operand),
                    OpKind::MemorySegRSI | OpKind::MemorySegESI
                )
            {
                at = at.wrapping_add(self.segment_base(i.memory_segment()));
            }
            harmless(at, 64)
        })
    }

    /// An indirect branch finds a target in the slot, or one that faults.
    fn branch_returns(&self) -> bool {
        let i = self.instruction;
        let indirect = matches!(i.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp | Mnemonic::Call)
            && !is_near_branch(i);
        if !indirect {
            return true;
        }
        let target = if i.mnemonic() != Mnemonic::Ret && i.op0_kind() == OpKind::Register {
            self.register(i.op0_register())
        } else {
            let at = if i.mnemonic() == Mnemonic::Ret {
                self.state.gpr[4]
            } else {
                match self.linear() {
                    Some(at) => at,
                    None => return false,
                }
            };
            // Only what was put there is known to be a target.
            match self.pokes.iter().find(|poke| poke.0 == at) {
                Some(poke) => poke
                    .1
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte)),
                // The load faults, if it touches no good page.
                None => return !readable(at, 8),
            }
        };
        target.wrapping_sub(self.slot) < SLOT || !canonical(target)
    }
}

fn canonical(address: u64) -> bool {
    ((address << 16) as i64 >> 16) as u64 == address
}

/// In the data area or around it where nothing is mapped, or not canonical.
fn harmless(address: u64, size: u64) -> bool {
    let end = address.wrapping_add(size);
    let near = address >= AREA - MARGIN && end <= AREA + AREA_SIZE + MARGIN && end > address;
    near || !canonical(address) && !canonical(end)
}

/// All of the bytes can be read.
fn readable(address: u64, size: u64) -> bool {
    let absent = |at: u64| {
        let page = at & !(PAGE - 1);
        !(DATA..ABSENT).contains(&page) && page != ISLAND
    };
    !absent(address) && !absent(address.wrapping_add(size - 1))
}
