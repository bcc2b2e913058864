//! Control and debug registers (SDM vol. 3A, 2.5 and 17.2).

use iced_x86::{Code, Instruction, Register};
use ringfence_x86::{cr, exception as ex, flags};

use super::super::{breakpoints, next_rip};
use super::cpuid::{Feature, Offered as _, physical_width};
use super::descriptor::kind;
use super::{operand, supervisor_only};
use crate::cpu::{CS, Cpu};
use crate::env::{Env, Flush, Trap};

/// CR0 bits that exist; the others are ignored on writes.
const CR0_DEFINED: u64 = cr::CR0_PE
    | cr::CR0_MP
    | cr::CR0_EM
    | cr::CR0_TS
    | cr::CR0_ET
    | cr::CR0_NE
    | cr::CR0_WP
    | cr::CR0_AM
    | cr::CR0_NW
    | cr::CR0_CD
    | cr::CR0_PG;

/// CR4 bits whose change makes translations stale.
const CR4_PAGING: u64 = cr::CR4_PSE
    | cr::CR4_PAE
    | cr::CR4_PGE
    | cr::CR4_LA57
    | cr::CR4_PCIDE
    | cr::CR4_SMEP
    | cr::CR4_SMAP;

/// CR4 bits that every processor of the model has.
const CR4_BASE: u64 = cr::CR4_PCE;

/// CR4 bits that a CPUID feature brings.
const CR4_OFFERED: [(u64, Feature); 16] = [
    (cr::CR4_VME | cr::CR4_PVI, Feature::VME),
    (cr::CR4_TSD, Feature::TSC),
    (cr::CR4_DE, Feature::DE),
    (cr::CR4_PSE, Feature::PSE),
    (cr::CR4_PAE, Feature::PAE),
    (cr::CR4_MCE, Feature::MCE),
    (cr::CR4_PGE, Feature::PGE),
    (cr::CR4_OSFXSR, Feature::FXSR),
    (cr::CR4_OSXMMEXCPT, Feature::SSE),
    (cr::CR4_UMIP, Feature::UMIP),
    (cr::CR4_LA57, Feature::LA57),
    (cr::CR4_FSGSBASE, Feature::FSGSBASE),
    (cr::CR4_PCIDE, Feature::PCID),
    (cr::CR4_OSXSAVE, Feature::XSAVE),
    (cr::CR4_SMEP, Feature::SMEP),
    (cr::CR4_SMAP, Feature::SMAP),
];

/// CR3 bit 63 with CR4.PCIDE: keep the translations of the new PCID.
const CR3_NO_FLUSH: u64 = 1 << 63;

/// Loads CR0.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr0<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    if value >> 32 != 0 {
        return Err(Trap::GP0);
    }
    let value = value & CR0_DEFINED | cr::CR0_ET;
    let has = |bit: u64| value & bit != 0;
    if has(cr::CR0_PG) && !has(cr::CR0_PE) || has(cr::CR0_NW) && !has(cr::CR0_CD) {
        return Err(Trap::GP0);
    }
    let changed = cpu.cr0 ^ value;
    let mut efer = cpu.efer;
    if changed & cr::CR0_PG != 0 {
        if !has(cr::CR0_PG) {
            if cpu.mode64() || cpu.cr4 & cr::CR4_PCIDE != 0 {
                return Err(Trap::GP0);
            }
            efer &= !cr::EFER_LMA;
        } else if efer & cr::EFER_LME != 0 {
            // IA-32e mode starts in compatibility mode, with PAE paging and no 16-bit TSS.
            let old_tss = matches!(
                cpu.tr.attributes.kind(),
                kind::TSS16_AVAILABLE | kind::TSS16_BUSY
            );
            let paged = cpu.cr4 & cr::CR4_PAE != 0;
            if !paged || cpu.seg[CS].attributes.long() || old_tss {
                return Err(Trap::GP0);
            }
            efer |= cr::EFER_LMA;
        }
    }
    cpu.cr0 = value;
    cpu.efer = efer;
    if changed & cr::CR0_PE != 0 {
        cpu.cpl = 0;
    }
    if changed & (cr::CR0_PG | cr::CR0_WP | cr::CR0_PE) != 0 {
        env.flush(cpu, Flush::All);
    }
    Ok(())
}

/// Loads CR3.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr3<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let value = if cpu.cr4 & cr::CR4_PCIDE != 0 {
        value & !CR3_NO_FLUSH
    } else {
        value
    };
    let width = physical_width(cpu, env);
    if cpu.long_mode() && value.checked_shr(width).unwrap_or(0) != 0 {
        return Err(Trap::GP0);
    }
    cpu.cr3 = value;
    env.flush(cpu, Flush::NonGlobal);
    Ok(())
}

/// Loads CR4.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_cr4<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let mut reserved = value & !CR4_BASE;
    for (bit, feature) in CR4_OFFERED {
        if reserved & bit != 0 && feature.offered(cpu, env) {
            reserved &= !bit;
        }
    }
    if reserved != 0 {
        return Err(Trap::GP0);
    }
    let changed = cpu.cr4 ^ value;
    if cpu.long_mode() && (changed & cr::CR4_LA57 != 0 || value & cr::CR4_PAE == 0) {
        return Err(Trap::GP0);
    }
    let starts_pcid = changed & value & cr::CR4_PCIDE != 0;
    if starts_pcid && (!cpu.long_mode() || cpu.cr3 & 0xfff != 0) {
        return Err(Trap::GP0);
    }
    cpu.cr4 = value;
    if changed & CR4_PAGING != 0 {
        env.flush(cpu, Flush::All);
    }
    Ok(())
}

