//! A small machine for system tests: real interrupt chips, tables made by hand, handlers that
//! stop the processor and leave the exception's frame for the test to read.
//!
//! Linear and physical addresses are equal below 32 MiB, in pages of 4 KiB; the chips are mapped
//! where they are.

#![allow(dead_code, unused_imports)]

mod devices;
mod smp;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use ringfence_bt::BtVcpu;
use ringfence_chips::Platform;
use ringfence_engine::{Clock, Exit, GuestMemory, Kick, Registers, SystemRegisters, Vcpu};
use ringfence_memory::RegionKind;
use ringfence_x86::{exception, flags};

pub use devices::{LOG, Ports, STOP};
pub use smp::{AP_MAIN, AP_STACK};
pub use tables::*;

/// After this a guest is taken to hang. Long, as the host may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much longer than usual the stress tests run: RINGFENCE_STRESS, or 1.
pub fn stress() -> u32 {
    std::env::var("RINGFENCE_STRESS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1)
        .clamp(1, 1000)
}

/// What an exception or interrupt pushed, read where its handler stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub vector: u8,
    pub error: Option<u64>,
    pub rip: u64,
    pub cs: u16,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u16,
    pub cr2: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A handler was reached.
    Vector(Frame),
    /// The guest wrote to [`STOP`] elsewhere.
    End(u32),
    /// Another thread asked for it.
    Interrupted,
    /// A triple fault.
    Shutdown,
    /// Anything else.
    Exit(Exit),
}

impl Stop {
    /// The frame of a handler.
    #[track_caller]
    pub fn frame(self) -> Frame {
        match self {
            Self::Vector(frame) => frame,
            other => panic!("expected an exception, not {other:x?}"),
        }
    }

    /// The frame of the handler of `vector`.
    #[track_caller]
    pub fn expect(self, vector: u8) -> Frame {
        let frame = self.frame();
        assert_eq!(frame.vector, vector, "{frame:x?}");
        frame
    }

    /// The page fault with this error code and address.
    #[track_caller]
    pub fn page_fault(self, error: u32, address: u64) -> Frame {
        let frame = self.expect(exception::PF);
        let found = (frame.error.unwrap_or(0) as u32, frame.cr2);
        assert_eq!(found, (error, address), "{frame:x?}");
        frame
    }

    /// The value that the guest ended with.
    #[track_caller]
    pub fn end(self) -> u32 {
        match self {
            Self::End(value) => value,
            other => panic!("expected the end, not {other:x?}"),
        }
    }
}

/// Assembles 64-bit code for address `at`.
#[track_caller]
pub fn assemble<F>(bits: u32, at: u64, f: F) -> Vec<u8>
where
    F: FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
{
    let mut a = CodeAssembler::new(bits).expect("a valid bitness");
    f(&mut a).expect("valid instructions");
    a.assemble(at).expect("code that fits")
}

/// Stops processors that run for too long; ends the process if that does not help.
#[derive(Debug)]
pub struct Watchdog {
    deadline: Arc<AtomicU64>,
    pub fired: Arc<AtomicBool>,
    start: Instant,
}

