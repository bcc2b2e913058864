//! One counter of the 8254: its six modes, as functions of the input clocks that have passed.

/// One counter.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    mode: u8,
    bcd: bool,
    /// RW field of the control word: 1 least significant byte, 2 most significant, 3 both.
    access: u8,
    gate: bool,
    /// Count register, 1 to 65536; the counting element takes it over when it is loaded.
    reload: u32,
    /// The count that the counting element was loaded with.
    count: u32,
    /// A count was written since the last control word.
    written: bool,
    /// Modes 1 and 5: the written count waits for a trigger.
    untriggered: bool,
    /// Tick in which the counting element was loaded.
    start: Option<u64>,
    /// OUT when the last trigger came: mode 1 keeps it until the load.
    out_at_trigger: bool,
    /// Ticks counted when a low gate stopped the count (modes 0 and 4).
    hold: Option<u64>,
    /// Modes 2 and 3: tick in which `reload` takes over from `count`.
    switch: Option<u64>,
    /// First of two bytes of a count.
    low_byte: Option<u8>,
    /// The next byte read is the second one.
    second_byte: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// Rising edges of OUT up to tick `seen` that nobody has taken.
    rises: u64,
    seen: u64,
}

impl Counter {
    pub(super) const fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            bcd: false,
            access: 3,
            gate,
            reload: 0x1_0000,
            count: 0x1_0000,
            written: false,
            untriggered: false,
            start: None,
            out_at_trigger: true,
            hold: None,
            switch: None,
            low_byte: None,
            second_byte: false,
            latched_count: None,
            latched_status: None,
            rises: 0,
            seen: 0,
        }
    }

    /// Takes the rising edges of OUT that [`Counter::settle`] has counted.
    pub(super) const fn take_rises(&mut self) -> u64 {
        std::mem::replace(&mut self.rises, 0)
    }

    pub(super) const fn gate(&self) -> bool {
        self.gate
    }

    const fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    const fn period(&self) -> u64 {
        // Never zero: `count` comes from `set_count`.
        self.count as u64
    }

    /// Ticks since the counting element was loaded.
    fn elapsed(&self, tick: u64) -> Option<u64> {
        let start = self.start?;
        self.hold.or_else(|| tick.checked_sub(start))
    }

    pub(super) fn out(&self, tick: u64) -> bool {
        let Some(elapsed) = self.elapsed(tick) else {
            return match self.mode {
                0 => false,
                1 if self.start.is_some() => self.out_at_trigger,
                _ => true,
            };
        };
        let count = self.period();
        match self.mode {
            0 | 1 => elapsed >= count,
            // A count of 1 is illegal here; it keeps OUT high.
            2 => count == 1 || elapsed % count != count - 1,
            3 => elapsed % count < count.div_ceil(2),
            _ => elapsed != count,
        }
    }

    /// The counting element as the bus shows it.
    fn value(&self, tick: u64) -> u16 {
        let (count, modulus) = (self.period(), self.modulus());
        let value = match (self.elapsed(tick), self.mode) {
            (None, _) => u64::from(self.reload),
            (Some(elapsed), 2) => count - elapsed % count,
            (Some(elapsed), 3) => {
                let (even, position) = (count & !1, elapsed % count);
                let half = count.div_ceil(2);
                let position = if position < half {
                    position
                } else {
                    position - half
                };
                even.saturating_sub(2 * position)
            }
            (Some(elapsed), _) => count + modulus - elapsed % modulus,
        } % modulus;
        if self.bcd {
            to_bcd(value)
        } else {
            value as u16
        }
    }

    /// NULL COUNT of the status byte: the written count is not in the counting element yet.
    fn null_count(&self, tick: u64) -> bool {
        self.untriggered || self.switch.is_some() || self.start.is_none_or(|start| tick < start)
    }

    /// Rising edges of OUT in ticks `from + 1` to `to`, without what writes do.
    fn rises_between(&self, from: u64, to: u64) -> u64 {
        let (Some(start), None) = (self.start, self.hold) else {
            return 0;
        };
        let count = self.period();
        let once = |at: u64| u64::from(from < at && at <= to);
        match self.mode {
            0 | 1 => once(start + count),
            2 | 3 if count > 1 => {
                let periods = |tick: u64| tick.saturating_sub(start) / count;
                periods(to) - periods(from)
            }
            2 | 3 => 0,
            _ => once(start + count + 1),
        }
    }

    /// The next tick after `tick` in which OUT rises.
    pub(super) fn next_rise(&self, tick: u64) -> Option<u64> {
        let (Some(start), None) = (self.start, self.hold) else {
            return None;
        };
        let count = self.period();
        let once = |at: u64| (at > tick).then_some(at);
        match self.mode {
            0 | 1 => once(start + count),
            2 | 3 if count > 1 => Some(start + (tick.saturating_sub(start) / count + 1) * count),
            2 | 3 => None,
            _ => once(start + count + 1),
        }
    }

    /// Brings the state up to a tick.
    pub(super) fn settle(&mut self, tick: u64) -> u64 {
        let tick = tick.max(self.seen);
        if let Some(switch) = self.switch.filter(|&switch| switch <= tick) {
            self.rises += self.rises_between(self.seen, switch);
            self.seen = switch.max(self.seen);
            self.start = Some(switch);
            self.count = self.reload;
            self.switch = None;
        }
        self.rises += self.rises_between(self.seen, tick);
        self.seen = tick;
        tick
    }

    /// Changes the state in a tick; OUT may rise by it.
    fn change(&mut self, tick: u64, change: impl FnOnce(&mut Self, u64)) {
        let tick = self.settle(tick);
        let before = self.out(tick);
        change(self, tick);
        self.rises += u64::from(self.out(tick) && !before);
    }

    pub(super) fn control(&mut self, value: u8, tick: u64) {
        self.change(tick, |counter, _| {
            counter.access = value >> 4 & 3;
            // Modes 2 and 3 have two encodings.
            counter.mode = match value >> 1 & 7 {
                mode @ 0..6 => mode,
                mode => mode - 4,
            };
            counter.bcd = value & 1 != 0;
            counter.written = false;
            counter.untriggered = false;
            counter.start = None;
            counter.hold = None;
            counter.switch = None;
            counter.low_byte = None;
            counter.second_byte = false;
            counter.latched_count = None;
            counter.latched_status = None;
        });
    }

    pub(super) fn write(&mut self, byte: u8, tick: u64) {
        let value = match (self.access, self.low_byte) {
            (1, _) => u16::from(byte),
            (2, _) => u16::from(byte) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, byte]),
            (_, None) => {
                self.change(tick, |counter, _| {
                    counter.low_byte = Some(byte);
                    // In mode 0 the first byte stops the count and drops OUT.
                    if counter.mode == 0 {
                        counter.start = None;
                        counter.hold = None;
                    }
                });
                return;
            }
        };
        self.low_byte = None;
        self.change(tick, |counter, tick| counter.set_count(value, tick));
    }

    fn set_count(&mut self, value: u16, tick: u64) {
        let count = if self.bcd {
            from_bcd(value)
        } else {
            u32::from(value)
        };
        self.reload = if count == 0 {
            self.modulus() as u32
        } else {
            count
        };
        self.written = true;
        match self.mode {
            0 | 4 => self.load(tick),
            1 | 5 => self.untriggered = true,
            _ => match self.start.filter(|&start| start <= tick) {
                Some(start) => {
                    let period = self.period();
                    self.switch = Some(start + ((tick - start) / period + 1) * period);
                }
                None if self.gate => self.load(tick),
                None => {}
            },
        }
    }

    fn load(&mut self, tick: u64) {
        self.out_at_trigger = self.out(tick);
        self.count = self.reload;
        self.start = Some(tick + 1);
        self.switch = None;
        self.untriggered = false;
        self.hold = (!self.gate && matches!(self.mode, 0 | 4)).then_some(0);
    }

    pub(super) fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.change(tick, |counter, tick| {
            counter.gate = gate;
            match (counter.mode, gate) {
                (0 | 4, true) => {
                    if let Some(elapsed) = counter.hold.take() {
                        counter.start = Some(tick.saturating_sub(elapsed));
                    }
                }
                (0 | 4, false) => {
                    counter.hold = counter.start.map(|start| tick.saturating_sub(start));
                }
                (_, true) if counter.written => counter.load(tick),
                (2 | 3, false) => {
                    counter.start = None;
                    counter.switch = None;
                }
                _ => {}
            }
        });
    }

    pub(super) fn latch_count(&mut self, tick: u64) {
        let tick = self.settle(tick);
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(tick));
        }
    }

    pub(super) fn latch_status(&mut self, tick: u64) {
        let tick = self.settle(tick);
        if self.latched_status.is_none() {
            self.latched_status = Some(
                u8::from(self.out(tick)) << 7
                    | u8::from(self.null_count(tick)) << 6
                    | self.access << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    pub(super) fn read(&mut self, tick: u64) -> u8 {
        let tick = self.settle(tick);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.value(tick))
            .to_le_bytes();
        let (byte, last) = match (self.access, self.second_byte) {
            (1, _) => (low, true),
            (2, _) => (high, true),
            (_, false) => (low, false),
            (_, true) => (high, true),
        };
        self.second_byte = !last;
        if last {
            self.latched_count = None;
        }
        byte
    }
}

fn from_bcd(value: u16) -> u32 {
    (0..4).rev().fold(0, |sum, digit| {
        sum * 10 + u32::from(value >> (4 * digit) & 0xf)
    })
}

fn to_bcd(value: u64) -> u16 {
    let digit = |power: u64, shift: u32| ((value / power % 10) as u16) << shift;
    digit(1000, 12) | digit(100, 8) | digit(10, 4) | digit(1, 0)
}
