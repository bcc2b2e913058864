//! Constants of an instruction that decide about addresses.

use iced_x86::{ConstantOffsets, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::super::exclude::excluded_form;
use super::target::{crossing, landing, target};
use super::{has_memory, is_near_branch};
use crate::random::Random;

/// Bytes that an instruction may be long, with what may follow it.
const TAIL: u64 = 96;

/// Where an instruction will be.
pub(in super::super) struct Site<'a> {
    /// Start of the slot.
    pub base: u64,
    /// Start of the case's code.
    pub start: u64,
    /// Address of the instruction.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'a mut [u8],
    /// Where its constants are.
    pub offsets: ConstantOffsets,
    /// The operand is to cross this address.
    pub boundary: Option<u64>,
}

/// Sets the constants of an instruction that decide about addresses: displacements without a
/// base register, branch distances. `false` if it can't be used.
pub(in super::super) fn adjust(
    random: &mut Random,
    site: &mut Site<'_>,
    instruction: &Instruction,
    bits: u32,
) -> bool {
    if excluded_form(instruction.code()).is_some() {
        return false;
    }
    let prefix = instruction.segment_prefix();
    if bits == 32
        && (matches!(prefix, Register::FS | Register::GS)
            || prefix == Register::CS && instruction.mnemonic() == Mnemonic::Maskmovq)
    {
        // Null, or not writable: what comes first, #GP or other effects, is the processor's.
        return false;
    }
    if bits == 32
        && matches!(
            instruction.mnemonic(),
            Mnemonic::Vzeroupper | Mnemonic::Vzeroall
        )
    {
        // The translator clears registers 8 to 15 too, which 32-bit code can't see.
        return false;
    }
    let double_shift = matches!(instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd);
    if double_shift
        && instruction.op1_register().size() == 2
        && instruction.op2_kind() == OpKind::Immediate8
        && instruction.immediate8() & 0x1f > 16
    {
        // The result is undefined.
        return false;
    }
    if instruction.flow_control() != FlowControl::Next && site.bytes.contains(&0x66) {
        // AMD takes the operand size of a near branch, where Intel ignores it.
        return false;
    }
    if matches!(
        instruction.mnemonic(),
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne
    ) && site.bytes.iter().any(|byte| matches!(byte, 0xf2 | 0xf3))
    {
        // AMD takes REP LOOPNE for LOOPE.
        return false;
    }
    if is_near_branch(instruction) {
        let size = site.offsets.immediate_size();
        let next = site.address + site.bytes.len() as u64;
        let target = landing(random, site.base, site.start, next + TAIL / 2);
        let distance = target.wrapping_sub(next) as i64;
        let fits = match size {
            1 => i8::try_from(distance).is_ok(),
            _ => i32::try_from(distance).is_ok() && size == 4,
        };
        if fits {
            let at = site.offsets.immediate_offset();
            site.bytes[at..at + size].copy_from_slice(&distance.to_le_bytes()[..size]);
        }
        return fits;
    }
    if instruction.mnemonic() == Mnemonic::Pause && site.bytes.len() > 2 {
        // With REX.B this is XCHG, which the decoder does not see.
        return false;
    }
    if instruction.mnemonic() == Mnemonic::Enter {
        // A frame that leaves the stack faults when part of it is written already.
        let at = site.bytes.len() - 3;
        site.bytes[at..at + 2].copy_from_slice(&(random.below(0x200) as u16).to_le_bytes());
    }
    if !has_memory(instruction) {
        return true;
    }
    let free =
        instruction.memory_base() == Register::None && instruction.memory_index() == Register::None;
    if !free && !instruction.is_ip_rel_memory_operand() {
        return true;
    }
    let size = instruction.memory_size().size().max(1) as u64;
    let target = match site.boundary {
        Some(boundary) => crossing(random, size, boundary),
        None => target(random, size, false),
    };
    let value = if instruction.is_ip_rel_memory_operand() {
        let value = target.wrapping_sub(site.address + site.bytes.len() as u64);
        if bits == 64 && i32::try_from(value as i64).is_err() {
            return false;
        }
        value
    } else {
        target
    };
    let (at, length) = (
        site.offsets.displacement_offset(),
        site.offsets.displacement_size(),
    );
    if length < 4 {
        return false;
    }
    site.bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    true
}
