use ringfence_x86::exception as ex;

use super::super::cpuid::{Feature, Offered as _};
use super::*;
use crate::cpu::{RAX, RCX, RDX, RSI};

/// The instructions with `[RSI]`.
const XSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x26];
const XSAVEOPT64: &[u8] = &[0x48, 0x0f, 0xae, 0x36];
const XSAVEC64: &[u8] = &[0x48, 0x0f, 0xc7, 0x26];
const XRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x2e];

/// A processor whose components are all in use, with recognizable bytes.
fn prepared() -> (Box<Cpu>, Mock) {
    let (mut cpu, env) = long();
    cpu.cr4 |= cr::CR4_OSXSAVE;
    cpu.xcr0 = 7;
    let area = &mut cpu.xsave.0;
    for (index, byte) in area.iter_mut().enumerate().take(832) {
        *byte = index as u8 ^ (index >> 8) as u8 | 1;
    }
    area[..8].copy_from_slice(&[0x7f, 3, 0, 0x38, 0xff, 0, 0x11, 1]);
    for slot in 0..8 {
        area[32 + 16 * slot + 10..32 + 16 * (slot + 1)].fill(0);
    }
    area[24..28].copy_from_slice(&0x1fa0u32.to_le_bytes());
    area[28..32].copy_from_slice(&0xffffu32.to_le_bytes());
    area[512..576].fill(0);
    area[512] = 7;
    (cpu.gpr[RAX], cpu.gpr[RDX], cpu.gpr[RSI]) = (u64::MAX, u64::MAX, DATA);
    (cpu, env)
}

fn avx(cpu: &Cpu, env: &mut Mock) -> bool {
    Feature::XSAVEC.offered(cpu, env) && env.cpuid(cpu, 0xd, 0)[0] & 4 != 0
}

/// Saved components of the state, without the software bytes.
fn state(cpu: &Cpu) -> Vec<u8> {
    let area = &cpu.xsave.0;
    [&area[..416], &area[512..520], &area[576..832]].concat()
}

#[test]
fn round_trips() {
    let (cpu, mut env) = prepared();
    if !avx(&cpu, &mut env) {
        return;
    }
    for save in [XSAVE64, XSAVEOPT64, XSAVEC64] {
        let (mut cpu, mut env) = prepared();
        let before = state(&cpu);
        run(&mut cpu, &mut env, save).unwrap();
        let compacted = save == XSAVEC64;
        assert_eq!(env.get(DATA + 512, 8), 7);
        assert_eq!(
            env.get(DATA + 520, 8),
            if compacted { 1 << 63 | 7 } else { 0 }
        );
        cpu.xsave.0[..28].fill(0);
        cpu.xsave.0[32..].fill(0);
        run(&mut cpu, &mut env, XRSTOR64).unwrap();
        assert_eq!(state(&cpu), before, "{save:x?}");
        assert_eq!(cpu.rip, CODE + 8);
    }
}

#[test]
fn only_what_is_requested() {
    let (mut cpu, mut env) = prepared();
    if !avx(&cpu, &mut env) {
        return;
    }
    env.memory[DATA as usize..][..1024].fill(0xcc);
    env.memory[DATA as usize + 512..][..64].fill(0);
    env.put(DATA + 512, 8, 1 << 9 | 3);
    (cpu.gpr[RAX], cpu.gpr[RDX]) = (4, 0);
    run(&mut cpu, &mut env, XSAVE64).unwrap();
    assert_eq!(env.get(DATA, 2), 0xcccc);
    assert_eq!(env.get(DATA + 24, 4), 0x1fa0, "MXCSR goes with AVX");
    assert_eq!(env.get(DATA + 576, 1), u64::from(cpu.xsave.0[576]));
    assert_eq!(env.get(DATA + 512, 8), 1 << 9 | 7, "other bits stay");
    // A compacted area has AVX right behind the header, whatever is left out.
    run(&mut cpu, &mut env, XSAVEC64).unwrap();
    assert_eq!(
        (env.get(DATA + 512, 8), env.get(DATA + 520, 8)),
        (4, 1 << 63 | 4)
    );
    // Restoring x87 from it gives the initial state and leaves the rest.
    cpu.gpr[RAX] = 1;
    let before = state(&cpu);
    run(&mut cpu, &mut env, XRSTOR64).unwrap();
    assert_eq!(cpu.xsave.0[..2], 0x37fu16.to_le_bytes());
    assert_eq!(cpu.xsave.0[512], 6);
    assert_eq!(state(&cpu)[160..416], before[160..416]);
}

