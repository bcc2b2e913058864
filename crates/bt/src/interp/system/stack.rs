//! A stack that is pushed to or popped from before it becomes, or ceases to be, the current one.

use ringfence_engine::Segment;
use ringfence_x86::exception as ex;
use ringfence_x86::paging::is_canonical;

use super::operand::{load, mask, store};
use crate::cpu::{Cpu, RSP, SS};
use crate::env::{Env, Privilege, Trap};

/// Linear address of `size` bytes at `offset` of a segment outside 64-bit mode; `None` beyond its
/// limit (SDM vol. 3A, 5.3).
pub(super) fn within(segment: &Segment, offset: u64, size: usize) -> Option<u64> {
    let last = offset.checked_add(size as u64 - 1)?;
    let limit = u64::from(segment.limit);
    let attributes = segment.attributes;
    let valid = if attributes.is_expand_down() {
        offset > limit
            && last
                <= if attributes.big() {
                    0xffff_ffff
                } else {
                    0xffff
                }
    } else {
        last <= limit
    };
    valid.then(|| segment.base.wrapping_add(offset) & 0xffff_ffff)
}

/// Most items that are pushed or read at once: SS, RSP, RFLAGS, CS, RIP and an error code.
const FRAME: usize = 6;

/// A stack with a pointer of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    segment: Segment,
    /// Value of the whole stack pointer register.
    pub(super) pointer: u64,
    /// Bytes of the pointer that count: 2, 4 or 8.
    width: usize,
    privilege: Privilege,
    /// Error code of the #SS that a violation raises.
    code: u32,
}

impl Stack {
    /// The current stack. `ext` is the EXT bit of a #SS error code.
    pub(super) fn current(cpu: &Cpu, ext: u32) -> Self {
        Self {
            segment: cpu.seg[SS],
            pointer: cpu.gpr[RSP],
            width: cpu.stack_bits() as usize / 8,
            privilege: Privilege::Current,
            code: ext,
        }
    }

    /// The stack of an inner privilege level outside long mode.
    pub(super) fn inner(segment: Segment, pointer: u64, ext: u32) -> Self {
        Self {
            segment,
            pointer,
            width: if segment.attributes.big() { 4 } else { 2 },
            privilege: Privilege::System,
            code: u32::from(segment.selector & 0xfffc) | ext,
        }
    }

    /// A flat 64-bit stack at level `cpl`.
    pub(super) fn flat(cpu: &Cpu, pointer: u64, cpl: u8, ext: u32) -> Self {
        let privilege = if cpl == cpu.cpl {
            Privilege::Current
        } else {
            Privilege::System
        };
        Self {
            segment: Segment::default(),
            pointer,
            width: 8,
            privilege,
            code: ext,
        }
    }

    fn linear(&self, offset: u64, size: usize) -> Result<u64, Trap> {
        let fault = Trap::coded(ex::SS, self.code);
        if self.width == 8 {
            let last = offset.wrapping_add(size as u64 - 1);
            return if is_canonical(offset) && is_canonical(last) {
                Ok(offset)
            } else {
                Err(fault)
            };
        }
        if self.segment.attributes.unusable() {
            return Err(fault);
        }
        within(&self.segment, offset, size).ok_or(fault)
    }

    fn offset(&self) -> u64 {
        self.pointer & mask(self.width)
    }

    /// Moves the pointer; the bits that don't count stay.
    pub(super) fn adjust(&mut self, delta: u64) {
        let kept = self.pointer & !mask(self.width);
        self.pointer = kept | self.pointer.wrapping_add(delta) & mask(self.width);
    }

    /// Pushes the low `size` bytes of `value`.
    pub(super) fn push<E: Env>(
        &mut self,
        cpu: &mut Cpu,
        env: &mut E,
        size: usize,
        value: u64,
    ) -> Result<(), Trap> {
        let mut moved = *self;
        moved.adjust((size as u64).wrapping_neg());
        let linear = self.linear(moved.offset(), size)?;
        store(cpu, env, linear, size, value, self.privilege)?;
        *self = moved;
        Ok(())
    }

    /// Pushes `values`, the last one first, in one access where they lie in one page of a 64-bit
    /// stack.
    pub(super) fn push_frame<E: Env>(
        &mut self,
        cpu: &mut Cpu,
        env: &mut E,
        size: usize,
        values: &[u64],
    ) -> Result<(), Trap> {
        let mut moved = *self;
        moved.adjust((size as u64 * values.len() as u64).wrapping_neg());
        if size == 8 && self.width == 8 && self.one_page(moved.pointer, values.len()) {
            let mut bytes = [0; 8 * FRAME];
            for (slot, value) in bytes.chunks_exact_mut(8).zip(values) {
                slot.copy_from_slice(&value.to_le_bytes());
            }
            let linear = moved.linear(moved.pointer, 8)?;
            match env.store(cpu, linear, &bytes[..8 * values.len()], self.privilege) {
                // One by one, to name the address of the first push.
                Err(Trap::Exception(_)) => {}
                result => {
                    *self = moved;
                    return result;
                }
            }
        }
        for &value in values.iter().rev() {
            self.push(cpu, env, size, value)?;
        }
        Ok(())
    }

    /// Whether `count` (up to [`FRAME`]) 8-byte items from `pointer` lie in one page.
    fn one_page(&self, pointer: u64, count: usize) -> bool {
        count <= FRAME && pointer & 0xfff <= 0x1000 - 8 * count as u64
    }

    /// Reads the items on top without popping them, in one access where they lie in one page of
    /// a 64-bit stack.
    pub(super) fn peek_frame<E: Env, const N: usize>(
        &self,
        cpu: &mut Cpu,
        env: &mut E,
        size: usize,
    ) -> Result<[u64; N], Trap> {
        let mut values = [0; N];
        if size == 8 && self.width == 8 && self.one_page(self.pointer, N) {
            let mut bytes = [0; 8 * FRAME];
            let linear = self.linear(self.pointer, 8)?;
            env.load(cpu, linear, &mut bytes[..8 * N], self.privilege)?;
            for (value, slot) in values.iter_mut().zip(bytes.chunks_exact(8)) {
                let mut item = [0; 8];
                item.copy_from_slice(slot);
                *value = u64::from_le_bytes(item);
            }
            return Ok(values);
        }
        for (index, value) in values.iter_mut().enumerate() {
            *value = self.peek(cpu, env, (index * size) as u64, size)?;
        }
        Ok(values)
    }

    /// Reads the `size` bytes at `displacement` above the top.
    pub(super) fn peek<E: Env>(
        &self,
        cpu: &mut Cpu,
        env: &mut E,
        displacement: u64,
        size: usize,
    ) -> Result<u64, Trap> {
        let mut at = *self;
        at.adjust(displacement);
        let linear = self.linear(at.offset(), size)?;
        load(cpu, env, linear, size, self.privilege)
    }

    /// Pops `size` bytes.
    pub(super) fn pop<E: Env>(
        &mut self,
        cpu: &mut Cpu,
        env: &mut E,
        size: usize,
    ) -> Result<u64, Trap> {
        let value = self.peek(cpu, env, 0, size)?;
        self.adjust(size as u64);
        Ok(value)
    }
}

/// Makes a popped stack pointer current on a stack whose segment is loaded: a 16-bit stack keeps
/// the upper half of ESP.
pub(super) fn set_pointer(cpu: &mut Cpu, value: u64) {
    let width = cpu.stack_bits() as usize / 8;
    cpu.gpr[RSP] = match width {
        2 => cpu.gpr[RSP] & !0xffff | value & 0xffff,
        _ => value & mask(width),
    };
}
