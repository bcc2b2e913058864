//! Branches, calls and returns.

use super::classify::Kind;
use super::lower::{Gpr, Lower, exit, map};
use super::translate::{ALL_FLAGS, Decoded};
use crate::cache::BranchExit;
use crate::context::{self, at};
use crate::emit::asm::reg::{R10, R11, RCX};
use crate::emit::asm::{Mem, cc, op};
use crate::emit::rewrite::sized;
use iced_x86::OpKind;

/// JRCXZ rel8, the one branch that tests without flags.
const JRCXZ: u8 = 0xe3;

impl Lower<'_> {
    /// Emits an instruction that ends the block.
    pub(super) fn control(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let live = decoded.live_after;
        let next = instruction.next_ip();
        let ip = instruction.ip();
        match decoded.kind {
            Kind::Jump => self.branch(instruction.near_branch_target(), ip, live),
            Kind::JumpIf => self.jump_if(decoded),
            Kind::JumpIfZero => self.jump_if_zero(decoded),
            Kind::Loop => {
                let wide = instruction.code() == iced_x86::Code::Loop_rel8_64_RCX;
                self.hot.lea(wide, RCX, Mem::at(RCX, -1));
                self.need_flags(live);
                self.count_zero(wide, next, instruction.near_branch_target(), ip, live);
            }
            Kind::Call => {
                let target = instruction.near_branch_target();
                self.clobber_flags(live);
                self.push_return(next);
                self.branch(target, ip, live);
            }
            Kind::CallIndirect => {
                self.indirect_target(decoded);
                self.clobber_flags(live);
                self.push_return(next);
                self.hot.load(R10, Mem::gs(at!(scratch)));
                self.indirect();
            }
            Kind::JumpIndirect => {
                self.indirect_target(decoded);
                self.clobber_flags(live);
                self.hot.load(R10, Mem::gs(at!(scratch)));
                self.indirect();
            }
            Kind::Return => {
                let slot = self.slot();
                self.clobber_flags(live);
                self.hot.lea(slot == 8, R11, Mem::at(crate::emit::asm::reg::R9, 0));
                self.stack_check(slot as u32, false);
                sized(self.hot, slot as u32, op::LOAD, R10, Mem::at(R11, 0));
                let extra = if instruction.op_count() == 1 { instruction.immediate16() } else { 0 };
                self.move_stack(slot + i32::from(extra));
                self.indirect();
            }
            _ => self.system(decoded),
        }
    }

    /// The block ends without a branch.
    pub fn fall_through(&mut self, next: u64, live: u8) {
        self.branch(next, next.wrapping_sub(1), live);
    }

    /// Pushes the return address; flags are lost already.
    fn push_return(&mut self, next: u64) {
        let slot = self.slot();
        self.push_slot();
        if slot == 4 || i32::try_from(next as i64).is_ok() {
            self.hot.op_mem(slot == 8, &[0xc7], 0, Mem::at(R11, 0));
            self.hot.dword(next as u32);
        } else {
            self.hot.mov_imm(R10, next);
            self.hot.store(Mem::at(R11, 0), R10);
        }
        self.move_stack(-slot);
    }

    /// Puts the target of an indirect branch into scratch memory.
    fn indirect_target(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let slot = self.slot() as u32;
        let from = if instruction.op0_kind() == OpKind::Memory {
            self.clobber_flags(decoded.live_before());
            let (base, disp) = self.operand(instruction, slot, false);
            sized(self.hot, slot, op::LOAD, R10, Mem::at(base, disp));
            R10
        } else {
            match map(instruction.op0_register().number() as u8) {
                Gpr::Host(host) => host,
                Gpr::Memory(n) => {
                    self.hot.load(R10, Mem::gs(context::gpr(n)));
                    R10
                }
            }
        };
        if slot == 4 {
            self.hot.op_reg(false, op::LOAD, R10, from);
            self.hot.store(Mem::gs(at!(scratch)), R10);
        } else {
            self.hot.store(Mem::gs(at!(scratch)), from);
        }
    }

    /// Jumps to the linear address in R10 through the branch-target table. The flags are in the
    /// context.
    fn indirect(&mut self) {
        self.hot.cmp_mem_zero(Mem::gs(at!(kick)));
        self.hot.jcc(cc::NE, self.cold.here());
        self.cold.store(Mem::gs(at!(cpu.rip)), R10);
        self.leave_kicked(true);
        // movzx r11d, r10w
        self.hot.bytes(&[0x45, 0x0f, 0xb7, 0xda]);
        let table = context::targets(self.mode.class());
        let entry = Mem { gs: true, base: None, index: Some((R11, 3)), disp: table };
        self.hot.jmp_mem(entry);
    }

    /// In the cold part: leaves because of the kick flag, RIP stored.
    fn leave_kicked(&mut self, flags_in_memory: bool) {
        self.cold.store_imm32(Mem::gs(at!(exit)), self.id << 4 | exit::KICKED);
        let stub = if flags_in_memory { self.stubs.exit_memory_flags } else { self.stubs.exit };
        self.cold.jmp(stub);
    }

    /// Branches to `target`, polling the kick flag if it is not ahead of `from`.
    fn branch(&mut self, target: u64, from: u64, live: u8) {
        self.need_flags(live);
        if target <= from {
            self.poll(target, live);
        }
        let site = self.hot.jmp(std::ptr::null());
        self.add_exit(site, target);
    }

    /// Registers the branch at `site` as an exit to `target`.
    fn add_exit(&mut self, site: *mut u8, target: u64) {
        let stub = self.cold.here();
        let number = self.code.exits.len() as u32;
        self.cold.store_imm32(Mem::gs(at!(exit)), self.id << 4 | exit::BRANCH + number);
        self.cold.jmp(self.stubs.exit);
        // SAFETY: the site is the branch just emitted.
        unsafe { crate::emit::asm::patch(site, stub) };
        self.code.exits.push(BranchExit { site, stub, target, linked: None });
    }

    /// Leaves to `target` if another thread asked for it.
    fn poll(&mut self, target: u64, live: u8) {
        if live == 0 {
            self.hot.cmp_mem_zero(Mem::gs(at!(kick)));
            self.hot.jcc(cc::NE, self.cold.here());
        } else {
            // RCX is the one register that can be tested without flags.
            self.hot.mov(R11, RCX);
            self.hot.op_mem(false, &[op::LOAD], RCX, Mem::gs(at!(kick)));
            let clear = self.hot.short(JRCXZ);
            self.hot.mov(RCX, R11);
            self.hot.jmp(self.cold.here());
            self.hot.bind_short(clear);
            self.hot.mov(RCX, R11);
        }
        self.cold.mov_imm(R11, target);
        self.cold.store(Mem::gs(at!(cpu.rip)), R11);
        self.leave_kicked(false);
    }

    fn jump_if(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let condition = instruction.condition_code() as u8 - 1;
        let (target, next) = (instruction.near_branch_target(), instruction.next_ip());
        let live = decoded.live_after;
        self.need_flags(ALL_FLAGS);
        if target <= instruction.ip() {
            let over = self.hot.jcc(condition ^ 1, std::ptr::null());
            let (register, memory) = (self.in_register, self.in_memory);
            self.poll(target, live);
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, target);
            (self.in_register, self.in_memory) = (register, memory);
            self.add_exit(over, next);
        } else {
            let taken = self.hot.jcc(condition, std::ptr::null());
            self.add_exit(taken, target);
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, next);
        }
    }

    fn jump_if_zero(&mut self, decoded: &Decoded) {
        let instruction = &decoded.instruction;
        let wide = instruction.code() == iced_x86::Code::Jrcxz_rel8_64;
        let (target, next) = (instruction.near_branch_target(), instruction.next_ip());
        self.need_flags(decoded.live_after);
        self.count_zero(wide, target, next, instruction.ip(), decoded.live_after);
    }

    /// Branches to `zero` if RCX (ECX) is zero, else to `other`.
    fn count_zero(&mut self, wide: bool, zero: u64, other: u64, ip: u64, live: u8) {
        if !wide {
            self.hot.byte(0x67);
        }
        let at_zero = self.hot.short(JRCXZ);
        for (target, last) in [(other, false), (zero, true)] {
            if target <= ip {
                self.poll(target, live);
            }
            let site = self.hot.jmp(std::ptr::null());
            self.add_exit(site, target);
            if !last {
                self.hot.bind_short(at_zero);
            }
        }
    }
}
