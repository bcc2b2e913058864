//! The map from guest physical addresses to host memory.

use std::io;
use std::ptr::{copy_nonoverlapping, write_bytes};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::Mapping;

/// Size in bytes of the pages that flags are kept for.
pub const PAGE_SIZE: u64 = 4096;
/// Page flag: some virtual processor holds code translated from this page.
pub const PAGE_CODE: u8 = 1 << 0;
/// Page flag: some virtual processor may write to this page without asking.
pub const PAGE_WRITTEN: u8 = 1 << 1;

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
    flags: Box<[AtomicU8]>,
}

impl Region {
    /// Host address of the byte at guest physical address `gpa`, which must lie in the region.
    pub fn host(&self, gpa: u64) -> *mut u8 {
        debug_assert!(gpa >= self.start && gpa - self.start < self.size);
        self.mapping.as_ptr().wrapping_add((gpa - self.start) as usize)
    }

    /// The flag byte of the page that holds `gpa`.
    pub fn page_flags(&self, gpa: u64) -> &AtomicU8 {
        &self.flags[((gpa - self.start) / PAGE_SIZE) as usize]
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
    code_writes: RwLock<Vec<(u64, u64)>>,
    code_write_count: AtomicU64,
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
        let end = start.checked_add(size).ok_or(MemoryError::Overlap { start, size })?;
        let mut regions = self.regions.write().unwrap_or_else(|e| e.into_inner());
        if regions.iter().any(|r| start < r.start + r.size && r.start < end) {
            return Err(MemoryError::Overlap { start, size });
        }
        let mapping = usize::try_from(size)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
            .and_then(Mapping::new)
            .map_err(|source| MemoryError::Host { size, source })?;
        let pages = (size / PAGE_SIZE) as usize;
        let flags = std::iter::repeat_with(|| AtomicU8::new(0)).take(pages).collect();
        let mut next = Vec::clone(&regions);
        next.push(Arc::new(Region { start, size, kind, mapping, flags }));
        next.sort_by_key(|r| r.start);
        *regions = Arc::new(next);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The regions, in order of address.
    pub fn regions(&self) -> Arc<Vec<Arc<Region>>> {
        self.regions.read().unwrap_or_else(|e| e.into_inner()).clone()
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
            let Some(region) = find(&regions, at) else { break };
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
            let Some(region) = find(&regions, at) else { break };
            let count = (size - done).min((region.start + region.size - at) as usize);
            put(region.host(at), done, count);
            self.note_write(region, at, count as u64);
            done += count;
        }
        Ok(())
    }

    /// Queues the invalidation of translated code in pages that a device wrote to.
    fn note_write(&self, region: &Region, start: u64, size: u64) {
        let mut page = start & !(PAGE_SIZE - 1);
        while page < start + size {
            if region.page_flags(page).load(Ordering::SeqCst) & PAGE_CODE != 0 {
                let mut queue = self.code_writes.write().unwrap_or_else(|e| e.into_inner());
                queue.push((start.max(page), (start + size).min(page + PAGE_SIZE)));
                self.code_write_count.fetch_add(1, Ordering::SeqCst);
            }
            page += PAGE_SIZE;
        }
    }

    /// How many writes by devices have hit pages with translated code so far.
    pub fn code_write_count(&self) -> u64 {
        self.code_write_count.load(Ordering::SeqCst)
    }

    /// The ranges `[start, end)` of those writes from number `since` on.
    pub fn code_writes_since(&self, since: u64) -> Vec<(u64, u64)> {
        let queue = self.code_writes.read().unwrap_or_else(|e| e.into_inner());
        queue.get(since as usize..).unwrap_or_default().to_vec()
    }
}

fn find(regions: &[Arc<Region>], gpa: u64) -> Option<&Arc<Region>> {
    let next = regions.partition_point(|r| r.start <= gpa);
    let region = regions.get(next.checked_sub(1)?)?;
    (gpa - region.start < region.size).then_some(region)
}

fn check(regions: &[Arc<Region>], gpa: u64, size: usize) -> Result<(), MemoryError> {
    let unmapped = || MemoryError::Unmapped { start: gpa, size: size as u64 };
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
        assert!(matches!(memory.write(0x2ffe, &[9; 4]), Err(MemoryError::Unmapped { .. })));
        let mut out = [7; 2];
        memory.read(0x2ffe, &mut out).unwrap();
        assert_eq!(out, [0; 2]);
        assert!(memory.read(u64::MAX - 1, &mut [0; 4]).is_err());
    }

    #[test]
    fn overlapping_and_unaligned_regions_are_refused() {
        let memory = two_regions();
        let map = |start, size| memory.map(start, size, RegionKind::Ram);
        assert!(matches!(map(0x2000, 0x1000), Err(MemoryError::Overlap { .. })));
        assert!(matches!(map(0xf000, 0x2000), Err(MemoryError::Overlap { .. })));
        assert!(matches!(map(0x20001, 0x1000), Err(MemoryError::Unaligned { .. })));
        assert!(matches!(map(0x20000, 0), Err(MemoryError::Unaligned { .. })));
        assert!(matches!(map(!0xfff, 0x2000), Err(MemoryError::Overlap { .. })));
    }

    #[test]
    fn writes_to_code_pages_are_queued() {
        let memory = two_regions();
        memory.write(0x1000, &[1]).unwrap();
        assert_eq!(memory.code_write_count(), 0);
        memory.region(0x1000).unwrap().page_flags(0x1000).store(PAGE_CODE, Ordering::SeqCst);
        memory.write(0xffe, &[1; 8]).unwrap();
        assert_eq!(memory.code_writes_since(0), vec![(0x1000, 0x1006)]);
    }
}
