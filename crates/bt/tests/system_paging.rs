//! Paging as translated code and code fetches see it.

mod system;

use iced_x86::code_asm::*;
use ringfence_x86::exception as ex;
use ringfence_x86::{cr, flags, paging};
use system::*;

const P: u32 = ex::PF_PRESENT;
const W: u32 = ex::PF_WRITE;
const U: u32 = ex::PF_USER;
const I: u32 = ex::PF_FETCH;

/// A page whose entry the tests change.
const PAGE: u64 = DATA + 0x1_0000;

fn stop(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    a.out(i32::from(STOP), al)
}

#[test]
fn accessed_and_dirty_bits_are_set_when_they_are_due() {
    let mut m = Machine::new(1);
    m.map(PAGE, PAGE | RW);
    m.exec(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        stop(a)
    })
    .end();
    assert_eq!(m.entry(PAGE), PAGE | RW | paging::A);
    // The page is in the TLB as one that was only read: the store must still set D.
    m.exec(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        a.mov(qword_ptr(PAGE), rax)?;
        stop(a)
    })
    .end();
    assert_eq!(m.entry(PAGE), PAGE | RW | paging::A | paging::D);
    assert_ne!(m.read64(directory_entry_of(PAGE)) & paging::A, 0);
    // A fetch sets A only.
    let code = CODE + 0x1000;
    m.map(code, code | RW);
    m.code(code, stop);
    m.start(code);
    m.run().end();
    assert_eq!(m.entry(code), code | RW | paging::A);
}

#[test]
fn a_faulting_access_leaves_accessed_and_dirty_bits_alone() {
    let mut m = Machine::new(1);
    m.map(PAGE, PAGE | paging::P);
    let frame = m
        .exec(|a| a.mov(qword_ptr(PAGE), rax))
        .page_fault(P | W, PAGE);
    assert_eq!((frame.rip, m.entry(PAGE)), (CODE, PAGE | paging::P));
}

#[test]
fn write_protection_holds_for_the_supervisor_only_with_wp() {
    let mut m = Machine::new(1);
    m.map(PAGE, PAGE | paging::P);
    m.exec(|a| a.inc(dword_ptr(PAGE + 8)))
        .page_fault(P | W, PAGE + 8);
    m.exec(|a| {
        a.mov(rax, cr0)?;
        a.and(eax, !(cr::CR0_WP as i32))?;
        a.mov(cr0, rax)?;
        a.inc(dword_ptr(PAGE + 8))?;
        a.mov(rax, cr0)?;
        a.or(eax, cr::CR0_WP as i32)?;
        a.mov(cr0, rax)?;
        a.nop()?;
        a.inc(dword_ptr(PAGE + 8))
    })
    .page_fault(P | W, PAGE + 8);
    assert_eq!(m.read64(PAGE + 8), 1);
    // User code never writes to it, WP or not.
    let page = USER_DATA_PAGE;
    m.map(page, page | paging::P | paging::US);
    m.exec_user(|a| a.inc(dword_ptr(page)))
        .page_fault(P | W | U, page);
    m.set_system(|s| s.cr0 &= !cr::CR0_WP);
    m.exec_user(|a| a.inc(dword_ptr(page)))
        .page_fault(P | W | U, page);
}

#[test]
fn user_code_stays_out_of_supervisor_pages() {
    let mut m = Machine::new(1);
    // In the TLB for the supervisor first.
    m.exec(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        a.mov(qword_ptr(PAGE), rax)?;
        stop(a)
    })
    .end();
    m.exec_user(|a| a.mov(rax, qword_ptr(PAGE)))
        .page_fault(P | U, PAGE);
    m.exec_user(|a| a.add(qword_ptr(PAGE), rax))
        .page_fault(P | U | W, PAGE);
    m.exec_user(|a| {
        a.mov(rax, CODE)?;
        a.jmp(rax)
    })
    .page_fault(P | U | I, CODE);
    m.exec_user(|a| a.jmp(CODE)).page_fault(P | U | I, CODE);
    m.exec_user(|a| {
        a.push(CODE as i32)?;
        a.ret()
    })
    .page_fault(P | U | I, CODE);
    // Rights at an upper level count as well.
    let large = directory_entry_of(USER_DATA_PAGE);
    let entry = m.read64(large);
    m.write64(large, entry & !paging::US);
    m.reset();
    m.exec_user(|a| a.mov(rax, qword_ptr(USER_DATA_PAGE)))
        .page_fault(P | U, USER_DATA_PAGE);
    m.write64(large, entry & !paging::RW);
    m.reset();
    m.exec_user(|a| {
        a.mov(rax, qword_ptr(USER_DATA_PAGE))?;
        a.mov(qword_ptr(USER_DATA_PAGE), rax)
    })
    .page_fault(P | U | W, USER_DATA_PAGE);
}

