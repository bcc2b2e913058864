//! Integer instructions, in tables and against the host's processor.

use std::arch::asm;

use flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};
use ringfence_x86::{exception, flags};

use super::*;
use crate::cpu::{RAX, RBX, RCX, RDI, RDX};
use crate::interp::arithmetic as arith;

const VALUES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Runs one host instruction on (rax, rbx, rcx) with flags; yields rax and the flags.
macro_rules! host {
    ($text:literal, $a:expr, $b:expr, $c:expr, $flags:expr) => {{
        let (mut a, mut f): (u64, u64) = ($a, $flags | 2);
        let b: u64 = $b;
        // SAFETY: the text works on RAX, RSI and RCX only; flags are saved around.
        unsafe {
            asm!("push {f}", "popfq", $text, "pushfq", "pop {f}",
                f = inout(reg) f, inout("rax") a, in("rsi") b, in("rcx") $c);
        }
        (a, f & ARITHMETIC)
    }};
}

macro_rules! cross_check {
    ($name:ident, $defined:expr, [$($text:literal, $size:expr, $f:expr);* $(;)?]) => {
        #[test]
        fn $name() {
            for a in VALUES {
                for b in VALUES {
                    for count in 0..66u64 {
                        for before in [0, ARITHMETIC, CF] {
                            $(
                                let f: fn(u64, u64, u32, usize, u64) -> (u64, u64) = $f;
                                let size: usize = $size;
                                let shift = arith::shift_count(count, size);
                                let width = 8 * size as u32;
                                let (want, flags) = host!($text, a, b, count, before);
                                let (result, after) = f(a & register::mask(size), b, shift, size, before);
                                let mask = register::mask(size);
                                assert_eq!(result & mask, want & mask,
                                    "{} {a:#x} {b:#x} {count}", $text);
                                let defined: fn(u32, u32) -> u64 = $defined;
                                let defined = defined(shift, width);
                                assert_eq!(after & defined, flags & defined,
                                    "{} {a:#x} {b:#x} {count} {before:#x}", $text);
                            )*
                        }
                    }
                }
            }
        }
    };
}

use crate::interp::register;

cross_check!(shifts_as_the_host, |count, width| match count {
    0 => ARITHMETIC,
    1 => ARITHMETIC & !AF,
    n if n > width => SF | ZF | PF,
    _ => CF | SF | ZF | PF,
}, [
    "shl al, cl", 1, |a, _, n, s, f| arith::shl(a, n, s, f);
    "shl ax, cl", 2, |a, _, n, s, f| arith::shl(a, n, s, f);
    "shl rax, cl", 8, |a, _, n, s, f| arith::shl(a, n, s, f);
    "shr al, cl", 1, |a, _, n, s, f| arith::shr(a, n, s, f);
    "shr eax, cl", 4, |a, _, n, s, f| arith::shr(a, n, s, f);
    "shr rax, cl", 8, |a, _, n, s, f| arith::shr(a, n, s, f);
    "sar al, cl", 1, |a, _, n, s, f| arith::sar(a, n, s, f);
    "sar ax, cl", 2, |a, _, n, s, f| arith::sar(a, n, s, f);
    "sar rax, cl", 8, |a, _, n, s, f| arith::sar(a, n, s, f);
]);

cross_check!(rotates_as_the_host, |count, _| match count {
    0 | 1 => ARITHMETIC,
    _ => ARITHMETIC & !OF,
}, [
    "rol al, cl", 1, |a, _, n, s, f| arith::rol(a, n, s, f);
    "rol ax, cl", 2, |a, _, n, s, f| arith::rol(a, n, s, f);
    "rol rax, cl", 8, |a, _, n, s, f| arith::rol(a, n, s, f);
    "ror al, cl", 1, |a, _, n, s, f| arith::ror(a, n, s, f);
    "ror eax, cl", 4, |a, _, n, s, f| arith::ror(a, n, s, f);
    "rcl al, cl", 1, |a, _, n, s, f| arith::rcl(a, n, s, f);
    "rcl ax, cl", 2, |a, _, n, s, f| arith::rcl(a, n, s, f);
    "rcl rax, cl", 8, |a, _, n, s, f| arith::rcl(a, n, s, f);
    "rcr al, cl", 1, |a, _, n, s, f| arith::rcr(a, n, s, f);
    "rcr eax, cl", 4, |a, _, n, s, f| arith::rcr(a, n, s, f);
    "rcr rax, cl", 8, |a, _, n, s, f| arith::rcr(a, n, s, f);
]);

