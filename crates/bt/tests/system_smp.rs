//! Several processors on one memory: atomics, locks, IPIs, shoot-downs, code that changes.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_x86::exception as ex;
use system::*;

type Asm = Result<(), IcedError>;

const ICR: i32 = 0x300;
const EOI: i32 = 0xb0;
/// Shared variables, a cache line each.
const VARIABLES: u64 = DATA;

fn variable(n: u64) -> u64 {
    VARIABLES + n * 64
}

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

/// Waits until `count` processors have come here; `n` is an unused variable.
fn meet(a: &mut CodeAssembler, n: u64, count: u32) -> Asm {
    let mut wait = a.create_label();
    a.lock().inc(dword_ptr(variable(n)))?;
    a.set_label(&mut wait)?;
    a.pause()?;
    a.cmp(dword_ptr(variable(n)), count)?;
    a.jb(wait)
}

#[track_caller]
fn all_end(stops: &[Stop]) {
    assert!(
        stops.iter().all(|s| matches!(s, Stop::End(_))),
        "{stops:x?}"
    );
}

#[test]
fn locked_counters_count() {
    for count in [2u32, 4, 8] {
        let mut m = Machine::new(count);
        let rounds = 40_000 * stress() / count;
        // Across a page end as well: a split lock.
        let split = DATA + 0x2ffe;
        let stops = m.run_all(|a| {
            let (mut top, mut retry) = (a.create_label(), a.create_label());
            meet(a, 0, count)?;
            a.mov(ebx, rounds)?;
            a.mov(r8, split)?;
            a.set_label(&mut top)?;
            a.mov(eax, 3)?;
            a.lock().xadd(dword_ptr(variable(1)), eax)?;
            a.lock().inc(qword_ptr(variable(2)))?;
            a.mov(eax, dword_ptr(variable(3)))?;
            a.set_label(&mut retry)?;
            a.lea(ecx, dword_ptr(eax + 7))?;
            a.lock().cmpxchg(dword_ptr(variable(3)), ecx)?;
            a.jne(retry)?;
            a.test(ebx, 15)?;
            let mut no = a.create_label();
            a.jne(no)?;
            a.lock().add(dword_ptr(r8), 1)?;
            a.set_label(&mut no)?;
            a.dec(ebx)?;
            a.jne(top)?;
            stop(a)
        });
        all_end(&stops);
        let total = u64::from(rounds * count);
        assert_eq!(m.read64(variable(1)), total * 3);
        assert_eq!(m.read64(variable(2)), total);
        assert_eq!(m.read64(variable(3)), total * 7);
        let splits = u64::from(count) * u64::from(rounds / 16);
        assert_eq!(
            m.read64(split) & 0xffff_ffff,
            splits,
            "split locks of {count}"
        );
    }
}

#[test]
fn ticket_and_exchange_locks_exclude() {
    for count in [2u32, 4] {
        let mut m = Machine::new(count);
        let rounds = 600 * stress() / count;
        let stops = m.run_all(|a| {
            let (mut top, mut spin, mut spin2) =
                (a.create_label(), a.create_label(), a.create_label());
            meet(a, 0, count)?;
            a.mov(ebx, rounds)?;
            a.set_label(&mut top)?;
            // Ticket lock: next in variable 1, serving in variable 2.
            a.mov(eax, 1)?;
            a.lock().xadd(dword_ptr(variable(1)), eax)?;
            a.set_label(&mut spin)?;
            a.pause()?;
            a.cmp(dword_ptr(variable(2)), eax)?;
            a.jne(spin)?;
            a.inc(dword_ptr(variable(3)))?;
            a.mov(ecx, dword_ptr(variable(4)))?;
            a.inc(ecx)?;
            a.mov(dword_ptr(variable(4)), ecx)?;
            a.inc(dword_ptr(variable(2)))?;
            // XCHG lock.
            a.set_label(&mut spin2)?;
            a.pause()?;
            a.mov(eax, 1)?;
            a.xchg(dword_ptr(variable(5)), eax)?;
            a.test(eax, eax)?;
            a.jne(spin2)?;
            a.add(qword_ptr(variable(6)), 5)?;
            a.mov(dword_ptr(variable(5)), 0)?;
            a.dec(ebx)?;
            a.jne(top)?;
            stop(a)
        });
        all_end(&stops);
        let total = u64::from(rounds * count);
        assert_eq!(
            (m.read64(variable(3)), m.read64(variable(4))),
            (total, total)
        );
        assert_eq!(m.read64(variable(6)), total * 5);
    }
}

