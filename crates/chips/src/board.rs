//! The chips that all processors of a machine share, and the wires between them: PICs, PIT with
//! port 61h, HPET, I/O APIC.

use crate::hpet::{Hpet, Route};
use crate::ioapic::{Bus, IoApic};
use crate::message::Delivery;
use crate::pic::Pics;
use crate::pit::Pit;

/// IRQ of the timer.
const TIMER_IRQ: u8 = 0;
/// I/O APIC pin of the timer: the interrupt source override of every PC.
const TIMER_PIN: u8 = 2;
/// IRQ of the real-time clock.
const CLOCK_IRQ: u8 = 8;
/// I/O APIC pin of the PICs' INTR.
const PIC_PIN: u8 = 0;
/// IRQ of the x87's FERR#.
const FPU_IRQ: u32 = 13;
/// Port that ends the x87's interrupt and raises IGNNE#.
pub(crate) const FPU_PORT: u16 = 0xf0;
/// Port that reset the 80287; nothing today.
const FPU_RESET_PORT: u16 = 0xf1;
/// Timer interrupts that are made up for when the guest or the host was late; more are dropped.
const MAX_LATE_TICKS: u64 = 100;
/// Nanoseconds between two refresh requests: 18 input clocks of the PIT.
const REFRESH: u64 = 15_085;

/// Port 61h: gate of the speaker's counter.
const PORT61_GATE: u8 = 1 << 0;
/// Port 61h: bits that software can set: gate, speaker data, parity and channel check disable.
const PORT61_BITS: u8 = 0x0f;
/// Port 61h: toggles with every refresh request.
const PORT61_REFRESH: u8 = 1 << 4;
/// Port 61h: output of the speaker's counter.
const PORT61_OUT: u8 = 1 << 5;

/// Everything behind the board's lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(crate) pics: Pics,
    pub(crate) ioapic: IoApic,
    pub(crate) hpet: Hpet,
    pit: Pit,
    port61: u8,
    /// FERR# is active, and IGNNE#.
    fpu_error: bool,
    fpu_ignored: bool,
    /// Timer interrupts that have not been delivered yet.
    late_ticks: u64,
}

impl Board {
    /// Whether a port belongs to the board.
    pub(crate) const fn has_port(port: u16) -> bool {
        matches!(
            port,
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 | 0x40
                ..=0x43 | 0x61 | FPU_PORT | FPU_RESET_PORT
        )
    }

