//! How a processor model is made of the host, an identity and features.

use std::arch::x86_64::__cpuid_count;
use std::sync::Arc;

use iced_x86::{Code, CpuidFeature};
use ringfence_x86::cr;

use super::availability::{self, Availability};
use super::feature::{Feature, FeatureSet, Word};
use super::named::{Identity, MAX_BASIC, Vendor};
use super::spec::{CpuModelError, CpuSpec};
use crate::cpu::XSAVE_SIZE;

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
]]);
/// What every host has, and what the engine and its interrupt hardware bring. PCID, INVPCID and
/// SMAP belong here when the MMU has them.
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
        Feature::UMIP,
        Feature::RDPID,
        Feature::SYSCALL,
        Feature::NX,
        Feature::PDPE1GB,
        Feature::RDTSCP,
        Feature::LM,
        Feature::NONSTOP_TSC,
    ],
]);
/// Leaf 7, EBX: how the host's x87 behaves, FDP_EXCPTN_ONLY and no FCS and FDS.
const X87_BEHAVIOUR: u32 = 1 << 6 | 1 << 13;
/// Components of XCR0 that are offered: x87, SSE, AVX.
const XCR0: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX;

/// Caches of named models, in the common format of leaves 4 and 8000_001Dh: 32 KiB of data and of
/// instructions, 512 KiB, 16 MiB; lines of 64 bytes.
const CACHES: [[u32; 4]; 4] = [
    [0x121, 7 << 22 | 63, 63, 0],
    [0x122, 7 << 22 | 63, 63, 0],
    [0x143, 7 << 22 | 63, 1023, 0],
    [0x163, 15 << 22 | 63, 16383, 0],
];
/// The same in AMD's leaves 8000_0005h and 8000_0006h; TLBs of 64 entries.
const CACHES_L1: [u32; 4] = [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140];
const CACHES_L2: [u32; 4] = [0, 0, 0x0200_6140, 32 << 18 | 8 << 12 | 0x140];

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

/// The processor that the guest sees: its identity and the features that a [`CpuSpec`] names, one
/// thread per core and one package.
#[derive(Clone, Debug)]
pub struct CpuidModel {
    pub(super) vcpus: u32,
    pub(super) tsc_hz: u64,
    pub(super) amd: bool,
    /// EBX, ECX, EDX of leaf 0: the vendor.
    pub(super) vendor: [u32; 3],
    /// EAX of leaf 1: family, model, stepping.
    pub(super) signature: u32,
    pub(super) max_basic: u32,
    /// Whether leaves from 8000_0000h on exist.
    pub(super) has_extended: bool,
    pub(super) leaf2: [u32; 4],
    /// Leaf 4 (Intel) or 8000_001Dh (AMD), by subleaf.
    pub(super) caches: Vec<[u32; 4]>,
    pub(super) features: FeatureSet,
    pub(super) x87: u32,
    pub(super) xcr0: u64,
    /// Leaf 0Dh of the components, from subleaf 2.
    pub(super) components: [[u32; 4]; 6],
    /// Leaves 8000_0000h to 8000_0021h, but for their feature bits.
    pub(super) extended: Vec<[u32; 4]>,
    pub(super) availability: Arc<[Availability]>,
}

impl CpuidModel {
    /// The host's processor, less what the engine can't run, with `vcpus` processors and a TSC
    /// of `tsc_hz` hertz.
    pub fn new(vcpus: u32, tsc_hz: u64) -> Self {
        let mut model = Self::from_host(&host, vcpus, tsc_hz);
        model.finish();
        model
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
        let mut model = Self::from_host(host, vcpus, tsc_hz);
        model.features = spec.features(&model.features)?;
        if let Some(named) = spec.base {
            model.max_basic = named.max_basic;
            match &named.identity {
                Some(identity) => model.identify(identity),
                None => model.set_brand(&format!("{} processor", named.names[0])),
            }
        }
        model.reach();
        model.finish();
        Ok(model)
    }

    /// The features that can be had on this host.
    pub fn offered() -> FeatureSet {
        Self::from_host(&host, 1, 1).features
    }

