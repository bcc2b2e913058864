//! Executes one guest instruction at a time, for 16-, 32- and 64-bit code.
//!
//! Integer and control-flow instructions are written out here, one family per file; privileged
//! ones are in [`system`]; x87, MMX, SSE and AVX instructions run on the host's processor
//! ([`native`]). Every handler sees RIP on its own instruction, does all loads and permission
//! checks before it changes a register, and leaves RIP on the next instruction when it succeeds.

pub mod address;
mod alu;
pub mod arithmetic;
mod bits;
mod branch;
pub mod breakpoints;
mod dispatch;
mod multiply;
pub mod native;
mod operand;
pub mod register;
mod shift;
mod stack;
mod string;
pub mod system;
#[cfg(test)]
mod tests;
mod transfer;
pub mod undefined;

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic};
use ringfence_engine::Exit;
use ringfence_x86::{exception, flags};

pub use dispatch::execute;

use crate::cpu::{CS, Cpu};
use crate::env::{Env, Exception, Trap};

/// DR6.BS: the debug exception comes from single stepping.
const DR6_BS: u64 = 1 << 14;
/// Longest instruction in bytes.
const MAX_LENGTH: usize = 15;

/// How one step of a processor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The instruction retired, or an exception was delivered; a repeated string instruction may
    /// have paused with RIP still on it.
    Retired,
    /// As [`Step::Retired`], and the processor waits for an interrupt.
    Halted,
    /// The machine must answer; then the same step is made again, from its start.
    Exit(Exit),
    /// Triple fault.
    Shutdown,
}

/// RIP after `instruction`, which is the one at RIP.
#[inline]
pub fn next_rip(cpu: &Cpu, instruction: &Instruction) -> u64 {
    let next = cpu.rip.wrapping_add(instruction.len() as u64);
    if cpu.mode64() {
        next
    } else if cpu.seg[CS].attributes.big() || cpu.rip > 0xffff {
        next & 0xffff_ffff
    } else {
        next & 0xffff
    }
}

/// Moves RIP to the next instruction.
#[inline]
fn retire(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

/// Fetches, decodes and executes the instruction at CS:RIP, and delivers the exception that it
/// raises.
pub fn step<E: Env>(cpu: &mut Cpu, env: &mut E) -> Step {
    let before = Before::of(cpu);
    if let Err(trap) = breakpoints::before_instruction(cpu) {
        return before.resolve(cpu, env, trap);
    }
    match fetch(cpu, env) {
        Ok(instruction) => finish(cpu, env, before, &instruction),
        Err(trap) => before.resolve(cpu, env, trap),
    }
}

/// As [`step`] for an instruction that was decoded before; it must be the one at CS:RIP.
pub fn step_decoded<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Step {
    if instruction.is_invalid() {
        // Fetched again: too long is another fault than undefined.
        return step(cpu, env);
    }
    let before = Before::of(cpu);
    finish(cpu, env, before, instruction)
}

/// State that an exit to the machine must find again.
#[derive(Clone, Copy)]
struct Before {
    rip: u64,
    rflags: u64,
    shadow: bool,
    hits: u8,
}

impl Before {
    fn of(cpu: &Cpu) -> Self {
        Self {
            rip: cpu.rip,
            rflags: cpu.rflags,
            shadow: cpu.interrupt_shadow,
            hits: cpu.breakpoints_hit,
        }
    }

    /// Turns a trap into a step: delivers an exception, or leaves.
    #[cold]
    fn resolve<E: Env>(self, cpu: &mut Cpu, env: &mut E, trap: Trap) -> Step {
        match trap {
            Trap::Exit(exit) => {
                cpu.interrupt_shadow = self.shadow;
                cpu.breakpoints_hit = self.hits;
                Step::Exit(exit)
            }
            Trap::Exception(exception) => {
                cpu.breakpoints_hit = 0;
                let step = deliver(cpu, env, exception);
                cpu.interrupt_shadow = matches!(step, Step::Exit(_)) && self.shadow;
                step
            }
        }
    }
}

fn deliver<E: Env>(cpu: &mut Cpu, env: &mut E, exception: Exception) -> Step {
    match system::deliver_exception(cpu, env, exception) {
        system::Delivery::Done => Step::Retired,
        system::Delivery::Exit(exit) => Step::Exit(exit),
        system::Delivery::Shutdown => Step::Shutdown,
    }
}

fn finish<E: Env>(cpu: &mut Cpu, env: &mut E, before: Before, instruction: &Instruction) -> Step {
    cpu.interrupt_shadow = false;
    if let Err(trap) = execute(cpu, env, instruction) {
        return before.resolve(cpu, env, trap);
    }
    if before.rflags & (flags::RF | flags::TF) != 0 || cpu.breakpoints_hit != 0 {
        return after_debug_flags(cpu, env, before, instruction);
    }
    if cpu.halted {
        Step::Halted
    } else {
        Step::Retired
    }
}

/// What RF and TF, set before the instruction, and breakpoints do after it (SDM vol. 3B, 17.3.1).
#[cold]
fn after_debug_flags<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    before: Before,
    instruction: &Instruction,
) -> Step {
    use Mnemonic::*;
    let mnemonic = instruction.mnemonic();
    // IRET loads RF itself; a repeated instruction that paused is not complete.
    let paused = before.rip == cpu.rip && instruction.is_string_instruction();
    if !matches!(mnemonic, Iret | Iretd | Iretq) && !paused {
        cpu.rflags &= !flags::RF;
    }
    let entered = matches!(mnemonic, Int | Int1 | Int3 | Into | Syscall);
    let stepped = before.rflags & flags::TF != 0 && !entered;
    // A load of SS holds back what it causes until the next instruction.
    if (stepped || cpu.breakpoints_hit != 0) && !stack::loads_ss(instruction) {
        cpu.dr[6] |= u64::from(cpu.breakpoints_hit) | if stepped { DR6_BS } else { 0 };
        cpu.breakpoints_hit = 0;
        let debug = Exception {
            vector: exception::DB,
            error_code: None,
            address: None,
        };
        return deliver(cpu, env, debug);
    }
    if cpu.halted {
        Step::Halted
    } else {
        Step::Retired
    }
}

