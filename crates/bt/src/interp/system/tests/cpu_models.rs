//! CPU models: their leaves, and the instructions that they take away.

use super::super::cpuid::feature::{Feature, FeatureSet};
use super::super::cpuid::spec::{models, runnable};
use super::super::cpuid::{CpuModelError, CpuSpec};
use iced_x86::CpuidFeature;

use super::*;
use crate::cpu::{RAX, RCX};

/// A host with every bit that CPUID has, and AVX state.
fn rich(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (1, _) => [0x0008_06f8, 0, u32::MAX, u32::MAX],
        (4, _) => [0; 4],
        (0xd, 0) => [7, 832, 832, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 3..) => [0; 4],
        (0x8000_0000, _) => [0x8000_0021, 0, 0, 0],
        (0x8000_0008, _) => [46 | 57 << 8, u32::MAX, 0, 0],
        _ => [u32::MAX; 4],
    }
}

fn on_rich(text: &str) -> Result<CpuidModel, CpuModelError> {
    CpuidModel::with_spec_on(&rich, &CpuSpec::parse(text)?, 2, 2_000_000_000)
}

fn here(text: &str) -> CpuidModel {
    CpuidModel::with_spec(&CpuSpec::parse(text).unwrap(), 2, 2_000_000_000).unwrap()
}

/// Bits of CPUID as `leaf.subleaf:register.bit`, apart from the table under test.
fn bit(model: &CpuidModel, leaf: u32, output: usize, bit: u32) -> bool {
    model.get(&Cpu::new(), 0, leaf, 0)[output] >> bit & 1 != 0
}

const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// The levels of the x86-64 psABI, table 3.1, by the bits of CPUID; OSFXSR and OSXSAVE are the
/// kernel's to set, and SCE is SYSCALL's bit.
const LEVELS: [&[(u32, usize, u32)]; 4] = [
    &[
        (1, EDX, 15),
        (1, EDX, 8),
        (1, EDX, 0),
        (1, EDX, 24),
        (1, EDX, 23),
        (0x8000_0001, EDX, 11),
        (0x8000_0001, EDX, 29),
        (1, EDX, 25),
        (1, EDX, 26),
    ],
    &[
        (1, ECX, 13),
        (0x8000_0001, ECX, 0),
        (1, ECX, 23),
        (1, ECX, 0),
        (1, ECX, 19),
        (1, ECX, 20),
        (1, ECX, 9),
    ],
    &[
        (1, ECX, 28),
        (7, EBX, 5),
        (7, EBX, 3),
        (7, EBX, 8),
        (1, ECX, 29),
        (1, ECX, 12),
        (0x8000_0001, ECX, 5),
        (1, ECX, 22),
        (1, ECX, 26),
    ],
    &[
        (7, EBX, 16),
        (7, EBX, 30),
        (7, EBX, 28),
        (7, EBX, 17),
        (7, EBX, 31),
    ],
];