#[test]
fn no_execute_and_smep() {
    let mut m = Machine::new(1);
    let code = CODE + 0x1000;
    m.map(code, code | RW | paging::XD);
    m.code(code, stop);
    m.exec(|a| a.jmp(code)).page_fault(P | I, code);
    m.exec(|a| a.call(code)).page_fault(P | I, code);
    // A block that runs into such a page: the instruction at its end is whole.
    m.code(code - 4, |a| {
        a.nop()?;
        a.nop()?;
        a.nop()?;
        a.nop()
    });
    m.start(code - 4);
    let frame = m.run().page_fault(P | I, code);
    assert_eq!(frame.rip, code);
    // An instruction that crosses into it: RIP on the instruction, CR2 on the page.
    m.write(code - 2, &[0x48, 0xb8]);
    m.start(code - 2);
    let frame = m.run().page_fault(P | I, code);
    assert_eq!(frame.rip, code - 2);
    // With NXE clear the bit is reserved.
    m.set_system(|s| s.efer &= !cr::EFER_NXE);
    m.exec(|a| a.mov(rax, qword_ptr(code)))
        .page_fault(P | ex::PF_RESERVED, code);
    m.reset();
    // The supervisor may fetch from user pages until SMEP is set.
    m.code(USER, stop);
    m.exec(|a| a.jmp(USER)).end();
    m.exec(|a| {
        a.mov(rax, cr4)?;
        a.or(eax, cr::CR4_SMEP as i32)?;
        a.mov(cr4, rax)?;
        a.mov(rax, qword_ptr(USER))?;
        a.jmp(USER)
    })
    .page_fault(P | I, USER);
    // User code is not concerned.
    m.exec_user(|a| {
        a.nop()?;
        a.int(0x80)
    })
    .expect(0x80);
}

#[test]
fn reserved_bits_fault_at_every_level() {
    let mut m = Machine::new(1);
    let read = |m: &mut Machine| m.exec(|a| a.mov(rax, qword_ptr(SPARE)));
    let code = P | ex::PF_RESERVED;
    m.map(SPARE, SPARE | RW | 1 << 51);
    read(&mut m).page_fault(code, SPARE);
    m.map(SPARE, SPARE | RW);
    let entry = m.read64(directory_entry_of(SPARE));
    // Bit 13 of an entry that maps 2 MiB.
    m.write64(directory_entry_of(SPARE), SPARE | RW | paging::PS | 1 << 13);
    m.reset();
    read(&mut m).page_fault(code, SPARE);
    m.write64(directory_entry_of(SPARE), entry | 1 << 51);
    m.reset();
    read(&mut m).page_fault(code, SPARE);
    m.write64(directory_entry_of(SPARE), entry);
    // PS in the top-level table.
    let top = m.read64(pml4_entry(1));
    m.write64(pml4_entry(1), DIRECTORY | URW | paging::PS);
    m.exec(|a| {
        a.mov(rax, 1u64 << 39)?;
        a.mov(rax, qword_ptr(rax))
    })
    .page_fault(code, 1 << 39);
    m.write64(pml4_entry(1), top);
    // An absent page is just absent, whatever else its entry holds.
    m.map(SPARE, !paging::P);
    m.reset();
    read(&mut m).page_fault(0, SPARE);
}

