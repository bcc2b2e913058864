//! Guest physical memory: RAM and ROM regions backed by host mappings.
//!
//! RAM is committed lazily by the host kernel: a region of 8 GiB costs nothing until the guest
//! touches it. Memory objects may be mapped at several addresses, moved and taken away while
//! processors run. For each page, the virtual processors of the machine share two words of bits: who
//! has code translated from it, and who may write to it without asking.
//!
//! Unsafe island 1: every raw pointer into guest memory is made here.

mod guest;
mod mapping;
mod object;

pub use guest::{
    Changes, CodeHolder, GuestMemory, MAX_HOLDERS, MapOptions, MemoryError, PAGE_SIZE, Region,
    RegionKind, Snapshot,
};
pub use mapping::Mapping;
pub use object::Memory;
