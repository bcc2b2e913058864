use ringfence_x86::{exception as ex, flags};

use super::super::{Delivery, deliver_exception, deliver_interrupt, deliver_nmi};
use super::*;
use crate::cpu::{GS, RCX, RDX};
use crate::env::Exception;

const IRETQ: &[u8] = &[0x48, 0xcf];

#[test]
fn interrupt_and_return_at_one_level() {
    let (mut cpu, mut env) = long();
    env.gate(true, 0x40, KERNEL_CODE, 14, 0, 0);
    cpu.rflags |= flags::IF | flags::ZF;
    cpu.gpr[RSP] = KERNEL_STACK - 3;
    cpu.halted = true;
    let before = cpu.rflags;
    assert_eq!(deliver_interrupt(&mut cpu, &mut env, 0x40), Delivery::Done);
    assert_eq!(cpu.rip, HANDLER);
    assert_eq!(cpu.gpr[RSP], KERNEL_STACK - 16 - 40);
    assert_eq!(cpu.rflags, before & !flags::IF);
    assert!(!cpu.halted);
    let frame = |index: u64| env.get(KERNEL_STACK - 56 + 8 * index, 8);
    assert_eq!(frame(0), CODE);
    assert_eq!(frame(1), u64::from(KERNEL_CODE));
    assert_eq!(frame(2), before);
    assert_eq!(frame(3), KERNEL_STACK - 3);
    assert_eq!(frame(4), u64::from(KERNEL_DATA));
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert_eq!(
        (cpu.rip, cpu.gpr[RSP], cpu.rflags),
        (CODE, KERNEL_STACK - 3, before)
    );
}

