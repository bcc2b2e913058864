//! The machine's clock: a time-stamp counter that starts at zero with the machine.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Frequency of the TSC where time is the number of executed instructions, in hertz: one
/// instruction is one tick and one nanosecond.
pub const INSTRUCTIONS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since 1970 at which the wall clock of a deterministic machine begins: 2026-01-01,
/// 00:00:00 UTC.
pub const EPOCH: u64 = 1_767_225_600_000_000_000;

/// Time of one machine, shared by its processors and its interrupt hardware.
///
/// The machine's TSC is the host's, less its value when the machine was made; or, in a
/// deterministic machine, what it counts itself.
#[derive(Debug)]
pub struct Clock {
    start: u64,
    hz: u64,
    counted: Option<Counted>,
}

/// Time that is counted in instructions. One thread writes all but the two limits; any reads.
#[derive(Debug)]
pub struct Counted {
    /// Instructions executed since the machine was made.
    instructions: AtomicU64,
    /// Nanoseconds that passed while the processor waited in HLT.
    idle: AtomicU64,
    /// When the machine's own timers want to be served, in nanoseconds.
    deadline: AtomicU64,
    /// Number of instructions at which the processor leaves the engine.
    stop: AtomicU64,
    /// Where random numbers come from.
    seed: u64,
}

impl Counted {
    /// Instructions executed since the machine was made.
    pub fn instructions(&self) -> u64 {
        self.instructions.load(Relaxed)
    }

    /// Sets the number of executed instructions; for the processor's thread.
    pub fn set_instructions(&self, count: u64) {
        self.instructions.store(count, Relaxed);
    }

    /// Nanoseconds since the machine was made.
    pub fn nanoseconds(&self) -> u64 {
        self.instructions().wrapping_add(self.idle.load(Relaxed))
    }

    /// Lets time pass to `nanoseconds` without an instruction; for the processor's thread.
    pub fn skip_to(&self, nanoseconds: u64) {
        let ahead = nanoseconds.saturating_sub(self.nanoseconds());
        self.idle.fetch_add(ahead, Relaxed);
    }

    /// When the machine's own timers want to be served, in nanoseconds.
    pub fn deadline(&self) -> u64 {
        self.deadline.load(Relaxed)
    }

    /// Sets when the machine's own timers want to be served.
    pub fn set_deadline(&self, nanoseconds: u64) {
        self.deadline.store(nanoseconds, Relaxed);
    }

    /// Number of instructions at which the processor leaves the engine.
    pub fn stop(&self) -> u64 {
        self.stop.load(Relaxed)
    }

    /// Sets the number of instructions at which the processor leaves the engine.
    pub fn set_stop(&self, instructions: u64) {
        self.stop.store(instructions, Relaxed);
    }

    /// Where random numbers come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that reads zero now.
    pub fn new() -> Self {
        Self {
            hz: host_tsc_hz(),
            start: host_tsc(),
            counted: None,
        }
    }

    /// A clock of a deterministic machine: [`INSTRUCTIONS_PER_SECOND`], and random numbers from
    /// `seed`.
    pub fn deterministic(seed: u64) -> Self {
        Self {
            hz: INSTRUCTIONS_PER_SECOND,
            start: 0,
            counted: Some(Counted {
                instructions: AtomicU64::new(0),
                idle: AtomicU64::new(0),
                deadline: AtomicU64::new(u64::MAX),
                stop: AtomicU64::new(u64::MAX),
                seed,
            }),
        }
    }

    /// The counters of a deterministic machine; `None` where time is the host's.
    pub fn counted(&self) -> Option<&Counted> {
        self.counted.as_ref()
    }

    /// Ticks of the TSC since the machine was made.
    pub fn tsc(&self) -> u64 {
        match &self.counted {
            None => host_tsc().wrapping_sub(self.start),
            Some(counted) => counted.nanoseconds(),
        }
    }

    /// What to add to the host's TSC to get the machine's, where time is the host's.
    pub fn tsc_offset(&self) -> u64 {
        self.start.wrapping_neg()
    }

    /// Frequency of the TSC in hertz.
    pub fn tsc_hz(&self) -> u64 {
        self.hz
    }

    /// Nanoseconds since the machine was made.
    pub fn nanoseconds(&self) -> u64 {
        match &self.counted {
            None => self.ticks_to_nanoseconds(self.tsc()),
            Some(counted) => counted.nanoseconds(),
        }
    }

    /// Converts TSC ticks to nanoseconds.
    pub fn ticks_to_nanoseconds(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1_000_000_000 / u128::from(self.hz)) as u64
    }
}

fn host_tsc() -> u64 {
    // SAFETY: RDTSC is available on every x86-64 processor and has no effect.
    unsafe { _rdtsc() }
}

/// Frequency of the host's TSC, measured once per process against the monotonic clock.
fn host_tsc_hz() -> u64 {
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let (t0, c0) = (Instant::now(), host_tsc());
        std::thread::sleep(Duration::from_millis(10));
        let (elapsed, ticks) = (t0.elapsed(), host_tsc() - c0);
        let hz = u128::from(ticks) * 1_000_000_000 / elapsed.as_nanos().max(1);
        // Crystals come in multiples of 100 kHz; rounding removes the error of the measurement.
        ((hz + 50_000) / 100_000 * 100_000).max(100_000) as u64
    })
}
