//! Interrupt flag, HLT, software interrupts, identification, time, caches and what the engine
//! does not offer.

use iced_x86::{Code, Instruction};
use ringfence_x86::{cr, exception as ex, flags};

use super::super::next_rip;
use super::cpuid::{Feature, Offered as _};
use super::interrupt::{self, Event};
use super::{msr, operand, supervisor_only};
use crate::cpu::{Cpu, RAX, RBX, RCX, RDX};
use crate::env::{Env, Flush, Privilege, Trap};
use ringfence_x86::cpuid::Word;

/// Instructions that go on with the next one, and software interrupts.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let next = next_rip(cpu, instruction);
    let result = match instruction.code() {
        Int_imm8 => return Some(interrupt(cpu, env, instruction.immediate8(), next)),
        Int3 => return Some(software(cpu, env, ex::BP, next, true)),
        Int1 => return Some(software(cpu, env, ex::DB, next, false)),
        Into if cpu.rflags & flags::OF != 0 => {
            return Some(software(cpu, env, ex::OF, next, true));
        }
        Into => Ok(()),
        Hlt => supervisor_only(cpu).map(|()| cpu.halted = true),
        Cli => clear_interrupts(cpu),
        Sti => set_interrupts(cpu),
        Cpuid => {
            cpuid(cpu, env);
            Ok(())
        }
        Rdmsr => msr::rdmsr(cpu, env),
        Wrmsr => msr::wrmsr(cpu, env),
        Rdtsc => rdtsc(cpu, env),
        Rdtscp if Feature::RDTSCP.offered(cpu, env) => {
            let aux = cpu.msr.tsc_aux & 0xffff_ffff;
            rdtsc(cpu, env).map(|()| cpu.gpr[RCX] = aux)
        }
        Rdpid_r32 | Rdpid_r64 if Feature::RDPID.offered(cpu, env) => {
            operand::set_register(cpu, instruction.op0_register(), cpu.msr.tsc_aux);
            Ok(())
        }
        // No counter exists, so a permitted access is #GP as well.
        Rdpmc => Err(Trap::GP0),
        Xgetbv => xgetbv(cpu, env),
        Xsetbv => xsetbv(cpu, env),
        Invlpg_m => invlpg(cpu, env, instruction),
        Invpcid_r32_m128 | Invpcid_r64_m128 if Feature::INVPCID.offered(cpu, env) => {
            invpcid(cpu, env, instruction)
        }
        // Caches are coherent: nothing to write back.
        Invd | Wbinvd | Wbnoinvd => supervisor_only(cpu),
        Clac | Stac if Feature::SMAP.offered(cpu, env) => {
            access_check(cpu, instruction.code() == Stac)
        }
        Monitorw | Monitord | Monitorq | Mwait if Feature::MONITOR.offered(cpu, env) => {
            // MWAIT may end at any time, so it need not wait.
            supervisor_only(cpu)
        }
        Vmcall | Vmmcall if knows_kvm(cpu, env) => {
            hypercall(cpu, env);
            Ok(())
        }
        Rsm => {
            // RIP comes from the saved state.
            return Some(super::smm::resume(cpu, env));
        }
        Rdtscp | Rdpid_r32 | Rdpid_r64 | Invpcid_r32_m128 | Invpcid_r64_m128 | Clac | Stac
        | Monitorw | Monitord | Monitorq | Mwait | Vmcall | Vmmcall | Ud0 | Ud0_r16_rm16
        | Ud0_r32_rm32 | Ud0_r64_rm64 | Ud1_r16_rm16 | Ud1_r32_rm32 | Ud1_r64_rm64 | Ud2 => {
            Err(Trap::UD)
        }
        _ => return None,
    };
    Some(result.map(|()| cpu.rip = next))
}

/// Whether the guest was told of KVM's interface.
fn knows_kvm<E: Env>(cpu: &Cpu, env: &mut E) -> bool {
    let (leaf, subleaf, register) = Word::KvmEax.place();
    env.paravirt().is_some() && env.cpuid(cpu, leaf, subleaf)[register] != 0
}

