//! Instructions that run natively, their checks, images and masked accesses.

use ringfence_x86::{exception, flags};

use super::*;
use crate::cpu::{RAX, RBX, RCX, RDI};
use crate::interp::native::{install_signal_handlers, state};

fn set_xmm(cpu: &mut Cpu, index: usize, low: u64, high: u64) {
    let mut value = [0; 32];
    value[..8].copy_from_slice(&low.to_le_bytes());
    value[8..16].copy_from_slice(&high.to_le_bytes());
    state::set_vector(cpu, index, &value);
}

fn xmm(cpu: &Cpu, index: usize) -> (u64, u64) {
    let value = u128::from_le_bytes(state::vector(cpu, index)[..16].try_into().unwrap());
    (value as u64, (value >> 64) as u64)
}

#[test]
fn vector_sums_and_moves() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    set_xmm(&mut cpu, 1, 5, 7);
    env.put(DATA, &3u64.to_le_bytes());
    env.put(DATA + 8, &4u64.to_le_bytes());
    cpu.gpr[RDI] = DATA;
    run(&mut cpu, &mut env, &[0x66, 0x0f, 0xd4, 0x0f]).unwrap(); // paddq xmm1, [rdi]
    assert_eq!(xmm(&cpu, 1), (8, 11));
    run(&mut cpu, &mut env, &[0x66, 0x0f, 0x7f, 0x4f, 0x10]).unwrap(); // movdqa [rdi+16], xmm1
    assert_eq!((env.get(DATA + 16, 8), env.get(DATA + 24, 8)), (8, 11));
    cpu.gpr[RDI] = DATA + 8;
    assert_eq!(
        run(&mut cpu, &mut env, &[0x66, 0x0f, 0x7f, 0x4f, 0x10]),
        Err(Trap::GP0)
    );
    assert_eq!(
        run(&mut cpu, &mut env, &[0x66, 0x0f, 0xd4, 0x0f]),
        Err(Trap::GP0)
    );
    run(&mut cpu, &mut env, &[0xf3, 0x0f, 0x7f, 0x4f, 0x10]).unwrap(); // movdqu
    assert_eq!(env.get(DATA + 24, 8), 8);
    // vpaddb ymm2, ymm1, [rdi], which need not be aligned
    run(&mut cpu, &mut env, &[0xc5, 0xf5, 0xfc, 0x17]).unwrap();
    assert_eq!(xmm(&cpu, 2), (8 + 4, 11 + 8));
}

#[test]
fn general_registers_and_flags_take_part() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    cpu.gpr = std::array::from_fn(|i| 0x1000 + i as u64);
    run(&mut cpu, &mut env, &[0xf2, 0x48, 0x0f, 0x2a, 0xc4]).unwrap(); // cvtsi2sd xmm0, rsp
    assert_eq!(xmm(&cpu, 0).0, 4100f64.to_bits());
    run(&mut cpu, &mut env, &[0xf2, 0x4d, 0x0f, 0x2d, 0xc0]).unwrap(); // cvtsd2si r8, xmm8: 0
    assert_eq!(cpu.gpr[8], 0);
    run(&mut cpu, &mut env, &[0x66, 0x48, 0x0f, 0x7e, 0xc4]).unwrap(); // movq rsp, xmm0
    assert_eq!(cpu.gpr[RSP], 4100f64.to_bits());
    let others: Vec<u64> = (0..16)
        .filter(|i| ![4, 8].contains(i))
        .map(|i| cpu.gpr[i])
        .collect();
    let want: Vec<u64> = (0..16)
        .filter(|i| ![4, 8].contains(i))
        .map(|i| 0x1000 + i as u64)
        .collect();
    assert_eq!(others, want, "registers that are not named stay");
    cpu.rflags |= flags::DF | flags::IF;
    set_flags(&mut cpu, flags::ARITHMETIC);
    run(&mut cpu, &mut env, &[0x66, 0x0f, 0x2e, 0xc8]).unwrap(); // ucomisd xmm1, xmm0: below
    assert_eq!(cpu.rflags, flags::FIXED | flags::DF | flags::IF | flags::CF);
}

