//! An anonymous, lazily committed host mapping.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// A private host mapping, zero-filled, released on drop.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    size: usize,
}

// SAFETY: the mapping is plain memory; concurrent access to its bytes goes through raw pointers,
// as concurrent processors access RAM.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes, rounded up to whole pages, without committing them.
    ///
    /// Guest memory is neither inherited over `fork` nor written to core dumps.
    ///
    /// # Errors
    /// The host's `mmap` error.
    pub fn new(size: usize) -> io::Result<Self> {
        Self::with_advice(size, &[libc::MADV_DONTFORK, libc::MADV_DONTDUMP])
    }

    /// As [`Mapping::new`], with huge pages where the host gives them to those who ask.
    ///
    /// # Errors
    /// The host's `mmap` error.
    pub fn huge(size: usize) -> io::Result<Self> {
        Self::with_advice(
            size,
            &[
                libc::MADV_DONTFORK,
                libc::MADV_DONTDUMP,
                libc::MADV_HUGEPAGE,
            ],
        )
    }

    fn with_advice(size: usize, advice: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address the kernel chooses aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Advice only: a kernel without these options still runs the guest.
        for &advice in advice {
            // SAFETY: the range is the mapping just made.
            unsafe { libc::madvise(base, size, advice) };
        }
        Ok(Self {
            base: base.cast(),
            size,
        })
    }

    /// First byte of the mapping.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The byte at `offset`, as a device reads it while processors may write it.
    ///
    /// # Panics
    /// Beyond the mapping.
    pub fn byte(&self, offset: usize) -> u8 {
        assert!(offset < self.size);
        // SAFETY: the byte is inside the mapping, which outlives `self`.
        unsafe { AtomicU8::from_ptr(self.base.add(offset)) }.load(Relaxed)
    }

    /// Sets the byte at `offset`.
    ///
    /// # Panics
    /// Beyond the mapping.
    pub fn set_byte(&self, offset: usize, value: u8) {
        assert!(offset < self.size);
        // SAFETY: as in `byte`.
        unsafe { AtomicU8::from_ptr(self.base.add(offset)) }.store(value, Relaxed);
    }

    /// Four bytes from `offset`, a multiple of four, on: the lowest first.
    ///
    /// # Panics
    /// Beyond the mapping, or not aligned.
    pub fn dword(&self, offset: usize) -> u32 {
        assert!(offset < self.size && self.size - offset >= 4 && offset.is_multiple_of(4));
        // SAFETY: aligned, since mappings are, and inside the mapping.
        u32::from_le(unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }.load(Relaxed))
    }

    /// Sets four bytes from `offset`, a multiple of four, on.
    ///
    /// # Panics
    /// Beyond the mapping, or not aligned.
    pub fn set_dword(&self, offset: usize, value: u32) {
        assert!(offset < self.size && self.size - offset >= 4 && offset.is_multiple_of(4));
        // SAFETY: as in `dword`.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }.store(value.to_le(), Relaxed);
    }

    /// Makes all bytes zero and gives their memory back to the host.
    pub fn clear(&self) {
        // SAFETY: the range is this mapping; a private anonymous mapping reads as zero after it.
        let failed = unsafe { libc::madvise(self.base.cast(), self.size, libc::MADV_DONTNEED) };
        if failed != 0 {
            // SAFETY: the range is inside the mapping.
            unsafe { std::ptr::write_bytes(self.base, 0, self.size) };
        }
    }

    /// Copies from `offset` on into `out`.
    ///
    /// # Panics
    /// Beyond the mapping.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        assert!(offset <= self.size && self.size - offset >= out.len());
        // SAFETY: the range is inside the mapping, and no Rust slice is.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.add(offset), out.as_mut_ptr(), out.len());
        }
    }

    /// Copies `data` to `offset` and on.
    ///
    /// # Panics
    /// Beyond the mapping.
    pub fn copy_from(&self, offset: usize, data: &[u8]) {
        assert!(offset <= self.size && self.size - offset >= data.len());
        // SAFETY: as in `copy_to`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.base.add(offset), data.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no one may use its pointers after it is dropped.
        unsafe { libc::munmap(self.base.cast(), self.size) };
    }
}