/// VMCALL and VMMCALL: RAX the number, RBX, RCX, RDX and RSI arguments, RAX the result.
fn hypercall<E: Env>(cpu: &mut Cpu, env: &mut E) {
    use crate::paravirt::hypercall as call;
    let wide = |value: u64| {
        if cpu.mode64() {
            value
        } else {
            value & 0xffff_ffff
        }
    };
    let (number, first, second) = (wide(cpu.gpr[RAX]), wide(cpu.gpr[RBX]), wide(cpu.gpr[RCX]));
    let result = match number {
        _ if cpu.cpl != 0 => call::NOT_PERMITTED,
        call::KICK_CPU if Feature::KVM_PV_UNHALT.offered(cpu, env) => {
            env.devices().wake(second as u32);
            0
        }
        call::SCHED_YIELD if Feature::KVM_PV_SCHED_YIELD.offered(cpu, env) => {
            let _ = first;
            std::thread::yield_now();
            0
        }
        _ => call::NO_SUCH_CALL,
    };
    cpu.gpr[RAX] = wide(result);
}

fn software<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    vector: u8,
    next: u64,
    software: bool,
) -> Result<(), Trap> {
    let event = Event {
        vector,
        error_code: None,
        software,
        return_rip: next,
        set_flags: 0,
    };
    interrupt::deliver(cpu, env, &event)
}

fn interrupt<E: Env>(cpu: &mut Cpu, env: &mut E, vector: u8, next: u64) -> Result<(), Trap> {
    if !cpu.virtual8086() {
        return software(cpu, env, vector, next, true);
    }
    if cpu.cr4 & cr::CR4_VME != 0 && is_redirected(cpu, env, vector)? {
        let event = Event {
            vector,
            error_code: None,
            software: true,
            return_rip: next,
            set_flags: 0,
        };
        return interrupt::redirected(cpu, env, &event);
    }
    if cpu.rflags & flags::IOPL != flags::IOPL {
        return Err(Trap::GP0);
    }
    software(cpu, env, vector, next, true)
}

/// The interrupt-redirection bitmap lies in the 32 bytes below the I/O bitmap (SDM vol. 3B,
/// 20.3.3); a clear bit keeps the interrupt in virtual-8086 mode.
fn is_redirected<E: Env>(cpu: &mut Cpu, env: &mut E, vector: u8) -> Result<bool, Trap> {
    if cpu.tr.attributes.unusable() || cpu.tr.attributes.kind() & 8 == 0 || cpu.tr.limit < 0x67 {
        return Ok(false);
    }
    let base = cpu.tr.base;
    let map = operand::load(cpu, env, (base + 0x66) & 0xffff_ffff, 2, Privilege::System)?;
    let Some(start) = map.checked_sub(32) else {
        return Ok(false);
    };
    let at = start + u64::from(vector / 8);
    if at > u64::from(cpu.tr.limit) {
        return Ok(false);
    }
    let linear = base.wrapping_add(at) & 0xffff_ffff;
    let bits = operand::load(cpu, env, linear, 1, Privilege::System)?;
    Ok(bits >> (vector % 8) & 1 == 0)
}

/// What CLI and STI act on.
enum InterruptFlag {
    Real,
    Virtual,
    Refused,
}

fn interrupt_flag(cpu: &Cpu) -> InterruptFlag {
    let iopl = (cpu.rflags & flags::IOPL) >> 12;
    let virtual_flag = if cpu.virtual8086() {
        cpu.cr4 & cr::CR4_VME != 0
    } else {
        cpu.cpl == 3 && cpu.cr4 & cr::CR4_PVI != 0
    };
    if cpu.real_mode() || u64::from(cpu.cpl) <= iopl {
        InterruptFlag::Real
    } else if virtual_flag {
        InterruptFlag::Virtual
    } else {
        InterruptFlag::Refused
    }
}

fn clear_interrupts(cpu: &mut Cpu) -> Result<(), Trap> {
    match interrupt_flag(cpu) {
        InterruptFlag::Real => cpu.rflags &= !flags::IF,
        InterruptFlag::Virtual => cpu.rflags &= !flags::VIF,
        InterruptFlag::Refused => return Err(Trap::GP0),
    }
    Ok(())
}

fn set_interrupts(cpu: &mut Cpu) -> Result<(), Trap> {
    match interrupt_flag(cpu) {
        InterruptFlag::Real => {
            cpu.interrupt_shadow |= cpu.rflags & flags::IF == 0;
            cpu.rflags |= flags::IF;
        }
        InterruptFlag::Virtual if cpu.rflags & flags::VIP == 0 => cpu.rflags |= flags::VIF,
        _ => return Err(Trap::GP0),
    }
    Ok(())
}

