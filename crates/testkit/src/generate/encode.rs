//! Random encodings of an instruction code.

use iced_x86::{
    Code, EncodingKind, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind, OpCodeTableKind,
};

use crate::random::Random;

/// Bytes that encode `code` with random operands, and more bytes behind it. Random prefixes may
/// make another instruction of it.
pub(super) fn encode(random: &mut Random, code: Code, bits: u32) -> Vec<u8> {
    let mut out = prefixes(random, code);
    match code.op_code().encoding() {
        EncodingKind::VEX => vex(random, code, bits, &mut out),
        EncodingKind::EVEX => evex(random, code, bits, &mut out),
        _ => legacy(random, code, bits, &mut out),
    }
    let mut rest = [0; 16];
    random.fill(&mut rest);
    if random.one_in(3) {
        // Small displacements and immediates.
        rest[..2].copy_from_slice(&random.value().to_le_bytes()[..2]);
    }
    out.extend(rest);
    out
}

/// Segment overrides, redundant prefixes, LOCK and REP.
fn prefixes(random: &mut Random, code: Code) -> Vec<u8> {
    let op = code.op_code();
    let mut out = Vec::new();
    if random.one_in(6) {
        out.push(random.pick(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65]));
    }
    if random.one_in(10) {
        out.push(0x67);
    }
    if random.one_in(40) {
        out.push(random.pick(&[0x66, 0xf2, 0xf3, 0xf0, 0x26, 0x3e, 0x48, 0x41]));
    }
    if op.can_use_lock_prefix() && random.one_in(2) {
        out.push(0xf0);
    }
    if (op.can_use_rep_prefix() || op.can_use_repne_prefix()) && random.one_in(2) {
        out.push(random.pick(&[0xf2, 0xf3]));
    }
    out
}

/// ModRM for the code: its group, or anything.
fn modrm(random: &mut Random, code: Code) -> u8 {
    let op = code.op_code();
    let mut byte = random.bits() as u8;
    if random.one_in(3) {
        byte |= 0xc0;
    }
    let memory_only = (0..op.op_count()).any(|i| {
        use OpCodeOperandKind as K;
        matches!(
            op.op_kind(i),
            K::mem
                | K::mem_vsib32x
                | K::mem_vsib64x
                | K::mem_vsib32y
                | K::mem_vsib64y
                | K::mem_vsib32z
                | K::mem_vsib64z
        )
    });
    if memory_only && byte >= 0xc0 {
        byte &= 0xbf;
    }
    if op.group_index() >= 0 {
        byte = byte & 0xc7 | (op.group_index() as u8) << 3;
    }
    if op.rm_group_index() >= 0 {
        byte = byte & 0xf8 | op.rm_group_index() as u8;
    }
    byte
}

fn legacy(random: &mut Random, code: Code, bits: u32, out: &mut Vec<u8>) {
    let op = code.op_code();
    if op.operand_size() == if bits == 16 { 32 } else { 16 } {
        out.push(0x66);
    }
    let native = bits;
    if op.address_size() != 0 && op.address_size() != native {
        out.push(0x67);
    }
    match op.mandatory_prefix() {
        MandatoryPrefix::P66 => out.push(0x66),
        MandatoryPrefix::PF3 => out.push(0xf3),
        MandatoryPrefix::PF2 => out.push(0xf2),
        _ => {}
    }
    if bits == 64 {
        let wide = op.operand_size() == 64 && !op.default_op_size64() || op.w() == 1;
        let mut rex = if wide { 0x48 } else { 0 };
        if random.one_in(2) {
            rex |= 0x40 | random.below(8) as u8;
        }
        if rex != 0 {
            out.push(rex);
        }
    }
    match op.table() {
        OpCodeTableKind::T0F => out.push(0x0f),
        OpCodeTableKind::T0F38 => out.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => out.extend([0x0f, 0x3a]),
        _ => {}
    }
    let in_opcode = (0..op.op_count()).any(|i| {
        use OpCodeOperandKind as K;
        matches!(
            op.op_kind(i),
            K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode
        )
    });
    let low = if in_opcode { random.below(8) as u8 } else { 0 };
    if op.op_code_len() == 2 {
        out.push((op.op_code() >> 8) as u8);
        out.push(op.op_code() as u8 | low);
    } else {
        out.push(op.op_code() as u8 | low);
        out.push(modrm(random, code));
    }
}

/// The opcode map, and the mandatory prefix as VEX and EVEX encode it.
fn map_and_prefix(op: &OpCodeInfo) -> (u8, u8) {
    let map = match op.table() {
        OpCodeTableKind::T0F => 1,
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::MAP5 => 5,
        OpCodeTableKind::MAP6 => 6,
        _ => 3,
    };
    let prefix = match op.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    (map, prefix)
}

