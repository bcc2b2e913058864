//! The tables behind CPUID (SDM vol. 2, CPUID; APM vol. 3, appendix E).

use std::arch::x86_64::__cpuid_count;
use std::sync::Arc;

use iced_x86::{Code, CpuidFeature};
use ringfence_x86::cr;

use super::availability::{self, Availability};
use super::feature::{Feature, FeatureSet, Word};
use super::named::{Identity, MAX_BASIC, Vendor};
use super::spec::{CpuModelError, CpuSpec};
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
/// Leaf 1, EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 1, ECX: the operating system has set CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 8000_0001h, ECX: CmpLegacy (several cores) and topology extensions, on AMD.
const CMP_LEGACY: u32 = 1 << 1;
const TOPOEXT: u32 = 1 << 22;
/// What AMD repeats there of leaf 1, EDX.
const EXT1_EDX_SHARED: u32 = 0x0183_f3ff;
/// Leaf 8000_0008h, EBX: BTC_NO, a guest's return never uses the host's return predictor.
const EXT8_EBX_OWN: u32 = 1 << 29;
/// Leaf 8000_0021h, EAX: LFENCE serializes, null selectors clear the base, SRSO_NO.
const EXT21_EAX_OWN: u32 = 1 << 2 | 1 << 6 | 1 << 29;

