//! The translator: decodes a block, finds which flags are live, emits host code.

use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, RflagsBits,
};

use super::classify::{CodeInfo, Kind, info};
use super::counted;
use super::groups::Groups;
use super::lower::Lower;
use super::mode::{Mode, SegmentClass};
use super::string::is_simple;
use crate::cache::{Block, BlockId, Cache, Key};
use crate::cpu::{CS, Cpu, ES, SS};
use crate::interp::address::segment_index;
use crate::interp::system::cpuid::availability::bit_scan;
use crate::interp::system::cpuid::{Availability, CpuidModel};
use crate::interp::undefined;
use crate::runtime::stubs::Stubs;
use crate::softmmu::phys::Phys;
use crate::softmmu::walk::{Access, walk};

/// Longest block, in instructions.
const MAX_INSTRUCTIONS: usize = 64;
/// How many instructions a block may have when it goes on behind a branch.
const MAX_TRACE: usize = 24;
/// How many instructions a block may have when it holds several rounds of a loop.
const MAX_UNROLLED: usize = 48;
/// How many rounds of a loop a block may hold.
const MAX_COPIES: usize = 4;
/// How many instructions of a branch target are looked at for their use of flags.
const LOOK_AHEAD: usize = 8;

/// All six arithmetic flags, in the bits of `iced_x86::RflagsBits`.
pub const ALL_FLAGS: u8 = 0x3f;

/// A decoded instruction and what the translator needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    /// The instruction.
    pub instruction: Instruction,
    /// Its bytes.
    pub bytes: [u8; 15],
    /// How it is translated, `Interpret` for what the guest must not use.
    pub kind: Kind,
    /// Properties of its code.
    pub info: &'static CodeInfo,
    /// Arithmetic flags it reads.
    pub reads: u8,
    /// Arithmetic flags whose old values are gone afterwards.
    pub kills: u8,
    /// It may change arithmetic flags.
    pub writes: bool,
    /// Arithmetic flags that are read later, before they are overwritten.
    pub live_after: u8,
    /// General registers it reads, by number: those of explicit operands, and partial writes.
    pub read: u16,
    /// General registers it may write, by number.
    pub written: u16,
    /// Operands it may write, by index.
    operands_written: u8,
    /// Instruction pointer behind it.
    pub next_ip: u64,
    /// Bytes that it pushes or pops, for the kinds that do.
    pub slot: u8,
    /// The block goes on at the branch's target, not behind it.
    pub jumps: bool,
    /// Instructions are counted and the block can be left here: all flags must be exact before.
    pub observed: bool,
}

impl Decoded {
    /// Flags that must be right before the instruction.
    pub fn live_before(&self) -> u8 {
        if self.observed {
            return ALL_FLAGS;
        }
        self.live_after & !self.kills | self.reads
    }

    /// Whether operand `index` may be written.
    pub fn operand_written(&self, index: u32) -> bool {
        self.operands_written & 1 << index != 0
    }

    /// Finds out which registers and operands the instruction reads and writes.
    fn find_uses(&mut self, factory: &mut InstructionInfoFactory) {
        let used = factory.info(&self.instruction);
        for index in 0..self.instruction.op_count() {
            let access = used.op_access(index);
            if is_write(access) {
                self.operands_written |= 1 << index;
            }
            if self.instruction.op_kind(index) == OpKind::Register {
                let register = self.instruction.op_register(index);
                let whole = access == OpAccess::Write && register.size() >= 4;
                if register.is_gpr() && !whole {
                    self.read |= 1 << register.full_register().number();
                }
            }
        }
        for register in used.used_registers() {
            if register.register().is_gpr() && is_write(register.access()) {
                self.written |= 1 << register.register().full_register().number();
            }
        }
    }

    /// The instruction's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.instruction.len()]
    }
}

/// Why no block could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first instruction can't be fetched or is not in memory: the interpreter raises the
    /// fault.
    Fetch,
}

/// Translates for one virtual processor.
#[derive(Debug)]
pub struct Translator {
    hidden: Vec<bool>,
    decoded: Vec<Decoded>,
    groups: Groups,
    factory: InstructionInfoFactory,
    bmi2: bool,
    /// Code bytes, apart from the guest's memory: other processors may write there between the
    /// look at an instruction and its copying.
    snapshot: Vec<u8>,
}

/// Code bytes of one guest page.
#[derive(Clone, Copy, Debug)]
struct CodePage {
    host: *const u8,
    gpa: u64,
    global: bool,
}