#[test]
fn init_optimization() {
    let (mut cpu, mut env) = prepared();
    if !avx(&cpu, &mut env) {
        return;
    }
    cpu.xsave.0[512] = 1;
    cpu.xsave.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    env.memory[DATA as usize..][..1024].fill(0xcc);
    env.put(DATA + 512, 8, 7);
    run(&mut cpu, &mut env, XSAVEOPT64).unwrap();
    assert_eq!(env.get(DATA + 160, 8), 0xcccc_cccc_cccc_cccc);
    assert_eq!((env.get(DATA + 512, 8), env.get(DATA + 24, 4)), (1, 0x1f80));
    // XSAVE writes the initial values.
    run(&mut cpu, &mut env, XSAVE64).unwrap();
    assert_eq!(env.get(DATA + 160, 8), 0);
    assert_eq!(env.get(DATA + 576, 8), 0);
    // XGETBV with ECX=1 gives XINUSE.
    cpu.gpr[RCX] = 1;
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0xd0]).unwrap();
    assert_eq!(cpu.gpr[RAX], 1);
    // A changed MXCSR puts SSE in use for XSAVEC.
    cpu.xsave.0[24..28].copy_from_slice(&0x1fa0u32.to_le_bytes());
    (cpu.gpr[RAX], cpu.gpr[RDX]) = (7, 0);
    run(&mut cpu, &mut env, XSAVEC64).unwrap();
    assert_eq!((env.get(DATA + 512, 8), env.get(DATA + 24, 4)), (3, 0x1fa0));
}

#[test]
fn invalid_areas() {
    let (mut cpu, mut env) = prepared();
    if !avx(&cpu, &mut env) {
        return;
    }
    env.put(DATA + 24, 4, 0x1f80);
    for (at, value) in [
        (512, 8),
        (520, 1),
        (528, 1),
        (520, 1 << 63 | 8),
        (24, 0x1_0000),
        (24, 1 << 31),
    ] {
        env.put(DATA + 512, 8, 2);
        env.put(DATA + 24, 4, 0x1f80);
        env.put(DATA + at, 8, value);
        let before = state(&cpu);
        assert_eq!(
            run(&mut cpu, &mut env, XRSTOR64),
            Err(Trap::GP0),
            "{at} {value:x}"
        );
        assert_eq!(state(&cpu), before);
        env.memory[DATA as usize + 512..][..64].fill(0);
    }
    // Compacted: XSTATE_BV beyond XCOMP_BV, and reserved bytes.
    for (present, layout, reserved) in [(4, 3, 0), (3, 3, 1)] {
        env.put(DATA + 512, 8, present);
        env.put(DATA + 520, 8, 1 << 63 | layout);
        env.put(DATA + 568, 8, reserved);
        assert_eq!(run(&mut cpu, &mut env, XRSTOR64), Err(Trap::GP0));
    }
    cpu.gpr[RSI] += 8;
    assert_eq!(
        run(&mut cpu, &mut env, XSAVE64),
        Err(Trap::GP0),
        "alignment"
    );
    cpu.cr0 |= cr::CR0_TS;
    assert_eq!(run(&mut cpu, &mut env, XSAVE64), Err(Trap::fault(ex::NM)));
    cpu.cr4 &= !cr::CR4_OSXSAVE;
    assert_eq!(run(&mut cpu, &mut env, XSAVE64), Err(Trap::UD));
}

#[test]
fn xsetbv_checks_the_combination() {
    let (mut cpu, mut env) = prepared();
    if !avx(&cpu, &mut env) {
        return;
    }
    let xsetbv = [0x0f, 0x01, 0xd1];
    (cpu.gpr[RCX], cpu.gpr[RDX]) = (0, 0);
    for value in [0, 2, 5, 8, 0x67, 0xe3, 0xe1, 1 << 9 | 1] {
        cpu.gpr[RAX] = value;
        assert_eq!(
            run(&mut cpu, &mut env, &xsetbv),
            Err(Trap::GP0),
            "{value:x}"
        );
    }
    cpu.gpr[RAX] = 3;
    run(&mut cpu, &mut env, &xsetbv).unwrap();
    assert_eq!(cpu.xcr0, 3);
    cpu.gpr[RCX] = 1;
    assert_eq!(run(&mut cpu, &mut env, &xsetbv), Err(Trap::GP0));
}
