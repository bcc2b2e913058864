//! The contract between an engine, which virtualizes processors and memory, and the machine
//! around it. It has the shape of the KVM API: whoever knows one knows the other.
//!
//! A machine holds [`GuestMemory`], one [`Vcpu`] per virtual processor and, where the engine has
//! none of its own, the interrupt hardware as [`LocalDevices`]. Everything that an engine can't
//! finish alone leaves [`Vcpu::run`] as an [`Exit`] with named fields.

mod clock;
mod devices;
mod exit;
mod registers;

pub use clock::Clock;
pub use devices::{Kick, LocalDevices, NoLocalDevices, VcpuEvent};
pub use exit::{EngineError, Exit};
pub use registers::{DescriptorTable, Registers, Segment, SegmentAttributes, SystemRegisters};
pub use ringfence_memory::GuestMemory;

use std::sync::Arc;

/// A virtual processor: run it, stop it, look at it.
pub trait Vcpu: Send {
    /// Runs the guest until something leaves the engine.
    ///
    /// `completion` is the value that finishes the [`Exit::PortIn`] or [`Exit::MmioRead`] that the
    /// previous call returned (KVM's rule: the exit leaves the instruction incomplete, and the
    /// next call completes it). It is ignored after other exits.
    ///
    /// # Errors
    /// [`EngineError`] when the processor can't go on for a reason that is not the guest's.
    fn run(&mut self, completion: u64) -> Result<Exit, EngineError>;

    /// The bytes that finish the [`Exit::PortInString`] which [`Vcpu::run`] returned; what is
    /// missing reads as FFh. Not needed by an engine that never returns it.
    fn answer_string(&mut self, _data: &[u8]) {}

    /// A handle by which other threads make [`Vcpu::run`] return [`Exit::Interrupted`].
    fn kicker(&self) -> Arc<dyn Kick>;

    /// General registers, RIP and RFLAGS.
    fn registers(&self) -> Registers;
    /// Sets general registers, RIP and RFLAGS.
    fn set_registers(&mut self, registers: &Registers);
    /// Segment, control and descriptor-table registers.
    fn system_registers(&self) -> SystemRegisters;
    /// Sets segment, control and descriptor-table registers.
    fn set_system_registers(&mut self, registers: &SystemRegisters);
    /// The XSAVE image (standard format) of x87, SSE and AVX state.
    fn xsave(&self) -> Vec<u8>;
    /// Sets x87, SSE and AVX state from a standard-format XSAVE image.
    ///
    /// # Errors
    /// [`EngineError::BadState`] when the image is not one.
    fn set_xsave(&mut self, image: &[u8]) -> Result<(), EngineError>;
    /// Counters of the engine, by name.
    fn statistics(&self) -> Vec<(&'static str, u64)>;
}
