//! Segments, gates, fast system calls, and ways from one mode to another.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_engine::{Registers, Vcpu};
use ringfence_x86::exception as ex;
use ringfence_x86::{cr, flags, msr};
use system::*;

type Asm = Result<(), IcedError>;

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

fn write_msr(a: &mut CodeAssembler, index: u32, value: u64) -> Asm {
    a.mov(ecx, index)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// Sets up SYSCALL to `target`.
fn syscalls(m: &mut Machine, target: u64, fmask: u64) {
    m.exec(|a| {
        write_msr(
            a,
            msr::IA32_STAR,
            u64::from(KERNEL_CODE) << 32 | u64::from(USER_CODE32) << 48,
        )?;
        write_msr(a, msr::IA32_LSTAR, target)?;
        write_msr(a, msr::IA32_FMASK, fmask)?;
        stop(a)
    })
    .end();
}

#[test]
fn syscall_and_sysret_keep_what_they_should() {
    let mut m = Machine::new(1);
    let target = CODE + 0x400;
    for fmask in [
        0,
        flags::IF,
        flags::ARITHMETIC,
        0x4_7fd5,
        !0u64 >> 32,
        flags::CF,
    ] {
        syscalls(&mut m, target, fmask);
        m.code(target, |a| {
            a.mov(r15, rsp)?;
            a.mov(rsp, STACK)?;
            a.pushfq()?;
            a.pop(r14)?;
            a.mov(rsp, r15)?;
            a.mov(r13, rcx)?;
            a.mov(r12, r11)?;
            a.mov(bx, ss)?;
            a.mov(r10w, cs)?;
            a.sysretq()
        });
        // Twice, so that the second time everything is linked.
        m.code(USER, |a| {
            a.mov(ebp, 3)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(eax, 0x7fff_ffff)?;
            a.add(eax, 1)?;
            a.stc()?;
            a.syscall()?;
            a.pushfq()?;
            a.pop(rdx)?;
            a.dec(ebp)?;
            a.jne(again)?;
            a.int(0x80)
        });
        m.start_user(USER, flags::FIXED | flags::IF);
        let frame = m.run().expect(0x80);
        let r = m.registers();
        let before =
            flags::FIXED | flags::IF | flags::CF | flags::OF | flags::SF | flags::PF | flags::AF;
        assert_eq!(r.gpr[12], before, "RFLAGS in R11, FMASK {fmask:#x}");
        assert_eq!(
            r.gpr[14],
            before & !fmask | flags::FIXED,
            "FMASK {fmask:#x}"
        );
        assert_eq!(r.gpr[2], before, "RFLAGS after SYSRET, FMASK {fmask:#x}");
        assert_eq!(
            (r.gpr[3] as u16, r.gpr[10] as u16),
            (KERNEL_DATA, KERNEL_CODE)
        );
        assert_eq!((frame.cs, frame.ss), (USER_CODE, USER_DATA));
        let at = assemble(64, USER, |a| {
            a.mov(ebp, 3)?;
            a.mov(eax, 0x7fff_ffff)?;
            a.add(eax, 1)?;
            a.stc()?;
            a.syscall()
        });
        assert_eq!(r.gpr[13], USER + at.len() as u64);
    }
}

#[test]
fn syscall_needs_sce_and_sysret_level_zero() {
    let mut m = Machine::new(1);
    syscalls(&mut m, CODE + 0x400, 0x4_7fd5);
    m.set_system(|s| s.efer &= !cr::EFER_SCE);
    m.exec_user(|a| a.syscall()).expect(ex::UD);
    m.exec(|a| a.sysretq()).expect(ex::UD);
    m.reset();
    let frame = m.exec_user(|a| a.sysretq()).expect(ex::GP);
    assert_eq!((frame.error, frame.rip), (Some(0), USER));
    m.exec_user(|a| a.swapgs()).expect(ex::GP);
    m.exec_user(|a| a.wrmsr()).expect(ex::GP);
}

#[test]
fn sysret_with_a_trap_flag_or_to_nowhere() {
    let mut m = Machine::new(1);
    syscalls(&mut m, CODE + 0x400, 0x4_7fd5);
    m.code(USER, |a| {
        a.nop()?;
        a.nop()?;
        a.int(0x80)
    });
    // TF from R11: a trap after the first instruction of user code.
    let frame = m
        .exec(|a| {
            a.mov(rcx, USER)?;
            a.mov(r11d, (flags::FIXED | flags::TF) as u32)?;
            a.mov(rsp, USER_STACK)?;
            a.sysretq()
        })
        .expect(ex::DB);
    assert_eq!((frame.cs, frame.rflags & flags::TF), (USER_CODE, flags::TF));
    assert!(frame.rip == USER || frame.rip == USER + 1, "{frame:x?}");
    // RF and VM are not taken from R11, bit 1 is set.
    let frame = m
        .exec(|a| {
            a.mov(rcx, USER)?;
            a.mov(r11d, !(flags::TF | flags::IF | flags::NT) as u32)?;
            a.mov(rsp, USER_STACK)?;
            a.sysretq()
        })
        .expect(0x80);
    assert_eq!(frame.rflags & (flags::VM | flags::FIXED), flags::FIXED);
    // A target that is not canonical: #GP, at level 0 on Intel's processors, at 3 on AMD's.
    for target in [0x8000_0000_0000u64, 0xffff_7fff_ffff_ffff, 1 << 63] {
        m.exec(|a| {
            a.mov(rcx, target)?;
            a.mov(r11d, 2)?;
            a.sysretq()
        })
        .expect(ex::GP);
        m.reset();
    }
    // To compatibility mode.
    m.write(USER + 0x100, &[0x40, 0xcd, 0x80]);
    let frame = m
        .exec(|a| {
            a.mov(eax, 5)?;
            a.mov(ecx, (USER + 0x100) as u32)?;
            a.mov(r11d, 2)?;
            a.mov(rsp, USER_STACK)?;
            a.sysret()
        })
        .expect(0x80);
    // 40h is INC EAX there.
    assert_eq!((frame.cs, m.registers().gpr[0]), (USER_CODE32, 6));
}

#[test]
fn swapgs_and_segment_bases() {
    let mut m = Machine::new(1);
    m.write64(USER_DATA_PAGE + 8, 0x1111);
    m.write64(DATA + 8, 0x2222);
    let base = |a: &mut CodeAssembler, index: u32, value: u64| write_msr(a, index, value);
    m.exec(|a| {
        base(a, msr::IA32_GS_BASE, USER_DATA_PAGE)?;
        base(a, msr::IA32_KERNEL_GS_BASE, DATA)?;
        base(a, msr::IA32_FS_BASE, DATA - 0x10)?;
        a.mov(rbx, qword_ptr(8).gs())?;
        a.swapgs()?;
        a.mov(rsi, qword_ptr(8).gs())?;
        a.mov(rdi, qword_ptr(0x18).fs())?;
        a.mov(ecx, msr::IA32_KERNEL_GS_BASE)?;
        a.rdmsr()?;
        a.rdgsbase(r8)?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[3], r.gpr[6], r.gpr[7]), (0x1111, 0x2222, 0x2222));
    assert_eq!((r.gpr[0], r.gpr[8]), (USER_DATA_PAGE, DATA));
    // A base that is not canonical is refused.
    m.exec(|a| base(a, msr::IA32_GS_BASE, 1 << 47))
        .expect(ex::GP);
    m.exec(|a| base(a, msr::IA32_LSTAR, 1 << 47)).expect(ex::GP);
    // Loading a selector replaces the base.
    m.exec(|a| {
        a.mov(eax, i32::from(USER_DATA))?;
        a.mov(gs, eax)?;
        a.rdgsbase(rbx)?;
        stop(a)
    })
    .end();
    assert_eq!(m.registers().gpr[3], 0);
}

#[test]
fn iretq_checks_its_frame() {
    let mut m = Machine::new(1);
    m.code(USER, |a| a.int(0x80));
    // Not canonical; bad selectors.
    m.start_frame(1 << 47, USER_CODE, 2, USER_STACK, USER_DATA);
    m.run().expect(ex::GP);
    m.start_frame(USER, 0x60 | 3, 2, USER_STACK, USER_DATA);
    assert_eq!(m.run().expect(ex::GP).error, Some(0x60));
    m.start_frame(USER, USER_CODE, 2, USER_STACK, KERNEL_DATA);
    assert_eq!(m.run().expect(ex::GP).error, Some(u64::from(KERNEL_DATA)));
    m.start_frame(USER, USER_CODE, 2, USER_STACK, 0);
    m.run().expect(ex::GP);
    m.start_frame(USER, USER_DATA, 2, USER_STACK, USER_DATA);
    assert_eq!(
        m.run().expect(ex::GP).error,
        Some(u64::from(USER_DATA & !3))
    );
    // A null SS is fine for 64-bit code at level 0.
    m.code(CODE, stop);
    m.start_frame(CODE, KERNEL_CODE, 2, STACK - 0x80, 0);
    m.run().end();
    assert_eq!(m.registers().gpr[4], STACK - 0x80);
    // From level 3, IRETQ changes neither IF nor IOPL, and can't go to level 0.
    m.code(USER, |a| {
        a.push(i32::from(USER_DATA))?;
        a.push(USER_STACK as i32)?;
        a.push(0x3202)?;
        a.push(i32::from(USER_CODE))?;
        a.push((USER + 0x80) as i32)?;
        a.iretq()
    });
    m.code(USER + 0x80, |a| a.int(0x80));
    m.start_user(USER, 2);
    assert_eq!(m.run().expect(0x80).rflags, 2);
    m.code(USER, |a| {
        a.push(i32::from(KERNEL_DATA))?;
        a.push(STACK as i32)?;
        a.push(2)?;
        a.push(i32::from(KERNEL_CODE))?;
        a.push(CODE as i32)?;
        a.iretq()
    });
    m.start_user(USER, 2);
    m.run().expect(ex::GP);
    // NT in 64-bit mode.
    m.exec(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::NT as i32)?;
        a.popfq()?;
        a.iretq()
    })
    .expect(ex::GP);
}

