//! High precision event timers (IA-PC HPET specification 1.0a, Intel, October 2004).
//!
//! A 64-bit counter of 100 MHz and three comparators, all of them periodic, 64 bits wide and able
//! to send messages. Nothing ticks: counts are computed from the time that has passed. Periods
//! that have been missed are skipped, as the counter runs on.

use crate::message::Message;

/// Guest physical address of the registers.
pub const BASE: u64 = 0xfed0_0000;
/// Size in bytes of the register window.
pub const SIZE: u64 = 0x400;

/// Nanoseconds of a tick, and femtoseconds as the capabilities tell them.
const TICK: u64 = 10;
const TICK_FEMTOSECONDS: u64 = TICK * 1_000_000;
const TIMERS: usize = 3;

/// Revision 1, three timers, 64 bits, legacy replacement, Intel.
const CAPABILITIES: u64 =
    TICK_FEMTOSECONDS << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

const REG_CAPABILITIES: u64 = 0x00;
const REG_CONFIG: u64 = 0x10;
const REG_STATUS: u64 = 0x20;
const REG_COUNTER: u64 = 0xf0;
const REG_TIMERS: u64 = 0x100;
const TIMER_STRIDE: u64 = 0x20;

const CONFIG_ENABLE: u64 = 1 << 0;
const CONFIG_LEGACY: u64 = 1 << 1;

const TIMER_LEVEL: u64 = 1 << 1;
const TIMER_ENABLE: u64 = 1 << 2;
const TIMER_PERIODIC: u64 = 1 << 3;
const TIMER_PERIODIC_CAPABLE: u64 = 1 << 4;
const TIMER_WIDE: u64 = 1 << 5;
const TIMER_SET_VALUE: u64 = 1 << 6;
const TIMER_NARROW_MODE: u64 = 1 << 8;
const TIMER_ROUTE_SHIFT: u32 = 9;
const TIMER_MESSAGE: u64 = 1 << 14;
const TIMER_MESSAGE_CAPABLE: u64 = 1 << 15;
/// I/O APIC pins that a timer can be routed to: 20 to 23, which nothing else uses.
const ROUTES: u64 = 0x00f0_0000;
const TIMER_FIXED: u64 = ROUTES << 32 | TIMER_PERIODIC_CAPABLE | TIMER_WIDE | TIMER_MESSAGE_CAPABLE;
const TIMER_WRITABLE: u64 = TIMER_LEVEL
    | TIMER_ENABLE
    | TIMER_PERIODIC
    | TIMER_SET_VALUE
    | TIMER_NARROW_MODE
    | 0x1f << TIMER_ROUTE_SHIFT
    | TIMER_MESSAGE;

/// Where a timer's interrupt goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The line of the interval timer, which is disconnected then.
    LegacyTimer,
    /// The line of the real-time clock, which is disconnected then.
    LegacyClock,
    /// A pin of the I/O APIC.
    Pin(u8),
    /// A message on the bus.
    Message(Message),
    /// Nowhere.
    Nothing,
}

/// What a timer does to its interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub route: Route,
    /// An edge is due.
    pub edge: bool,
    /// The line is held.
    pub level: bool,
}

#[derive(Clone, Debug, Default)]
struct Timer {
    config: u64,
    comparator: u64,
    period: u64,
    message: u64,
    /// An edge that was not handed out yet.
    edge: bool,
}

impl Timer {
    /// Bits that count.
    const fn mask(&self) -> u64 {
        if self.config & TIMER_NARROW_MODE != 0 {
            0xffff_ffff
        } else {
            u64::MAX
        }
    }

    const fn is(&self, bit: u64) -> bool {
        self.config & bit != 0
    }
}

/// The timers.
#[derive(Clone, Debug, Default)]
pub struct Hpet {
    config: u64,
    status: u64,
    /// Counter when halted; else what is added to the ticks since the machine was made.
    base: u64,
    /// Counter up to which comparators have been looked at.
    seen: u64,
    timers: [Timer; TIMERS],
}