    /// All that the engine can run on a processor with the CPUID `host`.
    fn from_host(host: &dyn Fn(u32, u32) -> [u32; 4], vcpus: u32, tsc_hz: u64) -> Self {
        let [_, ebx, ecx, edx] = host(0, 0);
        let amd = matches!([ebx, ecx, edx], [0x6874_7541, 0x444d_4163, 0x6974_6e65])
            || matches!([ebx, ecx, edx], [0x6f67_7948, 0x656e_6975, 0x6e65_476e]);
        let cache_leaf = if amd { 0x8000_001d } else { 4 };
        let caches = (0..8)
            .map(|subleaf| host(cache_leaf, subleaf))
            .take_while(|values| values[0] & 0x1f != 0)
            .collect();
        let mut components = [[0; 4]; 6];
        for (index, component) in components.iter_mut().enumerate() {
            *component = host(0xd, index as u32 + 2);
        }
        let mut present = FeatureSet::EMPTY;
        for word in Word::ALL {
            let (leaf, subleaf, output) = word.place();
            present.set_word(word, host(leaf, subleaf)[output]);
        }
        let mut features = OWN;
        features.add_masked(&present, &FROM_HOST);
        if !amd {
            features.add_with_needs(Feature::ARCH_CAPABILITIES);
        }
        let avx = components[0];
        let fits = u64::from(avx[0]) + u64::from(avx[1]) <= XSAVE_SIZE as u64 && avx[0] != 0;
        let host_xcr0 = u64::from(host(0xd, 0)[0]);
        if !fits || host_xcr0 & cr::XCR0_AVX == 0 {
            features.remove(Feature::AVX);
        }
        features.drop_unmet();
        Self {
            vcpus: vcpus.max(1),
            tsc_hz,
            amd,
            vendor: [ebx, ecx, edx],
            signature: host(1, 0)[0],
            max_basic: MAX_BASIC,
            has_extended: true,
            leaf2: host(2, 0),
            caches,
            features,
            x87: host(7, 0)[1] & X87_BEHAVIOUR,
            xcr0: host_xcr0 & XCR0,
            components,
            extended: (0..=0x21)
                .map(|index| host(0x8000_0000 + index, 0))
                .collect(),
            availability: Arc::new([]),
        }
    }

    /// Takes on the identity of another processor, and the caches of none in particular.
    fn identify(&mut self, identity: &Identity) {
        let word = |text: &[u8; 12], at: usize| {
            u32::from_le_bytes(std::array::from_fn(|index| text[at + index]))
        };
        let text = match identity.vendor {
            Vendor::Intel => b"GenuineIntel",
            Vendor::Amd => b"AuthenticAMD",
        };
        self.vendor = [word(text, 0), word(text, 8), word(text, 4)];
        self.amd = identity.vendor == Vendor::Amd;
        let (family, model) = (identity.family, identity.model);
        let extra = family.saturating_sub(15);
        self.signature = (family - extra) << 8 | extra << 20 | identity.stepping & 15;
        self.signature |= (model & 15) << 4 | (model >> 4) << 16;
        self.leaf2 = identity.leaf2;
        self.caches = CACHES.to_vec();
        self.has_extended = identity.extended;
        for (index, leaf) in self.extended.iter_mut().enumerate() {
            *leaf = match index {
                1 if self.amd => [self.signature, 0, 0, 0],
                5 if self.amd => CACHES_L1,
                6 => [0, 0, CACHES_L2[2], if self.amd { CACHES_L2[3] } else { 0 }],
                // Widths of addresses: the host's.
                8 => [leaf[0], 0, 0, 0],
                _ => [0; 4],
            };
        }
        self.set_brand(identity.brand);
    }

    fn set_brand(&mut self, brand: &str) {
        let mut text = [0; 48];
        for (to, from) in text[..47].iter_mut().zip(brand.bytes()) {
            *to = from;
        }
        for (leaf, bytes) in self.extended.iter_mut().skip(2).zip(text.chunks_exact(16)) {
            for (word, bytes) in leaf.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes(std::array::from_fn(|index| bytes[index]));
            }
        }
    }

    /// Raises the highest leaves to those that the features are in.
    fn reach(&mut self) {
        for word in Word::ALL {
            let (leaf, ..) = word.place();
            if self.features.word(word) == 0 {
                continue;
            }
            if leaf >= 0x8000_0000 {
                self.has_extended = true;
            } else {
                self.max_basic = self.max_basic.max(leaf);
            }
        }
        if self.features.has(Feature::XSAVE) {
            self.max_basic = self.max_basic.max(0xd);
        }
    }

    /// What follows from the features.
    fn finish(&mut self) {
        if !self.features.has(Feature::XSAVE) {
            self.xcr0 = 0;
        } else if !self.features.has(Feature::AVX) {
            self.xcr0 &= !cr::XCR0_AVX;
        }
        let features = &self.features;
        self.availability = Code::values()
            .map(|code| availability::of(features, code))
            .collect();
    }

    /// The features that the guest sees.
    pub fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// Whether instructions of `feature` exist for the guest; others raise #UD.
    pub fn allows(&self, feature: CpuidFeature) -> bool {
        availability::extension(&self.features, feature)
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
