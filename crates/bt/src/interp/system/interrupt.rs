//! Delivery of interrupts and exceptions through the IDT (SDM vol. 3A, chapter 6).

use ringfence_x86::{exception as ex, flags};

use super::Delivery;
use super::descriptor::{CodeTarget, Descriptor, is_null, kind, require, selector_fault};
use super::far::{inner_stack, task_field};
use super::operand::load;
use super::segment::{enter_stack, null_segment, set_real_mode_segment};
use super::stack::Stack;
use super::task::{self, Reason};
use crate::cpu::{CS, Cpu, DS, ES, FS, GS, RSP, SS};
use crate::env::{Env, Exception, Privilege, Trap};

/// What is delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) vector: u8,
    pub(super) error_code: Option<u32>,
    /// INT n, INT3 or INTO: the gate's DPL counts.
    pub(super) software: bool,
    /// Where the handler returns to.
    pub(super) return_rip: u64,
    /// Bits to set in the pushed flags: RF for faults.
    pub(super) set_flags: u64,
}

impl Event {
    /// EXT bit of error codes: the event did not come from an INT instruction.
    fn ext(&self) -> u32 {
        u32::from(!self.software)
    }

    fn idt_fault(&self, vector: u8) -> Trap {
        Trap::coded(vector, u32::from(self.vector) << 3 | 2 | self.ext())
    }
}

/// What two exceptions in a row become (SDM vol. 3A, table 6-5).
enum Combined {
    Serial,
    DoubleFault,
    Shutdown,
}

fn contributory(vector: u8) -> bool {
    matches!(vector, ex::DE | ex::TS | ex::NP | ex::SS | ex::GP)
}

fn combine(first: u8, second: u8) -> Combined {
    let severe = contributory(second) || second == ex::PF;
    match first {
        ex::DF if severe => Combined::Shutdown,
        ex::PF if severe => Combined::DoubleFault,
        _ if contributory(first) && contributory(second) => Combined::DoubleFault,
        _ => Combined::Serial,
    }
}

/// Delivers `exception`; a fault on the way becomes what SDM vol. 3A, table 6-5 makes of it.
pub fn deliver_exception<E: Env>(cpu: &mut Cpu, env: &mut E, exception: Exception) -> Delivery {
    let mut current = exception;
    // Benign exceptions do not repeat endlessly, as each delivery stands for one attempt.
    for _ in 0..8 {
        if let Some(address) = current.address {
            cpu.cr2 = address;
        }
        let trap = match deliver(cpu, env, &exception_event(cpu, &current)) {
            Ok(()) => return Delivery::Done,
            Err(trap) => trap,
        };
        let second = match trap {
            Trap::Exit(exit) => return Delivery::Exit(exit),
            Trap::Exception(second) => second,
        };
        current = match combine(current.vector, second.vector) {
            Combined::Serial => second,
            Combined::Shutdown => return Delivery::Shutdown,
            Combined::DoubleFault => {
                if let Some(address) = second.address {
                    cpu.cr2 = address;
                }
                Exception {
                    vector: ex::DF,
                    error_code: Some(0),
                    address: None,
                }
            }
        };
    }
    Delivery::Shutdown
}

fn exception_event(cpu: &Cpu, exception: &Exception) -> Event {
    // Traps and aborts: the instruction at RIP has not faulted.
    let fault = !matches!(
        exception.vector,
        ex::DB | ex::NMI | ex::BP | ex::OF | ex::DF | ex::MC
    );
    Event {
        vector: exception.vector,
        error_code: exception.error_code,
        software: false,
        return_rip: cpu.rip,
        set_flags: if fault { flags::RF } else { 0 },
    }
}

fn deliver_external<E: Env>(cpu: &mut Cpu, env: &mut E, vector: u8) -> Delivery {
    let event = Event {
        vector,
        error_code: None,
        software: false,
        return_rip: cpu.rip,
        set_flags: 0,
    };
    match deliver(cpu, env, &event) {
        Ok(()) => Delivery::Done,
        Err(Trap::Exit(exit)) => Delivery::Exit(exit),
        // The interrupt is benign: what its delivery raises is handled on its own.
        Err(Trap::Exception(exception)) => deliver_exception(cpu, env, exception),
    }
}

/// Delivers the external interrupt `vector`, which was acknowledged.
pub fn deliver_interrupt<E: Env>(cpu: &mut Cpu, env: &mut E, vector: u8) -> Delivery {
    deliver_external(cpu, env, vector)
}

