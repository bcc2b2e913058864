//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, alone and repeated (SDM vol. 1, 7.3.9).
//!
//! Registers are committed after each element, so that a fault or a pause in the middle resumes
//! where it stopped. Runs within a page of RAM are done at once, with the result that single
//! elements would have.

use iced_x86::{Instruction, Mnemonic, OpKind};
use ringfence_x86::flags::{DF, TF, ZF};

use super::address::{linear_address, load, operand_segment, store};
use super::register::{self, mask};
use super::{arithmetic, retire};
use crate::cpu::{Cpu, ES, RAX, RCX, RDI, RSI};
use crate::env::{Env, Trap};

const PAGE: u64 = 4096;

/// What a string instruction works on.
#[derive(Clone, Copy)]
struct Form {
    /// Bytes of an element.
    size: usize,
    /// Bytes of RSI, RDI and RCX that are used.
    address: usize,
    /// Segment of the source.
    source: usize,
    /// The direction flag is set.
    backward: bool,
}

impl Form {
    fn new(cpu: &Cpu, instruction: &Instruction) -> Self {
        let kinds = [instruction.op0_kind(), instruction.op1_kind()];
        let has = |wanted: [OpKind; 2]| kinds.iter().any(|kind| wanted.contains(kind));
        let address = if has([OpKind::MemorySegRSI, OpKind::MemoryESRDI]) {
            8
        } else if has([OpKind::MemorySegESI, OpKind::MemoryESEDI]) {
            4
        } else {
            2
        };
        Self {
            size: instruction.memory_size().size().clamp(1, 8),
            address,
            source: operand_segment(cpu, instruction),
            backward: cpu.rflags & DF != 0,
        }
    }

    fn advance(self, cpu: &mut Cpu, index: usize, elements: u64) {
        let bytes = elements.wrapping_mul(self.size as u64);
        let old = cpu.gpr[index];
        let new = if self.backward {
            old.wrapping_sub(bytes)
        } else {
            old.wrapping_add(bytes)
        };
        register::write_index(cpu, index, self.address, new);
    }

    fn source_address(self, cpu: &Cpu) -> Result<u64, Trap> {
        let offset = register::read_index(cpu, RSI, self.address);
        linear_address(cpu, self.source, offset, self.size, false)
    }

    fn destination_address(self, cpu: &Cpu, write: bool) -> Result<u64, Trap> {
        let offset = register::read_index(cpu, RDI, self.address);
        linear_address(cpu, ES, offset, self.size, write)
    }

    /// How many elements from the one at `offset` on lie in its page and do not wrap, and the
    /// linear address of the lowest. `None`: not even two.
    fn run(
        self,
        cpu: &Cpu,
        segment: usize,
        offset: u64,
        limit: u64,
        write: bool,
    ) -> Option<(u64, u64)> {
        let size = self.size as u64;
        let linear = linear_address(cpu, segment, offset, self.size, write).ok()?;
        let (in_page, in_segment) = if self.backward {
            if linear % PAGE + size > PAGE {
                return None;
            }
            (linear % PAGE / size + 1, offset / size + 1)
        } else {
            (
                (PAGE - linear % PAGE) / size,
                (mask(self.address) - offset) / size,
            )
        };
        let count = in_page.min(in_segment).min(limit);
        if count < 2 {
            return None;
        }
        let bytes = count * size;
        let (low_offset, low) = if self.backward {
            (offset - (bytes - size), linear.wrapping_sub(bytes - size))
        } else {
            (offset, linear)
        };
        let checked = linear_address(cpu, segment, low_offset, bytes as usize, write).ok()?;
        (checked == low).then_some((count, low))
    }
}

/// Host address of guest linear address `linear`.
fn host<E: Env>(cpu: &mut Cpu, env: &mut E, linear: u64, write: bool) -> Option<*mut u8> {
    let page = env.ram_page(cpu, linear & !(PAGE - 1), write)?;
    // SAFETY: the page is 4 KiB of RAM from its start on; the offset stays within.
    Some(unsafe { page.add((linear % PAGE) as usize) })
}

