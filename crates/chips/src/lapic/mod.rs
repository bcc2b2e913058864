//! Local APIC (SDM vol. 3A, chapter 11; section numbers below are those of its 2023 edition).
//!
//! xAPIC and x2APIC mode, version 14h with six local-vector-table entries and suppression of
//! EOI broadcasts. Left out: SMI (dropped), the focus processor, a writable APIC ID, and
//! level-triggered fixed interrupts at LINT0, which the SDM reserves for ExtINT.

mod destination;
mod registers;
mod timer;

pub use registers::{Effect, Mode};
pub use timer::TIMER_HZ;

use ringfence_engine::VcpuEvent;

use crate::message::{Delivery, DeliveryMode};
use crate::time::Time;
use crate::vectors::VectorSet;
use timer::Timer;

/// Index of an entry of the local vector table.
mod lvt {
    pub const TIMER: usize = 0;
    pub const LINT0: usize = 3;
    pub const ERROR: usize = 5;
    pub const COUNT: usize = 6;
    /// Mask bit of an entry.
    pub const MASKED: u32 = 1 << 16;
    /// Delivery mode ExtINT.
    pub const EXT_INT: u32 = 7 << 8;
}

/// Bits of the error status register (SDM vol. 3A, 11.5.3).
mod error {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Spurious-vector register: APIC software enable.
const SVR_ENABLED: u32 = 1 << 8;
/// Spurious-vector register: suppress EOI broadcasts.
const SVR_SUPPRESS_EOI: u32 = 1 << 12;
/// Vectors below are reserved for exceptions.
const FIRST_VECTOR: u8 = 16;

/// Events that are not vectors.
#[derive(Clone, Copy, Debug, Default)]
struct Events {
    init: bool,
    startup: Option<u8>,
    nmi: bool,
    smi: bool,
    /// In the wait-for-SIPI state.
    waiting: bool,
}

/// The local APIC of one processor.
#[derive(Clone, Debug)]
pub struct Lapic {
    id: u32,
    /// IA32_APIC_BASE.
    base: u64,
    tpr: u8,
    /// Logical destination register as xAPIC mode has it.
    ldr: u32,
    /// Destination format register.
    dfr: u32,
    /// Spurious-interrupt vector register.
    svr: u32,
    irr: VectorSet,
    isr: VectorSet,
    /// Trigger mode register: vectors whose EOI is broadcast.
    tmr: VectorSet,
    /// Error status register as software reads it.
    esr: u32,
    /// Errors since software last wrote ESR.
    errors: u32,
    icr: u64,
    lvt: [u32; lvt::COUNT],
    timer: Timer,
    /// An ExtINT message waits for its acknowledgement.
    ext_int: bool,
    events: Events,
    /// The time of [`Lapic::deadline`] may have changed.
    deadline_changed: bool,
}

impl Lapic {
    /// The APIC of processor `id` after power-up. 0 is the bootstrap processor: it runs at once,
    /// with LINT0 passing on the PIC's interrupts (virtual-wire mode, MultiProcessor
    /// Specification 1.4, 3.6.2.2), as firmware would have set it.
    pub fn new(id: u32) -> Self {
        let bootstrap = id == 0;
        let mut lapic = Self {
            id,
            base: registers::base_after_reset(bootstrap),
            tpr: 0,
            ldr: 0,
            dfr: 0,
            svr: 0,
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [0; lvt::COUNT],
            timer: Timer::default(),
            ext_int: false,
            events: Events {
                waiting: !bootstrap,
                ..Events::default()
            },
            deadline_changed: false,
        };
        lapic.reset_registers();
        lapic
    }

    /// State after INIT: all but ID, mode and base address (SDM vol. 3A, 11.4.7.3).
    fn reset_registers(&mut self) {
        self.tpr = 0;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = 0xff;
        self.irr = VectorSet::default();
        self.isr = VectorSet::default();
        self.tmr = VectorSet::default();
        self.esr = 0;
        self.errors = 0;
        self.icr = 0;
        self.lvt = [lvt::MASKED; lvt::COUNT];
        if self.is_bootstrap() {
            self.lvt[lvt::LINT0] = lvt::EXT_INT;
        }
        self.timer = Timer::default();
        self.deadline_changed = true;
        self.ext_int = false;
    }

