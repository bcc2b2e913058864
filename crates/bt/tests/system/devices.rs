//! The chips, and two ports by which a guest talks to its test.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

use ringfence_chips::Platform;
use ringfence_engine::{Kick, LocalDevices, VcpuEvent};

/// Port that ends the run of a processor.
pub const STOP: u8 = 0xe9;
/// Port whose values are kept.
pub const LOG: u8 = 0xe8;

const STOPPED: u64 = 1 << 32;

/// The platform behind the ports.
#[derive(Debug)]
pub struct Ports {
    platform: Arc<Platform>,
    stops: Vec<AtomicU64>,
    log: Mutex<Vec<(u32, u32)>>,
    kicks: OnceLock<Vec<Arc<dyn Kick>>>,
}

impl Ports {
    pub fn new(platform: Arc<Platform>, count: u32) -> Self {
        let stops = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            platform,
            stops,
            log: Mutex::default(),
            kicks: OnceLock::new(),
        }
    }

    pub fn attach(&self, kicks: Vec<Arc<dyn Kick>>) {
        self.kicks.set(kicks).expect("attached once");
    }

    /// The value that `vcpu` stopped with.
    pub fn take_stop(&self, vcpu: u32) -> Option<u32> {
        let value = self.stops[vcpu as usize].swap(0, SeqCst);
        (value & STOPPED != 0).then_some(value as u32)
    }

    /// Whether `vcpu` has stopped.
    pub fn stopped(&self, vcpu: u32) -> bool {
        self.stops[vcpu as usize].load(SeqCst) & STOPPED != 0
    }

    /// The values written to [`LOG`], each with its processor.
    pub fn take_log(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.log.lock().expect("nobody panics with it"))
    }

    /// How many values were written to [`LOG`].
    pub fn logged(&self) -> usize {
        self.log.lock().expect("nobody panics with it").len()
    }
}

impl LocalDevices for Ports {
    fn port_read(&self, vcpu: u32, port: u16, size: u8) -> Option<u32> {
        self.platform.port_read(vcpu, port, size)
    }
    fn port_write(&self, vcpu: u32, port: u16, size: u8, value: u32) -> bool {
        if port == u16::from(STOP) {
            self.stops[vcpu as usize].store(STOPPED | u64::from(value), SeqCst);
            if let Some(kicks) = self.kicks.get() {
                kicks[vcpu as usize].interrupt();
            }
            return true;
        }
        if port == u16::from(LOG) {
            self.log
                .lock()
                .expect("nobody panics with it")
                .push((vcpu, value));
            return true;
        }
        self.platform.port_write(vcpu, port, size, value)
    }
    fn mmio_read(&self, vcpu: u32, address: u64, size: u8) -> Option<u64> {
        self.platform.mmio_read(vcpu, address, size)
    }
    fn mmio_write(&self, vcpu: u32, address: u64, size: u8, value: u64) -> bool {
        self.platform.mmio_write(vcpu, address, size, value)
    }
    fn interrupt_pending(&self, vcpu: u32) -> bool {
        self.platform.interrupt_pending(vcpu)
    }
    fn acknowledge_interrupt(&self, vcpu: u32) -> Option<u8> {
        self.platform.acknowledge_interrupt(vcpu)
    }
    fn take_event(&self, vcpu: u32) -> Option<VcpuEvent> {
        self.platform.take_event(vcpu)
    }
    fn waits_for_startup(&self, vcpu: u32) -> bool {
        self.platform.waits_for_startup(vcpu)
    }
    fn read_msr(&self, vcpu: u32, index: u32) -> Option<Result<u64, ()>> {
        self.platform.read_msr(vcpu, index)
    }
    fn write_msr(&self, vcpu: u32, index: u32, value: u64) -> Option<Result<(), ()>> {
        self.platform.write_msr(vcpu, index, value)
    }
    fn set_fpu_error(&self, vcpu: u32, active: bool) {
        self.platform.set_fpu_error(vcpu, active);
    }
    fn ignores_fpu_error(&self, vcpu: u32) -> bool {
        self.platform.ignores_fpu_error(vcpu)
    }
    fn task_priority(&self, vcpu: u32) -> u64 {
        self.platform.task_priority(vcpu)
    }
    fn set_task_priority(&self, vcpu: u32, cr8: u64) {
        self.platform.set_task_priority(vcpu, cr8);
    }
}