/// Writes IA32_EFER.
///
/// # Errors
/// #GP(0) for a value that the architecture forbids.
pub fn set_efer<E: Env>(cpu: &mut Cpu, env: &mut E, value: u64) -> Result<(), Trap> {
    let bits = [
        (cr::EFER_SCE, Feature::SYSCALL),
        (cr::EFER_LME | cr::EFER_LMA, Feature::LM),
        (cr::EFER_NXE, Feature::NX),
    ];
    let mut allowed = 0;
    for (bit, feature) in bits {
        if value & bit != 0 && feature.offered(cpu, env) {
            allowed |= bit;
        }
    }
    if value & !allowed != 0 {
        return Err(Trap::GP0);
    }
    // LMA follows LME and CR0.PG; what is written to it is ignored.
    let value = value & !cr::EFER_LMA | cpu.efer & cr::EFER_LMA;
    let changed = cpu.efer ^ value;
    if changed & cr::EFER_LME != 0 && cpu.cr0 & cr::CR0_PG != 0 {
        return Err(Trap::GP0);
    }
    cpu.efer = value;
    if changed & cr::EFER_NXE != 0 {
        env.flush(cpu, Flush::All);
    }
    Ok(())
}

/// MOV to and from control and debug registers, LMSW, SMSW and CLTS.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let result = match instruction.code() {
        Mov_r32_cr | Mov_r64_cr => read_control(cpu, env, instruction),
        Mov_cr_r32 | Mov_cr_r64 => write_control(cpu, env, instruction),
        Mov_r32_dr | Mov_r64_dr => read_debug(cpu, instruction),
        Mov_dr_r32 | Mov_dr_r64 => write_debug(cpu, env, instruction),
        Smsw_rm16 | Smsw_r32m16 | Smsw_r64m16 => {
            if cpu.cr4 & cr::CR4_UMIP != 0 && cpu.cpl > 0 {
                return Some(Err(Trap::GP0));
            }
            operand::write(cpu, env, instruction, cpu.cr0)
        }
        Lmsw_rm16 | Lmsw_r32m16 | Lmsw_r64m16 => load_status(cpu, env, instruction),
        Clts => supervisor_only(cpu).map(|()| cpu.cr0 &= !cr::CR0_TS),
        Mov_r32_tr | Mov_tr_r32 => return Some(Err(Trap::UD)),
        _ => return None,
    };
    // The next instruction's address does not depend on the mode that was just set.
    Some(result.map(|()| cpu.rip = next_rip(cpu, instruction)))
}

fn read_control<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let register = instruction.op1_register();
    if !exists(register) {
        return Err(Trap::UD);
    }
    supervisor_only(cpu)?;
    let value = match register {
        Register::CR0 => cpu.cr0,
        Register::CR2 => cpu.cr2,
        Register::CR3 => cpu.cr3,
        Register::CR4 => cpu.cr4,
        _ => env.devices().task_priority(env.vcpu_id()),
    };
    operand::set_register(cpu, instruction.op0_register(), value);
    Ok(())
}

fn exists(register: Register) -> bool {
    use Register::*;
    matches!(register, CR0 | CR2 | CR3 | CR4 | CR8)
}

fn write_control<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    let register = instruction.op0_register();
    if !exists(register) {
        return Err(Trap::UD);
    }
    supervisor_only(cpu)?;
    let value = operand::register(cpu, instruction.op1_register());
    match register {
        Register::CR0 => set_cr0(cpu, env, value),
        Register::CR2 => {
            cpu.cr2 = value;
            Ok(())
        }
        Register::CR3 => set_cr3(cpu, env, value),
        Register::CR4 => set_cr4(cpu, env, value),
        _ if value > 0xf => Err(Trap::GP0),
        _ => {
            env.devices().set_task_priority(env.vcpu_id(), value);
            Ok(())
        }
    }
}

/// Loads the machine status word: PE can be set but not cleared.
fn load_status<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    supervisor_only(cpu)?;
    let word = operand::read(cpu, env, instruction, 0, 2)?;
    let status = cr::CR0_MP | cr::CR0_EM | cr::CR0_TS;
    set_cr0(cpu, env, cpu.cr0 & !status | word & (status | cr::CR0_PE))
}

/// Number of a debug register, DR4 and DR5 resolved, after the checks of every access.
fn debug_index(cpu: &mut Cpu, register: Register) -> Result<usize, Trap> {
    let index = register.number();
    let index = match index {
        4 | 5 if cpu.cr4 & cr::CR4_DE != 0 => return Err(Trap::UD),
        4 | 5 => index + 2,
        0..=7 => index,
        _ => return Err(Trap::UD),
    };
    supervisor_only(cpu)?;
    if cpu.dr[7] & 1 << 13 != 0 {
        // DR7.GD: any access is a debug exception, which DR6.BD tells.
        cpu.dr[6] |= 1 << 13;
        cpu.rflags |= flags::RF;
        return Err(Trap::fault(ex::DB));
    }
    Ok(index)
}

fn read_debug(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    let index = debug_index(cpu, instruction.op1_register())?;
    operand::set_register(cpu, instruction.op0_register(), cpu.dr[index]);
    Ok(())
}

fn write_debug<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let armed = breakpoints::armed(cpu);
    let index = debug_index(cpu, instruction.op0_register())?;
    let value = operand::register(cpu, instruction.op1_register());
    if index >= 6 && value >> 32 != 0 {
        return Err(Trap::GP0);
    }
    cpu.dr[index] = match index {
        6 => value & 0xe00f | 0xffff_0ff0,
        7 => value & 0xffff_23ff | 0x400,
        _ => value,
    };
    if index != 6 && (armed || breakpoints::armed(cpu)) {
        // Pages with breakpoints are out of the TLB and of translated code.
        env.flush(cpu, Flush::All);
    }
    Ok(())
}
