//! String instructions: the bulk path must be indistinguishable from single elements.

use proptest::prelude::*;
use ringfence_x86::flags;

use super::*;
use crate::cpu::{DS, ES, RAX, RCX, RDI, RSI};

fn pattern(env: &mut Flat) {
    for at in DATA..DATA + 0x4000 {
        *env.byte(at) = (at * 7 + (at >> 8)) as u8;
    }
}

proptest! {
    #[test]
    fn bulk_is_single_elements(
        source in 0u64..0x2000,
        distance in -70i64..70,
        far in any::<bool>(),
        count in 0u64..700,
        backward in any::<bool>(),
        form in 0usize..8,
        short in any::<bool>(),
    ) {
        let forms: [&[u8]; 8] = [
            &[0xf3, 0xa4], &[0xf3, 0x66, 0xa5], &[0xf3, 0xa5], &[0xf3, 0x48, 0xa5],
            &[0xf3, 0xaa], &[0xf3, 0x66, 0xab], &[0xf3, 0xab], &[0xf3, 0x48, 0xab],
        ];
        let mut code = forms[form].to_vec();
        if short {
            code.insert(0, 0x67);
        }
        let run_with = |bulk: bool| {
            let (mut cpu, mut env) = (processor(64), Flat::new());
            env.bulk = bulk;
            pattern(&mut env);
            cpu.gpr[RSI] = DATA + 0x1000 + source;
            cpu.gpr[RDI] =
                (cpu.gpr[RSI] as i64 + distance) as u64 + if far { 0x1000 } else { 0 };
            cpu.gpr[RCX] = count;
            cpu.gpr[RAX] = 0x0123_4567_89ab_cdef;
            if backward {
                cpu.rflags |= flags::DF;
            }
            env.absent = Some(DATA + 0x5000);
            let result = run(&mut cpu, &mut env, &code);
            let memory: Vec<u8> = env.pages.iter().flat_map(|page| page.0).collect();
            (result, cpu.gpr, cpu.rip, memory)
        };
        let (a, b) = (run_with(true), run_with(false));
        prop_assert_eq!((&a.0, a.1, a.2), (&b.0, b.1, b.2));
        prop_assert!(a.3 == b.3, "memory differs");
    }
}

#[test]
fn a_move_by_one_replicates() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.put(DATA, &[0xab]);
    (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]) = (DATA, DATA + 1, 4000);
    run(&mut cpu, &mut env, &[0xf3, 0xa4]).unwrap();
    assert!((0..=4000).all(|i| *env.byte(DATA + i) == 0xab));
    assert!(env.commits < 10, "done in bulk");
    assert_eq!(cpu.rip, CODE + 2);
}

#[test]
fn a_fault_keeps_finished_elements() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.absent = Some(DATA + 0x1000);
    (cpu.gpr[RDI], cpu.gpr[RCX], cpu.gpr[RAX]) = (DATA + 0xff0, 32, 0x5a);
    let fault = Err(Trap::page_fault(DATA + 0x1000, 2));
    assert_eq!(run(&mut cpu, &mut env, &[0xf3, 0xaa]), fault);
    assert_eq!((cpu.gpr[RDI], cpu.gpr[RCX]), (DATA + 0x1000, 16));
    env.absent = None;
    run(&mut cpu, &mut env, &[0xf3, 0xaa]).unwrap();
    assert_eq!(
        (cpu.gpr[RDI], cpu.gpr[RCX], *env.byte(DATA + 0x100f)),
        (DATA + 0x1010, 0, 0x5a)
    );
}

#[test]
fn comparisons_end_by_zf() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.put(DATA, b"abcdef\0gh");
    (cpu.gpr[RDI], cpu.gpr[RCX], cpu.gpr[RAX]) = (DATA, u64::MAX, 0);
    run(&mut cpu, &mut env, &[0xf2, 0xae]).unwrap(); // repne scasb
    assert_eq!((cpu.gpr[RDI], cpu.gpr[RCX]), (DATA + 7, u64::MAX - 7));
    env.put(DATA + 0x100, b"abcxef");
    (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]) = (DATA, DATA + 0x100, 6);
    run(&mut cpu, &mut env, &[0xf3, 0xa6]).unwrap(); // repe cmpsb
    assert_eq!(
        (cpu.gpr[RCX], cpu.rflags & (flags::ZF | flags::CF)),
        (2, flags::CF)
    );
    // No element: flags stay.
    set_flags(&mut cpu, flags::ZF);
    cpu.gpr[RCX] = 0;
    run(&mut cpu, &mut env, &[0xf3, 0xa6]).unwrap();
    assert_eq!(cpu.rflags & flags::ARITHMETIC, flags::ZF);
}

#[test]
fn sixteen_bit_pointers_wrap_and_segments_count() {
    let (mut cpu, mut env) = (processor(16), Flat::new());
    cpu.seg[DS].base = DATA;
    cpu.seg[ES].base = DATA + 0x1_0000;
    env.put(DATA + 0xffff, &[1]);
    env.put(DATA, &[2]);
    (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]) = (0xabcd_ffff, 0x10, 0x7777_0002);
    run(&mut cpu, &mut env, &[0xf3, 0xa4]).unwrap();
    assert_eq!(env.get(DATA + 0x1_0010, 2), 0x0201);
    assert_eq!((cpu.gpr[RSI], cpu.gpr[RCX]), (0xabcd_0001, 0x7777_0000));
    env.put(DATA + 0x1_0001, &[0x99]);
    run(&mut cpu, &mut env, &[0x26, 0xac]).unwrap(); // lodsb es:
    assert_eq!(cpu.gpr[RAX] & 0xff, 0x99);
}

#[test]
fn a_pause_leaves_rip_on_the_instruction() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.bulk = false;
    env.yields = true;
    (cpu.gpr[RDI], cpu.gpr[RCX]) = (DATA, 3);
    run(&mut cpu, &mut env, &[0xf3, 0xaa]).unwrap();
    assert_eq!((cpu.rip, cpu.gpr[RCX]), (CODE, 2));
    run(&mut cpu, &mut env, &[0xf3, 0xaa]).unwrap();
    run(&mut cpu, &mut env, &[0xf3, 0xaa]).unwrap();
    assert_eq!((cpu.rip, cpu.gpr[RCX]), (CODE + 2, 0));
}