/// Highest hypervisor leaf: timing information.
const MAX_HYPERVISOR: u32 = 0x4000_0010;
/// Signature of the hypervisor in leaf 4000_0000h.
const SIGNATURE: &[u8; 12] = b"Ringfence\0\0\0";
/// Frequency of the local APIC's timer input, the crystal of leaf 15h, in hertz.
const CRYSTAL_HZ: u64 = 25_000_000;
/// Components of XCR0 that are offered: x87, SSE, AVX.
const XCR0: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX;
/// Legacy region and header of an XSAVE area.
const XSAVE_FIXED: u32 = 576;

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
    vcpus: u32,
    tsc_hz: u64,
    amd: bool,
    /// EBX, ECX, EDX of leaf 0: the vendor.
    vendor: [u32; 3],
    /// EAX of leaf 1: family, model, stepping.
    signature: u32,
    max_basic: u32,
    /// Whether leaves from 8000_0000h on exist.
    has_extended: bool,
    leaf2: [u32; 4],
    /// Leaf 4 (Intel) or 8000_001Dh (AMD), by subleaf.
    caches: Vec<[u32; 4]>,
    features: FeatureSet,
    x87: u32,
    xcr0: u64,
    /// Leaf 0Dh of the components, from subleaf 2.
    components: [[u32; 4]; 6],
    /// Leaves 8000_0000h to 8000_0021h, but for their feature bits.
    extended: Vec<[u32; 4]>,
    availability: Arc<[Availability]>,
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

    /// EAX, EBX, ECX, EDX of CPUID on processor `vcpu`, whose local APIC has the same number.
    ///
    /// Leaves beyond the highest one read as zero, as AMD has it.
    pub fn get(&self, cpu: &Cpu, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0x8000_0000.. => return self.extended(vcpu, leaf, subleaf),
            0x4000_0000.. => return self.hypervisor(leaf),
            _ if leaf > self.max_basic => return [0; 4],
            _ => {}
        }
        let word = |word| self.features.word(word);
        match leaf {
            0 => [
                self.max_basic,
                self.vendor[0],
                self.vendor[1],
                self.vendor[2],
            ],
            1 => self.leaf1(cpu, vcpu),
            2 if !self.amd => self.leaf2,
            4 if !self.amd => self.cache(subleaf),
            6 => [word(Word::Leaf6Eax), 0, 0, 0],
            7 if subleaf == 0 => {
                let ebx = word(Word::Leaf7Ebx) | self.x87;
                [0, ebx, word(Word::Leaf7Ecx), word(Word::Leaf7Edx)]
            }
            0xb => self.topology(vcpu, subleaf),
            0xd => self.extended_state(cpu, subleaf),
            0x15 => self.crystal(),
            0x16 => {
                let mhz = (self.tsc_hz / 1_000_000) as u32 & 0xffff;
                [mhz, mhz, (CRYSTAL_HZ / 1_000_000) as u32, 0]
            }
            _ => [0; 4],
        }
    }

    fn leaf1(&self, cpu: &Cpu, vcpu: u32) -> [u32; 4] {
        let (mut ecx, mut edx) = (
            self.features.word(Word::Leaf1Ecx),
            self.features.word(Word::Leaf1Edx),
        );
        if cpu.cr4 & cr::CR4_OSXSAVE != 0 {
            ecx |= OSXSAVE;
        }
        if self.vcpus > 1 {
            edx |= HTT;
        }
        let count = self.vcpus.min(255);
        // CLFLUSH lines of 8 * 8 bytes.
        let line = if self.features.has(Feature::CLFLUSH) {
            8 << 8
        } else {
            0
        };
        // Initial APIC ID and processors in the package.
        [self.signature, vcpu << 24 | count << 16 | line, ecx, edx]
    }

    fn hypervisor(&self, leaf: u32) -> [u32; 4] {
        if !self.features.has(Feature::HYPERVISOR) {
            return [0; 4];
        }
        match leaf {
            0x4000_0000 => {
                let word =
                    |at: usize| u32::from_le_bytes(std::array::from_fn(|i| SIGNATURE[at + i]));
                [MAX_HYPERVISOR, word(0), word(4), word(8)]
            }
            MAX_HYPERVISOR => {
                let khz = |hz: u64| (hz / 1000).min(u64::from(u32::MAX)) as u32;
                [khz(self.tsc_hz), khz(CRYSTAL_HZ), 0, 0]
            }
            _ => [0; 4],
        }
    }

    /// Bits of an APIC ID that number the processors of the package.
    fn id_bits(&self) -> u32 {
        self.vcpus.next_power_of_two().trailing_zeros()
    }

    /// A cache, private to its core but for the last level.
    fn cache(&self, subleaf: u32) -> [u32; 4] {
        let Some(&[eax, ebx, ecx, edx]) = self.caches.get(subleaf as usize) else {
            return [0; 4];
        };
        let shared = if eax >> 5 & 7 >= 3 {
            (1u32 << self.id_bits()) - 1
        } else {
            0
        };
        let mut eax = eax & 0x3fff | (shared & 0xfff) << 14;
        if !self.amd {
            eax |= ((1u32 << self.id_bits()) - 1).min(63) << 26;
        }
        [eax, ebx, ecx, edx]
    }

    fn topology(&self, vcpu: u32, subleaf: u32) -> [u32; 4] {
        match subleaf {
            // One thread per core.
            0 => [0, 1, 1 << 8, vcpu],
            1 => [self.id_bits(), self.vcpus & 0xffff, 2 << 8 | 1, vcpu],
            _ => [0, 0, subleaf & 0xff, vcpu],
        }
    }

    fn extended_state(&self, cpu: &Cpu, subleaf: u32) -> [u32; 4] {
        if self.xcr0 == 0 {
            return [0; 4];
        }
        let offered = |index: u32| self.xcr0 >> index & 1 != 0;
        let size = |xcr0: u64| {
            let ends = (2..8)
                .filter(|index| xcr0 >> index & 1 != 0)
                .map(|index: u32| {
                    let [size, offset, ..] = self.components[index as usize - 2];
                    size + offset
                });
            ends.fold(XSAVE_FIXED, u32::max)
        };
        match subleaf {
            0 => [
                self.xcr0 as u32,
                size(cpu.xcr0 & self.xcr0),
                size(self.xcr0),
                0,
            ],
            1 => {
                let compacted = (2..8).filter(|index| cpu.xcr0 & self.xcr0 & 1 << index != 0);
                let mut end = XSAVE_FIXED;
                for index in compacted {
                    let [size, _, ecx, _] = self.components[index as usize - 2];
                    end = if ecx & 2 != 0 {
                        end.next_multiple_of(64)
                    } else {
                        end
                    } + size;
                }
                let compacts = self.features.has(Feature::XSAVEC);
                let flags = self.features.word(Word::LeafDSub1Eax);
                [flags, if compacts { end } else { 0 }, 0, 0]
            }
            2..8 if offered(subleaf) => {
                let [size, offset, ecx, _] = self.components[subleaf as usize - 2];
                [size, offset, ecx & 2, 0]
            }
            _ => [0; 4],
        }
    }

    /// TSC = crystal * EBX / EAX, in steps of 100 kHz.
    fn crystal(&self) -> [u32; 4] {
        let numerator = (self.tsc_hz / 100_000).min(u64::from(u32::MAX)) as u32;
        [
            (CRYSTAL_HZ / 100_000) as u32,
            numerator,
            CRYSTAL_HZ as u32,
            0,
        ]
    }

    fn extended(&self, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let index = leaf - 0x8000_0000;
        let largest = if self.amd { 0x8000_0021 } else { 0x8000_0008 };
        if !self.has_extended || leaf > largest {
            return [0; 4];
        }
        let stored = self
            .extended
            .get(index as usize)
            .copied()
            .unwrap_or_default();
        let [eax, ebx, _, _] = stored;
        let word = |word| self.features.word(word);
        match index {
            0 => {
                let [ebx, ecx, edx] = if self.amd { self.vendor } else { [0; 3] };
                [largest, ebx, ecx, edx]
            }
            1 => {
                let (mut ecx, mut edx) = (word(Word::Ext1Ecx), word(Word::Ext1Edx));
                if self.amd {
                    ecx |= TOPOEXT | if self.vcpus > 1 { CMP_LEGACY } else { 0 };
                    edx |= word(Word::Leaf1Edx) & EXT1_EDX_SHARED;
                }
                [eax, ebx, ecx, edx]
            }
            2..=6 | 0x19 | 0x1a => stored,
            7 => [0, 0, 0, word(Word::Ext7Edx)],
            8 => {
                let cores = self.id_bits() << 12 | (self.vcpus - 1) & 0xff;
                let own = if self.amd { EXT8_EBX_OWN } else { 0 };
                // 48 linear-address bits: no 5-level paging.
                let widths = eax & 0xff | 48 << 8;
                [
                    widths,
                    word(Word::Ext8Ebx) | own,
                    if self.amd { cores } else { 0 },
                    0,
                ]
            }
            0x1d => self.cache(subleaf),
            // Extended APIC ID, core number, node 0 of 1.
            0x1e => [vcpu, vcpu & 0xff, 0, 0],
            0x21 => [EXT21_EAX_OWN, 0, 0, 0],
            _ => [0; 4],
        }
    }
}