#[test]
fn interrupt_stack_table_and_stack_alignment() {
    let mut m = Machine::new(1);
    gate(&m.memory, 0x90, HANDLERS + 0x900, 3, 4);
    m.exec(|a| {
        a.mov(rsp, STACK - 5)?;
        a.int(0x90)
    })
    .expect(0x90);
    assert_eq!(m.registers().gpr[4], IST + 3 * 0x1000 - 40);
    m.exec(|a| {
        a.mov(rsp, STACK - 5)?;
        a.int(0x91)
    })
    .expect(0x91);
    assert_eq!(m.registers().gpr[4], ((STACK - 5) & !15) - 40);
    // A stack that is not canonical: #SS, whose own frame then goes there too: shut down, or #DF
    // on a stack of its own.
    gate(&m.memory, ex::DF, HANDLERS + 0x80, 0, 1);
    m.exec(|a| {
        a.mov(rsp, 1u64 << 63)?;
        a.int3()
    })
    .expect(ex::DF);
}

#[test]
fn far_transfers_and_call_gates() {
    let mut m = Machine::new(1);
    // A 64-bit call gate at `FREE` with DPL 3 to level 0.
    let target = CODE + 0x600;
    let low =
        target & 0xffff | u64::from(KERNEL_CODE) << 16 | 0xec << 40 | (target >> 16 & 0xffff) << 48;
    m.write64(GDT + u64::from(FREE), low);
    m.write64(GDT + u64::from(FREE) + 8, target >> 32);
    m.code(target, |a| {
        a.mov(rbx, rsp)?;
        a.mov(r8w, cs)?;
        a.retf()
    });
    // Pointer to the gate, in user memory.
    m.write64(USER_DATA_PAGE, 0);
    m.write(USER_DATA_PAGE + 4, &(FREE | 3).to_le_bytes());
    m.code(USER, |a| {
        // call far [USER_DATA_PAGE]
        a.mov(rdi, USER_DATA_PAGE)?;
        a.db(&[0xff, 0x1f])?;
        a.mov(r9w, cs)?;
        a.int(0x80)
    });
    m.start_user(USER, 2);
    let frame = m.run().expect(0x80);
    let r = m.registers();
    assert_eq!((r.gpr[8] as u16, r.gpr[9] as u16), (KERNEL_CODE, USER_CODE));
    assert_eq!((r.gpr[3], frame.rsp), (ENTRY_STACK - 32, USER_STACK));
    // Without DPL 3 it is #GP(selector).
    m.write64(GDT + u64::from(FREE), low & !(0x60 << 40));
    m.start_user(USER, 2);
    assert_eq!(m.run().expect(ex::GP).error, Some(u64::from(FREE)));
    // Not present: #NP.
    m.write64(GDT + u64::from(FREE), low & !(0x80 << 40));
    m.start_user(USER, 2);
    assert_eq!(m.run().expect(ex::NP).error, Some(u64::from(FREE)));
}

