//! The XSAVE family against the host's processor.

use std::arch::asm;

use proptest::prelude::*;

use super::super::cpuid::{Feature, Offered as _};
use super::*;
use crate::cpu::{RAX, RDX, RSI, XsaveArea};

/// Components that are compared: x87, SSE and AVX.
const ALL: u32 = 7;

macro_rules! host {
    ($name:ident, $save:literal) => {
        /// What the host makes of `from` by XRSTOR and of that state by the save instruction.
        fn $name(from: &XsaveArea, into: &mut XsaveArea, restored: u32, saved: u32) {
            let mut own = XsaveArea([0; 4096]);
            // SAFETY: the host has the instructions and components (checked by the caller); the
            // areas are aligned and large enough; the state of this thread is restored.
            unsafe {
                asm!(
                    "mov eax, {all:e}",
                    "xsave64 [{own}]",
                    "xrstor64 [{own}]",
                    "mov eax, {restored:e}",
                    "xrstor64 [{from}]",
                    "mov eax, {saved:e}",
                    concat!($save, " [{into}]"),
                    "mov eax, {all:e}",
                    "xrstor64 [{own}]",
                    all = in(reg) ALL,
                    restored = in(reg) restored,
                    saved = in(reg) saved,
                    own = in(reg) own.0.as_mut_ptr(),
                    from = in(reg) from.0.as_ptr(),
                    into = in(reg) into.0.as_mut_ptr(),
                    out("eax") _,
                    in("edx") 0,
                );
            }
        }
    };
}

host!(host_xsave, "xsave64");
host!(host_xsaveopt, "xsaveopt64");
host!(host_xsavec, "xsavec64");

/// A valid image in standard or compacted format, with noise in every byte that may have it.
fn image(noise: &[u8], present: u8, compacted: bool) -> XsaveArea {
    let mut area = XsaveArea([0; 4096]);
    area.0[..832].copy_from_slice(&noise[..832]);
    area.0[5] = 0;
    // MXCSR without reserved bits; x87 register slots as processors store them.
    area.0[26..32].fill(0);
    for slot in 0..8 {
        area.0[32 + 16 * slot + 10..32 + 16 * (slot + 1)].fill(0);
    }
    area.0[512..576].fill(0);
    area.0[512] = present;
    if compacted {
        area.0[520] = 7;
        area.0[527] = 0x80;
    }
    area
}

/// The parts that the architecture defines.
fn defined(area: &[u8]) -> Vec<&[u8]> {
    // FOP, FIP and FDP are left out: processors keep them only after an exception.
    let mut parts = vec![&area[..5], &area[24..28], &area[160..416], &area[512..528]];
    parts.extend((0..8).map(|slot| &area[32 + 16 * slot..32 + 16 * slot + 10]));
    parts.push(&area[576..832]);
    parts
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn as_the_host(
        noise in prop::collection::vec(any::<u8>(), 832),
        fill in prop::collection::vec(any::<u8>(), 832),
        present in 0u8..8,
        compacted: bool,
        restored in 0u32..8,
        saved in 0u32..8,
        form in 0usize..3,
    ) {
        let (mut cpu, mut env) = long();
        let avx = env.cpuid(&cpu, 0xd, 0)[0] & 4 != 0;
        let offered = [Feature::XSAVE, Feature::XSAVEOPT, Feature::XSAVEC];
        if !avx || !offered.into_iter().all(|feature| feature.offered(&cpu, &mut env)) {
            return Ok(());
        }
        let from = image(&noise, present, compacted);
        let mut expected = image(&fill, 5, false);
        let host = [host_xsave, host_xsaveopt, host_xsavec][form];
        host(&from, &mut expected, restored, saved);

        // What the host does not restore comes from this thread: take it over.
        let mut own = XsaveArea([0; 4096]);
        host_xsave(&from, &mut own, 0, ALL);
        cpu.cr4 |= cr::CR4_OSXSAVE;
        cpu.xcr0 = 7;
        cpu.xsave = own;
        cpu.gpr[RSI] = DATA;
        env.memory[DATA as usize..][..832].copy_from_slice(&from.0[..832]);
        (cpu.gpr[RAX], cpu.gpr[RDX]) = (u64::from(restored), 0);
        run(&mut cpu, &mut env, &[0x48, 0x0f, 0xae, 0x2e]).unwrap();
        let before = image(&fill, 5, false);
        env.memory[DATA as usize..][..832].copy_from_slice(&before.0[..832]);
        cpu.gpr[RAX] = u64::from(saved);
        let save = [&[0x48, 0x0f, 0xae, 0x26], &[0x48, 0x0f, 0xae, 0x36], &[0x48, 0x0f, 0xc7, 0x26]];
        run(&mut cpu, &mut env, save[form]).unwrap();
        let got = &env.memory[DATA as usize..][..832];
        prop_assert_eq!(defined(got), defined(&expected.0[..832]));
    }
}
