//! What a host's KVM really does: tiny guests in each mode, and how fast they run.
//!
//! Not every /dev/kvm is a processor's own virtualization. Some emulate the kernel mode of a guest
//! in software, at a thousandth of the speed, or refuse instructions; asking for capabilities does
//! not show it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_engine::{
    Clock, EngineError, Exit, GuestMemory, ProcessorState, Registers, Segment, SegmentAttributes,
    Vcpu,
};
use ringfence_memory::RegionKind;
use ringfence_x86::cpuid::CpuSpec;
use ringfence_x86::{cr, flags};

use crate::cpuid;
use crate::host::{Absence, Host};
use crate::machine::{Chips, KvmMachine};
use crate::vcpu::KvmVcpu;

/// Where guests begin.
const CODE: u64 = 0x1000;
/// Page tables: 2 MiB pages, for everybody, at their physical addresses.
const TABLES: u64 = 0x2000;
/// Interrupt descriptors of long mode.
const IDT: u64 = 0x6000;
/// Descriptors for the handler's code segment.
const GDT: u64 = 0x7000;
/// Where exceptions are handled.
const HANDLER: u64 = 0x8000;
/// Room for data, aligned to 64 bytes.
const DATA: u64 = 0x9000;
/// Top of the stack.
const STACK: u64 = 0xf000;
/// Guest memory.
const MEMORY: u64 = 0x20_0000;
/// Port that a guest ends at.
const END: u16 = 0xf4;
/// What it writes there.
const PASSED: u8 = 0x5a;
/// MOV AL, PASSED; OUT END, AL: the same bytes in each mode.
const LEAVE: [u8; 4] = [0xb0, PASSED, 0xe6, END as u8];
/// After this a guest is taken to hang.
const LIMIT: Duration = Duration::from_millis(500);
/// How long a speed is measured.
const ENOUGH: Duration = Duration::from_millis(2);

/// A mode of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit code, no protection.
    Real,
    /// 32-bit code.
    Protected,
    /// 64-bit code of a kernel.
    Long,
    /// 64-bit code of a program.
    User,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Real, Self::Protected, Self::Long, Self::User];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Protected => "protected",
            Self::Long => "long",
            Self::User => "user",
        }
    }

    /// Counts down from the number behind the two bytes: `(E)CX` or `RCX`.
    fn count(self, number: u32) -> Vec<u8> {
        let bytes = number.to_le_bytes();
        match self {
            // mov cx, n; l: dec cx; jnz l
            Self::Real => vec![0xb9, bytes[0], bytes[1], 0x49, 0x75, 0xfd],
            // mov ecx, n; l: dec ecx; jnz l
            _ => {
                let mut code = vec![0xb9];
                code.extend(bytes);
                code.extend([0xff, 0xc9, 0x75, 0xfc]);
                code
            }
        }
    }

    fn state(self, base: &ProcessorState) -> ProcessorState {
        let mut state = base.clone();
        state.registers = Registers {
            rip: CODE,
            // IN and OUT are for programs too.
            rflags: flags::FIXED | 3 << 12,
            ..Registers::default()
        };
        state.registers.gpr[4] = STACK;
        state.registers.gpr[6] = DATA;
        let system = &mut state.system;
        system.gdtr.base = GDT;
        system.gdtr.limit = 0x3f;
        system.idtr.base = IDT;
        system.idtr.limit = 0xfff;
        let (code, data, limit) = match self {
            Self::Real => (SegmentAttributes(0x9b), SegmentAttributes::DATA16, 0xffff),
            Self::Protected => (
                SegmentAttributes::CODE32,
                SegmentAttributes::DATA32,
                u32::MAX,
            ),
            Self::Long => (
                SegmentAttributes::CODE64,
                SegmentAttributes::DATA32,
                u32::MAX,
            ),
            Self::User => (
                SegmentAttributes(SegmentAttributes::CODE64.0 | 3 << 5),
                SegmentAttributes(SegmentAttributes::DATA32.0 | 3 << 5),
                u32::MAX,
            ),
        };
        let privilege = if self == Self::User { 3 } else { 0 };
        let selectors = if self == Self::Real { (0, 0) } else { (8, 16) };
        let segment = |attributes, selector| Segment {
            base: 0,
            limit,
            attributes,
            selector,
        };
        system.segments = [segment(data, selectors.1 | privilege); 6];
        system.segments[1] = segment(code, selectors.0 | privilege);
        system.tr = Segment {
            limit: 0x67,
            attributes: SegmentAttributes::TSS_BUSY,
            ..Segment::default()
        };
        system.cr0 = cr::CR0_ET | cr::CR0_NE;
        (system.cr4, system.efer) = (0, 0);
        if self != Self::Real {
            system.cr0 |= cr::CR0_PE;
        }
        if matches!(self, Self::Long | Self::User) {
            system.cr0 |= cr::CR0_PG | cr::CR0_WP | cr::CR0_MP;
            system.cr3 = TABLES;
            system.cr4 = cr::CR4_PAE | cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT;
            system.efer = cr::EFER_LME | cr::EFER_LMA;
        }
        state
    }
}