#[test]
fn segment_loads_are_checked() {
    let mut m = Machine::new(1);
    let load = |m: &mut Machine, value: u16| {
        m.exec_user(|a| {
            a.mov(eax, i32::from(value))?;
            a.mov(ds, eax)?;
            a.int(0x80)
        })
        .frame()
    };
    assert_eq!(load(&mut m, USER_DATA).vector, 0x80);
    assert_eq!(load(&mut m, 0).vector, 0x80);
    assert_eq!(load(&mut m, 3).vector, 0x80);
    let frame = load(&mut m, KERNEL_DATA);
    assert_eq!(
        (frame.vector, frame.error),
        (ex::GP, Some(u64::from(KERNEL_DATA)))
    );
    let frame = load(&mut m, 0xfff8);
    assert_eq!((frame.vector, frame.error), (ex::GP, Some(0xfff8)));
    // Not present, then present; the accessed bit is set by the load.
    m.write64(GDT + u64::from(FREE), 0x00cf_7200_0000_ffff);
    assert_eq!(load(&mut m, FREE | 3).vector, ex::NP);
    m.write64(GDT + u64::from(FREE), 0x00cf_f200_0000_ffff);
    assert_eq!(load(&mut m, FREE | 3).vector, 0x80);
    assert_eq!(m.read64(GDT + u64::from(FREE)), 0x00cf_f300_0000_ffff);
    // SS at level 3 must not be null; #SS for one that is not present.
    let frame = m
        .exec_user(|a| {
            a.xor(eax, eax)?;
            a.mov(ss, eax)
        })
        .expect(ex::GP);
    assert_eq!(frame.error, Some(0));
    m.write64(GDT + u64::from(FREE), 0x00cf_7200_0000_ffff);
    let frame = m
        .exec_user(|a| {
            a.mov(eax, i32::from(FREE | 3))?;
            a.mov(ss, eax)
        })
        .expect(ex::SS);
    assert_eq!(frame.error, Some(u64::from(FREE)));
    m.exec(|a| {
        a.mov(eax, i32::from(KERNEL_CODE))?;
        a.db(&[0x8e, 0xc8])
    })
    .expect(ex::UD);
}

