use ringfence_x86::{exception as ex, flags};

use super::super::{Delivery, deliver_exception};
use super::*;
use crate::cpu::{DS, ES, RAX, RBX};
use crate::env::Exception;

/// A second task at level 0 that starts at [`HANDLER`] with its own stack.
fn with_task() -> (Box<Cpu>, Mock) {
    let (cpu, mut env) = protected();
    env.put(TSS2 + 0x20, 4, HANDLER);
    env.put(TSS2 + 0x24, 4, flags::FIXED);
    env.put(TSS2 + 0x28, 4, 0x1111);
    env.put(TSS2 + 0x38, 4, DATA);
    for (index, selector) in [KERNEL_DATA, KERNEL_CODE, KERNEL_DATA, KERNEL_DATA, 0, 0]
        .into_iter()
        .enumerate()
    {
        env.put(TSS2 + 0x48 + 4 * index as u64, 4, u64::from(selector));
    }
    (cpu, env)
}

/// `JMP` or `CALL` ptr16:32 to `selector`.
fn far(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [opcode, 0, 0, 0, 0, low, high]
}

fn access(env: &Mock, selector: u16) -> u64 {
    env.get(GDT + u64::from(selector) + 5, 1)
}

#[test]
fn jump() {
    let (mut cpu, mut env) = with_task();
    (cpu.gpr[RAX], cpu.gpr[RBX]) = (0xaaaa, 0xbbbb);
    run(&mut cpu, &mut env, &far(0xea, TASK2)).unwrap();
    assert_eq!(
        (cpu.rip, cpu.gpr[RAX], cpu.gpr[RSP]),
        (HANDLER, 0x1111, DATA)
    );
    assert_eq!((cpu.tr.selector, cpu.tr.base), (TASK2, TSS2));
    assert_eq!((access(&env, TASK), access(&env, TASK2)), (0x89, 0x8b));
    assert_ne!(cpu.cr0 & cr::CR0_TS, 0);
    assert_eq!(cpu.rflags & flags::NT, 0);
    assert_eq!(env.get(TSS + 0x20, 4), CODE + 7);
    assert_eq!(
        (env.get(TSS + 0x28, 4), env.get(TSS + 0x34, 4)),
        (0xaaaa, 0xbbbb)
    );
    assert_eq!(env.get(TSS + 0x4c, 2), u64::from(KERNEL_CODE));
}

#[test]
fn call_and_return() {
    let (mut cpu, mut env) = with_task();
    cpu.gpr[RAX] = 0xaaaa;
    run(&mut cpu, &mut env, &far(0x9a, TASK2)).unwrap();
    assert_eq!((access(&env, TASK), access(&env, TASK2)), (0x8b, 0x8b));
    assert_ne!(cpu.rflags & flags::NT, 0);
    assert_eq!(env.get(TSS2, 2), u64::from(TASK));
    cpu.gpr[RAX] = 0x2222;
    run(&mut cpu, &mut env, &[0xcf]).unwrap();
    assert_eq!(
        (cpu.rip, cpu.gpr[RAX], cpu.gpr[RSP]),
        (CODE + 7, 0xaaaa, KERNEL_STACK)
    );
    assert_eq!((access(&env, TASK), access(&env, TASK2)), (0x8b, 0x89));
    assert_eq!(env.get(TSS2 + 0x20, 4), HANDLER + 1);
    assert_eq!(env.get(TSS2 + 0x24, 4) & flags::NT, 0);
    assert_eq!((cpu.tr.selector, cpu.rflags & flags::NT), (TASK, 0));
}

#[test]
fn double_fault_through_a_task_gate() {
    let (mut cpu, mut env) = with_task();
    env.put(IDT + 8 * u64::from(ex::DF), 8, gate(TASK2, 0, 5, 0));
    let fault = Exception {
        vector: ex::GP,
        error_code: Some(0x10),
        address: None,
    };
    assert_eq!(deliver_exception(&mut cpu, &mut env, fault), Delivery::Done);
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (HANDLER, DATA - 4));
    assert_eq!(env.get(DATA - 4, 4), 0);
    assert_eq!(env.get(TSS + 0x20, 4), CODE);
}