    /// APIC ID, which is the number of the processor.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn is_bootstrap(&self) -> bool {
        self.id == 0
    }

    fn software_enabled(&self) -> bool {
        self.mode() != Mode::Disabled && self.svr & SVR_ENABLED != 0
    }

    // Requests

    /// SMI#, a wire of its own: it comes whether or not the APIC is enabled.
    pub fn raise_smi(&mut self) {
        self.events.smi = true;
    }

    /// Takes a message.
    pub fn deliver(&mut self, mode: DeliveryMode, vector: u8, level: bool) -> Delivery {
        if self.mode() == Mode::Disabled {
            return Delivery::Refused;
        }
        let before = match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                return self.request(vector, level);
            }
            DeliveryMode::Smi => std::mem::replace(&mut self.events.smi, true),
            DeliveryMode::ExtInt => std::mem::replace(&mut self.ext_int, true),
            DeliveryMode::Nmi => std::mem::replace(&mut self.events.nmi, true),
            DeliveryMode::Init => {
                self.events.startup = None;
                std::mem::replace(&mut self.events.init, true)
            }
            DeliveryMode::Startup => {
                // Only a processor that waits for it listens (SDM vol. 3A, 9.4.1).
                let waits = self.events.waiting || self.events.init && !self.is_bootstrap();
                if !waits {
                    return Delivery::Refused;
                }
                self.events.startup.replace(vector).is_some()
            }
        };
        if before {
            Delivery::Coalesced
        } else {
            Delivery::Accepted
        }
    }

    fn request(&mut self, vector: u8, level: bool) -> Delivery {
        if !self.software_enabled() {
            return Delivery::Refused;
        }
        if vector < FIRST_VECTOR {
            self.raise_error(error::RECEIVED_ILLEGAL_VECTOR);
            return Delivery::Refused;
        }
        self.tmr.set(vector, level);
        if self.irr.insert(vector) {
            Delivery::Accepted
        } else {
            Delivery::Coalesced
        }
    }

    /// Delivers what an entry of the local vector table says.
    fn local_interrupt(&mut self, entry: usize) {
        let value = self.lvt[entry];
        if value & lvt::MASKED != 0 {
            return;
        }
        let mode = match entry {
            lvt::TIMER | lvt::ERROR => Some(DeliveryMode::Fixed),
            _ => DeliveryMode::from_bits(value >> 8),
        };
        match mode {
            Some(DeliveryMode::Startup | DeliveryMode::LowestPriority) | None => {}
            Some(mode) => {
                self.deliver(mode, value as u8, false);
            }
        }
    }

    fn raise_error(&mut self, bit: u32) {
        // Until software writes ESR, further errors are collected without an interrupt.
        let first = self.errors == 0;
        self.errors |= bit;
        if first {
            self.local_interrupt(lvt::ERROR);
        }
    }

    /// The PIC's INTR output has risen, and LINT0 is not in ExtINT mode.
    pub fn lint0_rise(&mut self) {
        if self.uses_lint0() {
            self.local_interrupt(lvt::LINT0);
        }
    }

    /// Whether LINT0 is open in another mode than ExtINT.
    pub fn uses_lint0(&self) -> bool {
        let entry = self.lvt[lvt::LINT0];
        self.mode() != Mode::Disabled && entry & lvt::MASKED == 0 && !is_ext_int(entry)
    }

    /// Whether the PIC's interrupts reach this processor: LINT0 is open in ExtINT mode, an ExtINT
    /// message came, or the APIC is disabled and LINT0 is the processor's INTR pin.
    pub fn accepts_pic(&self) -> bool {
        let entry = self.lvt[lvt::LINT0];
        self.mode() == Mode::Disabled
            || self.ext_int
            || entry & lvt::MASKED == 0 && is_ext_int(entry)
    }

    /// The PIC's vector was taken.
    pub fn acknowledge_pic(&mut self) {
        self.ext_int = false;
    }

    // Priorities and service

    /// Processor-priority register (SDM vol. 3A, 11.8.3.1).
    pub fn processor_priority(&self) -> u8 {
        let served = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= served >> 4 {
            self.tpr
        } else {
            served & 0xf0
        }
    }

    /// Arbitration-priority register (SDM vol. 3A, 11.6.2.4).
    fn arbitration_priority(&self) -> u8 {
        let served = self.isr.highest().unwrap_or(0) >> 4;
        let requested = self.irr.highest().unwrap_or(0) >> 4;
        let task = self.tpr >> 4;
        if task >= requested && task > served {
            self.tpr
        } else {
            (task & served).max(requested) << 4
        }
    }

    /// The vector that would be delivered now.
    pub fn pending(&self) -> Option<u8> {
        if self.mode() == Mode::Disabled {
            return None;
        }
        self.irr
            .highest()
            .filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// Moves that vector from request to service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.irr.remove(vector);
        self.isr.insert(vector);
        Some(vector)
    }

    /// CR8: the upper half of the task priority.
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr >> 4)
    }

    /// Sets CR8, which clears the lower half of the task priority.
    pub fn set_cr8(&mut self, value: u64) {
        self.tpr = (value as u8 & 0xf) << 4;
    }

    /// Whether the end of the interrupt in service may come late: no other one waits, and it is
    /// not one whose end the I/O APIC hears of.
    pub fn end_can_wait(&self) -> bool {
        let served = self.isr.highest();
        self.irr.highest().is_none() && served.is_some_and(|vector| !self.tmr.contains(vector))
    }

    // Events

    /// Whether [`Lapic::take_event`] has something.
    pub fn has_event(&self) -> bool {
        let Events {
            init,
            startup,
            nmi,
            smi,
            waiting,
        } = self.events;
        init || if waiting {
            startup.is_some()
        } else {
            nmi || smi
        }
    }

    /// In the wait-for-SIPI state.
    pub fn waits_for_startup(&self) -> bool {
        self.events.waiting
    }

    /// Takes the most urgent event; INIT resets the APIC.
    pub fn take_event(&mut self) -> Option<VcpuEvent> {
        if std::mem::take(&mut self.events.init) {
            self.reset_registers();
            self.events.nmi = false;
            // After INIT the bootstrap processor starts at its reset vector by itself.
            self.events.waiting = !self.is_bootstrap();
            return Some(VcpuEvent::Init);
        }
        if self.events.waiting {
            let page = self.events.startup.take()?;
            self.events.waiting = false;
            return Some(VcpuEvent::Startup(page));
        }
        if std::mem::take(&mut self.events.smi) {
            return Some(VcpuEvent::Smi);
        }
        std::mem::take(&mut self.events.nmi).then_some(VcpuEvent::Nmi)
    }

    // Time

    /// Delivers the timer's interrupt if it is due.
    pub fn advance(&mut self, time: &dyn Time) {
        if self.timer.advance(time) {
            self.deadline_changed = true;
            self.local_interrupt(lvt::TIMER);
        }
    }

    /// Makes [`Lapic::take_deadline_change`] report a change.
    pub fn request_deadline_change(&mut self) {
        self.deadline_changed = true;
    }

    /// Whether [`Lapic::deadline`] may have changed since the last call.
    pub fn take_deadline_change(&mut self) -> bool {
        std::mem::take(&mut self.deadline_changed)
    }

    /// Nanosecond at which [`Lapic::advance`] is due; `None`: the timer is stopped or masked.
    pub fn deadline(&self, time: &dyn Time) -> Option<u64> {
        if self.lvt[lvt::TIMER] & lvt::MASKED != 0 || self.mode() == Mode::Disabled {
            return None;
        }
        self.timer.expiry(time)
    }
}

const fn is_ext_int(entry: u32) -> bool {
    entry & 0x700 == lvt::EXT_INT
}
