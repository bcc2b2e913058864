//! EVEX memory operands under an opmask: only the elements that the mask selects are accessed, so
//! that only they can fault (SDM vol. 2A, 2.8.7); gathers, scatters, compressed and expanded ones.

use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};

use super::class::{self, Kind, fpu_check};
use super::masked::element_address;
use super::{state, thunk};
use crate::cpu::Cpu;
use crate::env::{Env, Privilege, Trap};
use crate::interp::address::{load, operand_address, store};
use crate::interp::register::sign_extend;
use crate::interp::retire;

/// Bytes of a ZMM register.
const ZMM: usize = 64;

/// Executes a gather, a scatter, or an instruction whose memory operand is masked; `None` for
/// others.
pub fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    if instruction.encoding() != EncodingKind::EVEX {
        return None;
    }
    let operand =
        (0..instruction.op_count()).find(|&i| instruction.op_kind(i) == OpKind::Memory)?;
    if let Some((element, index)) = vector_indexed(instruction.mnemonic()) {
        if !std::arch::is_x86_feature_detected!("avx512f") {
            return None;
        }
        return Some(if operand == 0 {
            scatter(cpu, env, instruction, element, index)
        } else {
            gather(cpu, env, instruction, element, index)
        });
    }
    let masked = instruction.op_mask() != Register::None;
    let traits = class::traits(instruction)?;
    let stores = traits.writes();
    if !masked || !stores && reads_all(instruction) {
        return None;
    }
    Some(elements(cpu, env, instruction, traits, stores))
}

/// Sizes of elements and indices of a gather or scatter.
fn vector_indexed(mnemonic: Mnemonic) -> Option<(usize, usize)> {
    use Mnemonic::*;
    Some(match mnemonic {
        Vpgatherdd | Vgatherdps | Vpscatterdd | Vscatterdps => (4, 4),
        Vpgatherdq | Vgatherdpd | Vpscatterdq | Vscatterdpd => (8, 4),
        Vpgatherqd | Vgatherqps | Vpscatterqd | Vscatterqps => (4, 8),
        Vpgatherqq | Vgatherqpd | Vpscatterqq | Vscatterqpd => (8, 8),
        _ => return None,
    })
}

/// Instructions whose elements in memory are not those of the result: the whole operand is read,
/// whatever the mask (exception classes with NF, "no fault suppression").
fn reads_all(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let last = instruction.op_count() - 1;
    match instruction.mnemonic() {
        Valignd | Valignq | Vcvtne2ps2bf16 | Vdbpsadbw | Vinsertf32x4 | Vinsertf32x8
        | Vinsertf64x2 | Vinsertf64x4 | Vinserti32x4 | Vinserti32x8 | Vinserti64x2
        | Vinserti64x4 | Vmovddup | Vmovshdup | Vmovsldup | Vpackssdw | Vpacksswb | Vpackusdw
        | Vpackuswb | Vpalignr | Vpermb | Vpermilpd | Vpermilps | Vpermd | Vpermi2b | Vpermi2d
        | Vpermi2pd | Vpermi2ps | Vpermi2q | Vpermi2w | Vpermpd | Vpermps | Vpermq | Vpermt2b
        | Vpermt2d | Vpermt2pd | Vpermt2ps | Vpermt2q | Vpermt2w | Vpermw | Vpmaddubsw
        | Vpmaddwd | Vpmultishiftqb | Vpshufb | Vpshufd | Vpshufhw | Vpshuflw | Vpunpckhbw
        | Vpunpckhdq | Vpunpckhqdq | Vpunpckhwd | Vpunpcklbw | Vpunpckldq | Vpunpcklqdq
        | Vpunpcklwd | Vshuff32x4 | Vshuff64x2 | Vshufi32x4 | Vshufi64x2 | Vshufpd | Vshufps
        | Vunpckhpd | Vunpckhps | Vunpcklpd | Vunpcklps | Vgf2p8affineqb | Vgf2p8affineinvqb
        | Vpconflictd | Vpconflictq => true,
        // The count of all shifts is in memory.
        Vpsllw | Vpsrlw | Vpsraw | Vpslld | Vpsllq | Vpsrld | Vpsrlq | Vpsrad | Vpsraq => {
            instruction.op_kind(last) == OpKind::Memory
        }
        _ => false,
    }
}

