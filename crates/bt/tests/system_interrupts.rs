//! Interrupts from the real chips, and processors that are reached in every kind of loop.

mod system;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_engine::Vcpu;
use ringfence_x86::exception as ex;
use ringfence_x86::flags;
use system::*;

type Asm = Result<(), IcedError>;
type Loop = (&'static str, fn(&mut CodeAssembler) -> Asm);

const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;

/// Enables the local APIC; RSI addresses it from then on.
fn enable_lapic(a: &mut CodeAssembler) -> Asm {
    a.mov(rsi, LAPIC)?;
    a.mov(dword_ptr(rsi + 0xf0), 0x1ff)
}

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

/// Loops that never end by themselves.
const LOOPS: &[Loop] = &[
    ("jmp $", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.jmp(top)
    }),
    ("jcc with live flags", |a| {
        let mut top = a.create_label();
        a.cmp(eax, eax)?;
        a.stc()?;
        a.set_label(&mut top)?;
        a.lea(rcx, qword_ptr(rcx + 1))?;
        a.je(top)?;
        a.ud2()
    }),
    ("loop", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(ecx, 1000)?;
        let mut inner = a.create_label();
        a.set_label(&mut inner)?;
        a.loop_(inner)?;
        a.jmp(top)
    }),
    ("loop without end", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.xor(ecx, ecx)?;
        a.dec(rcx)?;
        a.loop_(top)?;
        a.ud2()
    }),
    ("threaded jumps", |a| {
        let (mut one, mut two, mut start) = (a.create_label(), a.create_label(), a.create_label());
        a.lea(rax, qword_ptr(one))?;
        a.mov(rbx, DATA)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.lea(rax, qword_ptr(two))?;
        a.mov(qword_ptr(rbx + 8), rax)?;
        a.xor(edx, edx)?;
        a.set_label(&mut start)?;
        a.jmp(qword_ptr(rbx + rdx * 8))?;
        a.set_label(&mut one)?;
        a.mov(edx, 1)?;
        a.jmp(qword_ptr(rbx + rdx * 8))?;
        a.set_label(&mut two)?;
        a.xor(edx, edx)?;
        a.jmp(qword_ptr(rbx + rdx * 8))
    }),
    ("jmp to itself through a register", |a| {
        let mut top = a.create_label();
        a.lea(rax, qword_ptr(top))?;
        a.set_label(&mut top)?;
        a.jmp(rax)
    }),
    ("calls and returns", |a| {
        let (mut top, mut function) = (a.create_label(), a.create_label());
        a.set_label(&mut top)?;
        a.call(function)?;
        a.jmp(top)?;
        a.set_label(&mut function)?;
        a.ret()
    }),
    ("a chain of returns", |a| {
        let (mut top, mut fill) = (a.create_label(), a.create_label());
        // A full page of return addresses, all of the RET itself, but for the last.
        a.lea(rax, qword_ptr(top))?;
        a.lea(rdx, qword_ptr(fill))?;
        a.set_label(&mut fill)?;
        a.mov(rdi, DATA)?;
        a.mov(ecx, 511)?;
        a.rep().stosq()?;
        a.mov(qword_ptr(rdi), rdx)?;
        a.mov(rsp, DATA)?;
        a.set_label(&mut top)?;
        a.ret()
    }),
    ("system instructions", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(rax, cr3)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.jmp(top)
    }),
    ("long strings", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(rdi, SPARE)?;
        a.mov(ecx, 0x10_0000)?;
        a.rep().stosq()?;
        a.jmp(top)
    }),
    ("a locked counter", |a| {
        let mut top = a.create_label();
        a.mov(rbx, DATA)?;
        a.mov(edx, 1)?;
        a.set_label(&mut top)?;
        a.lock().xadd(dword_ptr(rbx), edx)?;
        a.pause()?;
        a.jmp(top)
    }),
    ("two pages", |a| {
        a.mov(rax, CODE + 0x3000)?;
        a.jmp(CODE + 0x2000)
    }),
    ("an interrupt window of one instruction", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.sti()?;
        a.nop()?;
        a.cli()?;
        a.jmp(top)
    }),
    ("floating point", |a| {
        let mut top = a.create_label();
        a.fninit()?;
        a.set_label(&mut top)?;
        a.fld1()?;
        a.fldpi()?;
        a.fmulp(st1, st0)?;
        a.fstp(st0)?;
        a.addps(xmm0, xmm1)?;
        a.jmp(top)
    }),
    ("hlt", |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.hlt()?;
        a.jmp(top)
    }),
];

