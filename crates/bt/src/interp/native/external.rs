//! x87 exceptions reported the way of the first PCs, when CR0.NE is clear: FERR# raises an
//! interrupt at the board, and the processor stops until one comes, unless IGNNE# lets it go on
//! (SDM vol. 1, 8.7.2 and appendix D).

use iced_x86::{Instruction, Mnemonic};
use ringfence_x86::{cr, exception};

use super::state;
use crate::cpu::Cpu;
use crate::env::{Env, Exception, Trap};

/// Masks of the x87's exceptions in the control word.
const MASKS: u16 = 0x3f;

/// Puts the board's interrupt in the place of #MF, and follows FERR#. `run` executes the
/// instruction.
pub fn report<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    mut run: impl FnMut(&mut Cpu, &mut E) -> Option<Result<(), Trap>>,
) -> Option<Result<(), Trap>> {
    let mut result = run(cpu, env);
    let reported = matches!(
        result,
        Some(Err(Trap::Exception(Exception {
            vector: exception::MF,
            ..
        })))
    );
    if reported && cpu.cr0 & cr::CR0_NE == 0 {
        let vcpu = env.vcpu_id();
        env.devices().set_fpu_error(vcpu, true);
        cpu.fpu_error = true;
        if !env.devices().ignores_fpu_error(vcpu) {
            // RIP stays: the instruction is tried again when an interrupt has been handled.
            cpu.halted = true;
            return Some(Ok(()));
        }
        let (control, _) = state::x87_words(cpu);
        state::set_x87_control(cpu, control | MASKS);
        result = run(cpu, env);
        let (now, _) = state::x87_words(cpu);
        if !loads_control(instruction) || matches!(result, Some(Err(_))) {
            state::set_x87_control(cpu, now & !MASKS | control & MASKS);
        }
    }
    if cpu.fpu_error && !state::x87_pending(cpu) {
        cpu.fpu_error = false;
        env.devices().set_fpu_error(env.vcpu_id(), false);
    }
    result
}

fn loads_control(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Fldcw | Fldenv | Frstor | Fninit | Fnsave
    )
}
