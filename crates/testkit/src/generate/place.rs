//! Chooses registers and memory with which an instruction works on the data area and nowhere else.

mod constants;
mod safe;
mod target;

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::exclude::touches_segment;
use crate::layout::{DATA, PAGE, READ_ONLY};
use crate::random::Random;
use crate::state::{State, layout};
pub(super) use constants::{Site, adjust};
use target::{crossing, landing, readable, target};

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

/// Whether `instruction` accesses memory, by an operand or without.
pub(super) fn accesses_memory(instruction: &Instruction) -> bool {
    !InstructionInfoFactory::new()
        .info(instruction)
        .used_memory()
        .is_empty()
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
            && (0..2).any(|operand| {
                use iced_x86::OpCodeOperandKind as K;
                matches!(
                    self.instruction.code().op_code().op_kind(operand),
                    K::mem_vsib64x | K::mem_vsib64y | K::mem_vsib64z
                )
            });
        let number = index.number();
        let size = if wide { 8 } else { 4 };
        for at in (0..index.size()).step_by(size) {
            let value = self.random.below(256).wrapping_sub(128);
            let place = layout().vector_byte(number, at);
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
}
