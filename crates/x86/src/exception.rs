//! Exception vectors (SDM vol. 3A, 6.3.1) and page-fault error-code bits (4.7).

/// #DE: divide error.
pub const DE: u8 = 0;
/// #DB: debug.
pub const DB: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// #BP: breakpoint.
pub const BP: u8 = 3;
/// #OF: overflow.
pub const OF: u8 = 4;
/// #BR: BOUND range exceeded.
pub const BR: u8 = 5;
/// #UD: invalid opcode.
pub const UD: u8 = 6;
/// #NM: device not available.
pub const NM: u8 = 7;
/// #DF: double fault.
pub const DF: u8 = 8;
/// #TS: invalid TSS.
pub const TS: u8 = 10;
/// #NP: segment not present.
pub const NP: u8 = 11;
/// #SS: stack-segment fault.
pub const SS: u8 = 12;
/// #GP: general protection.
pub const GP: u8 = 13;
/// #PF: page fault.
pub const PF: u8 = 14;
/// #MF: x87 floating-point error.
pub const MF: u8 = 16;
/// #AC: alignment check.
pub const AC: u8 = 17;
/// #MC: machine check.
pub const MC: u8 = 18;
/// #XM: SIMD floating-point exception.
pub const XM: u8 = 19;

/// Page-fault error code: the page was present (a protection violation).
pub const PF_PRESENT: u32 = 1 << 0;
/// Page-fault error code: the access was a write.
pub const PF_WRITE: u32 = 1 << 1;
/// Page-fault error code: the access came from user mode.
pub const PF_USER: u32 = 1 << 2;
/// Page-fault error code: a reserved bit was set in a paging structure.
pub const PF_RESERVED: u32 = 1 << 3;
/// Page-fault error code: the access was an instruction fetch.
pub const PF_FETCH: u32 = 1 << 4;

/// Whether delivery of `vector` pushes an error code (SDM vol. 3A, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, DF | TS | NP | SS | GP | PF | AC | 21)
}
