//! Guest physical memory: RAM and ROM regions backed by host mappings.
//!
//! RAM is committed lazily by the host kernel: a region of 8 GiB costs nothing until the guest
//! touches it. Each page has one byte of flags, shared by all virtual processors of the machine,
//! by which an engine learns that a page holds translated code.
//!
//! Unsafe island 1: every raw pointer into guest memory is made here.

mod guest;
mod mapping;

pub use guest::{GuestMemory, MemoryError, PAGE_CODE, PAGE_SIZE, PAGE_WRITTEN, Region, RegionKind};
pub use mapping::Mapping;
