//! Descriptor-table registers and the instructions that look at descriptors (SDM vol. 2).

use iced_x86::{Code, Instruction};
use ringfence_engine::{DescriptorTable, SegmentAttributes};
use ringfence_x86::exception as ex;
use ringfence_x86::paging::is_canonical;
use ringfence_x86::{cr, flags};

use super::super::next_rip;
use super::descriptor::{is_null, kind, require, rpl, selector_fault, update_access};
use super::operand;
use super::segment::{null_segment, visible};
use super::supervisor_only;
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};

/// System types that LAR shows: TSSs, LDT, call and task gates.
const LAR_KINDS: u16 = 0b1_1010_0011_1110;
/// The same in long mode: LDT, TSSs, call gate.
const LAR_KINDS_LONG: u16 = 0b1_1010_0000_0100;
/// System types that LSL shows: TSSs and LDT.
const LSL_KINDS: u16 = 0b0_1010_0000_1110;
/// The same in long mode.
const LSL_KINDS_LONG: u16 = 0b0_1010_0000_0100;

/// LGDT to ARPL.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let result = match instruction.code() {
        Lgdt_m1632_16 | Lidt_m1632_16 => load_table(cpu, env, instruction, 3),
        Lgdt_m1632 | Lidt_m1632 => load_table(cpu, env, instruction, 4),
        Lgdt_m1664 | Lidt_m1664 => load_table(cpu, env, instruction, 8),
        Sgdt_m1632_16 | Sgdt_m1632 => store_table(cpu, env, instruction, cpu.gdtr, 4),
        Sgdt_m1664 => store_table(cpu, env, instruction, cpu.gdtr, 8),
        Sidt_m1632_16 | Sidt_m1632 => store_table(cpu, env, instruction, cpu.idtr, 4),
        Sidt_m1664 => store_table(cpu, env, instruction, cpu.idtr, 8),
        Sldt_rm16 | Sldt_r32m16 | Sldt_r64m16 => {
            store_selector(cpu, env, instruction, cpu.ldtr.selector)
        }
        Str_rm16 | Str_r32m16 | Str_r64m16 => {
            store_selector(cpu, env, instruction, cpu.tr.selector)
        }
        Lldt_rm16 | Lldt_r32m16 | Lldt_r64m16 => load_ldt(cpu, env, instruction),
        Ltr_rm16 | Ltr_r32m16 | Ltr_r64m16 => load_task(cpu, env, instruction),
        Lar_r16_rm16 | Lar_r32_r32m16 | Lar_r64_r64m16 => access_rights(cpu, env, instruction),
        Lsl_r16_rm16 | Lsl_r32_r32m16 | Lsl_r64_r64m16 => limit(cpu, env, instruction),
        Verr_rm16 | Verr_r32m16 | Verr_r64m16 => {
            verify(cpu, env, instruction, SegmentAttributes::is_readable)
        }
        Verw_rm16 | Verw_r32m16 | Verw_r64m16 => {
            verify(cpu, env, instruction, SegmentAttributes::is_writable)
        }
        Arpl_rm16_r16 | Arpl_r32m16_r32 => adjust_rpl(cpu, env, instruction),
        _ => return None,
    };
    Some(result.map(|()| cpu.rip = next_rip(cpu, instruction)))
}

/// Selectors mean descriptors only in protected mode: elsewhere #UD.
fn protected_only(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.real_mode() || cpu.virtual8086() {
        Err(Trap::UD)
    } else {
        Ok(())
    }
}

/// CR4.UMIP hides system registers from user mode.
fn check_umip(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.cr4 & cr::CR4_UMIP != 0 && cpu.cpl > 0 {
        Err(Trap::GP0)
    } else {
        Ok(())
    }
}

fn load_table<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    base_size: usize,
) -> Result<(), Trap> {
    use Code::*;
    supervisor_only(cpu)?;
    let bytes = if base_size == 3 { 4 } else { base_size };
    let linear = operand::memory(cpu, instruction, 0, 2, false)?;
    let limit = operand::load(cpu, env, linear, 2, Privilege::Current)? as u16;
    let linear = operand::memory(cpu, instruction, 2, bytes, false)?;
    let base = operand::load(cpu, env, linear, bytes, Privilege::Current)?;
    if base_size == 8 && !is_canonical(base) {
        return Err(Trap::GP0);
    }
    let table = DescriptorTable {
        base: base & operand::mask(base_size),
        limit,
    };
    if matches!(instruction.code(), Lgdt_m1632_16 | Lgdt_m1632 | Lgdt_m1664) {
        cpu.gdtr = table;
    } else {
        cpu.idtr = table;
    }
    Ok(())
}