#[test]
fn ipis_between_processors_that_halt() {
    let mut m = Machine::new(2);
    // Each counts the interrupts that it gets, and sends one back.
    gate(&m.memory, 0x50, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        a.inc(r13d)?;
        a.mov(dword_ptr(r14 + EOI), 0)?;
        a.iretq()
    });
    let rounds = 150 * stress();
    let stops = m.run_all(|a| {
        let (mut top, mut wait, mut done) = (a.create_label(), a.create_label(), a.create_label());
        a.xor(r13d, r13d)?;
        a.xor(r12d, r12d)?;
        meet(a, 0, 2)?;
        // Destination: the other one.
        a.mov(ebx, r15d)?;
        a.xor(ebx, 1)?;
        a.shl(ebx, 24)?;
        a.mov(dword_ptr(r14 + (ICR + 0x10)), ebx)?;
        a.test(r15d, r15d)?;
        a.jne(wait)?;
        a.set_label(&mut top)?;
        a.mov(dword_ptr(r14 + ICR), 0x4050)?;
        a.cmp(r13d, rounds)?;
        a.jae(done)?;
        a.set_label(&mut wait)?;
        // Every other time by polling with interrupts on.
        a.inc(r12d)?;
        let (mut halt, mut poll) = (a.create_label(), a.create_label());
        a.test(r12d, 1)?;
        a.je(halt)?;
        a.sti()?;
        a.set_label(&mut poll)?;
        a.pause()?;
        a.cmp(r13d, r12d)?;
        a.jb(poll)?;
        a.cli()?;
        a.jmp(top)?;
        a.set_label(&mut halt)?;
        a.cmp(r13d, r12d)?;
        a.jae(top)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.jmp(halt)?;
        a.set_label(&mut done)?;
        stop(a)
    });
    all_end(&stops);
    for vcpu in &m.vcpus {
        let counted = ringfence_engine::Vcpu::registers(vcpu).gpr[13];
        assert!(
            (u64::from(rounds)..=u64::from(rounds) + 1).contains(&counted),
            "{counted}"
        );
    }
}

#[test]
fn tlb_shoot_downs_by_ipi() {
    for count in [2u32, 4] {
        let mut m = Machine::new(count);
        let page = DATA + 0x2_0000;
        let pages = [SPARE, SPARE + 0x1000];
        for (at, value) in pages.into_iter().zip(0u64..) {
            m.write64(at, value);
        }
        m.map(page, pages[0] | RW);
        gate(&m.memory, 0x51, CODE + 0x5000, 0, 0);
        m.code(CODE + 0x5000, |a| {
            a.invlpg(ptr(page))?;
            a.lock().inc(dword_ptr(variable(2)))?;
            a.mov(dword_ptr(r14 + EOI), 0)?;
            a.iretq()
        });
        let rounds = 40 * stress();
        let stops = m.run_all(|a| {
            let (mut reader, mut read, mut again, mut wait, mut end, mut bad) = (
                a.create_label(),
                a.create_label(),
                a.create_label(),
                a.create_label(),
                a.create_label(),
                a.create_label(),
            );
            a.sti()?;
            meet(a, 0, count)?;
            a.xor(r12d, r12d)?;
            a.test(r15d, r15d)?;
            a.jne(reader)?;
            // Variable 1 is odd while the mapping changes; half of it says which page is there.
            a.set_label(&mut again)?;
            a.inc(dword_ptr(variable(1)))?;
            a.mov(dword_ptr(variable(2)), 0)?;
            a.xor(qword_ptr(entry_of(page)), 0x1000)?;
            a.and(dword_ptr(entry_of(page)), !0x60)?;
            a.invlpg(ptr(page))?;
            a.mov(dword_ptr(r14 + ICR), 0xc_4051)?;
            a.set_label(&mut wait)?;
            a.pause()?;
            a.cmp(dword_ptr(variable(2)), count - 1)?;
            a.jb(wait)?;
            a.inc(dword_ptr(variable(1)))?;
            a.inc(r12d)?;
            a.cmp(r12d, rounds)?;
            a.jb(again)?;
            a.mov(dword_ptr(variable(3)), 1)?;
            a.jmp(end)?;
            a.set_label(&mut reader)?;
            a.nop()?;
            a.set_label(&mut read)?;
            a.mov(eax, dword_ptr(variable(1)))?;
            a.mov(ecx, dword_ptr(page))?;
            a.mov(edx, dword_ptr(variable(1)))?;
            a.cmp(dword_ptr(variable(3)), 0)?;
            a.jne(end)?;
            a.test(eax, 1)?;
            a.jne(read)?;
            a.cmp(eax, edx)?;
            a.jne(read)?;
            a.shr(eax, 1)?;
            a.and(eax, 1)?;
            a.inc(r12d)?;
            a.cmp(eax, ecx)?;
            a.je(read)?;
            a.set_label(&mut bad)?;
            a.ud2()?;
            a.set_label(&mut end)?;
            stop(a)
        });
        all_end(&stops);
    }
}

