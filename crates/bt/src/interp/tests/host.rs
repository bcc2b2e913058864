//! Integer instructions against the host's processor, through the native runner: random
//! encodings with register operands, or with memory at RDI.

use iced_x86::{Instruction, Mnemonic, OpKind, Register, RflagsBits};
use proptest::prelude::*;
use ringfence_x86::flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};

use super::*;
use crate::cpu::{RDI, RSP};
use crate::interp::native::{self, install_signal_handlers};
use crate::interp::register;

/// Instructions that depend on nothing but general registers, flags and their operand.
fn eligible(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let known = matches!(
        instruction.mnemonic(),
        Mov | Movzx
            | Movsx
            | Movsxd
            | Movbe
            | Add
            | Adc
            | Sub
            | Sbb
            | And
            | Or
            | Xor
            | Cmp
            | Test
            | Inc
            | Dec
            | Neg
            | Not
            | Shl
            | Sal
            | Shr
            | Sar
            | Rol
            | Ror
            | Rcl
            | Rcr
            | Shld
            | Shrd
            | Shlx
            | Shrx
            | Sarx
            | Rorx
            | Mul
            | Imul
            | Mulx
            | Div
            | Idiv
            | Bt
            | Bts
            | Btr
            | Btc
            | Bsf
            | Bsr
            | Tzcnt
            | Lzcnt
            | Popcnt
            | Andn
            | Blsi
            | Blsmsk
            | Blsr
            | Bzhi
            | Bextr
            | Pdep
            | Pext
            | Adcx
            | Adox
            | Crc32
            | Bswap
            | Xchg
            | Xadd
            | Cmpxchg
            | Cbw
            | Cwde
            | Cdqe
            | Cwd
            | Cdq
            | Cqo
            | Lahf
            | Sahf
            | Clc
            | Stc
            | Cmc
            | Cmovo
            | Cmovno
            | Cmovb
            | Cmovae
            | Cmove
            | Cmovne
            | Cmovbe
            | Cmova
            | Cmovs
            | Cmovns
            | Cmovp
            | Cmovnp
            | Cmovl
            | Cmovge
            | Cmovle
            | Cmovg
            | Seto
            | Setno
            | Setb
            | Setae
            | Sete
            | Setne
            | Setbe
            | Seta
            | Sets
            | Setns
            | Setp
            | Setnp
            | Setl
            | Setge
            | Setle
            | Setg
    );
    let plain = |i: u32| {
        instruction.op_kind(i) != OpKind::Register
            || register::gpr(instruction.op_register(i)).is_some()
    };
    let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    let at_rdi = instruction.memory_base() == Register::RDI
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 0
        && instruction.segment_prefix() == Register::None;
    // The bit string of BT reaches beyond the operand; RDI must stay the address.
    let string = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts)
        || matches!(instruction.mnemonic(), Mnemonic::Btr | Mnemonic::Btc);
    let far = string && instruction.op1_kind() == OpKind::Register;
    known && (0..instruction.op_count()).all(plain) && (!memory || at_rdi && !far)
}

/// The flags that the architecture defines after `instruction`.
fn defined_flags(instruction: &Instruction) -> u64 {
    let undefined = instruction.rflags_undefined();
    let pairs = [
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::AF, AF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::SF, SF),
        (RflagsBits::OF, OF),
    ];
    let mut defined = ARITHMETIC;
    for (theirs, ours) in pairs {
        if undefined & theirs != 0 {
            defined &= !ours;
        }
    }
    use Mnemonic::*;
    match instruction.mnemonic() {
        // Depends on the count; the tables of the arithmetic tests know it.
        Shl | Sal | Shr | Sar | Shld | Shrd => defined & !(OF | AF | CF),
        Rol | Ror | Rcl | Rcr => defined & !OF,
        _ => defined,
    }
}

