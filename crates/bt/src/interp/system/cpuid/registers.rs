//! Which model-specific registers exist because of a feature (SDM vol. 4; APM vol. 2, appendix A).

use ringfence_x86::msr;

use super::{Feature, Offered as _};
use crate::cpu::Cpu;
use crate::env::Env;

/// IA32_APIC_BASE: the local APIC is in x2APIC mode.
const APIC_BASE_EXTD: u64 = 1 << 10;

/// The features of which one must be there for the register to exist; empty: it always does.
fn needed(index: u32) -> &'static [Feature] {
    use Feature as F;
    match index {
        msr::IA32_TSC => &[F::TSC],
        msr::IA32_TSC_ADJUST => &[F::TSC_ADJUST],
        msr::IA32_APIC_BASE => &[F::APIC],
        msr::IA32_TSC_DEADLINE => &[F::TSC_DEADLINE],
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => &[F::X2APIC],
        msr::IA32_PAT => &[F::PAT],
        msr::IA32_MTRRCAP | msr::IA32_MTRR_DEF_TYPE => &[F::MTRR],
        msr::IA32_MTRR_PHYSBASE0..=0x26f => &[F::MTRR],
        msr::IA32_MCG_CAP | msr::IA32_MCG_STATUS => &[F::MCA],
        msr::IA32_SYSENTER_CS | msr::IA32_SYSENTER_ESP | msr::IA32_SYSENTER_EIP => &[F::SEP],
        msr::IA32_EFER => &[F::LM, F::NX, F::SYSCALL],
        msr::IA32_STAR => &[F::SYSCALL],
        msr::IA32_LSTAR | msr::IA32_CSTAR | msr::IA32_FMASK => &[F::LM],
        msr::IA32_FS_BASE | msr::IA32_GS_BASE | msr::IA32_KERNEL_GS_BASE => &[F::LM],
        msr::IA32_TSC_AUX => &[F::RDTSCP, F::RDPID],
        _ => &[],
    }
}

/// Whether the guest's processor has the register `index`.
pub fn has_msr<E: Env>(cpu: &Cpu, env: &mut E, index: u32) -> bool {
    let features = needed(index);
    features.is_empty() || features.iter().any(|feature| feature.offered(cpu, env))
}

/// Whether the guest's processor has the register `index` and its bits that `value` sets.
pub fn has_msr_value<E: Env>(cpu: &Cpu, env: &mut E, index: u32, value: u64) -> bool {
    let x2apic = index == msr::IA32_APIC_BASE && value & APIC_BASE_EXTD != 0;
    has_msr(cpu, env, index) && (!x2apic || Feature::X2APIC.offered(cpu, env))
}
