//! What the engine can run of the processors that a guest may see.

use std::arch::x86_64::__cpuid_count;
use std::ops::Deref;
use std::sync::Arc;

use iced_x86::{Code, CpuidFeature};
use ringfence_x86::cpuid::{CpuModelError, CpuSpec, Dynamic, FeatureSet, Model, Offer, PARAVIRT};
use ringfence_x86::cr;

use super::Feature;
use super::availability::{self, Availability};
use crate::cpu::{Cpu, XSAVE_SIZE};

/// What is taken over from the host when it has it: what runs natively.
const FROM_HOST: FeatureSet = FeatureSet::of(&[&[
    Feature::SSE3,
    Feature::PCLMULQDQ,
    Feature::SSSE3,
    Feature::FMA,
    Feature::CMPXCHG16B,
    Feature::SSE4_1,
    Feature::SSE4_2,
    Feature::MOVBE,
    Feature::POPCNT,
    Feature::AES,
    Feature::XSAVE,
    Feature::AVX,
    Feature::F16C,
    Feature::RDRAND,
    Feature::BMI1,
    Feature::AVX2,
    Feature::BMI2,
    Feature::ERMS,
    Feature::RDSEED,
    Feature::ADX,
    Feature::CLFLUSHOPT,
    Feature::CLWB,
    Feature::SHA,
    Feature::GFNI,
    Feature::VAES,
    Feature::VPCLMULQDQ,
    Feature::FSRM,
    Feature::XSAVEOPT,
    Feature::XSAVEC,
    Feature::XGETBV1,
    Feature::LAHF,
    Feature::LZCNT,
    Feature::SSE4A,
    Feature::MISALIGNSSE,
    Feature::PREFETCHW,
    Feature::MMXEXT,
    Feature::XSAVEERPTR,
    Feature::AVX_VNNI,
    Feature::AVX512F,
    Feature::AVX512DQ,
    Feature::AVX512IFMA,
    Feature::AVX512CD,
    Feature::AVX512BW,
    Feature::AVX512VL,
    Feature::AVX512VBMI,
    Feature::AVX512VBMI2,
    Feature::AVX512VNNI,
    Feature::AVX512BITALG,
    Feature::AVX512VPOPCNTDQ,
    Feature::AVX512BF16,
]]);
/// What every host has, and what the engine and its interrupt hardware bring.
const OWN: FeatureSet = FeatureSet::of(&[
    &[
        Feature::FPU,
        Feature::VME,
        Feature::DE,
        Feature::PSE,
        Feature::TSC,
        Feature::MSR,
        Feature::PAE,
        Feature::MCE,
        Feature::CX8,
        Feature::APIC,
        Feature::SEP,
        Feature::MTRR,
        Feature::PGE,
        Feature::MCA,
        Feature::CMOV,
        Feature::PAT,
        Feature::PSE36,
        Feature::CLFLUSH,
        Feature::MMX,
        Feature::FXSR,
        Feature::SSE,
        Feature::SSE2,
    ],
    &[
        Feature::X2APIC,
        Feature::TSC_DEADLINE,
        Feature::HYPERVISOR,
        Feature::ARAT,
        Feature::FSGSBASE,
        Feature::TSC_ADJUST,
        Feature::SMEP,
        Feature::SMAP,
        Feature::PCID,
        Feature::INVPCID,
        Feature::XSAVES,
        Feature::UMIP,
        Feature::RDPID,
        Feature::SYSCALL,
        Feature::NX,
        Feature::PDPE1GB,
        Feature::RDTSCP,
        Feature::LM,
        Feature::NONSTOP_TSC,
    ],
    PARAVIRT,
]);
/// Components of XCR0 that are offered: x87, SSE, AVX, AVX-512.
const XCR0: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX | cr::XCR0_AVX512;
/// Frequency of the local APIC's timer input, the crystal of leaf 15h, in hertz.
const CRYSTAL_HZ: u64 = 25_000_000;

/// What the engine can run.
const OFFER: Offer = Offer {
    own: OWN,
    from_host: FROM_HOST,
    xcr0: XCR0,
    xsave_size: XSAVE_SIZE as u32,
    crystal_hz: CRYSTAL_HZ,
};

/// CPUID of the host; zeros beyond its highest leaf.
fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: every x86-64 processor has CPUID, and it has no effect.
    #[allow(unused_unsafe)]
    let (largest, result) = unsafe {
        (
            __cpuid_count(leaf & 0x8000_0000, 0).eax,
            __cpuid_count(leaf, subleaf),
        )
    };
    if leaf > largest {
        return [0; 4];
    }
    [result.eax, result.ebx, result.ecx, result.edx]
}

fn available(features: &FeatureSet) -> Arc<[Availability]> {
    Code::values()
        .map(|code| availability::of(features, code))
        .collect()
}

/// The processor that the guest sees, and which instructions exist because of it.
#[derive(Clone, Debug)]
pub struct CpuidModel {
    model: Model,
    availability: Arc<[Availability]>,
}

impl Deref for CpuidModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl CpuidModel {
    fn of(model: Model) -> Self {
        Self {
            availability: available(model.features()),
            model,
        }
    }

    /// The processor of another engine, for which this one executes instructions: CPUID is that of
    /// `model`, but only instructions that this engine has exist.
    pub fn on_behalf(model: Model) -> Self {
        let mut features = FeatureSet::EMPTY;
        features.add_masked(model.features(), &Self::offered());
        Self {
            availability: available(&features),
            model,
        }
    }

    /// The host's processor, less what the engine can't run, with `vcpus` processors and a TSC
    /// of `tsc_hz` hertz.
    pub fn new(vcpus: u32, tsc_hz: u64) -> Self {
        Self::of(Model::new(&host, &OFFER, vcpus, tsc_hz))
    }

    /// The processor that `spec` describes.
    ///
    /// # Errors
    /// [`CpuModelError`] for features that can't be had.
    pub fn with_spec(spec: &CpuSpec, vcpus: u32, tsc_hz: u64) -> Result<Self, CpuModelError> {
        Self::with_spec_on(&host, spec, vcpus, tsc_hz)
    }

    /// As [`Self::with_spec`], with `host` in place of the CPUID instruction.
    pub(in super::super) fn with_spec_on(
        host: &dyn Fn(u32, u32) -> [u32; 4],
        spec: &CpuSpec,
        vcpus: u32,
        tsc_hz: u64,
    ) -> Result<Self, CpuModelError> {
        Model::with_spec(host, &OFFER, spec, vcpus, tsc_hz).map(Self::of)
    }

    /// The features that can be had on this host.
    pub fn offered() -> FeatureSet {
        *Model::new(&host, &OFFER, 1, 1).features()
    }

    /// EAX, EBX, ECX, EDX of CPUID on processor `vcpu`, whose local APIC has the same number.
    pub fn get(&self, cpu: &Cpu, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let dynamic = Dynamic {
            osxsave: cpu.cr4 & cr::CR4_OSXSAVE != 0,
            xcr0: cpu.xcr0,
        };
        self.model.get(dynamic, vcpu, leaf, subleaf)
    }

    /// Whether instructions of `feature` exist for the guest; others raise #UD.
    pub fn allows(&self, feature: CpuidFeature) -> bool {
        availability::extension(self.features(), feature)
    }

    /// What becomes of an instruction.
    #[inline]
    pub fn availability(&self, code: Code) -> Availability {
        self.availability
            .get(code as usize)
            .copied()
            .unwrap_or(Availability::Absent)
    }
}
