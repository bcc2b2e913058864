//! Addresses that a test has on the host and in the guest alike.
//!
//! All lie below 2 GiB, so that 32-bit code reaches them, and so that host code can address its
//! own block without a register. In the guest, linear and physical addresses are equal.

/// Size in bytes of a page.
pub const PAGE: u64 = 4096;

/// Code of the cases: readable, writable, executable, for user and supervisor.
pub const CODE: u64 = 0x1000_0000;
/// Bytes of code.
pub const CODE_SIZE: u64 = 0x4_0000;

/// Start of the data area: an absent page, then [`DATA`].
pub const AREA: u64 = 0x1010_0000;
/// Bytes of the data area, absent pages included.
pub const AREA_SIZE: u64 = 8 * PAGE;
/// First of the pages that cases read and write.
pub const DATA: u64 = AREA + PAGE;
/// Bytes of readable and writable data: three pages.
pub const DATA_SIZE: u64 = 3 * PAGE;
/// A page of data that can't be written, right behind [`DATA`].
pub const READ_ONLY: u64 = DATA + DATA_SIZE;
/// An absent page behind the read-only page.
pub const ABSENT: u64 = READ_ONLY + PAGE;
/// A single page of data between two absent ones.
pub const ISLAND: u64 = ABSENT + PAGE;
/// All that has memory, the absent page before the island included, for one copy.
pub const IMAGE_SIZE: usize = (ISLAND + PAGE - DATA) as usize;

/// Private memory of the harness on the host.
pub const HOST_BLOCK: u64 = 0x1030_0000;
/// Bytes of it.
pub const HOST_BLOCK_SIZE: u64 = 0x4_0000;

/// Guest tables, handlers and their stack: supervisor only.
pub const TABLES: u64 = 0x1040_0000;
/// Bytes of them.
pub const TABLES_SIZE: u64 = 0x4_0000;

/// Selectors, those of Linux on x86-64.
pub mod selector {
    /// 64-bit code, DPL 0.
    pub const KERNEL_CODE: u16 = 0x10;
    /// Data, DPL 0.
    pub const KERNEL_DATA: u16 = 0x18;
    /// 32-bit code, DPL 3.
    pub const USER_CODE32: u16 = 0x23;
    /// Data, DPL 3.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit code, DPL 3.
    pub const USER_CODE: u16 = 0x33;
    /// Task-state segment.
    pub const TSS: u16 = 0x40;
}
