//! Hardware task switches (SDM vol. 3A, chapter 8, "Task Management").
//!
//! Faults before the new task's state is loaded leave the old task as it was. Later ones are
//! raised in the new task, as the architecture has it: RIP is then the new task's.

use ringfence_engine::{Segment, SegmentAttributes};
use ringfence_x86::{cr, exception as ex, flags};

use super::descriptor::{
    Descriptor, is_null, kind, lookup, mark_accessed, require, rpl, selector_fault, update_access,
};
use super::operand::{load, store};
use super::segment::{Faults, enter_virtual8086, null_segment, stack_segment};
use super::stack::Stack;
use crate::cpu::{CS, Cpu, DS, ES, FS, GS, RSP, SS};
use crate::env::{Env, Flush, Privilege, Trap};

/// What switches tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// JMP: the old task is no longer busy.
    Jump,
    /// CALL: the new task is nested.
    Call,
    /// An interrupt or exception through a task gate: nested as well.
    Interrupt,
    /// IRET with NT set: back along the link.
    Return,
}

/// Offsets of a task-state segment's fields.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of a register.
    size: usize,
    /// CR3, where there is one.
    cr3: Option<u64>,
    eip: u64,
    /// First general register, in the order of their encodings.
    gpr: u64,
    /// First segment selector.
    segments: u64,
    /// Bytes between selectors.
    stride: u64,
    /// Number of segment selectors.
    count: usize,
    ldt: u64,
    /// Smallest valid limit.
    limit: u32,
}

const TSS32: Layout = Layout {
    size: 4,
    cr3: Some(0x1c),
    eip: 0x20,
    gpr: 0x28,
    segments: 0x48,
    stride: 4,
    count: 6,
    ldt: 0x60,
    limit: 0x67,
};

const TSS16: Layout = Layout {
    size: 2,
    cr3: None,
    eip: 0x0e,
    gpr: 0x12,
    segments: 0x22,
    stride: 2,
    count: 4,
    ldt: 0x2a,
    limit: 0x2b,
};

fn layout(attributes: SegmentAttributes) -> &'static Layout {
    if attributes.kind() & 8 != 0 {
        &TSS32
    } else {
        &TSS16
    }
}

/// The state that a task-state segment holds.
#[derive(Clone, Copy, Default)]
struct Image {
    cr3: u64,
    eip: u64,
    eflags: u64,
    gpr: [u64; 8],
    segments: [u16; 6],
    ldt: u16,
    /// Debug trap flag.
    trap: bool,
}

/// Follows task gate `gate`, which the caller may use.
pub(super) fn through_gate<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    gate_selector: u16,
    gate: &Descriptor,
    reason: Reason,
    next: u64,
    ext: u32,
) -> Result<(), Trap> {
    if !gate.attributes().present() {
        return Err(selector_fault(ex::NP, gate_selector, ext));
    }
    let selector = gate.gate_selector();
    if selector & 4 != 0 || is_null(selector) {
        return Err(selector_fault(ex::GP, selector, ext));
    }
    let descriptor = require(cpu, env, selector, ex::GP, ext)?;
    switch(cpu, env, selector, &descriptor, reason, next, ext)
}

/// IRET from a nested task.
pub(super) fn unnest<E: Env>(cpu: &mut Cpu, env: &mut E, next: u64) -> Result<(), Trap> {
    let link = super::far::task_field(cpu, env, 0, 2, 0)? as u16;
    if link & 4 != 0 || is_null(link) {
        return Err(selector_fault(ex::TS, link, 0));
    }
    let descriptor = require(cpu, env, link, ex::TS, 0)?;
    switch(cpu, env, link, &descriptor, Reason::Return, next, 0)
}

