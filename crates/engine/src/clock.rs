//! The machine's clock: a time-stamp counter that starts at zero with the machine.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time of one machine, shared by its processors and its interrupt hardware.
///
/// The machine's TSC is the host's, less its value when the machine was made.
#[derive(Debug)]
pub struct Clock {
    start: u64,
    hz: u64,
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
        }
    }

    /// Ticks of the TSC since the machine was made.
    pub fn tsc(&self) -> u64 {
        host_tsc().wrapping_sub(self.start)
    }

    /// What to add to the host's TSC to get the machine's.
    pub fn tsc_offset(&self) -> u64 {
        self.start.wrapping_neg()
    }

    /// Frequency of the TSC in hertz.
    pub fn tsc_hz(&self) -> u64 {
        self.hz
    }

    /// Nanoseconds since the machine was made.
    pub fn nanoseconds(&self) -> u64 {
        self.ticks_to_nanoseconds(self.tsc())
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
