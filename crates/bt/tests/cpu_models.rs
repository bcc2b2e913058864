//! Instructions of a hidden feature in translated code.

use std::sync::Arc;

use ringfence_bt::BtVcpu;
use ringfence_bt::interp::system::cpuid::{CpuSpec, CpuidModel, Feature};
use ringfence_engine::{Clock, Exit, Vcpu};
use ringfence_testkit::layout::CODE;
use ringfence_testkit::{Mock, guest};
use ringfence_x86::{cr, exception};

/// Times that the code is run: the first translates it.
const ROUNDS: usize = 3;

/// Runs `code`, then INT3, on a processor of `model`; gives the vector that it ends with and RAX.
fn run(model: &str, code: &[u8]) -> (u8, u64) {
    let spec = CpuSpec::parse(model).expect("a model");
    let memory = guest::memory().expect("memory of the guest");
    let mock = Arc::new(Mock::default());
    let clock = Arc::new(Clock::new());
    let model = CpuidModel::with_spec(&spec, 1, clock.tsc_hz()).expect("a model of this host");
    let features = *model.features();
    let mut vcpu = BtVcpu::with_model(0, Arc::new(model), Arc::clone(&memory), mock.clone(), clock)
        .expect("a processor");
    mock.attach(vcpu.kicker());
    let mut system = guest::system_registers(64);
    let mut program = Vec::new();
    if features.has(Feature::XSAVE) {
        let xcr0 = if features.has(Feature::AVX) { 7 } else { 3 };
        // xor ecx, ecx; xor edx, edx; mov eax, xcr0; xsetbv
        program.extend([
            0x31, 0xc9, 0x31, 0xd2, 0xb8, xcr0, 0, 0, 0, 0x0f, 0x01, 0xd1,
        ]);
    } else {
        system.cr4 &= !cr::CR4_OSXSAVE;
    }
    // mov eax, 99h; mov ecx, 10h
    program.extend([0xb8, 0x99, 0, 0, 0, 0xb9, 0x10, 0, 0, 0]);
    program.extend(code);
    program.push(0xcc);
    memory.write(CODE, &program).expect("code has memory");
    vcpu.set_system_registers(&system);
    let mut last = None;
    for _ in 0..ROUNDS {
        vcpu.set_registers(&guest::start_registers());
        assert_eq!(vcpu.run(0).expect("no defect"), Exit::Interrupted);
        let vector = mock.take().expect("an exception");
        let now = (vector, vcpu.registers().gpr[0]);
        assert!(last.is_none_or(|last| last == now));
        last = Some(now);
    }
    let blocks = vcpu
        .statistics()
        .iter()
        .find(|(name, _)| *name == "blocks")
        .map(|(_, n)| *n);
    assert!(blocks > Some(0), "nothing was translated");
    last.expect("a round")
}

