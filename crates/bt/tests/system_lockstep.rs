//! Random programs with loops, calls and faults: translated code against single steps.
//!
//! A program runs twice from the same state: once as it is, and once with the trap flag set and a
//! #DB handler that returns at once, so that the interpreter executes every instruction alone.
//! How it ends, all registers and all memory must be the same. The same holds for a run that
//! interrupts fall into.

mod system;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, FastFormatter, IcedError};
use ringfence_engine::Vcpu;
use ringfence_testkit::{Random, State};
use ringfence_x86::exception as ex;
use ringfence_x86::{flags, paging};
use system::*;

type Asm = Result<(), IcedError>;

/// Two pages of data, then one that is absent, or read-only, or fine.
const WINDOW: u64 = USER_DATA_PAGE + 0x1_0000;
const EDGE: u64 = WINDOW + 0x2000;
/// User data through GS.
const GS: u64 = WINDOW + 0x800;
const OTHER_GS: u64 = WINDOW + 0x1800;

const R64: [AsmRegister64; 11] = [rax, rbx, rdx, rdi, rbp, r8, r9, r10, r11, r12, r13];
const R32: [AsmRegister32; 11] = [eax, ebx, edx, edi, ebp, r8d, r9d, r10d, r11d, r12d, r13d];
const R8: [AsmRegister8; 11] = [al, bl, dl, dil, bpl, r8b, r9b, r10b, r11b, r12b, r13b];

/// Stack, in the middle of two pages of which the lower one may be absent.
const STACK_PAGES: u64 = WINDOW + 0x8000;
const CASES: u64 = 1_500;

/// A displacement that is often close to the last one.
fn displacement(random: &mut Random) -> i32 {
    match random.below(4) {
        0 => random.below(256) as i32 - 128,
        1 => random.below(8) as i32,
        _ => random.below(8) as i32 * 8,
    }
}

fn memory(random: &mut Random) -> AsmMemoryOperand {
    let disp = displacement(random);
    match random.below(9) {
        0 => ptr(rsi + rcx * 8 + disp),
        1 => ptr(rsi + rcx + disp),
        2 => ptr(WINDOW + 0x400 + u64::from(disp.unsigned_abs())),
        3 | 4 => ptr(u64::from(disp.unsigned_abs())).gs(),
        _ => ptr(rsi + disp),
    }
}

fn condition(a: &mut CodeAssembler, n: u64, target: CodeLabel) -> Asm {
    match n {
        0 => a.je(target),
        1 => a.jb(target),
        2 => a.js(target),
        3 => a.jo(target),
        4 => a.jp(target),
        5 => a.jle(target),
        6 => a.jae(target),
        _ => a.jne(target),
    }
}

