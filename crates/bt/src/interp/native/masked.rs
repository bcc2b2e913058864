//! Vector accesses by element: masked moves and gathers, with the faults of the elements that
//! are really accessed.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::class::{Kind, fpu_check};
use super::{state, thunk};
use crate::cpu::{Cpu, RDI};
use crate::env::{Env, Privilege, Trap};
use crate::interp::address::{
    address_size, effective_offset, linear_address, load, operand_segment, store,
};
use crate::interp::register::{self, mask, sign_extend};
use crate::interp::retire;

/// Executes a masked move or a gather; `None` for other instructions.
pub fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Mnemonic::*;
    if instruction.encoding() == iced_x86::EncodingKind::EVEX {
        return None;
    }
    let name = instruction.mnemonic();
    let (element, index) = match name {
        Maskmovdqu | Vmaskmovdqu | Maskmovq => return Some(bytes(cpu, env, instruction)),
        Vmaskmovps | Vpmaskmovd => (4, 0),
        Vmaskmovpd | Vpmaskmovq => (8, 0),
        Vpgatherdd | Vgatherdps => (4, 4),
        Vpgatherdq | Vgatherdpd => (8, 4),
        Vpgatherqd | Vgatherqps => (4, 8),
        Vpgatherqq | Vgatherqpd => (8, 8),
        _ => return None,
    };
    let available = match name {
        Vmaskmovps | Vmaskmovpd => is_x86_feature_detected!("avx"),
        _ => is_x86_feature_detected!("avx2"),
    };
    if !available {
        return None;
    }
    if let Err(trap) = fpu_check(cpu, Kind::Avx) {
        return Some(Err(trap));
    }
    Some(if index != 0 {
        gather(cpu, env, instruction, element, index)
    } else if instruction.op0_kind() == OpKind::Memory {
        masked_store(cpu, env, instruction, element)
    } else {
        masked_load(cpu, env, instruction, element)
    })
}

/// Little-endian element `position` of `size` bytes.
fn get(vector: &[u8; 32], position: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&vector[position * size..][..size]);
    u64::from_le_bytes(bytes)
}

fn put(vector: &mut [u8; 32], position: usize, size: usize, value: u64) {
    vector[position * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// Whether the sign bit of a mask element is set.
fn selected(vector: &[u8; 32], position: usize, size: usize) -> bool {
    vector[position * size + size - 1] & 0x80 != 0
}

/// Linear address of the element `displacement` bytes into the memory operand.
pub(super) fn element_address(
    cpu: &Cpu,
    instruction: &Instruction,
    displacement: u64,
    size: usize,
    write: bool,
) -> Result<u64, Trap> {
    let segment = operand_segment(cpu, instruction);
    let offset = effective_offset(cpu, instruction).wrapping_add(displacement)
        & mask(address_size(cpu, instruction));
    linear_address(cpu, segment, offset, size, write)
}

fn masked_load<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
) -> Result<(), Trap> {
    let target = instruction.op0_register();
    let selector = state::vector(cpu, instruction.op1_register().number());
    let mut value = [0; 32];
    for position in 0..target.size() / size {
        if selected(&selector, position, size) {
            let at = (position * size) as u64;
            let linear = element_address(cpu, instruction, at, size, false)?;
            put(&mut value, position, size, load(cpu, env, linear, size)?);
        }
    }
    state::set_vector(cpu, target.number(), &value);
    retire(cpu, instruction)
}

fn masked_store<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
) -> Result<(), Trap> {
    let source = instruction.op2_register();
    let selector = state::vector(cpu, instruction.op1_register().number());
    let value = state::vector(cpu, source.number());
    let positions = (0..source.size() / size).filter(|p| selected(&selector, *p, size));
    for position in positions.clone() {
        let at = (position * size) as u64;
        let linear = element_address(cpu, instruction, at, size, true)?;
        env.check_store(cpu, linear, size, Privilege::Current)?;
    }
    for position in positions {
        let at = (position * size) as u64;
        let linear = element_address(cpu, instruction, at, size, true)?;
        store(cpu, env, linear, size, get(&value, position, size))?;
    }
    retire(cpu, instruction)
}

/// A gather clears the mask of each element that was loaded, so that it can go on after a fault.
fn gather<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
    index_size: usize,
) -> Result<(), Trap> {
    let target = instruction.op0_register();
    let index = instruction.memory_index();
    let selector = instruction.op2_register();
    let numbers = [target, index, selector].map(Register::number);
    if numbers[0] == numbers[1] || numbers[1] == numbers[2] || numbers[0] == numbers[2] {
        return Err(Trap::UD);
    }
    let [mut value, indices, mut left] = numbers.map(|number| state::vector(cpu, number));
    let count = (target.size() / size).min(index.size() / index_size);
    let scale = u64::from(instruction.memory_index_scale());
    for position in 0..count {
        if !selected(&left, position, size) {
            put(&mut left, position, size, 0);
            continue;
        }
        let displacement =
            sign_extend(get(&indices, position, index_size), index_size).wrapping_mul(scale);
        let loaded = element_address(cpu, instruction, displacement, size, false)
            .and_then(|linear| load(cpu, env, linear, size));
        match loaded {
            Ok(element) => {
                put(&mut value, position, size, element);
                put(&mut left, position, size, 0);
            }
            Err(trap) => {
                // After an exit all elements are loaded again; a fault keeps those it has.
                if matches!(trap, Trap::Exception(_)) {
                    state::set_vector_part(cpu, numbers[0], &value);
                    state::set_vector_part(cpu, numbers[2], &left);
                }
                return Err(trap);
            }
        }
    }
    value[count * size..].fill(0);
    state::set_vector(cpu, numbers[0], &value);
    state::set_vector(cpu, numbers[2], &[0; 32]);
    retire(cpu, instruction)
}

/// MASKMOVQ and MASKMOVDQU. The host stores into two buffers of different contents: bytes that
/// end up equal were selected.
fn bytes<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let kind = match instruction.mnemonic() {
        Mnemonic::Maskmovq => Kind::Mmx,
        Mnemonic::Maskmovdqu => Kind::Sse,
        _ => Kind::Avx,
    };
    fpu_check(cpu, kind)?;
    let length = if kind == Kind::Mmx { 8 } else { 16 };
    let size = match instruction.op0_kind() {
        OpKind::MemorySegDI => 2,
        OpKind::MemorySegEDI => 4,
        _ => 8,
    };
    let segment = operand_segment(cpu, instruction);
    let offset = register::read_index(cpu, RDI, size);
    let (mut zeros, mut ones) = (thunk::Bounce::filled(0), thunk::Bounce::filled(0xff));
    let before = cpu.xsave.clone();
    thunk::run(cpu, instruction, false, &mut zeros)?;
    thunk::run(cpu, instruction, false, &mut ones)?;
    let after = std::mem::replace(&mut cpu.xsave, before);
    let at = |position: usize| offset.wrapping_add(position as u64) & mask(size);
    let positions = (0..length).filter(|p| zeros.0[*p] == ones.0[*p]);
    // Bytes that are masked off are checked as well; that is left to the processor.
    let linear = linear_address(cpu, segment, offset, length, true)?;
    env.check_store(cpu, linear, length, Privilege::Current)?;
    for position in positions {
        let linear = linear_address(cpu, segment, at(position), 1, true)?;
        store(cpu, env, linear, 1, u64::from(zeros.0[position]))?;
    }
    cpu.xsave = after;
    retire(cpu, instruction)
}