#[test]
fn large_pages_and_invlpg_inside_them() {
    let mut m = Machine::new(1);
    let large = 0x4000_0000u64;
    // 1 GiB at 1 GiB, mapping physical memory from zero.
    m.write64(pdpt_entry(1), RW | paging::PS);
    m.write64(SPARE, 0x1111);
    m.write64(SPARE + 0x20_0000, 0x2222);
    m.exec(|a| {
        a.mov(rax, qword_ptr(large + SPARE))?;
        a.add(rax, qword_ptr(large + SPARE + 0x20_0000))?;
        stop(a)
    });
    assert_eq!(m.registers().gpr[0], 0x3333);
    assert_eq!(m.read64(pdpt_entry(1)), RW | paging::PS | paging::A);
    // 2 MiB pages: one INVLPG anywhere inside drops the whole page from the TLB.
    let entry = directory_entry_of(SPARE);
    m.write64(entry, SPARE | RW | paging::PS);
    m.reset();
    let other = SPARE + 0x20_0000;
    m.write64(other + 0x5000, 0x5555);
    m.write64(SPARE + 0x5000, 0x4444);
    m.exec(|a| {
        a.mov(rax, qword_ptr(SPARE + 0x5000))?;
        a.mov(rbx, qword_ptr(SPARE + 0x1f_f000))?;
        a.mov(rcx, other | RW | paging::PS)?;
        a.mov(qword_ptr(entry), rcx)?;
        a.invlpg(byte_ptr(SPARE + 0x3000))?;
        a.mov(rdx, qword_ptr(SPARE + 0x5000))?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[0], r.gpr[2]), (0x4444, 0x5555));
    // Splitting it into small pages, one of them absent.
    m.write64(SPARE + 0x5000, 0x4444);
    let table = DATA;
    for page in 0..512u64 {
        m.write64(
            table + page * 8,
            if page == 9 {
                0
            } else {
                (SPARE + page * 0x1000) | RW
            },
        );
    }
    m.exec(|a| {
        a.mov(rax, qword_ptr(SPARE + 0x9000))?;
        a.mov(rcx, table | RW)?;
        a.mov(qword_ptr(entry), rcx)?;
        a.invlpg(byte_ptr(SPARE + 0x9008))?;
        a.mov(rdx, qword_ptr(SPARE + 0x5000))?;
        a.mov(rax, qword_ptr(SPARE + 0x9000))
    })
    .page_fault(0, SPARE + 0x9000);
    assert_eq!(m.registers().gpr[2], 0x4444);
}

