//! Random bytes as code never end or stop the monitor; a processor can be stopped at any time.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Machine, Translated, number};
use ringfence_engine::{Exit, Kick, Vcpu};
use ringfence_testkit::generate::{Generator, disassemble};
use ringfence_testkit::guest::{self, Ring};
use ringfence_testkit::layout::{CODE, CODE_SIZE, DATA, TABLES};
use ringfence_testkit::{Random, State};

/// How often a random program is stopped from outside.
const STOP_AFTER: Duration = Duration::from_millis(10);
/// Time after which a program that was stopped must have ended.
const HANG: Duration = Duration::from_secs(10);

/// Stops a processor again and again; ends the process, with the code at fault, when one hangs.
struct Watchdog {
    current: Arc<Mutex<Current>>,
    done: Arc<AtomicBool>,
}

struct Current {
    since: Instant,
    kick: Arc<dyn Kick>,
    code: Vec<u8>,
    /// Stopped by the watchdog.
    stopped: bool,
}

impl Watchdog {
    fn new(kick: Arc<dyn Kick>) -> Self {
        let current = Current {
            since: Instant::now(),
            kick,
            code: Vec::new(),
            stopped: false,
        };
        let this = Self {
            current: Arc::new(Mutex::new(current)),
            done: Arc::new(AtomicBool::new(false)),
        };
        let (current, done) = (Arc::clone(&this.current), Arc::clone(&this.done));
        thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                thread::sleep(STOP_AFTER / 4);
                let mut current = current.lock().expect("no panic under the lock");
                if current.since.elapsed() > HANG {
                    eprintln!("hangs: {:02x?}", current.code);
                    std::process::abort();
                }
                if current.since.elapsed() > STOP_AFTER {
                    current.stopped = true;
                    current.kick.interrupt();
                }
            }
        });
        this
    }

    fn begin(&self, kick: Arc<dyn Kick>, code: &[u8]) {
        let mut current = self.current.lock().expect("no panic under the lock");
        *current = Current {
            since: Instant::now(),
            kick,
            code: code.to_vec(),
            stopped: false,
        };
    }

    fn stopped(&self) -> bool {
        self.current
            .lock()
            .expect("no panic under the lock")
            .stopped
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

/// Registers of which some lead into the data area, the stack, or the code.
fn registers(random: &mut Random, ring: Ring) -> State {
    let mut state = State::new();
    for register in &mut state.gpr {
        *register = match random.below(4) {
            0 => DATA + random.below(0x3000),
            1 => CODE + random.below(CODE_SIZE),
            _ => random.value(),
        };
        if ring == Ring::User32 {
            *register &= 0xffff_ffff;
        }
    }
    state.gpr[1] &= 0xff;
    state.gpr[4] = DATA + 0x1000 + random.below(0x1000);
    state.rip = CODE + 0x800 + random.below(0x1000);
    state.rflags = 2 | random.bits() & 0x24_4ed5;
    state
}

fn random_code(ring: Ring, salt: u64, instructions: bool) {
    let seed = number("RINGFENCE_DIFF_SEED", 0x5eed_0006) ^ salt;
    let cases = number("RINGFENCE_FUZZ_CASES", 1_000);
    println!("RINGFENCE_DIFF_SEED={seed} RINGFENCE_FUZZ_CASES={cases}");
    let bits = if ring == Ring::User32 { 32 } else { 64 };
    let mut random = Random::new(seed);
    let mut generator = Generator::new(seed, bits, false, &|_| true);
    let mut machine = Translated::new(bits);
    let watchdog = Watchdog::new(machine.vcpu.kicker());
    let (mut stops, mut ends) = (0, 0);
    for _ in 0..cases {
        let state = registers(&mut random, ring);
        let mut code = vec![0; 256];
        random.fill(&mut code);
        if instructions {
            let mut at = 0;
            while at < code.len() - 16 {
                let bytes = generator.random_encoding();
                code[at..at + bytes.len()].copy_from_slice(&bytes);
                at += bytes.len();
            }
        }
        // The tables may be gone after code at CPL 0.
        guest::write_tables(machine.memory()).expect("tables have memory");
        machine
            .vcpu
            .set_system_registers(&guest::system_registers(bits));
        machine.write_code(state.rip, &code);
        watchdog.begin(machine.vcpu.kicker(), &code);
        machine.begin(&state, ring);
        let exit = machine.vcpu.run(0);
        let reported = machine.mock().take();
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => {
                let text = disassemble(&code, state.rip, bits);
                panic!("{error}; at {:#x}: {code:02x?}\n{text}", state.rip);
            }
        };
        if watchdog.stopped() || exit != Exit::Interrupted || reported.is_none() {
            // Halted, shut down, or in the middle of an access: begin with another processor.
            stops += 1;
            machine = Translated::new(bits);
        } else {
            ends += 1;
        }
    }
    println!("{ends} ended in an exception, {stops} otherwise");
    assert!(ends * 2 > cases, "most random code ends in an exception");
}

