//! Giving memory back to the host: what a balloon does with the pages that its guest gave it.

use std::io;

use super::{GuestMemory, PAGE_SIZE};

impl GuestMemory {
    /// Gives the host back the pages of `size` bytes at `gpa` that are whole and have RAM; they
    /// read as zeros from then on. Gives how many bytes they were.
    ///
    /// # Errors
    /// What the host answered.
    pub fn discard(&self, gpa: u64, size: u64) -> io::Result<u64> {
        let first = gpa.next_multiple_of(PAGE_SIZE);
        let last = gpa.saturating_add(size) & !(PAGE_SIZE - 1);
        let mut done = 0;
        for region in self.regions().iter() {
            let (from, to) = (
                first.max(region.start),
                last.min(region.start + region.size),
            );
            if from >= to || region.kind != super::RegionKind::Ram {
                continue;
            }
            // SAFETY: the pages lie in the region's mapping, which is anonymous and private: they
            // read as zeros afterwards, as if the guest had written them.
            let failed = unsafe {
                libc::madvise(
                    region.host(from).cast(),
                    (to - from) as usize,
                    libc::MADV_DONTNEED,
                )
            };
            if failed != 0 {
                return Err(io::Error::last_os_error());
            }
            let _ = region.memory().written(region.offset_of(from), to - from);
            done += to - from;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegionKind;

    #[test]
    fn whole_pages_are_given_back_and_read_as_zeros() {
        let memory = GuestMemory::new();
        memory.map(0, 0x4000, RegionKind::Ram).unwrap();
        memory.map(0x4000, 0x1000, RegionKind::Rom).unwrap();
        memory.fill(0, 0x5000, 7).unwrap();
        assert_eq!(memory.discard(0x800, 0x1fff).unwrap(), 0x1000);
        let mut out = vec![0; 0x5000];
        memory.read(0, &mut out).unwrap();
        assert!(out[..0x1000].iter().all(|&byte| byte == 7));
        assert!(out[0x1000..0x2000].iter().all(|&byte| byte == 0));
        assert!(out[0x2000..].iter().all(|&byte| byte == 7));
        assert_eq!(memory.discard(0x3000, u64::MAX).unwrap(), 0x1000, "not ROM");
        assert_eq!(memory.discard(0x100_0000, 0x1000).unwrap(), 0);
    }
}
