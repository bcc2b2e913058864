//! The state of a processor in the form that engines exchange.

use ringfence_engine::{Activity, DebugRegisters, Events, ProcessorState, STATE_MSRS};
use ringfence_x86::{cr, msr};

use crate::cpu::Cpu;
use crate::interp::system::stored_msr;

/// The part of the state that neither register sets nor devices hold.
pub fn of(cpu: &mut Cpu) -> ProcessorState {
    let mut msrs = Vec::with_capacity(STATE_MSRS.len());
    for index in STATE_MSRS {
        if let Some(value) = stored_msr(cpu, index) {
            msrs.push((index, *value));
        }
    }
    let [a, b, c, d, _, _, dr6, dr7] = cpu.dr;
    ProcessorState {
        xcr0: cpu.xcr0,
        debug: DebugRegisters {
            addresses: [a, b, c, d],
            dr6,
            dr7,
        },
        msrs,
        events: Events {
            interrupt_shadow: cpu.interrupt_shadow,
            nmi_blocked: cpu.nmi_blocked,
            ..Events::default()
        },
        activity: if cpu.halted {
            Activity::Halted
        } else {
            Activity::Running
        },
        ..ProcessorState::default()
    }
}

/// Takes over what [`of`] gives. Registers that this processor lacks are left out.
pub fn set(cpu: &mut Cpu, state: &ProcessorState) {
    cpu.xcr0 = state.xcr0 | cr::XCR0_X87;
    let debug = &state.debug;
    cpu.dr[..4].copy_from_slice(&debug.addresses);
    (cpu.dr[6], cpu.dr[7]) = (debug.dr6, debug.dr7);
    for &(index, value) in &state.msrs {
        if let Some(place) = stored_msr(cpu, index) {
            *place = value;
        }
    }
    // An entry point that is not canonical could not have been written.
    for index in [msr::IA32_LSTAR, msr::IA32_CSTAR, msr::IA32_KERNEL_GS_BASE] {
        if let Some(place) = stored_msr(cpu, index) {
            *place = ((*place as i64) << 16 >> 16) as u64;
        }
    }
    cpu.interrupt_shadow = state.events.interrupt_shadow;
    cpu.nmi_blocked = state.events.nmi_blocked;
    cpu.halted = state.activity == Activity::Halted;
}