#[test]
fn random_bytes_at_cpl_3() {
    random_code(Ring::User, 1, false);
}

#[test]
fn random_bytes_at_cpl_0() {
    random_code(Ring::Kernel, 2, false);
}

#[test]
fn random_instructions_at_cpl_3() {
    random_code(Ring::User, 3, true);
}

#[test]
fn random_instructions_at_cpl_0() {
    random_code(Ring::Kernel, 4, true);
}

#[test]
fn random_instructions_of_32_bit_code() {
    random_code(Ring::User32, 5, true);
}

/// Runs endless `code` and stops it a few times from another thread.
fn stop(name: &str, code: &[u8], ring: Ring, rflags: u64) -> Translated {
    let mut machine = Translated::new(64);
    machine.write_code(CODE, code);
    let mut state = State::new();
    state.rip = CODE;
    state.rflags = 2 | rflags;
    state.gpr[4] = DATA + 0x1800;
    // The loop's own address, for indirect branches.
    state.gpr[6] = CODE;
    machine.begin(&state, ring);
    let watchdog = Watchdog::new(machine.vcpu.kicker());
    for round in 0..5 {
        watchdog.begin(machine.vcpu.kicker(), code);
        let exit = machine.vcpu.run(0).expect("no internal error");
        assert_eq!(exit, Exit::Interrupted, "{name}, round {round}");
        assert_eq!(machine.mock().take(), None, "{name} has ended");
        let rip = machine.vcpu.registers().rip;
        // On a busy host the first stop may come before the program has begun.
        let outside = round == 0 && rip >= TABLES;
        assert!(
            outside || rip.wrapping_sub(CODE) < code.len() as u64,
            "{name}: {rip:#x}"
        );
    }
    machine
}

#[test]
fn endless_loops_are_stopped() {
    let loops: [(&str, &[u8]); 8] = [
        ("JMP to itself", &[0xeb, 0xfe]),
        ("LOOP to itself", &[0xff, 0xc1, 0xe2, 0xfc, 0xeb, 0xfa]),
        ("a loop with live flags", &[0x83, 0xd0, 0x01, 0xeb, 0xfb]),
        ("a conditional branch", &[0x31, 0xc0, 0x74, 0xfc]),
        ("JRCXZ to itself", &[0xe3, 0xfe]),
        ("an indirect branch", &[0xff, 0xe6]),
        // CALL +0; POP RAX; JMP RSI
        ("a call", &[0xe8, 0, 0, 0, 0, 0x58, 0xff, 0xe6]),
        // PUSH RSI; RET
        ("a return", &[0x56, 0xc3]),
    ];
    for (name, code) in loops {
        for ring in [Ring::User, Ring::Kernel] {
            stop(name, code, ring, 0);
            // With AC set, CPL 3 is interpreted.
            stop(name, code, ring, 1 << 18);
        }
    }
}

#[test]
fn a_halted_processor_is_stopped() {
    // HLT; JMP to itself
    let machine = stop("HLT", &[0xf4, 0xeb, 0xfe], Ring::Kernel, 0x200);
    assert_eq!(machine.vcpu.registers().rip, CODE + 1);
}

#[test]
fn a_stop_falls_between_instructions() {
    // ADD RAX, 1; ADC RBX, 0; ADD RDX, 1; JMP back
    let code = [
        0x48, 0x83, 0xc0, 1, 0x48, 0x83, 0xd3, 0, 0x48, 0x83, 0xc2, 1, 0xeb, 0xf2,
    ];
    let machine = stop("a counting loop", &code, Ring::User, 0);
    let registers = machine.vcpu.registers();
    let (a, b) = (registers.gpr[0], registers.gpr[2]);
    let expected = match registers.rip - CODE {
        0 | 12 => b,
        4 | 8 => b + 1,
        other => panic!("not at an instruction: {other}"),
    };
    assert_eq!(a, expected);
    assert!(a > 0);
}
