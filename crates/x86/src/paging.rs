//! Paging-structure entry bits (SDM vol. 3A, 4.5).

/// log2 of the small page size.
pub const PAGE_SHIFT: u32 = 12;
/// Small page size in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Bits of an address inside a page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// Present.
pub const P: u64 = 1 << 0;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User-accessible.
pub const US: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Page size: the entry maps a large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// No-execute.
pub const XD: u64 = 1 << 63;
/// Physical-address bits of a 64-bit entry.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Whether `address` is canonical with 48 linear-address bits.
pub const fn is_canonical(address: u64) -> bool {
    ((address as i64) << 16 >> 16) as u64 == address
}