/// Puts the loop at [`CODE`]. It begins with IF set.
fn put_loop(m: &mut Machine, code: fn(&mut CodeAssembler) -> Asm) {
    m.code(CODE + 0x2000, |a| a.jmp(rax));
    m.code(CODE + 0x3000, |a| a.jmp(CODE + 0x2000));
    m.code(CODE, |a| {
        a.sti()?;
        code(a)
    });
    m.start(CODE);
}

/// Calls `f` over and over from another thread until the result is dropped.
struct Repeated(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Repeated {
    fn new(pause: Duration, mut f: impl FnMut() + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let end = Arc::clone(&end);
            move || {
                while !end.load(SeqCst) {
                    std::thread::sleep(pause);
                    f();
                }
            }
        });
        Self(end, Some(thread))
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
        if let Some(thread) = self.1.take() {
            thread.join().expect("the thread ends");
        }
    }
}

#[test]
fn interrupt_makes_run_return_from_every_loop() {
    let mut m = Machine::new(1);
    let kick = m.vcpus[0].kicker();
    for &(name, code) in LOOPS {
        put_loop(&mut m, code);
        let handle = Arc::clone(&kick);
        for _ in 0..3 {
            let handle = Arc::clone(&handle);
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3));
                let asked = Instant::now();
                handle.interrupt();
                asked
            });
            assert_eq!(m.run(), Stop::Interrupted, "{name}");
            let asked = thread.join().expect("the thread ends");
            assert!(
                asked.elapsed() < Duration::from_secs(2),
                "{name}: {:?}",
                asked.elapsed()
            );
        }
    }
    // Asked for before the run.
    kick.interrupt();
    assert_eq!(m.run(), Stop::Interrupted);
}

#[test]
fn notifications_lose_nothing_in_any_loop() {
    let mut m = Machine::new(1);
    let kick = m.vcpus[0].kicker();
    for &(name, code) in LOOPS {
        put_loop(&mut m, code);
        let notified = Arc::clone(&kick);
        let noise = Repeated::new(Duration::from_micros(50), move || notified.notify());
        let interrupted = Arc::clone(&kick);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            interrupted.interrupt();
        });
        assert_eq!(m.run(), Stop::Interrupted, "{name}");
        thread.join().expect("the thread ends");
        drop(noise);
    }
}

#[test]
fn message_signalled_interrupts_arrive_in_every_loop() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        enable_lapic(a)?;
        stop(a)
    })
    .end();
    // The handler counts in memory, keeps all registers and flags, and stops at the tenth.
    let counter = DATA + 0x8000;
    gate(&m.memory, 0x60, CODE + 0x5000, 0, 1);
    m.code(CODE + 0x5000, |a| {
        let mut more = a.create_label();
        a.push(rax)?;
        a.push(rsi)?;
        a.mov(rsi, LAPIC)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.inc(dword_ptr(counter))?;
        a.cmp(dword_ptr(counter), 10)?;
        a.jne(more)?;
        stop(a)?;
        a.set_label(&mut more)?;
        a.pop(rsi)?;
        a.pop(rax)?;
        a.iretq()
    });
    for &(name, code) in LOOPS {
        m.write64(counter, 0);
        put_loop(&mut m, code);
        let platform = Arc::clone(&m.platform);
        let noise = Repeated::new(Duration::from_micros(200), move || {
            platform.signal_msi(LAPIC, 0x60);
        });
        let end = m.run();
        drop(noise);
        assert!(matches!(end, Stop::End(_)), "{name}: {end:x?}");
        // What came after the tenth is taken by nobody.
        m.code(CODE + 0x6000, |a| {
            let mut again = a.create_label();
            a.mov(rsi, LAPIC)?;
            a.set_label(&mut again)?;
            a.mov(dword_ptr(rsi + 0xb0), 0)?;
            a.mov(eax, dword_ptr(rsi + 0x130))?;
            a.sti()?;
            a.nop()?;
            a.cli()?;
            stop(a)
        });
        m.start(CODE + 0x6000);
        m.run().end();
    }
}