/// Stores that check the whole operand, whatever the mask.
fn writes_all(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Vextractf32x4
            | Vextractf32x8
            | Vextractf64x2
            | Vextractf64x4
            | Vextracti32x4
            | Vextracti32x8
            | Vextracti64x2
            | Vextracti64x4
    )
}

/// Bytes of memory that belong to a bit of the mask.
fn mask_unit(instruction: &Instruction) -> usize {
    use Mnemonic::*;
    match instruction.mnemonic() {
        // Sums of products of shorter elements, and products of the lower halves.
        Vpdpbusd | Vpdpbusds | Vpdpwssd | Vpdpwssds | Vdpbf16ps => 4,
        Vpmuldq | Vpmuludq => 8,
        // Selectors of bits are bytes.
        Vpshufbitqmb => 1,
        _ => instruction.memory_size().element_size().clamp(1, 8),
    }
}

/// How many elements the vectors of an operation have, given those of the operand in memory.
fn vector_elements(instruction: &Instruction, size: usize, count: usize) -> usize {
    use Mnemonic::*;
    if instruction.is_broadcast() {
        // The name tells: Broadcast512_Float32.
        let name = format!("{:?}", instruction.memory_size());
        let bits: String = name
            .chars()
            .skip(9)
            .take_while(char::is_ascii_digit)
            .collect();
        return bits.parse::<usize>().map_or(1, |bits| bits / 8 / size);
    }
    match instruction.mnemonic() {
        Vbroadcastss | Vbroadcastsd | Vbroadcastf32x2 | Vbroadcastf32x4 | Vbroadcastf32x8
        | Vbroadcastf64x2 | Vbroadcastf64x4 | Vbroadcasti32x2 | Vbroadcasti32x4
        | Vbroadcasti32x8 | Vbroadcasti64x2 | Vbroadcasti64x4 | Vpbroadcastb | Vpbroadcastw
        | Vpbroadcastd | Vpbroadcastq => instruction.op0_register().size() / size,
        _ => count,
    }
}

/// Elements of the operand in memory that are accessed, as a set of bits.
fn accessed(cpu: &Cpu, instruction: &Instruction, size: usize, count: usize) -> u64 {
    use Mnemonic::*;
    let selected = state::opmask(cpu, instruction.op_mask().number());
    let vector = vector_elements(instruction, size, count);
    let selected = selected & low_bits(vector);
    match instruction.mnemonic() {
        Vcompressps | Vcompresspd | Vpcompressb | Vpcompressw | Vpcompressd | Vpcompressq
        | Vexpandps | Vexpandpd | Vpexpandb | Vpexpandw | Vpexpandd | Vpexpandq => {
            low_bits(selected.count_ones() as usize)
        }
        _ => (0..vector)
            .filter(|element| selected >> element & 1 != 0)
            .fold(0, |set, element| set | 1 << (element % count)),
    }
}

fn low_bits(count: usize) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

