//! Supervisor-mode access prevention, and process-context identifiers.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_engine::Vcpu;
use ringfence_x86::exception as ex;
use ringfence_x86::{cr, flags};
use system::*;

type Asm = Result<(), IcedError>;

const P: u32 = ex::PF_PRESENT;
const W: u32 = ex::PF_WRITE;

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

fn with_smap() -> Machine {
    let mut m = Machine::new(1);
    m.set_system(|s| s.cr4 |= cr::CR4_SMAP | cr::CR4_SMEP);
    m
}

#[test]
fn user_pages_are_open_between_stac_and_clac() {
    let mut m = with_smap();
    let page = USER_DATA_PAGE;
    m.exec(|a| a.mov(rax, qword_ptr(page))).page_fault(P, page);
    m.exec(|a| a.inc(dword_ptr(page))).page_fault(P | W, page);
    let mut fault = 0;
    for round in 0..3 {
        let stop = m.exec(|a| {
            a.stac()?;
            a.inc(dword_ptr(page))?;
            a.push(rax)?;
            a.pop(rbx)?;
            a.clac()?;
            a.nop()?;
            a.inc(dword_ptr(page + 4))
        });
        let frame = stop.page_fault(P | W, page + 4);
        assert_eq!(frame.rflags & flags::AC, 0);
        assert!(fault == 0 || fault == frame.rip);
        fault = frame.rip;
        assert_eq!(m.read64(page), round + 1);
    }
}

#[test]
fn calls_and_loops_keep_the_access_that_they_have() {
    let mut m = with_smap();
    let page = USER_DATA_PAGE;
    m.exec(|a| {
        let (mut copy, mut top, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(r12d, 50)?;
        a.set_label(&mut top)?;
        a.stac()?;
        a.mov(rdi, page)?;
        a.call(copy)?;
        a.clac()?;
        a.mov(rdi, DATA)?;
        a.call(copy)?;
        a.dec(r12d)?;
        a.jne(top)?;
        a.jmp(end)?;
        a.set_label(&mut copy)?;
        a.inc(qword_ptr(rdi))?;
        a.mov(ecx, 4)?;
        a.lea(rdi, qword_ptr(rdi + 64))?;
        a.rep().stosd()?;
        a.ret()?;
        a.set_label(&mut end)?;
        stop(a)
    })
    .end();
    assert_eq!((m.read64(page), m.read64(DATA)), (50, 50));
    // The same function without access.
    m.exec(|a| {
        let (mut copy, mut end) = (a.create_label(), a.create_label());
        a.mov(rdi, page)?;
        a.call(copy)?;
        a.jmp(end)?;
        a.set_label(&mut copy)?;
        a.inc(qword_ptr(rdi))?;
        a.ret()?;
        a.set_label(&mut end)?;
        stop(a)
    })
    .page_fault(P | W, page);
}

#[test]
fn the_flag_comes_by_popf_and_iret_as_well() {
    let mut m = with_smap();
    let page = USER_DATA_PAGE;
    m.exec(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), flags::AC as i32)?;
        a.popfq()?;
        a.mov(eax, dword_ptr(page))?;
        a.pushfq()?;
        a.and(dword_ptr(rsp), !(flags::AC as i32))?;
        a.popfq()?;
        a.mov(eax, dword_ptr(page + 8))
    })
    .page_fault(P, page + 8);
    m.code(CODE, |a| {
        a.mov(eax, dword_ptr(page))?;
        stop(a)
    });
    let flags = flags::FIXED | flags::AC;
    m.start_frame(CODE, KERNEL_CODE, flags, STACK - 0x100, KERNEL_DATA);
    m.run().end();
}

#[test]
fn implicit_accesses_never_reach_user_pages() {
    let mut m = with_smap();
    // The GDT lies in a user page: a segment load faults in spite of AC.
    let frame = m.entry(GDT);
    m.map(GDT, frame | URW);
    m.exec(|a| {
        a.stac()?;
        a.mov(eax, i32::from(KERNEL_DATA))?;
        a.mov(ds, eax)?;
        stop(a)
    });
    // The fault's own delivery reads CS from the same table.
    let stop = m.run();
    assert!(matches!(stop, Stop::Shutdown), "{stop:x?}");
}

#[test]
fn clac_and_stac_are_the_supervisors() {
    let mut m = with_smap();
    m.exec_user(|a| a.stac()).expect(ex::UD);
    m.exec_user(|a| a.clac()).expect(ex::UD);
    // Without CR4.SMAP they are flag instructions.
    m.set_system(|s| s.cr4 &= !cr::CR4_SMAP);
    m.exec(|a| {
        a.stac()?;
        a.pushfq()?;
        a.pop(rbx)?;
        a.clac()?;
        a.pushfq()?;
        a.pop(rcx)?;
        a.mov(eax, dword_ptr(USER_DATA_PAGE))?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[3] & flags::AC, r.gpr[1] & flags::AC), (flags::AC, 0));
}

