//! Stack, branches, flags images, fetching and stepping.

use ringfence_x86::{exception, flags};

use super::*;
use crate::cpu::{RAX, RBP, RCX, SS};
use crate::interp::{Step, fetch, step};

#[test]
fn push_and_pop_of_the_stack_pointer() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    run(&mut cpu, &mut env, &[0x54]).unwrap(); // push rsp
    assert_eq!((env.get(STACK - 8, 8), cpu.gpr[RSP]), (STACK, STACK - 8));
    env.put(STACK - 8, &0x5555u64.to_le_bytes());
    run(&mut cpu, &mut env, &[0x5c]).unwrap(); // pop rsp
    assert_eq!(cpu.gpr[RSP], 0x5555);
    // pop [rsp]: the address uses RSP after the pop
    cpu.gpr[RSP] = STACK - 8;
    run(&mut cpu, &mut env, &[0x8f, 0x04, 0x24]).unwrap();
    assert_eq!((env.get(STACK, 8), cpu.gpr[RSP]), (0x5555, STACK));
    // A fault of the destination takes the pop back.
    env.absent = Some(0x9000);
    assert!(run(&mut cpu, &mut env, &[0x8f, 0x84, 0x24, 0xf8, 0x0f, 0, 0]).is_err());
    assert_eq!(cpu.gpr[RSP], STACK);
}

#[test]
fn narrow_stacks_wrap() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    cpu.seg[SS].attributes = SegmentAttributes::DATA16;
    cpu.seg[SS].limit = 0xffff;
    (cpu.gpr[RSP], cpu.gpr[RAX]) = (0x7777_0000, 0x1234_5678);
    run(&mut cpu, &mut env, &[0x50]).unwrap(); // push eax
    assert_eq!(
        (cpu.gpr[RSP], env.get(0xfffc, 4)),
        (0x7777_fffc, 0x1234_5678)
    );
    cpu.gpr[RSP] = 2;
    assert_eq!(run(&mut cpu, &mut env, &[0x50]), Err(Trap::SS0));
}

#[test]
fn all_registers() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    cpu.gpr = std::array::from_fn(|i| 0x100 + i as u64);
    cpu.gpr[RSP] = STACK;
    let before = cpu.gpr;
    run(&mut cpu, &mut env, &[0x60]).unwrap();
    assert_eq!((cpu.gpr[RSP], env.get(STACK - 20, 4)), (STACK - 32, STACK));
    cpu.gpr[..4].fill(0);
    run(&mut cpu, &mut env, &[0x61]).unwrap();
    assert_eq!(cpu.gpr, before);
}

#[test]
fn frames() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    cpu.gpr[RBP] = STACK + 0x100;
    env.put(STACK + 0xf8, &0x77u64.to_le_bytes());
    run(&mut cpu, &mut env, &[0xc8, 0x20, 0x00, 0x02]).unwrap(); // enter 32, 2
    assert_eq!(cpu.gpr[RBP], STACK - 8);
    assert_eq!(cpu.gpr[RSP], STACK - 24 - 32);
    assert_eq!(env.get(STACK - 8, 8), STACK + 0x100);
    assert_eq!(env.get(STACK - 16, 8), 0x77);
    assert_eq!(env.get(STACK - 24, 8), STACK - 8);
    run(&mut cpu, &mut env, &[0xc9]).unwrap(); // leave
    assert_eq!((cpu.gpr[RSP], cpu.gpr[RBP]), (STACK, STACK + 0x100));
}

#[test]
fn calls_and_returns() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    run(&mut cpu, &mut env, &[0xe8, 0x10, 0, 0, 0]).unwrap();
    assert_eq!((cpu.rip, env.get(STACK - 8, 8)), (CODE + 0x15, CODE + 5));
    run(&mut cpu, &mut env, &[0xc2, 0x08, 0x00]).unwrap(); // ret 8
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (CODE + 5, STACK + 8));
    // A return to an address that is not canonical faults before RSP moves.
    cpu.gpr[RSP] = STACK;
    env.put(STACK, &(1u64 << 63).to_le_bytes());
    assert_eq!(run(&mut cpu, &mut env, &[0xc3]), Err(Trap::GP0));
    assert_eq!(cpu.gpr[RSP], STACK);
    // call [rsp]: the target is read before the push
    env.put(STACK, &0x2000u64.to_le_bytes());
    run(&mut cpu, &mut env, &[0xff, 0x14, 0x24]).unwrap();
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (0x2000, STACK - 8));
}

#[test]
fn sixteen_bit_branches_wrap_and_obey_the_limit() {
    let (mut cpu, mut env) = (processor(16), Flat::new());
    run(&mut cpu, &mut env, &[0xe9, 0x00, 0xe0]).unwrap(); // jmp -0x2000
    assert_eq!(cpu.rip, 0xf003);
    cpu.seg[CS].limit = 0xefff;
    assert_eq!(run(&mut cpu, &mut env, &[0xe9, 0x00, 0xe0]), Err(Trap::GP0));
}

#[test]
fn direct_branches_count_from_rip() {
    // Decoded at its linear address, with a code segment that does not start at zero.
    let (mut cpu, mut env) = (processor(16), Flat::new());
    cpu.rip = 0x20;
    let bytes = [0xe9, 0x10, 0x00];
    let mut decoder = Decoder::with_ip(16, &bytes, 0x5_4321, DecoderOptions::NONE);
    execute(&mut cpu, &mut env, &decoder.decode()).unwrap();
    assert_eq!(cpu.rip, 0x33);
}