fn elements<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    traits: class::Traits,
    stores: bool,
) -> Result<(), Trap> {
    fpu_check(cpu, traits.kind())?;
    let whole = instruction.memory_size().size();
    let size = mask_unit(instruction);
    let count = (whole / size).clamp(1, ZMM);
    let set = accessed(cpu, instruction, size, count);
    if traits.aligned() && set != 0 {
        let linear = operand_address(cpu, instruction, 1, stores)?;
        if linear & (whole as u64 - 1) != 0 {
            return Err(Trap::GP0);
        }
    }
    if stores && writes_all(instruction) {
        let linear = operand_address(cpu, instruction, whole, true)?;
        env.check_store(cpu, linear, whole, Privilege::Current)?;
    }
    let mut bounce = thunk::Bounce::filled(0);
    let chosen = |i: &usize| set >> i & 1 != 0;
    for i in (0..count).filter(chosen) {
        let linear = element_address(cpu, instruction, (i * size) as u64, size, stores)?;
        if stores {
            env.check_store(cpu, linear, size, Privilege::Current)?;
        } else {
            let value = load(cpu, env, linear, size)?;
            bounce.0[i * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
    let outcome = thunk::run(cpu, instruction, traits.flags(), &mut bounce)?;
    if outcome.faulted {
        return Err(super::fault(cpu, Kind::Avx512));
    }
    if stores {
        for i in (0..count).filter(chosen) {
            let linear = element_address(cpu, instruction, (i * size) as u64, size, true)?;
            store(cpu, env, linear, size, get(&bounce.0, i, size))?;
        }
    }
    retire(cpu, instruction)
}

/// Little-endian element `position` of `size` bytes.
fn get(vector: &[u8; ZMM], position: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&vector[position * size..][..size]);
    u64::from_le_bytes(bytes)
}

/// The offset from the operand's base that an index makes.
fn indexed(instruction: &Instruction, indices: &[u8; ZMM], position: usize, size: usize) -> u64 {
    let scale = u64::from(instruction.memory_index_scale());
    sign_extend(get(indices, position, size), size).wrapping_mul(scale)
}

/// A gather clears the mask bit of each element that was loaded, so that it can go on after a
/// fault.
fn gather<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
    index_size: usize,
) -> Result<(), Trap> {
    fpu_check(cpu, Kind::Avx512)?;
    let (target, index) = (instruction.op0_register(), instruction.memory_index());
    let selector = instruction.op_mask();
    if selector == Register::None || target.number() == index.number() {
        return Err(Trap::UD);
    }
    let (target_number, selector) = (target.number(), selector.number());
    let count = (target.size() / size).min(index.size() / index_size);
    let indices = state::zmm(cpu, index.number());
    let mut value = state::zmm(cpu, target_number);
    let mut left = state::opmask(cpu, selector);
    for position in (0..count)
        .filter(|position| left >> position & 1 != 0)
        .collect::<Vec<_>>()
    {
        let displacement = indexed(instruction, &indices, position, index_size);
        let loaded = element_address(cpu, instruction, displacement, size, false)
            .and_then(|linear| load(cpu, env, linear, size));
        match loaded {
            Ok(element) => {
                let bytes = element.to_le_bytes();
                value[position * size..][..size].copy_from_slice(&bytes[..size]);
                // What a fault leaves above the elements is not defined; so it is on AMD.
                value[target.size().max(index.size())..].fill(0);
                left &= !(1 << position);
            }
            Err(trap) => {
                // After an exit all elements are loaded again; a fault keeps those it has.
                if matches!(trap, Trap::Exception(_)) {
                    state::set_zmm(cpu, target_number, &value);
                    state::set_opmask(cpu, selector, left);
                }
                return Err(trap);
            }
        }
    }
    value[count * size..].fill(0);
    state::set_zmm(cpu, target_number, &value);
    state::set_opmask(cpu, selector, 0);
    retire(cpu, instruction)
}

/// A scatter stores in the order of the elements, and clears their mask bits.
fn scatter<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    size: usize,
    index_size: usize,
) -> Result<(), Trap> {
    fpu_check(cpu, Kind::Avx512)?;
    let (source, index) = (instruction.op1_register(), instruction.memory_index());
    let selector = instruction.op_mask();
    if selector == Register::None {
        return Err(Trap::UD);
    }
    let selector = selector.number();
    let count = (source.size() / size).min(index.size() / index_size);
    let indices = state::zmm(cpu, index.number());
    let value = state::zmm(cpu, source.number());
    let mut left = state::opmask(cpu, selector);
    for position in (0..count)
        .filter(|position| left >> position & 1 != 0)
        .collect::<Vec<_>>()
    {
        let displacement = indexed(instruction, &indices, position, index_size);
        let stored = element_address(cpu, instruction, displacement, size, true)
            .and_then(|linear| store(cpu, env, linear, size, get(&value, position, size)));
        if let Err(trap) = stored {
            if matches!(trap, Trap::Exception(_)) {
                state::set_opmask(cpu, selector, left);
            }
            return Err(trap);
        }
        left &= !(1 << position);
    }
    state::set_opmask(cpu, selector, 0);
    retire(cpu, instruction)
}
