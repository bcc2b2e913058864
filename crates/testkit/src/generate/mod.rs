//! Random cases: instruction bytes with registers, vector state and memory that they can work on.

mod encode;
mod exclude;
mod place;
mod sequence;
mod surround;
mod values;

use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, FastFormatter, Instruction};

pub use exclude::{EXCLUDED, excluded, passes_flags, ring_sensitive};
pub use sequence::Program;
pub use values::fill_data;

use crate::layout::CODE;
use crate::random::Random;
use crate::state::State;

/// Bytes of code memory that belong to one case; all that no instruction covers is INT3.
pub const SLOT: u64 = 256;
/// Offset in the slot before which no case begins: room for backward branches.
const LEAD: u64 = 64;
/// Attempts to find registers with which an instruction stays in the data area.
const ATTEMPTS: usize = 24;

/// An instruction with its surroundings and inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// Instructions before it, which change nothing but scratch memory and flags.
    pub before: Vec<u8>,
    /// The instruction.
    pub bytes: Vec<u8>,
    /// Instructions after it, which store what it did.
    pub after: Vec<u8>,
    /// The instruction, decoded at its address.
    pub instruction: Instruction,
    /// Registers before the first of the instructions.
    pub state: State,
    /// What this case needs in memory beyond the batch's data: address and bytes.
    pub pokes: Vec<(u64, Vec<u8>)>,
    /// 32-bit code.
    pub compatibility: bool,
}

impl Case {
    /// All of its code, which begins at `state.rip`.
    pub fn code(&self) -> Vec<u8> {
        [&self.before[..], &self.bytes, &self.after].concat()
    }

    /// Address of the instruction itself.
    pub fn address(&self) -> u64 {
        self.state.rip + self.before.len() as u64
    }

    /// The instruction, disassembled.
    pub fn text(&self) -> String {
        disassemble(
            &self.bytes,
            self.address(),
            if self.compatibility { 32 } else { 64 },
        )
    }
}

/// `bytes` as instructions, one per line.
pub fn disassemble(bytes: &[u8], address: u64, bits: u32) -> String {
    let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
    let mut text = String::new();
    while decoder.can_decode() {
        if !text.is_empty() {
            text.push_str("; ");
        }
        FastFormatter::new().format(&decoder.decode(), &mut text);
    }
    text
}

/// Whether the decoder knows `code` in `bits`-bit code.
fn exists(code: &Code, bits: u32) -> bool {
    let op = code.op_code();
    let mode = match bits {
        64 => op.mode64(),
        32 => op.mode32(),
        _ => op.mode16(),
    };
    mode && op.is_instruction()
}

/// What becomes of the instruction codes that the decoder knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Codes that exist in this kind of code.
    pub known: usize,
    /// Those that the guest's processor does not have.
    pub absent: usize,
    /// Those that [`EXCLUDED`] or a form's exclusion leaves out, with a reason.
    pub excluded: usize,
    /// Those that cases are made of.
    pub tested: usize,
}

impl Coverage {
    /// Counts the codes of `bits`-bit code, of the instructions whose features pass `allowed`.
    pub fn of(bits: u32, allowed: &dyn Fn(CpuidFeature) -> bool) -> Self {
        let mut this = Self::default();
        for code in Code::values().filter(|code| exists(code, bits)) {
            this.known += 1;
            if !code.cpuid_features().iter().all(|&f| allowed(f)) {
                this.absent += 1;
            } else if excluded(code.mnemonic()).is_some() || exclude::excluded_form(code).is_some()
            {
                this.excluded += 1;
            } else {
                this.tested += 1;
            }
        }
        this
    }
}

/// Makes cases.
#[derive(Debug)]
pub struct Generator {
    codes: Vec<Code>,
    random: Random,
    bits: u32,
    surround: bool,
    /// Operands are to cross this address.
    boundary: Option<u64>,
}

