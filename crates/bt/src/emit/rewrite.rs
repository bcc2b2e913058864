//! Re-encodes a guest instruction with other registers or another memory operand.
//!
//! Works on bytes: prefixes, REX/VEX/EVEX, opcode, ModRM, and the immediate behind it. The
//! operation itself is never interpreted, so one routine serves every instruction set extension.

use super::asm::{Asm, Mem};

/// What becomes of the ModRM r/m operand.
#[derive(Clone, Copy, Debug, Default)]
pub enum Rm {
    /// As the guest encoded it (a register, or no ModRM at all).
    #[default]
    Keep,
    /// This register.
    Reg(u8),
    /// Memory at this register plus displacement.
    Mem(u8, i32),
    /// The field of the context at this offset.
    Context(i32),
}

/// Replacements of the fields of an instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields {
    /// ModRM.reg.
    pub reg: Option<u8>,
    /// ModRM.rm.
    pub rm: Rm,
    /// VEX.vvvv.
    pub vvvv: Option<u8>,
    /// Register in the opcode byte.
    pub opcode: Option<u8>,
    /// Operand size in bytes, 2 or 4; `None` is what the prefixes say.
    pub operand: Option<u8>,
    /// The opcode's direction bit is inverted: ModRM.reg and ModRM.rm change roles.
    pub flip: bool,
}

/// An instruction taken apart.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    operand_size: bool,
    repeat: u8,
    lock: bool,
    rex: u8,
    vector: &'a [u8],
    opcode: &'a [u8],
    modrm: Option<u8>,
    memory_tail: &'a [u8],
    tail: &'a [u8],
}

fn parse(bytes: &[u8], bits: u32, has_modrm: bool) -> Option<Parts<'_>> {
    let mut parts = Parts {
        operand_size: false,
        repeat: 0,
        lock: false,
        rex: 0,
        vector: &[],
        opcode: &[],
        modrm: None,
        memory_tail: &[],
        tail: &[],
    };
    let mut i = 0;
    let mut address16 = bits == 16;
    loop {
        match *bytes.get(i)? {
            0x66 => parts.operand_size = true,
            0x67 => address16 = bits == 32,
            b @ (0xf2 | 0xf3) => parts.repeat = b,
            0xf0 => parts.lock = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            b @ 0x40..=0x4f if bits == 64 => {
                parts.rex = b;
                i += 1;
                if !matches!(
                    bytes.get(i)?,
                    0x66 | 0xf2
                        | 0xf3
                        | 0xf0
                        | 0x26
                        | 0x2e
                        | 0x36
                        | 0x3e
                        | 0x64
                        | 0x65
                        | 0x67
                        | 0x40..=0x4f
                ) {
                    break;
                }
                // Only the REX prefix right before the opcode counts.
                parts.rex = 0;
                continue;
            }
            _ => break,
        }
        i += 1;
    }
    let first = *bytes.get(i)?;
    let vex_allowed = bits == 64 || bytes.get(i + 1).is_some_and(|b| b & 0xc0 == 0xc0);
    let start = match first {
        0xc5 if vex_allowed => {
            parts.vector = bytes.get(i..i + 2)?;
            i + 2
        }
        0xc4 if vex_allowed => {
            parts.vector = bytes.get(i..i + 3)?;
            i + 3
        }
        0x62 if vex_allowed => {
            parts.vector = bytes.get(i..i + 4)?;
            i + 4
        }
        _ => i,
    };
    let mut end = start + 1;
    if parts.vector.is_empty() && first == 0x0f {
        end = start + 2;
        if matches!(bytes.get(start + 1)?, 0x38 | 0x3a) {
            end = start + 3;
        }
    }
    parts.opcode = bytes.get(start..end)?;
    if !has_modrm {
        parts.tail = bytes.get(end..)?;
        return Some(parts);
    }
    let modrm = *bytes.get(end)?;
    let mut after = end + 1;
    if modrm >> 6 != 3 && address16 {
        after += match modrm >> 6 {
            1 => 1,
            2 => 2,
            _ if modrm & 7 == 6 => 2,
            _ => 0,
        };
    } else if modrm >> 6 != 3 {
        let mut base = modrm & 7;
        if base == 4 {
            base = bytes.get(after)? & 7;
            after += 1;
        }
        after += match modrm >> 6 {
            1 => 1,
            2 => 4,
            _ if base == 5 => 4,
            _ => 0,
        };
    }
    parts.modrm = Some(modrm);
    parts.memory_tail = bytes.get(end + 1..after)?;
    parts.tail = bytes.get(after..)?;
    Some(parts)
}

