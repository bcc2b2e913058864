//! Control-register bits (SDM vol. 3A, 2.5) and IA32_EFER (2.2.1).

/// CR0.PE: protection enable.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.MP: monitor coprocessor.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM: emulate coprocessor.
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS: task switched.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET: extension type, always set.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE: native x87 error reporting (#MF).
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP: supervisor writes honour read-only pages.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM: alignment mask.
pub const CR0_AM: u64 = 1 << 18;
/// CR0.NW: not write-through.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD: cache disable.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG: paging.
pub const CR0_PG: u64 = 1 << 31;

/// CR4.VME: virtual-8086 mode extensions.
pub const CR4_VME: u64 = 1 << 0;
/// CR4.PVI: protected-mode virtual interrupts.
pub const CR4_PVI: u64 = 1 << 1;
/// CR4.TSD: RDTSC is privileged.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE: debugging extensions.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE: 4 MiB pages in 2-level paging.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE: physical-address extension.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE: machine-check enable.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE: global pages.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.PCE: RDPMC at any privilege level.
pub const CR4_PCE: u64 = 1 << 8;
/// CR4.OSFXSR: FXSAVE and SSE are supported by the operating system.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXMMEXCPT: unmasked SIMD exceptions raise #XM.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4.UMIP: user-mode instruction prevention.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57: 5-level paging.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.FSGSBASE: RDFSBASE and friends are enabled.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.PCIDE: process-context identifiers.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.OSXSAVE: XSAVE is enabled.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.SMEP: supervisor-mode execution prevention.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP: supervisor-mode access prevention.
pub const CR4_SMAP: u64 = 1 << 21;

/// EFER.SCE: SYSCALL enable.
pub const EFER_SCE: u64 = 1 << 0;
/// EFER.LME: long mode enable.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA: long mode active.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE: no-execute enable.
pub const EFER_NXE: u64 = 1 << 11;

/// XCR0: x87 state.
pub const XCR0_X87: u64 = 1 << 0;
/// XCR0: SSE state.
pub const XCR0_SSE: u64 = 1 << 1;
/// XCR0: AVX state.
pub const XCR0_AVX: u64 = 1 << 2;
/// XCR0: AVX-512 opmask registers.
pub const XCR0_OPMASK: u64 = 1 << 5;
/// XCR0: upper halves of ZMM0 to ZMM15.
pub const XCR0_ZMM_HI256: u64 = 1 << 6;
/// XCR0: ZMM16 to ZMM31.
pub const XCR0_HI16_ZMM: u64 = 1 << 7;
/// XCR0: all of AVX-512.
pub const XCR0_AVX512: u64 = XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;
