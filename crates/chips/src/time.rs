//! Time as the chips see it.

use std::fmt::Debug;

use ringfence_engine::Clock;

/// Where a chip gets the time from. Reading it costs, so chips ask only when they need to.
pub trait Time: Debug {
    /// Nanoseconds since the machine was made.
    fn nanoseconds(&self) -> u64;
    /// Ticks of the machine's TSC.
    fn tsc(&self) -> u64;
    /// Frequency of the TSC in hertz.
    fn tsc_hz(&self) -> u64;
}

impl Time for Clock {
    fn nanoseconds(&self) -> u64 {
        Self::nanoseconds(self)
    }
    fn tsc(&self) -> u64 {
        Self::tsc(self)
    }
    fn tsc_hz(&self) -> u64 {
        Self::tsc_hz(self)
    }
}

/// `value * factor / divisor` without overflow in between, rounded down, at most `u64::MAX`.
pub(crate) fn scale(value: u64, factor: u64, divisor: u64) -> u64 {
    let result = u128::from(value) * u128::from(factor) / u128::from(divisor.max(1));
    u64::try_from(result).unwrap_or(u64::MAX)
}

/// As [`scale`], rounded up.
pub(crate) fn scale_up(value: u64, factor: u64, divisor: u64) -> u64 {
    let result = (u128::from(value) * u128::from(factor)).div_ceil(u128::from(divisor.max(1)));
    u64::try_from(result).unwrap_or(u64::MAX)
}
