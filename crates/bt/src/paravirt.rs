//! What a guest that knows KVM's paravirtual interface gets from this engine.
//!
//! Source: Linux, Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst. The features are in leaf
//! 4000_0101h, behind the signature in 4000_0100h, of processors with `+kvm`:
//!
//! - the clock (system time and wall clock), whose one scale holds for all processors;
//! - steal time, and with it the state "preempted", through which others leave TLB flushes to a
//!   processor that does not run;
//! - end of interrupt by clearing a bit instead of writing to the local APIC;
//! - the hypercalls SCHED_YIELD and KICK_CPU.
//!
//! The addresses that a guest gives are physical ones and hostile: where no memory is, nothing is
//! written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_engine::{Clock, EPOCH, LocalDevices};
use ringfence_memory::{GuestMemory, RegionKind};

/// Wall clock, system time, steal time and end of interrupt.
pub const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
/// See [`MSR_WALL_CLOCK`].
pub const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// See [`MSR_WALL_CLOCK`].
pub const MSR_STEAL_TIME: u32 = 0x4b56_4d03;
/// See [`MSR_WALL_CLOCK`].
pub const MSR_PV_EOI: u32 = 0x4b56_4d04;

/// Hypercalls, by RAX.
pub mod hypercall {
    /// Wakes a processor that waits in HLT: RBX flags, RCX its APIC ID.
    pub const KICK_CPU: u64 = 5;
    /// Lets a processor that was preempted run: RBX its APIC ID.
    pub const SCHED_YIELD: u64 = 11;
    /// Not known (-KVM_ENOSYS).
    pub const NO_SUCH_CALL: u64 = -1000i64 as u64;
    /// Not from that privilege level (-KVM_EPERM).
    pub const NOT_PERMITTED: u64 = -1i64 as u64;
}

/// Bit 0 of an MSR: the structure at the address is in use.
const ENABLED: u64 = 1;
/// PVCLOCK_TSC_STABLE_BIT: time goes on alike on all processors.
const TSC_STABLE: u8 = 1;
/// States of `kvm_steal_time.preempted`.
const PREEMPTED: u8 = 1;
const FLUSH_TLB: u8 = 2;
const PREEMPTED_AT: u64 = 16;
/// How often the host is asked for the time that it took, in nanoseconds.
const STEAL_PERIOD: u64 = 50_000_000;

/// The paravirtual state of one virtual processor.
#[derive(Debug)]
pub struct Paravirt {
    memory: Arc<GuestMemory>,
    clock: Arc<Clock>,
    wall_clock: u64,
    system_time: u64,
    steal_time: u64,
    pv_eoi: u64,
    /// The guest may end the interrupt in service by clearing the bit.
    eoi_pending: bool,
    /// Scheduler statistics of the thread that runs the processor, when it was first looked at.
    schedule: Option<File>,
    stolen: u64,
    delay_before: Option<u64>,
    next_look: u64,
}

impl Paravirt {
    /// Nothing in use.
    pub fn new(memory: Arc<GuestMemory>, clock: Arc<Clock>) -> Self {
        Self {
            memory,
            clock,
            wall_clock: 0,
            system_time: 0,
            steal_time: 0,
            pv_eoi: 0,
            eoi_pending: false,
            schedule: None,
            stolen: 0,
            delay_before: None,
            next_look: 0,
        }
    }

    /// INIT, or a reset of the machine: nothing is in use any more.
    pub fn reset(&mut self) {
        (self.wall_clock, self.system_time) = (0, 0);
        (self.steal_time, self.pv_eoi) = (0, 0);
        self.eoi_pending = false;
    }

    /// RDMSR of one of these registers.
    pub fn read_msr(&self, index: u32) -> Option<u64> {
        match index {
            MSR_WALL_CLOCK => Some(self.wall_clock),
            MSR_SYSTEM_TIME => Some(self.system_time),
            MSR_STEAL_TIME => Some(self.steal_time),
            MSR_PV_EOI => Some(self.pv_eoi),
            _ => None,
        }
    }

    /// WRMSR; `tsc_adjust` is what the guest added to its TSC. `Some(false)` is #GP.
    pub fn write_msr(&mut self, index: u32, value: u64, tsc_adjust: u64) -> Option<bool> {
        match index {
            MSR_WALL_CLOCK => {
                self.wall_clock = value;
                self.write_wall_clock(value & !3);
            }
            MSR_SYSTEM_TIME => {
                self.system_time = value;
                self.write_system_time(tsc_adjust);
            }
            MSR_STEAL_TIME => {
                // 64-byte aligned, bits 5:1 are reserved.
                if value & 0x3e != 0 {
                    return Some(false);
                }
                self.steal_time = value;
                self.next_look = 0;
                self.delay_before = None;
                self.account();
            }
            MSR_PV_EOI => {
                if value & 2 != 0 {
                    return Some(false);
                }
                self.pv_eoi = value;
                self.eoi_pending = false;
            }
            _ => return None,
        }
        Some(true)
    }

