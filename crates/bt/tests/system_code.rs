//! Code that changes: by itself, by its neighbours, by devices; and memory that appears.

mod system;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_engine::{Exit, Vcpu};
use ringfence_memory::RegionKind;
use ringfence_x86::exception as ex;
use system::*;

type Asm = Result<(), IcedError>;

fn stop(a: &mut CodeAssembler) -> Asm {
    a.out(i32::from(STOP), al)
}

#[test]
fn a_loop_that_rewrites_its_own_body() {
    let mut m = Machine::new(1);
    // Each round adds a constant that it has written into its own ADD before.
    for distance in [0usize, 3, 40] {
        m.exec(|a| {
            let (mut top, mut patched) = (a.create_label(), a.create_label());
            a.xor(eax, eax)?;
            a.mov(ecx, 200)?;
            a.lea(rsi, byte_ptr(patched))?;
            a.set_label(&mut top)?;
            a.mov(dword_ptr(rsi + 1), ecx)?;
            for _ in 0..distance {
                a.nop()?;
            }
            a.set_label(&mut patched)?;
            a.db(&[0x05, 0, 0, 0, 0])?;
            a.dec(ecx)?;
            a.jne(top)?;
            stop(a)
        })
        .end();
        assert_eq!(
            m.registers().gpr[0],
            200 * 201 / 2,
            "{distance} instructions between"
        );
    }
}

#[test]
fn a_function_that_is_written_and_called_by_turns() {
    let mut m = Machine::new(1);
    // In its own page, at a page end, and over two pages; by direct and indirect calls.
    for at in [0x6000u64, 0x6ffa, 0x6ffd, 0x6fff] {
        for indirect in [false, true] {
            let function = CODE + at;
            m.exec(|a| {
                let mut top = a.create_label();
                a.xor(ebx, ebx)?;
                a.mov(r12d, 100)?;
                a.mov(rdi, function)?;
                a.mov(byte_ptr(rdi), 0xb8)?;
                a.mov(byte_ptr(rdi + 5), 0xc3)?;
                a.set_label(&mut top)?;
                a.mov(dword_ptr(rdi + 1), r12d)?;
                if indirect {
                    a.call(rdi)?
                } else {
                    a.call(function)?
                }
                a.add(rbx, rax)?;
                a.dec(r12d)?;
                a.jne(top)?;
                stop(a)
            })
            .end();
            assert_eq!(
                m.registers().gpr[3],
                5050,
                "at {at:#x}, indirect: {indirect}"
            );
        }
    }
}

#[test]
fn code_that_is_copied_over_and_over() {
    let mut m = Machine::new(1);
    // Three functions by turns, copied by REP MOVSB, by SSE stores, by pushes.
    let functions = [1u32, 20, 300].map(|value| {
        let mut code = assemble(64, 0, |a| {
            a.mov(eax, value)?;
            a.ret()
        });
        code.resize(16, 0x90);
        code
    });
    for (i, code) in functions.iter().enumerate() {
        m.write(DATA + i as u64 * 16, code);
    }
    let target = CODE + 0x6010;
    for how in 0..3 {
        m.exec(|a| {
            let (mut top, mut inner) = (a.create_label(), a.create_label());
            a.xor(ebx, ebx)?;
            a.mov(r12d, 60)?;
            a.mov(r13, target)?;
            a.set_label(&mut top)?;
            a.mov(r14, DATA)?;
            a.set_label(&mut inner)?;
            match how {
                0 => {
                    a.mov(rsi, r14)?;
                    a.mov(rdi, r13)?;
                    a.mov(ecx, 16)?;
                    a.rep().movsb()?;
                }
                1 => {
                    a.movups(xmm0, xmmword_ptr(r14))?;
                    a.movups(xmmword_ptr(r13), xmm0)?;
                }
                _ => {
                    a.mov(r15, rsp)?;
                    a.lea(rsp, qword_ptr(r13 + 16))?;
                    a.push(qword_ptr(r14 + 8))?;
                    a.push(qword_ptr(r14))?;
                    a.mov(rsp, r15)?;
                }
            }
            a.call(r13)?;
            a.add(ebx, eax)?;
            a.add(r14, 16)?;
            a.cmp(r14d, (DATA + 48) as i32)?;
            a.jb(inner)?;
            a.dec(r12d)?;
            a.jne(top)?;
            stop(a)
        })
        .end();
        assert_eq!(m.registers().gpr[3], 60 * 321, "way {how}");
    }
}

#[test]
fn data_beside_code_and_code_beside_data() {
    let mut m = Machine::new(1);
    // A counter in the same page, in the same 64 bytes, in front of and behind the loop.
    for offset in [-64i64, -8, 0x40, 0x400] {
        let counter = (CODE as i64 + 0x100 + offset) as u64;
        m.write64(counter, 0);
        m.code(CODE + 0x100, |a| {
            let mut top = a.create_label();
            a.mov(rsi, counter)?;
            a.mov(ecx, 3000)?;
            a.set_label(&mut top)?;
            a.inc(dword_ptr(rsi))?;
            a.dec(ecx)?;
            a.jne(top)?;
            stop(a)
        });
        m.start(CODE + 0x100);
        m.run().end();
        assert_eq!(m.read64(counter) as u32, 3000, "at {offset}");
    }
}

