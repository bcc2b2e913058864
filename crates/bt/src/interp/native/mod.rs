//! x87, MMX, SSE and AVX instructions: the host's processor runs the instruction itself.
//!
//! A small piece of code loads the guest's vector state and the registers that the instruction
//! names, runs it with its memory operand pointed to a buffer, and saves the state again. Faults
//! are found in software where that is possible; an unmasked SIMD exception arrives as a signal,
//! whose handler sends the thread to [`native_recovery`].

pub mod class;
mod external;
mod masked;
mod opmask;
mod signal;
pub mod state;
mod thunk;

use iced_x86::{Instruction, Mnemonic, OpKind};
use ringfence_x86::{cr, exception};

pub use signal::install_signal_handlers;
pub use thunk::native_recovery;

use self::class::{Kind, fpu_check};
use super::address::{effective_offset, operand_address};
use super::retire;
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};

/// Executes a floating-point or vector instruction; `None` when it is not one that the host has.
pub fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    if cpu.cr0 & cr::CR0_NE == 0 || cpu.fpu_error {
        return external::report(cpu, env, instruction, |cpu, env| {
            internal(cpu, env, instruction)
        });
    }
    internal(cpu, env, instruction)
}

/// As [`execute`], with x87 exceptions as #MF.
fn internal<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    if let Some(result) = state::execute(cpu, env, instruction) {
        return Some(result);
    }
    if let Some(result) = masked::execute(cpu, env, instruction) {
        return Some(result);
    }
    if let Some(result) = opmask::execute(cpu, env, instruction) {
        return Some(result);
    }
    let traits = class::traits(instruction)?;
    Some(run(cpu, env, instruction, traits))
}

fn run<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    traits: class::Traits,
) -> Result<(), Trap> {
    let has_memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    let mut kind = traits.kind();
    if has_memory
        && matches!(
            instruction.mnemonic(),
            Mnemonic::Cvtpi2ps | Mnemonic::Cvtpi2pd
        )
    {
        // No MMX register is used then.
        kind = Kind::Sse;
    }
    fpu_check(cpu, kind)?;
    let mut bounce = thunk::Bounce::filled(0);
    let size = instruction.memory_size().size().min(bounce.0.len());
    let mut linear = 0;
    let writes = has_memory && traits.writes();
    if has_memory {
        let must_align =
            traits.aligned() && (size == 16 || matches!(kind, Kind::Avx | Kind::Avx512));
        let misaligned = |address: u64| must_align && address & (size as u64).wrapping_sub(1) != 0;
        linear = match operand_address(cpu, instruction, size, writes) {
            Ok(linear) if misaligned(linear) => return Err(Trap::GP0),
            Ok(linear) => linear,
            // Alignment comes before the form of the address.
            Err(_) if misaligned(effective_offset(cpu, instruction)) => return Err(Trap::GP0),
            Err(trap) => return Err(trap),
        };
        if writes {
            env.check_store(cpu, linear, size, Privilege::Current)?;
        }
        if traits.reads() {
            env.load(cpu, linear, &mut bounce.0[..size], Privilege::Current)?;
        }
    }
    let x87 = matches!(kind, Kind::X87 | Kind::X87Control);
    // A store that needs the machine is executed again: its pop must not be seen yet.
    let before = (writes && x87).then(|| cpu.xsave.clone());
    let outcome = thunk::run(cpu, instruction, traits.flags(), &mut bounce)?;
    if outcome.faulted {
        return Err(fault(cpu, kind));
    }
    if x87 {
        let data = has_memory.then(|| effective_offset(cpu, instruction));
        state::fix_pointers(cpu, outcome.code, data);
    }
    let stored = !(writes && kind == Kind::X87) || x87_stored(cpu);
    if writes && stored {
        let result = env.store(cpu, linear, &bounce.0[..size], Privilege::Current);
        if result.is_err() {
            if let Some(before) = before {
                cpu.xsave = before;
            }
            return result;
        }
    }
    retire(cpu, instruction)
}

/// An unmasked invalid operation, overflow or underflow leaves the destination in memory alone.
fn x87_stored(cpu: &mut Cpu) -> bool {
    let (control, status) = state::x87_words(cpu);
    status & 0x80 == 0 || status & !control & 0b01_1001 == 0
}

/// The exception behind a signal.
#[cold]
fn fault(cpu: &Cpu, kind: Kind) -> Trap {
    let mxcsr = state::mxcsr(cpu);
    match kind {
        Kind::X87 | Kind::X87Control | Kind::Mmx => Trap::fault(exception::MF),
        _ if mxcsr & !(mxcsr >> 7) & 0x3f == 0 => Trap::GP0,
        _ if cpu.cr4 & cr::CR4_OSXMMEXCPT == 0 => Trap::UD,
        _ => Trap::fault(exception::XM),
    }
}

/// Runs an instruction on the host with an 8-byte memory operand; yields whether it faulted and
/// the operand afterwards.
#[cfg(test)]
pub(super) fn run_for_test(
    cpu: &mut Cpu,
    instruction: &Instruction,
    memory: u64,
) -> Result<(bool, u64), Trap> {
    let mut bounce = thunk::Bounce::filled(0);
    bounce.0[..8].copy_from_slice(&memory.to_le_bytes());
    let outcome = thunk::run(cpu, instruction, true, &mut bounce)?;
    let mut after = [0; 8];
    after.copy_from_slice(&bounce.0[..8]);
    Ok((outcome.faulted, u64::from_le_bytes(after)))
}
