//! What CPUID tells a guest: the machine's model, of what KVM supports.

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::Cap;
use ringfence_engine::EngineError;
use ringfence_x86::cpuid::{
    CpuModelError, CpuSpec, Dynamic, Feature, FeatureSet, Model, Offer, Word,
};
use ringfence_x86::cr;

use crate::host::Host;
use crate::machine::Chips;

/// Frequency of the timer input of the kernel's local APICs, in hertz.
const KERNEL_APIC_HZ: u64 = 1_000_000_000;
/// Frequency of that of `ringfence-chips`.
const OWN_APIC_HZ: u64 = 25_000_000;
/// Bytes of an XSAVE image of KVM_GET_XSAVE.
const XSAVE_SIZE: u32 = 4096;
/// Components of XCR0 that fit into it: x87, SSE, AVX, AVX-512.
const XCR0: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX | 7 << 5;

/// Where KVM tells what it offers its guests, and where our models do, behind their own leaves.
const KVM_FEATURES: u32 = 0x4000_0001;
const OUR_KVM_FEATURES: u32 = 0x4000_0101;

/// Brand string and its like, which KVM leaves to its user.
fn processor(leaf: u32) -> [u32; 4] {
    // SAFETY: every x86-64 processor has CPUID, and it has no effect.
    #[allow(unused_unsafe)]
    let result = unsafe { __cpuid_count(leaf, 0) };
    [result.eax, result.ebx, result.ecx, result.edx]
}

fn offer(host: &Host, chips: Chips) -> Offer {
    let mut named = FeatureSet::EMPTY;
    for feature in Feature::all() {
        named.add_with_needs(feature);
    }
    // Words whose other bits a kernel wants to know too: mitigations, speculation control.
    for word in [Word::Leaf7Edx, Word::Ext8Ebx] {
        named.set_word(word, u32::MAX);
    }
    // Nested virtualization is not offered, and protection keys lie beyond the image.
    for feature in [Feature::VMX, Feature::SVM, Feature::PKU, Feature::MONITOR] {
        named.remove(feature);
    }
    let mut own = FeatureSet::EMPTY;
    if chips != Chips::Kernel {
        // They need MSRs that only the kernel's local APIC answers.
        named.remove(Feature::X2APIC);
        named.remove(Feature::TSC_DEADLINE);
        for feature in [
            Feature::KVM_PV_EOI,
            Feature::KVM_PV_UNHALT,
            Feature::KVM_PV_SCHED_YIELD,
        ] {
            named.remove(feature);
        }
    } else if host.kvm.check_extension(Cap::TscDeadlineTimer) {
        own = own.with(&[Feature::TSC_DEADLINE]);
    }
    Offer {
        own,
        from_host: named,
        xcr0: XCR0,
        xsave_size: XSAVE_SIZE,
        crystal_hz: match chips {
            Chips::Kernel => KERNEL_APIC_HZ,
            Chips::Own | Chips::None => OWN_APIC_HZ,
        },
    }
}

/// The processor that `spec` describes, of what this host's KVM supports.
///
/// # Errors
/// [`CpuModelError`] for features that can't be had.
pub fn model(
    host: &Host,
    spec: &CpuSpec,
    chips: Chips,
    vcpus: u32,
    tsc_hz: u64,
) -> Result<Model, CpuModelError> {
    let offer = offer(host, chips);
    let source = |leaf, subleaf| match leaf {
        0x8000_0002..=0x8000_0004 => processor(leaf),
        OUR_KVM_FEATURES => host.supported(KVM_FEATURES, 0),
        _ => host.supported(leaf, subleaf),
    };
    Model::with_spec(&source, &offer, spec, vcpus, tsc_hz)
}

/// The features that can be had on this host.
pub fn features(host: &Host, chips: Chips) -> FeatureSet {
    let source = |leaf, subleaf| match leaf {
        OUR_KVM_FEATURES => host.supported(KVM_FEATURES, 0),
        _ => host.supported(leaf, subleaf),
    };
    *Model::new(&source, &offer(host, chips), 1, 1).features()
}

/// How many subleaves of a leaf there are, for those that have some.
const fn subleaves(leaf: u32) -> Option<u32> {
    match leaf {
        4 | 0x8000_001d => Some(5),
        7 => Some(2),
        0xb => Some(3),
        0xd => Some(8),
        _ => None,
    }
}

/// The leaves of processor `vcpu` as KVM_SET_CPUID2 takes them.
pub(crate) fn entries(model: &Model, vcpu: u32) -> Result<CpuId, EngineError> {
    let mut entries = Vec::with_capacity(80);
    for base in [0, 0x4000_0000, 0x4000_0100, 0x8000_0000] {
        let [largest, ..] = model.get(Dynamic::default(), vcpu, base, 0);
        if largest < base {
            continue;
        }
        for leaf in base..=largest.min(base + 0x40) {
            for subleaf in 0..subleaves(leaf).unwrap_or(1) {
                let [eax, ebx, ecx, edx] = model.get(Dynamic::default(), vcpu, leaf, subleaf);
                let flags = match subleaves(leaf) {
                    Some(_) => KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                    None => 0,
                };
                entries.push(kvm_cpuid_entry2 {
                    function: leaf,
                    index: subleaf,
                    flags,
                    eax,
                    ebx,
                    ecx,
                    edx,
                    ..Default::default()
                });
            }
        }
    }
    CpuId::from_entries(&entries)
        .map_err(|_| EngineError::Internal("the CPU model has too many leaves".to_owned()))
}