/// Delivers a non-maskable interrupt and blocks further ones until IRET.
pub fn deliver_nmi<E: Env>(cpu: &mut Cpu, env: &mut E) -> Delivery {
    let delivery = deliver_external(cpu, env, ex::NMI);
    if delivery == Delivery::Done {
        cpu.nmi_blocked = true;
    }
    delivery
}

/// Delivers `event`; on failure no register has changed, but after a task switch.
pub(super) fn deliver<E: Env>(cpu: &mut Cpu, env: &mut E, event: &Event) -> Result<(), Trap> {
    if cpu.real_mode() {
        real_mode_vector(cpu, env, event, cpu.idtr.base, Some(cpu.idtr.limit))?;
    } else {
        protected(cpu, env, event)?;
    }
    cpu.interrupt_shadow = false;
    cpu.halted = false;
    if event.vector == ex::DB && !event.software {
        // DR7.GD: the debug handler may use the debug registers.
        cpu.dr[7] &= !(1 << 13);
    }
    Ok(())
}

/// Through the interrupt vector table of real mode at `base`.
fn real_mode_vector<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    event: &Event,
    base: u64,
    limit: Option<u16>,
) -> Result<(), Trap> {
    let at = u64::from(event.vector) * 4;
    if limit.is_some_and(|limit| at + 3 > u64::from(limit)) {
        return Err(event.idt_fault(ex::GP));
    }
    let linear = base.wrapping_add(at) & 0xffff_ffff;
    let target = load(cpu, env, linear, 4, Privilege::System)?;
    let image = cpu.rflags | event.set_flags;
    enter_real_mode_handler(cpu, env, event, target, image)?;
    cpu.rflags &= !(flags::IF | flags::TF | flags::AC | flags::RF);
    Ok(())
}

fn enter_real_mode_handler<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    event: &Event,
    target: u64,
    image: u64,
) -> Result<(), Trap> {
    let (offset, selector) = (target & 0xffff, (target >> 16) as u16);
    if offset > u64::from(cpu.seg[CS].limit) {
        return Err(Trap::coded(ex::GP, event.ext()));
    }
    let mut stack = Stack::current(cpu, event.ext());
    let cs = u64::from(cpu.seg[CS].selector);
    stack.push(cpu, env, 2, image)?;
    stack.push(cpu, env, 2, cs)?;
    stack.push(cpu, env, 2, event.return_rip)?;
    cpu.gpr[RSP] = stack.pointer;
    set_real_mode_segment(cpu, CS, selector);
    cpu.rip = offset;
    Ok(())
}

/// INT n in virtual-8086 mode through the real-mode vector table, as CR4.VME allows (SDM vol. 3B,
/// 20.3.3).
pub(super) fn redirected<E: Env>(cpu: &mut Cpu, env: &mut E, event: &Event) -> Result<(), Trap> {
    let linear = u64::from(event.vector) * 4;
    let target = load(cpu, env, linear, 4, Privilege::Current)?;
    let full = cpu.rflags & flags::IOPL == flags::IOPL;
    let image = if full {
        cpu.rflags
    } else {
        let interrupts = if cpu.rflags & flags::VIF != 0 {
            flags::IF
        } else {
            0
        };
        cpu.rflags & !flags::IF | flags::IOPL | interrupts
    };
    enter_real_mode_handler(cpu, env, event, target, image)?;
    cpu.rflags &= !(flags::TF | flags::RF | if full { flags::IF } else { flags::VIF });
    Ok(())
}

fn protected<E: Env>(cpu: &mut Cpu, env: &mut E, event: &Event) -> Result<(), Trap> {
    let long = cpu.long_mode();
    let gate = read_gate(cpu, env, event)?;
    let attributes = gate.attributes();
    let frame = match gate.system_kind() {
        Some(kind::INTERRUPT_GATE | kind::TRAP_GATE) if long => 8,
        Some(kind::INTERRUPT_GATE | kind::TRAP_GATE) => 4,
        Some(kind::INTERRUPT_GATE16 | kind::TRAP_GATE16) if !long => 2,
        Some(kind::TASK_GATE) if !long => 0,
        _ => return Err(event.idt_fault(ex::GP)),
    };
    if event.software && attributes.dpl() < cpu.cpl {
        return Err(event.idt_fault(ex::GP));
    }
    if !attributes.present() {
        return Err(event.idt_fault(ex::NP));
    }
    if frame == 0 {
        return through_task_gate(cpu, env, event, &gate);
    }
    through_gate(cpu, env, event, &gate, frame)
}

