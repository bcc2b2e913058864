//! Registers of a local APIC: memory-mapped (xAPIC), as MSRs (x2APIC), and IA32_APIC_BASE.

use super::timer::Kind;
use super::{FIRST_VECTOR, Lapic, SVR_ENABLED, SVR_SUPPRESS_EOI, error, lvt};
use crate::message::{DeliveryMode, Message, Target};
use crate::time::Time;

/// Registers by their offset in the page divided by 16, which is also their number in the x2APIC
/// MSR range (SDM vol. 3A, tables 11-1 and 11-6).
mod reg {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const RRD: u32 = 0x0c;
    pub const LDR: u32 = 0x0d;
    pub const DFR: u32 = 0x0e;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const ISR_LAST: u32 = 0x17;
    pub const TMR: u32 = 0x18;
    pub const TMR_LAST: u32 = 0x1f;
    pub const IRR: u32 = 0x20;
    pub const IRR_LAST: u32 = 0x27;
    pub const ESR: u32 = 0x28;
    pub const ICR: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT: u32 = 0x32;
    pub const LVT_LAST: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

/// Version 14h, last LVT entry 5, EOI-broadcast suppression.
const VERSION: u32 = 0x14 | (lvt::COUNT as u32 - 1) << 16 | 1 << 24;
/// Bits of the spurious-vector register that are implemented.
const SVR_BITS: u32 = 0xff | SVR_ENABLED | SVR_SUPPRESS_EOI;
/// Bit 9 of it, the focus processor, is accepted and ignored.
const SVR_FOCUS: u32 = 1 << 9;
/// Bits of the interrupt command register, delivery status (read-only) apart.
const ICR_BITS: u32 = 0x000c_cfff;
const ICR_STATUS: u32 = 1 << 12;
/// Writable bits of each LVT entry: timer, thermal, performance, LINT0, LINT1, error.
const LVT_BITS: [u32; lvt::COUNT] = [
    0x0007_00ff,
    0x0001_07ff,
    0x0001_07ff,
    0x0001_a7ff,
    0x0001_a7ff,
    0x0001_00ff,
];
/// Read-only bits of an LVT entry: delivery status and remote IRR.
const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;

const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const BASE_BOOTSTRAP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLED: u64 = 1 << 11;

/// How software reaches the APIC (SDM vol. 3A, table 11-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As if the processor had none.
    Disabled,
    /// Memory-mapped.
    XApic,
    /// By MSRs.
    X2Apic,
}

/// What a register write does outside the APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An inter-processor interrupt leaves.
    Send(Message),
    /// The service of a vector has ended.
    EndOfInterrupt {
        /// The vector.
        vector: u8,
        /// I/O APICs must hear of it.
        broadcast: bool,
    },
    /// The APIC was enabled by software: it now takes what it refused before.
    Enabled,
}

pub(super) const fn base_after_reset(bootstrap: bool) -> u64 {
    0xfee0_0000 | BASE_ENABLED | if bootstrap { BASE_BOOTSTRAP } else { 0 }
}