#[test]
fn a_changed_constant_is_seen_after_its_announcement() {
    for (count, aligned) in [(2u32, true), (4, true), (2, false)] {
        let mut m = Machine::new(count);
        // mov eax, imm32; ret
        let function = CODE + 0x6000 + if aligned { 3 } else { 0xffd };
        m.code(function, |a| {
            a.mov(eax, 0)?;
            a.ret()
        });
        let rounds = 3_000;
        let stops = m.run_all(|a| {
            let (mut reader, mut again, mut end) =
                (a.create_label(), a.create_label(), a.create_label());
            meet(a, 0, count)?;
            a.mov(r13, function)?;
            a.xor(r12d, r12d)?;
            a.test(r15d, r15d)?;
            a.jne(reader)?;
            a.set_label(&mut again)?;
            a.inc(r12d)?;
            if aligned {
                a.mov(dword_ptr(r13 + 1), r12d)?;
            } else {
                // Over two pages, and so not atomic: only the byte in the second one.
                a.mov(byte_ptr(r13 + 3), r12b)?;
                a.mov(edx, r12d)?;
                a.movzx(r12d, r12b)?;
                a.shl(r12d, 16)?;
            }
            a.mov(dword_ptr(variable(1)), r12d)?;
            if !aligned {
                a.mov(r12d, edx)?;
            }
            a.call(r13)?;
            a.cmp(eax, dword_ptr(variable(1)))?;
            let mut good = a.create_label();
            a.je(good)?;
            a.ud2()?;
            a.set_label(&mut good)?;
            a.cmp(r12d, if aligned { rounds } else { 250 })?;
            a.jb(again)?;
            a.mov(dword_ptr(variable(2)), 1)?;
            a.jmp(end)?;
            a.set_label(&mut reader)?;
            a.mov(r12d, dword_ptr(variable(1)))?;
            a.xor(eax, eax)?;
            a.cpuid()?;
            a.call(r13)?;
            // At least what was announced.
            a.cmp(eax, r12d)?;
            let mut fine = a.create_label();
            a.jae(fine)?;
            a.ud2()?;
            a.set_label(&mut fine)?;
            a.cmp(dword_ptr(variable(2)), 0)?;
            a.je(reader)?;
            a.set_label(&mut end)?;
            stop(a)
        });
        all_end(&stops);
    }
}