#[test]
fn levels_have_what_the_psabi_lists_and_nothing_of_the_next() {
    for (index, name) in ["x86-64-v1", "x86-64-v2", "x86-64-v3"]
        .into_iter()
        .enumerate()
    {
        let model = on_rich(name).unwrap();
        for (level, bits) in LEVELS.iter().enumerate() {
            for &(leaf, output, number) in *bits {
                let has = bit(&model, leaf, output, number);
                assert_eq!(has, level <= index, "{name}: {leaf:#x} {output} {number}");
            }
        }
    }
    let error = on_rich("x86-64-v4").unwrap_err().to_string();
    for word in ["x86-64-v4", "avx512f", "-avx512vl", "x86-64-v3"] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn models_are_consistent() {
    let cpu = Cpu::new();
    let mut enabled = Cpu::new();
    for name in models() {
        let Ok(model) = on_rich(name) else { continue };
        let get = |cpu: &Cpu, leaf, subleaf| model.get(cpu, 0, leaf, subleaf);
        let largest = get(&cpu, 0, 0)[0];
        for leaf in largest + 1..0x30 {
            assert_eq!(get(&cpu, leaf, 0), [0; 4], "{name} {leaf:#x}");
        }
        let extended = get(&cpu, 0x8000_0000, 0)[0];
        for leaf in extended.max(0x8000_0000) + 1..0x8000_0030 {
            assert_eq!(get(&cpu, leaf, 0), [0; 4], "{name} {leaf:#x}");
        }
        let xsave = bit(&model, 1, ECX, 26);
        let [xcr0, _, size, _] = get(&cpu, 0xd, 0);
        assert_eq!(xcr0 & 3, if xsave { 3 } else { 0 }, "{name}");
        assert_eq!(xcr0 & 4 != 0, bit(&model, 1, ECX, 28), "{name}: AVX state");
        let expected = match xcr0 {
            0 => 0,
            3 => 576,
            _ => 832,
        };
        assert_eq!(size, expected, "{name}");
        enabled.xcr0 = u64::from(xcr0.max(1));
        assert_eq!(get(&enabled, 0xd, 0)[1], size, "{name}");
        if !xsave {
            assert_eq!(get(&cpu, 0xd, 1), [0; 4], "{name}");
        }
        let amd = get(&cpu, 0, 0)[1] == 0x6874_7541;
        let shared = get(&cpu, 1, 0)[3] & 0x0183_f3ff;
        let repeated = get(&cpu, 0x8000_0001, 0)[3] & 0x0183_f3ff;
        assert_eq!(
            repeated & !(1 << 11),
            if amd { shared & !(1 << 11) } else { 0 },
            "{name}"
        );
    }
}

#[test]
fn identities() {
    let cpu = Cpu::new();
    let brand = |model: &CpuidModel| {
        let bytes: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| model.get(&cpu, 0, leaf, 0))
            .flat_map(u32::to_le_bytes)
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8(bytes).unwrap()
    };
    let epyc = on_rich("epyc").unwrap();
    assert_eq!(epyc.get(&cpu, 0, 1, 0)[0], 0x0080_0f12);
    assert_eq!(epyc.get(&cpu, 0, 0x8000_0001, 0)[0], 0x0080_0f12);
    assert_eq!(brand(&epyc), "AMD EPYC");
    assert_eq!(epyc.get(&cpu, 0, 0x8000_0008, 0)[0] & 0xff, 40);
    let skylake = on_rich("Skylake-Client").unwrap();
    assert_eq!(skylake.get(&cpu, 0, 1, 0)[0], 0x0005_06e3);
    assert_eq!(skylake.get(&cpu, 0, 4, 3)[0] & 0xff, 0x63);
    assert_eq!(skylake.get(&cpu, 0, 4, 4), [0; 4]);
    assert_eq!(brand(&on_rich("x86-64-v2").unwrap()), "x86-64-v2 processor");
    assert_eq!(
        on_rich("x86-64-v2").unwrap().get(&cpu, 0, 1, 0)[0],
        0x0008_06f8
    );
    let pentium = on_rich("pentium").unwrap();
    assert_eq!(pentium.get(&cpu, 0, 0, 0)[0], 1);
    assert_eq!(pentium.get(&cpu, 0, 1, 0)[0], 0x52c);
    assert_eq!(pentium.get(&cpu, 0, 1, 0)[1] & 0xff00, 0, "no CLFLUSH");
    assert_eq!(pentium.get(&cpu, 0, 0x8000_0000, 0), [0; 4]);
}

#[test]
fn features_bring_what_they_need_and_take_what_needs_them() {
    let v1 = on_rich("x86-64-v1,+avx2").unwrap();
    for feature in [
        Feature::AVX2,
        Feature::AVX,
        Feature::XSAVE,
        Feature::SSE4_2,
        Feature::SSE3,
    ] {
        assert!(v1.features().has(feature), "{}", feature.name());
    }
    assert!(!v1.features().has(Feature::FMA));
    let plain = on_rich("host,-XSave").unwrap();
    for feature in [
        Feature::AVX,
        Feature::VAES,
        Feature::F16C,
        Feature::XGETBV1,
        Feature::AVX2,
    ] {
        assert!(!plain.features().has(feature), "{}", feature.name());
    }
    assert!(plain.features().has(Feature::BMI2) && plain.features().has(Feature::AES));
    let plain = on_rich("host,-sse4.1").unwrap();
    assert!(!plain.features().has(Feature::AVX) && plain.features().has(Feature::SSSE3));
}