#[test]
fn x87_arithmetic() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    cpu.gpr[RBX] = DATA;
    env.put(DATA, &1.5f64.to_bits().to_le_bytes());
    run(&mut cpu, &mut env, &[0xdd, 0x03]).unwrap(); // fld qword [ebx]
    run(&mut cpu, &mut env, &[0xdc, 0x0b]).unwrap(); // fmul qword [ebx]
    // A page fault of the store leaves the stack alone.
    env.read_only = Some(DATA);
    assert!(run(&mut cpu, &mut env, &[0xdd, 0x1b]).is_err());
    env.read_only = None;
    run(&mut cpu, &mut env, &[0xdd, 0x1b]).unwrap(); // fstp qword [ebx]
    assert_eq!(env.get(DATA, 8), 2.25f64.to_bits());
    run(&mut cpu, &mut env, &[0xdf, 0xe0]).unwrap(); // fnstsw ax
    assert_eq!(cpu.gpr[RAX] & 0x3800, 0);
    // An MMIO store is executed again: the pop must be undone.
    run(&mut cpu, &mut env, &[0xd9, 0xe8]).unwrap(); // fld1
    env.device = Some(DATA);
    let before = cpu.xsave.0;
    assert!(matches!(
        run(&mut cpu, &mut env, &[0xdd, 0x1b]),
        Err(Trap::Exit(_))
    ));
    assert_eq!(cpu.xsave.0, before);
}

#[test]
fn pending_x87_exceptions_wait_for_the_next_instruction() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    cpu.gpr[RBX] = DATA;
    env.put(DATA, &0x037bu16.to_le_bytes()); // zero-divide unmasked
    run(&mut cpu, &mut env, &[0xd9, 0x2b]).unwrap(); // fldcw
    run(&mut cpu, &mut env, &[0xd9, 0xe8]).unwrap(); // fld1
    run(&mut cpu, &mut env, &[0xd9, 0xee]).unwrap(); // fldz
    run(&mut cpu, &mut env, &[0xde, 0xf9]).unwrap(); // fdivp: pends
    let pending = Err(Trap::fault(exception::MF));
    assert_eq!(run(&mut cpu, &mut env, &[0xd9, 0xe8]), pending);
    assert_eq!(run(&mut cpu, &mut env, &[0x9b]), pending);
    run(&mut cpu, &mut env, &[0xd9, 0x33]).unwrap(); // fnstenv [rbx]
    assert_eq!(
        env.get(DATA + 12, 4),
        CODE,
        "the guest's instruction pointer"
    );
    assert_eq!(env.get(DATA, 2), 0x037b);
    assert_eq!(env.get(DATA + 4, 2) & 0x84, 0x84);
    run(&mut cpu, &mut env, &[0xdb, 0xe2]).unwrap(); // fnclex
    run(&mut cpu, &mut env, &[0xd9, 0xe8]).unwrap();
}

#[test]
fn unmasked_simd_exceptions() {
    install_signal_handlers();
    let (mut cpu, mut env) = (processor(64), Flat::new());
    set_xmm(&mut cpu, 0, 1f64.to_bits(), 0);
    env.put(DATA, &0x1d80u32.to_le_bytes()); // zero-divide unmasked
    cpu.gpr[RBX] = DATA;
    run(&mut cpu, &mut env, &[0x0f, 0xae, 0x13]).unwrap(); // ldmxcsr [rbx]
    let before = cpu.gpr;
    // divsd xmm0, xmm1
    let bytes = [0xf2, 0x0f, 0x5e, 0xc1];
    assert_eq!(
        run(&mut cpu, &mut env, &bytes),
        Err(Trap::fault(exception::XM))
    );
    assert_eq!((xmm(&cpu, 0).0, cpu.gpr), (1f64.to_bits(), before));
    assert_eq!(state::mxcsr(&cpu), 0x1d84);
    cpu.cr4 &= !cr::CR4_OSXMMEXCPT;
    assert_eq!(run(&mut cpu, &mut env, &bytes), Err(Trap::UD));
    // The host's own environment is untouched.
    assert_eq!(
        (1.0f64 / std::hint::black_box(0.0)).to_bits(),
        f64::INFINITY.to_bits()
    );
}