/// One instruction or a few. Undefined flags are never left to be read.
fn operation(a: &mut CodeAssembler, random: &mut Random, stack: bool) -> Asm {
    let (r, q, n) = (
        random.pick(&R64),
        random.pick(&R64),
        random.below(11) as usize,
    );
    let m = memory(random);
    if random.one_in(4) {
        return rarer(a, random, m, n);
    }
    match random.below(if stack { 44 } else { 38 }) {
        0..=2 => a.mov(r, qword_ptr(m)),
        3..=5 => a.mov(qword_ptr(m), r),
        6 => a.mov(byte_ptr(m), R8[n]),
        7 => a.mov(R32[n], dword_ptr(m)),
        8 => a.add(r, qword_ptr(m)),
        9 => a.add(qword_ptr(m), r),
        10 => a.adc(dword_ptr(m), R32[n]),
        11 => a.sbb(r, q),
        12 => a.inc(qword_ptr(m)),
        13 => a.dec(r),
        14 => a.xchg(qword_ptr(m), r),
        15 => a.lea(r, m),
        16 => a.cmp(r, qword_ptr(m)),
        17 => a.setb(R8[n]),
        18 => a.setle(byte_ptr(m)),
        19 => a.cmove(r, q),
        20 => a.cmovo(r, qword_ptr(m)),
        21 => a.xor(r, q),
        22 => a.and(R32[n], dword_ptr(m)),
        23 => a.lock().xadd(dword_ptr(m), R32[n]),
        24 => a.cmpxchg(qword_ptr(m), r),
        25 => a.movups(xmm0, xmmword_ptr(m)),
        26 => a.movups(xmmword_ptr(m), xmm0),
        27 => a.shl(r, 1),
        28 => a.rcl(r, 1),
        29 => a.movzx(R32[n], byte_ptr(m)),
        30 => a.movsx(r, word_ptr(m)),
        31 => a.swapgs(),
        32 => a.mov(dword_ptr(m), random.bits() as i32),
        33 => a.neg(dword_ptr(m)),
        34 => a.not(qword_ptr(m)),
        35 => a.add(rsi, displacement(random)),
        36 => a.cmc(),
        37 => {
            let mut over = a.create_label();
            condition(a, random.below(8), over)?;
            for _ in 0..=random.below(2) {
                a.adc(qword_ptr(m), q)?;
                a.lea(r, qword_ptr(r + q))?;
            }
            a.set_label(&mut over)?;
            a.mov(r, q)
        }
        38 | 39 => a.push(r),
        40 | 41 => a.pop(r),
        42 => a.push(qword_ptr(m)),
        _ => a.pop(qword_ptr(m)),
    }
}

/// Instructions that compilers use less often.
fn rarer(a: &mut CodeAssembler, random: &mut Random, m: AsmMemoryOperand, n: usize) -> Asm {
    let (r, q) = (R64[n], random.pick(&R64));
    match random.below(26) {
        0 => {
            a.bt(qword_ptr(m), random.below(64) as u32)?;
            a.setb(R8[n])?;
            a.cmp(r, q)
        }
        1 => {
            // The register counts bits from the operand's address: keep it near.
            a.movzx(R32[n], R8[n])?;
            a.bts(qword_ptr(m), r)?;
            a.cmp(r, q)
        }
        2 => a.mov(ah, byte_ptr(rsi + 3)),
        3 => a.add(byte_ptr(rsi + 5), bh),
        4 => a.mov(dh, al),
        5 => {
            a.mov(rdi, rsi)?;
            a.stosq()
        }
        6 => {
            a.lodsd()?;
            a.mov(rdi, rsi)?;
            a.scasb()
        }
        7 => a.xadd(qword_ptr(m), r),
        8 => a.cmpxchg8b(qword_ptr(m)),
        9 => {
            a.imul_2(r, qword_ptr(m))?;
            a.cmp(r, q)
        }
        10 => a.movaps(xmm1, xmmword_ptr(m)),
        11 => a.paddd(xmm0, xmmword_ptr(m)),
        12 => a.movq(qword_ptr(m), xmm0),
        13 => a.movq(xmm1, r),
        14 => a.fld(qword_ptr(m)),
        15 => a.fstp(qword_ptr(m)),
        16 => a.bswap(r),
        17 => {
            a.test(dword_ptr(m), R32[n])?;
            a.cmp(r, q)
        }
        18 => a.mov(rax, qword_ptr(WINDOW + 0x440)),
        19 => a.mov(dword_ptr(WINDOW + 0x444), eax),
        20 => a.sub(word_ptr(m), random.below(100) as i32),
        21 => a.adc(qword_ptr(m), -1),
        22 => a.mov(r, gs),
        23 => a.movsxd(r, dword_ptr(m)),
        24 => a.cld(),
        _ => a.mulx(r, q, qword_ptr(m)),
    }
}

