use ringfence_x86::exception as ex;

use super::super::{Delivery, deliver_exception, deliver_interrupt};
use super::*;
use crate::cpu::{DS, ES, FS, RAX, RCX, RDI, RDX, RSI};
use crate::env::Exception;

/// `MOV DS, AX`, `MOV SS, AX`.
const MOV_DS: &[u8] = &[0x8e, 0xd8];
const MOV_SS: &[u8] = &[0x8e, 0xd0];
const IRETD: &[u8] = &[0xcf];

#[test]
fn data_segment_checks() {
    let (mut cpu, mut env) = protected();
    for (selector, trap) in [
        (0x1000u16, Trap::coded(ex::GP, 0x1000)),
        (0x0c, Trap::coded(ex::GP, 0x0c)),
        (TASK, Trap::coded(ex::GP, 0x30)),
        (0x13, Trap::coded(ex::GP, 0x10)),
        (ABSENT, Trap::coded(ex::NP, 0x50)),
    ] {
        cpu.gpr[RAX] = u64::from(selector);
        assert_eq!(run(&mut cpu, &mut env, MOV_DS), Err(trap), "{selector:x}");
        assert_eq!((cpu.seg[DS].selector, cpu.rip), (KERNEL_DATA, CODE));
    }
    cpu.gpr[RAX] = u64::from(READ_ONLY);
    run(&mut cpu, &mut env, MOV_DS).unwrap();
    assert_eq!(env.get(GDT + u64::from(READ_ONLY) + 5, 1), 0x91, "accessed");
    assert_eq!((cpu.seg[DS].limit, cpu.rip), (u32::MAX, CODE + 2));
    cpu.gpr[RAX] = 3;
    run(&mut cpu, &mut env, MOV_DS).unwrap();
    assert!(cpu.seg[DS].attributes.unusable());
    assert_eq!(cpu.seg[DS].selector, 3);
    // MOV CS, AX does not exist.
    let mut decoder = Decoder::with_ip(32, &[0x8e, 0xc8], CODE, DecoderOptions::NO_INVALID_CHECK);
    let instruction = decoder.decode();
    assert_eq!(
        super::super::execute(&mut cpu, &mut env, &instruction),
        Some(Err(Trap::UD))
    );
}

#[test]
fn stack_segment_checks() {
    let (mut cpu, mut env) = protected();
    for (selector, trap) in [
        (0u16, Trap::GP0),
        (USER_DATA, Trap::coded(ex::GP, 0x20)),
        (KERNEL_CODE, Trap::coded(ex::GP, 0x08)),
        (READ_ONLY, Trap::coded(ex::GP, 0x58)),
    ] {
        cpu.gpr[RAX] = u64::from(selector);
        assert_eq!(run(&mut cpu, &mut env, MOV_SS), Err(trap), "{selector:x}");
    }
    env.descriptor(ABSENT, 0x00cf_1300_0000_ffff);
    cpu.gpr[RAX] = u64::from(ABSENT);
    assert_eq!(
        run(&mut cpu, &mut env, MOV_SS),
        Err(Trap::coded(ex::SS, 0x50))
    );
    assert!(!cpu.interrupt_shadow);
    cpu.gpr[RAX] = u64::from(KERNEL_DATA);
    run(&mut cpu, &mut env, MOV_SS).unwrap();
    assert!(cpu.interrupt_shadow);
}

#[test]
fn push_pop_and_far_pointers() {
    let (mut cpu, mut env) = protected();
    run(&mut cpu, &mut env, &[0x1e]).unwrap();
    assert_eq!(
        (cpu.gpr[RSP], env.get(KERNEL_STACK - 4, 4)),
        (KERNEL_STACK - 4, 0x10)
    );
    env.put(KERNEL_STACK - 4, 4, 0xabcd_0000 | u64::from(USER_DATA));
    run(&mut cpu, &mut env, &[0x07]).unwrap();
    assert_eq!(
        (cpu.seg[ES].selector, cpu.gpr[RSP]),
        (USER_DATA, KERNEL_STACK)
    );
    env.put(DATA, 4, 0x1234_5678);
    env.put(DATA + 4, 2, u64::from(USER_DATA));
    cpu.gpr[RSI] = DATA;
    // LFS EAX, [ESI]
    run(&mut cpu, &mut env, &[0x0f, 0xb4, 0x06]).unwrap();
    assert_eq!(
        (cpu.gpr[RAX], cpu.seg[FS].selector),
        (0x1234_5678, USER_DATA)
    );
    env.put(DATA + 4, 2, 0x1000);
    cpu.gpr[RAX] = 0;
    assert_eq!(
        run(&mut cpu, &mut env, &[0x0f, 0xb4, 0x06]),
        Err(Trap::coded(ex::GP, 0x1000))
    );
    assert_eq!((cpu.gpr[RAX], cpu.seg[FS].selector), (0, USER_DATA));
}