#[test]
fn cr3_keeps_global_pages_and_cr4_pge_drops_them() {
    let mut m = Machine::new(1);
    let (global, local) = (PAGE, PAGE + 0x1000);
    m.map(global, global | RW | paging::G);
    m.map(local, local | RW);
    m.write64(SPARE, 0xaaaa);
    m.write64(global, 0x1);
    m.write64(local, 0x2);
    m.exec(|a| {
        a.mov(rax, qword_ptr(global))?;
        a.mov(rbx, qword_ptr(local))?;
        for page in [global, local] {
            a.mov(rcx, SPARE | RW)?;
            a.mov(qword_ptr(entry_of(page)), rcx)?;
        }
        a.mov(rcx, cr3)?;
        a.mov(cr3, rcx)?;
        a.mov(rdx, qword_ptr(local))?;
        // The global one may be either: the test only wants it not to be dropped by PGE alone.
        a.mov(rcx, cr4)?;
        a.xor(rcx, cr::CR4_PGE as i32)?;
        a.mov(cr4, rcx)?;
        a.mov(rsi, qword_ptr(global))?;
        a.xor(rcx, cr::CR4_PGE as i32)?;
        a.mov(cr4, rcx)?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!(
        (r.gpr[0], r.gpr[3], r.gpr[2], r.gpr[6]),
        (1, 2, 0xaaaa, 0xaaaa)
    );
}

#[test]
fn a_remapped_page_is_seen_by_data_and_fetches() {
    let mut m = Machine::new(1);
    let code = CODE + 0x2000;
    let (one, two) = (SPARE, SPARE + 0x1000);
    for (page, value) in [(one, 1u32), (two, 2)] {
        let bytes = assemble(64, code, |a| {
            a.mov(eax, value)?;
            a.ret()
        });
        m.write(page, &bytes);
    }
    m.map(code, one | RW);
    for round in 0..3 {
        // By INVLPG, by CR3, by CR3 with the code reached through a register.
        m.map(code, one | RW);
        m.reset();
        m.exec(|a| {
            let mut again = a.create_label();
            a.xor(r12d, r12d)?;
            a.mov(r14, code)?;
            a.mov(r13d, 50)?;
            a.set_label(&mut again)?;
            // 1 and 2 by turns.
            for page in [one, two] {
                a.mov(rcx, page | RW)?;
                a.mov(qword_ptr(entry_of(code)), rcx)?;
                if round == 0 {
                    a.invlpg(byte_ptr(code + 0x123))?;
                } else {
                    a.mov(rcx, cr3)?;
                    a.mov(cr3, rcx)?;
                }
                if round == 2 {
                    a.call(r14)?;
                } else {
                    a.call(code)?;
                }
                a.shl(r12, 2)?;
                a.add(r12, rax)?;
                a.mov(rbx, qword_ptr(code))?;
            }
            a.dec(r13d)?;
            a.jne(again)?;
            stop(a)
        })
        .end();
        assert_eq!(
            m.registers().gpr[12],
            0x6666_6666_6666_6666,
            "round {round}"
        );
    }
}

#[test]
fn aliases_of_a_page_are_one_memory() {
    let mut m = Machine::new(1);
    let (one, two) = (PAGE, PAGE + 0x7000);
    m.map(one, SPARE | RW);
    m.map(two, SPARE | RW);
    m.exec(|a| {
        a.mov(rsi, one)?;
        a.mov(rdi, two)?;
        a.mov(dword_ptr(rsi + 4), 5)?;
        a.add(dword_ptr(rdi + 4), 6)?;
        a.mov(eax, dword_ptr(rsi + 4))?;
        a.lock().xadd(dword_ptr(rdi + 4), eax)?;
        a.mov(ebx, dword_ptr(rsi + 4))?;
        stop(a)
    })
    .end();
    assert_eq!((m.registers().gpr[0], m.registers().gpr[3]), (11, 22));
    // Code that is changed through an alias.
    let code = CODE + 0x3000;
    m.map(code, SPARE | RW);
    m.code(SPARE, |a| {
        a.mov(eax, 1)?;
        a.ret()
    });
    m.exec(|a| {
        a.call(code)?;
        a.mov(ebx, eax)?;
        a.mov(byte_ptr(one + 1), 7)?;
        a.call(code)?;
        stop(a)
    })
    .end();
    assert_eq!((m.registers().gpr[3], m.registers().gpr[0]), (1, 7));
}

#[test]
fn tables_can_be_changed_through_a_mapping_of_themselves() {
    let mut m = Machine::new(1);
    m.map(PAGE, 0);
    // The handler of #PF maps the page and goes on.
    let handler = HANDLERS + 14 * 16;
    let fix = CODE + 0x4000;
    m.code(fix, |a| {
        a.inc(r15d)?;
        a.mov(rax, PAGE | RW)?;
        a.mov(qword_ptr(entry_of(PAGE)), rax)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    m.code(handler, |a| a.jmp(fix));
    m.exec(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 100)?;
        a.set_label(&mut again)?;
        a.inc(dword_ptr(PAGE + 16))?;
        a.mov(qword_ptr(entry_of(PAGE)), 0)?;
        a.invlpg(byte_ptr(PAGE))?;
        a.dec(ecx)?;
        a.jne(again)?;
        stop(a)
    })
    .end();
    assert_eq!(
        (m.registers().gpr[15], m.read64(PAGE + 16) as u32),
        (100, 100)
    );
}

#[test]
fn smap_is_lifted_by_ac() {
    let mut m = Machine::new(1);
    m.exec(|a| {
        a.mov(eax, 7)?;
        a.xor(ecx, ecx)?;
        a.cpuid()?;
        stop(a)
    })
    .end();
    if m.registers().gpr[3] & 1 << 20 == 0 {
        // Not offered: the bit of CR4 must be refused then.
        m.exec(|a| {
            a.mov(rax, cr4)?;
            a.or(eax, cr::CR4_SMAP as i32)?;
            a.mov(cr4, rax)
        })
        .expect(ex::GP);
        return;
    }
    m.exec(|a| {
        a.mov(rax, cr4)?;
        a.or(eax, cr::CR4_SMAP as i32)?;
        a.mov(cr4, rax)?;
        a.stac()?;
        a.mov(rax, qword_ptr(USER_DATA_PAGE))?;
        a.clac()?;
        a.mov(rax, qword_ptr(USER_DATA_PAGE))
    })
    .page_fault(P, USER_DATA_PAGE);
    assert_eq!(m.registers().rflags & flags::AC, 0);
}

#[test]
fn physical_addresses_without_memory() {
    let mut m = Machine::new(1);
    m.map(PAGE, 0x7000_0000 | RW);
    // The read leaves the engine, as nobody else answers.
    let stop = m.exec(|a| {
        a.mov(eax, dword_ptr(PAGE + 4))?;
        a.out(i32::from(STOP), al)
    });
    let wanted = ringfence_engine::Exit::MmioRead {
        address: 0x7000_0004,
        size: 4,
    };
    assert_eq!(stop, Stop::Exit(wanted));
}

#[test]
fn the_entry_of_a_page_with_code_serves_no_store_to_its_neighbour() {
    let mut m = Machine::new(1);
    // A load from the page of the code itself, and a store off the same register.
    for neighbour in [0x1000, -0x1000] {
        let code = if neighbour > 0 { CODE } else { CODE + 0x1000 };
        let target = code.wrapping_add_signed(neighbour) + 0x800;
        m.write64(code + 0x800, 0);
        for round in 1..4 {
            m.code(code, |a| {
                a.lea(rsi, qword_ptr(rdi + 0x800))?;
                a.mov(rax, qword_ptr(rsi))?;
                a.mov(qword_ptr(rsi + neighbour as i32), rbx)?;
                stop(a)
            });
            m.start(code);
            m.set(|r| (r.gpr[7], r.gpr[3]) = (code, round));
            m.run().end();
            assert_eq!((m.read64(target), m.read64(code + 0x800)), (round, 0));
        }
    }
}