impl Translator {
    /// A translator for guests that see `cpuid`.
    pub fn new(cpuid: &CpuidModel) -> Self {
        let allowed = |code: Code| cpuid.availability(code) == Availability::Present;
        Self {
            hidden: Code::values().map(|code| !allowed(code)).collect(),
            decoded: Vec::with_capacity(MAX_INSTRUCTIONS),
            groups: Groups::default(),
            factory: InstructionInfoFactory::new(),
            bmi2: std::arch::is_x86_feature_detected!("bmi2"),
            snapshot: vec![0; 0x1000],
        }
    }

    fn page(cpu: &Cpu, phys: &Phys, linear: u64) -> Option<CodePage> {
        let access = Access {
            write: false,
            fetch: true,
            user: cpu.cpl == 3,
            implicit: false,
        };
        let translation = walk(cpu, phys, linear, access).ok()?;
        let gpa = translation.gpa & !0xfff;
        let place = phys.place(gpa)?;
        Some(CodePage {
            host: place.host,
            gpa,
            global: translation.global,
        })
    }

    /// Physical address of the code at `linear` and whether its page is global.
    pub fn locate(cpu: &Cpu, phys: &Phys, linear: u64) -> Option<(u64, bool)> {
        let page = Self::page(cpu, phys, linear)?;
        Some((page.gpa | linear & 0xfff, page.global))
    }