impl Hpet {
    /// Reads `size` bytes at `offset`, at a time in nanoseconds.
    pub fn read(&self, offset: u64, size: u8, now: u64) -> u64 {
        let value = self.register(offset & !7, now) >> ((offset & 7) * 8);
        if size >= 8 {
            value
        } else {
            value & ((1 << (size * 8)) - 1)
        }
    }

    /// Writes `size` bytes at `offset`, at a time in nanoseconds.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, now: u64) {
        self.advance(now);
        let register = offset & !7;
        let shift = (offset & 7) * 8;
        let bits = if size >= 8 {
            u64::MAX
        } else {
            (1 << (size * 8)) - 1
        };
        let mask = bits << shift;
        let merge = |old: u64| old & !mask | value << shift & mask;
        match register {
            REG_CONFIG => self.configure(merge(self.config), now),
            // A one clears the status of a level-triggered timer.
            REG_STATUS => self.status &= !(value << shift & mask),
            REG_COUNTER if self.config & CONFIG_ENABLE == 0 => {
                self.base = merge(self.base);
                self.seen = self.base;
            }
            REG_TIMERS.. => {
                let index = (register - REG_TIMERS) / TIMER_STRIDE;
                if let Some(timer) = self.timers.get_mut(index as usize) {
                    write_timer(timer, (register - REG_TIMERS) % TIMER_STRIDE, &merge);
                    if !timer.is(TIMER_LEVEL) {
                        self.status &= !(1 << index);
                    }
                }
            }
            _ => {}
        }
    }

    /// The timers stand in for the interval timer and the real-time clock.
    pub const fn legacy(&self) -> bool {
        self.config & (CONFIG_ENABLE | CONFIG_LEGACY) == CONFIG_ENABLE | CONFIG_LEGACY
    }

    /// Brings comparators up to date, and takes what they do to their interrupts.
    pub fn take_outputs(&mut self, now: u64) -> [Output; TIMERS] {
        self.advance(now);
        std::array::from_fn(|index| {
            let edge = std::mem::take(&mut self.timers[index].edge);
            let level = self.status >> index & 1 != 0 && self.timers[index].is(TIMER_ENABLE);
            Output {
                route: self.route(index),
                edge,
                level,
            }
        })
    }

    /// Nanosecond at which a comparator matches next; `None`: none that interrupts.
    pub fn deadline(&self, now: u64) -> Option<u64> {
        if self.config & CONFIG_ENABLE == 0 {
            return None;
        }
        let counter = self.counter(now);
        let next = self
            .timers
            .iter()
            .filter(|timer| timer.is(TIMER_ENABLE))
            .map(|timer| {
                let left = timer.comparator.wrapping_sub(counter) & timer.mask();
                if left == 0 { timer.mask() } else { left }
            })
            .min()?;
        let tick = (now / TICK).checked_add(next)?;
        tick.checked_mul(TICK)
    }

    fn counter(&self, now: u64) -> u64 {
        if self.config & CONFIG_ENABLE != 0 {
            self.base.wrapping_add(now / TICK)
        } else {
            self.base
        }
    }

    fn configure(&mut self, config: u64, now: u64) {
        let counter = self.counter(now);
        let config = config & (CONFIG_ENABLE | CONFIG_LEGACY);
        self.base = if config & CONFIG_ENABLE != 0 {
            counter.wrapping_sub(now / TICK)
        } else {
            counter
        };
        self.seen = counter;
        self.config = config;
    }

    fn register(&self, register: u64, now: u64) -> u64 {
        match register {
            REG_CAPABILITIES => CAPABILITIES,
            REG_CONFIG => self.config,
            REG_STATUS => self.status,
            REG_COUNTER => self.counter(now),
            REG_TIMERS.. => {
                let index = (register - REG_TIMERS) / TIMER_STRIDE;
                let Some(timer) = self.timers.get(index as usize) else {
                    return 0;
                };
                match (register - REG_TIMERS) % TIMER_STRIDE {
                    0x00 => timer.config | TIMER_FIXED,
                    0x08 => timer.comparator & timer.mask(),
                    0x10 => timer.message,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Finds the comparators that the counter has passed.
    fn advance(&mut self, now: u64) {
        let counter = self.counter(now);
        let passed = counter.wrapping_sub(self.seen);
        if passed == 0 {
            return;
        }
        for (index, timer) in self.timers.iter_mut().enumerate() {
            let mask = timer.mask();
            // Ticks from the one after `seen` to the match.
            let ahead = timer.comparator.wrapping_sub(self.seen).wrapping_sub(1) & mask;
            if ahead >= passed {
                continue;
            }
            if timer.is(TIMER_PERIODIC) && timer.period != 0 {
                let late = passed - ahead - 1;
                let periods = late / timer.period + 1;
                let step = timer.period.wrapping_mul(periods);
                timer.comparator = timer.comparator.wrapping_add(step) & mask;
            }
            if !timer.is(TIMER_ENABLE) {
                continue;
            }
            if timer.is(TIMER_LEVEL) {
                self.status |= 1 << index;
            } else {
                timer.edge = true;
            }
        }
        self.seen = counter;
    }

    fn route(&self, index: usize) -> Route {
        let timer = &self.timers[index];
        if self.legacy() && index < 2 {
            return if index == 0 {
                Route::LegacyTimer
            } else {
                Route::LegacyClock
            };
        }
        if timer.is(TIMER_MESSAGE) {
            return match Message::from_msi(timer.message >> 32, timer.message as u32) {
                Some(message) => Route::Message(message),
                None => Route::Nothing,
            };
        }
        let pin = (timer.config >> TIMER_ROUTE_SHIFT & 0x1f) as u8;
        if ROUTES >> pin & 1 != 0 {
            Route::Pin(pin)
        } else {
            Route::Nothing
        }
    }
}

fn write_timer(timer: &mut Timer, register: u64, merge: &dyn Fn(u64) -> u64) {
    match register {
        0x00 => {
            timer.config = merge(timer.config) & TIMER_WRITABLE;
            if timer.is(TIMER_NARROW_MODE) {
                timer.comparator &= timer.mask();
                timer.period &= timer.mask();
            }
        }
        0x08 => {
            let (periodic, set) = (timer.is(TIMER_PERIODIC), timer.is(TIMER_SET_VALUE));
            if !periodic || set {
                timer.comparator = merge(timer.comparator) & timer.mask();
            }
            if periodic {
                timer.period = merge(timer.period) & timer.mask();
            }
            timer.config &= !TIMER_SET_VALUE;
        }
        0x10 => timer.message = merge(timer.message),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(config: u64, comparator: u64) -> Hpet {
        let mut hpet = Hpet::default();
        hpet.write(0x100, 8, config, 0);
        hpet.write(0x108, 8, comparator, 0);
        hpet.write(0x10, 8, CONFIG_ENABLE, 0);
        hpet
    }

    #[test]
    fn the_counter_counts_while_enabled() {
        let mut hpet = Hpet::default();
        assert_eq!(hpet.read(0xf0, 8, 1000), 0);
        hpet.write(0xf0, 8, 0x1_0000_0000, 1000);
        hpet.write(0x10, 4, CONFIG_ENABLE, 2000);
        assert_eq!(hpet.read(0xf0, 8, 3000), 0x1_0000_0064);
        assert_eq!(hpet.read(0xf4, 4, 3000), 1);
        hpet.write(0xf0, 8, 0, 3000);
        assert_eq!(
            hpet.read(0xf0, 4, 3000),
            0x64,
            "not written while it counts"
        );
        hpet.write(0x10, 4, 0, 4000);
        assert_eq!(hpet.read(0xf0, 4, 9000), 0xc8, "stands still");
        assert_eq!(hpet.read(4, 4, 0), 10_000_000, "femtoseconds");
    }

    #[test]
    fn one_shots_match_once() {
        let mut hpet = enabled(TIMER_ENABLE | 20 << TIMER_ROUTE_SHIFT, 100);
        assert_eq!(hpet.deadline(0), Some(1000));
        assert!(!hpet.take_outputs(990)[0].edge);
        let output = hpet.take_outputs(1000)[0].clone();
        assert_eq!((output.route, output.edge), (Route::Pin(20), true));
        assert!(!hpet.take_outputs(2000)[0].edge);
        assert_eq!(hpet.read(0x20, 8, 2000), 0, "edges have no status");
    }

    #[test]
    fn periods_follow_each_other() {
        let mut hpet = Hpet::default();
        let config = TIMER_ENABLE | TIMER_PERIODIC | 21 << TIMER_ROUTE_SHIFT;
        hpet.write(0x100, 8, config | TIMER_SET_VALUE, 0);
        hpet.write(0x108, 4, 50, 0);
        hpet.write(0x108, 4, 100, 0);
        hpet.write(0x10, 8, CONFIG_ENABLE, 0);
        assert!(hpet.take_outputs(500)[0].edge);
        assert_eq!(hpet.deadline(500), Some(1500));
        assert!(!hpet.take_outputs(1490)[0].edge);
        assert!(hpet.take_outputs(1500)[0].edge);
        assert!(hpet.take_outputs(9999)[0].edge, "missed ones are one");
        assert_eq!(hpet.deadline(9999), Some(10_500));
    }

    #[test]
    fn levels_hold_until_cleared() {
        let mut hpet = enabled(TIMER_ENABLE | TIMER_LEVEL | 22 << TIMER_ROUTE_SHIFT, 10);
        assert!(hpet.take_outputs(100)[0].level);
        assert_eq!(hpet.read(0x20, 4, 200), 1);
        hpet.write(0x20, 4, 1, 200);
        assert!(!hpet.take_outputs(300)[0].level);
    }

    #[test]
    fn narrow_mode_wraps_after_32_bits() {
        let mut hpet = enabled(TIMER_ENABLE | TIMER_NARROW_MODE, 0x1_0000_0005);
        assert_eq!(hpet.read(0x108, 8, 0), 5);
        assert!(hpet.take_outputs(50)[0].edge);
        let around = 0x1_0000_0005 * TICK;
        assert_eq!(hpet.deadline(50), Some(50 + 0xffff_ffff * TICK));
        assert!(hpet.take_outputs(around)[0].edge);
    }

    #[test]
    fn legacy_replacement_takes_two_lines() {
        let mut hpet = enabled(TIMER_ENABLE, 10);
        hpet.write(0x10, 8, CONFIG_ENABLE | CONFIG_LEGACY, 0);
        assert!(hpet.legacy());
        let outputs = hpet.take_outputs(100);
        assert_eq!(outputs[0].route, Route::LegacyTimer);
        assert_eq!(outputs[1].route, Route::LegacyClock);
        assert_eq!(outputs[2].route, Route::Nothing);
    }

    #[test]
    fn messages_have_an_address_each() {
        let mut hpet = enabled(TIMER_ENABLE | TIMER_MESSAGE, 10);
        hpet.write(0x110, 8, 0xfee0_0000 << 32 | 0x41, 0);
        let outputs = hpet.take_outputs(100);
        assert!(matches!(&outputs[0].route, Route::Message(message) if message.vector == 0x41));
    }

    #[test]
    fn any_access_is_survived() {
        let mut hpet = Hpet::default();
        let mut seed = 1_u64;
        let mut now = 0_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (offset, size) = (seed >> 20 & 0x3ff, 1 << (seed >> 40 & 3));
            if seed >> 50 & 1 == 0 {
                hpet.write(offset, size, seed.rotate_left(17), now);
            }
            let _ = hpet.read(offset, size, now);
            let _ = hpet.take_outputs(now);
            if let Some(deadline) = hpet.deadline(now) {
                assert!(deadline > now / TICK * TICK);
            }
            now = now.wrapping_add(seed >> 36);
        }
    }
}