#[test]
fn devices_that_write_code_are_noticed() {
    let mut m = Machine::new(1);
    m.code(CODE, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(eax, 1)?;
        a.out(i32::from(LOG), eax)?;
        a.jmp(top)
    });
    m.start(CODE);
    let memory = std::sync::Arc::clone(&m.memory);
    let ports = std::sync::Arc::clone(&m.ports);
    let writer = std::thread::spawn(move || {
        let wait = |more: usize| {
            let target = ports.logged() + more;
            while ports.logged() < target {
                std::thread::yield_now();
            }
        };
        for value in 2u32..40 {
            wait(3);
            memory
                .write(CODE + 1, &value.to_le_bytes())
                .expect("code has memory");
        }
        wait(3);
        // out STOP, al
        memory
            .write(CODE + 5, &[0xe6, STOP])
            .expect("code has memory");
    });
    assert_eq!(m.run().end(), 39);
    writer.join().expect("the thread ends");
    let values: Vec<u32> = m
        .ports
        .take_log()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert!(values.is_sorted(), "{values:?}");
    assert_eq!(values.first(), Some(&1));
}

#[test]
fn a_breakpoint_in_running_code() {
    let mut m = Machine::new(1);
    // The guest puts INT3 on a function, takes the trap, and takes it off again.
    let function = CODE + 0x6000;
    m.code(function, |a| {
        a.inc(rbx)?;
        a.ret()
    });
    gate(&m.memory, ex::BP, CODE + 0x5000, 0, 0);
    m.code(CODE + 0x5000, |a| {
        a.inc(r15)?;
        a.mov(byte_ptr(r13), r14b)?;
        a.dec(qword_ptr(rsp))?;
        a.iretq()
    });
    m.exec(|a| {
        let mut top = a.create_label();
        a.mov(r13, function)?;
        a.mov(r14b, byte_ptr(r13))?;
        a.mov(ecx, 200)?;
        a.set_label(&mut top)?;
        a.call(function)?;
        a.mov(byte_ptr(r13), 0xcc)?;
        a.call(function)?;
        a.dec(ecx)?;
        a.jne(top)?;
        stop(a)
    })
    .end();
    let r = m.registers();
    assert_eq!((r.gpr[3], r.gpr[15]), (400, 200));
}

#[test]
fn user_code_that_the_kernel_loads_anew() {
    let mut m = Machine::new(1);
    // The kernel writes user code through another mapping, as after reading it from a disk.
    let alias = DATA + 0x4_0000;
    m.map(alias, USER | RW);
    gate(&m.memory, 0x80, CODE + 0x5000, 3, 0);
    m.code(CODE + 0x5000, |a| {
        let mut done = a.create_label();
        a.add(r12, rax)?;
        a.dec(r15)?;
        a.je(done)?;
        a.mov(dword_ptr(alias + 1), r15d)?;
        a.mov(rcx, USER)?;
        a.mov(qword_ptr(rsp), rcx)?;
        a.iretq()?;
        a.set_label(&mut done)?;
        stop(a)
    });
    m.code(USER, |a| {
        a.mov(eax, 0)?;
        a.int(0x80)
    });
    m.start_user(USER, 2);
    m.set(|r| r.gpr[15] = 100);
    m.run().end();
    assert_eq!(m.registers().gpr[12], 99 * 100 / 2);
}

#[test]
fn memory_and_rom_that_appear_between_runs() {
    let mut m = Machine::new(1);
    let (ram, rom) = (0x2000_0000u64, 0x2100_0000u64);
    // Large pages for both.
    for at in [ram, rom] {
        m.write64(directory_entry_of(at), at | RW | 1 << 7);
    }
    let read = Exit::MmioRead {
        address: ram + 8,
        size: 4,
    };
    let stop = m.exec(|a| {
        a.mov(rsi, ram)?;
        a.mov(eax, dword_ptr(rsi + 8))?;
        a.mov(ebx, dword_ptr(rsi + 8))?;
        a.mov(dword_ptr(rsi + 8), 77)?;
        a.mov(ecx, dword_ptr(rsi + 8))?;
        a.mov(rsi, rom)?;
        a.mov(edx, dword_ptr(rsi))?;
        a.mov(dword_ptr(rsi), edx)?;
        a.call(rsi)?;
        a.out(i32::from(STOP), al)
    });
    assert_eq!(stop, Stop::Exit(read));
    m.memory
        .map(ram, 0x20_0000, RegionKind::Ram)
        .expect("memory of the guest");
    m.memory
        .map(rom, 0x20_0000, RegionKind::Rom)
        .expect("memory of the guest");
    m.write64(ram + 8, 55);
    let code = assemble(64, rom, |a| {
        a.mov(edi, 99)?;
        a.ret()
    });
    m.write(rom, &code);
    let word = u32::from_le_bytes([code[0], code[1], code[2], code[3]]);
    // The first read gets the answer, or what is there by now.
    let exit = m.vcpus[0].run(11).expect("the engine has no defect");
    let value = u64::from(word);
    assert_eq!(
        exit,
        Exit::MmioWrite {
            address: rom,
            size: 4,
            value
        }
    );
    m.run().end();
    let r = m.registers();
    assert!([11, 55].contains(&r.gpr[0]));
    assert_eq!((r.gpr[3], r.gpr[1], r.gpr[7]), (55, 77, 99));
    assert_eq!(m.read64(rom) as u32, word);
}
