//! Code that is written to while it runs: by itself, through another address, by a device.
//!
//! Each program runs on the host's processor, on the interpreter, and translated at CPL 3 and 0;
//! all must agree, and the result is the one expected.

mod common;

use std::sync::Arc;

use common::{Everyone, Machine, Translated};
use ringfence_engine::{Exit, Vcpu};
use ringfence_memory::PAGE_SIZE;
use ringfence_testkit::guest::{Ring, entry_address};
use ringfence_testkit::layout::{AREA, CODE, DATA};
use ringfence_testkit::{Outcome, State};
use ringfence_x86::{exception, paging};

/// A function in a page of its own.
const FUNCTION: u64 = CODE + 0x2000;

/// Code under construction at an address.
struct Code {
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn new(at: u64) -> Self {
        Self {
            at,
            bytes: Vec::new(),
        }
    }
    fn here(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }
    /// `bytes` and the low 32 bits of an address.
    fn absolute(&mut self, bytes: &[u8], address: u64) -> &mut Self {
        self.put(bytes).put(&(address as u32).to_le_bytes())
    }
    /// MOV byte [address], value.
    fn store8(&mut self, address: u64, value: u8) -> &mut Self {
        self.absolute(&[0xc6, 0x04, 0x25], address).put(&[value])
    }
    /// MOV dword [address], value.
    fn store32(&mut self, address: u64, value: u32) -> &mut Self {
        self.absolute(&[0xc7, 0x04, 0x25], address)
            .put(&value.to_le_bytes())
    }
    /// MOV reg32, value.
    fn load(&mut self, register: u8, value: u64) -> &mut Self {
        self.put(&[0xb8 | register])
            .put(&(value as u32).to_le_bytes())
    }
    fn call(&mut self, target: u64) -> &mut Self {
        let distance = target.wrapping_sub(self.here() + 5) as u32;
        self.put(&[0xe8]).put(&distance.to_le_bytes())
    }
    fn part(&mut self) -> (u64, Vec<u8>) {
        self.put(&[0xcc]);
        (self.at, self.bytes.clone())
    }
}

/// MOV EAX, value; RET.
fn function(value: u32) -> Vec<u8> {
    let mut bytes = vec![0xb8];
    bytes.extend(value.to_le_bytes());
    bytes.push(0xc3);
    bytes
}

fn state() -> State {
    let mut state = State::new();
    state.rip = CODE;
    state.rflags = 0x202;
    state.gpr[4] = DATA + 0x1800;
    state
}

/// Calls the function, runs `change`, calls it again: EBX and EAX are the two results.
fn twice(change: impl FnOnce(&mut Code)) -> Outcome {
    let mut code = Code::new(CODE);
    code.call(FUNCTION).put(&[0x89, 0xc3]);
    change(&mut code);
    code.call(FUNCTION);
    Everyone::new().run(&[code.part(), (FUNCTION, function(0x1111))], &state())
}

fn assert_results(outcome: &Outcome, first: u64, second: u64) {
    assert_eq!(outcome.vector, exception::BP);
    assert_eq!(
        (outcome.state.gpr[3], outcome.state.gpr[0]),
        (first, second)
    );
}

#[test]
fn the_next_instruction_changes() {
    for gap in 0..3 {
        let mut code = Code::new(CODE);
        // MOV AL, imm8 right behind the store to its immediate, or behind some NOPs.
        let immediate = CODE + 8 + gap + 1;
        code.store8(immediate, 0x2a)
            .put(&vec![0x90; gap as usize])
            .put(&[0xb0, 0]);
        let outcome = Everyone::new().run(&[code.part()], &state());
        assert_eq!(
            outcome.state.gpr[0], 0x2a,
            "with {gap} instructions between"
        );
    }
}

#[test]
fn a_loop_changes_its_own_immediate() {
    let mut code = Code::new(CODE);
    code.load(1, 100).put(&[0x31, 0xc0]);
    let top = code.here();
    // ADD EAX, 1; INC dword [its immediate]; DEC ECX; JNZ
    code.put(&[0x05, 1, 0, 0, 0])
        .absolute(&[0xff, 0x04, 0x25], top + 1)
        .put(&[0xff, 0xc9]);
    let distance = top.wrapping_sub(code.here() + 2) as u8;
    code.put(&[0x75, distance]);
    let outcome = Everyone::new().run(&[code.part()], &state());
    assert_eq!(outcome.state.gpr[0], 5050);
}

#[test]
fn an_instruction_changes_its_kind_in_a_loop() {
    let mut code = Code::new(CODE);
    // ADD EBX, 3 and SUB EBX, 3 differ in bit 3 and 5 of their ModRM byte: C3h and EBh.
    code.load(1, 300).load(3, 1000);
    let top = code.here();
    code.put(&[0x83, 0xc3, 3])
        .absolute(&[0x80, 0x34, 0x25], top + 1)
        .put(&[0x28]);
    code.put(&[0xff, 0xc9]);
    let distance = top.wrapping_sub(code.here() + 2) as u8;
    code.put(&[0x75, distance]);
    let outcome = Everyone::new().run(&[code.part()], &state());
    assert_eq!(outcome.state.gpr[3], 1000);
}

