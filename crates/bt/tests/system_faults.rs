//! Faults: vectors, error codes, CR2, RIP, RFLAGS and registers, wherever in a block they arise.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_x86::exception as ex;
use ringfence_x86::{cr, flags, paging};
use system::*;

type Asm = Result<(), IcedError>;

/// The page behind the last good one: absent or read-only.
const EDGE: u64 = DATA + 0x2_0000;

/// Runs `code` behind a prologue that sets RSI and RDI to `at`, other registers, CF and ZF.
#[track_caller]
fn precise(m: &mut Machine, at: u64, code: impl Fn(&mut CodeAssembler) -> Asm) -> Frame {
    m.code(CODE, |a| {
        a.mov(rsi, at)?;
        a.mov(rdi, at)?;
        a.mov(eax, 0x11)?;
        a.mov(ebx, 0x22)?;
        a.mov(ecx, 0x33)?;
        a.mov(edx, 0x44)?;
        a.cmp(eax, eax)?;
        a.stc()?;
        code(a)?;
        a.out(i32::from(STOP), al)
    });
    m.start(CODE);
    m.run().frame()
}

fn arithmetic(frame: Frame) -> u64 {
    frame.rflags & flags::ARITHMETIC
}

const CF_ZF: u64 = flags::CF | flags::ZF | flags::PF;

/// Gives the handler of `vector` a stack of its own.
fn with_stack(m: &Machine, vector: u8) {
    gate(&m.memory, vector, HANDLERS + u64::from(vector) * 16, 0, 1);
}

#[test]
fn runs_of_pushes_and_pops_at_page_ends() {
    let mut m = Machine::new(1);
    with_stack(&m, ex::PF);
    let mov_rsp = assemble(64, CODE, |a| a.mov(rsp, EDGE)).len() as u64;
    for absent in [true, false] {
        m.map(EDGE, if absent { 0 } else { EDGE | paging::P });
        m.reset();
        let code = ex::PF_WRITE | if absent { 0 } else { ex::PF_PRESENT };
        for count in 0..9u64 {
            let top = EDGE + 0x1000 + count * 8;
            for i in 0..count {
                m.write64(EDGE + 0x1000 + i * 8, 0xdead);
            }
            m.code(CODE, |a| {
                a.mov(rsp, top)?;
                a.mov(eax, 0x11)?;
                a.mov(ebx, 0x22)?;
                a.cmp(eax, eax)?;
                a.stc()?;
                for i in 0..16 {
                    if i % 2 == 0 {
                        a.push(rax)?
                    } else {
                        a.push(rbx)?
                    }
                }
                a.adc(eax, ebx)?;
                a.out(i32::from(STOP), al)
            });
            m.start(CODE);
            let frame = m.run().page_fault(code, EDGE + 0xff8);
            assert_eq!(frame.rsp, EDGE + 0x1000, "after {count} pushes");
            // MOV with 64-bit immediate, two MOVs, CMP, STC, then the pushes.
            assert_eq!(
                frame.rip - CODE,
                mov_rsp + 13 + count,
                "after {count} pushes"
            );
            assert_eq!(arithmetic(frame), CF_ZF, "after {count} pushes");
            for i in 0..count {
                let pushed = m.read64(top - 8 - i * 8);
                assert_eq!(pushed, if i % 2 == 0 { 0x11 } else { 0x22 });
            }
        }
        if !absent {
            continue;
        }
        // Pops that run into the absent page.
        for count in 0..9u64 {
            let top = EDGE - count * 8;
            for i in 0..count {
                m.write64(top + i * 8, 0x100 + i);
            }
            m.code(CODE, |a| {
                a.mov(rsp, top)?;
                a.cmp(eax, eax)?;
                a.stc()?;
                for register in [rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13] {
                    a.pop(register)?;
                }
                a.out(i32::from(STOP), al)
            });
            m.start(CODE);
            let frame = m.run().page_fault(0, EDGE);
            assert_eq!(
                (frame.rsp, arithmetic(frame)),
                (EDGE, CF_ZF),
                "after {count} pops"
            );
            let gpr = m.registers().gpr;
            for (i, number) in [0, 3, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13]
                .into_iter()
                .enumerate()
            {
                let wanted = if (i as u64) < count {
                    0x100 + i as u64
                } else {
                    0
                };
                assert_eq!(gpr[number], wanted, "register {number} after {count} pops");
            }
        }
    }
}

