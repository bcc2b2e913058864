//! The contract between an engine, which virtualizes processors and memory, and the machine
//! around it. It has the shape of the KVM API: whoever knows one knows the other.
//!
//! A machine holds [`GuestMemory`], one [`Vcpu`] per virtual processor and, where the engine has
//! none of its own, the interrupt hardware as [`LocalDevices`]. Everything that an engine can't
//! finish alone leaves [`Vcpu::run`] as an [`Exit`] with named fields.

mod clock;
mod devices;
mod exit;
mod machine;
mod profile;
mod registers;
mod state;

pub use clock::{Clock, Counted, EPOCH, INSTRUCTIONS_PER_SECOND};
pub use devices::{Kick, LocalDevices, NoLocalDevices, VcpuEvent};
pub use exit::{EngineError, Exit};
pub use machine::{IoAddress, IoEvent, IrqSource, MachineOps};
pub use profile::{HotBlock, ProfileReport};
pub use registers::{DescriptorTable, Registers, Segment, SegmentAttributes, SystemRegisters};
pub use ringfence_memory::GuestMemory;
pub use state::{
    Activity, DebugRegisters, Debugging, Events, Injected, InjectedKind, ProcessorState, STATE_MSRS,
};

use std::fmt::Debug;
use std::sync::Arc;

/// A virtual processor: run it, stop it, look at it.
pub trait Vcpu: Send + Debug {
    /// Makes the interpreter execute everything, where the engine has one to compare its other
    /// means with.
    fn set_interpreter(&mut self, _interpreter: bool) {}

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
    /// The whole state of the processor, by which another engine can go on.
    ///
    /// # Errors
    /// [`EngineError::Host`], and [`EngineError::BadState`] in the middle of an instruction that
    /// waits for a device.
    fn state(&mut self) -> Result<ProcessorState, EngineError>;
    /// Goes on where the processor of `state` stopped.
    ///
    /// # Errors
    /// [`EngineError::BadState`] when a processor of this model can't be in that state.
    fn set_state(&mut self, state: &ProcessorState) -> Result<(), EngineError>;
    /// Makes the processor stop for a debugger, with [`Exit::Debug`].
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] for what this engine can't do.
    fn set_debugging(&mut self, debugging: &Debugging) -> Result<(), EngineError>;
    /// Why a processor of this model can't have these registers, when it can't.
    fn objection(&self, registers: &SystemRegisters) -> Option<&'static str>;
    /// Disassembly of the code around the last instruction, newest last: for error messages.
    fn recent_code(&mut self) -> Vec<String>;
    /// Counts `hertz` times per second of processor time what it goes into; 0 stops.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where an engine has no profiler.
    fn start_profile(&mut self, hertz: u32) -> Result<(), EngineError>;
    /// What was counted since, with listings of the `most` hottest blocks.
    fn profile(&self, most: usize) -> ProfileReport;
    /// Counters of the engine, by name.
    fn statistics(&self) -> Vec<(&'static str, u64)>;
}