/// Instructions of a 64-bit kernel that not every KVM has, and their code. RSI points to data.
const INSTRUCTIONS: [(&str, &[u8]); 6] = [
    // The handler skips nothing: RIP is behind it.
    ("INT3", &[0xcc]),
    ("LOCK CMPXCHG16B", &[0xf0, 0x48, 0x0f, 0xc7, 0x0e]),
    // fxsave64 [rsi]; fxrstor64 [rsi]
    (
        "FXRSTOR64",
        &[0x48, 0x0f, 0xae, 0x06, 0x48, 0x0f, 0xae, 0x0e],
    ),
    // movdqa [rsi], xmm0
    ("MOVDQA", &[0x66, 0x0f, 0x7f, 0x06]),
    // mov ecx, IA32_LSTAR; rdmsr; wrmsr
    ("WRMSR", &[0xb9, 0x82, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30]),
    // pushfq; popfq; swapgs; swapgs
    ("SWAPGS", &[0x9c, 0x9d, 0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8]),
];

/// mov eax, 40000000h; cpuid; cmp ebx, "Ring", of the signature of our machines; je the end; hlt
const CPUID: [u8; 16] = [
    0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0x81, 0xfb, b'R', b'i', b'n', b'g', 0x74, 1, 0xf4,
];

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The kernel has interrupt hardware of its own.
    pub chips: bool,
    /// For each mode, why guests don't run in it.
    pub modes: Vec<(Mode, Option<String>)>,
    /// Instructions of a 64-bit kernel that end in an emulation failure.
    pub refused: Vec<&'static str>,
    /// Guests see the CPUID of their machine, in 64-bit kernels and programs.
    pub cpuid: bool,
    /// Instructions a second of a 64-bit kernel.
    pub kernel_speed: Option<f64>,
    /// Instructions a second of a 64-bit program.
    pub user_speed: Option<f64>,
}

/// Why a trial did not end as it should.
enum Failure {
    Refused(String),
    Other(String),
}

impl Failure {
    fn text(self) -> String {
        match self {
            Self::Refused(text) | Self::Other(text) => text,
        }
    }
}

/// A machine for trials.
struct Bench {
    memory: Arc<GuestMemory>,
    vcpu: KvmVcpu,
    base: ProcessorState,
}

impl Bench {
    fn new(host: &Host) -> Result<Self, EngineError> {
        let memory = Arc::new(GuestMemory::new());
        let failed =
            |error: ringfence_memory::MemoryError| EngineError::Internal(error.to_string());
        memory.map(0, MEMORY, RegionKind::Ram).map_err(failed)?;
        let machine = KvmMachine::bare(host, Arc::clone(&memory))?;
        let clock = Clock::new();
        let model = cpuid::model(host, &CpuSpec::host(), Chips::None, 1, clock.tsc_hz())
            .map_err(|error| EngineError::Internal(error.to_string()))?;
        let mut vcpu = machine.create_vcpu(host, 0, &model, &clock)?;
        let put = |address: u64, value: u64| {
            memory
                .write(address, &value.to_le_bytes())
                .map_err(|error| EngineError::Internal(error.to_string()))
        };
        // Present, writable, for users; then a page of 2 MiB.
        put(TABLES, TABLES + 0x1007)?;
        put(TABLES + 0x1000, TABLES + 0x2007)?;
        put(TABLES + 0x2000, 0x87)?;
        put(GDT + 8, 0x00af_9b00_0000_ffff)?;
        put(GDT + 16, 0x00cf_9300_0000_ffff)?;
        for vector in 0..32 {
            // A 64-bit interrupt gate at privilege level 0.
            put(IDT + vector * 16, 0x0000_8e00_0008_0000 | HANDLER)?;
            put(IDT + vector * 16 + 8, 0)?;
        }
        // iretq
        put(HANDLER, 0xcf48)?;
        let base = vcpu.state()?;
        Ok(Self { memory, vcpu, base })
    }

