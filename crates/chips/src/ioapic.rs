//! I/O APIC (Intel 82093AA data sheet, order number 290566; EOI register and version 20h as in
//! the ICH data sheets).
//!
//! Lines are given as asserted or not, so the polarity bit of an entry is kept and ignored. The
//! pins are a machine's global system interrupts, but for pin 0, which the PICs' INTR is wired
//! to, and pin 2, which the timer's IRQ 0 is wired to.

use crate::message::{Delivery, DeliveryMode, Message, Target};

/// Number of pins.
pub const PINS: u8 = 24;
/// Guest physical address of the registers.
pub const BASE: u64 = 0xfec0_0000;
/// Size in bytes of the register window.
pub const SIZE: u64 = 0x100;

/// Last redirection entry and version.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;

const REGISTER_SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

const INDEX_ID: u8 = 0;
const INDEX_VERSION: u8 = 1;
const INDEX_ARBITRATION: u8 = 2;
const INDEX_TABLE: u8 = 0x10;

const ENTRY_LOGICAL: u64 = 1 << 11;
const ENTRY_REMOTE_IRR: u64 = 1 << 14;
const ENTRY_LEVEL: u64 = 1 << 15;
const ENTRY_MASKED: u64 = 1 << 16;
/// Writable bits of an entry: all but delivery status, remote IRR and the reserved ones.
const ENTRY_BITS: u64 = 0xff00_0000_0001_afff;

/// Takes messages to the local APICs.
pub type Bus<'a> = &'a mut dyn FnMut(&Message) -> Delivery;

/// An I/O APIC with 24 pins.
#[derive(Clone, Debug)]
pub struct IoApic {
    select: u8,
    id: u32,
    /// Levels of the pins.
    lines: u32,
    entries: [u64; PINS as usize],
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// An I/O APIC after reset: all pins masked.
    pub const fn new() -> Self {
        Self {
            select: 0,
            id: 0,
            lines: 0,
            entries: [ENTRY_MASKED; PINS as usize],
        }
    }

    /// Sets the level of a pin; what became of the message, if one was sent. An edge at a masked
    /// pin is lost (82093AA, 3.2.4, "Interrupt Mask").
    pub fn set_line(&mut self, pin: u8, level: bool, bus: Bus<'_>) -> Option<Delivery> {
        let entry = *self.entries.get(usize::from(pin))?;
        let bit = 1 << pin;
        let rises = level && self.lines & bit == 0;
        if level {
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
        if entry & ENTRY_LEVEL != 0 {
            self.service_level(pin, bus)
        } else {
            None
        }
        .or_else(|| {
            (rises && entry & (ENTRY_LEVEL | ENTRY_MASKED) == 0)
                .then(|| message(entry).map_or(Delivery::Refused, |message| bus(&message)))
        })
    }

    /// Whether a pin is masked.
    pub fn masked(&self, pin: u8) -> bool {
        self.entries
            .get(usize::from(pin))
            .is_none_or(|entry| entry & ENTRY_MASKED != 0)
    }

    /// Vector of a pin.
    pub fn vector(&self, pin: u8) -> u8 {
        self.entries
            .get(usize::from(pin))
            .map_or(0, |&entry| entry as u8)
    }

    /// Sends the message of a level-triggered pin that is asserted and not in service.
    fn service_level(&mut self, pin: u8, bus: Bus<'_>) -> Option<Delivery> {
        let entry = self.entries.get_mut(usize::from(pin))?;
        let idle = *entry & (ENTRY_LEVEL | ENTRY_MASKED | ENTRY_REMOTE_IRR) == ENTRY_LEVEL;
        if !idle || self.lines & 1 << pin == 0 {
            return None;
        }
        let message = message(*entry)?;
        let delivery = bus(&message);
        // Modes other than these two are always edges: no EOI would come.
        let acknowledged = matches!(
            message.mode,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority
        );
        if acknowledged && delivery != Delivery::Refused {
            *entry |= ENTRY_REMOTE_IRR;
        }
        Some(delivery)
    }

    /// Sends what local APICs have refused so far.
    pub fn retry(&mut self, bus: Bus<'_>) {
        for pin in 0..PINS {
            self.service_level(pin, bus);
        }
    }

    /// The service of a vector has ended.
    pub fn end_of_interrupt(&mut self, vector: u8, bus: Bus<'_>) {
        for pin in 0..PINS {
            let entry = &mut self.entries[usize::from(pin)];
            let level = ENTRY_LEVEL | ENTRY_REMOTE_IRR;
            if *entry as u8 == vector && *entry & level == level {
                *entry &= !ENTRY_REMOTE_IRR;
                self.service_level(pin, bus);
            }
        }
    }

    /// Reads `size` bytes at `offset` of the register window.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let value = match offset & !0xf {
            REGISTER_SELECT => u32::from(self.select),
            WINDOW => self.read_register(),
            _ => 0,
        };
        let bits = u32::from(size.min(8)) * 8;
        let value = u128::from(value) >> ((offset & 0xf) * 8);
        (value & ((1 << bits) - 1)) as u64
    }

    fn read_register(&self) -> u32 {
        match self.select {
            INDEX_ID | INDEX_ARBITRATION => self.id << 24,
            INDEX_VERSION => VERSION,
            index => match self.entry_index(index) {
                Some((pin, false)) => self.entries[pin] as u32,
                Some((pin, true)) => (self.entries[pin] >> 32) as u32,
                None => 0,
            },
        }
    }

    /// Redirection entry and half of it behind a register index.
    fn entry_index(&self, index: u8) -> Option<(usize, bool)> {
        let index = index.checked_sub(INDEX_TABLE)?;
        let pin = usize::from(index >> 1);
        (pin < self.entries.len()).then_some((pin, index & 1 != 0))
    }

    /// Writes at `offset` of the register window. Narrow values are zero-extended, as KVM does.
    pub fn write(&mut self, offset: u64, value: u32, bus: Bus<'_>) {
        match offset {
            REGISTER_SELECT => self.select = value as u8,
            WINDOW => self.write_register(value, bus),
            EOI => self.end_of_interrupt(value as u8, bus),
            _ => {}
        }
    }

    fn write_register(&mut self, value: u32, bus: Bus<'_>) {
        if self.select == INDEX_ID {
            self.id = value >> 24 & 0xf;
            return;
        }
        let Some((pin, high)) = self.entry_index(self.select) else {
            return;
        };
        let old = self.entries[pin];
        let value = u64::from(value);
        let new = if high {
            old & 0xffff_ffff | value << 32
        } else {
            old >> 32 << 32 | value
        };
        let mut entry = new & ENTRY_BITS;
        // An entry made edge-triggered forgets the service of its level: before version 20h that
        // was software's way to end it.
        if entry & ENTRY_LEVEL != 0 {
            entry |= old & ENTRY_REMOTE_IRR;
        }
        self.entries[pin] = entry;
        self.service_level(pin as u8, bus);
    }
}

fn message(entry: u64) -> Option<Message> {
    let mode = DeliveryMode::from_bits((entry >> 8) as u32)?;
    if mode == DeliveryMode::Startup {
        return None;
    }
    let level = entry & ENTRY_LEVEL != 0
        && matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
    Some(Message {
        mode,
        vector: entry as u8,
        level,
        target: Target::narrow((entry >> 56) as u32, entry & ENTRY_LOGICAL != 0),
        sender: None,
    })
}
