//! The map from guest physical addresses to host memory.

use std::fmt::Debug;
use std::io;
use std::ptr::{copy_nonoverlapping, write_bytes};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;

use crate::object::Memory;

/// Size in bytes of the pages that flags are kept for.
pub const PAGE_SIZE: u64 = 4096;
/// How many processors may hold translated code of one machine's memory.
pub const MAX_HOLDERS: usize = 64;
/// Changes of the map that are remembered for those who follow it.
const MAX_CHANGES: usize = 64;
/// Address bit 20.
const A20: u64 = 1 << 20;

/// One who keeps code translated from guest memory, and host addresses of it: a virtual
/// processor's engine.
pub trait CodeHolder: Send + Sync + Debug {
    /// Bytes `[start, end)` of a page that the holder has code of were written to.
    fn code_written(&self, start: u64, end: u64);
    /// The holder is to clear its bit in [`Region::writers`] of this page and to ask from then on.
    fn withdraw_write(&self, page: u64);
    /// Whether the holder may be writing to pages right now. One that may not answers
    /// [`CodeHolder::withdraw_write`] before it writes again.
    fn may_write(&self) -> bool;
    /// The map has changed: the holder is to take [`GuestMemory::changes`] into account. The
    /// ticket is for [`CodeHolder::has_settled`].
    fn map_changed(&self) -> u64;
    /// The holder is to ask before it writes to host addresses `[start, end)`, whose pages are no
    /// longer marked dirty. The ticket is for [`CodeHolder::has_settled`].
    fn withdraw_range(&self, start: u64, end: u64) -> u64;
    /// The log of host addresses `[start, end)` is about to be read: a holder that keeps one of its
    /// own adds it.
    fn collect_dirty(&self, _start: u64, _end: u64) {}
    /// Whether what the ticket was given for is done, or will be before the holder accesses memory
    /// again.
    fn has_settled(&self, ticket: u64) -> bool;
}

/// What a guest may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Read, write and execute.
    Ram,
    /// Read and execute; writes leave the engine as memory-mapped writes.
    Rom,
}

/// How memory is mapped: `struct kvm_userspace_memory_region`'s flags, and what to do about memory
/// that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Writes leave the engine as memory-mapped writes (KVM_MEM_READONLY).
    pub readonly: bool,
    /// Stores mark their pages dirty (KVM_MEM_LOG_DIRTY_PAGES).
    pub log_dirty: bool,
    /// Takes the place of what is mapped there, at once; otherwise an overlap is refused.
    pub replace: bool,
    /// Seen by processors in system-management mode alone, over whatever else is there.
    pub smm: bool,
}

/// A contiguous range of guest physical memory.
#[derive(Clone, Debug)]
pub struct Region {
    /// First guest physical address, page-aligned.
    pub start: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// RAM or ROM.
    pub kind: RegionKind,
    /// Stores mark their pages dirty.
    pub log_dirty: bool,
    /// Some of the memory may be mapped at another address as well.
    pub aliased: bool,
    memory: Arc<Memory>,
    offset: u64,
}

impl Region {
    /// Host address of the byte at guest physical address `gpa`, which must lie in the region.
    pub fn host(&self, gpa: u64) -> *mut u8 {
        debug_assert!(gpa >= self.start && gpa - self.start < self.size);
        self.memory
            .as_ptr()
            .wrapping_add(self.offset_of(gpa) as usize)
    }

    /// The memory object behind the region.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Offset in the memory object of guest physical address `gpa`.
    pub fn offset_of(&self, gpa: u64) -> u64 {
        self.offset + (gpa - self.start)
    }

    /// Which holders have code translated from the page of `gpa`, a bit each.
    pub fn holders(&self, gpa: u64) -> &AtomicU64 {
        self.memory.holders(self.offset_of(gpa))
    }

    /// Which holders may write to the page of `gpa` without asking, a bit each.
    pub fn writers(&self, gpa: u64) -> &AtomicU64 {
        self.memory.writers(self.offset_of(gpa))
    }

    /// Where the page of `gpa` is to be marked when it is written to: a word and a bit in it.
    pub fn dirty(&self, gpa: u64) -> Option<(&AtomicU64, u64)> {
        self.log_dirty
            .then(|| self.memory.dirty(self.offset_of(gpa)))
    }

    fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Guest physical range of the part of `[from, to)`, offsets in `memory`, that is seen here.
    fn range_of(&self, memory: &Arc<Memory>, from: u64, to: u64) -> Option<(u64, u64)> {
        if !Arc::ptr_eq(&self.memory, memory) {
            return None;
        }
        let (from, to) = (from.max(self.offset), to.min(self.offset + self.size));
        let at = |offset: u64| self.start + (offset - self.offset);
        (from < to).then(|| (at(from), at(to)))
    }

    /// The part of the region in `[start, end)`.
    fn part(&self, start: u64, end: u64) -> Option<Self> {
        let (start, end) = (start.max(self.start), end.min(self.end()));
        (start < end).then(|| Self {
            start,
            size: end - start,
            offset: self.offset_of(start),
            ..self.clone()
        })
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
    /// A range reaches beyond the end of its memory object.
    #[error("{size:#x} bytes at offset {offset:#x} do not lie in a memory object of {object:#x}")]
    Outside {
        /// Offset in the object.
        offset: u64,
        /// Size in bytes.
        size: u64,
        /// Size of the object.
        object: u64,
    },
    /// The pages of some part of the range are not logged.
    #[error("no log is kept of the pages at {start:#x} of {size:#x} bytes")]
    NotLogged {
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

/// The map of guest memory at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The regions, in order of address.
    pub regions: Arc<Vec<Arc<Region>>>,
    /// The regions as system-management mode sees them.
    pub smm: Arc<Vec<Arc<Region>>>,
    /// The regions that it alone sees.
    pub overlays: Arc<Vec<Arc<Region>>>,
    /// A number that changes with the map.
    pub generation: u64,
}

/// What the memory objects of a machine need to know of it.
#[derive(Debug)]
pub(crate) struct Shared {
    map: RwLock<Snapshot>,
    holders: RwLock<Vec<Weak<dyn CodeHolder>>>,
}

impl Shared {
    fn snapshot(&self) -> Snapshot {
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        map.clone()
    }

    fn regions(&self) -> Arc<Vec<Arc<Region>>> {
        self.snapshot().regions
    }

    fn holder(&self, bit: u32) -> Option<Arc<dyn CodeHolder>> {
        let holders = self.holders.read().unwrap_or_else(|e| e.into_inner());
        holders.get(bit as usize)?.upgrade()
    }

    /// Tells the holders in `bits` that `[from, to)` of `memory`, within a page, was written to,
    /// at each address where it is seen.
    pub(crate) fn tell_object(&self, memory: &Arc<Memory>, bits: u64, from: u64, to: u64) {
        let map = self.snapshot();
        for region in map.regions.iter().chain(map.overlays.iter()) {
            if let Some((start, end)) = region.range_of(memory, from, to) {
                self.tell(bits, start, end);
            }
        }
    }

    fn tell(&self, mut bits: u64, start: u64, end: u64) {
        while bits != 0 {
            if let Some(holder) = self.holder(bits.trailing_zeros()) {
                holder.code_written(start, end);
            }
            bits &= bits - 1;
        }
    }

    /// Has all holders ask before they write to a range of host addresses.
    pub(crate) fn withdraw_range(&self, start: u64, end: u64) {
        self.settle(|holder| holder.withdraw_range(start, end));
    }

    /// Has all holders add their own logs of a range of host addresses.
    pub(crate) fn collect_dirty(&self, start: u64, end: u64) {
        let holders = self.holders.read().unwrap_or_else(|e| e.into_inner());
        for holder in holders.iter().filter_map(Weak::upgrade) {
            holder.collect_dirty(start, end);
        }
    }

    /// Asks all holders for something and waits until it is done. A holder that does not run, or
    /// whose thread this is, is not waited for.
    fn settle(&self, ask: impl Fn(&dyn CodeHolder) -> u64) {
        let holders = self.holders.read().unwrap_or_else(|e| e.into_inner());
        let asked: Vec<_> = holders
            .iter()
            .filter_map(Weak::upgrade)
            .map(|holder| (ask(&*holder), holder))
            .collect();
        drop(holders);
        for (ticket, holder) in asked {
            let mut rounds = 0u32;
            while !holder.has_settled(ticket) {
                rounds += 1;
                match rounds {
                    ..100 => std::hint::spin_loop(),
                    100..120 => std::thread::yield_now(),
                    _ => std::thread::sleep(Duration::from_micros(20)),
                }
            }
        }
    }
}

/// What has changed in a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Other memory, or none, at these addresses `[start, end)`.
    Ranges(Vec<(u64, u64)>),
    /// More than is remembered.
    Everything,
}

/// Guest physical memory of one machine, shared by its processors and devices.
///
/// The map may change while processors run. Whoever changes it returns when no processor accesses
/// memory by the old map any more: each looks at the next branch or exit, so the wait is short. A
/// device may change it while its processor waits for the answer to an exit.
#[derive(Debug)]
pub struct GuestMemory {
    shared: Arc<Shared>,
    generation: AtomicU64,
    /// Ranges of the latest changes, with the generation that each led to.
    changes: Mutex<Vec<(u64, u64, u64)>>,
    address_mask: AtomicU64,
    split: Mutex<()>,
}

impl Default for GuestMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestMemory {
    /// An empty map, A20 enabled.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                map: RwLock::default(),
                holders: RwLock::default(),
            }),
            generation: AtomicU64::new(0),
            changes: Mutex::default(),
            address_mask: AtomicU64::new(u64::MAX),
            split: Mutex::default(),
        }
    }

    /// Adds `size` bytes of zeroed memory at `start`.
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`], [`MemoryError::Overlap`] or [`MemoryError::Host`].
    pub fn map(&self, start: u64, size: u64, kind: RegionKind) -> Result<(), MemoryError> {
        check_range(start, size)?;
        if overlaps(&self.regions(), start, start + size) {
            return Err(MemoryError::Overlap { start, size });
        }
        let memory = Memory::new(size)?;
        let options = MapOptions {
            readonly: kind == RegionKind::Rom,
            ..MapOptions::default()
        };
        self.map_object(start, &memory, 0, size, options)
    }

    /// Shows `size` bytes from `offset` of `memory` at `start`.
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`], [`MemoryError::Outside`] when the object is smaller, or
    /// [`MemoryError::Overlap`].
    pub fn map_object(
        &self,
        start: u64,
        memory: &Arc<Memory>,
        offset: u64,
        size: u64,
        options: MapOptions,
    ) -> Result<(), MemoryError> {
        let end = check_range(start, size)?;
        memory.check(offset, size)?;
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Unaligned {
                start: offset,
                size,
            });
        }
        memory.add_user(&self.shared);
        let region = Region {
            start,
            size,
            kind: if options.readonly {
                RegionKind::Rom
            } else {
                RegionKind::Ram
            },
            log_dirty: options.log_dirty,
            aliased: false,
            memory: Arc::clone(memory),
            offset,
        };
        self.change(start, end, options.smm, |regions| {
            if overlaps(regions, start, end) {
                if !options.replace {
                    return Err(MemoryError::Overlap { start, size });
                }
                cut(regions, start, end);
            }
            regions.push(Arc::new(region));
            Ok(())
        })
    }

    /// Takes away the memory in `size` bytes at `start`, all of it or parts of larger regions;
    /// memory objects keep their contents. With `smm`, memory that system-management mode alone
    /// sees.
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`], or [`MemoryError::Unmapped`] when there is none in the range.
    pub fn unmap(&self, start: u64, size: u64, smm: bool) -> Result<(), MemoryError> {
        let end = check_range(start, size)?;
        self.change(start, end, smm, |regions| {
            if !overlaps(regions, start, end) {
                return Err(MemoryError::Unmapped { start, size });
            }
            cut(regions, start, end);
            Ok(())
        })
    }

    /// Makes a new map by `edit` and has all holders follow.
    fn change(
        &self,
        start: u64,
        end: u64,
        smm: bool,
        edit: impl FnOnce(&mut Vec<Arc<Region>>) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut current = self.shared.map.write().unwrap_or_else(|e| e.into_inner());
        let mut regions = Vec::clone(&current.regions);
        let mut overlays = Vec::clone(&current.overlays);
        edit(if smm { &mut overlays } else { &mut regions })?;
        regions.sort_by_key(|r| r.start);
        overlays.sort_by_key(|r| r.start);
        mark_aliases(&mut regions, &mut overlays);
        let mut seen = regions.clone();
        for overlay in &overlays {
            cut(&mut seen, overlay.start, overlay.end());
        }
        seen.extend(overlays.iter().cloned());
        seen.sort_by_key(|r| r.start);
        let mut changes = self.changes.lock().unwrap_or_else(|e| e.into_inner());
        let generation = current.generation + 1;
        *current = Snapshot {
            regions: Arc::new(regions),
            smm: Arc::new(seen),
            overlays: Arc::new(overlays),
            generation,
        };
        self.generation.store(generation, Ordering::SeqCst);
        changes.push((generation, start, end));
        if changes.len() > MAX_CHANGES {
            changes.remove(0);
        }
        drop((current, changes));
        self.shared.settle(|holder| holder.map_changed());
        Ok(())
    }

    /// The map as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// What has changed from one generation of the map to another.
    pub fn changes(&self, from: u64, to: u64) -> Changes {
        let changes = self.changes.lock().unwrap_or_else(|e| e.into_inner());
        let news = changes.iter().filter(|c| c.0 > from && c.0 <= to);
        let ranges: Vec<_> = news.map(|&(_, start, end)| (start, end)).collect();
        if ranges.len() as u64 == to - from {
            Changes::Ranges(ranges)
        } else {
            Changes::Everything
        }
    }

    /// Enables or disables address line A20 of the processors: while it is disabled, bit 20 of
    /// every physical address they use is 0. Devices are not concerned.
    pub fn set_a20(&self, enabled: bool) {
        let mask = if enabled { u64::MAX } else { !A20 };
        if self.address_mask.swap(mask, Ordering::SeqCst) != mask {
            self.shared.settle(|holder| holder.map_changed());
        }
    }

    /// What the processors' physical addresses are masked with: A20.
    pub fn address_mask(&self) -> u64 {
        self.address_mask.load(Ordering::SeqCst)
    }

    /// As [`Memory::take_dirty`] for `size` bytes at guest physical address `start`
    /// (KVM_GET_DIRTY_LOG).
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`], or [`MemoryError::NotLogged`] when a part of the range is no
    /// memory whose pages are logged.
    pub fn take_dirty(&self, start: u64, size: u64) -> Result<Vec<u8>, MemoryError> {
        let end = check_range(start, size)?;
        let not_logged = || MemoryError::NotLogged { start, size };
        let regions = self.regions();
        let mut parts = Vec::new();
        let mut at = start;
        while at < end {
            let region = find(&regions, at).filter(|r| r.log_dirty);
            let region = region.ok_or_else(not_logged)?;
            parts.push((region, at, region.end().min(end)));
            at = region.end();
        }
        let mut bitmap = vec![0; (size / PAGE_SIZE).div_ceil(8) as usize];
        for (region, from, to) in parts {
            let part = region
                .memory
                .take_dirty(region.offset_of(from), to - from)?;
            let first = ((from - start) / PAGE_SIZE) as usize;
            for page in 0..((to - from) / PAGE_SIZE) as usize {
                let bit = part[page / 8] >> (page % 8) & 1;
                bitmap[(first + page) / 8] |= bit << ((first + page) % 8);
            }
        }
        Ok(bitmap)
    }

    /// The regions, in order of address.
    pub fn regions(&self) -> Arc<Vec<Arc<Region>>> {
        self.shared.regions()
    }

    /// A number that changes whenever the map changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
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

    /// Reads as a bus master does: bytes without memory are FFh.
    pub fn dma_read(&self, gpa: u64, out: &mut [u8]) {
        out.fill(0xff);
        self.dma(gpa, out.len(), |region, at, done, count| {
            // SAFETY: `count` bytes at `at` lie in the region, `out` has as many from `done` on.
            unsafe { copy_nonoverlapping(region.host(at), out[done..].as_mut_ptr(), count) };
        });
    }

    /// Writes as a bus master does: bytes that have no RAM are dropped.
    pub fn dma_write(&self, gpa: u64, data: &[u8]) {
        self.dma(gpa, data.len(), |region, at, done, count| {
            if region.kind == RegionKind::Ram {
                // SAFETY: as in `dma_read`.
                unsafe { copy_nonoverlapping(data[done..].as_ptr(), region.host(at), count) };
                self.note_write(region, at, count as u64);
            }
        });
    }

    /// Calls `each(region, address, offset, count)` for the parts of a range that have memory.
    fn dma(&self, gpa: u64, size: usize, mut each: impl FnMut(&Region, u64, usize, usize)) {
        let regions = self.regions();
        let end = gpa.saturating_add(size as u64);
        for region in regions.iter() {
            let (from, to) = (gpa.max(region.start), end.min(region.end()));
            if from < to {
                each(region, from, (from - gpa) as usize, (to - from) as usize);
            }
        }
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
            if let Some((word, bit)) = region.dirty(page) {
                word.fetch_or(bit, Ordering::SeqCst);
            }
            let holders = region.holders(page).load(Ordering::SeqCst);
            self.tell(region, holders, start.max(page), end);
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
        let mut holders = self
            .shared
            .holders
            .write()
            .unwrap_or_else(|e| e.into_inner());
        if holders.len() == MAX_HOLDERS {
            return Err(MemoryError::TooManyHolders);
        }
        holders.push(holder);
        Ok(holders.len() as u32 - 1)
    }

    /// The holder with a bit number, if it still exists.
    pub fn holder(&self, bit: u32) -> Option<Arc<dyn CodeHolder>> {
        self.shared.holder(bit)
    }

    /// Tells the holders in `bits` that `[start, end)`, within a page of `region`, was written to.
    pub fn tell(&self, region: &Region, bits: u64, start: u64, end: u64) {
        if bits == 0 {
            return;
        }
        if region.aliased {
            let (from, to) = (
                region.offset_of(start),
                region.offset_of(start) + (end - start),
            );
            self.shared.tell_object(&region.memory, bits, from, to);
        } else {
            self.shared.tell(bits, start, end);
        }
    }

    /// All guest physical addresses at which the byte at `gpa` of `region` is seen.
    pub fn aliases(&self, region: &Region, gpa: u64) -> Vec<u64> {
        if !region.aliased {
            return vec![gpa];
        }
        let offset = region.offset_of(gpa);
        let seen = |r: &Arc<Region>| r.range_of(&region.memory, offset, offset + 1);
        self.regions()
            .iter()
            .filter_map(seen)
            .map(|r| r.0)
            .collect()
    }
}

