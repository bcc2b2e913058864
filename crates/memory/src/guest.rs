//! The map from guest physical addresses to host memory.

use std::fmt::Debug;
use std::io;
use std::ptr::{copy_nonoverlapping, write_bytes};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

use crate::Mapping;

/// Size in bytes of the pages that flags are kept for.
pub const PAGE_SIZE: u64 = 4096;
/// How many processors may hold translated code of one machine's memory.
pub const MAX_HOLDERS: usize = 64;

/// One who keeps code translated from guest memory: a virtual processor's engine.
pub trait CodeHolder: Send + Sync + Debug {
    /// Bytes `[start, end)` of a page that the holder has code of were written to.
    fn code_written(&self, start: u64, end: u64);
    /// The holder is to clear its bit in [`Region::writers`] of this page and to ask from then on.
    fn withdraw_write(&self, page: u64);
    /// Whether the holder may be writing to pages right now. One that may not answers
    /// [`CodeHolder::withdraw_write`] before it writes again.
    fn may_write(&self) -> bool;
}

/// What a guest may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Read, write and execute.
    Ram,
    /// Read and execute; writes leave the engine as memory-mapped writes.
    Rom,
}

/// A contiguous range of guest physical memory.
#[derive(Debug)]
pub struct Region {
    /// First guest physical address, page-aligned.
    pub start: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// RAM or ROM.
    pub kind: RegionKind,
    mapping: Mapping,
    holders: PageBits,
    writers: PageBits,
}

impl Region {
    /// Host address of the byte at guest physical address `gpa`, which must lie in the region.
    pub fn host(&self, gpa: u64) -> *mut u8 {
        debug_assert!(gpa >= self.start && gpa - self.start < self.size);
        self.mapping
            .as_ptr()
            .wrapping_add((gpa - self.start) as usize)
    }

    /// Which holders have code translated from the page of `gpa`, a bit each.
    pub fn holders(&self, gpa: u64) -> &AtomicU64 {
        self.holders.of((gpa - self.start) / PAGE_SIZE)
    }

    /// Which holders may write to the page of `gpa` without asking, a bit each.
    pub fn writers(&self, gpa: u64) -> &AtomicU64 {
        self.writers.of((gpa - self.start) / PAGE_SIZE)
    }
}

/// A word of bits for each page of a region, committed lazily.
#[derive(Debug)]
struct PageBits(Mapping);

impl PageBits {
    fn new(pages: u64) -> io::Result<Self> {
        Ok(Self(Mapping::new(pages as usize * size_of::<AtomicU64>())?))
    }

    fn of(&self, page: u64) -> &AtomicU64 {
        let offset = page as usize * size_of::<AtomicU64>();
        assert!(offset < self.0.size());
        // SAFETY: the word lies in the mapping, is aligned, and is only ever accessed atomically.
        unsafe { &*self.0.as_ptr().add(offset).cast::<AtomicU64>() }
    }
}

/// Why guest memory could not be mapped or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The address or the size is not a multiple of the page size, or the size is zero.
    #[error("guest memory at {start:#x} of {size:#x} bytes is not made of whole 4 KiB pages")]
    Unaligned {
        /// First guest physical address.
        start: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The range overlaps one that is mapped already, or wraps around.
    #[error("guest memory at {start:#x} of {size:#x} bytes overlaps memory that is mapped already")]
    Overlap {
        /// First guest physical address.
        start: u64,
        /// Size in bytes.
        size: u64,
    },
    /// No memory is mapped at some byte of the range.
    #[error("no guest memory at {start:#x} of {size:#x} bytes")]
    Unmapped {
        /// First guest physical address.
        start: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The machine has as many processors as its memory can tell apart.
    #[error("guest memory is shared by {MAX_HOLDERS} processors already")]
    TooManyHolders,
    /// The host has no memory for the region.
    #[error("the host can't map {size:#x} bytes for the guest")]
    Host {
        /// Size in bytes.
        size: u64,
        /// The host's reason.
        source: io::Error,
    },
}

/// Guest physical memory of one machine, shared by its processors and devices.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: RwLock<Arc<Vec<Arc<Region>>>>,
    generation: AtomicU64,
    holders: RwLock<Vec<Weak<dyn CodeHolder>>>,
    split: Mutex<()>,
}