#[test]
fn compatibility_mode_wraps_at_32_bits() {
    let mut m = Machine::new(1);
    let code = assemble(32, USER, |a| {
        a.mov(eax, 0xffff_fff0u32)?;
        a.mov(ebx, dword_ptr(eax + (USER_DATA_PAGE as i32 + 0x10)))?;
        a.push(0x1234)?;
        a.pop(ecx)?;
        a.inc(ecx)?;
        a.int(0x80)
    });
    m.write(USER, &code);
    m.write64(USER_DATA_PAGE, 0x8765_4321);
    m.start_frame(USER, USER_CODE32, 2, USER_STACK, USER_DATA);
    m.set(|r| r.gpr[15] = !0);
    // The data segments were loaded at level 0 and became null by IRET.
    let prologue = assemble(32, USER, |a| {
        a.mov(edx, i32::from(USER_DATA))?;
        a.mov(ds, edx)?;
        a.mov(es, edx)
    });
    m.write(USER, &prologue);
    m.write(USER + prologue.len() as u64, &code);
    let frame = m.run().expect(0x80);
    let r = m.registers();
    assert_eq!(
        (r.gpr[3], r.gpr[1], frame.rsp),
        (0x8765_4321, 0x1235, USER_STACK)
    );
    assert_eq!((r.gpr[15], frame.cs), (!0, USER_CODE32));
    // A limit below 4 GiB.
    m.write64(GDT + u64::from(FREE), 0x0040_f300_0000_0fff);
    let code = assemble(32, USER, |a| {
        a.mov(edx, i32::from(FREE | 3))?;
        a.mov(ds, edx)?;
        a.mov(eax, dword_ptr(0xffd))
    });
    m.write(USER, &code);
    m.start_frame(USER, USER_CODE32, 2, USER_STACK, USER_DATA);
    let frame = m.run().expect(ex::GP);
    assert_eq!(
        (frame.error, frame.rip),
        (Some(0), USER + code.len() as u64 - 5)
    );
}