/// A double shift of 16 bits by more than 16 is undefined.
fn overlong(instruction: &Instruction, rcx: u64) -> bool {
    let double = matches!(instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd);
    let count = match instruction.op2_kind() {
        OpKind::Immediate8 => u64::from(instruction.immediate8()),
        _ => rcx,
    };
    double && instruction.op1_register().is_gpr16() && count & 0x1f > 16
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 63,
            u64::MAX,
            u64::MAX - 1,
            33,
            64,
        ]),
        0u64..70,
    ]
}

fn encoding() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        vec![],
        vec![],
        vec![0x66],
        vec![0xf3],
        vec![0xf2],
        vec![0x48],
        vec![0x4c],
        vec![0x41],
        vec![0x66, 0x49],
        vec![0xf3, 0x48],
        vec![0xf2, 0x48],
        vec![0x45],
        vec![0x40],
        vec![0x66, 0xf2],
        vec![0x66, 0x48],
    ]);
    let vex = (any::<bool>(), any::<bool>(), 0u8..16, 0u8..4, any::<u8>()).prop_map(
        |(map3, wide, vvvv, prefix, opcode)| {
            let map = if map3 { 0xe3 } else { 0xe2 };
            // Group 0F38 F0 to F7 holds BMI; RORX is 0F3A F0.
            let opcode = if map3 { 0xf0 } else { 0xf0 | opcode & 7 };
            let third = u8::from(wide) << 7 | (!vvvv & 15) << 3 | prefix;
            vec![0xc4, map, third, opcode]
        },
    );
    let map = prop::sample::select(vec![
        vec![],
        vec![],
        vec![0x0f],
        vec![0x0f],
        vec![0x0f, 0x38],
    ]);
    let legacy = (prefix, map, any::<u8>()).prop_map(|(mut code, map, opcode)| {
        code.extend(&map);
        code.push(if map.len() == 2 {
            0xf0 | opcode & 7
        } else {
            opcode
        });
        code
    });
    let modrm = prop_oneof![
        (0u8..64).prop_map(|b| b | 0xc0),
        (0u8..8).prop_map(|r| r << 3 | 7)
    ];
    (
        prop_oneof![4 => legacy, 1 => vex],
        modrm,
        prop::collection::vec(any::<u8>(), 9),
    )
        .prop_map(|(mut code, modrm, immediate)| {
            code.push(modrm);
            code.extend(immediate);
            code.truncate(15);
            code
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn same_as_the_host(
        code in encoding(),
        gpr in prop::array::uniform16(value()),
        memory in value(),
        arithmetic in any::<u64>(),
    ) {
        install_signal_handlers();
        let (mut cpu, mut env) = (processor(64), Flat::new());
        let mut decoder = Decoder::with_ip(64, &code, CODE, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() || !eligible(&instruction) {
            return Ok(());
        }
        let memory_form =
            (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
        cpu.gpr = gpr;
        if memory_form {
            cpu.gpr[RDI] = DATA;
            env.put(DATA, &memory.to_le_bytes());
        }
        set_flags(&mut cpu, arithmetic & ARITHMETIC);
        let mut host = cpu.clone();
        let Ok((faulted, host_memory)) = native::run_for_test(&mut host, &instruction, memory)
        else {
            // AH to BH beside a register that needs REX can't be run with a buffer.
            return Ok(());
        };
        let text = format!("{:x?} {instruction:?}", &code[..instruction.len()]);
        let result = execute(&mut cpu, &mut env, &instruction);
        prop_assert_eq!(result.is_err(), faulted, "{}", text);
        if faulted {
            prop_assert_eq!(result, Err(Trap::DE), "{}", text);
            return Ok(());
        }
        if overlong(&instruction, gpr[1]) {
            return Ok(());
        }
        prop_assert_eq!(cpu.gpr, host.gpr, "{} {:x?} {:x?}", text, cpu.gpr[RSP], gpr);
        let defined = defined_flags(&instruction);
        prop_assert_eq!(cpu.rflags & defined, host.rflags & defined, "{}", text);
        if memory_form {
            prop_assert_eq!(env.get(DATA, 8), host_memory, "{}", text);
        }
    }
}