#[test]
fn counted_branches_use_the_address_size() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    cpu.gpr[RCX] = 0x1_0000_0001;
    run(&mut cpu, &mut env, &[0x67, 0xe2, 0x10]).unwrap(); // loop with ECX
    assert_eq!((cpu.rip, cpu.gpr[RCX]), (CODE + 3, 0));
    cpu.gpr[RCX] = 0x1_0000_0000;
    run(&mut cpu, &mut env, &[0xe3, 0x10]).unwrap(); // jrcxz
    assert_eq!(cpu.rip, CODE + 2);
    run(&mut cpu, &mut env, &[0x67, 0xe3, 0x10]).unwrap(); // jecxz
    assert_eq!(cpu.rip, CODE + 0x13);
    set_flags(&mut cpu, flags::ZF);
    cpu.gpr[RCX] = 5;
    run(&mut cpu, &mut env, &[0xe0, 0x10]).unwrap(); // loopne
    assert_eq!((cpu.rip, cpu.gpr[RCX]), (CODE + 2, 4));
}

#[test]
fn flag_images_respect_privilege() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    let all = flags::IF | flags::IOPL | flags::CF | flags::AC | flags::VM | flags::VIF;
    let mut pop = |cpl: u8, before: u64| {
        cpu.cpl = cpl;
        cpu.gpr[RSP] = STACK;
        cpu.rflags = before;
        env.put(STACK, &(all | 2).to_le_bytes());
        run(&mut cpu, &mut env, &[0x9d]).unwrap();
        cpu.rflags
    };
    let user = flags::CF | flags::AC | flags::FIXED;
    assert_eq!(pop(0, 2 | flags::RF), user | flags::IF | flags::IOPL);
    assert_eq!(pop(3, 2), user);
    assert_eq!(pop(3, 2 | flags::IOPL), user | flags::IF | flags::IOPL);
    cpu.rflags = 2 | flags::RF | flags::IF;
    run(&mut cpu, &mut env, &[0x9c]).unwrap();
    assert_eq!(env.get(cpu.gpr[RSP], 8), 2 | flags::IF);
}

#[test]
fn virtual_8086_flags() {
    let (mut cpu, mut env) = (processor(16), Flat::new());
    cpu.rflags |= flags::VM;
    cpu.cpl = 3;
    assert_eq!(run(&mut cpu, &mut env, &[0x9c]), Err(Trap::GP0));
    cpu.cr4 |= cr::CR4_VME;
    cpu.rflags |= flags::VIF;
    run(&mut cpu, &mut env, &[0x9c]).unwrap();
    let image = flags::IF | flags::IOPL;
    assert_eq!(env.get(cpu.gpr[RSP], 2) & image, image);
    cpu.rflags &= !flags::VIF;
    run(&mut cpu, &mut env, &[0x9d]).unwrap();
    assert_eq!(
        cpu.rflags & (flags::VIF | flags::IF | flags::IOPL),
        flags::VIF
    );
}

#[test]
fn decoding_stops_where_the_page_ends() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.absent = Some(0x2000);
    env.put(0x1ffe, &[0x48, 0x8b]);
    cpu.rip = 0x1ffe;
    assert_eq!(fetch(&mut cpu, &mut env), Err(Trap::page_fault(0x2000, 0)));
    env.absent = None;
    env.put(0x2000, &[0x07]);
    assert_eq!(fetch(&mut cpu, &mut env).unwrap().len(), 3);
    env.put(0x1ff0, &[0x66; 16]);
    cpu.rip = 0x1ff0;
    assert_eq!(fetch(&mut cpu, &mut env), Err(Trap::GP0));
    env.put(0x1ff0, &[0x0f, 0x0b]);
    cpu.rip = 0x1ff0;
    assert!(fetch(&mut cpu, &mut env).is_ok());
    env.put(0x1ff0, &[0x06]);
    assert_eq!(fetch(&mut cpu, &mut env), Err(Trap::UD));
}

#[test]
fn the_code_limit_counts_every_byte() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    env.put(CODE, &[0xb8, 1, 2, 3, 4]);
    cpu.seg[CS].limit = CODE as u32 + 3;
    assert_eq!(fetch(&mut cpu, &mut env), Err(Trap::GP0));
    cpu.seg[CS].limit += 1;
    assert!(fetch(&mut cpu, &mut env).is_ok());
}

#[test]
fn steps_end_shadow_and_resume_flag() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.put(CODE, &[0x90, 0x8b, 0x04, 0x25, 0, 0x40, 0, 0]); // nop; mov eax, [0x4000]
    cpu.interrupt_shadow = true;
    cpu.rflags |= flags::RF;
    assert_eq!(step(&mut cpu, &mut env), Step::Retired);
    assert!(!cpu.interrupt_shadow);
    assert_eq!((cpu.rip, cpu.rflags & flags::RF), (CODE + 1, 0));
    // An exit leaves everything as it was.
    env.device = Some(0x4000);
    cpu.interrupt_shadow = true;
    let exit = Exit::MmioRead {
        address: 0x4000,
        size: 4,
    };
    assert_eq!(step(&mut cpu, &mut env), Step::Exit(exit));
    assert!(cpu.interrupt_shadow);
    assert_eq!(cpu.rip, CODE + 1);
}

#[test]
fn bound_range() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    env.put(0x4000, &(-2i32).to_le_bytes());
    env.put(0x4004, &5i32.to_le_bytes());
    let bytes = [0x62, 0x05, 0x00, 0x40, 0, 0]; // bound eax, [0x4000]
    cpu.gpr[RAX] = 5;
    run(&mut cpu, &mut env, &bytes).unwrap();
    cpu.gpr[RAX] = u64::from((-3i32) as u32);
    assert_eq!(
        run(&mut cpu, &mut env, &bytes),
        Err(Trap::fault(exception::BR))
    );
}