/// 32-bit protected mode without paging, its own interrupt table of 8-byte gates.
fn protected(m: &mut Machine) {
    for vector in 0..256u64 {
        let handler = HANDLERS + vector * 16;
        let gate = handler & 0xffff
            | u64::from(KERNEL_CODE32) << 16
            | 0x8e << 40
            | (handler >> 16 & 0xffff) << 48;
        m.write64(SPARE + vector * 8, gate);
    }
    m.set_system(|s| {
        let data = flat(KERNEL_DATA, 0xc093);
        s.segments = [data, flat(KERNEL_CODE32, 0xc09b), data, data, data, data];
        s.cr0 = cr::CR0_PE | cr::CR0_NE | cr::CR0_MP;
        s.cr3 = 0;
        s.cr4 = cr::CR4_OSFXSR | cr::CR4_PSE;
        s.efer = 0;
        s.idtr.base = SPARE;
        s.idtr.limit = 0x7ff;
    });
}

/// Puts 32-bit code at [`CODE`] and runs it.
#[track_caller]
fn exec32(m: &mut Machine, f: impl FnOnce(&mut CodeAssembler) -> Asm) -> (Stop, Registers) {
    let bytes = assemble(32, CODE, f);
    m.write(CODE, &bytes);
    m.start(CODE);
    let stop = m.run();
    (stop, m.registers())
}

/// Error code, EIP and CS of a frame on a 32-bit stack.
fn frame32(m: &Machine, coded: bool) -> (u32, u32, u16) {
    let top = m.registers().gpr[4];
    let word = |i: u64| m.read64(top + i * 4) as u32;
    if coded {
        (word(0), word(1), word(2) as u16)
    } else {
        (0, word(0), word(1) as u16)
    }
}