/// Switches to the task of `selector`; the old task will go on at `next`.
pub(super) fn switch<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    selector: u16,
    descriptor: &Descriptor,
    reason: Reason,
    next: u64,
    ext: u32,
) -> Result<(), Trap> {
    let wanted = match (descriptor.system_kind(), reason) {
        (Some(kind::TSS_BUSY | kind::TSS16_BUSY), Reason::Return) => true,
        (Some(kind::TSS_AVAILABLE | kind::TSS16_AVAILABLE), Reason::Return) | (None, _) => false,
        (kind, _) => matches!(kind, Some(kind::TSS_AVAILABLE | kind::TSS16_AVAILABLE)),
    };
    if selector & 4 != 0 || !wanted {
        let vector = if reason == Reason::Return {
            ex::TS
        } else {
            ex::GP
        };
        return Err(selector_fault(vector, selector, ext));
    }
    let attributes = descriptor.attributes();
    if !attributes.present() {
        return Err(selector_fault(ex::NP, selector, ext));
    }
    let new = layout(attributes);
    if descriptor.limit() < new.limit {
        return Err(selector_fault(ex::TS, selector, ext));
    }
    let old = layout(cpu.tr.attributes);
    if cpu.tr.attributes.unusable() || cpu.tr.limit < old.limit {
        return Err(selector_fault(ex::TS, cpu.tr.selector, ext));
    }
    let old_descriptor = lookup(cpu, env, cpu.tr.selector & !4)?;
    let image = read_image(cpu, env, descriptor.base(), new)?;
    save(cpu, env, old, reason, next)?;
    if matches!(reason, Reason::Jump | Reason::Return) {
        if let Some(old_descriptor) = old_descriptor {
            update_access(cpu, env, old_descriptor.linear, &mut |access| access & !2)?;
        }
    } else {
        // The link to the task that was interrupted.
        let link = u64::from(cpu.tr.selector);
        store(cpu, env, descriptor.base(), 2, link, Privilege::System)?;
    }
    if reason != Reason::Return {
        update_access(cpu, env, descriptor.linear, &mut |access| access | 2)?;
    }
    cpu.tr = descriptor.segment(selector);
    cpu.tr.attributes.0 |= 2;
    commit(
        cpu,
        env,
        new,
        &image,
        matches!(reason, Reason::Call | Reason::Interrupt),
    );
    // The new task's state is loaded: an access to a device can't restart the switch any more.
    check_segments(cpu, env, &image, ext).map_err(|trap| match trap {
        Trap::Exit(_) => selector_fault(ex::TS, selector, ext),
        exception => exception,
    })?;
    if image.trap {
        // DR6.BT: the TSS of the new task asks for a debug exception.
        cpu.dr[6] |= 1 << 15;
        return Err(Trap::fault(ex::DB));
    }
    Ok(())
}

/// Pushes the error code of the exception that switched to the current task.
pub(super) fn push_error_code<E: Env>(cpu: &mut Cpu, env: &mut E, code: u32) -> Result<(), Trap> {
    let mut stack = Stack::current(cpu, 1);
    let size = layout(cpu.tr.attributes).size;
    stack.push(cpu, env, size, u64::from(code))?;
    cpu.gpr[RSP] = stack.pointer;
    Ok(())
}

fn field(base: u64, offset: u64) -> u64 {
    base.wrapping_add(offset) & 0xffff_ffff
}

fn read_image<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    base: u64,
    layout: &Layout,
) -> Result<Image, Trap> {
    let mut image = Image::default();
    let mut read = |cpu: &mut Cpu, offset: u64, size: usize| {
        load(cpu, env, field(base, offset), size, Privilege::System)
    };
    let step = layout.size as u64;
    if let Some(offset) = layout.cr3 {
        image.cr3 = read(cpu, offset, 4)?;
        image.trap = read(cpu, 0x64, 2)? & 1 != 0;
    }
    image.eip = read(cpu, layout.eip, layout.size)?;
    image.eflags = read(cpu, layout.eip + step, layout.size)?;
    for (index, register) in image.gpr.iter_mut().enumerate() {
        *register = read(cpu, layout.gpr + step * index as u64, layout.size)?;
    }
    for (index, selector) in image.segments.iter_mut().take(layout.count).enumerate() {
        *selector = read(cpu, layout.segments + layout.stride * index as u64, 2)? as u16;
    }
    image.ldt = read(cpu, layout.ldt, 2)? as u16;
    Ok(image)
}

/// Stores the dynamic fields of the current task.
fn save<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    layout: &Layout,
    reason: Reason,
    next: u64,
) -> Result<(), Trap> {
    let base = cpu.tr.base;
    let step = layout.size as u64;
    let eflags = if reason == Reason::Return {
        cpu.rflags & !flags::NT
    } else {
        cpu.rflags
    };
    let mut write = |cpu: &mut Cpu, offset: u64, size: usize, value: u64| {
        store(
            cpu,
            env,
            field(base, offset),
            size,
            value,
            Privilege::System,
        )
    };
    write(cpu, layout.eip, layout.size, next)?;
    write(cpu, layout.eip + step, layout.size, eflags)?;
    for index in 0..8 {
        let value = cpu.gpr[index];
        write(cpu, layout.gpr + step * index as u64, layout.size, value)?;
    }
    for index in 0..layout.count {
        let value = u64::from(cpu.seg[index].selector);
        write(
            cpu,
            layout.segments + layout.stride * index as u64,
            2,
            value,
        )?;
    }
    Ok(())
}

