//! The timer of a local APIC (SDM vol. 3A, 11.5.4): counts are computed, not ticked.

use crate::time::{Time, scale_up};

/// Frequency of the timer before its divider, in hertz: the core crystal clock that CPUID leaf
/// 15h must report.
pub const TIMER_HZ: u64 = 25_000_000;

const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / TIMER_HZ;
/// Longest time in nanoseconds after which a far TSC deadline is looked at again.
const FAR: u64 = 3_600_000_000_000;

/// Timer mode, bits 18:17 of the LVT entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

impl Kind {
    pub(super) const fn from_entry(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timer {
    kind: Kind,
    /// Initial-count register.
    initial: u32,
    /// Divide-configuration register.
    divide: u32,
    /// Count at time `since`; zero is stopped.
    count: u32,
    /// In nanoseconds.
    since: u64,
    /// IA32_TSC_DEADLINE; zero is disarmed.
    deadline: u64,
}

impl Timer {
    /// Nanoseconds of one count.
    const fn tick(&self) -> u64 {
        let shift = ((self.divide >> 1 & 4 | self.divide & 3) + 1) & 7;
        NANOSECONDS_PER_TICK << shift
    }

    /// Nanosecond at which the count reaches zero.
    const fn zero_at(&self) -> u64 {
        self.since.saturating_add(self.count as u64 * self.tick())
    }

    /// Whether the timer has expired since the last call; several periods count as one.
    pub(super) fn advance(&mut self, time: &dyn Time) -> bool {
        if self.kind == Kind::TscDeadline {
            let due = self.deadline != 0 && time.tsc() >= self.deadline;
            if due {
                self.deadline = 0;
            }
            return due;
        }
        if self.count == 0 {
            return false;
        }
        let (now, zero) = (time.nanoseconds(), self.zero_at());
        if now < zero {
            return false;
        }
        if self.kind == Kind::Periodic && self.initial != 0 {
            let period = u64::from(self.initial) * self.tick();
            self.since = zero + (now - zero) / period * period;
            self.count = self.initial;
        } else {
            self.count = 0;
        }
        true
    }

    /// Nanosecond of the next expiry, or a time at which to ask again.
    pub(super) fn expiry(&self, time: &dyn Time) -> Option<u64> {
        match self.kind {
            Kind::OneShot | Kind::Periodic => (self.count != 0).then(|| self.zero_at()),
            Kind::TscDeadline if self.deadline != 0 => {
                let left = self.deadline.saturating_sub(time.tsc());
                let left = scale_up(left, 1_000_000_000, time.tsc_hz()).min(FAR);
                Some(time.nanoseconds().saturating_add(left))
            }
            Kind::TscDeadline | Kind::Reserved => None,
        }
    }

    /// Sets the mode.
    pub(super) fn set_kind(&mut self, kind: Kind) {
        if kind == self.kind {
            return;
        }
        // Going to or from TSC-deadline mode disarms the timer (SDM vol. 3A, 11.5.4.1).
        if [kind, self.kind]
            .iter()
            .any(|k| matches!(k, Kind::TscDeadline | Kind::Reserved))
        {
            self.initial = 0;
            self.count = 0;
            self.deadline = 0;
        }
        self.kind = kind;
    }

    pub(super) const fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn set_initial(&mut self, count: u32, time: &dyn Time) {
        if matches!(self.kind, Kind::OneShot | Kind::Periodic) {
            self.initial = count;
            self.count = count;
            self.since = time.nanoseconds();
        }
    }

    /// Current-count register.
    pub(super) fn current(&self, time: &dyn Time) -> u32 {
        if self.count == 0 {
            return 0;
        }
        let elapsed = time.nanoseconds().saturating_sub(self.since) / self.tick();
        u64::from(self.count).saturating_sub(elapsed) as u32
    }

    pub(super) const fn divide(&self) -> u32 {
        self.divide
    }

    /// Sets the divider; the count goes on from where it is.
    pub(super) fn set_divide(&mut self, divide: u32, time: &dyn Time) {
        if self.count != 0 {
            // A count in its last tick must not look like a stopped one.
            self.count = self.current(time).max(1);
            self.since = time.nanoseconds();
        }
        self.divide = divide & 0xb;
    }

    pub(super) const fn deadline(&self) -> u64 {
        self.deadline
    }

    pub(super) fn set_deadline(&mut self, tsc: u64) {
        if matches!(self.kind, Kind::TscDeadline) {
            self.deadline = tsc;
        }
    }
}
