//! Model-specific register numbers (SDM vol. 4, APM vol. 2 appendix A).

/// Time-stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// Local APIC base address and enable bits.
pub const IA32_APIC_BASE: u32 = 0x1b;
/// TSC adjustment.
pub const IA32_TSC_ADJUST: u32 = 0x3b;
/// Microcode revision.
pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
/// MTRR capabilities.
pub const IA32_MTRRCAP: u32 = 0xfe;
/// SYSENTER code segment.
pub const IA32_SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const IA32_SYSENTER_ESP: u32 = 0x175;
/// SYSENTER instruction pointer.
pub const IA32_SYSENTER_EIP: u32 = 0x176;
/// Machine-check capabilities.
pub const IA32_MCG_CAP: u32 = 0x179;
/// Machine-check status.
pub const IA32_MCG_STATUS: u32 = 0x17a;
/// Miscellaneous enable bits.
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
/// First variable-range MTRR base.
pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;
/// Fixed-range MTRR of the first 512 KiB.
pub const IA32_MTRR_FIX64K_00000: u32 = 0x250;
/// Page attribute table.
pub const IA32_PAT: u32 = 0x277;
/// Default memory type.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// TSC-deadline of the local APIC timer.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Extended state mask of XSAVES.
pub const IA32_XSS: u32 = 0xda0;
/// Extended feature enables.
pub const IA32_EFER: u32 = 0xc000_0080;
/// SYSCALL and SYSRET selectors, 32-bit entry point.
pub const IA32_STAR: u32 = 0xc000_0081;
/// SYSCALL entry point of 64-bit code.
pub const IA32_LSTAR: u32 = 0xc000_0082;
/// SYSCALL entry point of compatibility-mode code.
pub const IA32_CSTAR: u32 = 0xc000_0083;
/// RFLAGS bits that SYSCALL clears.
pub const IA32_FMASK: u32 = 0xc000_0084;
/// FS base.
pub const IA32_FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const IA32_GS_BASE: u32 = 0xc000_0101;
/// GS base that SWAPGS exchanges.
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Value that RDTSCP and RDPID return.
pub const IA32_TSC_AUX: u32 = 0xc000_0103;