/// Runs `element` once, or as often as the repeat prefix says. `element` reports whether the
/// repetition ends after it; `bulk` may do several at once and returns how many.
fn repeat<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    form: Form,
    mut bulk: impl FnMut(&mut Cpu, &mut E, u64) -> u64,
    mut element: impl FnMut(&mut Cpu, &mut E) -> Result<bool, Trap>,
) -> Result<(), Trap> {
    if !instruction.has_rep_prefix() && !instruction.has_repne_prefix() {
        element(cpu, env)?;
        return retire(cpu, instruction);
    }
    loop {
        let count = register::read_index(cpu, RCX, form.address);
        if count == 0 {
            return retire(cpu, instruction);
        }
        // A single step ends after each element (SDM vol. 3B, 18.3.1.4).
        let stepped = cpu.rflags & TF != 0;
        let mut done = if count > 1 && !stepped {
            bulk(cpu, env, count)
        } else {
            0
        };
        let mut finished = false;
        if done == 0 {
            finished = element(cpu, env)?;
            done = 1;
        }
        register::write_index(cpu, RCX, form.address, count - done);
        env.commit_element();
        if finished || count == done {
            return retire(cpu, instruction);
        }
        if stepped || cpu.breakpoints_hit != 0 || env.should_yield() {
            return Ok(());
        }
    }
}

/// MOVSB, MOVSW, MOVSD, MOVSQ.
pub fn movs<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let form = Form::new(cpu, instruction);
    let bulk = |cpu: &mut Cpu, env: &mut E, count: u64| {
        let source = register::read_index(cpu, RSI, form.address);
        let target = register::read_index(cpu, RDI, form.address);
        let Some((count, from)) = form.run(cpu, form.source, source, count, false) else {
            return 0;
        };
        let Some((count, to)) = form.run(cpu, ES, target, count, true) else {
            return 0;
        };
        let bytes = count as usize * form.size;
        let from = if form.backward {
            // The source run may have been longer than the destination's.
            let Some((_, from)) = form.run(cpu, form.source, source, count, false) else {
                return 0;
            };
            from
        } else {
            from
        };
        // The destination comes first: making it writable may change where pages are.
        let Some(to_host) = host(cpu, env, to, true) else {
            return 0;
        };
        let Some(from_host) = host(cpu, env, from, false) else {
            return 0;
        };
        // SAFETY: both runs lie within pages of RAM; overlap is handled by the callee.
        unsafe { copy_elements(from_host, to_host, bytes, form.size, form.backward) };
        form.advance(cpu, RSI, count);
        form.advance(cpu, RDI, count);
        count
    };
    repeat(cpu, env, instruction, form, bulk, |cpu, env| {
        let from = form.source_address(cpu)?;
        let to = form.destination_address(cpu, true)?;
        let value = load(cpu, env, from, form.size)?;
        store(cpu, env, to, form.size, value)?;
        form.advance(cpu, RSI, 1);
        form.advance(cpu, RDI, 1);
        Ok(false)
    })
}

/// Copies `bytes` as single moves of `size` bytes would, in the given direction.
///
/// # Safety
/// Both ranges are valid; they may overlap.
unsafe fn copy_elements(from: *const u8, to: *mut u8, bytes: usize, size: usize, backward: bool) {
    let ahead = if backward {
        (from as usize).wrapping_sub(to as usize)
    } else {
        (to as usize).wrapping_sub(from as usize)
    };
    if ahead == 0 || ahead >= bytes {
        // No element is read after it was written: one move has the same result.
        // SAFETY: guaranteed by the caller.
        unsafe { std::ptr::copy(from, to, bytes) };
        return;
    }
    let steps = bytes / size;
    for step in 0..steps {
        let at = size * if backward { steps - 1 - step } else { step };
        let mut element = [0u8; 8];
        let element = &mut element[..size.min(8)];
        // SAFETY: `at + size` is at most `bytes`.
        unsafe {
            std::ptr::copy(from.add(at), element.as_mut_ptr(), element.len());
            std::ptr::copy(element.as_ptr(), to.add(at), element.len());
        }
    }
}

