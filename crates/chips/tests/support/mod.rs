//! A clock that stands still until it is told otherwise.

use std::cell::Cell;

use ringfence_chips::Time;

/// Frequency of its TSC.
pub const TSC_HZ: u64 = 2_000_000_000;

/// Time in nanoseconds.
#[derive(Debug, Default)]
pub struct FakeTime(pub Cell<u64>);

impl FakeTime {
    pub fn advance(&self, nanoseconds: u64) {
        self.0.set(self.0.get() + nanoseconds);
    }
}

impl Time for FakeTime {
    fn nanoseconds(&self) -> u64 {
        self.0.get()
    }
    fn tsc(&self) -> u64 {
        self.0.get() * (TSC_HZ / 1_000_000_000)
    }
    fn tsc_hz(&self) -> u64 {
        TSC_HZ
    }
}
