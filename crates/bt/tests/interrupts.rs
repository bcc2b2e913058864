//! Interrupts are delivered between instructions, with the flags and registers of that point.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Machine, Translated};
use ringfence_engine::{Exit, Vcpu};
use ringfence_testkit::guest::Ring;
use ringfence_testkit::layout::{CODE, DATA};
use ringfence_testkit::{Outcome, State};
use ringfence_x86::exception;

const VECTOR: u8 = 0x40;
const IF: u64 = 0x200;

fn state() -> State {
    let mut state = State::new();
    state.rip = CODE;
    state.rflags = 2 | IF;
    state.gpr[4] = DATA + 0x1800;
    state
}

/// Runs a program to its end, with interrupts on the way or without; how many there were, the
/// outcome and the data.
fn run(code: &[u8], state: &State, ring: Ring, interrupts: bool) -> (u32, Outcome, Vec<u8>) {
    let mut machine = Translated::new(64);
    machine.write_code(CODE, code);
    machine.write_data(&vec![0; ringfence_testkit::layout::IMAGE_SIZE]);
    let done = Arc::new(AtomicBool::new(false));
    let raiser = interrupts.then(|| {
        let (done, mock) = (Arc::clone(&done), Arc::clone(machine.mock()));
        thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_micros(150));
                mock.raise(VECTOR);
            }
        })
    });
    let (mut count, mut state) = (0, *state);
    let outcome = loop {
        let outcome = machine.run(&state, ring).expect("no internal error");
        if outcome.vector != VECTOR {
            break outcome;
        }
        count += 1;
        // As an interrupt handler that returns.
        state = outcome.state;
        state.rflags |= IF;
    };
    done.store(true, Ordering::SeqCst);
    if let Some(raiser) = raiser {
        raiser.join().expect("the raiser ends");
    }
    (count, outcome, machine.read_data())
}

/// Interrupts that a program must have met.
const ENOUGH: u32 = 3;

/// Runs a program with and without interrupts; the results must be equal. Register `counter`
/// holds its rounds, which are doubled until it runs long enough to be interrupted.
fn undisturbed(name: &str, code: &[u8], mut state: State, counter: usize) {
    for ring in [Ring::User, Ring::Kernel] {
        let count = loop {
            let (_, expected, data) = run(code, &state, ring, false);
            assert_eq!(expected.vector, exception::BP, "{name}");
            let (count, found, found_data) = run(code, &state, ring, true);
            assert_eq!(
                expected.state.gpr, found.state.gpr,
                "{name} after {count} interrupts"
            );
            let flags = 0xcd5;
            assert_eq!(
                expected.state.rflags & flags,
                found.state.rflags & flags,
                "{name}"
            );
            assert_eq!(expected.state.rip, found.state.rip, "{name}");
            assert_eq!(
                expected.state.normal_xsave(),
                found.state.normal_xsave(),
                "{name}"
            );
            assert!(data == found_data, "{name}: memory differs");
            if count >= ENOUGH || state.gpr[counter] > 1 << 30 {
                break count;
            }
            state.gpr[counter] *= 2;
        };
        assert!(count >= ENOUGH, "{name}: only {count} interrupts");
    }
}

/// Registers of the integer programs.
fn numbers(rounds: u64) -> State {
    let mut state = state();
    state.gpr[1] = rounds;
    state.gpr[3] = 0x9e37_79b9_7f4a_7c15;
    state.gpr[9] = 0x1234_5678_9abc_def1;
    state
}

#[test]
fn a_loop_with_a_carry_survives_interrupts() {
    // ADC RAX, RBX; ADC [DATA], RAX; LEA RCX, [RCX-1]; JRCXZ end; JMP back; end: INT3
    let mut code = vec![0x48, 0x11, 0xd8, 0x48, 0x11, 0x04, 0x25];
    code.extend((DATA as u32).to_le_bytes());
    code.extend([0x48, 0x8d, 0x49, 0xff, 0xe3, 0x02, 0xeb, 0xed, 0xcc]);
    undisturbed("a loop with a carry", &code, numbers(2_000_000), 1);
}

#[test]
fn calls_with_flags_survive_interrupts() {
    // top: ADC RAX, RBX; CALL f; LEA RCX, [RCX-1]; JRCXZ end; JMP top; end: INT3
    // f: SBB R9, RAX; RET
    let code = [
        0x48, 0x11, 0xd8, 0xe8, 0x09, 0, 0, 0, 0x48, 0x8d, 0x49, 0xff, 0xe3, 0x02, 0xeb, 0xf0,
        0xcc, 0x49, 0x19, 0xc1, 0xc3,
    ];
    undisturbed("calls with flags", &code, numbers(2_000_000), 1);
}

