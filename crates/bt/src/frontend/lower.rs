//! Emission of single instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::classify::{Field, Kind};
use super::exit;
use super::groups::Groups;
use super::memory::Slow;
use super::mode::Mode;
use super::segment::{LimitCheck, address_bits};
use super::translate::{Decoded, ends_block};
use crate::cache::{BlockId, BranchExit, FaultSite};
use crate::context::{self, at};
use crate::emit::asm::reg::{R9, R10, R11, RAX, RCX, RSI};
use crate::emit::asm::{Asm, Mem, cc, op};
use crate::emit::rewrite::{Fields, Rm, rewrite, sized};
use crate::interp::address::segment_index;
use crate::runtime::stubs::Stubs;

/// Host processors fetch loops best from such addresses.
const ALIGNMENT: usize = 32;

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
        9 => Gpr::Host(14),
        10 => Gpr::Host(15),
        11 | 14 | 15 => Gpr::Memory(number),
        n => Gpr::Host(n),
    }
}

/// What a scratch register holds between instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing of use.
    Nothing,
    /// The value of this guest register, which lives in the context.
    Guest(u8),
    /// The host address of this group's window.
    Window(u8),
    /// The offset of the TLB entry of the page that this group, or a later one off the same
    /// register, went to. The check with this number left it there.
    Entry(u8, u16),
}

/// What the emission of a block yields.
#[derive(Debug)]
pub struct Code {
    /// Entry for direct branches.
    pub entry: *const u8,
    /// Entries for indirect branches with flags in EFLAGS and in the context, or null.
    pub indirect_entries: [*const u8; 2],
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
    pub(super) groups: &'a Groups,
    pub(super) mode: Mode,
    pub(super) id: BlockId,
    /// Linear address of the block's page.
    pub(super) page: u64,
    pub(super) bmi2: bool,
    /// Index of the current instruction in the block.
    pub(super) index: usize,
    /// Instruction pointer of the current instruction.
    pub(super) ip: u64,
    /// Its offset in the page.
    pub(super) offset: u16,
    /// What is in R10 and R11.
    pub(super) held: [Held; 2],
    /// Which of R10 and R11 held a window that was used longer ago.
    pub(super) older: u8,
    /// What is subtracted from an access's place to get its displacement, by group.
    pub(super) bias: Vec<i64>,
    /// Accesses still to come, by group.
    pub(super) left: Vec<u8>,
    /// EFLAGS hold the guest's arithmetic flags.
    pub(super) in_register: bool,
    /// The context holds the guest's arithmetic flags.
    pub(super) in_memory: bool,
    pub(super) slow: Vec<Slow>,
    pub(super) limits: Vec<LimitCheck>,
    /// What indirect branches of this mode have above the instruction pointer.
    pub tag: u64,
    pub(super) code: Code,
    ended: bool,
}

