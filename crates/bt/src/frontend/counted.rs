//! Code that counts instructions, for deterministic machines.
//!
//! A block's entry looks whether the budget allows all of its instructions; each way out takes
//! those that were executed off the budget. What the number is, and where the block is left, so
//! never depends on how instructions were put into blocks. RFLAGS must be exact wherever the
//! block can be left: at such places all flags are in the context, which is also where they pass
//! from block to block.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::classify::Kind;
use super::exit;
use super::lower::Lower;
use super::translate::Decoded;
use crate::context::at;
use crate::emit::asm::reg::R11;
use crate::emit::asm::{Asm, Mem, cc};

/// Extensions of opcode 81h.
const SUB: u8 = 5;
const CMP: u8 = 7;

/// Whether the interpreter must execute the instruction: its result depends on time or chance, it
/// delays interrupts by an instruction, or it may pause in its middle.
pub fn interpreted(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    instruction.is_string_instruction()
        || matches!(
            instruction.mnemonic(),
            M::Rdtsc | M::Rdtscp | M::Sti | M::Rdrand | M::Rdseed
        )
}

/// Whether a block can be left at the instruction, for what reason ever.
pub fn observed(decoded: &Decoded) -> bool {
    let instruction = &decoded.instruction;
    let memory = || (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    match decoded.kind {
        Kind::Nop | Kind::Lea => false,
        Kind::Plain => decoded.info.faults || memory(),
        _ => true,
    }
}

/// `operation qword gs:[budget], value`.
fn budget(asm: &mut Asm, operation: u8, value: u32) {
    asm.op_mem(true, &[0x81], operation, Mem::gs(at!(budget)));
    asm.dword(value);
}

impl Lower<'_> {
    /// Emits the look at the budget for a block of `count` instructions that indirect branches
    /// find at `target`. EFLAGS are lost.
    pub(super) fn allow(&mut self, target: u64, count: usize) {
        self.in_register = false;
        self.in_memory = true;
        budget(self.hot, CMP, count as u32);
        self.hot.jcc(cc::L, self.cold.here());
        self.cold.mov_imm(R11, target ^ self.tag);
        self.cold.store(Mem::gs(at!(cpu.rip)), R11);
        self.cold
            .store_imm32(Mem::gs(at!(exit)), exit::code(self.id, exit::BUDGET));
        self.cold.jmp(self.stubs.exit_memory_flags);
    }

    /// Sees to it that the context has the flags. R10 is lost.
    pub(super) fn keep_flags(&mut self) {
        if !self.in_memory {
            self.save_flags();
        }
    }

    /// The block is left in hot code after `count` of its instructions. EFLAGS are lost.
    pub(super) fn account(&mut self, count: usize) {
        if self.mode.counted() && count != 0 {
            budget(self.hot, SUB, count as u32);
        }
    }

    /// The block is left in cold code after `count` of its instructions. EFLAGS are lost.
    pub(super) fn account_cold(&mut self, count: u16) {
        if self.mode.counted() && count != 0 {
            budget(self.cold, SUB, u32::from(count));
        }
    }

    /// In cold code: tells the runtime how many instructions were executed.
    pub(super) fn tell_executed(&mut self, count: u16) {
        if self.mode.counted() {
            self.cold
                .store_imm32(Mem::gs(at!(executed)), u32::from(count));
        }
    }

    /// The exit to the runtime from where the flags `live` are in EFLAGS.
    pub(super) fn leave_stub(&self) -> *const u8 {
        if self.mode.counted() {
            self.stubs.exit_memory_flags
        } else {
            self.stubs.exit
        }
    }

    /// The flags that a direct branch carries in EFLAGS.
    pub(super) fn carried(&self, live: u8) -> u8 {
        if self.mode.counted() { 0 } else { live }
    }
}
