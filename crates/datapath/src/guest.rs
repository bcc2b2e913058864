//! One look at the memory map, for the accesses of one operation on a ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use ringfence_memory::{GuestMemory, Region, RegionKind};

use crate::queue::QueueError;

/// The map as it was when the operation began.
pub(crate) struct Map(Arc<Vec<Arc<Region>>>);

impl Map {
    pub(crate) fn new(memory: &GuestMemory) -> Self {
        Self(memory.regions())
    }

    /// The region that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Arc<Region>> {
        let next = self.0.partition_point(|region| region.start <= address);
        let region = self.0.get(next.checked_sub(1)?)?;
        (address - region.start < region.size).then_some(region)
    }

    /// Whether all of a range is memory, and RAM if it is to be written to.
    pub(crate) fn covers(&self, address: u64, length: u64, write: bool) -> bool {
        let Some(end) = address.checked_add(length) else {
            return false;
        };
        let mut at = address;
        while at < end {
            match self.find(at) {
                Some(region) if !write || region.kind == RegionKind::Ram => {
                    at = region.start + region.size;
                }
                _ => return false,
            }
        }
        true
    }

    /// The `size` bytes at `address`, within one region.
    fn piece(
        &self,
        address: u64,
        size: u64,
        write: bool,
    ) -> Result<(&Region, *mut u8), QueueError> {
        let outside = QueueError::Unmapped { address };
        let region = self.find(address).ok_or(outside)?;
        let room = region.start + region.size - address;
        let refused = write && region.kind != RegionKind::Ram;
        if room < size || refused || !address.is_multiple_of(size.min(4)) {
            return Err(QueueError::Unmapped { address });
        }
        Ok((region, region.host(address)))
    }

    /// Loads 16 bits; what the driver wrote before them is visible.
    pub(crate) fn load16(&self, address: u64) -> Result<u16, QueueError> {
        let (_, host) = self.piece(address, 2, false)?;
        // SAFETY: `piece` gives two aligned bytes of guest memory, which the guest accesses
        // concurrently as processors do.
        let value = unsafe { &*host.cast::<AtomicU16>() }.load(Ordering::Acquire);
        Ok(u16::from_le(value))
    }

    /// Stores 16 bits after everything that was written before.
    pub(crate) fn store16(&self, address: u64, value: u16) -> Result<(), QueueError> {
        let (region, host) = self.piece(address, 2, true)?;
        // SAFETY: as in `load16`.
        unsafe { &*host.cast::<AtomicU16>() }.store(value.to_le(), Ordering::Release);
        note(region, address, 2);
        Ok(())
    }

    /// Stores 32 bits.
    pub(crate) fn store32(&self, address: u64, value: u32) -> Result<(), QueueError> {
        let (region, host) = self.piece(address, 4, true)?;
        // SAFETY: `piece` gives four aligned bytes.
        unsafe { &*host.cast::<AtomicU32>() }.store(value.to_le(), Ordering::Relaxed);
        note(region, address, 4);
        Ok(())
    }

    /// Loads the four words of a descriptor, 16 bytes.
    pub(crate) fn descriptor(&self, address: u64) -> Result<Descriptor, QueueError> {
        let mut raw = [0u8; 16];
        let mut done = 0;
        // An indirect table need not be aligned, nor lie in one region.
        while done < raw.len() {
            let at = address.wrapping_add(done as u64);
            let region = self.find(at).ok_or(QueueError::Unmapped { address: at })?;
            let count = (raw.len() - done).min((region.start + region.size - at) as usize);
            // SAFETY: `count` bytes at `at` lie in the region, and `raw` has room for them.
            unsafe {
                std::ptr::copy_nonoverlapping(region.host(at), raw[done..].as_mut_ptr(), count);
            }
            done += count;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
        Ok(Descriptor {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            length: u32::from_le_bytes([i, j, k, l]),
            third: u16::from_le_bytes([m, n]),
            fourth: u16::from_le_bytes([o, p]),
        })
    }
}

/// A descriptor of either kind of ring: in split ones `third` is flags and `fourth` next, in packed
/// ones `third` is the buffer's number and `fourth` flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub third: u16,
    pub fourth: u16,
}

/// Tells processors and the dirty log of a write that lies in `region`.
pub(crate) fn note(region: &Region, address: u64, length: u64) {
    // The range was checked, so the only error there is cannot come.
    let _ = region.memory().written(region.offset_of(address), length);
}