#[test]
fn stores_of_one_window_across_a_page_end() {
    let mut m = Machine::new(1);
    for absent in [true, false] {
        m.map(EDGE, if absent { 0 } else { EDGE | paging::P });
        m.reset();
        let code = ex::PF_WRITE | if absent { 0 } else { ex::PF_PRESENT };
        for count in 0..8u64 {
            let at = EDGE - count * 8;
            for i in 0..count {
                m.write64(at + i * 8, 0);
            }
            let frame = precise(&mut m, at, |a| {
                for i in 0..10 {
                    a.mov(qword_ptr(rsi + i * 8), rbx)?;
                    a.lea(rdx, qword_ptr(rdx + 1))?;
                }
                Ok(())
            });
            assert_eq!((frame.vector, frame.error), (ex::PF, Some(u64::from(code))));
            assert_eq!((frame.cr2, arithmetic(frame)), (EDGE, CF_ZF));
            assert_eq!(m.registers().gpr[2], 0x44 + count);
            for i in 0..count {
                assert_eq!(m.read64(at + i * 8), 0x22);
            }
        }
    }
}

#[test]
fn an_access_across_the_page_end_has_no_partial_effect() {
    let mut m = Machine::new(1);
    let at = EDGE - 3;
    type Case = (&'static str, u32, fn(&mut CodeAssembler) -> Asm);
    let cases: [Case; 12] = [
        ("store", 2, |a| a.mov(qword_ptr(rsi), rax)),
        ("store16", 2, |a| a.mov(dword_ptr(rsi), eax)),
        ("add", 2, |a| a.add(qword_ptr(rsi), rax)),
        ("adc", 2, |a| a.adc(dword_ptr(rsi), eax)),
        ("inc", 2, |a| a.inc(qword_ptr(rsi))),
        ("xchg", 2, |a| a.xchg(qword_ptr(rsi), rbx)),
        ("xadd", 2, |a| a.lock().xadd(dword_ptr(rsi), ebx)),
        ("cmpxchg", 2, |a| a.cmpxchg(qword_ptr(rsi), rbx)),
        ("load", 0, |a| a.mov(rax, qword_ptr(rsi))),
        ("add load", 0, |a| a.add(rax, qword_ptr(rsi))),
        ("movups", 2, |a| a.movups(xmmword_ptr(rsi), xmm1)),
        ("bts", 2, |a| a.bts(dword_ptr(rsi), 3)),
    ];
    for absent in [true, false] {
        m.map(EDGE, if absent { 0 } else { EDGE | paging::P });
        m.reset();
        for (name, write, case) in cases {
            if write == 0 && !absent {
                continue;
            }
            m.write64(EDGE - 8, 0x8877_6655_4433_2211);
            let frame = precise(&mut m, at, case);
            let code = u64::from(write | u32::from(!absent));
            assert_eq!((frame.vector, frame.error), (ex::PF, Some(code)), "{name}");
            assert_eq!(frame.cr2, EDGE, "{name}");
            // Flags that the instruction overwrites need not be kept for the fault.
            let kept = match name {
                "store" | "store16" | "xchg" | "load" | "movups" => flags::ARITHMETIC,
                "adc" | "inc" => flags::CF,
                "bts" => flags::ZF,
                _ => 0,
            };
            assert_eq!(frame.rflags & kept, CF_ZF & kept, "{name}");
            assert_eq!(m.read64(EDGE - 8), 0x8877_6655_4433_2211, "{name}");
            let gpr = m.registers().gpr;
            assert_eq!((gpr[0], gpr[3]), (0x11, 0x22), "{name}");
        }
    }
}

#[test]
fn string_instructions_stop_at_the_element_that_faults() {
    let mut m = Machine::new(1);
    m.map(EDGE, 0);
    let frame = precise(&mut m, EDGE - 40, |a| {
        a.cld()?;
        a.mov(ecx, 100)?;
        a.rep().stosq()
    });
    assert_eq!(
        (frame.vector, frame.cr2, frame.error),
        (ex::PF, EDGE, Some(2))
    );
    let gpr = m.registers().gpr;
    assert_eq!((gpr[1], gpr[7], arithmetic(frame)), (95, EDGE, CF_ZF));
    let frame = precise(&mut m, EDGE - 24, |a| {
        a.mov(rdi, EDGE + 0x1000)?;
        a.mov(ecx, 100)?;
        a.rep().movsd()
    });
    assert_eq!(
        (frame.vector, frame.cr2, frame.error),
        (ex::PF, EDGE, Some(0))
    );
    let gpr = m.registers().gpr;
    assert_eq!((gpr[1], gpr[6], gpr[7]), (94, EDGE, EDGE + 0x1018));
    // Down into it.
    let frame = precise(&mut m, EDGE + 0x1008, |a| {
        a.std()?;
        a.mov(ecx, 100)?;
        a.rep().stosq()
    });
    assert_eq!((frame.vector, frame.cr2), (ex::PF, EDGE + 0xff8));
    let gpr = m.registers().gpr;
    assert_eq!((gpr[1], gpr[7]), (98, EDGE + 0xff8));
    assert_ne!(frame.rflags & flags::DF, 0);
}

#[test]
fn calls_and_returns_that_fault() {
    let mut m = Machine::new(1);
    with_stack(&m, ex::PF);
    with_stack(&m, ex::GP);
    with_stack(&m, ex::SS);
    m.map(EDGE, 0);
    let bad = EDGE + 0x1000;
    let target = CODE + 0x800;
    m.code(target, |a| a.out(i32::from(STOP), al));
    let frame = m
        .exec(|a| {
            a.mov(rsp, bad)?;
            a.call(target)
        })
        .page_fault(2, bad - 8);
    assert_eq!((frame.rip, frame.rsp), (CODE + 10, bad));
    let frame = m
        .exec(|a| {
            a.mov(rax, target)?;
            a.mov(rsp, bad)?;
            a.call(rax)
        })
        .page_fault(2, bad - 8);
    assert_eq!((frame.rip, frame.rsp), (CODE + 20, bad));
    let frame = m
        .exec(|a| {
            a.mov(rsp, EDGE)?;
            a.ret()
        })
        .page_fault(0, EDGE);
    assert_eq!((frame.rip, frame.rsp), (CODE + 10, EDGE));
    // A branch to a non-canonical address. (Translated code faults behind it, at the target.)
    // The second one has the low 48 bits of code that is there.
    let targets = [0x8000_0000_0000u64, 1 << 53 | CODE];
    for (away, kind) in targets
        .into_iter()
        .flat_map(|t| (0..3).map(move |kind| (t, kind)))
    {
        let frame = m
            .exec(|a| {
                a.mov(rax, away)?;
                match kind {
                    0 => {
                        a.push(rax)?;
                        a.ret()
                    }
                    1 => a.jmp(rax),
                    _ => a.call(rax),
                }
            })
            .expect(ex::GP);
        let on_branch = frame.rip >= CODE && frame.rip < CODE + 0x40;
        assert!(on_branch || frame.rip == away, "{frame:x?}");
        assert_eq!(frame.error, Some(0));
    }
    // Non-canonical data: #GP(0), but #SS(0) relative to the stack.
    m.exec(|a| {
        a.mov(rax, 1u64 << 63)?;
        a.mov(rbx, qword_ptr(rax))
    })
    .expect(ex::GP);
    m.exec(|a| {
        a.mov(rbp, 1u64 << 63)?;
        a.mov(rbx, qword_ptr(rbp + 8))
    })
    .expect(ex::SS);
    m.exec(|a| {
        a.mov(rsp, 1u64 << 63)?;
        a.push(rax)
    })
    .expect(ex::SS);
    // The last byte of the lower half is fine, the one behind it is not.
    m.exec(|a| {
        a.mov(rax, 0x7fff_ffff_ffffu64)?;
        a.mov(rbx, qword_ptr(rax))
    })
    .expect(ex::GP);
    m.exec(|a| {
        a.mov(rax, 0x7fff_ffff_ffffu64)?;
        a.mov(bl, byte_ptr(rax))
    })
    .page_fault(0, 0x7fff_ffff_ffff);
}

#[test]
fn a_store_that_hits_code_of_its_own_block() {
    let mut m = Machine::new(1);
    // The immediate of the second instruction behind the store.
    for gap in 0..6u64 {
        let stop = m.exec(|a| {
            let mut patched = a.create_label();
            a.mov(ecx, 3)?;
            a.cmp(eax, eax)?;
            a.stc()?;
            a.lea(rsi, byte_ptr(patched))?;
            a.mov(byte_ptr(rsi + 1), 0x5a)?;
            for _ in 0..gap {
                a.nop()?;
            }
            a.set_label(&mut patched)?;
            a.mov(eax, 0x11)?;
            a.adc(ecx, 0)?;
            a.out(i32::from(STOP), al)
        });
        assert_eq!(stop.end(), 0x5a, "{gap} instructions between");
        assert_eq!(m.registers().gpr[1], 4);
    }
    // By a push, by REP STOSB over the instruction that follows it, by a locked add.
    let stop = m.exec(|a| {
        let mut patched = a.create_label();
        a.lea(rsp, byte_ptr(patched))?;
        a.add(rsp, 8)?;
        // mov eax, 0x77; nop; nop; nop
        a.mov(rbx, 0x9090_9000_0000_77b8u64)?;
        a.push(rbx)?;
        a.set_label(&mut patched)?;
        a.mov(eax, 0x11)?;
        a.nop()?;
        a.nop()?;
        a.nop()?;
        a.mov(rsp, STACK)?;
        a.out(i32::from(STOP), al)
    });
    assert_eq!(stop.end(), 0x77);
    let stop = m.exec(|a| {
        let mut patched = a.create_label();
        a.lea(rdi, byte_ptr(patched))?;
        a.mov(ecx, 2)?;
        a.mov(eax, 0x90)?;
        a.rep().stosb()?;
        a.set_label(&mut patched)?;
        a.mov(al, 0x11)?;
        a.out(i32::from(STOP), al)
    });
    assert_eq!(stop.end() as u8, 0x90);
    let stop = m.exec(|a| {
        let mut patched = a.create_label();
        a.lea(rdi, byte_ptr(patched))?;
        a.mov(eax, 0x100)?;
        a.lock().xadd(dword_ptr(rdi), eax)?;
        a.set_label(&mut patched)?;
        a.mov(eax, 0x11)?;
        a.out(i32::from(STOP), al)
    });
    assert_eq!(stop.end(), 0x12);
}

#[test]
fn arithmetic_and_undefined_instructions() {
    let mut m = Machine::new(1);
    let frame = precise(&mut m, DATA, |a| {
        a.xor(edx, edx)?;
        a.xor(ebx, ebx)?;
        a.inc(ecx)?;
        a.stc()?;
        a.div(ebx)
    });
    assert_eq!((frame.vector, frame.error), (ex::DE, None));
    let gpr = m.registers().gpr;
    assert_eq!((gpr[0], gpr[2], gpr[1]), (0x11, 0, 0x34));
    assert_ne!(frame.rflags & flags::CF, 0);
    // The quotient does not fit; the memory form.
    let frame = precise(&mut m, DATA, |a| {
        a.mov(dword_ptr(rsi), 1)?;
        a.idiv(dword_ptr(rsi))
    });
    assert_eq!(frame.vector, ex::DE);
    let frame = precise(&mut m, DATA, |a| {
        a.nop()?;
        a.ud2()
    });
    assert_eq!((frame.vector, arithmetic(frame)), (ex::UD, CF_ZF));
    // LOCK on a register form, on a load, and an invalid opcode.
    for bytes in [
        &[0xf0, 0x01, 0xc0][..],
        &[0xf0, 0x8b, 0x06],
        &[0x06],
        &[0x0f, 0x0b],
    ] {
        m.write(CODE, bytes);
        m.start(CODE);
        let frame = m.run().expect(ex::UD);
        assert_eq!(frame.rip, CODE);
    }
    // More than fifteen bytes.
    m.write(CODE, &[0x66; 16]);
    m.start(CODE);
    m.run().expect(ex::GP);
}

#[test]
fn device_not_available_and_floating_point_errors() {
    let mut m = Machine::new(1);
    for bit in [cr::CR0_TS, cr::CR0_EM] {
        m.reset();
        m.set_system(|s| s.cr0 |= bit);
        m.exec(|a| a.fld1()).expect(ex::NM);
        let vector = if bit == cr::CR0_TS { ex::NM } else { ex::UD };
        m.exec(|a| a.xorps(xmm0, xmm0)).expect(vector);
    }
    m.reset();
    // CLTS in the middle.
    m.set_system(|s| s.cr0 |= cr::CR0_TS);
    m.exec(|a| {
        a.clts()?;
        a.fninit()?;
        a.fld1()?;
        a.out(i32::from(STOP), al)
    })
    .end();
    m.reset();
    m.set_system(|s| s.cr4 &= !cr::CR4_OSFXSR);
    m.exec(|a| a.xorps(xmm0, xmm0)).expect(ex::UD);
    m.reset();
    // #MF comes with the next waiting instruction.
    let frame = m
        .exec(|a| {
            a.fninit()?;
            a.push(0x37b)?;
            a.fldcw(word_ptr(rsp))?;
            a.pop(rax)?;
            a.fld1()?;
            a.fldz()?;
            a.fdivp(st1, st0)?;
            a.mov(ebx, 5)?;
            a.wait()
        })
        .expect(ex::MF);
    assert_eq!(m.registers().gpr[3], 5);
    let mut opcode = [0; 1];
    m.memory.read(frame.rip, &mut opcode).expect("code");
    assert_eq!(opcode, [0x9b]);
    // #XM, and #UD without OSXMMEXCPT.
    for enabled in [true, false] {
        m.reset();
        if !enabled {
            m.set_system(|s| s.cr4 &= !cr::CR4_OSXMMEXCPT);
        }
        m.exec(|a| {
            a.fninit()?;
            a.push(0x1d80)?;
            a.ldmxcsr(dword_ptr(rsp))?;
            a.mov(eax, 1)?;
            a.cvtsi2sd(xmm0, eax)?;
            a.xorps(xmm1, xmm1)?;
            a.divsd(xmm0, xmm1)
        })
        .expect(if enabled { ex::XM } else { ex::UD });
    }
}

#[test]
fn alignment_checks_need_all_three_bits() {
    let mut m = Machine::new(1);
    let at = USER_DATA_PAGE + 1;
    let run = |m: &mut Machine, rflags: u64| {
        m.code(USER, |a| {
            a.mov(eax, dword_ptr(at))?;
            a.int(0x80)
        });
        m.start_user(USER, rflags);
        m.run().frame()
    };
    assert_eq!(run(&mut m, flags::FIXED | flags::AC).vector, 0x80);
    m.set_system(|s| s.cr0 |= cr::CR0_AM);
    assert_eq!(run(&mut m, flags::FIXED).vector, 0x80);
    let frame = run(&mut m, flags::FIXED | flags::AC);
    assert_eq!(
        (frame.vector, frame.error, frame.rip),
        (ex::AC, Some(0), USER)
    );
    // Set by POPF, cleared by POPF; stores and a misaligned stack.
    let frame = m.exec_user(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::AC as i32)?;
        a.popfq()?;
        a.mov(dword_ptr(at + 3), eax)?;
        a.mov(word_ptr(at), ax)
    });
    assert_eq!(frame.expect(ex::AC).error, Some(0));
    // The supervisor is not checked.
    m.exec(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::AC as i32)?;
        a.popfq()?;
        a.mov(eax, dword_ptr(DATA + 1))?;
        a.out(i32::from(STOP), al)
    })
    .end();
}

