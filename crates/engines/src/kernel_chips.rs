//! What is left to serve where the interrupt hardware is the kernel's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use ringfence_chips::VideoSlot;
use ringfence_engine::{LocalDevices, VcpuEvent};
use ringfence_x86::msr;

/// The VGA; CR8 and IA32_APIC_BASE of one processor, which come and go with its state. The chips themselves
/// are the kernel's: an access to their registers leaves the engine.
#[derive(Debug)]
pub struct KernelChips {
    video: Arc<VideoSlot>,
    cr8: AtomicU64,
    apic_base: AtomicU64,
}

impl KernelChips {
    /// For a machine whose VGA is attached at `video`.
    pub fn new(video: Arc<VideoSlot>) -> Self {
        Self {
            video,
            cr8: AtomicU64::new(0),
            apic_base: AtomicU64::new(0),
        }
    }
}

impl LocalDevices for KernelChips {
    fn port_read(&self, _: u32, port: u16, size: u8) -> Option<u32> {
        self.video.port_read(port, size)
    }
    fn port_write(&self, _: u32, port: u16, size: u8, value: u32) -> bool {
        self.video.port_write(port, size, value)
    }
    fn mmio_read(&self, _: u32, address: u64, size: u8) -> Option<u64> {
        self.video.mmio_read(address, size)
    }
    fn mmio_write(&self, _: u32, address: u64, size: u8, value: u64) -> bool {
        self.video.mmio_write(address, size, value)
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
    fn read_msr(&self, _: u32, index: u32) -> Option<Result<u64, ()>> {
        (index == msr::IA32_APIC_BASE).then(|| Ok(self.apic_base.load(SeqCst)))
    }
    fn write_msr(&self, _: u32, index: u32, value: u64) -> Option<Result<(), ()>> {
        (index == msr::IA32_APIC_BASE).then(|| {
            self.apic_base.store(value, SeqCst);
            Ok(())
        })
    }
    fn task_priority(&self, _: u32) -> u64 {
        self.cr8.load(SeqCst)
    }
    fn set_task_priority(&self, _: u32, cr8: u64) {
        self.cr8.store(cr8, SeqCst);
    }
}
