//! Hardware breakpoints: DR0 to DR3 on instructions, data and ports, and what DR6 tells.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_x86::exception as ex;
use ringfence_x86::{cr, flags};
use system::*;

type Asm = Result<(), IcedError>;

const EXECUTE: u32 = 0;
const WRITE: u32 = 1;
const PORT: u32 = 2;
const ACCESS: u32 = 3;
/// A page of data.
const PAGE: u64 = DATA + 0x1_0000;

/// DR7 with breakpoint `n` enabled for `kind` and `size` bytes.
fn enable(n: u32, kind: u32, size: u32) -> u32 {
    let length = match size {
        1 => 0,
        2 => 1,
        8 => 2,
        _ => 3,
    };
    2 << (2 * n) | (kind | length << 2) << (16 + 4 * n)
}

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

/// Sets DR0 and DR7, and clears DR6.
fn arm(m: &mut Machine, address: u64, control: u32) {
    m.exec(|a| {
        a.mov(rax, address)?;
        a.mov(dr0, rax)?;
        a.xor(eax, eax)?;
        a.mov(dr6, rax)?;
        a.mov(eax, control)?;
        a.mov(dr7, rax)?;
        stop(a)
    })
    .end();
}

/// DR6, with breakpoints off again.
fn status(m: &mut Machine) -> u64 {
    m.code(SPARE, |a| {
        a.mov(rax, dr6)?;
        a.xor(ecx, ecx)?;
        a.mov(dr7, rcx)?;
        stop(a)
    });
    m.start(SPARE);
    m.run().end();
    m.registers().gpr[0] & 0xe00f
}

#[test]
fn an_instruction_breakpoint_faults_before_it_and_rf_passes_it() {
    let mut m = Machine::new(1);
    let at = CODE + 0x1000;
    let bytes = assemble(64, at, |a| {
        a.inc(ecx)?;
        a.inc(ecx)?;
        a.inc(ecx)?;
        stop(a)
    });
    for user in [false, true] {
        let at = if user { USER } else { at };
        m.write(at, &bytes);
        // In translated form first.
        if !user {
            m.start(at);
            m.run().end();
        }
        arm(&mut m, at + 2, enable(0, EXECUTE, 1));
        if user {
            m.start_user(at, flags::FIXED);
        } else {
            m.start(at);
        }
        let frame = m.run().expect(ex::DB);
        assert_eq!((frame.rip, frame.rflags & flags::RF), (at + 2, 0));
        assert_eq!(m.registers().gpr[1], 1);
        // The handler sets RF in the image, and the instruction runs, once.
        let top = m.registers().gpr[4];
        m.write64(top + 16, frame.rflags | flags::RF);
        if user {
            // OUT is not the user's.
            m.resume(frame).expect(ex::GP);
        } else {
            m.resume(frame).end();
        }
        assert_eq!(m.registers().gpr[1], 3);
        assert_eq!(status(&mut m), 1);
    }
}

#[test]
fn the_breakpoint_of_a_loop_is_met_in_each_round() {
    let mut m = Machine::new(1);
    let at = CODE + 0x1000;
    let bytes = assemble(64, at, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 3)?;
        a.set_label(&mut top)?;
        a.inc(eax)?;
        a.dec(ecx)?;
        a.jne(top)?;
        stop(a)
    });
    m.write(at, &bytes);
    arm(&mut m, at + 5, enable(0, EXECUTE, 1));
    m.start(at);
    let mut stop = m.run();
    for round in 0..3 {
        let frame = stop.expect(ex::DB);
        assert_eq!((frame.rip, m.registers().gpr[0]), (at + 5, round));
        let top = m.registers().gpr[4];
        m.write64(top + 16, frame.rflags | flags::RF);
        stop = m.resume(frame);
    }
    stop.end();
}

#[test]
fn stores_and_loads_trap_behind_the_instruction() {
    let mut m = Machine::new(1);
    let at = CODE + 0x1000;
    type Body = fn(&mut CodeAssembler) -> Asm;
    let store: Body = |a| a.mov(dword_ptr(PAGE + 4), eax);
    let load: Body = |a| a.mov(eax, dword_ptr(PAGE + 4));
    let modify: Body = |a| a.lock().inc(dword_ptr(PAGE + 4));
    let push: Body = |a| a.push(rax);
    let vector: Body = |a| a.movups(xmmword_ptr(PAGE), xmm0);
    let near: Body = |a| a.mov(dword_ptr(PAGE + 8), eax);
    let cases: [(&str, Body, u64, u32, u32, bool); 12] = [
        ("store, W", store, PAGE + 4, WRITE, 4, true),
        ("store, RW", store, PAGE + 4, ACCESS, 4, true),
        ("load, W", load, PAGE + 4, WRITE, 4, false),
        ("load, RW", load, PAGE + 4, ACCESS, 4, true),
        ("modify, W", modify, PAGE + 4, WRITE, 4, true),
        ("last byte", store, PAGE + 7, ACCESS, 1, true),
        ("byte behind", store, PAGE + 8, ACCESS, 1, false),
        ("8 bytes", near, PAGE + 8, WRITE, 8, true),
        ("aligned down", store, PAGE + 5, WRITE, 4, true),
        ("other", near, PAGE + 4, WRITE, 4, false),
        ("push", push, STACK - 8, WRITE, 8, true),
        ("vector", vector, PAGE + 12, WRITE, 2, true),
    ];
    for (name, body, address, kind, size, hit) in cases {
        m.exec(|a| {
            // The pages are in the TLB.
            a.mov(rax, cr4)?;
            a.or(eax, cr::CR4_OSFXSR as i32)?;
            a.mov(cr4, rax)?;
            body(a)?;
            stop(a)
        })
        .end();
        let mut end = 0;
        for round in 0..2 {
            end = at + m.code(at, body);
            m.code(end, |a| {
                a.nop()?;
                stop(a)
            });
            arm(&mut m, address, enable(0, kind, size));
            m.start(at);
            if hit {
                let frame = m.run().expect(ex::DB);
                assert_eq!(frame.rip, end, "{name}, round {round}");
            } else {
                m.run().end();
            }
        }
        assert_eq!(status(&mut m), u64::from(hit), "{name} at {end:#x}");
    }
}

