//! x87 exceptions as an interrupt of the board, while CR0.NE is clear.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_x86::cr;
use system::*;

type Asm = Result<(), IcedError>;

/// Vectors of the PICs.
const BASE: u8 = 0x50;
const FPU: u8 = BASE + 13;
const CONTROL: u64 = DATA + 0x200;

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

/// The PICs with IRQ 13 open, through LINT0; CR0.NE clear; the x87 with zero divide unmasked.
fn prepare(a: &mut CodeAssembler) -> Asm {
    a.mov(rsi, 0xfee0_0000u64)?;
    a.mov(dword_ptr(rsi + 0xf0), 0x1ff)?;
    a.mov(dword_ptr(rsi + 0x350), 0x700)?;
    for (port, value) in [
        (0x20, 0x11),
        (0x21, BASE),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfb),
        (0xa0, 0x11),
        (0xa1, BASE + 8),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xdf),
    ] {
        a.mov(al, u32::from(value))?;
        a.out(port, al)?;
    }
    a.mov(rax, cr0)?;
    a.and(eax, !((cr::CR0_NE | cr::CR0_EM | cr::CR0_TS) as i32))?;
    a.mov(cr0, rax)?;
    a.mov(word_ptr(CONTROL), 0x37b)?;
    a.fninit()?;
    a.fldcw(word_ptr(CONTROL))
}

fn divide_by_zero(a: &mut CodeAssembler) -> Asm {
    a.fld1()?;
    a.fldz()?;
    a.fdivp(st1, st0)
}

#[test]
fn an_unmasked_exception_is_irq_13_at_the_next_waiting_instruction() {
    let mut m = Machine::new(1);
    for waits in [true, false] {
        let stop_ = m.exec(|a| {
            prepare(a)?;
            a.sti()?;
            divide_by_zero(a)?;
            a.mov(ecx, 1)?;
            if waits {
                a.wait()?;
            } else {
                a.fld1()?;
            }
            a.mov(ecx, 2)?;
            stop(a)
        });
        let frame = stop_.expect(FPU);
        assert_eq!(m.registers().gpr[1], 1);
        // The handler of every PC: port F0h, end of interrupt, FNCLEX; then the instruction runs.
        m.code(SPARE, |a| {
            a.out(0xf0, al)?;
            // Under IGNNE# a waiting instruction goes on.
            a.wait()?;
            a.fld1()?;
            a.fnclex()?;
            a.mov(al, 0x20)?;
            a.out(0xa0, al)?;
            a.out(0x20, al)?;
            a.iretq()
        });
        let top = m.registers().gpr[4];
        m.set(|r| (r.rip, r.gpr[4]) = (SPARE, top));
        assert_eq!(frame.vector, FPU);
        m.run().end();
        assert_eq!(m.registers().gpr[1], 2);
        // A second exception is an interrupt of its own.
        m.exec(|a| {
            prepare(a)?;
            a.sti()?;
            divide_by_zero(a)?;
            a.wait()?;
            stop(a)
        })
        .expect(FPU);
        m.exec(|a| {
            a.fnclex()?;
            a.out(0xf0, al)?;
            a.mov(al, 0x20)?;
            a.out(0xa0, al)?;
            a.out(0x20, al)?;
            stop(a)
        })
        .end();
    }
}

#[test]
fn with_native_reporting_it_is_an_exception() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        prepare(a)?;
        a.mov(rax, cr0)?;
        a.or(eax, cr::CR0_NE as i32)?;
        a.mov(cr0, rax)?;
        divide_by_zero(a)?;
        a.wait()?;
        stop(a)
    })
    .expect(ringfence_x86::exception::MF);
}