#[test]
fn self_ipis_priorities_and_the_task_priority() {
    let mut m = Machine::new(1);
    let ipi = |a: &mut CodeAssembler, vector: i32| a.mov(dword_ptr(rsi + 0x300), 0x4_0000 | vector);
    // Three at once: the highest comes first, and keeps the others out until EOI.
    let order = [0x71, 0x91, 0x81];
    for vector in order {
        gate(
            &m.memory,
            vector as u8,
            CODE + 0x5000 + vector as u64 * 0x40,
            0,
            0,
        );
        m.code(CODE + 0x5000 + vector as u64 * 0x40, |a| {
            a.mov(eax, vector)?;
            a.out(i32::from(LOG), eax)?;
            a.sti()?;
            a.nop()?;
            a.cli()?;
            a.mov(eax, dword_ptr(rsi + 0xa0))?;
            a.out(i32::from(LOG), eax)?;
            a.mov(dword_ptr(rsi + 0xb0), 0)?;
            a.iretq()
        });
    }
    m.exec(|a| {
        enable_lapic(a)?;
        for vector in order {
            ipi(a, vector)?;
        }
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.cli()?;
        stop(a)
    })
    .end();
    let log: Vec<u32> = m
        .ports
        .take_log()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(log, [0x91, 0x90, 0x81, 0x80, 0x71, 0x70]);
    // CR8 and the TPR are one; a class that is not above it waits.
    m.exec(|a| {
        enable_lapic(a)?;
        a.mov(eax, 8)?;
        a.mov(cr8, rax)?;
        a.mov(ebx, dword_ptr(rsi + 0x80))?;
        ipi(a, 0x81)?;
        ipi(a, 0x91)?;
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.mov(dword_ptr(rsi + 0x80), 0x70)?;
        a.mov(rcx, cr8)?;
        a.nop()?;
        a.cli()?;
        stop(a)
    })
    .end();
    let log: Vec<u32> = m
        .ports
        .take_log()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(log, [0x91, 0x90, 0x81, 0x80]);
    assert_eq!((m.registers().gpr[3], m.registers().gpr[1]), (0x80, 7));
    // Lowering CR8 by MOV lets the waiting one in at once.
    m.exec(|a| {
        enable_lapic(a)?;
        a.mov(eax, 15)?;
        a.mov(cr8, rax)?;
        ipi(a, 0xb1)?;
        a.sti()?;
        a.nop()?;
        a.xor(eax, eax)?;
        a.mov(cr8, rax)?;
        a.inc(ecx)?;
        a.cli()?;
        stop(a)
    })
    .expect(0xb1);
    assert_eq!(m.registers().gpr[1], 0);
}

/// A handler for `vector` that counts in R15 and ends its interrupt at the local APIC (RSI).
fn counting(m: &Machine, vector: u8) {
    gate(&m.memory, vector, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        a.inc(r15)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.iretq()
    });
}

#[test]
fn the_lapic_timer_in_its_three_modes_wakes_from_hlt() {
    let mut m = Machine::new(1);
    counting(&m, 0x40);
    let wait = |a: &mut CodeAssembler, count: i32| {
        let mut more = a.create_label();
        a.set_label(&mut more)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.cmp(r15, count)?;
        a.jb(more)
    };
    m.exec(|a| {
        enable_lapic(a)?;
        a.mov(dword_ptr(rsi + 0x3e0), 0xb)?;
        // One shot.
        a.mov(dword_ptr(rsi + 0x320), 0x40)?;
        a.mov(dword_ptr(rsi + 0x380), 100_000)?;
        wait(a, 1)?;
        // Periodic.
        a.mov(dword_ptr(rsi + 0x320), 0x2_0040)?;
        a.mov(dword_ptr(rsi + 0x380), 100_000)?;
        wait(a, 6)?;
        a.mov(dword_ptr(rsi + 0x380), 0)?;
        // By the TSC; one in the past comes at once.
        a.mov(dword_ptr(rsi + 0x320), 0x4_0040)?;
        a.mfence()?;
        a.rdtsc()?;
        a.add(eax, 1_000_000)?;
        a.adc(edx, 0)?;
        a.mov(ecx, 0x6e0)?;
        a.wrmsr()?;
        wait(a, 7)?;
        a.rdtsc()?;
        a.mov(ecx, 0x6e0)?;
        a.wrmsr()?;
        wait(a, 8)?;
        a.rdmsr()?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[15], r.gpr[0], r.gpr[2]), (8, 0, 0));
}