#[test]
fn a_system_call_that_keeps_ac_keeps_the_access() {
    let mut m = with_smap();
    let page = USER_DATA_PAGE;
    for masked in [true, false] {
        let fmask = 0x4_4700 | flags::ARITHMETIC;
        let fmask = if masked { fmask } else { fmask & !flags::AC };
        let target = CODE + 0x400;
        m.code(target, |a| {
            a.mov(rsp, STACK)?;
            a.mov(eax, dword_ptr(page))?;
            stop(a)
        });
        m.exec(|a| {
            for (msr, value) in [
                (
                    0xc000_0081u32,
                    u64::from(KERNEL_CODE) << 32 | u64::from(USER_CODE32) << 48,
                ),
                (0xc000_0082, target),
                (0xc000_0084, fmask),
            ] {
                a.mov(ecx, msr)?;
                a.mov(eax, value as u32)?;
                a.mov(edx, (value >> 32) as u32)?;
                a.wrmsr()?;
            }
            stop(a)
        })
        .end();
        m.code(USER, |a| a.syscall());
        for _ in 0..2 {
            m.start_user(USER, flags::FIXED | flags::AC);
            let stop = m.run();
            if masked {
                stop.page_fault(P, page);
            } else {
                stop.end();
            }
        }
    }
}

#[test]
fn address_spaces_with_identifiers_are_apart() {
    let mut m = Machine::new(1);
    let other = SPARE;
    // A second top-level table with another translation of one page, in copies of the tables.
    let page = DATA + 0x3_0000;
    let root = m.vcpus[0].system_registers().cr3;
    let mut from = root;
    for level in (1..=4u64).rev() {
        let to = other + (4 - level) * 0x1000;
        for slot in 0..512 {
            let entry = m.read64((from & !0xfff) + slot * 8);
            m.write64(to + slot * 8, entry);
        }
        let slot = page >> (3 + 9 * level) & 511;
        let next = m.read64(to + slot * 8);
        let replaced = if level == 1 {
            page + 0x1000
        } else {
            to + 0x1000
        };
        m.write64(to + slot * 8, replaced | next & 0xfff);
        from = next & 0x000f_ffff_ffff_f000;
    }
    m.write64(page, 1);
    m.write64(page + 0x1000, 2);
    let no_flush = 1u64 << 63;
    m.exec(|a| {
        a.mov(rax, cr4)?;
        a.or(eax, (cr::CR4_PCIDE | cr::CR4_PGE) as i32)?;
        a.mov(cr4, rax)?;
        a.mov(r8, no_flush | root | 1)?;
        a.mov(r9, no_flush | other | 2)?;
        a.xor(r12d, r12d)?;
        for _ in 0..3 {
            a.mov(cr3, r8)?;
            a.imul_3(r12, r12, 4)?;
            a.add(r12, qword_ptr(page))?;
            a.mov(cr3, r9)?;
            a.imul_3(r12, r12, 4)?;
            a.add(r12, qword_ptr(page))?;
        }
        a.mov(rbx, cr3)?;
        a.mov(cr3, r8)?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[12], r.gpr[3]), (0b01_10_01_10_01_10, other | 2));
}

#[test]
fn invpcid_drops_translations_and_checks_its_descriptor() {
    let mut m = Machine::new(1);
    let page = DATA + 0x3_0000;
    let entry = m.entry(page);
    m.write64(page, 1);
    m.write64(page + 0x1000, 2);
    for kind in 0..4u64 {
        m.map(page, entry);
        m.reset();
        m.write64(DATA, 0);
        m.write64(DATA + 8, page);
        m.exec(|a| {
            a.mov(r8, qword_ptr(page))?;
            a.mov(rdi, entry_of(page))?;
            a.mov(rax, entry + 0x1000)?;
            a.mov(qword_ptr(rdi), rax)?;
            a.mov(eax, kind as u32)?;
            a.invpcid(rax, xmmword_ptr(DATA))?;
            a.mov(r9, qword_ptr(page))?;
            stop(a)
        })
        .end();
        let r = m.registers();
        assert_eq!((r.gpr[8], r.gpr[9]), (1, 2), "kind {kind}");
    }
    for (kind, low, high) in [(4, 0, 0), (0, 0x1000, 0), (0, 1, 0), (0, 0, 1 << 48)] {
        m.write64(DATA, low);
        m.write64(DATA + 8, high);
        m.exec(|a| {
            a.mov(eax, kind)?;
            a.invpcid(rax, xmmword_ptr(DATA))
        })
        .expect(ex::GP);
    }
    m.exec_user(|a| a.invpcid(rax, xmmword_ptr(DATA)))
        .expect(ex::GP);
}
