//! Guest physical memory as one virtual processor sees it: a snapshot of the map.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringfence_memory::{Changes, GuestMemory, Region, RegionKind, Snapshot};

/// Where a guest physical address leads.
#[derive(Debug)]
pub struct Place<'a> {
    /// Host address of the byte.
    pub host: *mut u8,
    /// Writes are allowed.
    pub ram: bool,
    /// The region of guest memory.
    pub region: &'a Region,
    /// Processors with code translated from the page.
    pub holders: &'a AtomicU64,
    /// Processors that may write to the page without asking.
    pub writers: &'a AtomicU64,
    /// Where stores to the page are logged: a word and a bit in it.
    pub dirty: Option<(&'a AtomicU64, u64)>,
}

impl Place<'_> {
    /// The page is about to be written to: logs it.
    pub fn mark_dirty(&self) {
        if let Some((word, bit)) = self.dirty
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// A store to the page would have to be logged.
    pub fn is_clean(&self) -> bool {
        self.dirty
            .is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit == 0)
    }
}

/// The regions of guest memory, refreshed when the map changes.
#[derive(Debug)]
pub struct Phys {
    memory: Arc<GuestMemory>,
    /// What the processor sees now.
    regions: Arc<Vec<Arc<Region>>>,
    snapshot: Snapshot,
    smm: bool,
    mask: u64,
}

impl Phys {
    /// A snapshot of `memory`.
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        let snapshot = memory.snapshot();
        Self {
            regions: Arc::clone(&snapshot.regions),
            snapshot,
            smm: false,
            mask: memory.address_mask(),
            memory,
        }
    }

    /// What has changed since the snapshot, and a new one; `None` if nothing has.
    pub fn changes(&self) -> Option<(Changes, Snapshot)> {
        let generation = self.snapshot.generation;
        if self.memory.generation() == generation {
            return None;
        }
        let snapshot = self.memory.snapshot();
        let changes = self.memory.changes(generation, snapshot.generation);
        Some((changes, snapshot))
    }

    /// Takes a new snapshot.
    pub fn refresh(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        self.set_smm(self.smm);
    }

    /// Whether memory is seen that is for system-management mode alone.
    pub fn in_smm(&self) -> bool {
        self.smm
    }

    /// Changes to the view of system-management mode, or back.
    pub fn set_smm(&mut self, smm: bool) {
        self.smm = smm;
        self.regions = Arc::clone(if smm {
            &self.snapshot.smm
        } else {
            &self.snapshot.regions
        });
    }

    /// Ranges that system-management mode sees otherwise.
    pub fn smram(&self) -> Vec<(u64, u64)> {
        let overlays = self.snapshot.overlays.iter();
        overlays.map(|r| (r.start, r.start + r.size)).collect()
    }

    /// Follows A20; returns whether it changed.
    pub fn refresh_mask(&mut self) -> bool {
        let mask = self.memory.address_mask();
        std::mem::replace(&mut self.mask, mask) != mask
    }

    /// What physical addresses of the processor are masked with: A20.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// The memory behind the snapshot.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The place of guest physical address `gpa`, if memory is there.
    pub fn place(&self, gpa: u64) -> Option<Place<'_>> {
        let next = self.regions.partition_point(|r| r.start <= gpa);
        let region = &**self.regions.get(next.checked_sub(1)?)?;
        if gpa - region.start >= region.size {
            return None;
        }
        Some(Place {
            host: region.host(gpa),
            ram: region.kind == RegionKind::Ram,
            region,
            dirty: region.dirty(gpa),
            holders: region.holders(gpa),
            writers: region.writers(gpa),
        })
    }

    /// Reads an aligned paging-structure entry of 8 or 4 bytes; no memory reads as all ones, as a
    /// bus does.
    pub fn read_entry(&self, gpa: u64, wide: bool) -> u64 {
        let Some(place) = self.place(gpa & self.mask) else {
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
        let Some(place) = self.place(gpa & self.mask).filter(|p| p.ram) else {
            return true;
        };
        place.mark_dirty();
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
