//! Whether a case can do no harm to the process that runs it.

use iced_x86::{InstructionInfoFactory, Mnemonic, OpKind, UsedMemory};

use super::super::SLOT;
use super::target::{canonical, harmless, readable};
use super::{Place, is_near_branch};
use crate::state::layout;

impl Place<'_> {
    /// Whether no access leaves the data area and the unmapped space around it, and no branch
    /// leaves the slot.
    pub(super) fn safe(&self, vsib: bool) -> bool {
        let i = self.instruction;
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(i);
        let accesses = info.used_memory();
        let vectors = |used: &UsedMemory, lane: usize| {
            used.virtual_address(lane, |register, element, size| {
                Some(if register.is_segment_register() {
                    self.segment_base(register)
                } else if register.is_vector_register() {
                    // An index vector has fewer lanes than the loop, if they are wide.
                    let at = element * size % register.size();
                    let from = layout().vector_byte(register.number(), at);
                    let mut bytes = [0; 8];
                    bytes[..size].copy_from_slice(&self.state.xsave[from..from + size]);
                    let value = u64::from_le_bytes(bytes);
                    if size == 4 {
                        i64::from(value as i32) as u64
                    } else {
                        value
                    }
                } else {
                    self.register(register)
                })
            })
        };
        for used in accesses {
            for lane in 0..if vsib { 16 } else { 1 } {
                let Some(mut address) = vectors(used, lane) else {
                    return false;
                };
                address = address.wrapping_add(self.bit_offset());
                if self.bits == 32 {
                    address &= 0xffff_ffff;
                }
                let size = used.memory_size().size().max(64) as u64;
                if !harmless(address, size) {
                    return false;
                }
            }
        }
        if i.is_string_instruction() {
            // Up to 300 elements of 8 bytes in either direction.
            return self.strings_in_area();
        }
        self.branch_returns()
    }

    fn strings_in_area(&self) -> bool {
        let i = self.instruction;
        let wide = self.bits == 64;
        (0..i.op_count()).all(|operand| {
            let mut at = match i.op_kind(operand) {
                OpKind::MemorySegRSI => self.state.gpr[6],
                OpKind::MemorySegESI => self.state.gpr[6] & 0xffff_ffff,
                OpKind::MemoryESRDI | OpKind::MemorySegRDI => self.state.gpr[7],
                OpKind::MemoryESEDI | OpKind::MemorySegEDI => self.state.gpr[7] & 0xffff_ffff,
                OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return false,
                _ => return true,
            };
            if wide
                && matches!(
                    i.op_kind(operand),
                    OpKind::MemorySegRSI | OpKind::MemorySegESI
                )
            {
                at = at.wrapping_add(self.segment_base(i.memory_segment()));
            }
            harmless(at, 64)
        })
    }

    /// An indirect branch finds a target in the slot, or one that faults.
    fn branch_returns(&self) -> bool {
        let i = self.instruction;
        let indirect = matches!(i.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp | Mnemonic::Call)
            && !is_near_branch(i);
        if !indirect {
            return true;
        }
        let target = if i.mnemonic() != Mnemonic::Ret && i.op0_kind() == OpKind::Register {
            self.register(i.op0_register())
        } else {
            let at = if i.mnemonic() == Mnemonic::Ret {
                self.state.gpr[4]
            } else {
                match self.linear() {
                    Some(at) => at,
                    None => return false,
                }
            };
            // Only what was put there is known to be a target.
            match self.pokes.iter().find(|poke| poke.0 == at) {
                Some(poke) => poke
                    .1
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte)),
                // The load faults, if it touches no good page.
                None => return !readable(at, 8),
            }
        };
        target.wrapping_sub(self.slot) < SLOT || !canonical(target)
    }
}
