//! IN, OUT, INS and OUTS (SDM vol. 1, chapter 19).

use iced_x86::{Code, Instruction, OpKind, Register};
use ringfence_x86::flags;

use super::super::address::linear_address;
use super::super::breakpoints::{self, Access};
use super::super::next_rip;
use super::operand::{self, mask};
use crate::cpu::{Cpu, ES, RCX, RDI, RDX, RSI};
use crate::env::{Env, Privilege, Trap};

/// IN, OUT, INS and OUTS.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let dx = cpu.gpr[RDX] as u16;
    let immediate = || u16::from(instruction.immediate8());
    Some(match instruction.code() {
        In_AL_imm8 => input(cpu, env, instruction, immediate(), Register::AL),
        In_AX_imm8 => input(cpu, env, instruction, immediate(), Register::AX),
        In_EAX_imm8 => input(cpu, env, instruction, immediate(), Register::EAX),
        In_AL_DX => input(cpu, env, instruction, dx, Register::AL),
        In_AX_DX => input(cpu, env, instruction, dx, Register::AX),
        In_EAX_DX => input(cpu, env, instruction, dx, Register::EAX),
        Out_imm8_AL => output(cpu, env, instruction, immediate(), Register::AL),
        Out_imm8_AX => output(cpu, env, instruction, immediate(), Register::AX),
        Out_imm8_EAX => output(cpu, env, instruction, immediate(), Register::EAX),
        Out_DX_AL => output(cpu, env, instruction, dx, Register::AL),
        Out_DX_AX => output(cpu, env, instruction, dx, Register::AX),
        Out_DX_EAX => output(cpu, env, instruction, dx, Register::EAX),
        Insb_m8_DX => string(cpu, env, instruction, 1, true),
        Insw_m16_DX => string(cpu, env, instruction, 2, true),
        Insd_m32_DX => string(cpu, env, instruction, 4, true),
        Outsb_DX_m8 => string(cpu, env, instruction, 1, false),
        Outsw_DX_m16 => string(cpu, env, instruction, 2, false),
        Outsd_DX_m32 => string(cpu, env, instruction, 4, false),
        _ => return None,
    })
}

/// Whether the current level may access `size` ports from `port` (SDM vol. 1, 19.5).
fn check_port<E: Env>(cpu: &mut Cpu, env: &mut E, port: u16, size: u8) -> Result<(), Trap> {
    let iopl = (cpu.rflags & flags::IOPL) >> 12;
    if cpu.real_mode() || !cpu.virtual8086() && u64::from(cpu.cpl) <= iopl {
        return Ok(());
    }
    let tr = cpu.tr;
    if tr.attributes.unusable() || tr.attributes.kind() & 8 == 0 || tr.limit < 0x67 {
        return Err(Trap::GP0);
    }
    let wrap = if cpu.long_mode() {
        u64::MAX
    } else {
        0xffff_ffff
    };
    let at = |offset: u64| tr.base.wrapping_add(offset) & wrap;
    let map = operand::load(cpu, env, at(0x66), 2, Privilege::System)?;
    let first = map + u64::from(port / 8);
    // Two bytes are always read, so that any access of up to 4 ports is covered.
    if first + 1 > u64::from(tr.limit) {
        return Err(Trap::GP0);
    }
    let bits = operand::load(cpu, env, at(first), 2, Privilege::System)?;
    let wanted = (1 << size) - 1;
    if bits >> (port % 8) & wanted != 0 {
        Err(Trap::GP0)
    } else {
        Ok(())
    }
}

/// Meets the breakpoints on I/O ports.
fn note_port(cpu: &mut Cpu, port: u16, size: u8) {
    breakpoints::note(cpu, Access::Port, port.into(), size.into());
}

fn input<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    port: u16,
    destination: Register,
) -> Result<(), Trap> {
    let size = destination.size() as u8;
    check_port(cpu, env, port, size)?;
    let value = env.port_in(cpu, port, size)?;
    note_port(cpu, port, size);
    operand::set_register(cpu, destination, u64::from(value));
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

fn output<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    port: u16,
    source: Register,
) -> Result<(), Trap> {
    let size = source.size() as u8;
    check_port(cpu, env, port, size)?;
    let value = operand::register(cpu, source) as u32;
    env.port_out(cpu, port, size, value)?;
    note_port(cpu, port, size);
    cpu.rip = next_rip(cpu, instruction);
    Ok(())
}