/// The end of a range of whole pages.
fn check_range(start: u64, size: u64) -> Result<u64, MemoryError> {
    if size == 0 || !start.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
        return Err(MemoryError::Unaligned { start, size });
    }
    start
        .checked_add(size)
        .ok_or(MemoryError::Overlap { start, size })
}

fn overlaps(regions: &[Arc<Region>], start: u64, end: u64) -> bool {
    regions.iter().any(|r| start < r.end() && r.start < end)
}

/// Removes `[start, end)` from the regions.
fn cut(regions: &mut Vec<Arc<Region>>, start: u64, end: u64) {
    let old = std::mem::take(regions);
    for region in old {
        if region.end() <= start || end <= region.start {
            regions.push(region);
            continue;
        }
        let sides = [region.part(0, start), region.part(end, u64::MAX)];
        regions.extend(sides.into_iter().flatten().map(Arc::new));
    }
}

/// Finds out which regions share their memory with others.
fn mark_aliases(regions: &mut [Arc<Region>], overlays: &mut [Arc<Region>]) {
    let all: Vec<_> = regions.iter().chain(overlays.iter()).cloned().collect();
    let shares = |a: &Arc<Region>, b: &Arc<Region>| {
        let end = a.offset + a.size;
        !Arc::ptr_eq(a, b) && b.range_of(&a.memory, a.offset, end).is_some()
    };
    let aliased: Vec<_> = all
        .iter()
        .map(|a| all.iter().any(|b| shares(a, b)))
        .collect();
    for (region, aliased) in regions.iter_mut().chain(overlays).zip(aliased) {
        if region.aliased != aliased {
            *region = Arc::new(Region {
                aliased,
                ..Region::clone(region)
            });
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

mod discard;
#[cfg(test)]
mod tests;