#[test]
fn hidden_instructions_are_undefined() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("popcnt eax, ecx", &[0xf3, 0x0f, 0xb8, 0xc1], "popcnt"),
        ("cmovz eax, ecx", &[0x0f, 0x44, 0xc1], "cmov"),
        ("lahf", &[0x9f], "lahf_lm"),
        ("rdtsc", &[0x0f, 0x31], "tsc"),
        ("rdtscp", &[0x0f, 0x01, 0xf9], "rdtscp"),
        ("paddd xmm0, xmm1", &[0x66, 0x0f, 0xfe, 0xc1], "sse2"),
        (
            "pshufb xmm0, xmm1",
            &[0x66, 0x0f, 0x38, 0x00, 0xc1],
            "ssse3",
        ),
        ("pshufb mm0, mm1", &[0x0f, 0x38, 0x00, 0xc1], "ssse3"),
        ("crc32 eax, ecx", &[0xf2, 0x0f, 0x38, 0xf1, 0xc1], "sse4_2"),
        ("aesenc xmm0, xmm1", &[0x66, 0x0f, 0x38, 0xdc, 0xc1], "aes"),
        ("vpaddd xmm0, xmm0, xmm1", &[0xc5, 0xf9, 0xfe, 0xc1], "avx"),
        (
            "vpaddd xmm0, xmm0, xmm1",
            &[0xc5, 0xf9, 0xfe, 0xc1],
            "xsave",
        ),
        ("vpaddd ymm0, ymm0, ymm1", &[0xc5, 0xfd, 0xfe, 0xc1], "avx2"),
        (
            "vfmadd132ps xmm0, xmm0, xmm1",
            &[0xc4, 0xe2, 0x79, 0x98, 0xc1],
            "fma",
        ),
        (
            "andn eax, ecx, ecx",
            &[0xc4, 0xe2, 0x70, 0xf2, 0xc1],
            "bmi1",
        ),
        (
            "bzhi eax, ecx, ecx",
            &[0xc4, 0xe2, 0x70, 0xf5, 0xc1],
            "bmi2",
        ),
        ("adcx eax, ecx", &[0x66, 0x0f, 0x38, 0xf6, 0xc1], "adx"),
        ("sha1msg1 xmm0, xmm1", &[0x0f, 0x38, 0xc9, 0xc1], "sha_ni"),
        ("rdrand eax", &[0x0f, 0xc7, 0xf0], "rdrand"),
        ("rdfsbase eax", &[0xf3, 0x0f, 0xae, 0xc0], "fsgsbase"),
        ("rdpid rax", &[0xf3, 0x0f, 0xc7, 0xf8], "rdpid"),
    ];
    let offered = CpuidModel::offered();
    for &(text, code, name) in cases {
        let feature = Feature::named(name).expect("a feature");
        if offered.has(feature) {
            assert_eq!(
                run_vector("host", code, text),
                exception::BP,
                "{text} on the host's"
            );
        }
        let vector = run_vector(&format!("host,-{name}"), code, text);
        assert_eq!(vector, exception::UD, "{text} without {name}");
    }
}

/// The vector alone; what is different each time is cleared before it can be compared.
fn run_vector(model: &str, code: &[u8], text: &str) -> u8 {
    let mut code = code.to_vec();
    if matches!(text, "rdtsc" | "rdtscp" | "rdrand eax") {
        // xor eax, eax
        code.extend([0x31, 0xc0]);
    }
    run(model, &code).0
}

#[test]
fn bit_counts_without_their_feature_are_bit_scans() {
    // TZCNT and LZCNT EAX, ECX with ECX = 10h, as registers and 64-bit wide.
    let (tzcnt, lzcnt) = ([0xf3, 0x0f, 0xbc, 0xc1], [0xf3, 0x0f, 0xbd, 0xc1]);
    let wide = [0xf3, 0x48, 0x0f, 0xbd, 0xc1];
    assert_eq!(run("x86-64-v1", &tzcnt), (exception::BP, 4));
    assert_eq!(run("x86-64-v1", &lzcnt), (exception::BP, 4));
    assert_eq!(run("x86-64-v1", &wide), (exception::BP, 4));
    if CpuidModel::offered().has(Feature::LZCNT) {
        assert_eq!(run("host", &lzcnt), (exception::BP, 27));
        assert_eq!(run("host", &wide), (exception::BP, 59));
    }
    // Of zero, BSF leaves its destination alone: xor ecx, ecx before.
    let of_zero = [0x31, 0xc9, 0xf3, 0x0f, 0xbc, 0xc1];
    assert_eq!(run("x86-64-v1", &of_zero), (exception::BP, 0x99));
}

#[test]
fn levels_run_what_they_have() {
    let v2 = [0x66, 0x0f, 0x38, 0x00, 0xc1, 0xf3, 0x0f, 0xb8, 0xc1];
    assert_eq!(run("x86-64-v2", &v2), (exception::BP, 1));
    assert_eq!(run("x86-64-v1", &v2).0, exception::UD);
}