    /// Translates the block at `key`, whose mode has `tag`, and adds it to the cache.
    ///
    /// # Errors
    /// [`Refusal`] when the interpreter must run the first instruction.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, each argument a part of the processor"
    )]
    pub fn translate(
        &mut self,
        cache: &mut Cache,
        stubs: &Stubs,
        cpu: &Cpu,
        phys: &Phys,
        key: Key,
        tag: u64,
        indirect: bool,
    ) -> Result<BlockId, Refusal> {
        let mode = key.mode;
        let ip = mode.ip(key.linear);
        let second_page = self.decode(cpu, phys, mode, ip)?;
        if let Some(last) = self.decoded.last_mut() {
            last.jumps = false;
        }
        self.flags(cpu, phys, mode);
        for decoded in &mut self.decoded {
            decoded.find_uses(&mut self.factory);
        }
        self.groups.find(&self.decoded, mode);

        let id = cache.blocks.len() as BlockId;
        let (hot, cold) = (&mut cache.hot, &mut cache.cold);
        let page = key.linear & !0xfff;
        let mut lower = Lower::new(hot, cold, stubs, &self.groups, mode, id, page, self.bmi2);
        lower.tag = tag;
        let live = self.decoded.first().map_or(0, Decoded::live_before);
        let count = self.decoded.len();
        let fp = self.decoded.iter().any(runs_fp);
        lower.begin(ip | tag, live, indirect, fp, count);
        let last = self.decoded.len() - 1;
        let mut emit = |(i, d)| lower.instruction(i, d, i == last);
        if !self.decoded.iter().enumerate().any(&mut emit) {
            let last = &self.decoded[last];
            lower.fall_through(last.next_ip, last.live_after);
        }
        let code = lower.finish();
        let (low, high) = self.extent(key);
        Ok(cache.insert(Block {
            key,
            address: ip | tag,
            second_page,
            low,
            high,
            entry: code.entry,
            indirect_entries: code.indirect_entries,
            flags_live: live != 0 && !mode.counted(),
            exits: code.exits,
            incoming: Vec::new(),
            faults: code.faults,
            system: code.system,
            system_at: code.system_at,
            dead: false,
        }))
    }

    /// Physical addresses of the first byte and behind the last one, as if in one page.
    fn extent(&self, key: Key) -> (u64, u64) {
        let page = key.physical & !0xfff;
        let mode = key.mode;
        let offset = |ip: u64| mode.linear(ip).wrapping_sub(key.linear & !0xfff) & 0xffff;
        let first = self
            .decoded
            .iter()
            .map(|d| offset(d.instruction.ip()))
            .min()
            .unwrap_or(0);
        let last = self
            .decoded
            .iter()
            .map(|d| offset(d.instruction.ip()) + d.instruction.len() as u64)
            .max()
            .unwrap_or(0);
        (page + first, page + last)
    }

    /// Decodes the block at `ip` into `self.decoded`; returns its second page, if it has one.
    fn decode(
        &mut self,
        cpu: &Cpu,
        phys: &Phys,
        mode: Mode,
        ip: u64,
    ) -> Result<Option<u64>, Refusal> {
        self.decoded.clear();
        let linear = mode.linear(ip);
        let page = Self::page(cpu, phys, linear).ok_or(Refusal::Fetch)?;
        let offset = linear as usize & 0xfff;
        let mut snapshot = std::mem::take(&mut self.snapshot);
        let bytes = &mut snapshot[offset..];
        // SAFETY: the rest of a mapped page, and as many bytes of the snapshot.
        unsafe {
            let rest = page.host.add(offset);
            std::ptr::copy_nonoverlapping(rest, bytes.as_mut_ptr(), bytes.len());
        }
        let second = self.decode_bytes(cpu, phys, mode, ip, bytes);
        self.snapshot = snapshot;
        second
    }

    fn decode_bytes(
        &mut self,
        cpu: &Cpu,
        phys: &Phys,
        mode: Mode,
        ip: u64,
        bytes: &[u8],
    ) -> Result<Option<u64>, Refusal> {
        let start_page = mode.linear(ip) >> 12;
        let mut decoder = Decoder::with_ip(mode.bits(), bytes, ip, DecoderOptions::NONE);
        let mut copies = 1;
        while self.decoded.len() < MAX_INSTRUCTIONS && decoder.can_decode() {
            let limit = if copies == 1 { MAX_TRACE } else { MAX_UNROLLED };
            let start = decoder.position();
            let instruction = decoder.decode();
            if instruction.is_invalid()
                && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes
            {
                if self.decoded.is_empty() {
                    return self.decode_crossing(cpu, phys, mode, ip, bytes).map(Some);
                }
                break;
            }
            let length = instruction.len();
            if !mode.in_limit(instruction.ip(), length as u64) {
                if self.decoded.is_empty() {
                    return Err(Refusal::Fetch);
                }
                break;
            }
            let mut decoded = self.inspect(mode, instruction, &bytes[start..start + length]);
            let next = decoded.next_ip;
            match decoded.kind {
                // A trace goes on behind a conditional branch and at the target of a jump that
                // stays in the page, but for the copies of a loop not twice over the same
                // instruction.
                Kind::JumpIf | Kind::Jump => {
                    let target = instruction.near_branch_target();
                    let to_start = target == ip && self.may_repeat(&mut copies, mode);
                    let ahead = target > ip && mode.linear(target) >> 12 == start_page;
                    let follow = decoded.kind == Kind::Jump
                        && ahead
                        && self.decoded.len() < limit
                        && self.times(target) < copies
                        && target != instruction.ip();
                    if to_start || follow {
                        decoded.jumps = true;
                        self.decoded.push(decoded);
                        if decoder.set_position((target - ip) as usize).is_err() {
                            break;
                        }
                        decoder.set_ip(target);
                        continue;
                    }
                    let goes_on = decoded.kind == Kind::JumpIf
                        && next > instruction.ip()
                        && self.decoded.len() < limit
                        && self.times(next) < copies;
                    if !goes_on {
                        self.decoded.push(decoded);
                        break;
                    }
                }
                kind if ends_block(kind) => {
                    self.decoded.push(decoded);
                    break;
                }
                _ => {}
            }
            self.decoded.push(decoded);
            if next < instruction.ip() {
                // The instruction pointer wraps.
                break;
            }
        }
        Ok(None)
    }

    /// How often the instruction at `linear` is in the block already.
    fn times(&self, linear: u64) -> usize {
        self.decoded
            .iter()
            .filter(|d| d.instruction.ip() == linear)
            .count()
    }

    /// Whether the trace, which is a loop, may be followed by one more copy of itself: several
    /// rounds then share their checks and one look at the kick flag.
    fn may_repeat(&self, copies: &mut usize, mode: Mode) -> bool {
        let body = (self.decoded.len() + 1) / *copies;
        let more = !mode.separate() && *copies < MAX_COPIES && body * (*copies + 1) <= MAX_UNROLLED;
        *copies += usize::from(more);
        more
    }

    /// A block of one instruction, whose bytes go on in the next page.
    fn decode_crossing(
        &mut self,
        cpu: &Cpu,
        phys: &Phys,
        mode: Mode,
        ip: u64,
        first: &[u8],
    ) -> Result<u64, Refusal> {
        let linear = mode.linear(ip);
        let mut next = (linear | 0xfff).wrapping_add(1);
        if !mode.long() {
            next &= 0xffff_ffff;
        }
        let page = Self::page(cpu, phys, next).ok_or(Refusal::Fetch)?;
        let mut bytes = [0; 15];
        let count = first.len().min(14);
        bytes[..count].copy_from_slice(&first[..count]);
        let rest = &mut bytes[count..];
        // SAFETY: fewer than 15 bytes at the start of a mapped page.
        unsafe { std::ptr::copy_nonoverlapping(page.host, rest.as_mut_ptr(), rest.len()) };
        let mut decoder = Decoder::with_ip(mode.bits(), &bytes, ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() || !mode.in_limit(ip, instruction.len() as u64) {
            return Err(Refusal::Fetch);
        }
        let decoded = self.inspect(mode, instruction, &bytes[..instruction.len()]);
        self.decoded.push(decoded);
        Ok(page.gpa)
    }

    fn inspect(&self, mode: Mode, mut instruction: Instruction, code: &[u8]) -> Decoded {
        let mut hidden = self.hidden[instruction.code() as usize];
        let scan = bit_scan(instruction.code()).filter(|_| hidden);
        if let Some(scan) = scan {
            // Without the feature, the F3 prefix is ignored.
            instruction.set_code(scan);
            hidden = false;
        }
        let info = info(&instruction);
        let kind = if hidden || instruction.is_invalid() || self.refused(mode, &instruction, info) {
            Kind::Interpret
        } else {
            info.kind
        };
        let mut bytes = [0; 15];
        bytes[..code.len()].copy_from_slice(code);
        if !mode.long() {
            respell(&instruction, &mut bytes[..code.len()]);
        }
        if scan.is_some() {
            drop_repeat(&mut bytes);
        }
        let mut modified = instruction.rflags_modified() as u8 & ALL_FLAGS;
        let (mut reads, mut kills) = (instruction.rflags_read() as u8 & ALL_FLAGS, modified);
        if matches!(kind, Kind::Interpret | Kind::PushFlags | Kind::Syscall) {
            (reads, kills) = (ALL_FLAGS, 0);
        } else if kind == Kind::Sysret {
            (reads, kills) = (0, ALL_FLAGS);
        } else if is_shift(&instruction) {
            let last = instruction.op_count() - 1;
            let count = match instruction.op_kind(last) {
                OpKind::Immediate8 => {
                    let wide = instruction.op0_kind() == OpKind::Register
                        && instruction.op0_register().is_gpr64()
                        || instruction.memory_size().size() == 8;
                    u32::from(instruction.immediate8()) & if wide { 63 } else { 31 }
                }
                _ => 0,
            };
            if count == 0 {
                kills = 0;
            }
            if matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
                // A full turn leaves CF alone, which makes OF.
                reads |= RflagsBits::CF as u8;
                modified |= RflagsBits::OF as u8;
            }
        }
        if mode.counted() {
            kills &= !(undefined::kept(&instruction) as u8);
        }
        let next_ip = mode.wrap(
            instruction.ip() + instruction.len() as u64,
            instruction.ip(),
        );
        let mut decoded = Decoded {
            slot: stack_slot(&instruction, mode),
            next_ip,
            instruction,
            bytes,
            kind,
            info,
            reads,
            kills,
            writes: modified != 0,
            live_after: 0,
            read: 0,
            written: 0,
            operands_written: 0,
            jumps: false,
            observed: false,
        };
        decoded.observed = mode.counted() && counted::observed(&decoded);
        decoded
    }

    /// Forms of otherwise translatable instructions that the interpreter runs.
    fn refused(&self, mode: Mode, instruction: &Instruction, info: &CodeInfo) -> bool {
        if info.fp && !mode.fpu() || info.avx && !mode.avx() || info.avx512 && !mode.avx512() {
            return true;
        }
        if mode.counted() && counted::interpreted(instruction) {
            return true;
        }
        let branch = (0..instruction.op_count()).any(|i| {
            matches!(
                instruction.op_kind(i),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            )
        });
        if branch && !mode.in_limit(instruction.near_branch_target(), 1) {
            return true;
        }
        let narrow = info.operand == Some(2) && (branch || uses_stack(info.kind));
        let refused = match info.kind {
            Kind::JumpIndirect | Kind::JumpIf | Kind::Jump | Kind::Call | Kind::CallIndirect
                if mode.long() && info.operand == Some(2) =>
            {
                true
            }
            _ if mode.long() && narrow => true,
            Kind::Rdtsc | Kind::Rdtscp => !mode.tsc(),
            Kind::ReadSelector => {
                instruction.op0_kind() != OpKind::Register || mode.long() && info.operand == Some(2)
            }
            Kind::Syscall | Kind::Sysret | Kind::Clac | Kind::Stac if !mode.long() => true,
            Kind::Cli | Kind::Sti if !mode.long() => !mode.iopl(),
            Kind::Lods | Kind::Stos | Kind::Movs | Kind::Scas | Kind::Cmps => {
                let source = segment_index(instruction.memory_segment());
                let checked = |segment| mode.segment(segment) == SegmentClass::Checked;
                !is_simple(instruction, mode)
                    || !matches!(info.kind, Kind::Stos | Kind::Scas) && checked(source)
                    || info.kind != Kind::Lods && checked(ES)
            }
            Kind::Enter => {
                mode.long()
                    || instruction.immediate8_2nd() & 0x1f != 0
                    || instruction.immediate16() > 200
            }
            Kind::PopFlags => mode.virtual8086() && !mode.iopl(),
            Kind::PushFlags => mode.virtual8086() && !mode.iopl(),
            Kind::LoadSelector | Kind::PopSelector | Kind::FarPointer => {
                !mode.as_8086() || loads_checked(mode, instruction)
            }
            kind => kind.is_privileged() && mode.user(),
        };
        if refused || uses_stack(info.kind) && mode.segment(SS) == SegmentClass::Checked {
            return true;
        }
        let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
        if !memory || info.kind == Kind::Lea || mode.long() {
            return false;
        }
        let segment = segment_index(instruction.memory_segment());
        // Code segments of protected mode can't be written.
        mode.segment(segment) == SegmentClass::Checked
            || segment == CS && !mode.as_8086() && self.may_write(instruction)
    }

    /// Whether the memory operand may be written; errs to the safe side.
    fn may_write(&self, instruction: &Instruction) -> bool {
        let op = instruction.code().op_code();
        let first = instruction.op0_kind() == OpKind::Memory;
        let reads = matches!(
            instruction.mnemonic(),
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Jmp | Mnemonic::Call
        );
        !reads && (first || op.can_use_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg)
    }

    /// Computes which flags are live after each instruction.
    fn flags(&mut self, cpu: &Cpu, phys: &Phys, mode: Mode) {
        let Some(last) = self.decoded.last() else {
            return;
        };
        let mut live = match last.kind {
            _ if mode.counted() => ALL_FLAGS,
            Kind::Return | Kind::JumpIndirect | Kind::CallIndirect | Kind::Interpret => ALL_FLAGS,
            Kind::Jump | Kind::Call | Kind::Syscall | Kind::Sysret => 0,
            _ => self.live_at(cpu, phys, mode, last.next_ip),
        };
        for i in (0..self.decoded.len()).rev() {
            let decoded = &self.decoded[i];
            let branches = matches!(
                decoded.kind,
                Kind::Jump | Kind::Call | Kind::JumpIf | Kind::JumpIfZero | Kind::Loop
            );
            let outside = match decoded.kind {
                // The trace follows the branch: what is outside is behind it.
                Kind::JumpIf if decoded.jumps => Some(decoded.next_ip),
                _ if branches && !decoded.jumps => Some(decoded.instruction.near_branch_target()),
                _ => None,
            };
            if let Some(outside) = outside.filter(|_| live != ALL_FLAGS) {
                live |= self.live_at(cpu, phys, mode, outside);
            }
            let decoded = &mut self.decoded[i];
            decoded.live_after = live;
            live = decoded.live_before();
        }
    }

    /// Flags that the code at `ip` may read before it sets them.
    fn live_at(&self, cpu: &Cpu, phys: &Phys, mode: Mode, ip: u64) -> u8 {
        let mut at = ip;
        let mut live = ALL_FLAGS;
        let mut budget = LOOK_AHEAD;
        'page: while budget > 0 {
            let Some(page) = Self::page(cpu, phys, mode.linear(at)) else {
                return live;
            };
            let offset = mode.linear(at) as usize & 0xfff;
            // SAFETY: as in `decode`.
            let bytes =
                unsafe { std::slice::from_raw_parts(page.host.add(offset), 0x1000 - offset) };
            let mut decoder = Decoder::with_ip(mode.bits(), bytes, at, DecoderOptions::NONE);
            while budget > 0 && decoder.can_decode() {
                budget -= 1;
                let start = decoder.position();
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    return live;
                }
                let code = &bytes[start..start + instruction.len()];
                let decoded = self.inspect(mode, instruction, code);
                if decoded.reads & live != 0 {
                    return live;
                }
                live &= !decoded.kills;
                if live == 0 {
                    return 0;
                }
                match decoded.kind {
                    Kind::Jump | Kind::Call => {
                        at = instruction.near_branch_target();
                        continue 'page;
                    }
                    kind if ends_block(kind) => return live,
                    _ => {}
                }
            }
            return live;
        }
        live
    }
}