#[test]
fn protected_mode_faults_and_paging() {
    let mut m = Machine::new(1);
    protected(&mut m);
    let (end, r) = exec32(&mut m, |a| {
        a.mov(eax, 0x7fff_ffff)?;
        a.inc(eax)?;
        a.pushfd()?;
        a.pop(ebx)?;
        a.pusha()?;
        a.popa()?;
        stop(a)
    });
    end.end();
    assert_eq!(
        (r.gpr[0], r.gpr[3] & flags::OF, r.gpr[4]),
        (0x8000_0000, flags::OF, STACK)
    );
    let (fault, _) = exec32(&mut m, |a| {
        a.nop()?;
        a.ud2()
    });
    assert!(matches!(fault, Stop::Vector(Frame { vector: ex::UD, .. })));
    assert_eq!(frame32(&m, false), (0, CODE as u32 + 1, KERNEL_CODE32));
    // 4 MiB pages, the second one absent.
    for i in 0..8u64 {
        let entry = if i == 3 { 0 } else { (i << 22) | 0x83 };
        m.write(SPARE + 0x1000 + i * 4, &(entry as u32).to_le_bytes());
    }
    let (fault, _) = exec32(&mut m, |a| {
        a.mov(eax, (SPARE + 0x1000) as u32)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, cr::CR0_PG as u32)?;
        a.mov(cr0, eax)?;
        a.mov(dword_ptr(DATA as u32), 7)?;
        a.mov(eax, cr0)?;
        a.mov(dword_ptr(0xc0_1234u32), eax)
    });
    assert!(matches!(
        fault,
        Stop::Vector(Frame {
            vector: ex::PF,
            cr2: 0xc0_1234,
            ..
        })
    ));
    assert_eq!(frame32(&m, true).0, 2);
    assert_eq!(m.read64(DATA) as u32, 7);
    let mut entry = [0; 4];
    m.memory
        .read(SPARE + 0x1000, &mut entry)
        .expect("the directory");
    assert_eq!(u32::from_le_bytes(entry) & 0x60, 0x60);
}

#[test]
fn from_real_mode_to_long_mode_and_back() {
    let mut m = Machine::new(1);
    // Real mode at 0:8000h.
    let real = assemble(16, 0x8000, |a| {
        a.cli()?;
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.db(&[0x66])?;
        a.lgdt(ptr(0x7000u32))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        // jmp KERNEL_CODE32:9000h
        a.db(&[0x66, 0xea, 0x00, 0x90, 0, 0])?;
        a.db(&KERNEL_CODE32.to_le_bytes())
    });
    let enter = assemble(32, 0x9000, |a| {
        a.mov(eax, i32::from(KERNEL_DATA))?;
        for register in [ds, es, ss] {
            a.mov(register, eax)?;
        }
        a.mov(esp, STACK as u32)?;
        a.mov(eax, (cr::CR4_PAE | cr::CR4_OSFXSR) as u32)?;
        a.mov(cr4, eax)?;
        a.mov(eax, pml4_entry(0) as u32)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, msr::IA32_EFER)?;
        a.rdmsr()?;
        a.or(eax, (cr::EFER_LME | cr::EFER_SCE | cr::EFER_NXE) as u32)?;
        a.wrmsr()?;
        a.mov(eax, cr0)?;
        a.or(eax, cr::CR0_PG as u32)?;
        a.mov(cr0, eax)?;
        // Compatibility mode now.
        a.db(&[0xea, 0x00, 0xa0, 0, 0])?;
        a.db(&KERNEL_CODE.to_le_bytes())
    });
    let long = assemble(64, 0xa000, |a| {
        a.inc(r15)?;
        a.mov(rax, 0x1234_5678_9abc_def0u64)?;
        a.mov(rbx, rax)?;
        // To compatibility mode by a far return.
        a.push(i32::from(KERNEL_CODE32))?;
        a.push(0xb000)?;
        a.retf()
    });
    let leave = assemble(32, 0xb000, |a| {
        a.mov(eax, cr0)?;
        a.and(eax, !(cr::CR0_PG as u32))?;
        a.mov(cr0, eax)?;
        a.mov(ecx, msr::IA32_EFER)?;
        a.rdmsr()?;
        a.mov(esi, eax)?;
        a.and(eax, !(cr::EFER_LME as u32))?;
        a.wrmsr()?;
        a.mov(eax, i32::from(KERNEL_DATA16))?;
        for register in [ds, es, ss] {
            a.mov(register, eax)?;
        }
        a.db(&[0xea, 0x00, 0xc0, 0, 0])?;
        a.db(&KERNEL_CODE16.to_le_bytes())
    });
    let protected16 = assemble(16, 0xc000, |a| {
        a.mov(eax, cr0)?;
        a.and(al, 0xfeu32)?;
        a.mov(cr0, eax)?;
        // jmp 0:d000h
        a.db(&[0xea, 0x00, 0xd0, 0, 0])
    });
    let again = assemble(16, 0xd000, |a| {
        a.xor(ax, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        a.mov(ax, 0x1000)?;
        a.mov(ds, ax)?;
        a.mov(byte_ptr(4), 0x5a)?;
        a.dec(edi)?;
        // jnz 8000h
        a.db(&[0x0f, 0x85])?;
        a.db(&0u16.to_le_bytes())?;
        a.out(i32::from(STOP), al)
    });
    let mut again = again;
    let jump = again
        .windows(2)
        .position(|w| w == [0x0f, 0x85])
        .expect("the jump");
    let distance = 0x8000u16.wrapping_sub(0xd000 + jump as u16 + 4);
    again[jump + 2..jump + 4].copy_from_slice(&distance.to_le_bytes());
    for (at, bytes) in [
        (0x8000, real),
        (0x9000, enter),
        (0xa000, long),
        (0xb000, leave),
        (0xc000, protected16),
        (0xd000, again),
    ] {
        m.write(at, &bytes);
    }
    let mut pointer = 0xfffu16.to_le_bytes().to_vec();
    pointer.extend((GDT as u32).to_le_bytes());
    m.write(0x7000, &pointer);
    m.set_system(|s| {
        let segment = ringfence_engine::Segment {
            base: 0,
            limit: 0xffff,
            attributes: ringfence_engine::SegmentAttributes(0x93),
            selector: 0,
        };
        s.segments = [segment; 6];
        s.segments[1].attributes.0 = 0x9b;
        s.cr0 = 0;
        s.cr3 = 0;
        s.cr4 = 0;
        s.efer = 0;
    });
    m.start(0x8000);
    m.set(|r| r.gpr[7] = 20);
    m.run().end();
    let r = m.registers();
    assert_eq!((r.gpr[15], r.gpr[7]), (20, 0));
    assert_eq!(m.read64(0x1_0004) as u8, 0x5a);
    let s = m.vcpus[0].system_registers();
    assert_eq!(
        (s.cr0 & (cr::CR0_PE | cr::CR0_PG), s.efer & cr::EFER_LMA),
        (0, 0)
    );
    // LMA was still there before paging went off? No: it follows CR0.PG.
    assert_eq!(r.gpr[6] & cr::EFER_LMA, 0);
}

