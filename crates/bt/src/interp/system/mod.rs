//! Privileged semantics: segments, descriptor tables, interrupts, tasks, control and
//! model-specific registers, I/O ports and extended state.
//!
//! Every handler sees RIP on its own instruction, leaves it on the next one when it succeeds and
//! changes no register when it fails. Memory is reached through [`Env`] alone, so a handler may be
//! restarted from its start after an exit to a device.

pub mod cpuid;

use ringfence_engine::Exit;

use crate::cpu::Cpu;
use crate::env::{Env, Exception, Trap};

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
    let _ = (cpu, env, instruction);
    None
}

/// Delivers `exception`; a fault on the way becomes what SDM vol. 3A, table 6-5 makes of it.
pub fn deliver_exception<E: Env>(cpu: &mut Cpu, env: &mut E, exception: Exception) -> Delivery {
    let _ = (cpu, env, exception);
    Delivery::Shutdown
}

/// Delivers the external interrupt `vector`, which was acknowledged.
pub fn deliver_interrupt<E: Env>(cpu: &mut Cpu, env: &mut E, vector: u8) -> Delivery {
    let _ = (cpu, env, vector);
    Delivery::Shutdown
}

/// Delivers a non-maskable interrupt and blocks further ones until IRET.
pub fn deliver_nmi<E: Env>(cpu: &mut Cpu, env: &mut E) -> Delivery {
    let _ = (cpu, env);
    Delivery::Shutdown
}

/// Start-up IPI: real mode at `vector << 12`. INIT was done before.
pub fn startup(cpu: &mut Cpu, vector: u8) {
    let _ = (cpu, vector);
}

/// Loads CR0.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr0<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let _ = (cpu, env, value);
    Ok(())
}

/// Loads CR3.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr3<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let _ = (cpu, env, value);
    Ok(())
}

/// Loads CR4.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr4<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let _ = (cpu, env, value);
    Ok(())
}

/// Writes IA32_EFER.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_efer<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let _ = (cpu, env, value);
    Ok(())
}

/// Loads ES, SS, DS, FS or GS (its index in [`Cpu::seg`]) with all checks of the current mode.
///
/// # Errors
/// What `MOV Sreg` raises.
pub fn load_segment<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    index: usize,
    selector: u16,
) -> Result<(), Trap> {
    let _ = (cpu, env, index, selector);
    Ok(())
}

/// Loads a segment register as real mode and virtual-8086 mode do.
pub fn set_real_mode_segment(cpu: &mut Cpu, index: usize, selector: u16) {
    let _ = (cpu, index, selector);
}
