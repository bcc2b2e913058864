//! Fast system calls and segment bases: SYSCALL, SYSENTER, SWAPGS, RDFSBASE (SDM vol. 2, APM
//! vol. 3).

use iced_x86::{Code, Instruction};
use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::paging::is_canonical;
use ringfence_x86::{cr, flags};

use super::super::next_rip;
use super::cpuid::{Feature, Offered as _};
use super::{operand, supervisor_only};
use crate::cpu::{CS, Cpu, FS, GS, RCX, RDX, RSP, SS};
use crate::env::{Env, Trap};

const DPL3: u32 = 3 << 5;
const R11: usize = 11;

/// SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FSGSBASE instructions.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    Some(match instruction.code() {
        Syscall => syscall(cpu, env, next_rip(cpu, instruction)),
        Sysretd => sysret(cpu, env, false),
        Sysretq => sysret(cpu, env, true),
        Sysenter => sysenter(cpu, env),
        Sysexitd => sysexit(cpu, false),
        Sysexitq => sysexit(cpu, true),
        Swapgs => swapgs(cpu, instruction),
        Rdfsbase_r32 | Rdfsbase_r64 => read_base(cpu, env, instruction, FS),
        Rdgsbase_r32 | Rdgsbase_r64 => read_base(cpu, env, instruction, GS),
        Wrfsbase_r32 | Wrfsbase_r64 => write_base(cpu, env, instruction, FS),
        Wrgsbase_r32 | Wrgsbase_r64 => write_base(cpu, env, instruction, GS),
        _ => return None,
    })
}

/// AMD processors have SYSCALL outside 64-bit mode and no SYSENTER in long mode.
fn is_amd<E: Env>(cpu: &Cpu, env: &mut E) -> bool {
    let [_, ebx, ecx, edx] = env.cpuid(cpu, 0, 0);
    let vendor = [ebx, edx, ecx].map(u32::to_le_bytes);
    matches!(vendor.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
}

fn flat(selector: u16, attributes: SegmentAttributes, level: u32) -> Segment {
    let attributes = SegmentAttributes(attributes.0 | level);
    Segment {
        base: 0,
        limit: u32::MAX,
        attributes,
        selector,
    }
}

/// Loads flat CS and SS at level 0 or 3.
fn enter(cpu: &mut Cpu, cs: u16, ss: u16, code: SegmentAttributes, cpl: u8) {
    let level = if cpl == 3 { DPL3 } else { 0 };
    let rpl = u16::from(cpl);
    cpu.seg[CS] = flat(cs & !3 | rpl, code, level);
    cpu.seg[SS] = flat(ss & !3 | rpl, SegmentAttributes::DATA32, level);
    cpu.cpl = cpl;
}

fn syscall<E: Env>(cpu: &mut Cpu, env: &mut E, next: u64) -> Result<(), Trap> {
    if cpu.efer & cr::EFER_SCE == 0 || cpu.real_mode() || !cpu.mode64() && !is_amd(cpu, env) {
        return Err(Trap::UD);
    }
    let selector = (cpu.msr.star >> 32) as u16;
    cpu.gpr[RCX] = next;
    if cpu.long_mode() {
        cpu.gpr[R11] = cpu.rflags & !flags::RF;
        cpu.rip = if cpu.mode64() {
            cpu.msr.lstar
        } else {
            cpu.msr.cstar
        };
        cpu.rflags = cpu.rflags & !(cpu.msr.fmask | flags::RF | flags::VM) | flags::FIXED;
        enter(
            cpu,
            selector,
            (selector & !3).wrapping_add(8),
            SegmentAttributes::CODE64,
            0,
        );
    } else {
        cpu.rip = cpu.msr.star & 0xffff_ffff;
        cpu.rflags &= !(flags::IF | flags::VM | flags::RF);
        enter(
            cpu,
            selector,
            (selector & !3).wrapping_add(8),
            SegmentAttributes::CODE32,
            0,
        );
    }
    Ok(())
}

fn sysret<E: Env>(cpu: &mut Cpu, env: &mut E, wide: bool) -> Result<(), Trap> {
    if cpu.efer & cr::EFER_SCE == 0 || cpu.real_mode() || !cpu.mode64() && !is_amd(cpu, env) {
        return Err(Trap::UD);
    }
    supervisor_only(cpu)?;
    let selector = (cpu.msr.star >> 48) as u16;
    let rip = cpu.gpr[RCX];
    if wide && !is_canonical(rip) {
        return Err(Trap::GP0);
    }
    if cpu.long_mode() {
        let kept = flags::ARITHMETIC
            | flags::TF
            | flags::IF
            | flags::DF
            | flags::IOPL
            | flags::NT
            | flags::AC
            | flags::VIF
            | flags::VIP
            | flags::ID;
        cpu.rflags = cpu.gpr[R11] & kept | flags::FIXED;
    } else {
        cpu.rflags |= flags::IF;
    }
    let stack = selector.wrapping_add(8);
    if wide {
        enter(
            cpu,
            selector.wrapping_add(16),
            stack,
            SegmentAttributes::CODE64,
            3,
        );
        cpu.rip = rip;
    } else {
        enter(cpu, selector, stack, SegmentAttributes::CODE32, 3);
        cpu.rip = rip & 0xffff_ffff;
    }
    Ok(())
}

fn sysenter<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    if !Feature::SEP.offered(cpu, env) || cpu.long_mode() && is_amd(cpu, env) {
        return Err(Trap::UD);
    }
    let selector = cpu.msr.sysenter_cs as u16;
    if cpu.real_mode() || selector & !3 == 0 {
        return Err(Trap::GP0);
    }
    let long = cpu.long_mode();
    let kept = if long { u64::MAX } else { 0xffff_ffff };
    cpu.rflags &= !(flags::VM | flags::IF | flags::RF);
    let code = if long {
        SegmentAttributes::CODE64
    } else {
        SegmentAttributes::CODE32
    };
    enter(cpu, selector, (selector & !3).wrapping_add(8), code, 0);
    cpu.gpr[RSP] = cpu.msr.sysenter_esp & kept;
    cpu.rip = cpu.msr.sysenter_eip & kept;
    Ok(())
}

