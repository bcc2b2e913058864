//! The GS base, by which translated code finds its processor.

use std::arch::asm;

/// Makes GS address the context on this thread.
pub(super) fn set_gs_base(base: u64) {
    // SAFETY: AT_HWCAP2 is always readable.
    let fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 != 0;
    if fsgsbase {
        // SAFETY: the kernel allows the instruction, and nothing else in a Linux process on
        // x86-64 uses GS.
        unsafe { asm!("wrgsbase {}", in(reg) base, options(nostack, preserves_flags)) };
    } else {
        const ARCH_SET_GS: libc::c_long = 0x1001;
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    }
}
