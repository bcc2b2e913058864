//! Several processors: the others are started by INIT and start-up IPIs, through real mode.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ringfence_engine::{Exit, LocalDevices, Vcpu};
use ringfence_x86::{cr, msr};

use super::*;

/// Where all processors go: R15 is the number, R14 the address of the local APIC.
pub const AP_MAIN: u64 = CODE + 0x8000;
/// Top of the stack of processor 0; those of the others follow, 64 KiB each.
pub const AP_STACK: u64 = SPARE + 0x41_0000;

const POINTERS: u64 = 0x7000;
const REAL: u64 = 0x8000;
const LONG: u64 = 0xa000;
const LAPIC: u64 = 0xfee0_0000;

impl Machine {
    /// Puts the code of all processors at [`AP_MAIN`] and runs them until each has stopped.
    #[track_caller]
    pub fn run_all<F>(&mut self, f: F) -> Vec<Stop>
    where
        F: FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    {
        let size = self.code(AP_MAIN, f);
        assert!(size < 0x1000, "the program is too long");
        self.write_start_code();
        self.code(CODE, |a| {
            a.mov(r14, LAPIC)?;
            for value in [0xc_4500, 0xc_4608, 0xc_4608] {
                a.mov(dword_ptr(r14 + 0x300), value)?;
            }
            a.mov(rax, LONG)?;
            a.jmp(rax)
        });
        self.start(CODE);
        self.run_threads()
    }

    fn write_start_code(&self) {
        let mut pointers = 0xfffu16.to_le_bytes().to_vec();
        pointers.extend(GDT.to_le_bytes());
        pointers.resize(16, 0);
        pointers.extend(0xfffu16.to_le_bytes());
        pointers.extend(IDT.to_le_bytes());
        self.write(POINTERS, &pointers);
        let system = long_mode();
        let real = assemble(16, REAL, |a| {
            a.cli()?;
            a.xor(ax, ax)?;
            a.mov(ds, ax)?;
            a.db(&[0x66])?;
            a.lgdt(ptr(POINTERS as u32))?;
            a.mov(eax, system.cr4 as u32)?;
            a.mov(cr4, eax)?;
            a.mov(eax, system.cr3 as u32)?;
            a.mov(cr3, eax)?;
            a.mov(ecx, msr::IA32_EFER)?;
            a.rdmsr()?;
            a.or(eax, (system.efer & !cr::EFER_LMA) as u32)?;
            a.wrmsr()?;
            a.mov(eax, system.cr0 as u32)?;
            a.mov(cr0, eax)?;
            // jmp KERNEL_CODE:LONG
            a.db(&[0x66, 0xea])?;
            a.db(&(LONG as u32).to_le_bytes())?;
            a.db(&KERNEL_CODE.to_le_bytes())
        });
        self.write(REAL, &real);
        self.code(LONG, |a| {
            a.mov(eax, i32::from(KERNEL_DATA))?;
            for register in [ds, es, ss] {
                a.mov(register, eax)?;
            }
            a.mov(rax, POINTERS + 16)?;
            a.lidt(ptr(rax))?;
            a.mov(eax, 1)?;
            a.xor(ecx, ecx)?;
            a.cpuid()?;
            a.shr(ebx, 24)?;
            a.mov(r15d, ebx)?;
            a.shl(ebx, 16)?;
            a.lea(rsp, qword_ptr(rbx + AP_STACK as i32))?;
            // The first processor's task register is loaded already.
            let mut loaded = a.create_label();
            a.test(r15d, r15d)?;
            a.je(loaded)?;
            a.mov(eax, r15d)?;
            a.shl(eax, 4)?;
            a.add(eax, i32::from(TASK))?;
            // Not busy, after another start.
            a.and(byte_ptr(rax + (GDT as i32 + 5)), 0xfdu32)?;
            a.ltr(ax)?;
            a.set_label(&mut loaded)?;
            a.mov(r14, LAPIC)?;
            a.mov(dword_ptr(r14 + 0xf0), 0x1ff)?;
            a.mov(rax, AP_MAIN)?;
            a.jmp(rax)
        });
    }

    /// Runs all processors, a thread each, until each has stopped.
    #[track_caller]
    pub fn run_threads(&mut self) -> Vec<Stop> {
        self.watchdog.arm();
        let (ports, memory, fired) = (&self.ports, &self.memory, &self.watchdog.fired);
        let stops = std::thread::scope(|scope| {
            let threads: Vec<_> = (0u32..)
                .zip(self.vcpus.iter_mut())
                .map(|(id, vcpu)| {
                    scope.spawn(move || {
                        loop {
                            match vcpu.run(0).expect("the engine has no defect") {
                                Exit::Interrupted => match ports.take_stop(id) {
                                    Some(value) => break stopped(vcpu, memory, value),
                                    None if fired.load(SeqCst) => {
                                        let code = vcpu.recent_code().join("\n");
                                        let waits = ports.interrupt_pending(id);
                                        let registers = vcpu.registers();
                                        eprintln!(
                                            "processor {id} hangs, interrupt waits: {waits}, \
                                             {registers:x?}\n{code}"
                                        );
                                        break Stop::Interrupted;
                                    }
                                    None => {}
                                },
                                Exit::Shutdown => break Stop::Shutdown,
                                exit => break Stop::Exit(exit),
                            }
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        self.watchdog.disarm();
        stops
    }
}