fn sysexit(cpu: &mut Cpu, wide: bool) -> Result<(), Trap> {
    let selector = cpu.msr.sysenter_cs as u16 & !3;
    if cpu.real_mode() || selector == 0 {
        return Err(Trap::GP0);
    }
    supervisor_only(cpu)?;
    let (rip, rsp) = (cpu.gpr[RDX], cpu.gpr[RCX]);
    if wide {
        if !is_canonical(rip) || !is_canonical(rsp) {
            return Err(Trap::GP0);
        }
        let (cs, ss) = (selector.wrapping_add(32), selector.wrapping_add(40));
        enter(cpu, cs, ss, SegmentAttributes::CODE64, 3);
        (cpu.rip, cpu.gpr[RSP]) = (rip, rsp);
    } else {
        let (cs, ss) = (selector.wrapping_add(16), selector.wrapping_add(24));
        enter(cpu, cs, ss, SegmentAttributes::CODE32, 3);
        (cpu.rip, cpu.gpr[RSP]) = (rip & 0xffff_ffff, rsp & 0xffff_ffff);
    }
    Ok(())
}

fn swapgs(cpu: &mut Cpu, instruction: &Instruction) -> Result<(), Trap> {
    if !cpu.mode64() {
        return Err(Trap::UD);
    }
    supervisor_only(cpu)?;
    std::mem::swap(&mut cpu.seg[GS].base, &mut cpu.msr.kernel_gs_base);
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

fn check_fsgsbase<E: Env>(cpu: &Cpu, env: &mut E) -> Result<(), Trap> {
    let enabled = cpu.mode64() && cpu.cr4 & cr::CR4_FSGSBASE != 0;
    if enabled && Feature::FSGSBASE.offered(cpu, env) {
        Ok(())
    } else {
        Err(Trap::UD)
    }
}

fn read_base<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    index: usize,
) -> Result<(), Trap> {
    check_fsgsbase(cpu, env)?;
    operand::set_register(cpu, instruction.op0_register(), cpu.seg[index].base);
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

fn write_base<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    index: usize,
) -> Result<(), Trap> {
    check_fsgsbase(cpu, env)?;
    let base = operand::register(cpu, instruction.op0_register());
    if !is_canonical(base) {
        return Err(Trap::GP0);
    }
    cpu.seg[index].base = base;
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}