#[test]
fn local_descriptor_table() {
    let (mut cpu, mut env) = protected();
    cpu.gpr[RAX] = 0x0c;
    assert_eq!(
        run(&mut cpu, &mut env, MOV_DS),
        Err(Trap::coded(ex::GP, 0x0c))
    );
    // LLDT AX
    cpu.gpr[RAX] = u64::from(KERNEL_DATA);
    assert_eq!(
        run(&mut cpu, &mut env, &[0x0f, 0x00, 0xd0]),
        Err(Trap::coded(ex::GP, 0x10))
    );
    cpu.gpr[RAX] = u64::from(LOCAL);
    run(&mut cpu, &mut env, &[0x0f, 0x00, 0xd0]).unwrap();
    env.put(LDT + 8, 8, 0x0040_9300_1000_0fff);
    cpu.gpr[RAX] = 0x0c;
    run(&mut cpu, &mut env, MOV_DS).unwrap();
    assert_eq!((cpu.seg[DS].base, cpu.seg[DS].limit), (0x1000, 0xfff));
    // LTR AX: the busy TSS is refused, the other one becomes busy.
    cpu.gpr[RAX] = u64::from(TASK);
    assert_eq!(
        run(&mut cpu, &mut env, &[0x0f, 0x00, 0xd8]),
        Err(Trap::coded(ex::GP, 0x30))
    );
    cpu.gpr[RAX] = u64::from(TASK2);
    run(&mut cpu, &mut env, &[0x0f, 0x00, 0xd8]).unwrap();
    assert_eq!(env.get(GDT + u64::from(TASK2) + 5, 1), 0x8b);
    assert_eq!((cpu.tr.base, cpu.tr.selector), (TSS2, TASK2));
}

#[test]
fn accessed_bits_are_set_as_supervisor() {
    let (mut cpu, mut env) = protected();
    env.descriptor(USER_DATA, 0x00cf_f200_0000_ffff);
    to_user(&mut cpu);
    cpu.gpr[RAX] = u64::from(USER_DATA);
    run(&mut cpu, &mut env, MOV_DS).unwrap();
    assert_eq!(env.get(GDT + 0x25, 1), 0xf3);
    assert_eq!(cpu.cpl, 3);
    // A page fault on the table is a supervisor access.
    env.descriptor(USER_DATA, 0x00cf_f200_0000_ffff);
    env.absent = Some(GDT);
    assert_eq!(
        run(&mut cpu, &mut env, MOV_DS),
        Err(Trap::page_fault(GDT + 0x20, 0))
    );
}

#[test]
fn interrupt_switches_stacks_and_returns() {
    let (mut cpu, mut env) = protected();
    to_user(&mut cpu);
    env.gate(false, 0x20, KERNEL_CODE, 14, 0, 0);
    assert_eq!(deliver_interrupt(&mut cpu, &mut env, 0x20), Delivery::Done);
    assert_eq!(
        (cpu.cpl, cpu.gpr[RSP], cpu.rip),
        (0, KERNEL_STACK - 20, HANDLER)
    );
    assert_eq!(cpu.seg[SS].selector, KERNEL_DATA);
    assert_eq!(env.get(KERNEL_STACK - 8, 4), USER_STACK);
    assert_eq!(env.get(KERNEL_STACK - 4, 4), u64::from(USER_DATA));
    // Data segments that level 3 may not have become null on the way back.
    run(&mut cpu, &mut env, IRETD).unwrap();
    assert_eq!((cpu.cpl, cpu.gpr[RSP], cpu.rip), (3, USER_STACK, CODE));
    assert!(cpu.seg[DS].attributes.unusable());
}

