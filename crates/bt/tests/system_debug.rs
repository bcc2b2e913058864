//! Single steps, interrupt shadows, breakpoints: what happens between two instructions.

mod system;

use iced_x86::code_asm::*;
use ringfence_x86::exception as ex;
use ringfence_x86::flags;
use system::*;

/// Single-steps from the current state until `end` is reached; returns the addresses of the steps.
fn steps(m: &mut Machine, end: u64) -> Vec<u64> {
    let mut addresses = Vec::new();
    let mut stop = m.run();
    loop {
        let frame = stop.expect(ex::DB);
        addresses.push(frame.rip);
        assert!(addresses.len() < 200, "{addresses:x?}");
        if frame.rip == end {
            return addresses;
        }
        stop = m.resume(frame);
    }
}

#[test]
fn single_steps_follow_every_branch() {
    let mut m = Machine::new(1);
    let mut end = 0;
    let bytes = assemble(64, CODE, |a| {
        let (mut loop_, mut out, mut function) =
            (a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, 3)?;
        a.set_label(&mut loop_)?;
        a.dec(ecx)?;
        a.jne(loop_)?;
        a.call(function)?;
        a.jmp(out)?;
        a.set_label(&mut function)?;
        a.push(rax)?;
        a.pop(rbx)?;
        a.ret()?;
        a.set_label(&mut out)?;
        a.nop()?;
        a.nop()
    });
    m.write(CODE, &bytes);
    end += CODE + bytes.len() as u64;
    for user in [false, true] {
        if user {
            let bytes = bytes.clone();
            m.write(USER, &bytes);
            m.start_user(USER, flags::FIXED | flags::TF);
            end = USER + bytes.len() as u64;
        } else {
            // In translated form first.
            m.code(end, |a| a.out(i32::from(STOP), al));
            m.start(CODE);
            m.run().end();
            m.start_frame(
                CODE,
                KERNEL_CODE,
                flags::FIXED | flags::TF,
                STACK - 0x100,
                KERNEL_DATA,
            );
        }
        let found = steps(&mut m, end);
        // mov; 3 times dec, jne; call; push, pop, ret; jmp; nop, nop.
        assert_eq!(found.len(), 1 + 6 + 1 + 3 + 1 + 2, "{found:x?}");
        assert_eq!(m.registers().gpr[1], 0);
    }
}

#[test]
fn popf_and_repeated_strings_under_single_step() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::TF as i32)?;
        a.mov(rdi, DATA)?;
        a.mov(ecx, 3)?;
        a.popfq()?;
        a.rep().stosb()?;
        a.nop()?;
        a.out(i32::from(STOP), al)
    });
    // Each element is a step: RIP stays on the instruction until the last.
    let first = m.registers();
    assert_eq!((first.gpr[1], first.gpr[7]), (2, DATA + 1));
}

#[test]
fn a_shadow_of_one_instruction_follows_sti_and_ss() {
    let mut m = Machine::new(1);
    // The local APIC sends itself an interrupt.
    let icr = 0xfee0_0300u64;
    m.exec(|a| {
        a.mov(rsi, icr)?;
        a.mov(dword_ptr(rsi - 0x210), 0x1ff)?;
        a.mov(dword_ptr(rsi), 0x4_00b0)?;
        a.sti()?;
        a.inc(ecx)?;
        a.inc(ecx)?;
        a.inc(ecx)?;
        a.out(i32::from(STOP), al)
    })
    .expect(0xb0);
    assert_eq!(m.registers().gpr[1], 1);
    eoi(&mut m);
    // STI with IF set already has no shadow, STI; CLI lets nothing in.
    let stop = m.exec(|a| {
        a.mov(rsi, icr)?;
        a.mov(dword_ptr(rsi), 0x4_00b0)?;
        a.sti()?;
        a.cli()?;
        a.nop()?;
        a.out(i32::from(STOP), al)
    });
    stop.end();
    m.exec(|a| {
        a.sti()?;
        a.nop()?;
        a.inc(ecx)
    })
    .expect(0xb0);
    assert_eq!(m.registers().gpr[1], 0);
    eoi(&mut m);
    // MOV SS: the interrupt that POPF lets in waits for the instruction after it; no other.
    m.exec(|a| {
        a.mov(ebx, i32::from(KERNEL_DATA))?;
        a.mov(rsi, icr)?;
        a.mov(dword_ptr(rsi), 0x4_00b0)?;
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::IF as i32)?;
        a.popfq()?;
        a.inc(ecx)?;
        a.out(i32::from(STOP), al)
    })
    .expect(0xb0);
    assert_eq!(m.registers().gpr[1], 0);
    eoi(&mut m);
    // A single step is held off by MOV SS as well.
    m.code(CODE, |a| {
        a.mov(ss, ebx)?;
        a.nop()?;
        a.nop()
    });
    m.start_frame(
        CODE,
        KERNEL_CODE,
        flags::FIXED | flags::TF,
        STACK - 0x100,
        KERNEL_DATA,
    );
    m.set(|r| r.gpr[3] = u64::from(KERNEL_DATA));
    let frame = m.run().expect(ex::DB);
    assert_eq!(frame.rip, CODE + 3);
}