/// Emits `bytes` (one instruction of `bits`-bit code) with `fields`
/// replaced. Segment and address-size prefixes are dropped. Returns the host address of the
/// instruction, or `None` if it can't be taken apart; nothing is emitted then.
pub fn rewrite(
    asm: &mut Asm,
    bytes: &[u8],
    bits: u32,
    has_modrm: bool,
    fields: Fields,
) -> Option<*mut u8> {
    let mut parts = parse(bytes, bits, has_modrm)?;
    if let Some(operand) = fields.operand {
        parts.operand_size = operand == 2;
    }
    let here = asm.here();
    if let ([opcode @ 0x40..=0x4f], 16 | 32, []) = (parts.opcode, bits, parts.vector) {
        // INC and DEC with the register in the opcode are REX prefixes in 64-bit code.
        let register = fields.opcode.unwrap_or(opcode & 7);
        if parts.operand_size {
            asm.byte(0x66);
        }
        if register >= 8 {
            asm.byte(0x41);
        }
        asm.bytes(&[0xff, 0xc0 | opcode & 8 | register & 7]);
        return Some(here);
    }
    let modrm = parts.modrm.unwrap_or(0);
    let (rm_low, rm_high) = match fields.rm {
        Rm::Keep => (modrm & 7, None),
        Rm::Reg(r) | Rm::Mem(r, _) => (r & 7, Some(r >> 3 & 1)),
        Rm::Context(_) => (4, Some(0)),
    };
    let memory = matches!(fields.rm, Rm::Mem(..) | Rm::Context(_));
    if matches!(fields.rm, Rm::Context(_)) {
        asm.byte(0x65);
    }
    let reg_low = fields.reg.unwrap_or(modrm >> 3) & 7;
    let reg_high = fields.reg.map(|r| r >> 3 & 1);

    if parts.vector.is_empty() {
        if parts.operand_size {
            asm.byte(0x66);
        }
        if parts.repeat != 0 {
            asm.byte(parts.repeat);
        }
        if parts.lock {
            asm.byte(0xf0);
        }
        let mut rex = parts.rex;
        let mut set = |bit: u8, value: Option<u8>| {
            if let Some(value) = value {
                rex = rex & !(1 << bit) | value << bit;
            }
        };
        set(2, reg_high);
        set(0, rm_high.or(fields.opcode.map(|r| r >> 3 & 1)));
        if memory {
            set(1, Some(0));
        }
        if rex & 0x0f != 0 || parts.rex != 0 {
            asm.byte(rex | 0x40);
        }
        if let (Some(r), [rest @ .., last]) = (fields.opcode, parts.opcode) {
            asm.bytes(rest);
            asm.byte(last & !7 | r & 7);
        } else if let ([opcode], true) = (parts.opcode, fields.flip) {
            asm.byte(opcode ^ 2);
        } else {
            asm.bytes(parts.opcode);
        }
    } else {
        vector_prefix(asm, parts.vector, reg_high, rm_high, fields);
        asm.bytes(parts.opcode);
    }

    if parts.modrm.is_some() {
        match fields.rm {
            Rm::Mem(base, 0) if base & 7 != 5 && base & 7 != 4 => asm.byte(reg_low << 3 | rm_low),
            // Always 32 bits: EVEX scales 8-bit displacements.
            Rm::Mem(base, disp) => {
                debug_assert_ne!(base & 7, 4);
                asm.byte(0x80 | reg_low << 3 | rm_low);
                asm.dword(disp as u32);
            }
            Rm::Context(disp) => {
                asm.bytes(&[reg_low << 3 | rm_low, 0x25]);
                asm.dword(disp as u32);
            }
            Rm::Reg(_) => asm.byte(0xc0 | reg_low << 3 | rm_low),
            Rm::Keep => {
                asm.byte(modrm & 0xc7 | reg_low << 3);
                asm.bytes(parts.memory_tail);
            }
        }
    }
    asm.bytes(parts.tail);
    Some(here)
}

/// Emits VEX (always in its 3-byte form) or EVEX with replaced register bits, which are stored
/// inverted.
fn vector_prefix(asm: &mut Asm, vector: &[u8], reg: Option<u8>, rm: Option<u8>, fields: Fields) {
    let (mut p0, mut p1) = match *vector {
        [0xc5, p] => (p & 0x80 | 0x61, p & 0x7f),
        [0xc4 | 0x62, p0, p1, ..] => (p0, p1),
        _ => (0, 0),
    };
    if let Some(high) = reg {
        p0 = p0 & !0x80 | (high ^ 1) << 7;
    }
    if let Some(high) = rm {
        p0 = p0 & !0x20 | (high ^ 1) << 5;
    }
    if matches!(fields.rm, Rm::Mem(..) | Rm::Context(_)) {
        p0 |= 0x40;
    }
    if let Some(v) = fields.vvvv {
        p1 = p1 & !0x78 | (!v & 0xf) << 3;
    }
    match *vector {
        [0x62, _, _, p2] => asm.bytes(&[0x62, p0, p1, p2]),
        _ => asm.bytes(&[0xc4, p0, p1]),
    }
}

/// Emits an integer instruction on memory: `opcode reg, [mem]` with operand width in bytes.
pub fn sized(asm: &mut Asm, width: u32, opcode: u8, reg: u8, mem: Mem) {
    if width == 2 {
        asm.byte(0x66);
    }
    asm.op_mem(width == 8, &[opcode], reg, mem);
}