/// STOSB, STOSW, STOSD, STOSQ.
pub fn stos<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let form = Form::new(cpu, instruction);
    let value = register::read_index(cpu, RAX, form.size);
    let bulk = |cpu: &mut Cpu, env: &mut E, count: u64| {
        let offset = register::read_index(cpu, RDI, form.address);
        let Some((count, to)) = form.run(cpu, ES, offset, count, true) else {
            return 0;
        };
        let Some(to) = host(cpu, env, to, true) else {
            return 0;
        };
        // SAFETY: the run lies within a page of writable RAM.
        unsafe { fill(to, count as usize, form.size, value) };
        form.advance(cpu, RDI, count);
        count
    };
    repeat(cpu, env, instruction, form, bulk, |cpu, env| {
        let to = form.destination_address(cpu, true)?;
        store(cpu, env, to, form.size, value)?;
        form.advance(cpu, RDI, 1);
        Ok(false)
    })
}

/// Stores `count` elements of `size` bytes.
///
/// # Safety
/// The range is valid for writes.
unsafe fn fill(to: *mut u8, count: usize, size: usize, value: u64) {
    // SAFETY: guaranteed by the caller; unaligned writes stay within `count * size` bytes.
    unsafe {
        match size {
            1 => std::ptr::write_bytes(to, value as u8, count),
            2 => (0..count).for_each(|i| to.cast::<u16>().add(i).write_unaligned(value as u16)),
            4 => (0..count).for_each(|i| to.cast::<u32>().add(i).write_unaligned(value as u32)),
            _ => (0..count).for_each(|i| to.cast::<u64>().add(i).write_unaligned(value)),
        }
    }
}

/// LODSB, LODSW, LODSD, LODSQ.
pub fn lods<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let form = Form::new(cpu, instruction);
    repeat(
        cpu,
        env,
        instruction,
        form,
        |_, _, _| 0,
        |cpu, env| {
            let from = form.source_address(cpu)?;
            let value = load(cpu, env, from, form.size)?;
            register::write_index(cpu, RAX, form.size, value);
            form.advance(cpu, RSI, 1);
            Ok(false)
        },
    )
}

/// Whether REPE or REPNE ends, by ZF.
fn ends(cpu: &Cpu, instruction: &Instruction) -> bool {
    let equal = cpu.rflags & ZF != 0;
    if instruction.has_repne_prefix() {
        equal
    } else {
        !equal
    }
}

/// CMPSB, CMPSW, CMPSD, CMPSQ.
pub fn cmps<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let form = Form::new(cpu, instruction);
    repeat(
        cpu,
        env,
        instruction,
        form,
        |_, _, _| 0,
        |cpu, env| {
            let (from, to) = (
                form.source_address(cpu)?,
                form.destination_address(cpu, false)?,
            );
            let a = load(cpu, env, from, form.size)?;
            let b = load(cpu, env, to, form.size)?;
            cpu.rflags = arithmetic::sub(a, b, false, form.size, cpu.rflags).1;
            form.advance(cpu, RSI, 1);
            form.advance(cpu, RDI, 1);
            Ok(ends(cpu, instruction))
        },
    )
}

/// SCASB, SCASW, SCASD, SCASQ.
pub fn scas<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let form = Form::new(cpu, instruction);
    repeat(
        cpu,
        env,
        instruction,
        form,
        |_, _, _| 0,
        |cpu, env| {
            let to = form.destination_address(cpu, false)?;
            let b = load(cpu, env, to, form.size)?;
            let a = register::read_index(cpu, RAX, form.size);
            cpu.rflags = arithmetic::sub(a, b, false, form.size, cpu.rflags).1;
            form.advance(cpu, RDI, 1);
            Ok(ends(cpu, instruction))
        },
    )
}

/// The family of a string instruction; `None` for INS, OUTS and for the SSE instructions that
/// share a name.
pub fn family(instruction: &Instruction) -> Option<Mnemonic> {
    if !instruction.is_string_instruction() {
        return None;
    }
    Some(match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Mnemonic::Movsb,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Mnemonic::Stosb,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Mnemonic::Lodsb,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => Mnemonic::Cmpsb,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => Mnemonic::Scasb,
        _ => return None,
    })
}