impl GuestMemory {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `size` bytes of zeroed memory at `start`.
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`], [`MemoryError::Overlap`] or [`MemoryError::Host`].
    pub fn map(&self, start: u64, size: u64, kind: RegionKind) -> Result<(), MemoryError> {
        if size == 0 || !start.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Unaligned { start, size });
        }
        let end = start
            .checked_add(size)
            .ok_or(MemoryError::Overlap { start, size })?;
        let mut regions = self.regions.write().unwrap_or_else(|e| e.into_inner());
        if regions
            .iter()
            .any(|r| start < r.start + r.size && r.start < end)
        {
            return Err(MemoryError::Overlap { start, size });
        }
        let host = |source| MemoryError::Host { size, source };
        let bytes =
            usize::try_from(size).map_err(|_| host(io::Error::from(io::ErrorKind::OutOfMemory)))?;
        let mapping = Mapping::huge(bytes).map_err(host)?;
        let bits = || PageBits::new(size / PAGE_SIZE).map_err(host);
        let (holders, writers) = (bits()?, bits()?);
        let mut next = Vec::clone(&regions);
        next.push(Arc::new(Region {
            start,
            size,
            kind,
            mapping,
            holders,
            writers,
        }));
        next.sort_by_key(|r| r.start);
        *regions = Arc::new(next);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The regions, in order of address.
    pub fn regions(&self) -> Arc<Vec<Arc<Region>>> {
        self.regions
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    /// A number that changes whenever the map changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The region that holds `gpa`.
    pub fn region(&self, gpa: u64) -> Option<Arc<Region>> {
        find(&self.regions(), gpa).cloned()
    }

    /// Copies guest memory at `gpa` into `out`.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] when part of the range has no memory; `out` is then untouched.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let regions = self.regions();
        check(&regions, gpa, out.len())?;
        let mut done = 0;
        while done < out.len() {
            let at = gpa + done as u64;
            let Some(region) = find(&regions, at) else {
                break;
            };
            let count = (out.len() - done).min((region.start + region.size - at) as usize);
            // SAFETY: `count` bytes at `at` lie in the region, `out` has as many left, and guest
            // memory never overlaps a Rust slice.
            unsafe { copy_nonoverlapping(region.host(at), out[done..].as_mut_ptr(), count) };
            done += count;
        }
        Ok(())
    }

    /// Copies `data` into guest memory at `gpa`, into ROM as well, as a device or the loader does.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] when part of the range has no memory; nothing is written then.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.write_with(gpa, data.len(), |host, done, count| {
            // SAFETY: `write_with` hands out ranges inside one region; `data` has `count` bytes
            // from `done` on.
            unsafe { copy_nonoverlapping(data[done..].as_ptr(), host, count) };
        })
    }

    /// Fills `size` bytes of guest memory at `gpa` with `byte`.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] when part of the range has no memory; nothing is written then.
    pub fn fill(&self, gpa: u64, size: usize, byte: u8) -> Result<(), MemoryError> {
        self.write_with(gpa, size, |host, _, count| {
            // SAFETY: `write_with` hands out ranges inside one region.
            unsafe { write_bytes(host, byte, count) };
        })
    }

    fn write_with(
        &self,
        gpa: u64,
        size: usize,
        mut put: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), MemoryError> {
        let regions = self.regions();
        check(&regions, gpa, size)?;
        let mut done = 0;
        while done < size {
            let at = gpa + done as u64;
            let Some(region) = find(&regions, at) else {
                break;
            };
            let count = (size - done).min((region.start + region.size - at) as usize);
            put(region.host(at), done, count);
            self.note_write(region, at, count as u64);
            done += count;
        }
        Ok(())
    }

    fn note_write(&self, region: &Region, start: u64, size: u64) {
        let mut page = start & !(PAGE_SIZE - 1);
        while page < start + size {
            let end = (start + size).min(page + PAGE_SIZE);
            self.tell(
                region.holders(page).load(Ordering::SeqCst),
                start.max(page),
                end,
            );
            page += PAGE_SIZE;
        }
    }

    /// Held over a locked access that lies in two pages, which no host instruction can make at
    /// once: keeps such accesses apart from each other.
    pub fn lock_split(&self) -> MutexGuard<'_, ()> {
        self.split.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes `holder` known; returns its bit number in [`Region::holders`].
    ///
    /// # Errors
    /// [`MemoryError::TooManyHolders`].
    pub fn add_holder(&self, holder: Weak<dyn CodeHolder>) -> Result<u32, MemoryError> {
        let mut holders = self.holders.write().unwrap_or_else(|e| e.into_inner());
        if holders.len() == MAX_HOLDERS {
            return Err(MemoryError::TooManyHolders);
        }
        holders.push(holder);
        Ok(holders.len() as u32 - 1)
    }

    /// The holder with a bit number, if it still exists.
    pub fn holder(&self, bit: u32) -> Option<Arc<dyn CodeHolder>> {
        let holders = self.holders.read().unwrap_or_else(|e| e.into_inner());
        holders.get(bit as usize)?.upgrade()
    }

    /// Tells the holders in `bits` that `[start, end)`, within a page, was written to.
    pub fn tell(&self, mut bits: u64, start: u64, end: u64) {
        while bits != 0 {
            if let Some(holder) = self.holder(bits.trailing_zeros()) {
                holder.code_written(start, end);
            }
            bits &= bits - 1;
        }
    }
}

fn find(regions: &[Arc<Region>], gpa: u64) -> Option<&Arc<Region>> {
    let next = regions.partition_point(|r| r.start <= gpa);
    let region = regions.get(next.checked_sub(1)?)?;
    (gpa - region.start < region.size).then_some(region)
}

fn check(regions: &[Arc<Region>], gpa: u64, size: usize) -> Result<(), MemoryError> {
    let unmapped = || MemoryError::Unmapped {
        start: gpa,
        size: size as u64,
    };
    let end = gpa.checked_add(size as u64).ok_or_else(unmapped)?;
    let mut at = gpa;
    while at < end {
        let region = find(regions, at).ok_or_else(unmapped)?;
        at = region.start + region.size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_regions() -> GuestMemory {
        let memory = GuestMemory::new();
        memory.map(0, 0x2000, RegionKind::Ram).unwrap();
        memory.map(0x2000, 0x1000, RegionKind::Rom).unwrap();
        memory.map(0x10000, 0x1000, RegionKind::Ram).unwrap();
        memory
    }

    #[test]
    fn a_copy_may_cross_adjacent_regions() {
        let memory = two_regions();
        memory.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        let mut out = [0; 4];
        memory.read(0x1ffe, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn a_copy_that_leaves_memory_changes_nothing() {
        let memory = two_regions();
        assert!(matches!(
            memory.write(0x2ffe, &[9; 4]),
            Err(MemoryError::Unmapped { .. })
        ));
        let mut out = [7; 2];
        memory.read(0x2ffe, &mut out).unwrap();
        assert_eq!(out, [0; 2]);
        assert!(memory.read(u64::MAX - 1, &mut [0; 4]).is_err());
    }

    #[test]
    fn overlapping_and_unaligned_regions_are_refused() {
        let memory = two_regions();
        let map = |start, size| memory.map(start, size, RegionKind::Ram);
        assert!(matches!(
            map(0x2000, 0x1000),
            Err(MemoryError::Overlap { .. })
        ));
        assert!(matches!(
            map(0xf000, 0x2000),
            Err(MemoryError::Overlap { .. })
        ));
        assert!(matches!(
            map(0x20001, 0x1000),
            Err(MemoryError::Unaligned { .. })
        ));
        assert!(matches!(
            map(0x20000, 0),
            Err(MemoryError::Unaligned { .. })
        ));
        assert!(matches!(
            map(!0xfff, 0x2000),
            Err(MemoryError::Overlap { .. })
        ));
    }

    #[derive(Debug, Default)]
    struct Notes(std::sync::Mutex<Vec<(u64, u64)>>);

    impl CodeHolder for Notes {
        fn code_written(&self, start: u64, end: u64) {
            self.0.lock().unwrap().push((start, end));
        }
        fn withdraw_write(&self, _: u64) {}
        fn may_write(&self) -> bool {
            false
        }
    }

    #[test]
    fn holders_of_code_hear_of_writes_to_their_pages() {
        let memory = two_regions();
        let notes = [Arc::new(Notes::default()), Arc::new(Notes::default())];
        let weak = |i: usize| Arc::downgrade(&notes[i]) as Weak<dyn CodeHolder>;
        assert_eq!(memory.add_holder(weak(0)).unwrap(), 0);
        assert_eq!(memory.add_holder(weak(1)).unwrap(), 1);
        memory.write(0x1000, &[1]).unwrap();
        memory
            .region(0x1000)
            .unwrap()
            .holders(0x1000)
            .store(0b10, Ordering::SeqCst);
        memory.write(0xffe, &[1; 8]).unwrap();
        assert!(notes[0].0.lock().unwrap().is_empty());
        assert_eq!(*notes[1].0.lock().unwrap(), [(0x1000, 0x1006)]);
    }

    #[test]
    fn a_machine_has_a_limited_number_of_holders() {
        let memory = two_regions();
        let notes = Arc::new(Notes::default());
        for _ in 0..MAX_HOLDERS {
            memory
                .add_holder(Arc::downgrade(&notes) as Weak<dyn CodeHolder>)
                .unwrap();
        }
        let one_more = memory.add_holder(Arc::downgrade(&notes) as Weak<dyn CodeHolder>);
        assert!(matches!(one_more, Err(MemoryError::TooManyHolders)));
    }
}
