//! Random instructions on random states: no panic, no hang, and the level stays consistent.

use proptest::prelude::*;

use super::super::{Delivery, deliver_exception, deliver_interrupt};
use super::*;
use crate::env::Exception;

/// First bytes that lead to a system instruction.
const OPENINGS: &[&[u8]] = &[
    &[0x0f, 0x00],
    &[0x0f, 0x01],
    &[0x0f, 0x02],
    &[0x0f, 0x03],
    &[0x0f, 0x05],
    &[0x0f, 0x07],
    &[0x48, 0x0f, 0x07],
    &[0x0f, 0x20],
    &[0x0f, 0x21],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0x0f, 0x34],
    &[0x0f, 0x35],
    &[0x0f, 0xae],
    &[0x48, 0x0f, 0xae],
    &[0x0f, 0xb2],
    &[0x0f, 0xc7],
    &[0x8e],
    &[0x8c],
    &[0x9a],
    &[0xc4],
    &[0xca],
    &[0xcb],
    &[0xcc],
    &[0xcd],
    &[0xcf],
    &[0x48, 0xcf],
    &[0x66, 0xcf],
    &[0xea],
    &[0xf3, 0x6d],
    &[0xf3, 0x6e],
    &[0xff],
    &[],
];

fn state(mode: u8, user: bool) -> (Box<Cpu>, Mock) {
    let (mut cpu, env) = match mode {
        0 => (Cpu::new(), Mock::new()),
        1 => protected(),
        2 => {
            let (mut cpu, env) = protected();
            cpu.rflags |= flags::VM;
            cpu.cpl = 3;
            (cpu, env)
        }
        3 => {
            let (mut cpu, env) = long();
            cpu.seg[CS].attributes = SegmentAttributes::CODE32;
            (cpu, env)
        }
        _ => long(),
    };
    if user && mode != 0 && mode != 2 {
        to_user(&mut cpu);
    }
    (cpu, env)
}

fn deliver(cpu: &mut Cpu, env: &mut Mock, exception: Exception) {
    if deliver_exception(cpu, env, exception) == Delivery::Shutdown {
        cpu.rip = CODE;
    }
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn nothing_panics(
        mode in 0u8..5,
        user: bool,
        opening in 0..OPENINGS.len(),
        bytes in prop::array::uniform12(any::<u8>()),
        gpr in prop::array::uniform16(prop_oneof![
            any::<u64>(),
            0u64..0x200,
            Just(DATA),
            Just(TSS),
            0xc000_0080u64..0xc000_0104,
        ]),
        seed in any::<u64>(),
        rflags: u64,
        cr4: u64,
        garbage: bool,
    ) {
        let (mut cpu, mut env) = state(mode, user);
        let rsp = cpu.gpr[RSP];
        cpu.gpr = gpr;
        if seed & 1 == 0 {
            cpu.gpr[RSP] = rsp;
        }
        let kept = flags::VM | flags::IF;
        cpu.rflags = cpu.rflags & kept | rflags & 0x3d_7fd5 & !flags::VM | flags::FIXED;
        cpu.cr4 |= cr4 & (cr::CR4_VME | cr::CR4_PVI | cr::CR4_OSXSAVE | cr::CR4_FSGSBASE);
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        // Stacks, tables and data full of noise or of plausible selectors.
        for base in [KERNEL_STACK - 0x100, USER_STACK - 0x100, DATA, TSS, IDT] {
            for word in 0..64 {
                let value = random();
                let value = if value & 3 == 0 { value >> 8 & 0x7b } else { value >> (value & 63) };
                env.put(base + 8 * word, 8, value);
            }
        }
        if garbage {
            for index in 1..32 {
                env.put(GDT + 8 * index, 8, random());
            }
        }
        let code = [OPENINGS[opening], &bytes].concat();
        for _ in 0..4 {
            let mut decoder =
                Decoder::with_ip(cpu.bitness(), &code, cpu.rip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break;
            }
            env.yields = true;
            match super::super::execute(&mut cpu, &mut env, &instruction) {
                Some(Err(Trap::Exception(exception))) => deliver(&mut cpu, &mut env, exception),
                Some(_) => {}
                None => break,
            }
            prop_assert!(cpu.cpl <= 3);
            prop_assert!(!cpu.virtual8086() || cpu.cpl == 3 || cpu.real_mode());
            prop_assert_eq!(cpu.rflags & flags::FIXED, flags::FIXED);
            prop_assert!(!cpu.mode64() || cpu.long_mode());
        }
        deliver_interrupt(&mut cpu, &mut env, seed as u8);
    }
}
