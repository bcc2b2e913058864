//! What an engine does for a machine as a whole.

use std::fmt::Debug;
use std::os::fd::OwnedFd;

use crate::EngineError;

/// Where an [I/O event](MachineOps::io_event) is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoAddress {
    /// An I/O port.
    Port(u16),
    /// A guest physical address without memory.
    Memory(u64),
}

/// A guest's write that signals an eventfd instead of leaving the engine (KVM_IOEVENTFD).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoEvent {
    /// Where.
    pub address: IoAddress,
    /// Only writes of this many bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Only writes of this value; `None`: of any.
    pub value: Option<u64>,
}

impl IoEvent {
    /// Refuses what no engine can do.
    ///
    /// # Errors
    /// [`EngineError::BadState`].
    pub fn check(&self) -> Result<(), EngineError> {
        let most = match self.address {
            IoAddress::Port(_) => 4,
            IoAddress::Memory(_) => 8,
        };
        let fits = matches!(self.size, 1 | 2 | 4 | 8) && self.size <= most;
        let value = self.value.unwrap_or(0);
        if !fits || self.size < 8 && value >> (self.size * 8) != 0 {
            let what = format!("an I/O event of {} bytes and value {value:#x}", self.size);
            return Err(EngineError::BadState(what));
        }
        Ok(())
    }

    /// Whether a write may be both events.
    pub fn collides(&self, other: &Self) -> bool {
        let values = match (self.value, other.value) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        self.address == other.address && self.size == other.size && values
    }
}

/// What raises an interrupt when an eventfd is signalled (KVM_IRQFD).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqSource {
    /// A rising edge of a global system interrupt.
    Line(u32),
    /// A message-signalled interrupt.
    Msi {
        /// Address.
        address: u64,
        /// Data.
        data: u32,
    },
}

/// The part of an engine that all processors of a machine share. Thread-safe; all may be called
/// while processors run.
pub trait MachineOps: Send + Sync + Debug {
    /// Sets the level of a global system interrupt (0 to 23; 0 to 15 reach the PICs too).
    ///
    /// # Errors
    /// [`EngineError::Host`].
    fn irq_line(&self, gsi: u32, level: bool) -> Result<(), EngineError>;
    /// Delivers a message-signalled interrupt; one that is not valid is dropped.
    ///
    /// # Errors
    /// [`EngineError::Host`].
    fn signal_msi(&self, address: u64, data: u32) -> Result<(), EngineError>;
    /// Signals `fd`, an eventfd, at each such write, which then does not leave the engine.
    ///
    /// # Errors
    /// [`EngineError::BadState`] when the event is there already or its size is none,
    /// [`EngineError::Host`].
    fn add_io_event(&self, event: IoEvent, fd: OwnedFd) -> Result<(), EngineError>;
    /// Undoes [`MachineOps::add_io_event`].
    ///
    /// # Errors
    /// [`EngineError::BadState`] when there is no such event.
    fn remove_io_event(&self, event: IoEvent) -> Result<(), EngineError>;
    /// Raises the interrupt each time `fd`, an eventfd, is signalled; the number by which
    /// [`MachineOps::remove_irq_event`] undoes it.
    ///
    /// # Errors
    /// [`EngineError::Host`].
    fn add_irq_event(&self, source: IrqSource, fd: OwnedFd) -> Result<u32, EngineError>;
    /// Undoes [`MachineOps::add_irq_event`].
    ///
    /// # Errors
    /// [`EngineError::BadState`] when there is none of that number.
    fn remove_irq_event(&self, number: u32) -> Result<(), EngineError>;
    /// Raises SMI# at processor `vcpu`: it enters system-management mode.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when the engine has no such mode.
    fn smi(&self, _vcpu: u32) -> Result<(), EngineError> {
        Err(EngineError::Unsupported {
            engine: "this",
            reason: "it has no system-management mode".into(),
        })
    }
    /// Answers double-word reads of the ACPI power management timer at `port` without an exit, or
    /// not any more. An engine that can't leaves them to the device.
    fn set_pm_timer(&self, _port: Option<u16>) {}
    /// Whether there are high precision event timers at FED0_0000h.
    fn has_hpet(&self) -> bool {
        false
    }
}
