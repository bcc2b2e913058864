//! 8254 programmable interval timer (Intel 8254 data sheet, order number 231164-005).
//!
//! Nothing ticks: counts and outputs are computed from the time that has passed. Ticks are those
//! of the 1.193182 MHz input since the machine was made; a count written in tick `t` is loaded in
//! tick `t + 1`, as the data sheet's diagrams show.

mod counter;

use crate::time::{scale, scale_up};
use counter::Counter;

/// Frequency of the CLK inputs in hertz.
pub const CLOCK_HZ: u64 = 1_193_182;

const NANOSECONDS: u64 = 1_000_000_000;

/// Input clocks up to a time in nanoseconds.
pub fn ticks(nanoseconds: u64) -> u64 {
    scale(nanoseconds, CLOCK_HZ, NANOSECONDS)
}

/// The first nanosecond of an input clock.
fn tick_start(tick: u64) -> u64 {
    scale_up(tick, NANOSECONDS, CLOCK_HZ)
}

/// The three counters of a PC: IRQ 0, memory refresh, speaker. The gate of counter 2 alone is
/// wired to something: bit 0 of port 61h.
#[derive(Clone, Debug)]
pub struct Pit {
    counters: [Counter; 3],
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// A timer after power-up; no counter counts before it is programmed.
    pub const fn new() -> Self {
        Self {
            counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
        }
    }

    /// Reads register 0 to 3 (ports 40h to 43h) at a time in nanoseconds. The control word can't
    /// be read.
    pub fn read(&mut self, register: u8, now: u64) -> u8 {
        match self.counters.get_mut(usize::from(register)) {
            Some(counter) => counter.read(ticks(now)),
            None => 0xff,
        }
    }

    /// Writes register 0 to 3 (ports 40h to 43h) at a time in nanoseconds.
    pub fn write(&mut self, register: u8, value: u8, now: u64) {
        let tick = ticks(now);
        if let Some(counter) = self.counters.get_mut(usize::from(register)) {
            counter.write(value, tick);
        } else if value >> 6 == 3 {
            self.read_back(value, tick);
        } else if let Some(counter) = self.counters.get_mut(usize::from(value >> 6)) {
            if value >> 4 & 3 == 0 {
                counter.latch_count(tick);
            } else {
                counter.control(value, tick);
            }
        }
    }

    fn read_back(&mut self, command: u8, tick: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if command & 2 << index == 0 {
                continue;
            }
            if command & 0x20 == 0 {
                counter.latch_count(tick);
            }
            if command & 0x10 == 0 {
                counter.latch_status(tick);
            }
        }
    }

    /// Sets the gate of counter 2.
    pub fn set_gate2(&mut self, gate: bool, now: u64) {
        self.counters[2].set_gate(gate, ticks(now));
    }

    /// The gate of counter 2.
    pub fn gate2(&self) -> bool {
        self.counters[2].gate()
    }

    /// OUT of counter 0.
    pub fn out0(&mut self, now: u64) -> bool {
        let tick = self.counters[0].settle(ticks(now));
        self.counters[0].out(tick)
    }

    /// OUT of counter 2.
    pub fn out2(&mut self, now: u64) -> bool {
        let tick = self.counters[2].settle(ticks(now));
        self.counters[2].out(tick)
    }

    /// Takes the number of times OUT of counter 0 has risen since the last call.
    pub fn take_rises(&mut self, now: u64) -> u64 {
        self.counters[0].settle(ticks(now));
        self.counters[0].take_rises()
    }

    /// When OUT of counter 0 rises next, in nanoseconds.
    pub fn next_rise(&self, now: u64) -> Option<u64> {
        self.counters[0].next_rise(ticks(now)).map(tick_start)
    }
}