cross_check!(double_shifts_as_the_host, |count, _| match count {
    0 => ARITHMETIC,
    1 => ARITHMETIC & !AF,
    _ => CF | SF | ZF | PF,
}, [
    "shld eax, esi, cl", 4, |a, b, n, s, f| arith::shld(a, b, n, s, f);
    "shld rax, rsi, cl", 8, |a, b, n, s, f| arith::shld(a, b, n, s, f);
    "shrd eax, esi, cl", 4, |a, b, n, s, f| arith::shrd(a, b, n, s, f);
    "shrd rax, rsi, cl", 8, |a, b, n, s, f| arith::shrd(a, b, n, s, f);
]);

cross_check!(sums_as_the_host, |_, _| ARITHMETIC, [
    "add al, sil", 1, |a, b, _, s, f| arith::add(a, b, false, s, f);
    "adc ax, si", 2, |a, b, _, s, f| arith::add(a, b, f & CF != 0, s, f);
    "adc rax, rsi", 8, |a, b, _, s, f| arith::add(a, b, f & CF != 0, s, f);
    "sub eax, esi", 4, |a, b, _, s, f| arith::sub(a, b, false, s, f);
    "sbb al, sil", 1, |a, b, _, s, f| arith::sub(a, b, f & CF != 0, s, f);
    "sbb rax, rsi", 8, |a, b, _, s, f| arith::sub(a, b, f & CF != 0, s, f);
    "inc al", 1, |a, _, _, s, f| arith::inc(a, s, f);
    "dec eax", 4, |a, _, _, s, f| arith::dec(a, s, f);
    "neg rax", 8, |a, _, _, s, f| arith::neg(a, s, f);
]);

#[test]
fn compare_and_exchange() {
    // lock cmpxchg [rdi], ecx
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.put(DATA, &7u32.to_le_bytes());
    (cpu.gpr[RDI], cpu.gpr[RAX], cpu.gpr[RCX]) = (DATA, u64::MAX << 32 | 7, 9);
    run(&mut cpu, &mut env, &[0xf0, 0x0f, 0xb1, 0x0f]).unwrap();
    assert_eq!((env.get(DATA, 4), cpu.rflags & ZF), (9, ZF));
    assert_eq!(
        cpu.gpr[RAX],
        u64::MAX << 32 | 7,
        "an equal comparison leaves RAX alone"
    );
    run(&mut cpu, &mut env, &[0xf0, 0x0f, 0xb1, 0x0f]).unwrap();
    assert_eq!((cpu.gpr[RAX], cpu.rflags & ZF), (9, 0));

    // cmpxchg edx, ecx: a failed comparison keeps the upper half of the register
    (cpu.gpr[RAX], cpu.gpr[RDX]) = (7, u64::MAX << 32 | 8);
    run(&mut cpu, &mut env, &[0x0f, 0xb1, 0xca]).unwrap();
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RDX]), (8, u64::MAX << 32 | 8));
    run(&mut cpu, &mut env, &[0x0f, 0xb1, 0xca]).unwrap();
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RDX]), (8, 9));

    // lock cmpxchg16b [rdi], and its alignment
    env.put(DATA, &1u64.to_le_bytes());
    env.put(DATA + 8, &2u64.to_le_bytes());
    (cpu.gpr[RAX], cpu.gpr[RDX], cpu.gpr[RBX], cpu.gpr[RCX]) = (1, 2, 3, 4);
    run(&mut cpu, &mut env, &[0xf0, 0x48, 0x0f, 0xc7, 0x0f]).unwrap();
    assert_eq!(
        (env.get(DATA, 8), env.get(DATA + 8, 8), cpu.rflags & ZF),
        (3, 4, ZF)
    );
    cpu.gpr[RDI] = DATA + 8;
    assert_eq!(
        run(&mut cpu, &mut env, &[0xf0, 0x48, 0x0f, 0xc7, 0x0f]),
        Err(Trap::GP0)
    );
}

