//! Far transfers through code segments and call gates.

use ringfence_x86::exception as ex;

use super::*;
use crate::cpu::{DS, RAX, RCX};

fn far(opcode: u8, offset: u32, selector: u16) -> [u8; 7] {
    let [a, b, c, d] = offset.to_le_bytes();
    let [low, high] = selector.to_le_bytes();
    [opcode, a, b, c, d, low, high]
}

#[test]
fn jumps_check_the_code_segment() {
    let (mut cpu, mut env) = protected();
    for (selector, trap) in [
        (0, Trap::GP0),
        (KERNEL_DATA, Trap::coded(ex::GP, 0x10)),
        (USER_CODE32, Trap::coded(ex::GP, 0x18)),
        (KERNEL_CODE | 3, Trap::coded(ex::GP, 0x08)),
        (TASK, Trap::coded(ex::GP, 0x30)),
        (0x1000, Trap::coded(ex::GP, 0x1000)),
    ] {
        assert_eq!(
            run(&mut cpu, &mut env, &far(0xea, 0, selector)),
            Err(trap),
            "{selector:x}"
        );
    }
    run(&mut cpu, &mut env, &far(0xea, 0x1234, CONFORMING | 3)).unwrap();
    assert_eq!(
        (cpu.rip, cpu.seg[CS].selector, cpu.cpl),
        (0x1234, CONFORMING, 0)
    );
    env.descriptor(KERNEL_CODE, 0x0040_9b00_0000_0fff);
    assert_eq!(
        run(&mut cpu, &mut env, &far(0xea, 0x1000, KERNEL_CODE)),
        Err(Trap::GP0)
    );
    // Conforming code runs at the caller's level.
    to_user(&mut cpu);
    run(&mut cpu, &mut env, &far(0x9a, 0x1234, CONFORMING)).unwrap();
    assert_eq!((cpu.seg[CS].selector, cpu.cpl), (CONFORMING | 3, 3));
    assert_eq!(cpu.gpr[RSP], USER_STACK - 8);
}

#[test]
fn call_gate_with_parameters() {
    let (mut cpu, mut env) = protected();
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3) | 2 << 32);
    to_user(&mut cpu);
    cpu.gpr[RSP] = USER_STACK - 8;
    env.put(USER_STACK - 8, 8, 0x2222_2222_1111_1111);
    run(&mut cpu, &mut env, &far(0x9a, 0, GATE | 3)).unwrap();
    assert_eq!(
        (cpu.cpl, cpu.rip, cpu.gpr[RSP]),
        (0, HANDLER, KERNEL_STACK - 24)
    );
    let frame: Vec<u64> = (0..6)
        .map(|i| env.get(KERNEL_STACK - 24 + 4 * i, 4))
        .collect();
    let expected = [CODE + 7, u64::from(USER_CODE32), 0x1111_1111, 0x2222_2222];
    assert_eq!(frame[..4], expected);
    assert_eq!(frame[4..], [USER_STACK - 8, u64::from(USER_DATA)]);
    // RETF 8 drops the parameters from both stacks and level-0 segments from DS.
    run(&mut cpu, &mut env, &[0xca, 8, 0]).unwrap();
    assert_eq!((cpu.cpl, cpu.rip, cpu.gpr[RSP]), (3, CODE + 7, USER_STACK));
    assert!(cpu.seg[DS].attributes.unusable());
}

#[test]
fn call_gate_checks() {
    let (mut cpu, mut env) = protected();
    to_user(&mut cpu);
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 0));
    assert_eq!(
        run(&mut cpu, &mut env, &far(0x9a, 0, GATE)),
        Err(Trap::coded(ex::GP, 0x68))
    );
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3) & !(0x80 << 40));
    assert_eq!(
        run(&mut cpu, &mut env, &far(0x9a, 0, GATE)),
        Err(Trap::coded(ex::NP, 0x68))
    );
    env.descriptor(GATE, gate(0, HANDLER, 12, 3));
    assert_eq!(run(&mut cpu, &mut env, &far(0x9a, 0, GATE)), Err(Trap::GP0));
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3));
    assert_eq!(
        run(&mut cpu, &mut env, &far(0xea, 0, GATE)),
        Err(Trap::coded(ex::GP, 0x08))
    );
    env.absent = Some(KERNEL_STACK - 0x1000);
    assert_eq!(
        run(&mut cpu, &mut env, &far(0x9a, 0, GATE)),
        Err(Trap::page_fault(KERNEL_STACK - 4, ex::PF_WRITE))
    );
    assert_eq!((cpu.cpl, cpu.rip, cpu.gpr[RSP]), (3, CODE, USER_STACK));
}