fn segment(a: &mut CodeAssembler, random: &mut Random, functions: &[CodeLabel]) -> Asm {
    match random.below(4) {
        0 => {
            for _ in 0..random.below(25) {
                operation(a, random, true)?;
            }
            Ok(())
        }
        1 => {
            let function = random.pick(functions);
            match random.below(3) {
                0 => a.call(function)?,
                1 => {
                    a.lea(r15, ptr(function))?;
                    a.call(r15)?;
                }
                _ => {
                    let mut over = a.create_label();
                    a.lea(r15, ptr(over))?;
                    operation(a, random, true)?;
                    a.jmp(r15)?;
                    a.ud2()?;
                    a.set_label(&mut over)?;
                    a.nop()?;
                }
            }
            operation(a, random, true)
        }
        _ => {
            let mut top = a.create_label();
            a.mov(ecx, 1 + random.below(40) as u32)?;
            a.set_label(&mut top)?;
            a.nop()?;
            for _ in 0..=random.below(6) {
                operation(a, random, true)?;
            }
            if random.one_in(4) {
                a.call(random.pick(functions))?;
            }
            match random.below(4) {
                0 => a.add(rsi, 8)?,
                1 => a.lea(rsi, qword_ptr(rsi + 24))?,
                2 => a.sub(rsi, 16)?,
                _ => {}
            }
            match random.below(3) {
                0 => {
                    a.dec(ecx)?;
                    a.jne(top)
                }
                1 => {
                    a.sub(rcx, 1)?;
                    a.ja(top)
                }
                _ => a.loop_(top),
            }
        }
    }
}

fn program(random: &mut Random) -> Vec<u8> {
    assemble(64, CODE, |a| {
        let mut functions = [a.create_label(), a.create_label()];
        for (index, value) in [(0xc000_0101u32, GS), (0xc000_0102, OTHER_GS)] {
            a.mov(ecx, index)?;
            a.mov(rax, value)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
        }
        a.mov(ecx, 7)?;
        a.cmp(ecx, random.below(15) as u32)?;
        for _ in 0..=random.below(4) {
            segment(a, random, &functions)?;
        }
        a.out(i32::from(STOP), al)?;
        for function in &mut functions {
            a.set_label(function)?;
            for _ in 0..=random.below(5) {
                operation(a, random, false)?;
            }
            a.ret()?;
        }
        Ok(())
    })
}

/// The instructions of a program, with their addresses.
fn listing(code: &[u8]) -> String {
    let (mut lines, mut text) = (String::new(), String::new());
    for instruction in &mut Decoder::with_ip(64, code, CODE, DecoderOptions::NONE) {
        text.clear();
        FastFormatter::new().format(&instruction, &mut text);
        lines.push_str(&format!("{:x}  {text}\n", instruction.ip()));
    }
    lines
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    stop: Stop,
    gpr: [u64; 16],
    flags: u64,
}

fn run(m: &mut Machine, image: &[u8], start: &[u64; 16], rflags: u64) -> (End, Vec<u8>) {
    m.write(WINDOW, image);
    m.vcpus[0]
        .set_xsave(&State::new().xsave)
        .expect("a valid image");
    m.start(CODE);
    m.set(|r| {
        r.gpr = *start;
        r.rflags |= rflags;
    });
    let mut stop = m.run();
    let mut mask = flags::ARITHMETIC & !flags::AF | flags::DF;
    if let Stop::Vector(frame) = &mut stop {
        // Flags that are dead at a fault need not be right.
        frame.rflags = 0;
        mask = 0;
    }
    let mut registers = m.registers();
    if registers.rip == ENTRY {
        // The trap after the last instruction has been delivered.
        registers.rflags = m.read64(registers.gpr[4] + 16);
        registers.gpr[4] = m.read64(registers.gpr[4] + 24);
    }
    let mut memory = vec![0; image.len()];
    m.memory
        .read(WINDOW, &mut memory)
        .expect("the window has memory");
    (
        End {
            stop,
            gpr: registers.gpr,
            flags: registers.rflags & mask,
        },
        memory,
    )
}

/// A machine whose faults are taken on stacks of their own.
fn machine() -> Machine {
    let m = Machine::new(1);
    for vector in 0..32u8 {
        gate(&m.memory, vector, HANDLERS + u64::from(vector) * 16, 0, 1);
    }
    // #DB returns.
    gate(&m.memory, ex::DB, ENTRY, 0, 2);
    m
}