#[test]
fn divide_errors_change_nothing() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    for (bytes, rax, rdx, rcx) in [
        (&[0xf6, 0xf1][..], 0x1234, 0, 0),           // div cl by zero
        (&[0xf6, 0xf1], 0x0100, 0, 1),               // quotient 256
        (&[0x48, 0xf7, 0xf1], 0, 5, 5),              // quotient 2^64
        (&[0x48, 0xf7, 0xf9], 0, 1 << 63, u64::MAX), // -2^127 / -1
        (&[0xf7, 0xf9], 0x8000_0000, 0xffff_ffff, 0xffff_ffff), // -2^31 / -1
    ] {
        (cpu.gpr[RAX], cpu.gpr[RDX], cpu.gpr[RCX]) = (rax, rdx, rcx);
        let before = cpu.gpr;
        assert_eq!(run(&mut cpu, &mut env, bytes), Err(Trap::DE), "{bytes:x?}");
        assert_eq!(cpu.gpr, before);
    }
    (cpu.gpr[RAX], cpu.gpr[RDX], cpu.gpr[RCX]) = ((-7i64) as u64, u64::MAX, 2);
    run(&mut cpu, &mut env, &[0x48, 0xf7, 0xf9]).unwrap();
    assert_eq!((cpu.gpr[RAX] as i64, cpu.gpr[RDX] as i64), (-3, -1));
}

#[test]
fn products() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    (cpu.gpr[RAX], cpu.gpr[RCX]) = (u64::MAX, 2);
    run(&mut cpu, &mut env, &[0x48, 0xf7, 0xe1]).unwrap(); // mul rcx
    assert_eq!((cpu.gpr[RDX], cpu.gpr[RAX]), (1, u64::MAX - 1));
    assert_eq!(cpu.rflags & (CF | OF), CF | OF);
    (cpu.gpr[RAX], cpu.gpr[RCX]) = (u64::MAX, 2);
    run(&mut cpu, &mut env, &[0x48, 0xf7, 0xe9]).unwrap(); // imul rcx
    assert_eq!((cpu.gpr[RDX] as i64, cpu.gpr[RAX] as i64), (-1, -2));
    assert_eq!(cpu.rflags & (CF | OF), 0);
    run(&mut cpu, &mut env, &[0x6b, 0xc1, 0x81]).unwrap(); // imul eax, ecx, -127
    assert_eq!(cpu.gpr[RAX] as u32 as i32, -254);
}

#[test]
fn bit_strings_reach_below_their_operand() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    (cpu.gpr[RDI], cpu.gpr[RCX]) = (DATA + 8, (-1i64) as u64);
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0xab, 0x0f]).unwrap(); // bts [rdi], rcx
    assert_eq!((env.get(DATA, 8), cpu.rflags & CF), (1 << 63, 0));
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0xa3, 0x0f]).unwrap(); // bt
    assert_eq!(cpu.rflags & CF, CF);
    // bt dword [rdi], 33: an immediate stays within the operand
    env.put(DATA + 8, &[2, 0, 0, 0]);
    run(&mut cpu, &mut env, &[0x0f, 0xba, 0x27, 33]).unwrap();
    assert_eq!(cpu.rflags & CF, CF);
}

#[test]
fn decimal_adjustments() {
    let (mut cpu, mut env) = (processor(32), Flat::new());
    for (bytes, ax, before, want, after) in [
        (&[0x27][..], 0x9a, 0, 0x00, CF | AF | ZF | PF), // daa
        (&[0x27], 0x2e, 0, 0x34, AF),
        (&[0x2f], 0x05, AF, 0xff, CF | AF | SF | PF), // das
        (&[0x37], 0x000f, 0, 0x0105, CF | AF),        // aaa
        (&[0x3f], 0x0200, AF, 0x000a, CF | AF),       // aas
        (&[0xd4, 10], 0x003f, 0, 0x0603, 0),          // aam
        (&[0xd5, 10], 0x0603, 0, 0x003f, 0),          // aad
    ] {
        cpu.gpr[RAX] = ax;
        set_flags(&mut cpu, before);
        run(&mut cpu, &mut env, bytes).unwrap();
        assert_eq!(cpu.gpr[RAX], want, "{bytes:x?} {ax:x}");
        let defined = if bytes.len() == 2 { 0 } else { CF | AF };
        assert_eq!(cpu.rflags & defined, after & defined, "{bytes:x?} {ax:x}");
    }
    assert_eq!(run(&mut cpu, &mut env, &[0xd4, 0]), Err(Trap::DE));
}