impl Generator {
    /// Cases of `bits`-bit code (32 or 64) from `seed`, of the instructions whose features all
    /// pass `allowed`. With `surround`, some cases are the middle of a longer block.
    pub fn new(
        seed: u64,
        bits: u32,
        surround: bool,
        allowed: &dyn Fn(CpuidFeature) -> bool,
    ) -> Self {
        let wanted = |code: &Code| {
            exists(code, bits)
                && code
                    .cpuid_features()
                    .iter()
                    .all(|&feature| allowed(feature))
        };
        let codes = Code::values()
            .filter(wanted)
            .filter(|code| excluded(code.mnemonic()).is_none())
            .collect();
        Self {
            codes,
            random: Random::new(seed),
            bits,
            surround,
            boundary: None,
        }
    }

    /// The random numbers.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// How many instruction codes it draws from.
    pub fn code_count(&self) -> usize {
        self.codes.len()
    }

    /// A case for slot number `slot` of the code area.
    pub fn case(&mut self, slot: u64) -> Case {
        loop {
            let code = self.random.pick(&self.codes);
            if let Some(case) = self.try_code(code, slot) {
                return case;
            }
        }
    }

    /// The instruction codes it draws from.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// Bytes of an instruction with random operands, for code that may do anything.
    pub fn random_encoding(&mut self) -> Vec<u8> {
        let code = self.random.pick(&self.codes);
        let mut bytes = encode::encode(&mut self.random, code, self.bits);
        let length = Decoder::new(self.bits, &bytes, DecoderOptions::NONE)
            .decode()
            .len();
        bytes.truncate(length.clamp(1, 15));
        bytes
    }

    /// A case of `code` that accesses memory around `boundary`: across it, where the operand has
    /// more than one byte, or right beside it. `None` where `code` accesses no memory.
    pub fn boundary_case(&mut self, code: Code, slot: u64, boundary: u64) -> Option<Case> {
        self.boundary = Some(boundary);
        let case = (0..ATTEMPTS).find_map(|_| {
            let case = self.try_code(code, slot)?;
            place::accesses_memory(&case.instruction).then_some(case)
        });
        self.boundary = None;
        case
    }

    fn try_code(&mut self, code: Code, slot: u64) -> Option<Case> {
        let boundary = self.boundary;
        let (random, codes) = (&mut self.random, &self.codes);
        let mut bytes = encode::encode(random, code, self.bits);
        let before = if self.surround && random.one_in(2) {
            surround::before(random, self.bits)
        } else {
            Vec::new()
        };
        let base = CODE + slot * SLOT;
        let start = base + LEAD + random.below(16);
        let address = start + before.len() as u64;
        let mut decoder = Decoder::with_ip(self.bits, &bytes, address, DecoderOptions::NONE);
        let mut instruction = decoder.decode();
        let length = instruction.len();
        if instruction.is_invalid() {
            // An undefined encoding is a case now and then.
            if !random.one_in(32) || length == 0 {
                return None;
            }
        } else {
            if excluded(instruction.mnemonic()).is_some()
                || codes.binary_search(&instruction.code()).is_err()
            {
                return None;
            }
            let offsets = decoder.get_constant_offsets(&instruction);
            bytes.truncate(length);
            let mut site = place::Site {
                base,
                start,
                address,
                bytes: &mut bytes,
                offsets,
                boundary,
            };
            if !place::adjust(random, &mut site, &instruction, self.bits) {
                return None;
            }
            instruction =
                Decoder::with_ip(self.bits, &bytes, address, DecoderOptions::NONE).decode();
        }
        bytes.truncate(length);
        let after = if self.surround && random.one_in(2) {
            surround::after(random, self.bits, instruction.rflags_undefined() == 0)
        } else {
            Vec::new()
        };
        for _ in 0..ATTEMPTS {
            let mut state = values::state(random, self.bits);
            state.rip = start;
            let mut pokes = Vec::new();
            let mut place = place::Place {
                random,
                instruction: &instruction,
                bits: self.bits,
                slot: base,
                after: address + length as u64 + after.len() as u64,
                boundary,
                state: &mut state,
                pokes: &mut pokes,
            };
            if place.fit() {
                let compatibility = self.bits == 32;
                return Some(Case {
                    before,
                    bytes,
                    after,
                    instruction,
                    state,
                    pokes,
                    compatibility,
                });
            }
        }
        None
    }
}
