//! Real mode and virtual-8086 mode.

use ringfence_x86::{exception as ex, flags};

use super::super::{Delivery, deliver_exception, deliver_interrupt, startup};
use super::*;
use crate::cpu::{DS, ES, FS, GS, RAX};
use crate::env::Exception;

fn real() -> (Box<Cpu>, Mock) {
    let (mut cpu, env) = (Cpu::new(), Mock::new());
    cpu.seg[CS].selector = 0x1000;
    cpu.seg[CS].base = 0x1_0000;
    cpu.seg[SS].selector = 0x2000;
    cpu.seg[SS].base = 0x2_0000;
    cpu.gpr[RSP] = 0x1234_0100;
    cpu.rip = 0x10;
    cpu.rflags |= flags::IF;
    (cpu, env)
}

#[test]
fn interrupt_and_return() {
    let (mut cpu, mut env) = real();
    env.put(0x21 * 4, 4, 0x3000_4567);
    run(&mut cpu, &mut env, &[0xcd, 0x21]).unwrap();
    assert_eq!(
        (cpu.seg[CS].selector, cpu.seg[CS].base, cpu.rip),
        (0x3000, 0x3_0000, 0x4567)
    );
    assert_eq!(cpu.gpr[RSP], 0x1234_00fa);
    assert_eq!(env.get(0x2_00fa, 6), 0x0202_1000_0012);
    assert_eq!(cpu.rflags & flags::IF, 0);
    run(&mut cpu, &mut env, &[0xcf]).unwrap();
    assert_eq!(
        (cpu.seg[CS].base, cpu.rip, cpu.gpr[RSP]),
        (0x1_0000, 0x12, 0x1234_0100)
    );
    assert_ne!(cpu.rflags & flags::IF, 0);
}