/// Bytes of the index and count registers of a string instruction.
fn address_size(instruction: &Instruction, input: bool) -> usize {
    let operand = if input { 0 } else { 1 };
    match instruction.op_kind(operand) {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
        _ => 8,
    }
}

fn set_part(cpu: &mut Cpu, index: usize, size: usize, value: u64) {
    cpu.gpr[index] = match size {
        2 => cpu.gpr[index] & !0xffff | value & 0xffff,
        _ => value & mask(size),
    };
}

/// Linear address and bytes of the elements, two at least, that a repeated instruction can move at
/// once: they lie upwards in one page of memory, within the segment, and nothing wants to look
/// between them.
fn run_of<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    segment: usize,
    offset: u64,
    width: usize,
    size: u8,
    input: bool,
) -> Option<(u64, usize)> {
    let bytes = u64::from(size);
    let count = cpu.gpr[RCX] & mask(width);
    if count < 2 || cpu.rflags & (flags::DF | flags::TF) != 0 || breakpoints::armed(cpu) {
        return None;
    }
    let linear = linear_address(cpu, segment, offset, usize::from(size), input).ok()?;
    let room = (0x1000 - (linear & 0xfff)).min((mask(width) - offset).saturating_add(1));
    let count = count.min(room / bytes);
    if count < 2 {
        return None;
    }
    let last = offset + (count - 1) * bytes;
    linear_address(cpu, segment, last, usize::from(size), input).ok()?;
    // What was decided before an exit holds after it.
    if !env.string_answered() {
        env.ram_page(cpu, linear, input)?;
    }
    Some((linear, (count * bytes) as usize))
}

/// Moves the elements in `length` bytes at `linear`, or the first ones of them; returns how many.
fn transfer<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    (linear, length): (u64, usize),
    port: u16,
    size: u8,
    input: bool,
) -> Result<u64, Trap> {
    let mut bytes = [0; 0x1000];
    let bytes = &mut bytes[..length];
    if input {
        let done = env.port_in_string(cpu, port, size, bytes)?;
        let there = &bytes[..done * usize::from(size)];
        env.store(cpu, linear, there, Privilege::Current)?;
        Ok(done as u64)
    } else {
        env.load(cpu, linear, bytes, Privilege::Current)?;
        Ok(env.port_out_string(cpu, port, size, bytes)? as u64)
    }
}

fn string<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: u8,
    input: bool,
) -> Result<(), Trap> {
    let width = address_size(instruction, input);
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let next = next_rip(cpu, instruction);
    let segment = if input {
        ES
    } else {
        operand::operand_segment(cpu, instruction)
    };
    let index = if input { RDI } else { RSI };
    let step = if cpu.rflags & flags::DF != 0 {
        u64::from(size).wrapping_neg()
    } else {
        size.into()
    };
    let port = cpu.gpr[RDX] as u16;
    let mut checked = false;
    loop {
        let count = cpu.gpr[RCX] & mask(width);
        if repeated && count == 0 {
            break;
        }
        if !checked {
            check_port(cpu, env, port, size)?;
            checked = true;
        }
        let offset = cpu.gpr[index] & mask(width);
        if repeated && let Some(run) = run_of(cpu, env, segment, offset, width, size, input) {
            let done = transfer(cpu, env, run, port, size, input)?;
            let moved = done * u64::from(size);
            set_part(cpu, index, width, offset.wrapping_add(moved));
            set_part(cpu, RCX, width, count - done);
            env.commit_element();
            if count > done && env.should_yield() {
                return Ok(());
            }
            continue;
        }
        let linear = linear_address(cpu, segment, offset, usize::from(size), input)?;
        let bytes = usize::from(size);
        if input {
            // The store must not fail once the port was read.
            env.check_store(cpu, linear, bytes, Privilege::Current)?;
            let value = env.port_in(cpu, port, size)?;
            operand::store(
                cpu,
                env,
                linear,
                bytes,
                u64::from(value),
                Privilege::Current,
            )?;
        } else {
            let value = operand::load(cpu, env, linear, bytes, Privilege::Current)?;
            env.port_out(cpu, port, size, value as u32)?;
        }
        note_port(cpu, port, size);
        set_part(cpu, index, width, offset.wrapping_add(step));
        if !repeated {
            break;
        }
        set_part(cpu, RCX, width, count - 1);
        env.commit_element();
        // A single step ends after each element.
        let stepped = cpu.rflags & flags::TF != 0 || cpu.breakpoints_hit != 0;
        if count > 1 && (stepped || env.should_yield()) {
            return Ok(());
        }
    }
    cpu.rip = next;
    Ok(())
}