/// Makes the gate of `vector` one that is not present.
fn close(m: &Machine, vector: u8) {
    let at = IDT + u64::from(vector) * 16;
    m.write64(at, m.read64(at) & !(1 << 47));
}

#[test]
fn double_and_triple_faults() {
    let mut m = Machine::new(1);
    // #GP whose gate is not present: #NP, contributory on contributory: #DF.
    close(&m, ex::GP);
    let frame = m
        .exec(|a| {
            a.mov(rax, 1u64 << 63)?;
            a.mov(rbx, qword_ptr(rax))
        })
        .expect(ex::DF);
    assert_eq!((frame.error, frame.rip), (Some(0), CODE + 10));
    // A page fault whose handler's stack is absent.
    m.map(EDGE, 0);
    gate(&m.memory, ex::DF, HANDLERS + 8 * 16, 0, 1);
    let frame = m
        .exec(|a| {
            a.mov(rsp, EDGE + 0x800)?;
            a.push(rax)
        })
        .expect(ex::DF);
    assert_eq!((frame.rsp, frame.cr2), (EDGE + 0x800, EDGE + 0x7f8));
    // #DE whose gate is missing is #NP's double: contributory too.
    close(&m, ex::DE);
    m.exec(|a| {
        a.xor(ecx, ecx)?;
        a.div(ecx)
    })
    .expect(ex::DF);
    // #UD is benign: its missing gate is reported as such.
    close(&m, ex::UD);
    let frame = m.exec(|a| a.ud2()).expect(ex::NP);
    assert_eq!(frame.error, Some(6 << 3 | 2 | 1));
    // No gate for #DF either.
    close(&m, ex::DF);
    let stop = m.exec(|a| {
        a.xor(ecx, ecx)?;
        a.div(ecx)
    });
    assert_eq!(stop, Stop::Shutdown);
    // An empty table.
    m.reset();
    m.write(DATA, &[0; 16]);
    let stop = m.exec(|a| {
        a.lidt(ptr(DATA))?;
        a.int3()
    });
    assert_eq!(stop, Stop::Shutdown);
}

