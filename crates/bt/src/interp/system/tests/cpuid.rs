use iced_x86::CpuidFeature;

use super::*;
use crate::cpu::RAX;

#[test]
fn the_guest_sees_no_more_than_the_engine_runs() {
    let model = CpuidModel::new(4, 2_345_600_000);
    let cpu = Cpu::new();
    let [_, _, ecx, edx] = model.get(&cpu, 0, 1, 0);
    // MONITOR, VMX out; PCID, hypervisor, x2APIC, TSC-deadline in; OSXSAVE follows CR4.
    assert_eq!(ecx & (1 << 3 | 1 << 5 | 1 << 27), 0);
    assert_eq!(ecx >> 31 & ecx >> 17 & ecx >> 21 & ecx >> 24 & 1, 1);
    assert_eq!(edx >> 9 & edx >> 28 & 1, 1);
    let [_, ebx, ecx, _] = model.get(&cpu, 0, 7, 0);
    // HLE, RTM, PKU, LA57 out; INVPCID, SMAP in.
    assert_eq!(ebx & (1 << 4 | 1 << 11), 0);
    assert_eq!(ebx >> 10 & ebx >> 20 & 1, 1);
    assert_eq!(ecx & (1 << 3 | 1 << 16), 0);
    assert_eq!(model.get(&cpu, 0, 0xa, 0), [0; 4]);
    for feature in [CpuidFeature::RTM, CpuidFeature::VMX, CpuidFeature::PKU] {
        assert!(!model.allows(feature), "{feature:?}");
    }
    for feature in [CpuidFeature::SSE2, CpuidFeature::X64, CpuidFeature::SYSCALL] {
        assert!(model.allows(feature), "{feature:?}");
    }
    for (feature, host) in [
        (CpuidFeature::AVX2, std::is_x86_feature_detected!("avx2")),
        (
            CpuidFeature::AVX512F,
            std::is_x86_feature_detected!("avx512f"),
        ),
        (CpuidFeature::BMI2, std::is_x86_feature_detected!("bmi2")),
        (CpuidFeature::SHA, std::is_x86_feature_detected!("sha")),
        (
            CpuidFeature::SSE4_2,
            std::is_x86_feature_detected!("sse4.2"),
        ),
    ] {
        assert_eq!(model.allows(feature), host, "{feature:?}");
    }
}

#[test]
fn topology() {
    let cpu = Cpu::new();
    for (vcpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3)] {
        let model = CpuidModel::new(vcpus, 1_000_000_000);
        let id = vcpus - 1;
        assert_eq!(model.get(&cpu, id, 1, 0)[1] >> 24, id);
        assert_eq!(model.get(&cpu, id, 1, 0)[1] >> 16 & 0xff, vcpus);
        assert_eq!(model.get(&cpu, id, 0xb, 0), [0, 1, 0x100, id]);
        assert_eq!(model.get(&cpu, id, 0xb, 1), [shift, vcpus, 0x201, id]);
        assert_eq!(model.get(&cpu, id, 0xb, 2), [0, 0, 2, id]);
        if model.get(&cpu, 0, 0, 0)[1] == 0x6874_7541 {
            assert_eq!(model.get(&cpu, id, 0x8000_0008, 0)[2], shift << 12 | id);
            assert_eq!(model.get(&cpu, id, 0x8000_001e, 0), [id, id, 0, 0]);
        }
    }
}

#[test]
fn sizes_of_extended_state() {
    let model = CpuidModel::new(1, 1_000_000_000);
    let mut cpu = Cpu::new();
    let [low, current, largest, high] = model.get(&cpu, 0, 0xd, 0);
    assert_eq!((low & !0xe7, high, current), (0, 0, 576));
    if low & 4 != 0 {
        assert!(largest == 832 || low == 0xe7 && largest > 2000, "{largest}");
        assert_eq!(model.get(&cpu, 0, 0xd, 2), [256, 576, 0, 0]);
        cpu.xcr0 = 7;
        assert_eq!(model.get(&cpu, 0, 0xd, 0)[1], 832);
    }
    assert_eq!(
        model.get(&cpu, 0, 0xd, 5)[0],
        if low & 0x20 != 0 { 64 } else { 0 }
    );
    assert_eq!(model.get(&cpu, 0, 0xd, u32::MAX), [0; 4]);
}

#[test]
fn frequency_and_signature() {
    let model = CpuidModel::new(1, 2_345_600_000);
    let cpu = Cpu::new();
    let [denominator, numerator, crystal, _] = model.get(&cpu, 0, 0x15, 0).map(u64::from);
    assert_eq!(crystal * numerator / denominator, 2_345_600_000);
    // Linux multiplies the crystal's kilohertz by the numerator in 32 bits.
    assert!(crystal / 1000 * numerator < 1 << 32);
    assert_eq!(model.get(&cpu, 0, 0x4000_0010, 0)[0], 2_345_600);
    let [highest, ebx, ecx, edx] = model.get(&cpu, 0, 0x4000_0000, 0);
    assert_eq!(highest, 0x4000_0010);
    assert_eq!(
        [ebx, ecx, edx].map(u32::to_le_bytes).as_flattened(),
        b"Ringfence\0\0\0"
    );
}

#[test]
fn the_instruction_clears_upper_halves() {
    let (mut cpu, mut env) = long();
    cpu.gpr = [u64::MAX; 16];
    cpu.gpr[RAX] = 0xffff_ffff_0000_0000;
    run(&mut cpu, &mut env, &[0x0f, 0xa2]).unwrap();
    assert_eq!(cpu.gpr[RAX], 0x16);
    assert!(cpu.gpr[1..4].iter().all(|value| value >> 32 == 0));
}