#[test]
fn the_pit_through_the_pic_and_through_the_ioapic() {
    let mut m = Machine::new(1);
    gate(&m.memory, 0x20, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        a.inc(r15)?;
        a.mov(al, 0x20)?;
        a.out(0x20, al)?;
        a.iretq()
    });
    let out = |a: &mut CodeAssembler, port: i32, value: i32| {
        a.mov(al, value)?;
        a.out(port, al)
    };
    let init = |a: &mut CodeAssembler, mask: i32| {
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 4),
            (0x21, 1),
            (0xa0, 0x11),
            (0xa1, 0x28),
            (0xa1, 2),
            (0xa1, 1),
            (0x21, mask),
            (0xa1, 0xff),
            // Counter 0, mode 2, 1 ms.
            (0x43, 0x34),
            (0x40, 0xa9),
            (0x40, 0x04),
        ] {
            out(a, port, value)?;
        }
        Ok::<(), IcedError>(())
    };
    m.exec(|a| {
        let mut more = a.create_label();
        enable_lapic(a)?;
        // LINT0 as ExtINT.
        a.mov(dword_ptr(rsi + 0x350), 0x700)?;
        init(a, 0xfe)?;
        a.set_label(&mut more)?;
        a.sti()?;
        a.hlt()?;
        a.cmp(r15, 5)?;
        a.jb(more)?;
        a.cli()?;
        out(a, 0x21, 0xff)?;
        stop(a)
    })
    .end();
    counting(&m, 0x41);
    m.exec(|a| {
        let mut more = a.create_label();
        enable_lapic(a)?;
        a.mov(dword_ptr(rsi + 0x350), 0x1_0000)?;
        init(a, 0xff)?;
        // Pin 2 as vector 41h to processor 0.
        a.mov(rdi, IOAPIC)?;
        a.mov(dword_ptr(rdi), 0x15)?;
        a.mov(dword_ptr(rdi + 0x10), 0)?;
        a.mov(dword_ptr(rdi), 0x14)?;
        a.mov(dword_ptr(rdi + 0x10), 0x41)?;
        a.sti()?;
        a.set_label(&mut more)?;
        a.pause()?;
        a.cmp(r15, 5)?;
        a.jb(more)?;
        a.cli()?;
        a.mov(dword_ptr(rdi + 0x10), 0x1_0041)?;
        stop(a)
    })
    .end();
}

#[test]
fn a_level_interrupt_comes_again_until_its_line_falls() {
    let mut m = Machine::new(1);
    // Each EOI brings it back at once, so nothing else runs: the handler must end it.
    gate(&m.memory, 0x42, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        let mut more = a.create_label();
        a.inc(r15)?;
        a.cmp(r15, 5)?;
        a.jne(more)?;
        stop(a)?;
        a.set_label(&mut more)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.iretq()
    });
    m.exec(|a| {
        enable_lapic(a)?;
        a.mov(rdi, IOAPIC)?;
        a.mov(dword_ptr(rdi), 0x23)?;
        a.mov(dword_ptr(rdi + 0x10), 0)?;
        a.mov(dword_ptr(rdi), 0x22)?;
        a.mov(dword_ptr(rdi + 0x10), 0x8042)?;
        stop(a)
    })
    .end();
    m.code(CODE, |a| {
        let mut top = a.create_label();
        a.mov(rsi, LAPIC)?;
        a.sti()?;
        a.set_label(&mut top)?;
        a.jmp(top)
    });
    m.platform.irq_line(9, true);
    m.start(CODE);
    m.run().end();
    m.platform.irq_line(9, false);
    // With the line low, EOI ends it.
    m.exec(|a| {
        a.mov(rsi, LAPIC)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.sti()?;
        for _ in 0..8 {
            a.nop()?;
        }
        a.cli()?;
        stop(a)
    })
    .end();
    assert_eq!(m.registers().gpr[15], 0);
}

#[test]
fn nmis_wait_for_iret() {
    let mut m = Machine::new(1);
    gate(&m.memory, 2, CODE + 0x5000, 0, 2);
    m.code(CODE + 0x5000, |a| {
        a.inc(r15)?;
        a.cmp(r15, 1)?;
        let mut done = a.create_label();
        a.jne(done)?;
        // Another one to itself: it must not arrive in here, nor at STI.
        a.mov(dword_ptr(rsi + 0x300), 0x4_0400)?;
        a.sti()?;
        a.nop()?;
        a.cli()?;
        a.nop()?;
        a.mov(r14, r15)?;
        a.set_label(&mut done)?;
        a.iretq()
    });
    m.exec(|a| {
        enable_lapic(a)?;
        a.mov(dword_ptr(rsi + 0x300), 0x4_0400)?;
        for _ in 0..4 {
            a.nop()?;
        }
        a.mov(eax, 1)?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[14], r.gpr[15]), (1, 2));
    // It wakes a processor that waits with IF clear.
    m.code(CODE, |a| {
        a.mov(rsi, LAPIC)?;
        a.mov(r15d, 5)?;
        a.hlt()?;
        stop(a)
    });
    m.start(CODE);
    let platform = Arc::clone(&m.platform);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        platform.signal_msi(LAPIC, 0x400);
    });
    m.run().end();
    thread.join().expect("the thread ends");
    assert_eq!(m.registers().gpr[15], 6);
}