impl Watchdog {
    fn new(kicks: Vec<Arc<dyn Kick>>) -> Self {
        let deadline = Arc::new(AtomicU64::new(u64::MAX));
        let fired = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let (weak, flag) = (Arc::downgrade(&deadline), Arc::clone(&fired));
        std::thread::spawn(move || {
            while let Some(deadline) = weak.upgrade() {
                let (now, due) = (start.elapsed().as_millis() as u64, deadline.load(SeqCst));
                if now > due {
                    flag.store(true, SeqCst);
                    kicks.iter().for_each(|kick| kick.interrupt());
                }
                if now > due.saturating_add(10_000) {
                    eprintln!("a processor does not answer to interrupt()");
                    std::process::abort();
                }
                drop(deadline);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            deadline,
            fired,
            start,
        }
    }

    pub fn arm(&self) {
        self.fired.store(false, SeqCst);
        let due = (self.start.elapsed() + PATIENCE).as_millis() as u64;
        self.deadline.store(due, SeqCst);
    }

    pub fn disarm(&self) {
        self.deadline.store(u64::MAX, SeqCst);
    }
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub memory: Arc<GuestMemory>,
    pub platform: Arc<Platform>,
    pub ports: Arc<Ports>,
    pub vcpus: Vec<BtVcpu>,
    pub watchdog: Watchdog,
}

impl Machine {
    /// With `count` processors, the first in 64-bit mode at privilege level 0.
    pub fn new(count: u32) -> Self {
        let memory = Arc::new(GuestMemory::new());
        memory
            .map(0, MEMORY_SIZE, RegionKind::Ram)
            .expect("memory of the guest");
        let clock = Arc::new(Clock::new());
        let platform = Platform::new(Arc::clone(&clock), count);
        let ports = Arc::new(Ports::new(Arc::clone(&platform), count));
        let vcpus: Vec<BtVcpu> = (0..count)
            .map(|id| {
                let (memory, ports, clock) = (memory.clone(), ports.clone(), clock.clone());
                let vcpu = BtVcpu::new(id, count, memory, ports, clock).expect("a processor");
                platform.attach(id, vcpu.kicker());
                vcpu
            })
            .collect();
        ports.attach(vcpus.iter().map(|vcpu| vcpu.kicker()).collect());
        let watchdog = Watchdog::new(vcpus.iter().map(|vcpu| vcpu.kicker()).collect());
        let mut this = Self {
            memory,
            platform,
            ports,
            vcpus,
            watchdog,
        };
        write_tables(&this.memory, count);
        this.vcpus[0].set_system_registers(&long_mode());
        this
    }

    /// Puts 64-bit code at `at`; returns its size.
    #[track_caller]
    pub fn code<F>(&self, at: u64, f: F) -> u64
    where
        F: FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    {
        let bytes = assemble(64, at, f);
        self.memory.write(at, &bytes).expect("code has memory");
        bytes.len() as u64
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory
            .write(at, bytes)
            .expect("the address has memory");
    }

    pub fn write64(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    pub fn read64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory
            .read(at, &mut bytes)
            .expect("the address has memory");
        u64::from_le_bytes(bytes)
    }

    /// Sets the page-table entry of `linear` to `entry`.
    pub fn map(&self, linear: u64, entry: u64) {
        self.write64(entry_of(linear), entry);
    }

    /// The page-table entry of `linear`.
    pub fn entry(&self, linear: u64) -> u64 {
        self.read64(entry_of(linear))
    }

    pub fn registers(&self) -> Registers {
        self.vcpus[0].registers()
    }

    /// Changes registers.
    pub fn set(&mut self, f: impl FnOnce(&mut Registers)) {
        let mut registers = self.registers();
        f(&mut registers);
        self.vcpus[0].set_registers(&registers);
    }

    /// Changes system registers; drops all translations.
    pub fn set_system(&mut self, f: impl FnOnce(&mut SystemRegisters)) {
        let mut registers = self.vcpus[0].system_registers();
        f(&mut registers);
        self.vcpus[0].set_system_registers(&registers);
    }

    /// Back to 64-bit mode at privilege level 0.
    pub fn reset(&mut self) {
        self.vcpus[0].set_system_registers(&long_mode());
    }

    /// Goes to `rip` at privilege level 0, all other registers zero.
    pub fn start(&mut self, rip: u64) {
        let mut registers = Registers {
            rip,
            rflags: flags::FIXED,
            ..Registers::default()
        };
        registers.gpr[4] = STACK;
        self.vcpus[0].set_registers(&registers);
    }

    /// Goes to `rip` at privilege level 3 through IRETQ, with RFLAGS `rflags`.
    pub fn start_user(&mut self, rip: u64, rflags: u64) {
        self.start_frame(rip, USER_CODE, rflags, USER_STACK, USER_DATA);
    }

    /// Goes on by an IRETQ with these values.
    pub fn start_frame(&mut self, rip: u64, cs: u16, rflags: u64, rsp: u64, ss: u16) {
        self.start(ENTRY);
        let frame = [rip, u64::from(cs), rflags, rsp, u64::from(ss)];
        for (value, i) in frame.into_iter().zip(0u64..) {
            self.write64(STACK - 40 + i * 8, value);
        }
        self.set(|r| r.gpr[4] = STACK - 40);
    }

    /// Runs the first processor until it stops.
    #[track_caller]
    pub fn run(&mut self) -> Stop {
        self.watchdog.arm();
        let result = self.vcpus[0].run(0);
        self.watchdog.disarm();
        match result.expect("the engine has no defect") {
            Exit::Interrupted => match self.ports.take_stop(0) {
                Some(value) => stopped(&self.vcpus[0], &self.memory, value),
                None if self.watchdog.fired.load(SeqCst) => {
                    let code = self.vcpus[0].recent_code().join("\n");
                    panic!("the guest hangs at {:#x?}\n{code}", self.registers())
                }
                None => Stop::Interrupted,
            },
            Exit::Shutdown => Stop::Shutdown,
            exit => Stop::Exit(exit),
        }
    }

    /// Goes on behind a handler's stop with an IRETQ; the frame may have been changed.
    #[track_caller]
    pub fn resume(&mut self, frame: Frame) -> Stop {
        if frame.error.is_some() {
            self.set(|r| r.gpr[4] += 8);
        }
        self.set(|r| r.rip = ENTRY);
        self.run()
    }

    /// Puts code at [`CODE`] and runs it from there.
    #[track_caller]
    pub fn exec<F>(&mut self, f: F) -> Stop
    where
        F: FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    {
        self.code(CODE, f);
        self.start(CODE);
        self.run()
    }

    /// Puts code at [`USER`] and runs it from there at privilege level 3.
    #[track_caller]
    pub fn exec_user<F>(&mut self, f: F) -> Stop
    where
        F: FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    {
        self.code(USER, f);
        self.start_user(USER, flags::FIXED);
        self.run()
    }
}

/// What a processor that wrote to [`STOP`] was doing.
fn stopped(vcpu: &BtVcpu, memory: &GuestMemory, value: u32) -> Stop {
    let registers = vcpu.registers();
    let at = registers.rip.wrapping_sub(HANDLERS);
    if at >= 256 * 16 {
        return Stop::End(value);
    }
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read(at, &mut bytes).expect("the handler's stack");
        u64::from_le_bytes(bytes)
    };
    let vector = (at / 16) as u8;
    let coded = exception::has_error_code(vector);
    let top = registers.gpr[4];
    let frame = top + if coded { 8 } else { 0 };
    Stop::Vector(Frame {
        vector,
        error: coded.then(|| word(top)),
        rip: word(frame),
        cs: word(frame + 8) as u16,
        rflags: word(frame + 16),
        rsp: word(frame + 24),
        ss: word(frame + 32) as u16,
        cr2: vcpu.system_registers().cr2,
    })
}