/// Fetches and decodes the instruction at CS:RIP.
///
/// # Errors
/// #PF for a page that can't be fetched, #GP(0) beyond the limit of CS or above 15 bytes, #UD for
/// an undefined encoding.
pub fn fetch<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<Instruction, Trap> {
    address::check_branch_target(cpu, cpu.rip)?;
    let mode64 = cpu.mode64();
    let linear = system::linear_rip(cpu);
    let mut bytes = [0; MAX_LENGTH];
    let mut length = env.fetch(cpu, linear, &mut bytes)?.min(MAX_LENGTH);
    loop {
        let mut decoder = Decoder::with_ip(
            cpu.bitness(),
            &bytes[..length],
            cpu.rip,
            DecoderOptions::NONE,
        );
        let instruction = decoder.decode();
        if instruction.code() != Code::INVALID {
            check_limit(cpu, instruction.len())?;
            return Ok(instruction);
        }
        if decoder.last_error() != DecoderError::NoMoreBytes {
            // Fifteen bytes that do not end are too long; prefixes alone can do that.
            let too_long = length == MAX_LENGTH && only_prefixes(&bytes[..14], mode64);
            return Err(if too_long { Trap::GP0 } else { Trap::UD });
        }
        if length >= MAX_LENGTH {
            return Err(Trap::GP0);
        }
        check_limit(cpu, length + 1)?;
        let mut next = linear.wrapping_add(length as u64);
        if !mode64 {
            next &= 0xffff_ffff;
        } else if !address::canonical(cpu, next) {
            return Err(Trap::GP0);
        }
        env.check_fetch(cpu, next)?;
        // The page can be fetched by now.
        let mut more = [0; MAX_LENGTH];
        let got = env.fetch(cpu, next, &mut more)?.min(MAX_LENGTH - length);
        if got == 0 {
            return Err(Trap::UD);
        }
        bytes[length..length + got].copy_from_slice(&more[..got]);
        length += got;
    }
}

/// #GP(0) when `length` bytes at RIP reach beyond the limit of CS.
fn check_limit(cpu: &Cpu, length: usize) -> Result<(), Trap> {
    let last = cpu.rip.wrapping_add(length.saturating_sub(1) as u64);
    if !cpu.mode64() && last > u64::from(cpu.seg[CS].limit) {
        Err(Trap::GP0)
    } else {
        Ok(())
    }
}

fn only_prefixes(bytes: &[u8], mode64: bool) -> bool {
    bytes.iter().all(|byte| {
        matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
        ) || mode64 && byte & 0xf0 == 0x40
    })
}