#[test]
fn control_registers_refuse_what_is_reserved() {
    let mut m = Machine::new(1);
    // PG without PE, NW without CD; reserved bits of CR4; PAE off in long mode; CR3 with bits
    // above the physical addresses; CR8 above 15.
    let cases: [fn(&mut CodeAssembler) -> Asm; 6] = [
        |a| {
            a.mov(rax, cr0)?;
            a.and(eax, !1)?;
            a.mov(cr0, rax)
        },
        |a| {
            a.mov(rax, cr0)?;
            a.or(eax, cr::CR0_NW as i32)?;
            a.mov(cr0, rax)
        },
        |a| {
            a.mov(rax, cr4)?;
            a.mov(rbx, 1u64 << 40)?;
            a.or(rax, rbx)?;
            a.mov(cr4, rax)
        },
        |a| {
            a.mov(rax, cr4)?;
            a.and(eax, !(cr::CR4_PAE as i32))?;
            a.mov(cr4, rax)
        },
        |a| {
            a.mov(rax, 1u64 << 60)?;
            a.mov(cr3, rax)
        },
        |a| {
            a.mov(eax, 16)?;
            a.mov(cr8, rax)
        },
    ];
    for (i, case) in cases.into_iter().enumerate() {
        let frame = m.exec(case).frame();
        assert_eq!((frame.vector, frame.error), (ex::GP, Some(0)), "case {i}");
    }
    // Clearing LME with paging on.
    m.exec(|a| {
        a.mov(ecx, msr::IA32_EFER)?;
        a.rdmsr()?;
        a.and(eax, !(cr::EFER_LME as i32))?;
        a.wrmsr()
    })
    .expect(ex::GP);
    // An MSR that does not exist.
    m.exec(|a| {
        a.mov(ecx, 0x1234_5678)?;
        a.rdmsr()
    })
    .expect(ex::GP);
}
