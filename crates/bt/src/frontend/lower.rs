//! Emission of single instructions.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::classify::{Field, Kind};
use super::memory::Slow;
use super::mode::Mode;
use super::translate::{Decoded, ends_block};
use crate::cache::{BlockId, BranchExit, FaultSite};
use crate::context::{self, at};
use crate::emit::asm::reg::{R9, R10, R11, RAX, RDX, RSI};
use crate::emit::asm::{Asm, Mem, cc, op};
use crate::emit::rewrite::{Fields, Rm, rewrite, sized};
use crate::runtime::stubs::Stubs;

/// Where a guest general register lives in translated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpr {
    /// In this host register.
    Host(u8),
    /// In the context, under this number.
    Memory(u8),
}

/// The register map: the identity, but for RSP in R9 and R9 to R11 in memory.
pub fn map(number: u8) -> Gpr {
    match number {
        4 => Gpr::Host(R9),
        9..=11 => Gpr::Memory(number),
        n => Gpr::Host(n),
    }
}

/// What the emission of a block yields.
#[derive(Debug)]
pub struct Code {
    /// Entry for direct branches.
    pub entry: *const u8,
    /// Entry for indirect branches, or null.
    pub indirect_entry: *const u8,
    /// Direct branches out of the block.
    pub exits: Vec<BranchExit>,
    /// Instructions that may fault on the host.
    pub faults: Vec<FaultSite>,
    /// Instruction for the interpreter at the end.
    pub system: Option<Box<Instruction>>,
    /// Its linear address.
    pub system_at: u64,
}

/// The state of emission of one block.
#[derive(Debug)]
pub struct Lower<'a> {
    pub(super) hot: &'a mut Asm,
    pub(super) cold: &'a mut Asm,
    pub(super) stubs: &'a Stubs,
    factory: &'a mut InstructionInfoFactory,
    pub(super) mode: Mode,
    pub(super) id: BlockId,
    pub(super) linear: u64,
    pub(super) bmi2: bool,
    /// Offset of the current instruction in the block.
    pub(super) offset: u16,
    /// EFLAGS hold the guest's arithmetic flags.
    pub(super) in_register: bool,
    /// The context holds the guest's arithmetic flags.
    pub(super) in_memory: bool,
    pub(super) slow: Vec<Slow>,
    pub(super) code: Code,
    ended: bool,
}