/// Whether an operand is encoded in VEX.vvvv or EVEX.vvvv.
fn names_third(op: &OpCodeInfo) -> bool {
    (0..op.op_count()).any(|i| {
        use OpCodeOperandKind as K;
        matches!(
            op.op_kind(i),
            K::r32_vvvv
                | K::r64_vvvv
                | K::xmm_vvvv
                | K::ymm_vvvv
                | K::zmm_vvvv
                | K::xmmp3_vvvv
                | K::zmmp3_vvvv
                | K::k_vvvv
        )
    })
}

/// Whether an operand is an opmask register, of which there are eight.
fn names_opmask(op: &OpCodeInfo) -> bool {
    (0..op.op_count()).any(|i| {
        use OpCodeOperandKind as K;
        matches!(
            op.op_kind(i),
            K::k_reg | K::kp1_reg | K::k_rm | K::k_or_mem | K::k_vvvv
        )
    })
}

fn evex(random: &mut Random, code: Code, bits: u32, out: &mut Vec<u8>) {
    let op = code.op_code();
    let (map, pp) = map_and_prefix(op);
    let wide = bits == 64;
    let modrm = modrm(random, code);
    let memory = modrm < 0xc0;
    let vsib = (0..op.op_count()).any(|i| format!("{:?}", op.op_kind(i)).contains("vsib"));
    // Registers are inverted; in 32-bit code there are 8.
    let inverted = if wide {
        random.bits() as u8 & 0xf0
    } else {
        0xf0
    };
    // EVEX.X does not extend a general register; Zen 4 then reads an RSP that is not current.
    let general = !memory
        && (0..op.op_count()).any(|i| {
            use OpCodeOperandKind as K;
            matches!(
                op.op_kind(i),
                K::r32_or_mem | K::r64_or_mem | K::r32_rm | K::r64_rm
            )
        });
    let inverted = inverted | if general { 0x40 } else { 0 };
    let third = names_third(op);
    let register = random.below(32) as u8 | if wide { 0 } else { 0x18 };
    let vvvv = if third { register & 15 } else { 15 };
    let upper = if third || vsib { register >> 4 } else { 1 };
    let w = if op.is_wig() {
        random.below(2) as u8
    } else {
        op.w() as u8
    };
    let b = if memory {
        op.can_broadcast() && random.one_in(3)
    } else {
        (op.can_use_rounding_control() || op.can_suppress_all_exceptions()) && random.one_in(4)
    };
    let length = if op.is_lig() || b && !memory && op.can_use_rounding_control() {
        random.below(3) as u8
    } else {
        op.l() as u8
    };
    let needed = op.require_op_mask_register() || vsib;
    let mask = if needed || op.can_use_op_mask_register() && random.one_in(2) {
        1 + random.below(7) as u8
    } else {
        0
    };
    let zeroing = op.can_use_zeroing_masking()
        && mask != 0
        && random.one_in(2)
        && !(memory && matches!(op.op_kind(0), OpCodeOperandKind::mem));
    out.extend([
        0x62,
        inverted | map,
        w << 7 | vvvv << 3 | 4 | pp,
        u8::from(zeroing) << 7 | length << 5 | u8::from(b) << 4 | upper << 3 | mask,
        op.op_code() as u8,
        modrm,
    ]);
}

fn vex(random: &mut Random, code: Code, bits: u32, out: &mut Vec<u8>) {
    let op = code.op_code();
    let (map, pp) = map_and_prefix(op);
    let third = names_third(op);
    // In 32-bit code the upper bit of the register must stay set; opmask registers are eight.
    let few = bits != 64 || names_opmask(op);
    let register = random.below(16) as u8 | if few { 8 } else { 0 };
    let vvvv = if third { register << 3 } else { 0x78 };
    let length = if op.is_lig() {
        random.below(2) as u8
    } else {
        op.l() as u8
    };
    let w = if op.is_wig() {
        random.below(2) as u8
    } else {
        op.w() as u8
    };
    let inverted = match (bits, names_opmask(op)) {
        (64, false) => random.bits() as u8 & 0xe0,
        // Base and index are general registers.
        (64, true) => random.bits() as u8 & 0x60 | 0x80,
        _ => 0xe0,
    };
    if map == 1 && w == 0 && (random.one_in(2) || bits != 64) {
        out.extend([
            0xc5,
            inverted & 0x80 | vvvv | length << 2 | pp | if bits == 64 { 0 } else { 0x80 },
        ]);
    } else {
        out.extend([0xc4, inverted | map, w << 7 | vvvv | length << 2 | pp]);
    }
    out.push(op.op_code() as u8);
    out.push(modrm(random, code));
}