/// Loads the registers of the new task; segments have their selectors alone.
fn commit<E: Env>(cpu: &mut Cpu, env: &mut E, layout: &Layout, image: &Image, nested: bool) {
    cpu.cr0 |= cr::CR0_TS;
    if layout.cr3.is_some() && cpu.cr0 & cr::CR0_PG != 0 {
        cpu.cr3 = image.cr3;
        env.flush(cpu, Flush::NonGlobal);
    }
    cpu.rip = image.eip;
    let writable = flags::ARITHMETIC
        | flags::TF
        | flags::IF
        | flags::DF
        | flags::IOPL
        | flags::NT
        | flags::RF
        | flags::VM
        | flags::AC
        | flags::VIF
        | flags::VIP
        | flags::ID;
    cpu.rflags = image.eflags & writable | flags::FIXED;
    if nested {
        cpu.rflags |= flags::NT;
    }
    if layout.size == 2 {
        cpu.rflags &= !flags::VM;
    }
    for (register, value) in cpu.gpr.iter_mut().zip(image.gpr) {
        // A 16-bit task leaves the upper halves undefined; they read as ones on processors.
        *register = if layout.size == 2 {
            value | 0xffff_0000
        } else {
            value
        };
    }
    // DR7's local breakpoints belong to the old task.
    cpu.dr[7] &= !0x155;
    cpu.ldtr = null_segment(image.ldt);
    for (segment, selector) in cpu.seg.iter_mut().zip(image.segments) {
        *segment = null_segment(selector);
    }
}

/// Loads the hidden parts of LDTR and the segment registers (SDM vol. 3A, table 8-1).
fn check_segments<E: Env>(cpu: &mut Cpu, env: &mut E, image: &Image, ext: u32) -> Result<(), Trap> {
    let virtual8086 = cpu.virtual8086();
    let cs = image.segments[CS];
    // Until CS is loaded the processor runs at the level that its selector asks for.
    cpu.cpl = if virtual8086 { 3 } else { rpl(cs) };
    cpu.seg[SS].attributes.0 |= u32::from(cpu.cpl) << 5;
    if !is_null(image.ldt) {
        let descriptor = if image.ldt & 4 == 0 {
            lookup(cpu, env, image.ldt)?
        } else {
            None
        };
        let valid = descriptor
            .filter(|d| d.system_kind() == Some(kind::LDT) && d.attributes().present())
            .ok_or_else(|| selector_fault(ex::TS, image.ldt, ext))?;
        cpu.ldtr = valid.segment(image.ldt);
    }
    if virtual8086 {
        enter_virtual8086(cpu, image.segments);
        return check_eip(cpu, ext);
    }
    cpu.seg[CS] = code(cpu, env, cs, ext)?;
    let cpl = cpu.cpl;
    let faults = Faults {
        invalid: ex::TS,
        ext,
    };
    cpu.seg[SS] = stack_segment(cpu, env, image.segments[SS], cpl, false, faults)?;
    for index in [ES, DS, FS, GS] {
        let selector = image.segments[index];
        if !is_null(selector) {
            cpu.seg[index] = data(cpu, env, selector, ext)?;
        }
    }
    check_eip(cpu, ext)
}

fn check_eip(cpu: &Cpu, ext: u32) -> Result<(), Trap> {
    if cpu.rip > u64::from(cpu.seg[CS].limit) {
        Err(Trap::coded(ex::GP, ext))
    } else {
        Ok(())
    }
}

fn code<E: Env>(cpu: &mut Cpu, env: &mut E, selector: u16, ext: u32) -> Result<Segment, Trap> {
    if is_null(selector) {
        return Err(selector_fault(ex::TS, selector, ext));
    }
    let descriptor = require(cpu, env, selector, ex::TS, ext)?;
    let attributes = descriptor.attributes();
    let level = if attributes.is_conforming() {
        attributes.dpl() <= rpl(selector)
    } else {
        attributes.dpl() == rpl(selector)
    };
    if !attributes.is_code() || !level {
        return Err(selector_fault(ex::TS, selector, ext));
    }
    if !attributes.present() {
        return Err(selector_fault(ex::NP, selector, ext));
    }
    mark_accessed(cpu, env, &descriptor)?;
    Ok(descriptor.segment(selector))
}

fn data<E: Env>(cpu: &mut Cpu, env: &mut E, selector: u16, ext: u32) -> Result<Segment, Trap> {
    let descriptor = require(cpu, env, selector, ex::TS, ext)?;
    let attributes = descriptor.attributes();
    let level = cpu.cpl.max(rpl(selector));
    if !attributes.is_readable() || !attributes.is_conforming() && level > attributes.dpl() {
        return Err(selector_fault(ex::TS, selector, ext));
    }
    if !attributes.present() {
        return Err(selector_fault(ex::NP, selector, ext));
    }
    mark_accessed(cpu, env, &descriptor)?;
    Ok(descriptor.segment(selector))
}