/// Bytes that an instruction pushes or pops.
fn stack_slot(instruction: &Instruction, mode: Mode) -> u8 {
    use iced_x86::Code as C;
    match instruction.code() {
        C::Retnw_imm16 | C::Leavew => 2,
        C::Retnd_imm16 | C::Leaved => 4,
        C::Retnq_imm16 | C::Leaveq => 8,
        C::Enterw_imm16_imm8 => 2,
        C::Enterd_imm16_imm8 => 4,
        C::Pushaw | C::Popaw => 2,
        C::Pushad | C::Popad => 4,
        _ => match instruction.stack_pointer_increment().unsigned_abs() {
            size @ (2 | 4 | 8) => size as u8,
            _ => (mode.bits() / 8) as u8,
        },
    }
}

/// Whether a segment register is loaded whose checks, or whose load, need the interpreter.
fn loads_checked(mode: Mode, instruction: &Instruction) -> bool {
    use crate::cpu::{DS, ES, FS, GS};
    let segment = match instruction.mnemonic() {
        Mnemonic::Les => ES,
        Mnemonic::Lds => DS,
        Mnemonic::Lss => SS,
        Mnemonic::Lfs => FS,
        Mnemonic::Lgs => GS,
        _ => segment_index(instruction.op0_register()),
    };
    segment == CS || mode.segment(segment) == SegmentClass::Checked
}