/// Runs random programs as they are and with the other RFLAGS; returns how many faulted.
fn compare(m: &mut Machine, cases: u64, other: u64, mut begin: impl FnMut(bool)) -> u32 {
    let first: u64 = std::env::var("RINGFENCE_FUZZ_SEED")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1);
    let (mut faults, mut image) = (0, vec![0; 0xa000]);
    for seed in first..first + cases * u64::from(stress()) {
        let mut random = Random::new(seed);
        random.fill(&mut image);
        for page in [EDGE, STACK_PAGES] {
            let rights = random.pick(&[0, paging::P, RW, RW]);
            m.map(page, page | rights);
        }
        m.map(EDGE + 0x1000, 0);
        let code = program(&mut random);
        m.write(CODE, &code);
        let mut start: [u64; 16] = std::array::from_fn(|_| random.value());
        start[4] = STACK_PAGES + 0x1000 + random.below(12) * 8;
        start[6] = EDGE - random.below(64) * random.pick(&[8, 8, 3, 40]);
        // The TLB must not remember the pages of the case before.
        m.reset();
        let alone = run(m, &image, &start, 0);
        m.reset();
        begin(true);
        let otherwise = run(m, &image, &start, other);
        begin(false);
        faults += u32::from(matches!(alone.0.stop, Stop::Vector(_)));
        if alone != otherwise {
            eprintln!("{}", listing(&code));
        }
        assert_eq!(alone.0, otherwise.0, "seed {seed}, from {start:x?}");
        let different = alone.1.iter().zip(&otherwise.1).position(|(a, b)| a != b);
        let address = different.map(|at| WINDOW + at as u64);
        assert_eq!(address, None, "memory, seed {seed}");
    }
    faults
}

#[test]
fn translated_programs_do_what_single_steps_do() {
    let faults = compare(&mut machine(), CASES, flags::TF, |_| {});
    assert!(faults > 100, "{faults} programs faulted");
}

#[test]
fn programs_do_not_notice_interrupts() {
    const LAPIC: u64 = 0xfee0_0000;
    let mut m = machine();
    let counter = SPARE;
    gate(&m.memory, 0x60, CODE + 0x5000, 0, 3);
    m.code(CODE + 0x5000, |a| {
        a.push(rsi)?;
        a.mov(rsi, LAPIC)?;
        a.mov(dword_ptr(rsi + 0xb0), 0)?;
        a.pop(rsi)?;
        a.inc(qword_ptr(counter))?;
        a.iretq()
    });
    m.exec(|a| {
        a.mov(rsi, LAPIC)?;
        a.mov(dword_ptr(rsi + 0xf0), 0x1ff)?;
        a.out(i32::from(STOP), al)
    })
    .end();
    let (on, end) = (AtomicBool::new(false), AtomicBool::new(false));
    let platform = Arc::clone(&m.platform);
    let memory = Arc::clone(&m.memory);
    let taken = || {
        let mut taken = [0; 8];
        memory
            .read(counter, &mut taken)
            .expect("the counter has memory");
        u64::from_le_bytes(taken)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(SeqCst) {
                if on.load(SeqCst) {
                    platform.signal_msi(LAPIC, 0x60);
                    (0..50).for_each(|_| std::hint::spin_loop());
                } else {
                    std::thread::yield_now();
                }
            }
        });
        // On a busy host the other thread hardly runs: then the programs run again.
        let cases = AssertUnwindSafe(|| {
            for _ in 0..100 {
                compare(&mut m, CASES, flags::IF, |begin| on.store(begin, SeqCst));
                if taken() > 20 {
                    break;
                }
            }
        });
        // The thread ends, whatever becomes of the programs.
        let result = catch_unwind(cases);
        end.store(true, SeqCst);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
    assert!(taken() > 20, "{}", taken());
}