impl Lapic {
    /// Mode of operation.
    pub fn mode(&self) -> Mode {
        match (self.base & BASE_ENABLED != 0, self.base & BASE_X2APIC != 0) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
        }
    }

    /// Guest physical address of the registers; `None` outside xAPIC mode.
    pub fn page(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then_some(self.base & BASE_ADDRESS)
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Sets IA32_APIC_BASE (SDM vol. 3A, 11.4.4 and 11.12.5). The bootstrap flag stays as it is.
    ///
    /// # Errors
    /// #GP: a reserved bit, or a transition that is not allowed.
    #[allow(clippy::result_unit_err)]
    pub fn set_base(&mut self, value: u64) -> Result<(), ()> {
        let flags = BASE_BOOTSTRAP | BASE_X2APIC | BASE_ENABLED;
        if value & !(BASE_ADDRESS | flags) != 0 {
            return Err(());
        }
        let enabled = value & BASE_ENABLED != 0;
        let x2apic = value & BASE_X2APIC != 0;
        let allowed = match self.mode() {
            Mode::Disabled => !x2apic,
            Mode::XApic => enabled || !x2apic,
            Mode::X2Apic => enabled == x2apic,
        };
        if !allowed {
            return Err(());
        }
        if !enabled {
            self.reset_registers();
        }
        self.base = value & !BASE_BOOTSTRAP | self.base & BASE_BOOTSTRAP;
        Ok(())
    }

    /// Reads the memory-mapped register at `offset` of the page.
    pub fn read(&mut self, offset: u32, time: &dyn Time) -> u32 {
        let register = offset >> 4;
        match register {
            reg::ID => self.id << 24,
            reg::APR => u32::from(self.arbitration_priority()),
            reg::EOI | reg::RRD => 0,
            reg::LDR => self.ldr,
            reg::DFR => self.dfr,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            _ => self.read_common(register, time).unwrap_or_else(|| {
                self.raise_error(error::ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// Writes the memory-mapped register at `offset` of the page.
    pub fn write(&mut self, offset: u32, value: u32, time: &dyn Time) -> Effect {
        match offset >> 4 {
            reg::ID | reg::APR | reg::RRD => {}
            reg::EOI => return self.end_of_interrupt(),
            reg::LDR => self.ldr = value & 0xff00_0000,
            reg::DFR => self.dfr = value | 0x0fff_ffff,
            reg::ICR => {
                let high = self.icr & 0xff00_0000_0000_0000;
                return self.command(high | u64::from(value & ICR_BITS));
            }
            reg::ICR_HIGH => {
                self.icr = u64::from(value & 0xff00_0000) << 32 | self.icr & 0xffff_ffff;
            }
            register => match self.write_common(register, value, time) {
                Some(effect) => return effect,
                None if self.read_common(register, time).is_some() => {}
                None => self.raise_error(error::ILLEGAL_REGISTER),
            },
        }
        Effect::None
    }

    /// Reads the x2APIC MSR `800h + register` (SDM vol. 3A, 11.12.1.2).
    ///
    /// # Errors
    /// #GP: not in x2APIC mode, or no such register.
    #[allow(clippy::result_unit_err)]
    pub fn read_msr(&mut self, register: u32, time: &dyn Time) -> Result<u64, ()> {
        if self.mode() != Mode::X2Apic {
            return Err(());
        }
        match register {
            reg::ID => Ok(u64::from(self.id)),
            reg::LDR => Ok(u64::from(self.logical_id())),
            reg::ICR => Ok(self.icr),
            _ => self.read_common(register, time).map(u64::from).ok_or(()),
        }
    }

    /// Writes the x2APIC MSR `800h + register`.
    ///
    /// # Errors
    /// #GP: not in x2APIC mode, no such register, read-only, or a reserved bit is set.
    #[allow(clippy::result_unit_err)]
    pub fn write_msr(&mut self, register: u32, value: u64, time: &dyn Time) -> Result<Effect, ()> {
        if self.mode() != Mode::X2Apic {
            return Err(());
        }
        let allowed = match register {
            reg::TPR | reg::SELF_IPI => 0xff,
            reg::EOI | reg::ESR => 0,
            reg::SVR => u64::from(SVR_BITS | SVR_FOCUS),
            reg::ICR => 0xffff_ffff_0000_0000 | u64::from(ICR_BITS | ICR_STATUS),
            reg::LVT..=reg::LVT_LAST => {
                u64::from(LVT_BITS[(register - reg::LVT) as usize] | LVT_READ_ONLY)
            }
            reg::INITIAL_COUNT => 0xffff_ffff,
            reg::DIVIDE => 0xb,
            _ => return Err(()),
        };
        if value & !allowed != 0 {
            return Err(());
        }
        match register {
            reg::EOI => Ok(self.end_of_interrupt()),
            reg::ICR => Ok(self.command(value & !u64::from(ICR_STATUS))),
            reg::SELF_IPI => Ok(self.send(DeliveryMode::Fixed, value as u8, false, Target::Myself)),
            _ => self.write_common(register, value as u32, time).ok_or(()),
        }
    }

    /// IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&mut self, time: &dyn Time) -> u64 {
        self.advance(time);
        self.timer.deadline()
    }

    /// Sets IA32_TSC_DEADLINE, in ticks of the machine's TSC.
    pub fn set_tsc_deadline(&mut self, tsc: u64, time: &dyn Time) {
        self.advance(time);
        self.timer.set_deadline(tsc);
        self.deadline_changed = true;
        self.advance(time);
    }

    /// Registers that both modes read alike.
    fn read_common(&mut self, register: u32, time: &dyn Time) -> Option<u32> {
        Some(match register {
            reg::VERSION => VERSION,
            reg::TPR => u32::from(self.tpr),
            reg::PPR => u32::from(self.processor_priority()),
            reg::SVR => self.svr,
            reg::ISR..=reg::ISR_LAST => self.isr.register(register - reg::ISR),
            reg::TMR..=reg::TMR_LAST => self.tmr.register(register - reg::TMR),
            reg::IRR..=reg::IRR_LAST => {
                self.advance(time);
                self.irr.register(register - reg::IRR)
            }
            reg::ESR => self.esr,
            reg::ICR => self.icr as u32,
            reg::LVT..=reg::LVT_LAST => self.lvt[(register - reg::LVT) as usize],
            reg::INITIAL_COUNT => self.timer.initial(),
            reg::CURRENT_COUNT => {
                self.advance(time);
                self.timer.current(time)
            }
            reg::DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// Registers that both modes write alike; `None`: no such register, or it is read-only.
    fn write_common(&mut self, register: u32, value: u32, time: &dyn Time) -> Option<Effect> {
        match register {
            reg::TPR => self.tpr = value as u8,
            reg::SVR => return Some(self.write_svr(value)),
            reg::ESR => {
                self.esr = self.errors;
                self.errors = 0;
            }
            reg::LVT..=reg::LVT_LAST => self.write_lvt((register - reg::LVT) as usize, value, time),
            reg::INITIAL_COUNT => {
                self.advance(time);
                self.timer.set_initial(value, time);
                self.deadline_changed = true;
            }
            reg::DIVIDE => {
                self.advance(time);
                self.timer.set_divide(value, time);
                self.deadline_changed = true;
            }
            _ => return None,
        }
        Some(Effect::None)
    }

    fn write_svr(&mut self, value: u32) -> Effect {
        let before = self.svr & SVR_ENABLED;
        self.svr = value & SVR_BITS;
        if self.svr & SVR_ENABLED == 0 {
            // Software-disabled: every entry is masked and stays so (SDM vol. 3A, 11.4.7.2).
            for entry in &mut self.lvt {
                *entry |= lvt::MASKED;
            }
            self.deadline_changed = true;
            return Effect::None;
        }
        if before == 0 {
            Effect::Enabled
        } else {
            Effect::None
        }
    }

    fn write_lvt(&mut self, index: usize, value: u32, time: &dyn Time) {
        if index == lvt::TIMER {
            // What expired under the old entry is delivered, or lost, by its rules.
            self.advance(time);
            self.timer.set_kind(Kind::from_entry(value));
            self.deadline_changed = true;
        }
        let masked = if self.svr & SVR_ENABLED == 0 {
            lvt::MASKED
        } else {
            0
        };
        self.lvt[index] = value & LVT_BITS[index] | masked;
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else {
            return Effect::None;
        };
        self.isr.remove(vector);
        let broadcast = self.tmr.contains(vector) && self.svr & SVR_SUPPRESS_EOI == 0;
        Effect::EndOfInterrupt { vector, broadcast }
    }

    /// Interrupt command register (SDM vol. 3A, 11.6.1).
    fn command(&mut self, value: u64) -> Effect {
        self.icr = value;
        let low = value as u32;
        let (vector, level) = (low as u8, low & 1 << 15 != 0);
        let Some(mode) = DeliveryMode::from_bits(low >> 8) else {
            return Effect::None;
        };
        // INIT level de-assert only synchronizes arbitration IDs, which nothing here has.
        if mode == DeliveryMode::Init && level && low & 1 << 14 == 0 {
            return Effect::None;
        }
        let logical = low & 1 << 11 != 0;
        let target = match (low >> 18 & 3, self.mode()) {
            (1, _) => Target::Myself,
            (2, _) => Target::All,
            (3, _) => Target::Others,
            (_, Mode::X2Apic) => Target::wide((value >> 32) as u32, logical),
            _ => Target::narrow((value >> 56) as u32, logical),
        };
        self.send(mode, vector, level, target)
    }

    fn send(&mut self, mode: DeliveryMode, vector: u8, level: bool, target: Target) -> Effect {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < FIRST_VECTOR => {
                self.raise_error(error::SEND_ILLEGAL_VECTOR);
                Effect::None
            }
            DeliveryMode::ExtInt => Effect::None,
            // An IPI is edge-triggered whatever its trigger bit says (SDM vol. 3A, 11.6.1).
            _ => Effect::Send(Message {
                mode,
                vector,
                level: level && mode == DeliveryMode::Init,
                target,
                sender: Some(self.id),
            }),
        }
    }
}
