//! Random bytes in every mode: no panic, no hang, RIP unchanged by a fault.

use proptest::prelude::*;
use ringfence_x86::flags;

use super::*;
use crate::interp::fetch;
use crate::interp::native::install_signal_handlers;

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_mode(
        bytes in prop::array::uniform15(any::<u8>()),
        lead in prop::sample::select(vec![
            vec![], vec![0x0f], vec![0x66, 0x0f], vec![0xf3, 0x0f], vec![0x0f, 0x38],
            vec![0x66, 0x0f, 0x3a], vec![0xc5], vec![0xc4, 0xe2], vec![0xc4, 0xe3], vec![0xd9],
            vec![0xdd], vec![0xf3], vec![0xf2, 0x48], vec![0x67],
        ]),
        bits in prop::sample::select(vec![16u32, 32, 64]),
        user in any::<bool>(),
        gpr in prop::array::uniform16(prop_oneof![0u64..0x4_0000, any::<u64>()]),
        limit in prop_oneof![Just(u32::MAX), any::<u32>()],
        arithmetic in any::<u64>(),
        vectors in prop::collection::vec(any::<u8>(), 512),
        mxcsr in 0u32..0x1_0000,
    ) {
        install_signal_handlers();
        let (mut cpu, mut env) = (processor(bits), Flat::new());
        let mut code = lead;
        code.extend(bytes);
        code.truncate(15);
        cpu.gpr = gpr;
        cpu.seg[crate::cpu::DS].limit = limit;
        cpu.cpl = if user { 3 } else { 0 };
        cpu.rflags |= arithmetic & (flags::ARITHMETIC | flags::DF | flags::AC);
        cpu.xsave.0[32..544].copy_from_slice(&vectors);
        cpu.xsave.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        // Repetitions are bounded, so that a case takes little time.
        cpu.gpr[1] &= 0xff;
        env.put(CODE, &code);
        let before = cpu.clone();
        if let Ok(instruction) = fetch(&mut cpu, &mut env) {
            let result = execute(&mut cpu, &mut env, &instruction);
            if result.is_err() {
                prop_assert_eq!(cpu.rip, CODE);
                if !instruction.is_string_instruction() {
                    prop_assert_eq!(cpu.gpr, before.gpr);
                    prop_assert_eq!(cpu.rflags, before.rflags);
                }
            }
        }
    }
}