    /// The guest has changed its TSC: the scale starts elsewhere.
    pub fn tsc_changed(&mut self, tsc_adjust: u64) {
        self.write_system_time(tsc_adjust);
    }

    /// `struct pvclock_wall_clock`: the time of day at the machine's time zero.
    fn write_wall_clock(&self, address: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos() as u64;
        let start = match self.clock.counted() {
            Some(_) => EPOCH,
            None => now.saturating_sub(self.clock.nanoseconds()),
        };
        let mut data = [0; 12];
        data[0..4].copy_from_slice(&2u32.to_le_bytes());
        data[4..8].copy_from_slice(&((start / 1_000_000_000) as u32).to_le_bytes());
        data[8..12].copy_from_slice(&((start % 1_000_000_000) as u32).to_le_bytes());
        let _ = self.memory.write(address, &data);
    }

    /// `struct pvclock_vcpu_time_info`: the scale from TSC to nanoseconds. Its origin is the
    /// machine's time zero, so it is the same on all processors and never needs to be renewed.
    fn write_system_time(&self, tsc_adjust: u64) {
        if self.system_time & ENABLED == 0 {
            return;
        }
        let (multiplier, shift) = scale(self.clock.tsc_hz());
        let mut data = [0; 32];
        data[0..4].copy_from_slice(&2u32.to_le_bytes());
        data[8..16].copy_from_slice(&tsc_adjust.to_le_bytes());
        data[24..28].copy_from_slice(&multiplier.to_le_bytes());
        data[28] = shift as u8;
        data[29] = TSC_STABLE;
        let _ = self.memory.write(self.system_time & !ENABLED, &data);
    }

    /// Adds the time for which the host let the processor's thread wait to what the guest sees of
    /// it; does nothing more often than every 50 ms.
    pub fn account(&mut self) {
        if self.steal_time & ENABLED == 0 {
            return;
        }
        let now = self.clock.nanoseconds();
        if now < self.next_look {
            return;
        }
        self.next_look = now + STEAL_PERIOD;
        let delay = self.delay();
        if let Some(before) = self.delay_before {
            self.stolen += delay.saturating_sub(before);
        } else {
            // The structure's version is even while it is not being changed.
            self.put(8, &2u32.to_le_bytes());
        }
        self.delay_before = Some(delay);
        self.put(0, &self.stolen.to_le_bytes());
    }