#[test]
fn a_function_in_another_page_changes() {
    let outcome = twice(|code| {
        code.store32(FUNCTION + 1, 0x2222);
    });
    assert_results(&outcome, 0x1111, 0x2222);
}

#[test]
fn a_store_reaches_code_over_a_page_boundary() {
    let outcome = twice(|code| {
        // MOV RDX, imm64; MOV [FUNCTION - 5], RDX: the last three bytes are MOV EAX, imm's first.
        code.put(&[0x48, 0xba, 0x90, 0x90, 0x90, 0x90, 0x90, 0xb8, 0x33, 0x33]);
        code.absolute(&[0x48, 0x89, 0x14, 0x25], FUNCTION - 5);
    });
    assert_results(&outcome, 0x1111, 0x3333);
}

#[test]
fn read_modify_write_changes_code() {
    // LOCK XADD dword [FUNCTION + 1], EDX; the counter was 1111h.
    let outcome = twice(|code| {
        code.load(2, 5)
            .absolute(&[0xf0, 0x0f, 0xc1, 0x14, 0x25], FUNCTION + 1);
    });
    assert_results(&outcome, 0x1111, 0x1116);
    // LOCK CMPXCHG dword [FUNCTION + 1], EDX with EAX = 1111h.
    let outcome = twice(|code| {
        code.load(2, 0x7777)
            .absolute(&[0xf0, 0x0f, 0xb1, 0x14, 0x25], FUNCTION + 1);
    });
    assert_results(&outcome, 0x1111, 0x7777);
    // BTS dword [FUNCTION], 16: bit 8 of the immediate.
    let outcome = twice(|code| {
        code.absolute(&[0x0f, 0xba, 0x2c, 0x25], FUNCTION + 1)
            .put(&[17]);
    });
    assert_results(&outcome, 0x1111, 0x2_1111 | 0x1111);
}

#[test]
fn string_instructions_change_code() {
    // REP MOVSB of another function over it.
    let mut code = Code::new(CODE);
    code.call(FUNCTION).put(&[0x89, 0xc3]);
    code.load(6, CODE + 0x1000)
        .load(7, FUNCTION)
        .load(1, 6)
        .put(&[0xf3, 0xa4]);
    code.call(FUNCTION);
    let parts = [
        code.part(),
        (FUNCTION, function(0x1111)),
        (CODE + 0x1000, function(0x4444)),
    ];
    assert_results(&Everyone::new().run(&parts, &state()), 0x1111, 0x4444);
    // REP STOSD of its immediate, beginning in the page before it.
    let outcome = twice(|code| {
        code.load(0, 0xb890_9090)
            .load(7, FUNCTION - 11)
            .load(1, 3)
            .put(&[0xf3, 0xab]);
        code.store32(FUNCTION + 1, 0x5555);
    });
    assert_results(&outcome, 0x1111, 0x5555);
}

#[test]
fn pushes_and_vector_stores_change_code() {
    // PUSH of eight bytes of code.
    let outcome = twice(|code| {
        code.put(&[0x48, 0xba, 0xb8, 0x66, 0x66, 0, 0, 0xc3, 0x90, 0x90]);
        code.put(&[0x49, 0x89, 0xe0])
            .load(4, FUNCTION + 8)
            .put(&[0x52]);
        code.put(&[0x4c, 0x89, 0xc4]);
    });
    assert_results(&outcome, 0x1111, 0x6666);
    // VMOVUPS of 32 bytes that were loaded from other code.
    let mut code = Code::new(CODE);
    code.call(FUNCTION).put(&[0x89, 0xc3]);
    code.absolute(&[0xc5, 0xfc, 0x10, 0x04, 0x25], CODE + 0x1000);
    code.absolute(&[0xc5, 0xfc, 0x11, 0x04, 0x25], FUNCTION);
    code.call(FUNCTION);
    let parts = [
        code.part(),
        (FUNCTION, function(0x1111)),
        (CODE + 0x1000, function(0x8888)),
    ];
    assert_results(&Everyone::new().run(&parts, &state()), 0x1111, 0x8888);
}