impl<'a> Lower<'a> {
    /// Begins block `id` in linear page `page`.
    #[allow(
        clippy::too_many_arguments,
        reason = "what a block is made of; a structure for one call would say no more"
    )]
    pub fn new(
        hot: &'a mut Asm,
        cold: &'a mut Asm,
        stubs: &'a Stubs,
        groups: &'a Groups,
        mode: Mode,
        id: BlockId,
        page: u64,
        bmi2: bool,
    ) -> Self {
        let code = Code {
            entry: hot.here(),
            indirect_entries: [std::ptr::null(); 2],
            exits: Vec::new(),
            faults: Vec::new(),
            system: None,
            system_at: 0,
        };
        Self {
            hot,
            cold,
            stubs,
            groups,
            mode,
            id,
            page,
            bmi2,
            index: 0,
            offset: 0,
            held: [Held::Nothing; 2],
            older: 0,
            bias: vec![0; groups.groups.len()],
            left: groups.groups.iter().map(|group| group.uses).collect(),
            in_register: true,
            in_memory: false,
            slow: Vec::new(),
            limits: Vec::new(),
            tag: 0,
            ip: 0,
            code,
            ended: false,
        }
    }

    /// Emits the entries. `live` are the flags that the block reads from outside.
    pub fn begin(&mut self, linear: u64, live: u8, indirect: bool, fp: bool, count: usize) {
        self.hot.align(ALIGNMENT);
        let counted = self.mode.counted();
        if indirect && (live == 0 || counted) {
            let in_memory = self.hot.here().cast_const();
            indirect_check(self.hot, self.stubs.target_miss_memory_flags, linear);
            let in_register = self.cold.here().cast_const();
            flagless_check(self.cold, self.stubs.target_miss, linear, self.hot.here());
            self.code.indirect_entries = [in_register, in_memory];
        }
        self.code.entry = self.hot.here();
        if counted {
            self.allow(linear, count);
        }
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
            self.save_flags();
        }
        self.in_register = false;
    }

    pub(super) fn save_flags(&mut self) {
        self.hot.save_flags(at!(flags));
        self.held[0] = Held::Nothing;
        self.in_memory = true;
    }

    /// EFLAGS are about to be read. R10 is lost.
    pub(super) fn need_flags(&mut self, live: u8) {
        if live != 0 && !self.in_register {
            self.hot.restore_flags(at!(flags));
            self.held[0] = Held::Nothing;
            self.in_register = true;
        }
    }

    /// Emits instruction `index` of the block; returns whether the block ends before the next.
    pub fn instruction(&mut self, index: usize, decoded: &Decoded, last: bool) -> bool {
        let instruction = &decoded.instruction;
        self.index = index;
        self.ip = instruction.ip();
        self.offset = self.mode.linear(self.ip).wrapping_sub(self.page) as u16;
        if decoded.observed {
            self.keep_flags();
        }
        self.windows(decoded);
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
            Kind::Jump if decoded.jumps => {}
            Kind::JumpIf => self.jump_if(decoded, last),
            Kind::Jump
            | Kind::JumpIndirect
            | Kind::JumpIfZero
            | Kind::Loop
            | Kind::Call
            | Kind::CallIndirect
            | Kind::Return => self.control(decoded),
            Kind::Rdtsc
            | Kind::Rdtscp
            | Kind::PushFlags
            | Kind::ReadSelector
            | Kind::Cli
            | Kind::Sti
            | Kind::Cld
            | Kind::Pause
            | Kind::Swapgs
            | Kind::Syscall
            | Kind::Sysret
            | Kind::Clac
            | Kind::Stac => self.inline_system(decoded),
            Kind::Lods | Kind::Stos | Kind::Movs | Kind::Scas | Kind::Cmps => self.string(decoded),
            Kind::Xlat => self.xlat(decoded),
            Kind::Enter => self.enter(decoded),
            Kind::PopFlags => self.pop_flags(decoded),
            Kind::PushAll
            | Kind::PopAll
            | Kind::PushSelector
            | Kind::PopSelector
            | Kind::LoadSelector
            | Kind::FarPointer => self.legacy(decoded),
        }
        self.ended || last && ends_block(decoded.kind)
    }

    /// Ends the block: slow paths go behind it.
    pub fn finish(mut self) -> Code {
        self.slow_paths();
        self.limit_paths();
        self.code
    }

    /// Leaves to the interpreter for one instruction.
    pub(super) fn system(&mut self, decoded: &Decoded) {
        self.code.system = Some(Box::new(decoded.instruction));
        self.code.system_at = decoded.instruction.ip();
        self.account(self.index);
        self.hot
            .store_imm32(Mem::gs(at!(exit)), exit::code(self.id, exit::SYSTEM));
        let stub = if self.in_memory {
            self.stubs.exit_memory_flags
        } else {
            self.stubs.exit
        };
        self.hot.jmp(stub);
    }

    /// The operand's general register and whether it is AH, CH, DH or BH.
    pub(super) fn general(instruction: &Instruction, operand: u32) -> Option<(u8, bool)> {
        if instruction.op_kind(operand) != OpKind::Register {
            return None;
        }
        let register = instruction.op_register(operand);
        let high = matches!(
            register,
            Register::AH | Register::CH | Register::DH | Register::BH
        );
        register
            .is_gpr()
            .then(|| (register.full_register().number() as u8, high))
    }

    /// Re-encodes an instruction with the register map and the memory operand at R11.
    fn plain(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let count = instruction.op_count();
        let memory = (0..count).find(|&i| instruction.op_kind(i) == OpKind::Memory);
        let general = |i| Self::general(instruction, i);
        let moved = |(n, _): (u8, bool)| map(n) != Gpr::Host(n);
        let remapped = (0..count).filter_map(general).any(moved);
        let partial = if decoded.writes {
            decoded.live_after & !decoded.kills
        } else {
            0
        };
        let needed = decoded.reads | partial;

        if memory.is_none() && !remapped {
            self.need_flags(needed);
            self.fault_site(decoded);
            if !self.mode.long() {
                return self.legacy_bytes(decoded);
            }
            self.hot.bytes(decoded.bytes());
            return self.flags_written(decoded);
        }

        if memory.is_none() && self.direct_source(decoded, needed) {
            return;
        }
        // Registers that live in memory pass through scratch registers.
        let scratch: &[u8] = if memory.is_some() {
            &[R10]
        } else {
            &[R10, R11]
        };
        let mut homes: [(u8, u8); 2] = [(0, 0); 2];
        let mut used = 0;
        let taken = |homes: &[(u8, u8)], host| homes.iter().any(|h| h.1 == host);
        for pass in [true, false] {
            for (n, _) in (0..count).filter_map(general) {
                let known = homes[..used].iter().any(|h| h.0 == n);
                if known || matches!(map(n), Gpr::Host(_)) {
                    continue;
                }
                let here = |&&host: &&u8| self.held[usize::from(host - R10)] == Held::Guest(n);
                let free = |&&host: &&u8| !taken(&homes[..used], host);
                let host = if pass {
                    scratch.iter().filter(here).find(free)
                } else {
                    scratch.iter().find(free)
                };
                match host {
                    Some(&host) => {
                        homes[used] = (n, host);
                        used += 1;
                    }
                    None if pass => {}
                    None => return self.give_up(decoded),
                }
            }
        }
        let homes = &homes[..used];
        let home = |n: u8| match map(n) {
            Gpr::Host(host) => host,
            Gpr::Memory(_) => homes.iter().find(|h| h.0 == n).map_or(R10, |h| h.1),
        };
        let mut fields = self.fields(decoded);
        let mut high = false;
        for i in 0..count {
            let Some((n, is_high)) = general(i) else {
                continue;
            };
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
        let rex = |field: Option<u8>| field.is_some_and(|host| host >= 8);
        if high && (rex(fields.reg) || matches!(fields.rm, Rm::Reg(8..))) {
            // MOVZX, MOVSX, CRC32 from AH to BH to ESP: the map needs REX, AH must not have it.
            return self.give_up(decoded);
        }
        let mut swap = false;
        if let Some(operand) = memory {
            let size = instruction.memory_size().size().max(1) as u32;
            let write = decoded.operand_written(operand);
            let settled = needed == 0 || self.in_register;
            let either = homes.is_empty() && !high && settled;
            let (base, disp) = self.operand(decoded, size, write, either);
            // A REX prefix would turn AH to BH into other registers: use a low base register.
            swap = high;
            fields.rm = if swap {
                Rm::Mem(RSI, disp)
            } else {
                Rm::Mem(base, disp)
            };
        }
        self.need_flags(needed);
        for &(n, host) in homes {
            let held = &mut self.held[usize::from(host - R10)];
            if *held != Held::Guest(n) && decoded.read & 1 << n != 0 {
                self.hot.load(host, Mem::gs(context::gpr(n)));
            }
            *held = Held::Guest(n);
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
        for &(n, host) in homes.iter().filter(|h| decoded.written & 1 << h.0 != 0) {
            self.hot.store(Mem::gs(context::gpr(n)), host);
        }
        self.flags_written(decoded);
    }

    /// Forms in which a register that lives in memory can be used there: `op reg, source` with
    /// the source as r/m operand, and MOV to it. Returns whether the instruction was emitted.
    fn direct_source(&mut self, decoded: &Decoded, needed: u8) -> bool {
        let instruction = &decoded.instruction;
        let (first, second) = (Self::general(instruction, 0), Self::general(instruction, 1));
        if instruction.op_count() != 2 || decoded.kind == Kind::BitTest {
            return false;
        }
        let size = instruction.op_register(1).size();
        let fields = &decoded.info.fields;
        // MOV of a whole host register to one that lives in memory.
        if let (Mnemonic::Mov, Some((to, _)), Some((from, _)), 8) =
            (instruction.mnemonic(), first, second, size)
            && let (Gpr::Memory(to), Gpr::Host(from)) = (map(to), map(from))
        {
            // A copy in R10 saves later readers the way through memory.
            self.forget_guest(to);
            self.hot.mov(R10, from);
            self.hot.store(Mem::gs(context::gpr(to)), R10);
            self.held[0] = Held::Guest(to);
            return true;
        }
        let Some((n, _)) = second else { return false };
        let Gpr::Memory(n) = map(n) else { return false };
        if size < 4 || self.held.contains(&Held::Guest(n)) {
            return false;
        }
        let target = match first {
            Some((to, false)) => match map(to) {
                Gpr::Host(host) => Some(host),
                Gpr::Memory(_) => return false,
            },
            Some(_) => return false,
            None => None,
        };
        let place = Rm::Context(context::gpr(n));
        let fields = match (fields[0], fields[1], decoded.bytes()) {
            (Field::Reg, Field::Rm, _) if decoded.info.rm_any => Fields {
                reg: target,
                rm: place,
                ..self.fields(decoded)
            },
            (Field::None, Field::Rm, _) if decoded.info.rm_any && target.is_none() => Fields {
                rm: place,
                ..self.fields(decoded)
            },
            // op r/m, reg: the other direction has the source as r/m operand.
            (Field::Rm, Field::Reg, &[0x40..=0x4f, opcode, _] | &[opcode, _])
                if matches!(
                    opcode,
                    0x01 | 0x09 | 0x11 | 0x19 | 0x21 | 0x29 | 0x31 | 0x39 | 0x89
                ) =>
            {
                Fields {
                    reg: target,
                    rm: place,
                    flip: true,
                    ..self.fields(decoded)
                }
            }
            _ => return false,
        };
        self.need_flags(needed);
        self.fault_site(decoded);
        let bits = self.mode.bits();
        if rewrite(self.hot, decoded.bytes(), bits, true, fields).is_none() {
            return false;
        }
        self.flags_written(decoded);
        true
    }

    /// A register that lives in memory is written there: scratch registers no longer hold it.
    pub(super) fn forget_guest(&mut self, n: u8) {
        for held in &mut self.held {
            if *held == Held::Guest(n) {
                *held = Held::Nothing;
            }
        }
    }

    /// No replacements but for what operand size the bytes of 16-bit code mean.
    fn fields(&self, decoded: &Decoded) -> Fields {
        Fields {
            operand: decoded.info.operand.filter(|_| self.mode.bits() == 16),
            ..Fields::default()
        }
    }

    /// Code without memory operands whose bytes may mean something else in 64-bit code.
    fn legacy_bytes(&mut self, decoded: &Decoded) {
        use iced_x86::Code::{Dec_r16, Dec_r32, Inc_r16, Inc_r32};
        if matches!(
            decoded.instruction.code(),
            Inc_r16 | Inc_r32 | Dec_r16 | Dec_r32
        ) {
            let (bits, fields) = (self.mode.bits(), self.fields(decoded));
            let _ = rewrite(self.hot, decoded.bytes(), bits, false, fields);
        } else if self.mode.bits() == 16 {
            let fields = self.fields(decoded);
            let _ = rewrite(self.hot, decoded.bytes(), 16, decoded.info.modrm, fields);
        } else {
            self.hot.bytes(decoded.bytes());
        }
        self.flags_written(decoded);
    }

    /// A form that the register map can't hold: the interpreter takes it, and translation goes on
    /// in the next block.
    fn give_up(&mut self, decoded: &Decoded) {
        self.ended = true;
        self.system(decoded);
    }

    pub(super) fn flags_written(&mut self, decoded: &Decoded) {
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
                index: self.index as u16,
            });
        }
    }

    fn lea(&mut self, instruction: &Instruction) {
        let Some((n, _)) = Self::general(instruction, 0) else {
            return;
        };
        let size = instruction.op0_register().size();
        let mut plain = *instruction;
        plain.set_segment_prefix(Register::None);
        if let (Gpr::Host(host), 2 | 4 | 8) = (map(n), size)
            && self.simple_lea(&plain, host, size)
        {
            return;
        }
        self.effective_offset(&plain);
        match (map(n), size) {
            (Gpr::Host(host), 2) => {
                self.hot.byte(0x66);
                self.hot.op_reg(false, op::LOAD, host, R11);
            }
            (Gpr::Host(host), size) => self.hot.op_reg(size == 8, op::LOAD, host, R11),
            (Gpr::Memory(n), 2) => {
                self.forget_guest(n);
                self.hot.byte(0x66);
                self.hot
                    .op_mem(false, &[op::STORE], R11, Mem::gs(context::gpr(n)));
            }
            (Gpr::Memory(n), size) => {
                if size == 4 {
                    self.hot.op_reg(false, op::LOAD, R11, R11);
                }
                self.forget_guest(n);
                self.hot.store(Mem::gs(context::gpr(n)), R11);
                self.held[1] = Held::Guest(n);
            }
        }
    }

    /// LEA whose registers are all host registers: one instruction.
    fn simple_lea(&mut self, instruction: &Instruction, target: u8, size: usize) -> bool {
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        if instruction.is_ip_rel_memory_operand() {
            return false;
        }
        let bits = address_bits(instruction, self.mode);
        if size == 2 && self.mode.long() || bits == 16 && size != 2 {
            return false;
        }
        let host = |r: Register| match (r, map(r.number() as u8)) {
            (Register::None, _) => Some(None),
            (_, Gpr::Host(host)) => Some(Some(host)),
            (_, Gpr::Memory(_)) => None,
        };
        let (Some(base), Some(index)) = (host(base), host(index)) else {
            return false;
        };
        if base.is_none() {
            return false;
        }
        let scale = instruction.memory_index_scale().trailing_zeros() as u8;
        let disp = instruction.memory_displacement64() as i32;
        let mem = Mem {
            gs: false,
            base,
            index: index.map(|r| (r, scale)),
            disp,
        };
        if size == 2 {
            self.hot.byte(0x66);
        }
        self.hot.lea(size == 8 && bits == 64, target, mem);
        true
    }

    /// BT and its kin on memory: the register counts bits from the operand's address.
    fn bit_test(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        if instruction.op0_kind() != OpKind::Memory {
            return self.plain(decoded);
        }
        let Some((n, _)) = Self::general(instruction, 1) else {
            return;
        };
        let wide = instruction.op1_register().size() == 8;
        self.clobber_flags(decoded.live_before());
        self.effective_offset(instruction);
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
        let mem = Mem {
            base: Some(R11),
            index: Some((R10, scale)),
            ..Mem::default()
        };
        let bits = address_bits(instruction, self.mode);
        self.hot.lea(self.mode.long(), R11, mem);
        if bits == 16 {
            // movzx r11d, r11w
            self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xdb]);
        }
        let write = instruction.mnemonic() != Mnemonic::Bt;
        let size = if wide { 8 } else { 4 };
        let segment = segment_index(instruction.memory_segment());
        self.add_segment(segment, size, bits, None);
        self.check(size, write, None);
        self.held = [Held::Nothing; 2];
        match map(n) {
            Gpr::Host(host) => self.hot.mov(R10, host),
            Gpr::Memory(n) => self.hot.load(R10, Mem::gs(context::gpr(n))),
        }
        // and r10d, width - 1
        self.hot
            .bytes(&[0x41, 0x83, 0xe2, if wide { 63 } else { 31 }]);
        let needed = decoded.live_after & !decoded.kills;
        if needed != 0 {
            self.hot.store(Mem::gs(at!(scratch)), R10);
            self.need_flags(needed);
            self.hot.load(R10, Mem::gs(at!(scratch)));
        }
        let fields = Fields {
            reg: Some(R10),
            rm: Rm::Mem(R11, 0),
            ..self.fields(decoded)
        };
        let _ = rewrite(self.hot, decoded.bytes(), self.mode.bits(), true, fields);
        self.flags_written(decoded);
    }

    /// MOV between the accumulator and an absolute address.
    fn absolute_move(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let store = instruction.op0_kind() == OpKind::Memory;
        let size = instruction.memory_size().size() as u32;
        let (base, disp) = self.operand(decoded, size, store, false);
        let opcode = if store { op::STORE } else { op::LOAD };
        sized(
            self.hot,
            size,
            if size == 1 { opcode - 1 } else { opcode },
            RAX,
            Mem::at(base, disp),
        );
    }
}