impl<'a> Lower<'a> {
    /// Begins block `id` at `linear`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        hot: &'a mut Asm,
        cold: &'a mut Asm,
        stubs: &'a Stubs,
        factory: &'a mut InstructionInfoFactory,
        mode: Mode,
        id: BlockId,
        linear: u64,
        bmi2: bool,
    ) -> Self {
        let code = Code {
            entry: hot.here(),
            indirect_entry: std::ptr::null(),
            exits: Vec::new(),
            faults: Vec::new(),
            system: None,
            system_at: 0,
        };
        Self {
            hot,
            cold,
            stubs,
            factory,
            mode,
            id,
            linear,
            bmi2,
            offset: 0,
            in_register: true,
            in_memory: false,
            slow: Vec::new(),
            code,
            ended: false,
        }
    }

    /// Emits the entries. `live` are the flags that the block reads from outside.
    pub fn begin(&mut self, live: u8, indirect: bool, fp: bool) {
        if indirect {
            self.code.indirect_entry = self.hot.here();
            indirect_check(self.hot, self.stubs, self.linear);
            if live != 0 {
                self.hot.restore_flags(at!(flags));
            }
        }
        self.code.entry = self.hot.here();
        if fp {
            self.clobber_flags(live);
            self.hot.cmp_mem_zero(Mem::gs(at!(fpu_resident)));
            self.hot.jcc(cc::E, self.cold.here());
            self.cold.call(self.stubs.fpu_load);
            self.cold.jmp(self.hot.here());
        }
    }

    /// EFLAGS are about to be lost: saves them if they are live.
    pub(super) fn clobber_flags(&mut self, live: u8) {
        if live != 0 && self.in_register && !self.in_memory {
            self.hot.save_flags(at!(flags));
            self.in_memory = true;
        }
        self.in_register = false;
    }

    /// EFLAGS are about to be read. R10 is lost.
    pub(super) fn need_flags(&mut self, live: u8) {
        if live != 0 && !self.in_register {
            self.hot.restore_flags(at!(flags));
            self.in_register = true;
        }
    }

    /// Emits one instruction; returns whether the block ends before the next one.
    pub fn instruction(&mut self, decoded: &Decoded) -> bool {
        let instruction = &decoded.instruction;
        self.offset = instruction.ip().wrapping_sub(self.linear) as u16;
        match decoded.kind {
            Kind::Plain => self.plain(decoded),
            Kind::Interpret => self.system(decoded),
            Kind::Nop => {}
            Kind::Lea => self.lea(instruction),
            Kind::Push => self.push(decoded),
            Kind::Pop => self.pop(decoded),
            Kind::Leave => self.leave(decoded),
            Kind::BitTest => self.bit_test(decoded),
            Kind::AbsoluteMove => self.absolute_move(decoded),
            Kind::Rdtsc => self.rdtsc(decoded),
            _ => self.control(decoded),
        }
        self.ended || ends_block(decoded.kind)
    }

    /// Ends the block: slow paths go behind it.
    pub fn finish(mut self) -> Code {
        self.slow_paths();
        self.code
    }

    /// Leaves to the interpreter for one instruction.
    pub(super) fn system(&mut self, decoded: &Decoded) {
        self.code.system = Some(Box::new(decoded.instruction));
        self.code.system_at = decoded.instruction.ip();
        self.hot.store_imm32(Mem::gs(at!(exit)), self.id << 4 | exit::SYSTEM);
        let stub = if self.in_memory { self.stubs.exit_memory_flags } else { self.stubs.exit };
        self.hot.jmp(stub);
    }

    /// The operand's general register and whether it is AH, CH, DH or BH.
    fn general(instruction: &Instruction, operand: u32) -> Option<(u8, bool)> {
        if instruction.op_kind(operand) != OpKind::Register {
            return None;
        }
        let register = instruction.op_register(operand);
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        register.is_gpr().then(|| (register.full_register().number() as u8, high))
    }

    /// Re-encodes an instruction with the register map and the memory operand at R11.
    fn plain(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let count = instruction.op_count();
        let memory = (0..count).find(|&i| instruction.op_kind(i) == OpKind::Memory);
        let general = |i| Self::general(instruction, i);
        let moved = |(n, _): (u8, bool)| map(n) != Gpr::Host(n);
        let remapped = (0..count).filter_map(general).any(moved);
        let partial = if decoded.writes { decoded.live_after & !decoded.kills } else { 0 };
        let needed = decoded.reads | partial;

        if memory.is_none() && !remapped {
            self.need_flags(needed);
            self.fault_site(decoded);
            if self.mode.bits() == 32 {
                return self.legacy_bytes(decoded);
            }
            self.hot.bytes(decoded.bytes());
            return self.flags_written(decoded);
        }

        // Registers that live in memory pass through scratch registers.
        let scratch: &[u8] = if memory.is_some() { &[R10] } else { &[R10, R11] };
        let mut homes: [(u8, u8); 2] = [(0, 0); 2];
        let mut used = 0;
        for (n, _) in (0..count).filter_map(general) {
            let known = homes[..used].iter().any(|h| h.0 == n);
            if matches!(map(n), Gpr::Memory(_)) && !known {
                if used == scratch.len() {
                    return self.give_up(decoded);
                }
                homes[used] = (n, scratch[used]);
                used += 1;
            }
        }
        let homes = &homes[..used];
        let home = |n: u8| match map(n) {
            Gpr::Host(host) => host,
            Gpr::Memory(_) => homes.iter().find(|h| h.0 == n).map_or(R10, |h| h.1),
        };
        let mut fields = Fields::default();
        let mut high = false;
        for i in 0..count {
            let Some((n, is_high)) = general(i) else { continue };
            high |= is_high;
            // AH to BH are encoded as 4 to 7 and are never remapped.
            let host = if is_high { n + 4 } else { home(n) };
            match decoded.info.fields[i as usize] {
                Field::Reg => fields.reg = Some(host),
                Field::Rm => fields.rm = Rm::Reg(host),
                Field::Opcode => fields.opcode = Some(host),
                Field::Vvvv => fields.vvvv = Some(host),
                Field::None if map(n) == Gpr::Host(n) => {}
                Field::None => return self.give_up(decoded),
            }
        }
        let (mut reads, mut writes) = (0u16, 0u16);
        let mut write = false;
        if memory.is_some() || !homes.is_empty() {
            let used = self.factory.info(instruction);
            for i in 0..count {
                let access = used.op_access(i);
                if Some(i) == memory {
                    write = is_write(access);
                } else if let Some((n, _)) = general(i) {
                    let whole = instruction.op_register(i).size() >= 4 && access == OpAccess::Write;
                    reads |= if whole { 0 } else { 1 << n };
                    writes |= if is_write(access) { 1 << n } else { 0 };
                }
            }
        }
        let mut swap = false;
        if memory.is_some() {
            self.clobber_flags(decoded.live_before());
            let size = instruction.memory_size().size().max(1) as u32;
            let (base, disp) = self.operand(instruction, size, write);
            // A REX prefix would turn AH to BH into other registers: use a low base register.
            swap = high;
            fields.rm = if swap { Rm::Mem(RSI, disp) } else { Rm::Mem(base, disp) };
        }
        self.need_flags(needed);
        for &(n, host) in homes.iter().filter(|h| reads & 1 << h.0 != 0) {
            self.hot.load(host, Mem::gs(context::gpr(n)));
        }
        if swap {
            self.hot.op_reg(true, op::XCHG, R11, RSI);
        }
        self.fault_site(decoded);
        let (bits, modrm) = (self.mode.bits(), decoded.info.modrm);
        let done = rewrite(self.hot, decoded.bytes(), bits, modrm, fields);
        debug_assert!(done.is_some(), "{instruction:?}");
        if swap {
            self.hot.op_reg(true, op::XCHG, R11, RSI);
        }
        for &(n, host) in homes.iter().filter(|h| writes & 1 << h.0 != 0) {
            self.hot.store(Mem::gs(context::gpr(n)), host);
        }
        self.flags_written(decoded);
    }

    /// 32-bit code without memory operands whose bytes mean something else in 64-bit code.
    fn legacy_bytes(&mut self, decoded: &Decoded) {
        let bytes = decoded.bytes();
        let prefixed = usize::from(bytes[0] == 0x66);
        match bytes.get(prefixed) {
            Some(&opcode @ 0x40..=0x4f) => {
                if prefixed == 1 {
                    self.hot.byte(0x66);
                }
                // INC and DEC with the register in the opcode are REX prefixes now.
                let extension = if opcode < 0x48 { 0xc0 } else { 0xc8 };
                self.hot.bytes(&[0xff, extension | opcode & 7]);
            }
            _ => self.hot.bytes(bytes),
        }
        self.flags_written(decoded);
    }

    /// A form that the register map can't hold: the interpreter takes it, and translation goes on
    /// in the next block.
    fn give_up(&mut self, decoded: &Decoded) {
        self.ended = true;
        self.system(decoded);
    }

    fn flags_written(&mut self, decoded: &Decoded) {
        if decoded.writes {
            self.in_register = true;
            self.in_memory = false;
        }
    }

    fn fault_site(&mut self, decoded: &Decoded) {
        if decoded.info.faults {
            self.code.faults.push(FaultSite {
                host: self.hot.here() as u64,
                offset: self.offset,
                flags_in_register: self.in_register,
            });
        }
    }

    fn lea(&mut self, instruction: &Instruction) {
        let Some((n, _)) = Self::general(instruction, 0) else { return };
        let size = instruction.op0_register().size();
        let mut plain = *instruction;
        plain.set_segment_prefix(Register::None);
        let segment = plain.memory_segment();
        debug_assert!(!matches!(segment, Register::FS | Register::GS));
        self.effective_address(&plain);
        match (map(n), size) {
            (Gpr::Host(host), 2) => {
                self.hot.byte(0x66);
                self.hot.op_reg(false, op::LOAD, host, R11);
            }
            (Gpr::Host(host), size) => self.hot.op_reg(size == 8, op::LOAD, host, R11),
            (Gpr::Memory(n), 2) => {
                self.hot.byte(0x66);
                self.hot.op_mem(false, &[op::STORE], R11, Mem::gs(context::gpr(n)));
            }
            (Gpr::Memory(n), size) => {
                if size == 4 {
                    self.hot.op_reg(false, op::LOAD, R11, R11);
                }
                self.hot.store(Mem::gs(context::gpr(n)), R11);
            }
        }
    }

    /// Bytes of a stack slot.
    pub(super) fn slot(&self) -> i32 {
        if self.mode.bits() == 64 { 8 } else { 4 }
    }

    /// Adds to the guest's stack pointer.
    pub(super) fn move_stack(&mut self, by: i32) {
        let wide = self.mode.bits() == 64;
        self.hot.lea(wide, R9, Mem::at(R9, by));
    }

    /// Makes R11 point to the next free stack slot.
    pub(super) fn push_slot(&mut self) {
        let slot = self.slot();
        self.hot.lea(self.mode.bits() == 64, R11, Mem::at(R9, -slot));
        self.stack_check(slot as u32, true);
    }

    fn push(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let slot = self.slot() as u32;
        self.clobber_flags(decoded.live_before());
        if instruction.op0_kind() == OpKind::Memory {
            let (base, disp) = self.operand(instruction, slot, false);
            sized(self.hot, slot, op::LOAD, R10, Mem::at(base, disp));
            self.hot.store(Mem::gs(at!(scratch)), R10);
        }
        self.push_slot();
        match Self::general(instruction, 0).map(|(n, _)| map(n)) {
            Some(Gpr::Host(host)) => sized(self.hot, slot, op::STORE, host, Mem::at(R11, 0)),
            Some(Gpr::Memory(n)) => {
                self.hot.load(R10, Mem::gs(context::gpr(n)));
                sized(self.hot, slot, op::STORE, R10, Mem::at(R11, 0));
            }
            None if instruction.op0_kind() == OpKind::Memory => {
                self.hot.load(R10, Mem::gs(at!(scratch)));
                sized(self.hot, slot, op::STORE, R10, Mem::at(R11, 0));
            }
            None => {
                self.hot.op_mem(slot == 8, &[0xc7], 0, Mem::at(R11, 0));
                self.hot.dword(instruction.immediate(0) as u32);
            }
        }
        self.move_stack(-(slot as i32));
    }

    fn pop(&mut self, decoded: &Decoded) {
        let slot = self.slot();
        self.clobber_flags(decoded.live_before());
        self.hot.lea(slot == 8, R11, Mem::at(R9, 0));
        self.stack_check(slot as u32, false);
        let Some((n, _)) = Self::general(&decoded.instruction, 0) else { return };
        match map(n) {
            Gpr::Host(R9) => sized(self.hot, slot as u32, op::LOAD, R9, Mem::at(R11, 0)),
            Gpr::Host(host) => {
                sized(self.hot, slot as u32, op::LOAD, host, Mem::at(R11, 0));
                self.move_stack(slot);
            }
            Gpr::Memory(n) => {
                self.hot.load(R10, Mem::at(R11, 0));
                self.hot.store(Mem::gs(context::gpr(n)), R10);
                self.move_stack(slot);
            }
        }
    }

    fn leave(&mut self, decoded: &Decoded) {
        const RBP: u8 = 5;
        let slot = self.slot();
        self.clobber_flags(decoded.live_before());
        self.hot.op_reg(slot == 8, op::LOAD, R11, RBP);
        self.stack_check(slot as u32, false);
        self.hot.lea(slot == 8, R9, Mem::at(RBP, slot));
        sized(self.hot, slot as u32, op::LOAD, RBP, Mem::at(R11, 0));
    }

    /// BT and its kin on memory: the register counts bits from the operand's address.
    fn bit_test(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        if instruction.op0_kind() != OpKind::Memory {
            return self.plain(decoded);
        }
        let Some((n, _)) = Self::general(instruction, 1) else { return };
        let wide = instruction.op1_register().size() == 8;
        self.clobber_flags(decoded.live_before());
        self.effective_address(instruction);
        let (source, shift) = match map(n) {
            Gpr::Host(host) => (host, if wide { 6 } else { 5 }),
            Gpr::Memory(n) => {
                self.hot.load(R10, Mem::gs(context::gpr(n)));
                (R10, if wide { 6 } else { 5 })
            }
        };
        if wide {
            self.hot.mov(R10, source);
        } else {
            // movsxd r10, source
            self.hot.op_reg(true, 0x63, R10, source);
        }
        // sar r10, shift
        self.hot.bytes(&[0x49, 0xc1, 0xfa, shift]);
        let scale = if wide { 3 } else { 2 };
        let mem = Mem { base: Some(R11), index: Some((R10, scale)), ..Mem::default() };
        self.hot.lea(self.mode.bits() == 64, R11, mem);
        let write = instruction.mnemonic() != Mnemonic::Bt;
        self.check(if wide { 8 } else { 4 }, write);
        match map(n) {
            Gpr::Host(host) => self.hot.mov(R10, host),
            Gpr::Memory(n) => self.hot.load(R10, Mem::gs(context::gpr(n))),
        }
        // and r10d, width - 1
        self.hot.bytes(&[0x41, 0x83, 0xe2, if wide { 63 } else { 31 }]);
        let needed = decoded.live_after & !decoded.kills;
        if needed != 0 {
            self.hot.store(Mem::gs(at!(scratch)), R10);
            self.need_flags(needed);
            self.hot.load(R10, Mem::gs(at!(scratch)));
        }
        let fields = Fields { reg: Some(R10), rm: Rm::Mem(R11, 0), ..Fields::default() };
        let _ = rewrite(self.hot, decoded.bytes(), self.mode.bits(), true, fields);
        self.flags_written(decoded);
    }

    /// MOV between the accumulator and an absolute address.
    fn absolute_move(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let store = instruction.op0_kind() == OpKind::Memory;
        let size = instruction.memory_size().size() as u32;
        self.clobber_flags(decoded.live_before());
        self.effective_address(instruction);
        self.check(size, store);
        let opcode = if store { op::STORE } else { op::LOAD };
        sized(self.hot, size, if size == 1 { opcode - 1 } else { opcode }, RAX, Mem::at(R11, 0));
    }

    fn rdtsc(&mut self, decoded: &Decoded) {
        self.clobber_flags(decoded.live_before());
        self.hot.bytes(&[0x0f, 0x31]);
        // shl rdx, 32; or rax, rdx
        self.hot.bytes(&[0x48, 0xc1, 0xe2, 32]);
        self.hot.op_reg(true, op::OR, RAX, RDX);
        self.hot.op_mem(true, &[op::ADD], RAX, Mem::gs(at!(tsc_offset)));
        self.hot.mov(RDX, RAX);
        // shr rdx, 32; mov eax, eax
        self.hot.bytes(&[0x48, 0xc1, 0xea, 32]);
        self.hot.op_reg(false, op::LOAD, RAX, RAX);
    }
}

