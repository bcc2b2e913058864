//! A machine of one processor around a guest under test.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use ringfence_engine::{Kick, LocalDevices, VcpuEvent};

use crate::layout::PAGE;

/// A machine of one processor: interrupts and memory-mapped values that a test sets, and a stop
/// at each exception.
#[derive(Debug, Default)]
pub struct Mock {
    /// 100h and the vector of the exception that was reported, or zero.
    reported: AtomicU32,
    /// 100h and the vector of an interrupt that waits, or zero.
    pending: AtomicU32,
    kick: OnceLock<Arc<dyn Kick>>,
    /// What a device holds at the addresses from [`DEVICE`] on.
    device: Mutex<Device>,
    /// The device is reached by exits, not inside the engine.
    pub outside: AtomicBool,
}

/// First guest physical address of the mock's device, where no memory is.
pub const DEVICE: u64 = 0x2000_0000;

/// A page of registers, each of which keeps what is written to it.
#[derive(Debug)]
struct Device {
    registers: Vec<u8>,
    accesses: usize,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            registers: vec![0; PAGE as usize],
            accesses: 0,
        }
    }
}

impl Mock {
    /// The processor to stop.
    pub fn attach(&self, kick: Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    /// Whether an exception was reported; [`Mock::take`] takes it.
    pub fn reported(&self) -> bool {
        self.reported.load(Ordering::SeqCst) != 0
    }

    /// The vector of the exception reported since the last time.
    pub fn take(&self) -> Option<u8> {
        let value = self.reported.swap(0, Ordering::SeqCst);
        (value != 0).then_some(value as u8)
    }

    /// Makes an interrupt wait for delivery.
    pub fn raise(&self, vector: u8) {
        self.pending
            .store(0x100 | u32::from(vector), Ordering::SeqCst);
        if let Some(kick) = self.kick.get() {
            kick.notify();
        }
    }

    /// Takes an interrupt back that was not delivered.
    pub fn lower(&self) {
        self.pending.store(0, Ordering::SeqCst);
    }

    fn device(&self) -> std::sync::MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sets the registers of the device.
    ///
    /// # Panics
    /// If `registers` is not a page.
    pub fn set_registers(&self, registers: &[u8]) {
        self.device().registers.copy_from_slice(registers);
    }

    /// The registers of the device, and how often it was accessed.
    pub fn registers(&self) -> (Vec<u8>, usize) {
        let device = self.device();
        (device.registers.clone(), device.accesses)
    }

    /// Loads from the device.
    pub fn load(&self, address: u64, size: u8) -> Option<u64> {
        let mut device = self.device();
        let from = usize::try_from(address.checked_sub(DEVICE)?).ok()?;
        let bytes = device.registers.get(from..from + usize::from(size))?;
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        device.accesses += 1;
        Some(value)
    }

    /// Stores to the device; `false` beyond its registers.
    pub fn store(&self, address: u64, size: u8, value: u64) -> bool {
        let mut device = self.device();
        let from = address
            .checked_sub(DEVICE)
            .and_then(|from| usize::try_from(from).ok());
        let Some(from) = from else { return false };
        let Some(bytes) = device.registers.get_mut(from..from + usize::from(size)) else {
            return false;
        };
        bytes.copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
        device.accesses += 1;
        true
    }
}

impl LocalDevices for Mock {
    fn port_read(&self, _: u32, _: u16, size: u8) -> Option<u32> {
        Some((u64::from(u32::MAX) >> (32 - 8 * u32::from(size))) as u32)
    }
    fn port_write(&self, _: u32, port: u16, _: u8, _: u32) -> bool {
        self.reported
            .store(0x100 | u32::from(port) & 0xff, Ordering::SeqCst);
        if let Some(kick) = self.kick.get() {
            kick.interrupt();
        }
        true
    }
    fn mmio_read(&self, _: u32, address: u64, size: u8) -> Option<u64> {
        if self.outside.load(Ordering::SeqCst) {
            None
        } else {
            self.load(address, size)
        }
    }
    fn mmio_write(&self, _: u32, address: u64, size: u8, value: u64) -> bool {
        !self.outside.load(Ordering::SeqCst) && self.store(address, size, value)
    }
    fn interrupt_pending(&self, _: u32) -> bool {
        self.pending.load(Ordering::SeqCst) != 0
    }
    fn acknowledge_interrupt(&self, _: u32) -> Option<u8> {
        let value = self.pending.swap(0, Ordering::SeqCst);
        (value != 0).then_some(value as u8)
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