    /// Nanoseconds that this thread has waited for a processor of the host.
    fn delay(&mut self) -> u64 {
        if self.clock.counted().is_some() {
            return 0;
        }
        if self.schedule.is_none() {
            self.schedule = File::open("/proc/thread-self/schedstat").ok();
        }
        let Some(file) = &self.schedule else { return 0 };
        let mut text = [0; 96];
        let count = file.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(&text[..count]).unwrap_or_default();
        let second = text.split_ascii_whitespace().nth(1);
        second.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn put(&self, offset: u64, data: &[u8]) {
        let _ = self.memory.write((self.steal_time & !0x3f) + offset, data);
    }

    /// The processor stops running, for it waits in HLT.
    pub fn halt_begins(&self) {
        if self.steal_time & ENABLED != 0 {
            self.swap_preempted(PREEMPTED);
        }
    }

    /// The processor runs again; whether another one has left it a flush of its TLB.
    pub fn halt_ends(&self) -> bool {
        self.steal_time & ENABLED != 0 && self.swap_preempted(0) & FLUSH_TLB != 0
    }

    fn swap_preempted(&self, value: u8) -> u8 {
        let address = (self.steal_time & !0x3f) + PREEMPTED_AT;
        match self.memory.region(address) {
            Some(region) if region.kind == RegionKind::Ram => {
                // SAFETY: the byte lies in the region, which lives through the access.
                let byte = unsafe { &*region.host(address).cast::<AtomicU8>() };
                byte.swap(value, Ordering::SeqCst)
            }
            _ => 0,
        }
    }

    /// Before interrupts are looked at: ends the one in service if the guest has cleared the bit,
    /// and else takes the offer back.
    pub fn take_eoi(&mut self, devices: &dyn LocalDevices, vcpu: u32) {
        if self.eoi_pending {
            self.eoi_pending = false;
            if self.swap_eoi(0) & 1 == 0 {
                devices.end_of_interrupt(vcpu);
            }
        }
    }

    /// An interrupt begins its service: offers that its end be a cleared bit, if nothing else waits
    /// and nobody but the local APIC need hear of it.
    pub fn offer_eoi(&mut self, devices: &dyn LocalDevices, vcpu: u32) {
        // When the bit is looked at depends on the host: no deterministic machine may show it.
        let counted = self.clock.counted().is_some();
        if !counted && self.pv_eoi & ENABLED != 0 && devices.end_can_wait(vcpu) {
            self.eoi_pending = true;
            self.swap_eoi(1);
        }
    }

    fn swap_eoi(&self, value: u32) -> u32 {
        let address = self.pv_eoi & !3;
        match self.memory.region(address) {
            Some(region) if region.kind == RegionKind::Ram => {
                // SAFETY: the aligned word lies in the region, which lives through the access.
                let word = unsafe { &*region.host(address).cast::<AtomicU32>() };
                word.swap(value, Ordering::SeqCst)
            }
            // Where no memory is the guest can't clear it: it writes to the local APIC.
            _ => 1,
        }
    }
}

/// Multiplier and shift by which ticks become nanoseconds: `(ticks << shift) * multiplier >> 32`,
/// shifted right for a negative shift.
fn scale(hz: u64) -> (u32, i8) {
    const NANOSECONDS: u128 = 1_000_000_000;
    let hz = u128::from(hz.max(1));
    // The multiplier uses all its bits: half a tick in four thousand million is the error.
    let mut shift = 0i8;
    let value = |shift: i8| {
        if shift >= 0 {
            (NANOSECONDS << 32) / (hz << shift)
        } else {
            (NANOSECONDS << (32 + u32::from(shift.unsigned_abs()))) / hz
        }
    };
    while value(shift) > u128::from(u32::MAX) && shift < 32 {
        shift += 1;
    }
    while shift > -31 && value(shift - 1) <= u128::from(u32::MAX) {
        shift -= 1;
    }
    (value(shift) as u32, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(ticks: u64, multiplier: u32, shift: i8) -> u64 {
        let ticks = if shift >= 0 {
            ticks << shift
        } else {
            ticks >> shift.unsigned_abs()
        };
        ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
    }

    #[test]
    fn scales_are_exact_to_a_millionth() {
        for hz in [
            1_000_000,
            999_999_999,
            1_000_000_000,
            2_596_000_000,
            5_700_000_000,
        ] {
            let (multiplier, shift) = scale(hz);
            assert!(multiplier >= 1 << 30, "{hz}: {multiplier:#x} {shift}");
            let hour = nanoseconds(hz * 3600, multiplier, shift);
            let error = hour.abs_diff(3_600_000_000_000);
            assert!(error < 3_600_000, "{hz}: {error} ns in an hour");
        }
    }

    fn bench() -> (Arc<GuestMemory>, Paravirt) {
        let memory = Arc::new(GuestMemory::new());
        memory.map(0, 0x4000, RegionKind::Ram).unwrap();
        let paravirt = Paravirt::new(Arc::clone(&memory), Arc::new(Clock::new()));
        (memory, paravirt)
    }

    fn read<const N: usize>(memory: &GuestMemory, at: u64) -> [u8; N] {
        let mut out = [0; N];
        memory.read(at, &mut out).unwrap();
        out
    }

    #[test]
    fn clocks_are_written_where_the_guest_says() {
        let (memory, mut paravirt) = bench();
        assert_eq!(paravirt.write_msr(MSR_SYSTEM_TIME, 0x1001, 77), Some(true));
        assert_eq!(paravirt.read_msr(MSR_SYSTEM_TIME), Some(0x1001));
        let info: [u8; 32] = read(&memory, 0x1000);
        assert_eq!(u32::from_le_bytes(info[0..4].try_into().unwrap()) & 1, 0);
        assert_eq!(u64::from_le_bytes(info[8..16].try_into().unwrap()), 77);
        assert_eq!(info[29], TSC_STABLE);
        paravirt.write_msr(MSR_WALL_CLOCK, 0x2000, 0);
        let wall: [u8; 12] = read(&memory, 0x2000);
        let seconds = u32::from_le_bytes(wall[4..8].try_into().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.as_secs() - u64::from(seconds) < 100);
        // Where no memory is, nothing happens.
        assert_eq!(paravirt.write_msr(MSR_SYSTEM_TIME, !0, 0), Some(true));
        assert_eq!(paravirt.write_msr(0x4b56_4d05, 0, 0), None);
    }

    #[test]
    fn a_processor_in_hlt_is_preempted() {
        let (memory, mut paravirt) = bench();
        assert_eq!(paravirt.write_msr(MSR_STEAL_TIME, 0x1003, 0), Some(false));
        assert_eq!(paravirt.write_msr(MSR_STEAL_TIME, 0x1001, 0), Some(true));
        paravirt.halt_begins();
        assert_eq!(read(&memory, 0x1010), [PREEMPTED]);
        assert!(!paravirt.halt_ends());
        paravirt.halt_begins();
        memory.write(0x1010, &[PREEMPTED | FLUSH_TLB]).unwrap();
        assert!(paravirt.halt_ends());
        assert_eq!(read(&memory, 0x1010), [0]);
    }
}