#[test]
fn long_mode_call_gate() {
    let (mut cpu, mut env) = long();
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3));
    env.descriptor(GATE + 8, 0);
    to_user(&mut cpu);
    // CALL m16:32 [RAX]
    cpu.gpr[RAX] = DATA;
    env.put(DATA, 4, 0);
    env.put(DATA + 4, 2, u64::from(GATE));
    run(&mut cpu, &mut env, &[0xff, 0x18]).unwrap();
    assert_eq!(
        (cpu.cpl, cpu.rip, cpu.gpr[RSP]),
        (0, HANDLER, KERNEL_STACK - 32)
    );
    assert!(cpu.mode64() && cpu.seg[SS].attributes.unusable());
    assert_eq!(env.get(KERNEL_STACK - 8, 8), u64::from(USER_DATA));
    run(&mut cpu, &mut env, &[0x48, 0xcb]).unwrap();
    assert_eq!((cpu.cpl, cpu.rip, cpu.gpr[RSP]), (3, CODE + 2, USER_STACK));
    // A gate to 32-bit code is refused, and so is a nonzero upper type field.
    env.descriptor(GATE, gate(USER_CODE32, HANDLER, 12, 3));
    assert_eq!(
        run(&mut cpu, &mut env, &[0xff, 0x18]),
        Err(Trap::coded(ex::GP, 0x18))
    );
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3));
    env.descriptor(GATE + 8, 0x1f << 40);
    assert_eq!(
        run(&mut cpu, &mut env, &[0xff, 0x18]),
        Err(Trap::coded(ex::GP, 0x68))
    );
}

#[test]
fn far_return_checks() {
    let (mut cpu, mut env) = long();
    cpu.gpr[RSP] = KERNEL_STACK - 16;
    for (cs, trap) in [
        (0, Trap::GP0),
        (0x10, Trap::coded(ex::GP, 0x10)),
        (0x28, Trap::coded(ex::GP, 0x28)),
    ] {
        env.put(KERNEL_STACK - 8, 8, cs);
        assert_eq!(run(&mut cpu, &mut env, &[0x48, 0xcb]), Err(trap), "{cs:x}");
        assert_eq!((cpu.rip, cpu.gpr[RSP]), (CODE, KERNEL_STACK - 16));
    }
    env.put(KERNEL_STACK - 16, 8, HANDLER);
    env.put(KERNEL_STACK - 8, 8, u64::from(KERNEL_CODE));
    run(&mut cpu, &mut env, &[0x48, 0xcb]).unwrap();
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (HANDLER, KERNEL_STACK));
}

#[test]
fn what_selectors_show() {
    let (mut cpu, mut env) = protected();
    let zero = |cpu: &Cpu| cpu.rflags & ringfence_x86::flags::ZF != 0;
    // LAR EAX, CX and LSL EAX, CX
    let (lar, lsl) = ([0x0f, 0x02, 0xc1], [0x0f, 0x03, 0xc1]);
    cpu.gpr[RCX] = u64::from(KERNEL_CODE);
    run(&mut cpu, &mut env, &lar).unwrap();
    assert!(zero(&cpu));
    assert_eq!(cpu.gpr[RAX], 0x00c0_9b00);
    run(&mut cpu, &mut env, &lsl).unwrap();
    assert_eq!(cpu.gpr[RAX], 0xffff_ffff);
    env.descriptor(GATE, gate(KERNEL_CODE, HANDLER, 12, 3));
    cpu.gpr[RCX] = u64::from(GATE);
    run(&mut cpu, &mut env, &lar).unwrap();
    assert!(zero(&cpu));
    run(&mut cpu, &mut env, &lsl).unwrap();
    assert!(!zero(&cpu));
    assert_eq!(cpu.gpr[RAX], 0xec00);
    for (selector, readable, writable) in [
        (KERNEL_DATA, true, true),
        (READ_ONLY, true, false),
        (KERNEL_CODE, true, false),
        (TASK, false, false),
        (0, false, false),
        (KERNEL_DATA | 3, false, false),
    ] {
        cpu.gpr[RCX] = u64::from(selector);
        run(&mut cpu, &mut env, &[0x0f, 0x00, 0xe1]).unwrap();
        assert_eq!(zero(&cpu), readable, "VERR {selector:x}");
        run(&mut cpu, &mut env, &[0x0f, 0x00, 0xe9]).unwrap();
        assert_eq!(zero(&cpu), writable, "VERW {selector:x}");
    }
    // ARPL AX, CX
    (cpu.gpr[RAX], cpu.gpr[RCX]) = (0x1230, 3);
    run(&mut cpu, &mut env, &[0x63, 0xc8]).unwrap();
    assert_eq!((cpu.gpr[RAX], zero(&cpu)), (0x1233, true));
    run(&mut cpu, &mut env, &[0x63, 0xc8]).unwrap();
    assert_eq!((cpu.gpr[RAX], zero(&cpu)), (0x1233, false));
}