#[test]
fn page_fault_from_user_mode() {
    let (mut cpu, mut env) = long();
    to_user(&mut cpu);
    env.gate(true, ex::PF, KERNEL_CODE, 14, 0, 0);
    let fault = Exception {
        vector: ex::PF,
        error_code: Some(6),
        address: Some(0xffff_8000_0000_1234),
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!(cpu.cr2, 0xffff_8000_0000_1234);
    assert_eq!(
        (cpu.cpl, cpu.seg[CS].selector, cpu.seg[SS].selector),
        (0, KERNEL_CODE, 0)
    );
    assert!(cpu.seg[SS].attributes.unusable());
    assert_eq!(cpu.gpr[RSP], KERNEL_STACK - 48);
    assert_eq!(env.get(KERNEL_STACK - 48, 8), 6);
    let pushed = env.get(KERNEL_STACK - 24, 8);
    assert_eq!(pushed & (flags::RF | flags::IF), flags::RF | flags::IF);
    assert_eq!(env.get(KERNEL_STACK - 8, 8), u64::from(USER_DATA));
    cpu.gpr[RSP] += 8;
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert_eq!((cpu.cpl, cpu.rip, cpu.gpr[RSP]), (3, CODE, USER_STACK));
    assert_eq!(cpu.seg[CS].selector, USER_CODE64);
    assert_eq!(cpu.seg[SS].selector, USER_DATA);
}

#[test]
fn interrupt_stack_table_and_nmi() {
    let (mut cpu, mut env) = long();
    env.gate(true, ex::NMI, KERNEL_CODE, 14, 0, 1);
    assert_eq!(deliver_nmi(&mut cpu, &mut env), Delivery::Done);
    assert!(cpu.nmi_blocked);
    assert_eq!(cpu.gpr[RSP], IST_STACK - 40);
    assert_eq!(cpu.seg[SS].selector, KERNEL_DATA);
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert!(!cpu.nmi_blocked);
    assert_eq!(cpu.gpr[RSP], KERNEL_STACK);
}

#[test]
fn software_interrupts_obey_the_gate() {
    let (mut cpu, mut env) = long();
    to_user(&mut cpu);
    env.gate(true, 0x80, KERNEL_CODE, 14, 0, 0);
    assert_eq!(
        run(&mut cpu, &mut env, &[0xcd, 0x80]),
        Err(Trap::coded(ex::GP, 0x402))
    );
    assert_eq!((cpu.rip, cpu.cpl), (CODE, 3));
    env.gate(true, 0x80, KERNEL_CODE, 15, 3, 0);
    run(&mut cpu, &mut env, &[0xcd, 0x80]).unwrap();
    assert_eq!((cpu.rip, cpu.cpl), (HANDLER, 0));
    assert_eq!(env.get(KERNEL_STACK - 40, 8), CODE + 2);
    // A trap gate leaves IF.
    assert_ne!(cpu.rflags & flags::IF, 0);
    to_user(&mut cpu);
    cpu.seg[CS].attributes = SegmentAttributes(0xa0fb);
    env.gate(true, 0x81, KERNEL_CODE, 14, 3, 0);
    env.put(IDT + 0x810 + 5, 1, 0x6e);
    assert_eq!(
        run(&mut cpu, &mut env, &[0xcd, 0x81]),
        Err(Trap::coded(ex::NP, 0x40a))
    );
}

#[test]
fn external_events_set_the_ext_bit() {
    let (mut cpu, mut env) = long();
    env.gate(true, ex::GP, KERNEL_CODE, 14, 0, 0);
    // Vector 50h has no gate: the interrupt becomes #GP(50h * 8 + IDT + EXT).
    assert_eq!(deliver_interrupt(&mut cpu, &mut env, 0x50), Delivery::Done);
    assert_eq!(env.get(cpu.gpr[RSP], 8), 0x50 << 3 | 3);
}

#[test]
fn double_and_triple_faults() {
    let (mut cpu, mut env) = long();
    env.gate(true, ex::DF, KERNEL_CODE, 14, 0, 1);
    let fault = Exception {
        vector: ex::GP,
        error_code: Some(0),
        address: None,
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!(env.get(cpu.gpr[RSP], 8), 0);
    assert_eq!(env.get(cpu.gpr[RSP] + 8, 8), CODE);
    assert_eq!(cpu.gpr[RSP], IST_STACK - 48);
    let (mut cpu, mut env) = long();
    let before = cpu.clone();
    assert_eq!(
        deliver_exception(&mut cpu, &mut env, fault),
        Delivery::Shutdown
    );
    assert_eq!(
        (cpu.rip, cpu.gpr, cpu.rflags),
        (before.rip, before.gpr, before.rflags)
    );
    // A benign exception whose delivery faults becomes that fault.
    env.gate(true, ex::GP, KERNEL_CODE, 14, 0, 0);
    let benign = Exception {
        vector: ex::UD,
        error_code: None,
        address: None,
    };
    assert_eq!(
        deliver_exception(&mut cpu, &mut env, benign),
        Delivery::Done
    );
    assert_eq!(env.get(cpu.gpr[RSP], 8), u64::from(ex::UD) << 3 | 3);
}

#[test]
fn a_page_fault_on_the_stack_of_a_page_fault_is_a_double_fault() {
    let (mut cpu, mut env) = long();
    env.gate(true, ex::PF, KERNEL_CODE, 14, 0, 0);
    env.gate(true, ex::DF, KERNEL_CODE, 14, 0, 1);
    env.absent = Some(KERNEL_STACK - 0x1000);
    let fault = Exception {
        vector: ex::PF,
        error_code: Some(2),
        address: Some(0x1234),
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!(cpu.cr2, KERNEL_STACK - 8);
    assert_eq!(cpu.gpr[RSP], IST_STACK - 48);
}

#[test]
fn iretq_faults_leave_everything() {
    let (mut cpu, mut env) = long();
    let stack = KERNEL_STACK - 40;
    cpu.gpr[RSP] = stack;
    let frame = |env: &mut Mock, values: [u64; 5]| {
        for (index, value) in values.into_iter().enumerate() {
            env.put(stack + 8 * index as u64, 8, value);
        }
    };
    let (cs, ss) = (u64::from(USER_CODE64), u64::from(USER_DATA));
    for (values, trap) in [
        ([1 << 47, cs, 2, USER_STACK, ss], Trap::GP0),
        ([CODE, 0, 2, USER_STACK, ss], Trap::GP0),
        ([CODE, cs, 2, USER_STACK, 0], Trap::GP0),
        ([CODE, cs, 2, USER_STACK, 3], Trap::GP0),
        (
            [CODE, 0x1000, 2, USER_STACK, ss],
            Trap::coded(ex::GP, 0x1000),
        ),
        ([CODE, cs, 2, USER_STACK, 0x10], Trap::coded(ex::GP, 0x10)),
        (
            [CODE, cs & !3, 2, USER_STACK, ss],
            Trap::coded(ex::GP, 0x28),
        ),
        ([CODE, cs, 2, USER_STACK, 0x53], Trap::coded(ex::SS, 0x50)),
    ] {
        frame(&mut env, values);
        assert_eq!(run(&mut cpu, &mut env, IRETQ), Err(trap), "{values:x?}");
        assert_eq!((cpu.rip, cpu.gpr[RSP], cpu.cpl), (CODE, stack, 0));
        assert_eq!(cpu.seg[CS].selector, KERNEL_CODE);
    }
    cpu.rflags |= flags::NT;
    assert_eq!(run(&mut cpu, &mut env, IRETQ), Err(Trap::GP0));
    cpu.rflags &= !flags::NT;
    // To compatibility mode.
    frame(
        &mut env,
        [0x1234, u64::from(USER_CODE32), 0x202, 0x5678, ss],
    );
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert_eq!(
        (cpu.bitness(), cpu.cpl, cpu.rip, cpu.gpr[RSP]),
        (32, 3, 0x1234, 0x5678)
    );
    // A null SS for level 0.
    let (mut cpu, mut env) = long();
    cpu.gpr[RSP] = stack;
    frame(&mut env, [CODE + 5, u64::from(KERNEL_CODE), 2, DATA, 0]);
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert_eq!(
        (cpu.rip, cpu.gpr[RSP], cpu.seg[SS].selector),
        (CODE + 5, DATA, 0)
    );
}

#[test]
fn iret_flags_by_level() {
    let (mut cpu, mut env) = long();
    to_user(&mut cpu);
    let stack = USER_STACK - 40;
    cpu.gpr[RSP] = stack;
    let all = 0x3f_7fd5 & !flags::VM;
    for (index, value) in [
        CODE,
        u64::from(USER_CODE64),
        all,
        DATA,
        u64::from(USER_DATA),
    ]
    .into_iter()
    .enumerate()
    {
        env.put(stack + 8 * index as u64, 8, value);
    }
    cpu.rflags = flags::FIXED;
    run(&mut cpu, &mut env, IRETQ).unwrap();
    let refused = flags::IF | flags::IOPL | flags::VIF | flags::VIP;
    assert_eq!(cpu.rflags, all & !refused | flags::FIXED);
}

#[test]
fn syscall_and_sysret() {
    let (mut cpu, mut env) = long();
    cpu.msr.star = 0x0018_0008_0000_0000;
    cpu.msr.lstar = HANDLER;
    cpu.msr.fmask = flags::IF | flags::DF;
    to_user(&mut cpu);
    cpu.rflags |= flags::DF | flags::CF | flags::RF;
    run(&mut cpu, &mut env, &[0x0f, 0x05]).unwrap();
    assert_eq!((cpu.rip, cpu.cpl, cpu.gpr[RCX]), (HANDLER, 0, CODE + 2));
    assert_eq!(
        cpu.gpr[11],
        flags::FIXED | flags::IF | flags::DF | flags::CF
    );
    assert_eq!(cpu.rflags, flags::FIXED | flags::CF);
    assert_eq!(
        (cpu.seg[CS].selector, cpu.seg[SS].selector),
        (KERNEL_CODE, KERNEL_DATA)
    );
    assert!(cpu.mode64());
    assert_eq!(cpu.gpr[RSP], USER_STACK);
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0x07]).unwrap();
    assert_eq!((cpu.rip, cpu.cpl), (CODE + 2, 3));
    assert_eq!(
        (cpu.seg[CS].selector, cpu.seg[SS].selector),
        (USER_CODE64, USER_DATA)
    );
    assert_eq!(cpu.rflags, flags::FIXED | flags::IF | flags::DF | flags::CF);
    assert_eq!(run(&mut cpu, &mut env, &[0x48, 0x0f, 0x07]), Err(Trap::GP0));
    let (mut cpu, mut env) = long();
    cpu.gpr[RCX] = 1 << 47;
    assert_eq!(run(&mut cpu, &mut env, &[0x48, 0x0f, 0x07]), Err(Trap::GP0));
    cpu.gpr[RCX] = 0x1_0000_1234;
    cpu.msr.star = 0x0018_0008_0000_0000;
    run(&mut cpu, &mut env, &[0x0f, 0x07]).unwrap();
    assert_eq!(
        (cpu.rip, cpu.bitness(), cpu.seg[CS].selector),
        (0x1234, 32, USER_CODE32)
    );
    cpu.efer &= !cr::EFER_SCE;
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x05]), Err(Trap::UD));
}