#[test]
fn an_interrupt_from_user_code_switches_stacks() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        enable_lapic(a)?;
        stop(a)
    })
    .end();
    m.code(USER, |a| {
        let mut top = a.create_label();
        a.mov(rbx, 0x1234_5678_9abc_def0u64)?;
        a.cmp(eax, eax)?;
        a.stc()?;
        a.set_label(&mut top)?;
        a.lea(rcx, qword_ptr(rcx + 1))?;
        a.jmp(top)
    });
    m.start_user(USER, flags::FIXED | flags::IF);
    let platform = Arc::clone(&m.platform);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        platform.signal_msi(LAPIC, 0x61);
    });
    let frame = m.run().expect(0x61);
    thread.join().expect("the thread ends");
    assert_eq!(
        (frame.cs, frame.ss, frame.rsp),
        (USER_CODE, USER_DATA, USER_STACK)
    );
    let wanted = flags::IF | flags::CF | flags::ZF | flags::PF | flags::FIXED;
    assert_eq!(frame.rflags, wanted);
    assert_eq!(m.registers().gpr[4], ENTRY_STACK - 40);
    assert_eq!(m.registers().gpr[3], 0x1234_5678_9abc_def0);
}

#[test]
fn flags_and_registers_survive_a_storm_of_interrupts() {
    let mut m = Machine::new(1);
    // The handler destroys all flags and what it saves.
    let vector = 0x62;
    gate(&m.memory, vector, CODE + 0x5000, 0, 3);
    m.code(CODE + 0x5000, |a| {
        a.push(rax)?;
        a.push(rsi)?;
        a.mov(rsi, LAPIC)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.mov(al, 0x7f)?;
        a.add(al, 1)?;
        a.pop(rsi)?;
        a.pop(rax)?;
        a.iretq()
    });
    m.exec(|a| {
        enable_lapic(a)?;
        stop(a)
    })
    .end();
    // A checksum with carries over many iterations, memory, stack and indirect branches.
    let program = |a: &mut CodeAssembler| {
        let (mut top, mut function) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA)?;
        a.lea(r14, qword_ptr(function))?;
        a.mov(r13d, 300_000)?;
        a.xor(eax, eax)?;
        a.mov(rdx, 0x9e37_79b9_7f4a_7c15u64)?;
        a.set_label(&mut top)?;
        a.add(rax, rdx)?;
        a.adc(rcx, rax)?;
        a.sbb(r8, rcx)?;
        a.rcl(r9, 1)?;
        a.setb(r10b)?;
        a.mov(qword_ptr(rbx), r9)?;
        a.adc(qword_ptr(rbx + 8), rax)?;
        a.push(rcx)?;
        a.call(r14)?;
        a.pop(r11)?;
        a.xor(rdx, r11)?;
        a.dec(r13d)?;
        a.jne(top)?;
        stop(a)?;
        a.set_label(&mut function)?;
        a.adc(r12, r8)?;
        a.ret()
    };
    let mut results = Vec::new();
    for storm in [false, true] {
        m.write(DATA, &[0; 16]);
        m.code(CODE, |a| {
            a.sti()?;
            program(a)
        });
        m.start(CODE);
        let platform = Arc::clone(&m.platform);
        let noise = storm.then(|| {
            Repeated::new(Duration::from_micros(20), move || {
                platform.signal_msi(LAPIC, u32::from(vector));
            })
        });
        m.run().end();
        drop(noise);
        let mut r = m.registers();
        r.rflags &= !flags::IF;
        results.push((r.gpr, m.read64(DATA), m.read64(DATA + 8)));
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn an_unhandled_vector_is_a_protection_fault() {
    let mut m = Machine::new(1);
    m.set_system(|s| s.idtr.limit = 0x60 * 16 - 1);
    let frame = m
        .exec(|a| {
            enable_lapic(a)?;
            a.mov(dword_ptr(rsi + 0x300), 0x4_0000 | 0x70)?;
            a.sti()?;
            a.nop()?;
            a.nop()?;
            stop(a)
        })
        .expect(ex::GP);
    assert_eq!(frame.error, Some(0x70 << 3 | 2 | 1));
}
