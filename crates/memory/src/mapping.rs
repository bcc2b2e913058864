//! An anonymous, lazily committed host mapping.

use std::io;

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
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no one may use its pointers after it is dropped.
        unsafe { libc::munmap(self.base.cast(), self.size) };
    }
}