    /// Reads a byte from a port at a time in nanoseconds.
    pub(crate) fn port_read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            0x40..=0x43 => self.pit.read((port & 3) as u8, now),
            FPU_PORT | FPU_RESET_PORT => 0xff,
            0x61 => {
                let refresh = if (now / REFRESH) & 1 != 0 {
                    PORT61_REFRESH
                } else {
                    0
                };
                let out = if self.pit.out2(now) { PORT61_OUT } else { 0 };
                self.port61 | refresh | out
            }
            _ => self.pics.read(port),
        }
    }

    /// Writes a byte to a port.
    pub(crate) fn port_write(&mut self, port: u16, value: u8, now: u64) {
        match port {
            0x40..=0x43 => self.pit.write((port & 3) as u8, value, now),
            FPU_PORT | FPU_RESET_PORT => {}
            0x61 => {
                self.port61 = value & PORT61_BITS;
                self.pit.set_gate2(value & PORT61_GATE != 0, now);
            }
            _ => self.pics.write(port, value),
        }
    }

    /// Sets the level of a global system interrupt. 2 is the cascade and is wired to nothing.
    pub(crate) fn set_line(&mut self, gsi: u32, level: bool, bus: Bus<'_>) {
        match u8::try_from(gsi) {
            Ok(TIMER_IRQ) => {
                self.set_timer_line(level, bus);
            }
            Ok(TIMER_PIN) | Err(_) => {}
            // Disconnected while the HPET stands in for the clock.
            Ok(CLOCK_IRQ) if self.hpet.legacy() => {}
            Ok(gsi) => {
                self.pics.set_line(gsi, level);
                self.ioapic.set_line(gsi, level, bus);
            }
        }
    }

    /// Follows FERR#: its rise is latched as an interrupt, its fall ends IGNNE#.
    pub(crate) fn set_fpu_error(&mut self, active: bool, bus: Bus<'_>) {
        if active && !self.fpu_error {
            self.set_line(FPU_IRQ, true, bus);
        }
        self.fpu_error = active;
        self.fpu_ignored &= active;
    }

    /// IGNNE#.
    pub(crate) fn ignores_fpu_error(&self) -> bool {
        self.fpu_ignored
    }

    /// A write to [`FPU_PORT`].
    pub(crate) fn ignore_fpu_error(&mut self, bus: Bus<'_>) {
        self.set_line(FPU_IRQ, false, bus);
        self.fpu_ignored = self.fpu_error;
    }

    /// Sets IRQ 0; whether that is an interrupt that the guest will see as one of its own.
    fn set_timer_line(&mut self, level: bool, bus: Bus<'_>) -> bool {
        let latched = self.pics.set_line(TIMER_IRQ, level) && !self.pics.masked(TIMER_IRQ);
        let delivery = self.ioapic.set_line(TIMER_PIN, level, bus);
        latched || delivery == Some(Delivery::Accepted)
    }

    /// Brings wires up to date: the timer's output to IRQ 0, INTR to the I/O APIC.
    pub(crate) fn settle(&mut self, now: u64, bus: Bus<'_>) {
        self.settle_hpet(now, bus);
        self.late_ticks = (self.late_ticks + self.pit.take_rises(now)).min(MAX_LATE_TICKS);
        if self.hpet.legacy() {
            self.late_ticks = 0;
        }
        if self.late_ticks > 0 {
            self.set_timer_line(false, bus);
            if self.set_timer_line(true, bus) {
                self.late_ticks -= 1;
            }
            if self.timer_masked() {
                self.late_ticks = 0;
            }
            let out = self.pit.out0(now);
            self.set_timer_line(out, bus);
        }
        let output = self.pics.output();
        self.ioapic.set_line(PIC_PIN, output, bus);
    }

    /// Carries out what the HPET does to its interrupts.
    fn settle_hpet(&mut self, now: u64, bus: Bus<'_>) {
        for output in self.hpet.take_outputs(now) {
            let pin = match output.route {
                Route::Nothing => continue,
                Route::Message(message) => {
                    if output.edge {
                        bus(&message);
                    }
                    continue;
                }
                Route::LegacyTimer => TIMER_PIN,
                Route::LegacyClock => CLOCK_IRQ,
                Route::Pin(pin) => pin,
            };
            if output.edge {
                self.set_hpet_line(pin, false, bus);
                self.set_hpet_line(pin, true, bus);
            }
            self.set_hpet_line(pin, output.level, bus);
        }
    }

    fn set_hpet_line(&mut self, pin: u8, level: bool, bus: Bus<'_>) {
        match pin {
            TIMER_PIN => {
                self.set_timer_line(level, bus);
            }
            CLOCK_IRQ => {
                self.pics.set_line(CLOCK_IRQ, level);
                self.ioapic.set_line(CLOCK_IRQ, level, bus);
            }
            // Pins beyond the PICs' lines are the timers' alone.
            pin => {
                self.ioapic.set_line(pin, level, bus);
            }
        }
    }

    fn timer_masked(&self) -> bool {
        self.pics.masked(TIMER_IRQ) && self.ioapic.masked(TIMER_PIN)
    }

    /// Vector whose EOI lets a late timer interrupt through the I/O APIC, if there is one.
    pub(crate) fn late_vector(&self) -> Option<u8> {
        (self.late_ticks > 0 && !self.ioapic.masked(TIMER_PIN))
            .then(|| self.ioapic.vector(TIMER_PIN))
    }

    /// Nanosecond of the timers' next interrupt; `None` when nobody would see it.
    pub(crate) fn deadline(&self, now: u64) -> Option<u64> {
        let pit = if self.timer_masked() || self.hpet.legacy() {
            None
        } else {
            self.pit.next_rise(now)
        };
        [pit, self.hpet.deadline(now)].into_iter().flatten().min()
    }
}