fn cpuid<E: Env>(cpu: &mut Cpu, env: &mut E) {
    let (leaf, subleaf) = (cpu.gpr[RAX] as u32, cpu.gpr[RCX] as u32);
    let mut values = env.cpuid(cpu, leaf, subleaf);
    if leaf == 1 {
        let base = env
            .devices()
            .read_msr(env.vcpu_id(), ringfence_x86::msr::IA32_APIC_BASE);
        // CPUID.1:EDX.APIC follows the global enable bit of IA32_APIC_BASE.
        if matches!(base, Some(Ok(base)) if base & 1 << 11 == 0) {
            values[3] &= !(1 << 9);
        }
    }
    for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(values) {
        cpu.gpr[register] = u64::from(value);
    }
}

fn rdtsc<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    if cpu.cr4 & cr::CR4_TSD != 0 && cpu.cpl > 0 {
        return Err(Trap::GP0);
    }
    let tsc = env.tsc(cpu);
    cpu.gpr[RAX] = tsc & 0xffff_ffff;
    cpu.gpr[RDX] = tsc >> 32;
    Ok(())
}

fn xgetbv<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(Trap::UD);
    }
    let value = match cpu.gpr[RCX] as u32 {
        0 => cpu.xcr0,
        1 if Feature::XGETBV1.offered(cpu, env) => cpu.xcr0 & super::xsave::in_use(cpu),
        _ => return Err(Trap::GP0),
    };
    cpu.gpr[RAX] = value & 0xffff_ffff;
    cpu.gpr[RDX] = value >> 32;
    Ok(())
}

fn xsetbv<E: Env>(cpu: &mut Cpu, env: &mut E) -> Result<(), Trap> {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(Trap::UD);
    }
    supervisor_only(cpu)?;
    let value = cpu.gpr[RDX] << 32 | cpu.gpr[RAX] & 0xffff_ffff;
    let [low, _, _, high] = env.cpuid(cpu, 0xd, 0);
    let offered = u64::from(high) << 32 | u64::from(low);
    // AVX-512 comes as a whole and on top of AVX, AVX on top of SSE.
    let avx512 = value >> 5 & 7;
    let whole = avx512 == 0 || avx512 == 7 && value & cr::XCR0_AVX != 0;
    let layered = value & cr::XCR0_AVX == 0 || value & cr::XCR0_SSE != 0;
    let index = cpu.gpr[RCX] as u32;
    let valid = index == 0 && value & cr::XCR0_X87 != 0 && value & !offered == 0;
    if !valid || !whole || !layered {
        return Err(Trap::GP0);
    }
    cpu.xcr0 = value;
    Ok(())
}

fn invlpg<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    supervisor_only(cpu)?;
    let (segment, offset) = operand::effective(cpu, instruction);
    // No check of limit or canonical form: INVLPG of such an address does nothing.
    let base = if cpu.mode64() && segment < crate::cpu::FS {
        0
    } else {
        cpu.seg[segment].base
    };
    let linear = base.wrapping_add(offset);
    let linear = if cpu.mode64() {
        linear
    } else {
        linear & 0xffff_ffff
    };
    env.flush(cpu, Flush::Page(linear));
    Ok(())
}

fn invpcid<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    supervisor_only(cpu)?;
    let kind = operand::register(cpu, instruction.op0_register());
    let linear = operand::memory(cpu, instruction, 0, 16, false)?;
    let mut bytes = [0; 16];
    env.load(cpu, linear, &mut bytes, Privilege::Current)?;
    let descriptor = u128::from_le_bytes(bytes);
    let (pcid, address) = (descriptor as u64, (descriptor >> 64) as u64);
    let named = pcid & 0xfff != 0 && cpu.cr4 & cr::CR4_PCIDE == 0;
    let valid = match kind {
        0 => !named && ringfence_x86::paging::is_canonical(address),
        1 => !named,
        2 | 3 => true,
        _ => false,
    };
    if !valid || pcid >> 12 != 0 {
        return Err(Trap::GP0);
    }
    let what = match kind {
        0 => Flush::Page(address),
        2 => Flush::All,
        _ => Flush::NonGlobal,
    };
    env.flush(cpu, what);
    Ok(())
}

fn access_check(cpu: &mut Cpu, set: bool) -> Result<(), Trap> {
    if cpu.cpl > 0 {
        return Err(Trap::UD);
    }
    cpu.rflags = cpu.rflags & !flags::AC | if set { flags::AC } else { 0 };
    Ok(())
}