fn is_write(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

/// Emits the check that R10 is the block's linear address; otherwise the branch is unknown.
pub fn indirect_check(asm: &mut Asm, stubs: &Stubs, linear: u64) {
    if let Ok(immediate) = i32::try_from(linear as i64) {
        asm.cmp_imm(R10, immediate);
    } else {
        asm.mov_imm(R11, linear);
        asm.op_reg(true, op::CMP, R10, R11);
    }
    asm.jcc(cc::NE, stubs.target_miss);
}

/// Emits an indirect entry apart from its block.
pub fn late_indirect_entry(
    asm: &mut Asm,
    stubs: &Stubs,
    linear: u64,
    flags_live: bool,
    entry: *const u8,
) -> *const u8 {
    let here = asm.here();
    indirect_check(asm, stubs, linear);
    if flags_live {
        asm.restore_flags(at!(flags));
    }
    asm.jmp(entry);
    here
}

/// Reasons in `Context::exit`: a block number above four bits of reason.
pub mod exit {
    /// Direct branch 0 or 1 of the block, not linked.
    pub const BRANCH: u32 = 0;
    /// The interpreter runs the instruction at the end of the block.
    pub const SYSTEM: u32 = 2;
    /// The kick flag was seen; RIP is stored.
    pub const KICKED: u32 = 3;
    /// An indirect branch has an unknown target; RIP is stored.
    pub const TARGET: u32 = 4;
    /// A memory helper gave up; RIP is that of its instruction.
    pub const MEMORY: u32 = 5;
    /// A native instruction faulted at `Context::exit_site`.
    pub const FAULT: u32 = 6;
}
