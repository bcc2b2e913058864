//! Privileged semantics: segments, descriptor tables, interrupts, tasks, control and
//! model-specific registers, I/O ports and extended state.
//!
//! Every handler sees RIP on its own instruction, leaves it on the next one when it succeeds and
//! changes no register when it fails; repeated port instructions keep their completed elements,
//! and a task switch that fails late is in the new task. Memory is reached through [`Env`] alone,
//! so a handler may be restarted from its start after an exit to a device.

mod control;
pub mod cpuid;
mod descriptor;
mod far;
mod fast_call;
mod interrupt;
mod iret;
mod msr;
mod operand;
mod port;
mod processor;
mod segment;
mod smm;
mod stack;
mod tables;
mod task;
#[cfg(test)]
mod tests;
pub mod xsave;

use ringfence_engine::Exit;

use crate::cpu::{CS, Cpu};
use crate::env::{Env, Trap};

pub use control::{set_cr0, set_cr3, set_cr4, set_efer};
pub use interrupt::{deliver_exception, deliver_interrupt, deliver_nmi};
pub use msr::stored_msr;
pub use segment::{load_segment, set_real_mode_segment};
pub use smm::enter_smm;

/// How the delivery of an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// RIP is at the handler's first instruction.
    Done,
    /// The machine must answer first; the same event is then delivered again.
    Exit(Exit),
    /// Triple fault.
    Shutdown,
}

/// Executes `instruction` when it is a system instruction; `None` when it is not one.
pub fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &iced_x86::Instruction,
) -> Option<Result<(), Trap>> {
    processor::execute(cpu, env, instruction)
        .or_else(|| segment::execute(cpu, env, instruction))
        .or_else(|| fast_call::execute(cpu, env, instruction))
        .or_else(|| iret::execute(cpu, env, instruction))
        .or_else(|| control::execute(cpu, env, instruction))
        .or_else(|| port::execute(cpu, env, instruction))
        .or_else(|| xsave::execute(cpu, env, instruction))
        .or_else(|| far::execute(cpu, env, instruction))
        .or_else(|| tables::execute(cpu, env, instruction))
}

/// Start-up IPI: real mode at `vector << 12`. INIT was done before.
pub fn startup(cpu: &mut Cpu, vector: u8) {
    set_real_mode_segment(cpu, CS, u16::from(vector) << 8);
    cpu.rip = 0;
    cpu.halted = false;
}

/// Linear address of the instruction at CS:RIP.
pub fn linear_rip(cpu: &Cpu) -> u64 {
    if cpu.mode64() {
        cpu.rip
    } else {
        cpu.seg[CS].base.wrapping_add(cpu.rip) & 0xffff_ffff
    }
}

/// #GP(0) above privilege level 0.
fn supervisor_only(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.cpl == 0 { Ok(()) } else { Err(Trap::GP0) }
}