fn uses_stack(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Push
            | Kind::Pop
            | Kind::PushFlags
            | Kind::Call
            | Kind::CallIndirect
            | Kind::Return
            | Kind::Leave
            | Kind::PushAll
            | Kind::PopAll
            | Kind::PushSelector
            | Kind::PopSelector
            | Kind::Enter
            | Kind::PopFlags
    )
}

/// Turns REP before a two-byte opcode into a segment prefix, which is not taken over.
fn drop_repeat(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().take_while(|byte| **byte != 0x0f) {
        if *byte == 0xf3 {
            *byte = 0x2e;
        }
    }
}

/// Rewrites encodings of 32-bit code that mean something else in 64-bit code.
fn respell(instruction: &Instruction, bytes: &mut [u8]) {
    use iced_x86::Mnemonic as M;
    let prefix = |b: &u8| {
        matches!(
            b,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
        )
    };
    if let Some(opcode) = bytes.iter_mut().find(|b| !prefix(b))
        && *opcode == 0x82
    {
        *opcode = 0x80;
    }
    let start = bytes.iter().take_while(|b| prefix(b)).count();
    if instruction.encoding() == EncodingKind::EVEX
        && let [_, p0, p1, p2, ..] = &mut bytes[start..]
    {
        // Bits that name registers 8 to 31 are ignored here.
        (*p0, *p1, *p2) = (*p0 | 0xf0, *p1 | 0x40, *p2 | 8);
    }
    let register_immediate = matches!(
        instruction.mnemonic(),
        M::Vblendvps | M::Vblendvpd | M::Vpblendvb
    );
    if let Some(last) = bytes.last_mut()
        && register_immediate
    {
        // Bit 7 is ignored, but would name registers 8 to 15.
        *last &= 0x7f;
    }
}

fn is_shift(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    )
}

fn is_write(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

fn runs_fp(decoded: &Decoded) -> bool {
    decoded.info.fp && decoded.kind == Kind::Plain
}

/// Whether no instruction of the block follows one of this kind.
pub fn ends_block(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Plain
            | Kind::Nop
            | Kind::Lea
            | Kind::Push
            | Kind::Pop
            | Kind::Leave
            | Kind::BitTest
            | Kind::AbsoluteMove
            | Kind::Rdtsc
            | Kind::Rdtscp
            | Kind::PushFlags
            | Kind::ReadSelector
            | Kind::Cli
            | Kind::Sti
            | Kind::Cld
            | Kind::Pause
            | Kind::Swapgs
            | Kind::PushAll
            | Kind::PopAll
            | Kind::PushSelector
            | Kind::PopSelector
            | Kind::LoadSelector
            | Kind::FarPointer
            | Kind::Lods
            | Kind::Stos
            | Kind::Movs
            | Kind::Scas
            | Kind::Cmps
            | Kind::Xlat
            | Kind::Enter
            | Kind::PopFlags
    )
}
