//! Branches, calls and returns.

use super::classify::Kind;
use super::exit;
use super::lower::{Gpr, Held, Lower, map};
use super::translate::{ALL_FLAGS, Decoded};
use crate::cache::BranchExit;
use crate::context::{self, at};
use crate::emit::asm::reg::{R9, R10, R11, RCX};
use crate::emit::asm::{Mem, cc, op, patch};
use crate::emit::rewrite::sized;
use iced_x86::OpKind;

/// JRCXZ rel8, the one branch that tests without flags.
const JRCXZ: u8 = 0xe3;

impl Lower<'_> {
    /// Emits an instruction that ends the block.
    pub(super) fn control(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let (live, live_before) = (decoded.live_after, decoded.live_before());
        let next = decoded.next_ip;
        let ip = instruction.ip();
        match decoded.kind {
            Kind::Jump => self.branch(instruction.near_branch_target(), ip, live),
            Kind::JumpIfZero => self.jump_if_zero(decoded),
            Kind::Loop => {
                let bits = count_bits(instruction.code());
                if bits == 16 {
                    self.hot.byte(0x66);
                }
                self.hot.lea(bits == 64, RCX, Mem::at(RCX, -1));
                self.need_flags(live);
                self.count_zero(bits, next, instruction.near_branch_target(), ip, live);
            }
            Kind::Call => {
                self.push_return(decoded, next);
                self.branch(instruction.near_branch_target(), ip, live);
            }
            Kind::CallIndirect => self.call_indirect(decoded, next),
            Kind::JumpIndirect => {
                self.indirect_target(decoded);
                self.check_target(decoded);
                self.indirect(live);
            }
            Kind::Return => {
                let slot = i32::from(decoded.slot);
                let (base, disp) = self.stack_operand(decoded, false);
                if !self.covers(decoded) {
                    self.clobber_flags(live_before);
                }
                self.load_target(slot, Mem::at(base, disp));
                self.check_target(decoded);
                let extra = if instruction.op_count() == 1 {
                    instruction.immediate16()
                } else {
                    0
                };
                self.move_stack(slot + i32::from(extra));
                self.indirect(live);
            }
            _ => self.system(decoded),
        }
    }

    /// The block ends without a branch.
    pub fn fall_through(&mut self, next: u64, live: u8) {
        if self.mode.counted() {
            self.keep_flags();
        }
        self.branch(next, next.wrapping_sub(1), live);
    }

    /// Pushes the return address. R10 is lost.
    fn push_return(&mut self, decoded: &Decoded, next: u64) {
        let slot = i32::from(decoded.slot);
        let (base, disp) = self.stack_operand(decoded, true);
        if slot < 8 || i32::try_from(next as i64).is_ok() {
            self.store_immediate(slot as u32, Mem::at(base, disp), next as u32);
        } else {
            self.hot.mov_imm(R10, next);
            self.hot.store(Mem::at(base, disp), R10);
        }
        self.move_stack(-slot);
    }

    fn call_indirect(&mut self, decoded: &Decoded, next: u64) {
        let instruction = &decoded.instruction;
        let register = instruction.op0_register();
        let in_host = instruction.op0_kind() == OpKind::Register
            && matches!(map(register.number() as u8), Gpr::Host(host) if host != R9);
        if in_host && self.covers(decoded) {
            self.push_return(decoded, next);
            self.indirect_target(decoded);
        } else {
            // Making room for the return address may take R10.
            self.indirect_target(decoded);
            self.check_target(decoded);
            self.hot.store(Mem::gs(at!(scratch)), R10);
            self.push_return(decoded, next);
            self.hot.load(R10, Mem::gs(at!(scratch)));
        }
        self.indirect(decoded.live_after);
    }

    /// Puts the target of an indirect branch into R10.
    fn indirect_target(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let slot = u32::from(decoded.slot);
        let memory = instruction.op0_kind() == OpKind::Memory;
        if !self.covers(decoded) {
            // Before the operand's address is in R10, which saving the flags takes.
            self.clobber_flags(decoded.live_before());
        }
        let place = memory.then(|| self.operand(decoded, slot, false, true));
        if let Some((base, disp)) = place {
            self.load_target(slot as i32, Mem::at(base, disp));
        } else {
            match map(instruction.op0_register().number() as u8) {
                Gpr::Host(host) if slot == 2 => {
                    // movzx r10d, host16
                    self.hot
                        .bytes(&[0x44 | host >> 3, 0x0f, 0xb7, 0xd0 | host & 7]);
                }
                Gpr::Host(host) => self.hot.op_reg(slot == 8, op::LOAD, R10, host),
                Gpr::Memory(n) if self.held[0] == Held::Guest(n) => {}
                Gpr::Memory(n) => self.hot.load(R10, Mem::gs(context::gpr(n))),
            }
        }
        self.held[0] = Held::Nothing;
    }

    /// The code segment has all targets that the instruction can name.
    fn covers(&self, decoded: &Decoded) -> bool {
        let last = if decoded.slot == 2 { 0xffff } else { u32::MAX };
        self.mode.long() || self.mode.limit() >= last
    }

    /// Leaves to the interpreter if the target in R10 is beyond the limit of the code segment.
    /// EFLAGS are lost then.
    fn check_target(&mut self, decoded: &Decoded) {
        if !self.covers(decoded) {
            self.hot.mov_imm(R11, u64::from(self.mode.limit()));
            self.held[1] = Held::Nothing;
            self.hot.op_reg(true, op::CMP, R10, R11);
            self.interpret_if(cc::A, decoded);
        }
    }

    /// R10 = the `size` bytes in memory.
    fn load_target(&mut self, size: i32, mem: Mem) {
        if size == 2 {
            self.hot.op_mem(false, &[0x0f, 0xb7], R10, mem);
        } else {
            sized(self.hot, size as u32, op::LOAD, R10, mem);
        }
    }

    /// Jumps to the instruction pointer in R10 through the branch-target table for flags in EFLAGS, or
    /// the one for flags in the context. No flags are changed: a kick shows as an address that
    /// no block has.
    fn indirect(&mut self, live: u8) {
        let in_memory = live != 0 && !self.in_register;
        self.jump_to_class(self.mode.class(), in_memory);
    }

    /// As [`Lower::indirect`], to code of privilege class `class`.
    pub(super) fn jump_to_class(&mut self, class: usize, in_memory: bool) {
        let in_memory = in_memory || self.mode.counted();
        self.account(self.index + 1);
        if self.tag != 0 {
            self.hot.mov_imm(R11, self.tag);
            let tagged = Mem {
                gs: false,
                base: Some(R10),
                index: Some((R11, 0)),
                disp: 0,
            };
            self.hot.lea(true, R10, tagged);
        }
        self.hot.load(R11, Mem::gs(at!(kick)));
        let kicked = Mem {
            gs: false,
            base: Some(R10),
            index: Some((R11, 0)),
            disp: 0,
        };
        self.hot.lea(true, R10, kicked);
        // movzx r11d, r10w
        self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xda]);
        let table = context::targets(class, in_memory);
        let entry = Mem {
            gs: true,
            base: None,
            index: Some((R11, 3)),
            disp: table,
        };
        self.hot.jmp_mem(entry);
    }

    /// In the cold part: leaves because of the kick flag, RIP stored.
    fn leave_kicked(&mut self) {
        self.cold
            .store_imm32(Mem::gs(at!(exit)), exit::code(self.id, exit::KICKED));
        self.cold.jmp(self.leave_stub());
    }

    /// Branches to `target`, polling the kick flag if it is not ahead of `from`.
    fn branch(&mut self, target: u64, from: u64, live: u8) {
        let live = self.carried(live);
        self.need_flags(live);
        self.account(self.index + 1);
        if target <= from {
            self.poll(target, live);
        }
        let site = self.hot.jmp(std::ptr::null());
        self.add_exit(site, target, false);
    }

    /// Branches to `target` with access to user pages, or without.
    pub(super) fn branch_with_access(&mut self, target: u64, access: bool, live: u8) {
        let live = self.carried(live);
        self.need_flags(live);
        self.account(self.index + 1);
        let site = self.hot.jmp(std::ptr::null());
        self.add_exit(site, target, false);
        if let Some(exit) = self.code.exits.last_mut() {
            exit.access = Some(access);
        }
    }

    /// Registers the branch at `site` as an exit to `target`.
    pub(super) fn add_exit(&mut self, site: *mut u8, target: u64, separate: bool) {
        let stub = self.cold.here();
        let number = self.code.exits.len() as u32;
        self.cold.store_imm32(
            Mem::gs(at!(exit)),
            exit::code(self.id, exit::BRANCH + number),
        );
        self.cold.jmp(self.leave_stub());
        // SAFETY: the site is the branch just emitted.
        unsafe { patch(site, stub) };
        self.code.exits.push(BranchExit {
            site,
            stub,
            target,
            separate,
            access: None,
            linked: None,
        });
    }

    /// Leaves to `target` if another thread asked for it.
    fn poll(&mut self, target: u64, live: u8) {
        if live == 0 {
            self.hot.cmp_mem_zero(Mem::gs(at!(kick) + 4));
            self.hot.jcc(cc::NE, self.cold.here());
        } else {
            // RCX is the one register that can be tested without flags.
            self.held[1] = Held::Nothing;
            self.hot.mov(R11, RCX);
            self.hot.load(RCX, Mem::gs(at!(kick)));
            let clear = self.hot.short(JRCXZ);
            self.hot.mov(RCX, R11);
            self.hot.jmp(self.cold.here());
            self.hot.bind_short(clear);
            self.hot.mov(RCX, R11);
        }
        self.cold.mov_imm(R11, target);
        self.cold.store(Mem::gs(at!(cpu.rip)), R11);
        self.leave_kicked();
    }

    /// The conditional branch leaves the block if it comes to pass: accounts for that.
    fn jump_out(&mut self, condition: u8, target: u64) {
        if !self.mode.counted() {
            let site = self.hot.jcc(condition, std::ptr::null());
            self.add_exit(site, target, false);
            return;
        }
        let over = self.hot.jcc(condition ^ 1, std::ptr::null());
        self.account(self.index + 1);
        let site = self.hot.jmp(std::ptr::null());
        self.add_exit(site, target, false);
        // SAFETY: the site is the branch emitted above.
        unsafe { patch(over, self.hot.here()) };
    }

    /// Jcc; behind it the block goes on unless it is the last instruction.
    pub(super) fn jump_if(&mut self, decoded: &Decoded, last: bool) {
        let instruction = &decoded.instruction;
        let condition = instruction.condition_code() as u8 - 1;
        let (target, next) = (instruction.near_branch_target(), decoded.next_ip);
        let live = self.carried(decoded.live_after);
        self.need_flags(ALL_FLAGS);
        if decoded.jumps {
            self.jump_out(condition ^ 1, next);
        } else if target <= instruction.ip() {
            let over = self.hot.jcc(condition ^ 1, std::ptr::null());
            self.account(self.index + 1);
            let held = self.held;
            self.poll(target, live);
            self.held = held;
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, target, false);
            if last && !self.mode.counted() {
                return self.add_exit(over, next, false);
            }
            // SAFETY: the site is the branch emitted above.
            unsafe { patch(over, self.hot.here()) };
        } else {
            self.jump_out(condition, target);
        }
        if last {
            self.account(self.index + 1);
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, next, false);
        }
    }

    fn jump_if_zero(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let bits = count_bits(instruction.code());
        let (target, next) = (instruction.near_branch_target(), decoded.next_ip);
        self.need_flags(decoded.live_after);
        self.count_zero(bits, target, next, instruction.ip(), decoded.live_after);
    }

    /// Branches to `zero` if CX, ECX or RCX is zero, else to `other`.
    fn count_zero(&mut self, bits: u32, zero: u64, other: u64, ip: u64, live: u8) {
        let live = self.carried(live);
        match bits {
            16 => {
                self.held[1] = Held::Nothing;
                self.hot.mov(R11, RCX);
                // movzx ecx, cx
                self.hot.bytes(&[0x0f, 0xb7, 0xc9]);
            }
            32 => self.hot.byte(0x67),
            _ => {}
        }
        let at_zero = self.hot.short(JRCXZ);
        for (target, last) in [(other, false), (zero, true)] {
            if bits == 16 {
                self.hot.mov(RCX, R11);
            }
            if target <= ip {
                self.poll(target, live);
            }
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, target, false);
            if !last {
                self.hot.bind_short(at_zero);
            }
        }
    }
}

/// Bits of the count of a LOOP or JCXZ.
fn count_bits(code: iced_x86::Code) -> u32 {
    use iced_x86::Code as C;
    match code {
        C::Loop_rel8_64_RCX | C::Jrcxz_rel8_64 => 64,
        C::Loop_rel8_16_CX | C::Loop_rel8_32_CX | C::Jcxz_rel8_16 | C::Jcxz_rel8_32 => 16,
        _ => 32,
    }
}