    /// Runs `code` in `mode` to its end; how long it took.
    fn run(&mut self, mode: Mode, code: &[u8]) -> Result<Duration, Failure> {
        let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        let mut bytes = code.to_vec();
        bytes.extend(LEAVE);
        self.memory
            .write(CODE, &bytes)
            .map_err(|error| other(&error))?;
        self.vcpu
            .set_state(&mode.state(&self.base))
            .map_err(|error| other(&error))?;
        let start = Instant::now();
        let exit = self.vcpu.run(0);
        let elapsed = start.elapsed();
        match exit {
            Ok(Exit::PortOut {
                port: END, value, ..
            }) if value == PASSED.into() => Ok(elapsed),
            Ok(Exit::Interrupted) => {
                let limit = LIMIT.as_millis();
                Err(Failure::Other(format!(
                    "the guest did not end within {limit} ms"
                )))
            }
            Ok(Exit::Shutdown) => Err(Failure::Other("the guest had a triple fault".to_owned())),
            Ok(exit) => Err(Failure::Other(format!(
                "the guest stopped where it should not: {exit:?}"
            ))),
            Err(EngineError::Emulation { reason, .. }) => Err(Failure::Refused(reason)),
            Err(error) => Err(other(&error)),
        }
    }

    /// Instructions a second in `mode`.
    fn speed(&mut self, mode: Mode) -> Option<f64> {
        let mut number = 2000;
        loop {
            let elapsed = self.run(mode, &mode.count(number)).ok()?;
            if elapsed >= ENOUGH || number >= 1 << 24 {
                return Some(f64::from(number) * 2.0 / elapsed.as_secs_f64().max(1e-9));
            }
            number *= 4;
        }
    }

    fn report(&mut self, chips: bool) -> Report {
        let mut report = Report {
            chips,
            ..Report::default()
        };
        for mode in Mode::ALL {
            let result = self.run(mode, &mode.count(1000));
            report.modes.push((mode, result.err().map(Failure::text)));
        }
        for (name, code) in INSTRUCTIONS {
            if let Err(Failure::Refused(_)) = self.run(Mode::Long, code) {
                report.refused.push(name);
            }
        }
        let cpuid = |mode| self.run(mode, &CPUID).is_ok();
        report.cpuid = [Mode::Long, Mode::User].into_iter().all(cpuid);
        report.kernel_speed = self.speed(Mode::Long);
        report.user_speed = self.speed(Mode::User);
        report
    }
}

/// Tries the KVM device at `path`.
///
/// # Errors
/// [`Absence`] when there is no KVM, or none that can make a machine.
pub fn probe(path: &Path) -> Result<Report, Absence> {
    let host = Host::open(path)?;
    let mut bench = Bench::new(&host).map_err(|error| match error {
        EngineError::Host { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
            Absence::Busy {
                path: path.display().to_string(),
            }
        }
        error => Absence::Lacks {
            path: path.display().to_string(),
            what: format!("what a machine needs: {error}"),
        },
    })?;
    let kick = bench.vcpu.kicker();
    // A guest that hangs is interrupted; each trial after it as well, which costs little.
    let (done, end) = channel::<()>();
    let watch = thread::spawn(move || {
        while end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            kick.interrupt();
        }
    });
    let report = bench.report(host.has_chips());
    drop(done);
    // It only waits for the channel, which is closed.
    let _ = watch.join();
    Ok(report)
}