#[test]
fn software_interrupts_and_their_gates() {
    let mut m = Machine::new(1);
    let frame = m.exec(|a| a.int3()).expect(ex::BP);
    assert_eq!(frame.rip, CODE + 1);
    let frame = m.exec_user(|a| a.int3()).expect(ex::BP);
    assert_eq!(
        (frame.rip, frame.cs, frame.ss),
        (USER + 1, USER_CODE, USER_DATA)
    );
    // DPL 0.
    let frame = m.exec_user(|a| a.int(0x21)).expect(ex::GP);
    assert_eq!((frame.error, frame.rip), (Some(0x21 << 3 | 2), USER));
    let frame = m.exec(|a| a.int(0x21)).expect(0x21);
    assert_eq!(frame.rip, CODE + 2);
    m.exec_user(|a| a.hlt()).expect(ex::GP);
    m.exec_user(|a| a.cli()).expect(ex::GP);
    m.exec_user(|a| a.mov(rax, cr3)).expect(ex::GP);
    m.exec_user(|a| a.out(i32::from(STOP), al)).expect(ex::GP);
    m.exec_user(|a| a.rdmsr()).expect(ex::GP);
    m.exec_user(|a| a.invlpg(byte_ptr(USER))).expect(ex::GP);
    m.exec_user(|a| a.clts()).expect(ex::GP);
    m.exec_user(|a| a.swapgs()).expect(ex::GP);
    m.exec_user(|a| a.iretq()).frame();
}