#[test]
fn segment_bases() {
    let (mut cpu, mut env) = long();
    cpu.seg[GS].base = 0x1111;
    cpu.msr.kernel_gs_base = 0xffff_8000_0000_0000;
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0xf8]).unwrap();
    assert_eq!(
        (cpu.seg[GS].base, cpu.msr.kernel_gs_base),
        (0xffff_8000_0000_0000, 0x1111)
    );
    // RDGSBASE RDX is #UD until CR4 enables it.
    let rdgsbase = [0xf3, 0x48, 0x0f, 0xae, 0xca];
    assert_eq!(run(&mut cpu, &mut env, &rdgsbase), Err(Trap::UD));
    cpu.cr4 |= cr::CR4_FSGSBASE;
    run(&mut cpu, &mut env, &rdgsbase).unwrap();
    assert_eq!(cpu.gpr[RDX], 0xffff_8000_0000_0000);
    cpu.gpr[RDX] = 1 << 47;
    assert_eq!(
        run(&mut cpu, &mut env, &[0xf3, 0x48, 0x0f, 0xae, 0xda]),
        Err(Trap::GP0)
    );
    to_user(&mut cpu);
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x01, 0xf8]), Err(Trap::GP0));
}

#[test]
fn interrupt_from_compatibility_mode() {
    let (mut cpu, mut env) = long();
    to_user(&mut cpu);
    cpu.seg[CS].selector = USER_CODE32;
    cpu.seg[CS].attributes = SegmentAttributes(0xc0fb);
    env.gate(true, 0x80, KERNEL_CODE, 14, 3, 0);
    run(&mut cpu, &mut env, &[0xcd, 0x80]).unwrap();
    assert_eq!((cpu.bitness(), cpu.gpr[RSP]), (64, KERNEL_STACK - 40));
    run(&mut cpu, &mut env, IRETQ).unwrap();
    assert_eq!(
        (cpu.bitness(), cpu.rip, cpu.gpr[RSP]),
        (32, CODE + 2, USER_STACK)
    );
}