#[test]
fn refused_switches_change_nothing() {
    let (mut cpu, mut env) = with_task();
    let call = |cpu: &mut Cpu, env: &mut Mock| {
        let before = cpu.clone();
        let result = run(cpu, env, &far(0x9a, TASK2));
        assert_eq!(
            (cpu.rip, cpu.gpr, cpu.seg),
            (before.rip, before.gpr, before.seg)
        );
        assert_eq!((cpu.tr, cpu.rflags), (before.tr, before.rflags));
        result
    };
    env.descriptor(TASK2, system(TSS2, 0x66, 0x89));
    assert_eq!(call(&mut cpu, &mut env), Err(Trap::coded(ex::TS, 0x40)));
    env.descriptor(TASK2, system(TSS2, 0x67, 0x09));
    assert_eq!(call(&mut cpu, &mut env), Err(Trap::coded(ex::NP, 0x40)));
    env.descriptor(TASK2, system(TSS2, 0x67, 0x8b));
    assert_eq!(call(&mut cpu, &mut env), Err(Trap::coded(ex::GP, 0x40)));
    env.descriptor(TASK2, system(TSS2, 0x67, 0x89));
    env.absent = Some(TSS2);
    assert_eq!(
        call(&mut cpu, &mut env),
        Err(Trap::page_fault(TSS2 + 0x1c, 0))
    );
}

#[test]
fn late_faults_are_in_the_new_task() {
    let (mut cpu, mut env) = with_task();
    env.put(TSS2 + 0x48, 4, u64::from(KERNEL_DATA | 3));
    assert_eq!(
        run(&mut cpu, &mut env, &far(0xea, TASK2)),
        Err(Trap::coded(ex::TS, 0x10))
    );
    assert_eq!(
        (cpu.rip, cpu.tr.selector, cpu.gpr[RSP]),
        (HANDLER, TASK2, DATA)
    );
    assert!(cpu.seg[ES].attributes.unusable());
}

#[test]
fn to_a_virtual8086_task() {
    let (mut cpu, mut env) = with_task();
    env.put(TSS2 + 0x20, 4, 0x100);
    env.put(TSS2 + 0x24, 4, flags::FIXED | flags::VM);
    run(&mut cpu, &mut env, &far(0xea, TASK2)).unwrap();
    assert!(cpu.virtual8086());
    assert_eq!((cpu.cpl, cpu.seg[CS].base, cpu.rip), (3, 0x80, 0x100));
    assert_eq!(cpu.seg[DS].base, 0x100);
}

#[test]
fn to_a_16_bit_task() {
    let (mut cpu, mut env) = with_task();
    env.descriptor(TASK2, system(TSS2, 0x2b, 0x81));
    env.memory[TSS2 as usize..][..0x68].fill(0);
    env.put(TSS2 + 0x0e, 2, 0x1234);
    env.put(TSS2 + 0x10, 2, flags::FIXED | flags::CF);
    env.put(TSS2 + 0x12, 2, 0x5555);
    for (index, selector) in [KERNEL_DATA, KERNEL_CODE, KERNEL_DATA, KERNEL_DATA]
        .into_iter()
        .enumerate()
    {
        env.put(TSS2 + 0x22 + 2 * index as u64, 2, u64::from(selector));
    }
    run(&mut cpu, &mut env, &far(0xea, TASK2)).unwrap();
    assert_eq!(
        (cpu.rip, cpu.gpr[RAX] & 0xffff, cpu.rflags & flags::CF),
        (0x1234, 0x5555, 1)
    );
    // And back, with the state of the 16-bit task in its own layout.
    run(&mut cpu, &mut env, &far(0x9a, TASK)).unwrap();
    assert_eq!(env.get(TSS2 + 0x0e, 2), 0x1234 + 7);
    assert_eq!(access(&env, TASK2), 0x83);
}
