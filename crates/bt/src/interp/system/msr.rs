//! RDMSR and WRMSR (SDM vol. 4; APM vol. 2, appendix A).

use ringfence_x86::msr;
use ringfence_x86::paging::is_canonical;

use super::control::set_efer;
use super::cpuid::registers::{has_msr, has_msr_value};
use super::cpuid::{Feature, Offered as _, physical_width};
use super::{operand, supervisor_only};
use crate::cpu::{Cpu, FS, GS, RAX, RCX, RDX};
use crate::env::{Env, Trap};
use crate::paravirt;

/// Number of variable-range MTRRs, in bits 7:0 of IA32_MTRRCAP; bit 8: fixed ones, bit 10: WC.
const MTRR_CAP: u64 = 0x508;
/// IA32_MISC_ENABLE bits that can be written: fast strings, CPUID limit, XD disable left out.
const MISC_ENABLE_WRITABLE: u64 = 1;
/// Microcode revision that IA32_BIOS_SIGN_ID shows, in its upper half.
const MICROCODE_REVISION: u64 = 0xffff_ffff;
/// IA32_ARCH_CAPABILITIES of a processor without transient-execution flaws that matter here: the
/// guest's levels are kept apart by translation, which does not depend on the host's behaviour.
/// RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
/// PSDP_NO, PBRSB_NO, GDS_NO, RFDS_NO.
const ARCH_CAPABILITIES: u64 =
    1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 7 << 13 | 1 << 24 | 1 << 26 | 1 << 27;

const IA32_PLATFORM_ID: u32 = 0x17;
const IA32_BIOS_UPDATE_TRIGGER: u32 = 0x79;
const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
const IA32_MCG_CTL: u32 = 0x17b;
const AMD_SYSCFG: u32 = 0xc001_0010;
const AMD_HWCR: u32 = 0xc001_0015;
const AMD_NB_CFG: u32 = 0xc001_001f;
const AMD_PATCH_LOADER: u32 = 0xc001_0020;
const AMD_INT_PENDING: u32 = 0xc001_0055;
const AMD_VM_CR: u32 = 0xc001_0114;
const AMD_SEV_STATUS: u32 = 0xc001_0131;
const AMD_LS_CFG: u32 = 0xc001_1020;
const AMD_IC_CFG: u32 = 0xc001_1021;
const AMD_DC_CFG: u32 = 0xc001_1022;
const AMD_BU_CFG2: u32 = 0xc001_102a;
const AMD_DE_CFG: u32 = 0xc001_1029;
/// DE_CFG: LFENCE is serializing.
const LFENCE_SERIALIZING: u64 = 1 << 1;
/// HWCR: the TSC runs at a constant rate (TscFreqSel).
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;

/// RDMSR of ECX into EDX:EAX.
pub(super) fn rdmsr<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    supervisor_only(cpu)?;
    let index = cpu.gpr[RCX] as u32;
    check(has_msr(cpu, env, index))?;
    let value = read(cpu, env, index).ok_or(Trap::GP0)?;
    cpu.gpr[RAX] = value & 0xffff_ffff;
    cpu.gpr[RDX] = value >> 32;
    Ok(())
}

/// WRMSR of EDX:EAX to ECX.
pub(super) fn wrmsr<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    supervisor_only(cpu)?;
    let index = cpu.gpr[RCX] as u32;
    let value = cpu.gpr[RDX] << 32 | cpu.gpr[RAX] & operand::mask(4);
    check(has_msr_value(cpu, env, index, value))?;
    write(cpu, env, index, value)
}

/// Index into the fixed-range MTRRs.
fn fixed_mtrr(index: u32) -> Option<usize> {
    match index {
        msr::IA32_MTRR_FIX64K_00000 => Some(0),
        0x258 | 0x259 => Some((index - 0x258) as usize + 1),
        0x268..=0x26f => Some((index - 0x268) as usize + 3),
        _ => None,
    }
}

/// Index into the variable-range MTRRs.
fn variable_mtrr(index: u32) -> Option<usize> {
    (msr::IA32_MTRR_PHYSBASE0..msr::IA32_MTRR_PHYSBASE0 + 16)
        .contains(&index)
        .then(|| (index - msr::IA32_MTRR_PHYSBASE0) as usize)
}