#[test]
fn vector_state_survives_interrupts() {
    // top: ADDPD XMM0, XMM1; FADD ST, ST(1); VPADDQ YMM2, YMM2, YMM3; MOVQ [DATA], XMM0;
    // DEC RCX; JNZ top; INT3
    let mut code = vec![0x66, 0x0f, 0x58, 0xc1, 0xd8, 0xc1, 0xc5, 0xed, 0xd4, 0xd3];
    code.extend([0x66, 0x0f, 0xd6, 0x04, 0x25]);
    code.extend((DATA as u32).to_le_bytes());
    code.extend([0x48, 0xff, 0xc9, 0x75, 0xe8, 0xcc]);
    let mut state = state();
    for (i, byte) in state.xsave[160..].iter_mut().enumerate() {
        *byte = i as u8 & 0x3f;
    }
    state.xsave[416..576].fill(0);
    state.xsave[512] = 7;
    state.xsave[4] = 3;
    for register in 0..2 {
        let at = 32 + register * 16;
        // 1.5 and 1.0
        let mantissa: u64 = if register == 0 { 3 << 62 } else { 1 << 63 };
        state.xsave[at..at + 8].copy_from_slice(&mantissa.to_le_bytes());
        state.xsave[at + 8..at + 10].copy_from_slice(&0x3fffu16.to_le_bytes());
    }
    state.gpr[1] = 1_000_000;
    let (_, outcome, _) = run(&code, &state, Ring::User, false);
    assert_ne!(outcome.state.normal_xsave(), state.normal_xsave());
    undisturbed("vector state", &code, state, 1);
}

#[test]
fn a_repeated_string_instruction_is_interrupted_between_elements() {
    // top: MOV RDI, DATA; MOV RSI, DATA + 1; MOV ECX, 8000; REP MOVSB; DEC RDX; JNZ top; INT3
    let mut code = vec![0xbf];
    code.extend((DATA as u32).to_le_bytes());
    code.push(0xbe);
    code.extend((DATA as u32 + 1).to_le_bytes());
    code.extend([
        0xb9, 0x40, 0x1f, 0, 0, 0xf3, 0xa4, 0x48, 0xff, 0xca, 0x75, 0xea, 0xcc,
    ]);
    let mut state = state();
    state.gpr[2] = 20_000;
    undisturbed("REP MOVSB", &code, state, 2);
}

/// Runs `code` at CPL 0 with an interrupt that waits; returns offset of RIP and RAX when it came.
fn first_interrupt(code: &[u8], rflags: u64) -> (u64, u64) {
    let mut machine = Translated::new(64);
    machine.write_code(CODE, code);
    let mut state = state();
    state.rflags = 2 | rflags;
    machine.begin(&state, Ring::Kernel);
    machine.mock().raise(VECTOR);
    let exit = machine.vcpu.run(0).expect("no internal error");
    assert_eq!(exit, Exit::Interrupted);
    let vector = machine.mock().take().expect("something ends the program");
    let outcome = machine.outcome(vector);
    machine.mock().lower();
    assert_eq!(vector, VECTOR, "ended at {:#x} instead", outcome.state.rip);
    (outcome.state.rip - CODE, outcome.state.gpr[0])
}

#[test]
fn sti_holds_interrupts_back_for_one_instruction() {
    const INC: [u8; 2] = [0xff, 0xc0];
    // XOR EAX, EAX; STI; INC EAX; INC EAX; INT3
    let code = [&[0x31, 0xc0, 0xfb][..], &INC, &INC, &[0xcc]].concat();
    assert_eq!(first_interrupt(&code, 0), (5, 1));
    // A second STI does not hold back again.
    let code = [&[0x31, 0xc0, 0xfb, 0xfb][..], &INC, &INC, &[0xcc]].concat();
    assert_eq!(first_interrupt(&code, 0), (4, 0));
    // STI; CLI lets none through; STI; HLT wakes behind HLT.
    let code = [&[0x31, 0xc0, 0xfb, 0xfa][..], &INC, &[0xfb], &INC, &[0xcc]].concat();
    assert_eq!(first_interrupt(&code, 0), (9, 2));
    let code = [&[0x31, 0xc0, 0xfb, 0xf4][..], &INC, &[0xcc]].concat();
    assert_eq!(first_interrupt(&code, 0), (4, 0));
}

#[test]
fn popf_lets_interrupts_through_at_once() {
    // XOR EAX, EAX; PUSH 202h; POPFQ; INC EAX; INT3
    let code = [0x31, 0xc0, 0x68, 0x02, 0x02, 0, 0, 0x9d, 0xff, 0xc0, 0xcc];
    assert_eq!(first_interrupt(&code, 0), (8, 0));
}

#[test]
fn an_interrupt_that_waits_comes_before_the_first_instruction() {
    let code = [0xff, 0xc0, 0xcc];
    assert_eq!(first_interrupt(&code, IF).0, 0);
}

#[test]
fn cleared_if_keeps_interrupts_out() {
    let mut machine = Translated::new(64);
    // ADD EAX, 1; DEC ECX; JNZ back; INT3
    machine.write_code(CODE, &[0x83, 0xc0, 1, 0xff, 0xc9, 0x75, 0xf9, 0xcc]);
    let mut state = state();
    state.rflags = 2;
    state.gpr[0] = 0;
    state.gpr[1] = 100_000;
    machine.mock().raise(VECTOR);
    let outcome = machine.run(&state, Ring::Kernel).expect("a result");
    assert_eq!(
        (outcome.vector, outcome.state.gpr[0]),
        (exception::BP, 100_000)
    );
}