fn store_table<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    table: DescriptorTable,
    base_size: usize,
) -> Result<(), Trap> {
    check_umip(cpu)?;
    let mut image = [0; 10];
    image[..2].copy_from_slice(&table.limit.to_le_bytes());
    image[2..].copy_from_slice(&table.base.to_le_bytes());
    let size = 2 + base_size;
    let linear = operand::memory(cpu, instruction, 0, size, true)?;
    env.store(cpu, linear, &image[..size], Privilege::Current)
}

fn store_selector<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    selector: u16,
) -> Result<(), Trap> {
    protected_only(cpu)?;
    check_umip(cpu)?;
    operand::write(cpu, env, instruction, u64::from(selector))
}

fn load_ldt<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    protected_only(cpu)?;
    supervisor_only(cpu)?;
    let selector = operand::read(cpu, env, instruction, 0, 2)? as u16;
    if is_null(selector) {
        cpu.ldtr = null_segment(selector);
        return Ok(());
    }
    if selector & 4 != 0 {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    let descriptor = require(cpu, env, selector, ex::GP, 0)?;
    if descriptor.system_kind() != Some(kind::LDT) {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    if !descriptor.attributes().present() {
        return Err(selector_fault(ex::NP, selector, 0));
    }
    if !is_canonical(descriptor.base()) {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    cpu.ldtr = descriptor.segment(selector);
    Ok(())
}

fn load_task<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    protected_only(cpu)?;
    supervisor_only(cpu)?;
    let selector = operand::read(cpu, env, instruction, 0, 2)? as u16;
    if is_null(selector) {
        return Err(Trap::GP0);
    }
    if selector & 4 != 0 {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    let descriptor = require(cpu, env, selector, ex::GP, 0)?;
    let available = match descriptor.system_kind() {
        Some(kind::TSS_AVAILABLE) => true,
        Some(kind::TSS16_AVAILABLE) => !cpu.long_mode(),
        _ => false,
    };
    if !available || !is_canonical(descriptor.base()) {
        return Err(selector_fault(ex::GP, selector, 0));
    }
    if !descriptor.attributes().present() {
        return Err(selector_fault(ex::NP, selector, 0));
    }
    update_access(cpu, env, descriptor.linear, &mut |access| access | 2)?;
    cpu.tr = descriptor.segment(selector);
    cpu.tr.attributes.0 |= 2;
    Ok(())
}

fn set_zero_flag(cpu: &mut Cpu, set: bool) {
    cpu.rflags = cpu.rflags & !flags::ZF | if set { flags::ZF } else { 0 };
}

fn access_rights<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    protected_only(cpu)?;
    let selector = operand::read(cpu, env, instruction, 1, 2)? as u16;
    let kinds = if cpu.long_mode() {
        LAR_KINDS_LONG
    } else {
        LAR_KINDS
    };
    let seen = visible(cpu, env, selector, kinds)?;
    if let Some((attributes, _)) = seen {
        let rights = u64::from(attributes.0) << 8 & 0xf0_ff00;
        operand::set_register(cpu, instruction.op0_register(), rights);
    }
    set_zero_flag(cpu, seen.is_some());
    Ok(())
}

fn limit<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    protected_only(cpu)?;
    let selector = operand::read(cpu, env, instruction, 1, 2)? as u16;
    let kinds = if cpu.long_mode() {
        LSL_KINDS_LONG
    } else {
        LSL_KINDS
    };
    let seen = visible(cpu, env, selector, kinds)?;
    if let Some((_, limit)) = seen {
        operand::set_register(cpu, instruction.op0_register(), limit);
    }
    set_zero_flag(cpu, seen.is_some());
    Ok(())
}

fn verify<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    allowed: fn(SegmentAttributes) -> bool,
) -> Result<(), Trap> {
    protected_only(cpu)?;
    let selector = operand::read(cpu, env, instruction, 0, 2)? as u16;
    let seen = visible(cpu, env, selector, 0)?;
    set_zero_flag(cpu, seen.is_some_and(|(attributes, _)| allowed(attributes)));
    Ok(())
}

fn adjust_rpl<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    protected_only(cpu)?;
    let level = operand::register(cpu, instruction.op1_register()) as u16;
    let selector = operand::read(cpu, env, instruction, 0, 2)? as u16;
    let lower = rpl(selector) < rpl(level);
    if lower {
        let adjusted = u64::from(selector & !3 | level & 3);
        if instruction.op0_kind() == iced_x86::OpKind::Register {
            // Only the low 16 bits are written, whatever the operand size.
            let old = operand::register(cpu, instruction.op0_register());
            let value = old & !0xffff | adjusted;
            operand::set_register(cpu, instruction.op0_register(), value);
        } else {
            operand::write(cpu, env, instruction, adjusted)?;
        }
    }
    set_zero_flag(cpu, lower);
    Ok(())
}