#[test]
fn all_features_have_one_bit_and_names_of_their_own() {
    let all: Vec<_> = Feature::all().collect();
    for (index, &feature) in all.iter().enumerate() {
        assert_eq!(
            Feature::named(feature.name()),
            Some(feature),
            "{}",
            feature.name()
        );
        assert!(!all[..index].contains(&feature), "{}", feature.name());
    }
    assert_eq!(Feature::named("LZCNT"), Some(Feature::LZCNT));
    assert_eq!(Feature::named("tsc-deadline"), Some(Feature::TSC_DEADLINE));
    assert_eq!(Feature::named(""), None);
}

#[test]
fn what_can_not_be_had_is_named() {
    let said = |text: &str| on_rich(text).unwrap_err().to_string();
    assert!(said("i286").contains("\"i286\"") && said("i286").contains("x86-64-v2"));
    assert!(said("").contains("no CPU model"));
    assert!(said("host,+flux").contains("\"flux\"") && said("host,+flux").contains("avx2"));
    assert!(said("host,avx").contains("\"avx\""));
    assert!(said("host,").contains("neither"));
    let la57 = said("host,+la57");
    assert!(
        la57.contains("on this host: la57; it can fpu, vme"),
        "{la57}"
    );
    assert!(said("host,+avx2,-avx").contains("+avx2"));
    assert!(said("host,-fpu").contains("fpu"));
    assert!(said("EPYC-Genoa").contains("avx512f"));
    assert!(on_rich("host,-la57,-vmx").is_ok());
    let poor = |leaf, subleaf| {
        let mut values = rich(leaf, subleaf);
        if leaf == 7 {
            values[EBX] &= !(1 << 5);
        }
        values
    };
    let spec = CpuSpec::parse("x86-64-v3").unwrap();
    let error = CpuidModel::with_spec_on(&poor, &spec, 1, 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("host: avx2;"), "{error}");
    let spec = CpuSpec::parse("x86-64-v3,-avx2").unwrap();
    assert!(CpuidModel::with_spec_on(&poor, &spec, 1, 1).is_ok());
    for model in [
        "x86-64-v4",
        "Skylake-Server",
        "Icelake-Server",
        "EPYC-Genoa",
    ] {
        assert!(on_rich(model).is_err(), "{model}");
        assert!(on_rich(&format!("{model},-avx512f")).is_ok(), "{model}");
    }
    assert_eq!(runnable(&FeatureSet::EMPTY), ["host", "max"]);
}

#[test]
fn avx512_comes_with_its_state() {
    let wide = |leaf, subleaf| match (leaf, subleaf) {
        (0xd, 0) => [0xe7, 832, 2432, 0],
        (0xd, 5) => [64, 832, 0, 0],
        (0xd, 6) => [512, 896, 0, 0],
        (0xd, 7) => [1024, 1408, 0, 0],
        _ => rich(leaf, subleaf),
    };
    let on = |text: &str| CpuidModel::with_spec_on(&wide, &CpuSpec::parse(text).unwrap(), 1, 1);
    let cpu = Cpu::new();
    for model in [
        "x86-64-v4",
        "Skylake-Server",
        "Icelake-Server",
        "EPYC-Genoa",
        "host",
    ] {
        let model = on(model).unwrap();
        assert!(bit(&model, 7, EBX, 16));
        assert_eq!(model.get(&cpu, 0, 0xd, 0)[0], 0xe7);
        assert_eq!(model.get(&cpu, 0, 0xd, 7)[0], 1024);
        assert!(model.allows(CpuidFeature::AVX512F));
    }
    let hidden = on("host,-avx512f").unwrap();
    assert!(!bit(&hidden, 7, EBX, 31) && !hidden.allows(CpuidFeature::AVX512VL));
    assert_eq!(hidden.get(&cpu, 0, 0xd, 0)[0], 7);
    assert_eq!(hidden.get(&cpu, 0, 0xd, 6), [0; 4]);
}