fn read_gate<E: Env>(cpu: &mut Cpu, env: &mut E, event: &Event) -> Result<Descriptor, Trap> {
    let size = if cpu.long_mode() { 16 } else { 8 };
    let at = u64::from(event.vector) * size;
    if at + size - 1 > u64::from(cpu.idtr.limit) {
        return Err(event.idt_fault(ex::GP));
    }
    let mut linear = cpu.idtr.base.wrapping_add(at);
    if size == 8 {
        linear &= 0xffff_ffff;
    }
    let mut bytes = [0; 16];
    env.load(cpu, linear, &mut bytes[..size as usize], Privilege::System)?;
    let value = u128::from_le_bytes(bytes);
    Ok(Descriptor {
        linear,
        low: value as u64,
        high: (value >> 64) as u64 & 0xffff_ffff,
    })
}

fn through_task_gate<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    event: &Event,
    gate: &Descriptor,
) -> Result<(), Trap> {
    let saved = cpu.rflags;
    cpu.rflags |= event.set_flags;
    let selector = gate.gate_selector();
    let tr = cpu.tr.selector;
    let (reason, next) = (Reason::Interrupt, event.return_rip);
    let result = task::through_gate(cpu, env, selector, gate, reason, next, event.ext());
    if result.is_err() && cpu.tr.selector == tr {
        cpu.rflags = saved;
    }
    result?;
    match event.error_code {
        Some(code) => task::push_error_code(cpu, env, code),
        None => Ok(()),
    }
}

/// Through an interrupt or trap gate; the frame has items of `size` bytes.
fn through_gate<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    event: &Event,
    gate: &Descriptor,
    size: usize,
) -> Result<(), Trap> {
    let ext = event.ext();
    let (long, virtual8086) = (cpu.long_mode(), cpu.virtual8086());
    let selector = gate.gate_selector();
    if is_null(selector) {
        return Err(Trap::coded(ex::GP, ext));
    }
    let descriptor = require(cpu, env, selector, ex::GP, ext)?;
    let attributes = descriptor.attributes();
    let wide = !long || attributes.long() && !attributes.big();
    if !attributes.is_code() || attributes.dpl() > cpu.cpl || !wide {
        return Err(selector_fault(ex::GP, selector, ext));
    }
    let cpl = if attributes.is_conforming() {
        cpu.cpl
    } else {
        attributes.dpl()
    };
    if virtual8086 && cpl != 0 {
        return Err(selector_fault(ex::GP, selector, ext));
    }
    let target = CodeTarget::new(
        cpu,
        env,
        &descriptor,
        selector,
        cpl,
        gate.gate_offset(),
        ext,
    )?;
    let inner = cpl < cpu.cpl;
    let ist = if long { gate.gate_ist() } else { 0 };
    let (segment, mut stack) = if ist != 0 {
        let pointer = task_field(cpu, env, 0x1c + 8 * ist, 8, ext)?;
        if !ringfence_x86::paging::is_canonical(pointer) {
            return Err(Trap::coded(ex::SS, ext));
        }
        let segment = if inner {
            super::segment::null_stack(cpl)
        } else {
            cpu.seg[SS]
        };
        (segment, Stack::flat(cpu, pointer, cpl, ext))
    } else if inner {
        inner_stack(cpu, env, cpl, ext)?
    } else if long {
        (cpu.seg[SS], Stack::flat(cpu, cpu.gpr[RSP], cpl, ext))
    } else {
        (cpu.seg[SS], Stack::current(cpu, ext))
    };
    if long {
        stack.pointer &= !0xf;
    }
    let image = cpu.rflags | event.set_flags;
    if virtual8086 {
        for index in [GS, FS, DS, ES] {
            let selector = u64::from(cpu.seg[index].selector);
            stack.push(cpu, env, size, selector)?;
        }
    }
    let frame = [
        u64::from(event.error_code.unwrap_or(0)),
        event.return_rip,
        u64::from(cpu.seg[CS].selector),
        image,
        cpu.gpr[RSP],
        u64::from(cpu.seg[SS].selector),
    ];
    let first = usize::from(event.error_code.is_none());
    let last = if inner || long { frame.len() } else { 4 };
    stack.push_frame(cpu, env, size, &frame[first..last])?;
    cpu.rflags &= !(flags::TF | flags::VM | flags::RF | flags::NT);
    if gate.attributes().kind() & 1 == 0 {
        cpu.rflags &= !flags::IF;
    }
    if virtual8086 {
        for index in [GS, FS, DS, ES] {
            cpu.seg[index] = null_segment(0);
        }
    }
    target.enter(cpu);
    enter_stack(cpu, segment, stack.pointer);
    Ok(())
}