#[test]
fn code_is_patched_under_a_breakpoint() {
    let count = 3u32;
    let mut m = Machine::new(count);
    // xor eax, eax; five bytes; ret. The five bytes are a NOP or MOV EAX with one of two values.
    let function = CODE + 0x6000;
    let site = function + 2;
    m.write(function, &[0x31, 0xc0, 0x0f, 0x1f, 0x44, 0, 0, 0xc3]);
    // #BP skips the site.
    gate(&m.memory, ex::BP, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        let (mut ours, mut next) = (a.create_label(), a.create_label());
        a.cmp(qword_ptr(rsp), (site + 1) as i32)?;
        a.je(ours)?;
        a.ud2()?;
        a.set_label(&mut ours)?;
        a.add(qword_ptr(rsp), 4)?;
        a.inc(r11d)?;
        a.set_label(&mut next)?;
        a.iretq()
    });
    gate(&m.memory, 0x52, CODE + 0x5100, 0, 0);
    m.code(CODE + 0x5100, |a| {
        a.lock().inc(dword_ptr(variable(2)))?;
        a.mov(dword_ptr(r14 + EOI), 0)?;
        a.iretq()
    });
    let rounds = 5 * stress();
    let stops = m.run_all(|a| {
        let (mut reader, mut again, mut end, mut sync, mut good) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        a.sti()?;
        meet(a, 0, count)?;
        a.mov(r13, function)?;
        a.xor(r12d, r12d)?;
        a.test(r15d, r15d)?;
        a.jne(reader)?;
        a.set_label(&mut again)?;
        for (first, tail) in [
            (0xb8, 0x1111_1111u32),
            (0x0f, 0x0000_441f),
            (0xb8, 0x2222_2222),
            (0xb8, 0x1111_1111),
            (0x0f, 0x0000_441f),
        ] {
            a.mov(byte_ptr(r13 + 2), 0xcc)?;
            a.call(sync)?;
            a.mov(dword_ptr(r13 + 3), tail)?;
            a.call(sync)?;
            a.mov(byte_ptr(r13 + 2), first)?;
            a.call(sync)?;
            a.call(r13)?;
        }
        a.inc(r12d)?;
        a.cmp(r12d, rounds)?;
        a.jb(again)?;
        a.mov(dword_ptr(variable(3)), 1)?;
        a.jmp(end)?;
        a.set_label(&mut sync)?;
        let mut wait = a.create_label();
        a.mov(dword_ptr(variable(2)), 0)?;
        a.mov(dword_ptr(r14 + ICR), 0xc_4052)?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(variable(2)), count - 1)?;
        a.jb(wait)?;
        a.ret()?;
        a.set_label(&mut reader)?;
        a.call(r13)?;
        a.test(eax, eax)?;
        a.je(good)?;
        a.cmp(eax, 0x1111_1111)?;
        a.je(good)?;
        a.cmp(eax, 0x2222_2222)?;
        a.je(good)?;
        a.ud2()?;
        a.set_label(&mut good)?;
        a.inc(r12d)?;
        a.cmp(dword_ptr(variable(3)), 0)?;
        a.je(reader)?;
        a.set_label(&mut end)?;
        stop(a)
    });
    all_end(&stops);
}

#[test]
fn data_beside_code_of_another_processor() {
    let count = 2u32;
    let mut m = Machine::new(count);
    // Both run code of a page that both write to.
    let function = CODE + 0x6000;
    m.code(function, |a| {
        a.lea(eax, dword_ptr(eax + 3))?;
        a.ret()
    });
    let data = function + 0x800;
    let rounds = 3_000;
    let stops = m.run_all(|a| {
        let mut top = a.create_label();
        meet(a, 0, count)?;
        a.mov(rsi, data)?;
        a.mov(rdi, function)?;
        a.mov(ebx, rounds)?;
        a.xor(eax, eax)?;
        a.set_label(&mut top)?;
        a.lock().inc(dword_ptr(rsi))?;
        a.call(rdi)?;
        a.inc(dword_ptr(rsi + r15 * 4 + 64))?;
        a.dec(ebx)?;
        a.jne(top)?;
        a.cmp(eax, rounds * 3)?;
        let mut good = a.create_label();
        a.je(good)?;
        a.ud2()?;
        a.set_label(&mut good)?;
        stop(a)
    });
    all_end(&stops);
    assert_eq!(m.read64(data) as u32, rounds * count);
    let each = u64::from(rounds);
    assert_eq!(m.read64(data + 64), each | each << 32);
}