#[test]
fn a_hidden_hypervisor_leaves_no_trace() {
    let cpu = Cpu::new();
    let model = on_rich("host,-hypervisor").unwrap();
    assert!(!bit(&model, 1, ECX, 31));
    for leaf in [0x4000_0000, 0x4000_0001, 0x4000_0010] {
        assert_eq!(model.get(&cpu, 0, leaf, 0), [0; 4]);
    }
    assert!(bit(&on_rich("host").unwrap(), 1, ECX, 31));
}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_processor_has_what_its_features_need(
        base in 0..models().len(),
        changes in proptest::collection::vec(
            (proptest::bool::ANY, 0..Feature::all().count()), 0..8,
        ),
    ) {
        let mut text = models()[base].to_owned();
        for &(add, index) in &changes {
            text.push_str(if add { ",+" } else { ",-" });
            text.push_str(Feature::all().nth(index).unwrap().name());
        }
        let Ok(model) = on_rich(&text) else { return Ok(()) };
        let features = model.features();
        let cpu = Cpu::new();
        for feature in Feature::all().filter(|&feature| features.has(feature)) {
            let (leaf, subleaf, output) = feature.word.place();
            let shown = model.get(&cpu, 0, leaf, subleaf)[output] >> feature.bit & 1 != 0;
            assert!(shown, "{text}: {} is in no leaf", feature.name());
            for &needed in feature.needs() {
                assert!(features.has(needed), "{text}: {} of {}", needed.name(), feature.name());
            }
        }
        for (add, index) in changes {
            assert_eq!(features.has(Feature::all().nth(index).unwrap()), add, "{text}");
        }
        let xcr0 = model.get(&Cpu::new(), 0, 0xd, 0)[0];
        assert_eq!(xcr0 & 4 != 0, features.has(Feature::AVX), "{text}");
    }

    #[test]
    fn any_text_is_a_processor_or_an_error(text in "[a-z0-9,+-]{0,12}|host(,[+-][a-z0-9_]{0,6}){0,3}|\\PC{0,9}") {
        if let Err(error) = CpuSpec::parse(&text) {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn step(model: &str, bytes: &[u8]) -> Result<Box<Cpu>, Trap> {
    let (mut cpu, mut env) = long();
    env.model = here(model);
    cpu.cr4 |= cr::CR4_OSFXSR;
    if env.model.features().has(Feature::XSAVE) {
        cpu.cr4 |= cr::CR4_OSXSAVE;
        cpu.xcr0 = u64::from(env.model.get(&cpu, 0, 0xd, 0)[0]);
    }
    cpu.gpr[RCX] = 0x10;
    cpu.gpr[RAX] = 0x99;
    let mut decoder = Decoder::with_ip(64, bytes, cpu.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    assert_eq!(instruction.len(), bytes.len());
    crate::interp::execute(&mut cpu, &mut env, &instruction).map(|()| cpu)
}

#[test]
fn hidden_instructions_are_undefined() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("popcnt eax, ecx", &[0xf3, 0x0f, 0xb8, 0xc1], "popcnt"),
        ("paddd xmm0, xmm1", &[0x66, 0x0f, 0xfe, 0xc1], "sse2"),
        (
            "pshufb xmm0, xmm1",
            &[0x66, 0x0f, 0x38, 0x00, 0xc1],
            "ssse3",
        ),
        ("cmovz eax, ecx", &[0x0f, 0x44, 0xc1], "cmov"),
        ("rdtscp", &[0x0f, 0x01, 0xf9], "rdtscp"),
        ("rdtsc", &[0x0f, 0x31], "tsc"),
        ("xgetbv", &[0x0f, 0x01, 0xd0], "xsave"),
        ("lahf", &[0x9f], "lahf_lm"),
        ("rdpid rax", &[0xf3, 0x0f, 0xc7, 0xf8], "rdpid"),
    ];
    for &(text, bytes, feature) in cases {
        let shown = step("host", bytes);
        if text == "xgetbv" {
            // ECX is 10h: no such register, but an instruction.
            assert_eq!(shown.map(|_| ()), Err(Trap::GP0));
        } else {
            assert!(shown.is_ok(), "{text}: {shown:?}");
        }
        let hidden = step(&format!("host,-{feature}"), bytes);
        assert_eq!(hidden.map(|_| ()), Err(Trap::UD), "{text}");
    }
}

#[test]
fn shadow_stack_pointers_read_as_nothing_without_shadow_stacks() {
    // RDSSPQ RCX leaves its register alone.
    let before = step("host", &[0x90]).unwrap().gpr;
    let after = step("host", &[0xf3, 0x48, 0x0f, 0x1e, 0xc9]).unwrap().gpr;
    assert_eq!(after, before);
}

#[test]
fn bit_counts_without_their_feature_are_bit_scans() {
    // TZCNT and LZCNT of ECX = 10h.
    let (tzcnt, lzcnt) = ([0xf3, 0x0f, 0xbc, 0xc1], [0xf3, 0x0f, 0xbd, 0xc1]);
    for model in ["host,-abm,-bmi1", "x86-64-v1"] {
        assert_eq!(step(model, &tzcnt).unwrap().gpr[RAX], 4);
        assert_eq!(
            step(model, &lzcnt).unwrap().gpr[RAX],
            4,
            "BSR, not LZCNT's 27"
        );
    }
    if here("host").features().has(Feature::LZCNT) {
        assert_eq!(step("host", &lzcnt).unwrap().gpr[RAX], 27);
    }
}

#[test]
fn model_specific_registers_follow_the_model() {
    use ringfence_x86::msr;
    let read: &[u8] = &[0x0f, 0x32];
    for (feature, index) in [
        ("tsc_adjust", msr::IA32_TSC_ADJUST),
        ("mtrr", msr::IA32_MTRRCAP),
        ("mtrr", msr::IA32_MTRR_FIX64K_00000),
        ("pat", msr::IA32_PAT),
        ("sep", msr::IA32_SYSENTER_CS),
        ("lm", msr::IA32_LSTAR),
        ("rdtscp,-rdpid", msr::IA32_TSC_AUX),
    ] {
        for (model, refused) in [
            ("host".to_owned(), false),
            (format!("host,-{feature}"), true),
        ] {
            let (mut cpu, mut env) = long();
            env.model = here(&model);
            cpu.gpr[RCX] = u64::from(index);
            let result = run(&mut cpu, &mut env, read);
            assert_eq!(result.is_err(), refused, "{model} {index:#x}");
        }
    }
    // With RDPID alone, IA32_TSC_AUX is still there.
    let (mut cpu, mut env) = long();
    env.model = here("host,-rdtscp");
    cpu.gpr[RCX] = u64::from(msr::IA32_TSC_AUX);
    assert_eq!(run(&mut cpu, &mut env, read), Ok(()));
}

#[test]
fn control_registers_follow_the_model() {
    for (feature, bit) in [
        ("pse", cr::CR4_PSE),
        ("pge", cr::CR4_PGE),
        ("xsave", cr::CR4_OSXSAVE),
        ("smep", cr::CR4_SMEP),
        ("umip", cr::CR4_UMIP),
    ] {
        for (model, refused) in [
            ("host".to_owned(), false),
            (format!("host,-{feature}"), true),
        ] {
            let (mut cpu, mut env) = long();
            env.model = here(&model);
            let value = cpu.cr4 & !cr::CR4_PSE & !cr::CR4_PGE | bit;
            // What the model lacks is not there before, either.
            let result = super::super::set_cr4(&mut cpu, &mut env, value & !cr::CR4_OSXMMEXCPT);
            assert_eq!(result.is_err(), refused, "{model}");
        }
    }
    for (feature, bit) in [("nx", cr::EFER_NXE), ("syscall", cr::EFER_SCE)] {
        let (mut cpu, mut env) = protected();
        super::super::set_efer(&mut cpu, &mut env, bit).unwrap();
        env.model = here(&format!("host,-{feature}"));
        assert!(
            super::super::set_efer(&mut cpu, &mut env, bit).is_err(),
            "{feature}"
        );
    }
}

#[test]
fn shadow_stack_reads_are_hints_without_shadow_stacks() {
    for model in ["host", "x86-64-v2"] {
        for code in [Code::Rdsspd_r32, Code::Rdsspq_r64] {
            assert_eq!(here(model).availability(code), Availability::Present);
        }
    }
}