/// Where a register is kept that only its processor knows.
pub fn stored_msr(cpu: &mut Cpu, index: u32) -> Option<&mut u64> {
    let msrs = &mut cpu.msr;
    Some(match index {
        msr::IA32_TSC_ADJUST => &mut msrs.tsc_adjust,
        msr::IA32_SYSENTER_CS => &mut msrs.sysenter_cs,
        msr::IA32_SYSENTER_ESP => &mut msrs.sysenter_esp,
        msr::IA32_SYSENTER_EIP => &mut msrs.sysenter_eip,
        msr::IA32_MISC_ENABLE => &mut msrs.misc_enable,
        msr::IA32_PAT => &mut msrs.pat,
        msr::IA32_MTRR_DEF_TYPE => &mut msrs.mtrr_def_type,
        msr::IA32_STAR => &mut msrs.star,
        msr::IA32_LSTAR => &mut msrs.lstar,
        msr::IA32_CSTAR => &mut msrs.cstar,
        msr::IA32_FMASK => &mut msrs.fmask,
        msr::IA32_KERNEL_GS_BASE => &mut msrs.kernel_gs_base,
        msr::IA32_TSC_AUX => &mut msrs.tsc_aux,
        _ => {
            if let Some(at) = fixed_mtrr(index) {
                &mut msrs.mtrr_fixed[at]
            } else {
                &mut msrs.mtrr_variable[variable_mtrr(index)?]
            }
        }
    })
}

fn read<E: Env>(cpu: &mut Cpu, env: &mut E, index: u32) -> Option<u64> {
    let value = match index {
        msr::IA32_TSC => env.tsc(cpu),
        msr::IA32_TSC_ADJUST => cpu.msr.tsc_adjust,
        msr::IA32_BIOS_SIGN_ID => MICROCODE_REVISION << 32,
        msr::IA32_MTRRCAP => MTRR_CAP,
        IA32_ARCH_CAPABILITIES if Feature::ARCH_CAPABILITIES.offered(cpu, env) => ARCH_CAPABILITIES,
        msr::IA32_SYSENTER_CS => cpu.msr.sysenter_cs,
        msr::IA32_SYSENTER_ESP => cpu.msr.sysenter_esp,
        msr::IA32_SYSENTER_EIP => cpu.msr.sysenter_eip,
        // Machine-check architecture without banks.
        msr::IA32_MCG_CAP | msr::IA32_MCG_STATUS | IA32_MCG_CTL | IA32_PLATFORM_ID => 0,
        msr::IA32_MISC_ENABLE => cpu.msr.misc_enable,
        msr::IA32_PAT => cpu.msr.pat,
        msr::IA32_MTRR_DEF_TYPE => cpu.msr.mtrr_def_type,
        msr::IA32_XSS if Feature::XSAVES.offered(cpu, env) => 0,
        msr::IA32_EFER => cpu.efer,
        msr::IA32_STAR => cpu.msr.star,
        msr::IA32_LSTAR => cpu.msr.lstar,
        msr::IA32_CSTAR => cpu.msr.cstar,
        msr::IA32_FMASK => cpu.msr.fmask,
        msr::IA32_FS_BASE => cpu.seg[FS].base,
        msr::IA32_GS_BASE => cpu.seg[GS].base,
        msr::IA32_KERNEL_GS_BASE => cpu.msr.kernel_gs_base,
        msr::IA32_TSC_AUX => cpu.msr.tsc_aux,
        AMD_HWCR => HWCR_TSC_FREQ_SEL,
        AMD_DE_CFG => LFENCE_SERIALIZING,
        AMD_SYSCFG | AMD_NB_CFG | AMD_INT_PENDING | AMD_VM_CR | AMD_SEV_STATUS | AMD_LS_CFG
        | AMD_IC_CFG | AMD_DC_CFG | AMD_BU_CFG2 => 0,
        _ => {
            if let Some(at) = fixed_mtrr(index) {
                cpu.msr.mtrr_fixed[at]
            } else if let Some(at) = variable_mtrr(index) {
                cpu.msr.mtrr_variable[at]
            } else if let Some(value) = paravirtual(cpu, env, index)
                .then(|| env.paravirt()?.read_msr(index))
                .flatten()
            {
                value
            } else {
                return env.devices().read_msr(env.vcpu_id(), index)?.ok();
            }
        }
    };
    Some(value)
}

/// Memory types that PAT and MTRRs know; PAT also knows UC- (7).
fn is_memory_type(value: u64, pat: bool) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6) || pat && value == 7
}

fn all_types(value: u64, pat: bool) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|&byte| is_memory_type(u64::from(byte), pat))
}

/// Whether the guest has what the paravirtual register `index` belongs to.
fn paravirtual<E: Env>(cpu: &Cpu, env: &mut E, index: u32) -> bool {
    let feature = match index {
        paravirt::MSR_WALL_CLOCK | paravirt::MSR_SYSTEM_TIME => Feature::KVM_CLOCK,
        paravirt::MSR_STEAL_TIME => Feature::KVM_STEAL_TIME,
        paravirt::MSR_PV_EOI => Feature::KVM_PV_EOI,
        _ => return false,
    };
    feature.offered(cpu, env)
}