/// As [`indirect_check`], then a branch to `entry`; keeps EFLAGS, which the block that the branch
/// really goes to may need where this one does not.
fn flagless_check(asm: &mut Asm, miss: *const u8, linear: u64, entry: *const u8) {
    // RCX is the one register that can be tested without flags.
    asm.mov(R11, RCX);
    asm.mov_imm(RCX, linear.wrapping_neg());
    asm.lea(
        true,
        RCX,
        Mem {
            gs: false,
            base: Some(RCX),
            index: Some((R10, 0)),
            disp: 0,
        },
    );
    let equal = asm.short(0xe3);
    asm.mov(RCX, R11);
    asm.jmp(miss);
    asm.bind_short(equal);
    asm.mov(RCX, R11);
    asm.jmp(entry);
}

/// Emits the check that R10 is the block's linear address; otherwise the branch is unknown.
fn indirect_check(asm: &mut Asm, miss: *const u8, linear: u64) {
    if let Ok(immediate) = i32::try_from(linear as i64) {
        asm.cmp_imm(R10, immediate);
    } else {
        asm.mov_imm(R11, linear);
        asm.op_reg(true, op::CMP, R10, R11);
    }
    asm.jcc(cc::NE, miss);
}

/// Emits the entries of a block for indirect branches apart from the block: with flags in EFLAGS,
/// and with flags in the context.
pub fn late_indirect_entries(
    asm: &mut Asm,
    stubs: &Stubs,
    linear: u64,
    flags_live: bool,
    entry: *const u8,
) -> [*const u8; 2] {
    let first = asm.here();
    flagless_check(asm, stubs.target_miss, linear, entry);
    let second = asm.here();
    indirect_check(asm, stubs.target_miss_memory_flags, linear);
    if flags_live {
        asm.restore_flags(at!(flags));
    }
    asm.jmp(entry);
    [first, second]
}