#[test]
fn control_registers_gate_every_class() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    let (x87, mmx) = ([0xd9, 0xe8].as_slice(), [0x0f, 0xef, 0xc0].as_slice());
    let (sse, avx) = (
        [0x0f, 0x57, 0xc0].as_slice(),
        [0xc5, 0xf8, 0x57, 0xc0].as_slice(),
    );
    let mut check = |cr0: u64, cr4: u64, xcr0: u64, code: &[u8]| {
        cpu.cr0 = cr::CR0_PE | cr0;
        cpu.cr4 = cr4;
        cpu.xcr0 = xcr0;
        run(&mut cpu, &mut env, code)
    };
    let all = cr::CR4_OSFXSR | cr::CR4_OSXSAVE;
    for code in [x87, mmx, sse, avx] {
        assert_eq!(check(0, all, 7, code), Ok(()));
        assert_eq!(check(cr::CR0_TS, all, 7, code), Err(Trap::NM));
    }
    assert_eq!(check(cr::CR0_EM, all, 7, x87), Err(Trap::NM));
    assert_eq!(check(cr::CR0_EM, all, 7, mmx), Err(Trap::UD));
    assert_eq!(check(cr::CR0_EM, all, 7, sse), Err(Trap::UD));
    assert_eq!(check(0, 0, 1, sse), Err(Trap::UD));
    assert_eq!(check(0, 0, 1, mmx), Ok(()));
    assert_eq!(check(0, cr::CR4_OSFXSR, 7, avx), Err(Trap::UD));
    assert_eq!(check(0, all, 3, avx), Err(Trap::UD));
    // FWAIT looks at MP and TS together.
    assert_eq!(check(cr::CR0_TS, all, 7, &[0x9b]), Ok(()));
    assert_eq!(
        check(cr::CR0_TS | cr::CR0_MP, all, 7, &[0x9b]),
        Err(Trap::NM)
    );
}

#[test]
fn images_round_trip() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    cpu.gpr[RDI] = DATA;
    set_xmm(&mut cpu, 9, 0x1111, 0x2222);
    run(&mut cpu, &mut env, &[0xd9, 0xeb]).unwrap(); // fldpi
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0xae, 0x07]).unwrap(); // fxsave64 [rdi]
    assert_eq!(env.get(DATA + 160 + 144, 8), 0x1111);
    assert_eq!(env.get(DATA + 4, 1), 0x80);
    run(&mut cpu, &mut env, &[0xdd, 0xb7, 0, 4, 0, 0]).unwrap(); // fnsave [rdi+0x400]
    assert_eq!(
        env.get(DATA + 0x408, 2),
        0x3fff,
        "only register 7 is in use"
    );
    assert_eq!(env.get(DATA + 0x41c, 8), 0xc90f_daa2_2168_c235);
    run(&mut cpu, &mut env, &[0xdf, 0xe0]).unwrap(); // fnstsw ax
    assert_eq!(cpu.gpr[RAX] & 0xffff, 0, "initialized");
    run(&mut cpu, &mut env, &[0xdd, 0xa7, 0, 4, 0, 0]).unwrap(); // frstor [rdi+0x400]
    set_xmm(&mut cpu, 9, 0, 0);
    run(&mut cpu, &mut env, &[0xdb, 0xbf, 0, 8, 0, 0]).unwrap(); // fstp tbyte [rdi+0x800]
    assert_eq!(env.get(DATA + 0x808, 2), 0x4000);
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0xae, 0x0f]).unwrap(); // fxrstor64 [rdi]
    assert_eq!(xmm(&cpu, 9), (0x1111, 0x2222));
    env.put(DATA + 26, &[1]);
    assert_eq!(
        run(&mut cpu, &mut env, &[0x48, 0x0f, 0xae, 0x0f]),
        Err(Trap::GP0)
    );
}