#[test]
fn invalid_inner_stacks_are_invalid_tss() {
    let (mut cpu, mut env) = protected();
    to_user(&mut cpu);
    env.gate(false, 0x20, KERNEL_CODE, 14, 0, 0);
    env.gate(false, ex::TS, KERNEL_CODE, 14, 0, 0);
    env.put(TSS + 8, 4, u64::from(USER_DATA));
    // The handler of #TS needs the same stack: double, then triple fault.
    assert_eq!(
        deliver_interrupt(&mut cpu, &mut env, 0x20),
        Delivery::Shutdown
    );
    env.gate(false, 0x21, KERNEL_CODE, 14, 3, 0);
    assert_eq!(
        run(&mut cpu, &mut env, &[0xcd, 0x21]),
        Err(Trap::coded(ex::TS, 0x20))
    );
    cpu.tr.limit = 7;
    assert_eq!(
        run(&mut cpu, &mut env, &[0xcd, 0x21]),
        Err(Trap::coded(ex::TS, 0x30))
    );
}

#[test]
fn error_code_is_pushed_by_16_bit_gates() {
    let (mut cpu, mut env) = protected();
    env.put(IDT + 8 * 13, 8, gate(KERNEL_CODE, 0x1234, 6, 0));
    let fault = Exception {
        vector: ex::GP,
        error_code: Some(0x1_5678),
        address: None,
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (0x1234, KERNEL_STACK - 8));
    assert_eq!(env.get(KERNEL_STACK - 8, 2), 0x5678);
    assert_eq!(env.get(KERNEL_STACK - 6, 2), CODE & 0xffff);
}

#[test]
fn port_permissions() {
    let (mut cpu, mut env) = protected();
    to_user(&mut cpu);
    cpu.gpr[RDX] = 0x3f8;
    cpu.gpr[RAX] = 0x41;
    let out = [0xee];
    env.put(TSS + 0x66, 2, 0x68);
    env.memory[TSS as usize + 0x68..][..0x2000].fill(0xff);
    assert_eq!(run(&mut cpu, &mut env, &out), Err(Trap::GP0));
    env.put(TSS + 0x68 + 0x7f, 1, 0xfe);
    run(&mut cpu, &mut env, &out).unwrap();
    assert_eq!(env.outputs, [(0x3f8, 1, 0x41)]);
    // OUT DX, EAX needs all four ports.
    assert_eq!(run(&mut cpu, &mut env, &[0xef]), Err(Trap::GP0));
    // The last byte of the bitmap has no byte behind it.
    cpu.gpr[RDX] = 0xffff;
    env.put(TSS + 0x2067, 1, 0);
    assert_eq!(run(&mut cpu, &mut env, &out), Err(Trap::GP0));
    cpu.rflags |= ringfence_x86::flags::IOPL;
    run(&mut cpu, &mut env, &out).unwrap();
}

#[test]
fn repeated_port_instructions() {
    let (mut cpu, mut env) = protected();
    (cpu.gpr[RDX], cpu.gpr[RCX], cpu.gpr[RDI]) = (0x1f0, 3, DATA);
    // REP INSW
    let code = [0xf3, 0x66, 0x6d];
    run(&mut cpu, &mut env, &code).unwrap();
    assert_eq!(env.get(DATA, 8), 0x3_0002_0001);
    assert_eq!(
        (cpu.gpr[RCX], cpu.gpr[RDI], cpu.rip, env.commits),
        (0, DATA + 6, CODE + 3, 3)
    );
    (cpu.rip, cpu.gpr[RCX], env.yields) = (CODE, 2, true);
    run(&mut cpu, &mut env, &code).unwrap();
    assert_eq!((cpu.gpr[RCX], cpu.rip), (1, CODE));
    run(&mut cpu, &mut env, &code).unwrap();
    assert_eq!((cpu.gpr[RCX], cpu.rip), (0, CODE + 3));
    // A fault keeps what is complete, and does not read the port.
    (cpu.rip, cpu.gpr[RCX], cpu.gpr[RDI], env.yields) = (CODE, 2, DATA + 0xffe, false);
    env.absent = Some(DATA + 0x1000);
    let input = env.input;
    assert_eq!(
        run(&mut cpu, &mut env, &code),
        Err(Trap::page_fault(DATA + 0x1000, ex::PF_WRITE))
    );
    assert_eq!(
        (cpu.gpr[RCX], cpu.gpr[RDI], env.input),
        (1, DATA + 0x1000, input + 1)
    );
    // REP OUTSB, backwards.
    (cpu.rip, cpu.gpr[RCX], cpu.gpr[RSI]) = (CODE, 2, DATA + 1);
    cpu.rflags |= ringfence_x86::flags::DF;
    run(&mut cpu, &mut env, &[0xf3, 0x6e]).unwrap();
    assert_eq!(env.outputs, [(0x1f0, 1, 0), (0x1f0, 1, 1)]);
    assert_eq!(cpu.gpr[RSI], DATA - 1);
}