#[test]
fn a_page_is_written_then_run_then_written_again() {
    // The first store makes the page one that may be written without asking; running it must
    // take that back. By MOV:
    let mut code = Code::new(CODE);
    code.store32(FUNCTION + 1, 0x2222)
        .call(FUNCTION)
        .put(&[0x89, 0xc3]);
    code.store32(FUNCTION + 1, 0x3333).call(FUNCTION);
    let parts = [code.part(), (FUNCTION, function(0x1111))];
    assert_results(&Everyone::new().run(&parts, &state()), 0x2222, 0x3333);
    // By PUSH, with the stack in the function's page. The function's eight bytes are pushed.
    let pushed = |code: &mut Code, value: u8| {
        code.put(&[0x48, 0xba, 0xb8, value, 0, 0, 0, 0xc3, 0x90, 0x90]);
        code.load(4, FUNCTION + 8)
            .put(&[0x52])
            .put(&[0x4c, 0x89, 0xc4]);
    };
    let mut code = Code::new(CODE);
    code.put(&[0x49, 0x89, 0xe0]);
    pushed(&mut code, 0x22);
    code.call(FUNCTION).put(&[0x89, 0xc3]);
    pushed(&mut code, 0x33);
    code.call(FUNCTION);
    let parts = [code.part(), (FUNCTION, function(0x1111))];
    assert_results(&Everyone::new().run(&parts, &state()), 0x22, 0x33);
}

#[test]
fn an_instruction_across_pages_changes_in_its_second_page() {
    // MOV EAX, imm32 with its last three bytes in the second page; RET.
    let split = FUNCTION + PAGE_SIZE - 2;
    let mut code = Code::new(CODE);
    code.call(split).put(&[0x89, 0xc3]);
    code.store8(split + 4, 0x99).call(split);
    let outcome = Everyone::new().run(&[code.part(), (split, function(0x1111))], &state());
    assert_results(&outcome, 0x1111, 0x9900_1111);
}

#[test]
fn a_breakpoint_is_set_and_taken_back() {
    let mut everyone = Everyone::new();
    let mut code = Code::new(CODE);
    let next = CODE + 8;
    code.store8(next, 0xcc).put(&[0x90, 0xb0, 7]);
    let outcome = everyone.run(&[code.part()], &state());
    assert_eq!(
        (outcome.vector, outcome.state.rip),
        (exception::BP, next + 1)
    );
    // A debugger puts the NOP back and goes on there.
    let mut state = outcome.state;
    state.rip = next;
    let outcome = everyone.run(&[(next, vec![0x90])], &state);
    assert_eq!((outcome.state.gpr[0], outcome.state.rip), (7, next + 4));
}

#[test]
fn data_beside_code_changes_nothing() {
    let mut code = Code::new(CODE);
    code.load(1, 50).put(&[0x31, 0xc0]);
    let top = code.here();
    // INC dword of the same page, far from all code.
    code.absolute(&[0xff, 0x04, 0x25], CODE + 0x800)
        .put(&[0xff, 0xc0, 0xff, 0xc9]);
    let distance = top.wrapping_sub(code.here() + 2) as u8;
    code.put(&[0x75, distance])
        .absolute(&[0x8b, 0x1c, 0x25], CODE + 0x800);
    let outcome = Everyone::new().run(&[code.part(), (CODE + 0x800, vec![0; 4])], &state());
    assert_results(&outcome, 50, 50);
}

/// Runs the function once, then after `change`, on the translator alone.
fn around(change: impl FnOnce(&mut Translated)) -> (u64, u64) {
    let mut machine = Translated::new(64);
    let mut code = Code::new(CODE);
    code.call(FUNCTION);
    let (at, bytes) = code.part();
    machine.write_code(at, &bytes);
    machine.write_code(FUNCTION, &function(0x1111));
    let first = machine
        .run(&state(), Ring::User)
        .expect("a result")
        .state
        .gpr[0];
    machine.begin(&state(), Ring::User);
    change(&mut machine);
    let exit = machine.vcpu.run(0).expect("no internal error");
    assert_eq!(
        (exit, machine.mock().take()),
        (Exit::Interrupted, Some(exception::BP))
    );
    (first, machine.vcpu.registers().gpr[0])
}

#[test]
fn a_device_writes_code_while_the_processor_is_stopped() {
    let results = around(|machine| {
        // No one tells the processor: the write alone must do.
        let memory = Arc::clone(machine.memory());
        memory
            .write(FUNCTION + 1, &0x2222u32.to_le_bytes())
            .expect("code has memory");
    });
    assert_eq!(results, (0x1111, 0x2222));
}

#[test]
fn code_changes_through_another_linear_address() {
    let mut machine = Translated::new(64);
    // AREA is absent otherwise; here it shows the function's page.
    let entry = FUNCTION | paging::P | paging::RW | paging::US | paging::XD;
    let memory = Arc::clone(machine.memory());
    memory
        .write(entry_address(AREA), &entry.to_le_bytes())
        .expect("tables have memory");
    let mut code = Code::new(CODE);
    code.call(FUNCTION)
        .put(&[0x89, 0xc3])
        .store32(AREA + 1, 0x2222)
        .call(FUNCTION);
    let (at, bytes) = code.part();
    machine.write_code(at, &bytes);
    machine.write_code(FUNCTION, &function(0x1111));
    for ring in [Ring::User, Ring::Kernel] {
        machine.write_code(FUNCTION, &function(0x1111));
        let outcome = machine.run(&state(), ring).expect("a result");
        assert_results(&outcome, 0x1111, 0x2222);
    }
}