#[test]
fn sixteen_bit_addresses_wrap() {
    let (mut cpu, mut env) = (processor(16), Flat::new());
    env.put(0x10, &[0xaa]);
    (cpu.gpr[RBX], cpu.gpr[RDI]) = (0xfff0, 0x20);
    run(&mut cpu, &mut env, &[0x8a, 0x01]).unwrap(); // mov al, [bx+di]
    assert_eq!(cpu.gpr[RAX], 0xaa);
    run(&mut cpu, &mut env, &[0x8d, 0x01]).unwrap(); // lea ax, [bx+di]
    assert_eq!(cpu.gpr[RAX], 0x10);
}

#[test]
fn a_failed_write_changes_no_flag() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    env.read_only = Some(DATA);
    (cpu.gpr[RDI], cpu.gpr[RAX]) = (DATA + 8, 1);
    set_flags(&mut cpu, ARITHMETIC);
    let fault = Err(Trap::page_fault(
        DATA + 8,
        exception::PF_PRESENT | exception::PF_WRITE,
    ));
    assert_eq!(run(&mut cpu, &mut env, &[0x48, 0x01, 0x07]), fault); // add [rdi], rax
    assert_eq!(run(&mut cpu, &mut env, &[0x48, 0x0f, 0xc1, 0x07]), fault); // xadd [rdi], rax
    assert_eq!((cpu.rflags & ARITHMETIC, cpu.gpr[RAX]), (ARITHMETIC, 1));
}

#[test]
fn scans_and_fields() {
    let (mut cpu, mut env) = (processor(64), Flat::new());
    for (bytes, source, want, flags) in [
        (&[0xf3, 0x48, 0x0f, 0xbc, 0xc1][..], 0, 64, CF), // tzcnt rax, rcx
        (&[0xf3, 0x0f, 0xbd, 0xc1], 1 << 31, 0, ZF),      // lzcnt eax, ecx
        (&[0xf3, 0x66, 0x0f, 0xbd, 0xc1], 0, 16, CF),     // lzcnt ax, cx
        (&[0x48, 0x0f, 0xbd, 0xc1], 1 << 40, 40, 0),      // bsr rax, rcx
        (&[0xf3, 0x0f, 0xb8, 0xc1], 0xf00f, 8, 0),        // popcnt eax, ecx
    ] {
        (cpu.gpr[RAX], cpu.gpr[RCX]) = (0, source);
        set_flags(&mut cpu, 0);
        run(&mut cpu, &mut env, bytes).unwrap();
        assert_eq!(
            (cpu.gpr[RAX], cpu.rflags & (CF | ZF)),
            (want, flags),
            "{bytes:x?}"
        );
    }
    cpu.gpr[RAX] = 77;
    cpu.gpr[RCX] = 0;
    run(&mut cpu, &mut env, &[0x0f, 0xbc, 0xc1]).unwrap(); // bsf of zero
    assert_eq!((cpu.gpr[RAX], cpu.rflags & ZF), (77, ZF));
    // bextr eax, ecx, edx: 8 bits from bit 4
    (cpu.gpr[RCX], cpu.gpr[RDX]) = (0xabcd, 0x0804);
    run(&mut cpu, &mut env, &[0xc4, 0xe2, 0x68, 0xf7, 0xc1]).unwrap();
    assert_eq!(cpu.gpr[RAX], 0xbc);
    // crc32 eax, cl of an empty state
    (cpu.gpr[RAX], cpu.gpr[RCX]) = (0, 1);
    run(&mut cpu, &mut env, &[0xf2, 0x0f, 0x38, 0xf0, 0xc1]).unwrap();
    assert_eq!(cpu.gpr[RAX], 0xf26b_8303);
}