fn eoi(m: &mut Machine) {
    m.exec(|a| {
        a.mov(rsi, 0xfee0_00b0u64)?;
        a.mov(dword_ptr(rsi), 0)?;
        a.out(i32::from(STOP), al)
    })
    .end();
}

#[test]
fn data_and_instruction_breakpoints_are_kept_in_the_registers() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        a.mov(rax, DATA)?;
        a.mov(dr0, rax)?;
        a.mov(rbx, dr0)?;
        a.mov(rcx, dr6)?;
        a.mov(rdx, dr7)?;
        a.out(i32::from(STOP), al)
    })
    .end();
    let gpr = m.registers().gpr;
    assert_eq!((gpr[3], gpr[1], gpr[2]), (DATA, 0xffff_0ff0, 0x400));
    // General detect: any access to a debug register faults, and clears GD for the handler.
    let frame = m
        .exec(|a| {
            a.mov(eax, 0x2400)?;
            a.mov(dr7, rax)?;
            a.mov(rbx, dr0)
        })
        .expect(ex::DB);
    let length = assemble(64, CODE, |a| {
        a.mov(eax, 0x2400)?;
        a.mov(dr7, rax)
    })
    .len() as u64;
    assert_eq!(frame.rip, CODE + length);
    m.exec(|a| {
        a.mov(rcx, dr6)?;
        a.mov(rdx, dr7)?;
        a.out(i32::from(STOP), al)
    })
    .end();
    let gpr = m.registers().gpr;
    assert_eq!((gpr[1] & 1 << 13, gpr[2] & 1 << 13), (1 << 13, 0));
}

#[test]
fn syscall_with_and_without_a_masked_trap_flag() {
    let mut m = Machine::new(1);
    for masked in [true, false] {
        let fmask = if masked { flags::TF } else { 0 };
        let target = CODE + 0x400;
        m.code(target, |a| {
            a.nop()?;
            a.nop()?;
            a.out(i32::from(STOP), al)
        });
        m.exec(|a| {
            for (msr, value) in [
                (
                    0xc000_0081u32,
                    u64::from(KERNEL_CODE) << 32 | u64::from(USER_CODE32) << 48,
                ),
                (0xc000_0082, target),
                (0xc000_0084, fmask),
            ] {
                a.mov(ecx, msr)?;
                a.mov(eax, value as u32)?;
                a.mov(edx, (value >> 32) as u32)?;
                a.wrmsr()?;
            }
            a.out(i32::from(STOP), al)
        })
        .end();
        m.code(USER, |a| a.syscall());
        m.start_user(USER, flags::FIXED | flags::TF);
        let stop = m.run();
        // The kernel runs on the user's stack pointer here, which is fine.
        if masked {
            stop.end();
        } else {
            let frame = stop.expect(ex::DB);
            assert!(frame.rip == target || frame.rip == target + 1, "{frame:x?}");
        }
        let r = m.registers();
        assert_eq!((r.gpr[1], r.gpr[11] & flags::TF), (USER + 2, flags::TF));
    }
}