#[test]
fn a_repeated_store_stops_behind_the_element_it_met() {
    let mut m = Machine::new(1);
    arm(&mut m, PAGE + 5, enable(0, WRITE, 1));
    let at = CODE + 0x1000;
    m.code(at, |a| {
        a.mov(rdi, PAGE)?;
        a.mov(ecx, 16)?;
        a.rep().stosb()?;
        stop(a)
    });
    m.start(at);
    let frame = m.run().expect(ex::DB);
    let r = m.registers();
    assert_eq!((r.gpr[1], r.gpr[7]), (10, PAGE + 6));
    m.resume(frame).end();
    assert_eq!(m.registers().gpr[1], 0);
    assert_eq!(status(&mut m), 1);
}

#[test]
fn a_load_of_ss_holds_the_trap_back_for_one_instruction() {
    let mut m = Machine::new(1);
    m.write64(PAGE, u64::from(KERNEL_DATA));
    arm(&mut m, PAGE, enable(0, ACCESS, 2));
    let at = CODE + 0x1000;
    let size = m.code(at, |a| a.mov(ss, word_ptr(PAGE)));
    let end = at + size + m.code(at + size, |a| a.inc(ecx));
    m.code(end, |a| {
        a.inc(ecx)?;
        stop(a)
    });
    m.start(at);
    let frame = m.run().expect(ex::DB);
    assert_eq!((frame.rip, m.registers().gpr[1]), (end, 1));
    assert_eq!(status(&mut m), 1);
}

#[test]
fn a_fault_drops_what_the_instruction_met() {
    let mut m = Machine::new(1);
    arm(&mut m, PAGE, enable(0, ACCESS, 8));
    let at = CODE + 0x1000;
    // The load succeeds, the store does not.
    m.code(at, |a| {
        a.mov(rsi, PAGE)?;
        a.xor(edi, edi)?;
        a.dec(rdi)?;
        a.movsb()?;
        stop(a)
    });
    m.map(0xf_f000, 0);
    m.start(at);
    let frame = m.run().frame();
    assert_ne!(frame.vector, ex::DB, "{frame:x?}");
    assert_eq!(status(&mut m), 0);
}

#[test]
fn ports_are_watched_with_debug_extensions_only() {
    let mut m = Machine::new(1);
    let at = CODE + 0x1000;
    let size = m.code(at, |a| {
        a.mov(al, 7)?;
        a.out(i32::from(LOG), al)
    });
    m.code(at + size, |a| {
        a.nop()?;
        stop(a)
    });
    for extensions in [true, false] {
        m.set_system(|s| {
            s.cr4 = s.cr4 & !cr::CR4_DE | if extensions { cr::CR4_DE } else { 0 };
        });
        arm(&mut m, LOG.into(), enable(0, PORT, 1));
        m.start(at);
        if extensions {
            assert_eq!(m.run().expect(ex::DB).rip, at + size);
        } else {
            m.run().end();
        }
        assert_eq!(status(&mut m), u64::from(extensions));
    }
}

#[test]
fn a_single_step_and_a_breakpoint_are_one_exception() {
    let mut m = Machine::new(1);
    arm(&mut m, PAGE, enable(0, WRITE, 1));
    let size = m.code(USER, |a| a.nop());
    m.map(PAGE, PAGE | URW);
    m.code(USER + size, |a| {
        a.mov(byte_ptr(PAGE), al)?;
        a.nop()
    });
    m.start_user(USER, flags::FIXED | flags::TF);
    let frame = m.run().expect(ex::DB);
    m.resume(frame).expect(ex::DB);
    assert_eq!(status(&mut m), 1 | 1 << 14);
}

#[test]
fn general_detect_guards_the_debug_registers_once() {
    let mut m = Machine::new(1);
    let at = CODE + 0x1000;
    m.code(at, |a| {
        a.mov(rax, dr0)?;
        stop(a)
    });
    m.exec(|a| {
        a.mov(eax, 1 << 13)?;
        a.mov(dr7, rax)?;
        stop(a)
    })
    .end();
    m.start(at);
    let frame = m.run().expect(ex::DB);
    assert_eq!((frame.rip, frame.rflags & flags::RF), (at, flags::RF));
    m.resume(frame).end();
    assert_eq!(status(&mut m), 1 << 13);
}