#[test]
fn masked_moves_touch_selected_elements_only() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.absent = Some(DATA + 0x1000);
    cpu.gpr[RDI] = DATA + 0xff8;
    set_xmm(&mut cpu, 1, 0x8000_0000_0000_0000, 0); // element 1 of 4
    set_xmm(&mut cpu, 2, 0xbbbb_bbbb_aaaa_aaaa, 0xdddd_dddd_cccc_cccc);
    // vmaskmovps [rdi], xmm1, xmm2
    run(&mut cpu, &mut env, &[0xc4, 0xe2, 0x71, 0x2e, 0x17]).unwrap();
    assert_eq!(env.get(DATA + 0xff8, 8), 0xbbbb_bbbb_0000_0000);
    // vmaskmovps xmm3, xmm1, [rdi]
    run(&mut cpu, &mut env, &[0xc4, 0xe2, 0x71, 0x2c, 0x1f]).unwrap();
    assert_eq!(xmm(&cpu, 3), (0xbbbb_bbbb_0000_0000, 0));
    // With element 2 selected the second page is touched.
    set_xmm(&mut cpu, 1, 0, 0x8000_0000);
    assert!(run(&mut cpu, &mut env, &[0xc4, 0xe2, 0x71, 0x2c, 0x1f]).is_err());
    // maskmovdqu xmm2, xmm1: byte 11
    cpu.gpr[RDI] = DATA;
    env.put(DATA, &[0x77; 16]);
    run(&mut cpu, &mut env, &[0x66, 0x0f, 0xf7, 0xd1]).unwrap();
    assert_eq!(env.get(DATA + 8, 8), 0x7777_7777_cc77_7777);
    assert_eq!(env.get(DATA, 8), 0x7777_7777_7777_7777);
}

#[test]
fn gathers_go_on_after_a_fault() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.absent = Some(DATA + 0x1000);
    env.put(DATA, &0x11u32.to_le_bytes());
    env.put(DATA + 8, &0x22u32.to_le_bytes());
    cpu.gpr[RAX] = DATA;
    set_xmm(&mut cpu, 2, 2 << 32, 0x400); // indices 0, 2, 0x400, 0, scaled by 4
    set_xmm(&mut cpu, 3, u64::MAX, 0xffff_ffff); // three selected
    // vpgatherdd xmm1, [rax+xmm2*4], xmm3
    let bytes = [0xc4, 0xe2, 0x61, 0x90, 0x0c, 0x90];
    let fault = Err(Trap::page_fault(DATA + 0x1000, 0));
    assert_eq!(run(&mut cpu, &mut env, &bytes), fault);
    assert_eq!(xmm(&cpu, 1), (0x22 << 32 | 0x11, 0));
    assert_eq!(xmm(&cpu, 3), (0, 0xffff_ffff));
    env.absent = None;
    env.put(DATA + 0x1000, &0x33u32.to_le_bytes());
    run(&mut cpu, &mut env, &bytes).unwrap();
    assert_eq!(xmm(&cpu, 1), (0x22 << 32 | 0x11, 0x33));
    assert_eq!(xmm(&cpu, 3), (0, 0));
    // The three registers must differ: vpgatherdd xmm2, [rax+xmm2*4], xmm3
    assert_eq!(
        run(&mut cpu, &mut env, &[0xc4, 0xe2, 0x61, 0x90, 0x14, 0x90]),
        Err(Trap::UD)
    );
}

#[test]
fn many_instructions_share_the_slots() {
    // More different immediates and registers than slots: every one must still be right.
    let (mut cpu, mut env) = (processor(64), Flat::new());
    for immediate in 0..=255u8 {
        for register in 0..8u8 {
            set_xmm(&mut cpu, usize::from(register), 0x0003_0002_0001_0000, 0);
            let bytes = [0xf2, 0x0f, 0x70, 0xc0 | register << 3 | register, immediate];
            run(&mut cpu, &mut env, &bytes).unwrap(); // pshuflw
            let want = (0..4).fold(0, |v, i| {
                v | u64::from(immediate >> (2 * i) & 3) << (16 * i)
            });
            assert_eq!(xmm(&cpu, usize::from(register)).0, want);
        }
    }
    cpu.gpr[RCX] = 0;
}
