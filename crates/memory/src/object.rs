//! Memory objects: host memory that a guest sees at no, one or several physical addresses.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::guest::{MemoryError, PAGE_SIZE, Shared};
use crate::mapping::Mapping;

/// Host memory of whole pages, with what processors share about each page: who has code translated
/// from it, who may write to it without asking, and whether it was written to.
///
/// These belong to the page, not to an address: a store at one address is seen by code that was
/// translated at another.
#[derive(Debug)]
pub struct Memory {
    mapping: Mapping,
    holders: PageBits,
    writers: PageBits,
    dirty: PageBits,
    users: Mutex<Vec<Weak<Shared>>>,
}

impl Memory {
    /// `size` bytes of zeros, committed when they are touched.
    ///
    /// # Errors
    /// [`MemoryError::Unaligned`] when `size` is zero or no multiple of the page size,
    /// [`MemoryError::Host`] when the host has no memory.
    pub fn new(size: u64) -> Result<Arc<Self>, MemoryError> {
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Unaligned { start: 0, size });
        }
        let host = |source| MemoryError::Host { size, source };
        let bytes =
            usize::try_from(size).map_err(|_| host(io::Error::from(io::ErrorKind::OutOfMemory)))?;
        let mapping = Mapping::huge(bytes).map_err(host)?;
        let pages = size / PAGE_SIZE;
        let bits = |words| PageBits::new(words).map_err(host);
        Ok(Arc::new(Self {
            mapping,
            holders: bits(pages)?,
            writers: bits(pages)?,
            dirty: bits(pages.div_ceil(64))?,
            users: Mutex::default(),
        }))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.mapping.size() as u64
    }

    /// First byte on the host; valid for as long as the object lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// The bytes, for devices: the guest sees what they write there, but code translated from
    /// there and the dirty log need [`Memory::written`].
    pub fn bytes(&self) -> &Mapping {
        &self.mapping
    }

    /// Which holders have code translated from the page at `offset`, a bit each.
    pub fn holders(&self, offset: u64) -> &AtomicU64 {
        self.holders.of(offset / PAGE_SIZE)
    }

    /// Which holders may write to the page at `offset` without asking, a bit each.
    pub fn writers(&self, offset: u64) -> &AtomicU64 {
        self.writers.of(offset / PAGE_SIZE)
    }

    /// The word of the dirty log that has the page at `offset`, and the page's bit in it.
    pub fn dirty(&self, offset: u64) -> (&AtomicU64, u64) {
        let page = offset / PAGE_SIZE;
        (self.dirty.of(page / 64), 1 << (page % 64))
    }

    /// What was written to `size` bytes at `offset` other than by the guest or through
    /// [`crate::GuestMemory`]: code translated from there is dropped, and the pages are dirty.
    ///
    /// # Errors
    /// [`MemoryError::Outside`] when the object is smaller.
    pub fn written(self: &Arc<Self>, offset: u64, size: u64) -> Result<(), MemoryError> {
        self.check(offset, size)?;
        let mut page = offset & !(PAGE_SIZE - 1);
        while page < offset + size {
            let (word, bit) = self.dirty(page);
            word.fetch_or(bit, Ordering::SeqCst);
            let holders = self.holders(page).load(Ordering::SeqCst);
            if holders != 0 {
                let end = (offset + size).min(page + PAGE_SIZE);
                for user in self.users() {
                    user.tell_object(self, holders, offset.max(page), end);
                }
            }
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// The pages of `size` bytes at `offset` that were written to since the last call, a bit each
    /// from bit 0 of the first byte on. What is written from now on is found by the next call.
    ///
    /// Stores of the guest are found where the object is mapped with a log, those of devices if
    /// they go through a map or are told by [`Memory::written`].
    ///
    /// # Errors
    /// [`MemoryError::Outside`] when the object is smaller, [`MemoryError::Unaligned`] when the
    /// range is not made of whole pages.
    pub fn take_dirty(self: &Arc<Self>, offset: u64, size: u64) -> Result<Vec<u8>, MemoryError> {
        self.check(offset, size)?;
        if !(offset | size).is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Unaligned {
                start: offset,
                size,
            });
        }
        let host = self.as_ptr() as u64 + offset;
        for user in self.users() {
            user.collect_dirty(host, host + size);
        }
        let (first, pages) = (offset / PAGE_SIZE, size / PAGE_SIZE);
        let mut bitmap = vec![0; pages.div_ceil(8) as usize];
        let mut found = false;
        let mut page = first;
        while page < first + pages {
            // As much of a word as belongs to the range.
            let next = (page / 64 * 64 + 64).min(first + pages);
            let mask = (u64::MAX >> (64 - (next - page))) << (page % 64);
            let word = self.dirty.of(page / 64);
            if word.load(Ordering::SeqCst) & mask != 0 {
                found = true;
                let bits = word.fetch_and(!mask, Ordering::SeqCst) & mask;
                for bit in page..next {
                    let at = (bit - first) as usize;
                    bitmap[at / 8] |= ((bits >> (bit % 64) & 1) as u8) << (at % 8);
                }
            }
            page = next;
        }
        if found {
            // Processors still write to these pages unseen.
            for user in self.users() {
                user.withdraw_range(host, host + size);
            }
        }
        Ok(bitmap)
    }

    /// #Errors
    /// [`MemoryError::Outside`] when `size` bytes at `offset` are not all in the object.
    pub(crate) fn check(&self, offset: u64, size: u64) -> Result<(), MemoryError> {
        match offset.checked_add(size) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(MemoryError::Outside {
                offset,
                size,
                object: self.size(),
            }),
        }
    }

    pub(crate) fn add_user(&self, user: &Arc<Shared>) {
        let mut users = self.users.lock().unwrap_or_else(|e| e.into_inner());
        users.retain(|u| u.strong_count() > 0);
        if !users.iter().any(|u| u.as_ptr() == Arc::as_ptr(user)) {
            users.push(Arc::downgrade(user));
        }
    }

    fn users(&self) -> Vec<Arc<Shared>> {
        let users = self.users.lock().unwrap_or_else(|e| e.into_inner());
        users.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Words of bits, committed lazily.
#[derive(Debug)]
struct PageBits(Mapping);

impl PageBits {
    fn new(words: u64) -> io::Result<Self> {
        Ok(Self(Mapping::new(words as usize * size_of::<AtomicU64>())?))
    }

    fn of(&self, word: u64) -> &AtomicU64 {
        let offset = word as usize * size_of::<AtomicU64>();
        assert!(offset < self.0.size());
        // SAFETY: the word lies in the mapping, is aligned, and is only ever accessed atomically.
        unsafe { &*self.0.as_ptr().add(offset).cast::<AtomicU64>() }
    }
}