/// The paravirtual clock follows the TSC.
fn tsc_changed<E: Env>(cpu: &Cpu, env: &mut E) {
    if let Some(paravirt) = env.paravirt() {
        paravirt.tsc_changed(cpu.msr.tsc_adjust);
    }
}

fn check(valid: bool) -> Result<(), Trap> {
    if valid { Ok(()) } else { Err(Trap::GP0) }
}

fn write<E: Env>(cpu: &mut Cpu, env: &mut E, index: u32, value: u64) -> Result<(), Trap> {
    // Registers that hold a linear address want it canonical.
    let canonical = || check(is_canonical(value));
    match index {
        msr::IA32_TSC => {
            // The adjustment moves by as much as the counter (SDM vol. 3B, 17.17.3).
            let delta = value.wrapping_sub(env.tsc(cpu));
            cpu.msr.tsc_adjust = cpu.msr.tsc_adjust.wrapping_add(delta);
            tsc_changed(cpu, env);
        }
        msr::IA32_TSC_ADJUST => {
            cpu.msr.tsc_adjust = value;
            tsc_changed(cpu, env);
        }
        msr::IA32_SYSENTER_CS => cpu.msr.sysenter_cs = value & 0xffff_ffff,
        msr::IA32_SYSENTER_ESP => {
            canonical()?;
            cpu.msr.sysenter_esp = value;
        }
        msr::IA32_SYSENTER_EIP => {
            canonical()?;
            cpu.msr.sysenter_eip = value;
        }
        msr::IA32_MISC_ENABLE => {
            let kept = cpu.msr.misc_enable & !MISC_ENABLE_WRITABLE;
            cpu.msr.misc_enable = kept | value & MISC_ENABLE_WRITABLE;
        }
        msr::IA32_PAT => {
            check(all_types(value, true))?;
            cpu.msr.pat = value;
        }
        msr::IA32_MTRR_DEF_TYPE => {
            check(value & !0xcff == 0 && is_memory_type(value & 0xff, false))?;
            cpu.msr.mtrr_def_type = value;
        }
        msr::IA32_XSS if Feature::XSAVES.offered(cpu, env) => check(value == 0)?,
        msr::IA32_EFER => set_efer(cpu, env, value)?,
        msr::IA32_STAR => cpu.msr.star = value,
        msr::IA32_LSTAR => {
            canonical()?;
            cpu.msr.lstar = value;
        }
        msr::IA32_CSTAR => {
            canonical()?;
            cpu.msr.cstar = value;
        }
        msr::IA32_FMASK => cpu.msr.fmask = value & 0xffff_ffff,
        msr::IA32_FS_BASE => {
            canonical()?;
            cpu.seg[FS].base = value;
        }
        msr::IA32_GS_BASE => {
            canonical()?;
            cpu.seg[GS].base = value;
        }
        msr::IA32_KERNEL_GS_BASE => {
            canonical()?;
            cpu.msr.kernel_gs_base = value;
        }
        msr::IA32_TSC_AUX => {
            check(value >> 32 == 0)?;
            cpu.msr.tsc_aux = value;
        }
        // A microcode update is dropped, and the revision before it asked for.
        msr::IA32_BIOS_SIGN_ID | IA32_BIOS_UPDATE_TRIGGER | AMD_PATCH_LOADER => {}
        msr::IA32_MCG_STATUS => check(value == 0)?,
        // Bits without an effect on what a guest can see.
        AMD_HWCR | AMD_DE_CFG | AMD_SYSCFG | AMD_NB_CFG | AMD_INT_PENDING | AMD_LS_CFG
        | AMD_IC_CFG | AMD_DC_CFG | AMD_BU_CFG2 => {}
        _ => return write_other(cpu, env, index, value),
    }
    Ok(())
}

fn write_other<E: Env>(cpu: &mut Cpu, env: &mut E, index: u32, value: u64) -> Result<(), Trap> {
    if let Some(at) = fixed_mtrr(index) {
        check(all_types(value, false))?;
        cpu.msr.mtrr_fixed[at] = value;
        return Ok(());
    }
    if let Some(at) = variable_mtrr(index) {
        let width = physical_width(cpu, env);
        check(value.checked_shr(width).unwrap_or(0) == 0)?;
        let valid = if at % 2 == 0 {
            value & 0xf00 == 0 && is_memory_type(value & 0xff, false)
        } else {
            value & 0x7ff == 0
        };
        check(valid)?;
        cpu.msr.mtrr_variable[at] = value;
        return Ok(());
    }
    if paravirtual(cpu, env, index)
        && let Some(valid) = env
            .paravirt()
            .and_then(|p| p.write_msr(index, value, cpu.msr.tsc_adjust))
    {
        return check(valid);
    }
    match env.devices().write_msr(env.vcpu_id(), index, value) {
        Some(Ok(())) => Ok(()),
        Some(Err(())) | None => Err(Trap::GP0),
    }
}
