//! Guest physical memory as one virtual processor sees it: a snapshot of the map.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringfence_memory::{GuestMemory, Region, RegionKind};

/// Where a guest physical address leads.
#[derive(Debug)]
pub struct Place<'a> {
    /// Host address of the byte.
    pub host: *mut u8,
    /// Writes are allowed.
    pub ram: bool,
    /// Processors with code translated from the page.
    pub holders: &'a AtomicU64,
    /// Processors that may write to the page without asking.
    pub writers: &'a AtomicU64,
}

/// The regions of guest memory, refreshed when the map changes.
#[derive(Debug)]
pub struct Phys {
    memory: Arc<GuestMemory>,
    regions: Arc<Vec<Arc<Region>>>,
    generation: u64,
}

impl Phys {
    /// A snapshot of `memory`.
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        Self {
            generation: memory.generation(),
            regions: memory.regions(),
            memory,
        }
    }

    /// Takes a new snapshot if the map changed; returns whether it did.
    pub fn refresh(&mut self) -> bool {
        let generation = self.memory.generation();
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        self.regions = self.memory.regions();
        true
    }

    /// The memory behind the snapshot.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The place of guest physical address `gpa`, if memory is there.
    pub fn place(&self, gpa: u64) -> Option<Place<'_>> {
        let region = self
            .regions
            .iter()
            .find(|r| gpa.wrapping_sub(r.start) < r.size)?;
        Some(Place {
            host: region.host(gpa),
            ram: region.kind == RegionKind::Ram,
            holders: region.holders(gpa),
            writers: region.writers(gpa),
        })
    }

    /// Reads an aligned paging-structure entry of 8 or 4 bytes; no memory reads as all ones, as a
    /// bus does.
    pub fn read_entry(&self, gpa: u64, wide: bool) -> u64 {
        let Some(place) = self.place(gpa) else {
            return u64::MAX;
        };
        // SAFETY: entries are aligned, so they lie within the page at `host`; other processors
        // write them atomically.
        unsafe {
            if wide {
                (*place.host.cast::<AtomicU64>()).load(Ordering::Acquire)
            } else {
                u64::from((*place.host.cast::<AtomicU32>()).load(Ordering::Acquire))
            }
        }
    }

    /// Sets bits in an entry, unless it changed from `old` meanwhile; ROM ignores it.
    pub fn set_entry_bits(&self, gpa: u64, wide: bool, old: u64, bits: u64) -> bool {
        let Some(place) = self.place(gpa).filter(|p| p.ram) else {
            return true;
        };
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: as in `read_entry`.
        unsafe {
            if wide {
                let entry = &*place.host.cast::<AtomicU64>();
                entry
                    .compare_exchange(old, old | bits, success, failure)
                    .is_ok()
            } else {
                let entry = &*place.host.cast::<AtomicU32>();
                let new = (old | bits) as u32;
                entry
                    .compare_exchange(old as u32, new, success, failure)
                    .is_ok()
            }
        }
    }
}