#[test]
fn init_and_start_up_again_and_again() {
    let mut m = Machine::new(2);
    // The second processor counts and then hangs in one of several ways.
    let rounds = 60u32;
    let stops = m.run_all(|a| {
        let (mut first, mut again, mut wait, mut halt, mut spin, mut end) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        a.test(r15d, r15d)?;
        a.je(first)?;
        a.mov(eax, 1)?;
        a.lock().xadd(dword_ptr(variable(1)), eax)?;
        a.cmp(dword_ptr(variable(3)), 0)?;
        a.jne(end)?;
        a.test(eax, 1)?;
        a.je(spin)?;
        a.set_label(&mut halt)?;
        a.hlt()?;
        a.jmp(halt)?;
        a.set_label(&mut spin)?;
        a.jmp(spin)?;
        a.set_label(&mut first)?;
        a.mov(dword_ptr(r14 + (ICR + 0x10)), 1 << 24)?;
        a.mov(ebx, 1)?;
        a.set_label(&mut again)?;
        a.nop()?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(variable(1)), ebx)?;
        a.jb(wait)?;
        a.inc(ebx)?;
        a.cmp(ebx, rounds)?;
        let mut more = a.create_label();
        a.jb(more)?;
        a.mov(dword_ptr(variable(3)), 1)?;
        a.set_label(&mut more)?;
        a.mov(dword_ptr(r14 + ICR), 0x4500)?;
        a.mov(dword_ptr(r14 + ICR), 0x4608)?;
        a.cmp(ebx, rounds)?;
        a.jb(again)?;
        a.set_label(&mut end)?;
        stop(a)
    });
    all_end(&stops);
    assert_eq!(m.read64(variable(1)) as u32, rounds);
}

#[test]
fn message_passing_keeps_its_order() {
    let mut m = Machine::new(2);
    // x86 stores are seen in order: who sees the flag sees the data.
    let rounds = 30_000u32;
    let stops = m.run_all(|a| {
        let (mut reader, mut write, mut read, mut end) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        meet(a, 0, 2)?;
        a.xor(ebx, ebx)?;
        a.test(r15d, r15d)?;
        a.jne(reader)?;
        a.set_label(&mut write)?;
        a.inc(ebx)?;
        a.mov(dword_ptr(variable(1)), ebx)?;
        a.mov(dword_ptr(variable(2)), ebx)?;
        a.cmp(ebx, rounds)?;
        a.jb(write)?;
        a.jmp(end)?;
        a.set_label(&mut reader)?;
        a.nop()?;
        a.set_label(&mut read)?;
        a.mov(eax, dword_ptr(variable(2)))?;
        a.mov(ecx, dword_ptr(variable(1)))?;
        a.cmp(ecx, eax)?;
        let mut good = a.create_label();
        a.jae(good)?;
        a.ud2()?;
        a.set_label(&mut good)?;
        a.cmp(eax, rounds)?;
        a.jb(read)?;
        a.set_label(&mut end)?;
        stop(a)
    });
    all_end(&stops);
}

#[test]
fn locked_accesses_over_two_pages_exclude_each_other() {
    let count = 4u32;
    let mut m = Machine::new(count);
    let split = DATA + 0x2ffd;
    let rounds = 2_000 * stress();
    let stops = m.run_all(|a| {
        let mut top = a.create_label();
        meet(a, 0, count)?;
        a.mov(ebx, rounds)?;
        a.mov(r8, split)?;
        a.set_label(&mut top)?;
        a.lock().add(dword_ptr(r8), 1)?;
        a.mov(eax, 1)?;
        a.lock().xadd(qword_ptr(r8 + 0x1000), rax)?;
        a.dec(ebx)?;
        a.jne(top)?;
        stop(a)
    });
    all_end(&stops);
    assert_eq!(m.read64(split) as u32, rounds * count);
    assert_eq!(m.read64(split + 0x1000), u64::from(rounds * count));
}