#[test]
fn faults_push_no_error_code() {
    let (mut cpu, mut env) = real();
    env.put(13 * 4, 4, 0x3000_0000);
    let fault = Exception {
        vector: ex::GP,
        error_code: Some(0),
        address: None,
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!(cpu.gpr[RSP] & 0xffff, 0xfa);
    // Beyond the limit of the vector table: #GP, #DF, shutdown.
    cpu.idtr.limit = 3;
    assert_eq!(deliver_interrupt(&mut cpu, &mut env, 8), Delivery::Shutdown);
}

#[test]
fn segments_keep_their_limits() {
    let (mut cpu, mut env) = real();
    cpu.seg[DS].limit = u32::MAX;
    cpu.gpr[RAX] = 0x1234;
    run(&mut cpu, &mut env, &[0x8e, 0xd8]).unwrap();
    assert_eq!((cpu.seg[DS].base, cpu.seg[DS].limit), (0x1_2340, u32::MAX));
    // Far call and return.
    run(&mut cpu, &mut env, &[0x9a, 0x78, 0x56, 0x00, 0x30]).unwrap();
    assert_eq!(
        (cpu.seg[CS].base, cpu.rip, env.get(0x2_00fc, 4)),
        (0x3_0000, 0x5678, 0x1000_0017)
    );
    run(&mut cpu, &mut env, &[0xca, 0x04, 0x00]).unwrap();
    assert_eq!(
        (cpu.seg[CS].base, cpu.rip, cpu.gpr[RSP]),
        (0x1_0000, 0x17, 0x1234_0104)
    );
}

#[test]
fn protected_mode_instructions_do_not_exist() {
    let (mut cpu, mut env) = real();
    for code in [
        [0x0f, 0x00, 0xd8],
        [0x0f, 0x00, 0xc0],
        [0x0f, 0x02, 0xc0],
        [0x0f, 0x00, 0xe0],
    ] {
        assert_eq!(run(&mut cpu, &mut env, &code), Err(Trap::UD), "{code:x?}");
    }
}

#[test]
fn start_up() {
    let mut cpu = Cpu::new();
    cpu.reset(true);
    startup(&mut cpu, 0x9f);
    assert_eq!(
        (cpu.seg[CS].selector, cpu.seg[CS].base, cpu.rip),
        (0x9f00, 0x9_f000, 0)
    );
    assert_eq!(cpu.seg[CS].limit, 0xffff);
}

/// Enters virtual-8086 mode from protected mode by IRETD.
fn virtual8086(set: u64) -> (Box<Cpu>, Mock) {
    let (mut cpu, mut env) = protected();
    let stack = KERNEL_STACK - 36;
    let eflags = flags::VM | flags::FIXED | flags::IF | set;
    let frame = [
        0x10, 0x1000, eflags, 0x100, 0x2000, 0x5000, 0x4000, 0x6000, 0x7000,
    ];
    for (index, value) in frame.into_iter().enumerate() {
        env.put(stack + 4 * index as u64, 4, value);
    }
    cpu.gpr[RSP] = stack;
    run(&mut cpu, &mut env, &[0xcf]).unwrap();
    (cpu, env)
}

#[test]
fn virtual8086_entry_and_exit() {
    let (mut cpu, mut env) = virtual8086(0);
    assert!(cpu.virtual8086());
    assert_eq!(
        (cpu.cpl, cpu.bitness(), cpu.rip, cpu.gpr[RSP]),
        (3, 16, 0x10, 0x100)
    );
    let bases: Vec<u64> = cpu.seg.iter().map(|segment| segment.base).collect();
    assert_eq!(
        bases,
        [0x5_0000, 0x1_0000, 0x2_0000, 0x4_0000, 0x6_0000, 0x7_0000]
    );
    assert!(
        cpu.seg
            .iter()
            .all(|s| s.limit == 0xffff && s.attributes.0 == 0xf3)
    );
    env.gate(false, 0x20, KERNEL_CODE, 14, 0, 0);
    assert_eq!(deliver_interrupt(&mut cpu, &mut env, 0x20), Delivery::Done);
    assert!(!cpu.virtual8086());
    assert_eq!(
        (cpu.cpl, cpu.gpr[RSP], cpu.bitness()),
        (0, KERNEL_STACK - 36, 32)
    );
    let pushed: Vec<u64> = (0..9)
        .map(|i| env.get(KERNEL_STACK - 36 + 4 * i, 4))
        .collect();
    assert_eq!(pushed[..2], [0x10, 0x1000]);
    assert_ne!(pushed[2] & flags::VM, 0);
    assert_eq!(pushed[3..], [0x100, 0x2000, 0x5000, 0x4000, 0x6000, 0x7000]);
    for index in [ES, DS, FS, GS] {
        assert!(cpu.seg[index].attributes.unusable());
    }
    run(&mut cpu, &mut env, &[0xcf]).unwrap();
    assert!(cpu.virtual8086());
    assert_eq!((cpu.rip, cpu.seg[GS].base), (0x10, 0x7_0000));
}

#[test]
fn virtual8086_sensitive_instructions() {
    let (mut cpu, mut env) = virtual8086(0);
    for code in [
        &[0xfa][..],
        &[0xfb],
        &[0xcd, 0x21],
        &[0xcf],
        &[0xf4],
        &[0x0f, 0x06],
    ] {
        assert_eq!(run(&mut cpu, &mut env, code), Err(Trap::GP0), "{code:x?}");
    }
    // Ports need the I/O bitmap, whatever the IOPL.
    env.put(TSS + 0x66, 2, 0xffff);
    cpu.rflags |= flags::IOPL;
    assert_eq!(run(&mut cpu, &mut env, &[0xe4, 0x60]), Err(Trap::GP0));
    let (mut cpu, mut env) = virtual8086(flags::IOPL);
    run(&mut cpu, &mut env, &[0xfa]).unwrap();
    assert_eq!(cpu.rflags & flags::IF, 0);
    // INT 21h leaves virtual-8086 mode through the IDT.
    env.gate(false, 0x21, KERNEL_CODE, 14, 3, 0);
    run(&mut cpu, &mut env, &[0xcd, 0x21]).unwrap();
    assert_eq!((cpu.cpl, cpu.virtual8086()), (0, false));
    // Handlers that do not run at level 0 are refused.
    let (mut cpu, mut env) = virtual8086(flags::IOPL);
    env.gate(false, 0x21, USER_CODE32, 14, 3, 0);
    assert_eq!(
        run(&mut cpu, &mut env, &[0xcd, 0x21]),
        Err(Trap::coded(ex::GP, 0x18))
    );
}

#[test]
fn virtual8086_extensions() {
    let (mut cpu, mut env) = virtual8086(0);
    cpu.cr4 |= cr::CR4_VME;
    run(&mut cpu, &mut env, &[0xfb]).unwrap();
    assert_ne!(cpu.rflags & flags::VIF, 0);
    run(&mut cpu, &mut env, &[0xfa]).unwrap();
    assert_eq!(cpu.rflags & (flags::VIF | flags::IF), flags::IF);
    cpu.rflags |= flags::VIP;
    assert_eq!(run(&mut cpu, &mut env, &[0xfb]), Err(Trap::GP0));
    cpu.rflags &= !flags::VIP;
    // INT 21h through the redirection bitmap: bit clear.
    env.put(TSS + 0x66, 2, 0x88);
    env.put(0x21 * 4, 4, 0x3000_4567);
    run(&mut cpu, &mut env, &[0xfb]).unwrap();
    let rip = cpu.rip;
    run(&mut cpu, &mut env, &[0xcd, 0x21]).unwrap();
    assert_eq!((cpu.seg[CS].base, cpu.rip, cpu.cpl), (0x3_0000, 0x4567, 3));
    assert_eq!(env.get(0x2_00fa, 2), rip + 2);
    // The pushed IF is VIF, the pushed IOPL 3.
    assert_eq!(env.get(0x2_00fe, 2), flags::IOPL | flags::IF | flags::FIXED);
    assert_eq!(cpu.rflags & flags::VIF, 0);
    run(&mut cpu, &mut env, &[0xcf]).unwrap();
    assert_eq!(cpu.rip, rip + 2);
    assert_eq!(cpu.rflags & (flags::VIF | flags::IOPL), flags::VIF);
    // Bit set: as without the extensions.
    env.put(TSS + 0x68 + 4, 1, 2);
    assert_eq!(run(&mut cpu, &mut env, &[0xcd, 0x21]), Err(Trap::GP0));
}
