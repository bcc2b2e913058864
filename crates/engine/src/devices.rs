//! What an engine asks of the interrupt hardware that sits beside it.

use std::fmt::Debug;

/// IA32_APIC_BASE, the EOI register of x2APIC mode, and that of xAPIC mode (SDM vol. 3A, 11.5).
const APIC_BASE: u32 = 0x1b;
const X2APIC_EOI: u32 = 0x80b;
const APIC_EOI: u64 = 0xb0;

/// Makes a virtual processor look up from what it does. Cheap, from any thread.
pub trait Kick: Send + Sync + Debug {
    /// An interrupt or another [`VcpuEvent`] may be pending: leave `HLT` and translated code at
    /// the next poll and look at [`LocalDevices`]. Does not make `run` return.
    fn notify(&self);
    /// Make [`run`](crate::Vcpu::run) return [`Exit::Interrupted`](crate::Exit::Interrupted) as
    /// soon as the current instruction has ended; if the processor is not running, the next
    /// `run` returns at once.
    fn interrupt(&self);
}

/// What the interrupt hardware has for a processor, in order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuEvent {
    /// INIT: reset to the wait-for-SIPI state.
    Init,
    /// Start-up IPI with its vector: begin in real mode at `vector << 12`.
    Startup(u8),
    /// System-management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
}

/// Devices that are reached per interrupt or in polling loops, and so live inside the engine's
/// process without an exit: PICs, PIT, local and I/O APICs.
///
/// Methods are called from the thread of virtual processor `vcpu`, without any lock of the engine
/// held. `None` or `false` means: no such device here, leave the engine with an exit.
pub trait LocalDevices: Send + Sync + Debug {
    /// Reads `size` (1, 2, 4) bytes from an I/O port.
    fn port_read(&self, vcpu: u32, port: u16, size: u8) -> Option<u32>;
    /// Writes `size` bytes to an I/O port.
    fn port_write(&self, vcpu: u32, port: u16, size: u8, value: u32) -> bool;
    /// Reads `size` (1 to 8) bytes at a guest physical address without memory.
    fn mmio_read(&self, vcpu: u32, address: u64, size: u8) -> Option<u64>;
    /// Writes `size` bytes at a guest physical address without memory.
    fn mmio_write(&self, vcpu: u32, address: u64, size: u8, value: u64) -> bool;
    /// Whether a maskable interrupt waits that the local APIC (or the PIC through LINT0) would
    /// deliver now.
    fn interrupt_pending(&self, vcpu: u32) -> bool;
    /// Acknowledges that interrupt and returns its vector.
    fn acknowledge_interrupt(&self, vcpu: u32) -> Option<u8>;
    /// Takes the most urgent event for `vcpu`.
    fn take_event(&self, vcpu: u32) -> Option<VcpuEvent>;
    /// Whether `vcpu` waits for a start-up IPI and must not run.
    fn waits_for_startup(&self, vcpu: u32) -> bool;
    /// RDMSR of an APIC register (IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC). `Some(Err(()))`
    /// is #GP.
    #[allow(clippy::result_unit_err)]
    fn read_msr(&self, vcpu: u32, index: u32) -> Option<Result<u64, ()>>;
    /// WRMSR of an APIC register. `Some(Err(()))` is #GP.
    #[allow(clippy::result_unit_err)]
    fn write_msr(&self, vcpu: u32, index: u32, value: u64) -> Option<Result<(), ()>>;
    /// Ends the interrupt in service, as a write to the EOI register does.
    fn end_of_interrupt(&self, vcpu: u32) {
        let x2apic = self.write_msr(vcpu, X2APIC_EOI, 0);
        if x2apic != Some(Ok(()))
            && let Some(Ok(base)) = self.read_msr(vcpu, APIC_BASE)
        {
            self.mmio_write(vcpu, (base & !0xfff) + APIC_EOI, 4, 0);
        }
    }
    /// Whether the end of the interrupt in service may come late: nothing else waits, and nobody
    /// but the local APIC need hear of it.
    fn end_can_wait(&self, _vcpu: u32) -> bool {
        false
    }
    /// Makes the processor with this APIC ID leave HLT, or not enter it next time.
    fn wake(&self, _apic_id: u32) {}
    /// Whether [`LocalDevices::wake`] was called for `vcpu` since the last time.
    fn take_wake(&self, _vcpu: u32) -> bool {
        false
    }
    /// FERR#: an unmasked x87 exception waits while CR0.NE is clear.
    fn set_fpu_error(&self, _vcpu: u32, _active: bool) {}
    /// IGNNE#: x87 instructions go on in spite of FERR#.
    fn ignores_fpu_error(&self, _vcpu: u32) -> bool {
        false
    }
    /// In a deterministic machine: when a timer is due, in nanoseconds of the machine's clock.
    fn deadline(&self) -> u64 {
        u64::MAX
    }
    /// In a deterministic machine: serves the timers that are due.
    fn serve_timers(&self) {}
    /// CR8: bits 7:4 of the task-priority register.
    fn task_priority(&self, vcpu: u32) -> u64;
    /// Sets CR8.
    fn set_task_priority(&self, vcpu: u32, cr8: u64);
}

/// A machine without interrupt hardware: every access leaves the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLocalDevices;

impl LocalDevices for NoLocalDevices {
    fn port_read(&self, _: u32, _: u16, _: u8) -> Option<u32> {
        None
    }
    fn port_write(&self, _: u32, _: u16, _: u8, _: u32) -> bool {
        false
    }
    fn mmio_read(&self, _: u32, _: u64, _: u8) -> Option<u64> {
        None
    }
    fn mmio_write(&self, _: u32, _: u64, _: u8, _: u64) -> bool {
        false
    }
    fn interrupt_pending(&self, _: u32) -> bool {
        false
    }
    fn acknowledge_interrupt(&self, _: u32) -> Option<u8> {
        None
    }
    fn take_event(&self, _: u32) -> Option<VcpuEvent> {
        None
    }
    fn waits_for_startup(&self, _: u32) -> bool {
        false
    }
    fn read_msr(&self, _: u32, _: u32) -> Option<Result<u64, ()>> {
        None
    }
    fn write_msr(&self, _: u32, _: u32, _: u64) -> Option<Result<(), ()>> {
        None
    }
    fn task_priority(&self, _: u32) -> u64 {
        0
    }
    fn set_task_priority(&self, _: u32, _: u64) {}
}
