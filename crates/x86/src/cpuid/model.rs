//! How a processor model is made of the host, an identity and features.

use super::feature::{Feature, FeatureSet, Word};
use super::named::{Identity, MAX_BASIC, Vendor};
use super::spec::{CpuModelError, CpuSpec};
use crate::cr;

/// What an engine can run.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// What every host has, and what the engine and its interrupt hardware bring.
    pub own: FeatureSet,
    /// What is taken over from the host when it has it.
    pub from_host: FeatureSet,
    /// Components of XCR0.
    pub xcr0: u64,
    /// Bytes of a processor's XSAVE area that the engine keeps.
    pub xsave_size: u32,
    /// Frequency of the local APIC's timer input, the crystal of leaf 15h, in hertz.
    pub crystal_hz: u64,
}

/// What CPUID tells of a processor's control registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dynamic {
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// XCR0.
    pub xcr0: u64,
}

/// Leaf 7, EBX: how the host's x87 behaves, FDP_EXCPTN_ONLY and no FCS and FDS.
const X87_BEHAVIOUR: u32 = 1 << 6 | 1 << 13;

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

/// The processor that the guest sees: its identity and the features that a [`CpuSpec`] names, one
/// thread per core and one package.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) vcpus: u32,
    pub(super) tsc_hz: u64,
    pub(super) crystal_hz: u64,
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
}

impl Model {
    /// The processor with the CPUID `host`, less what the engine can't run, with `vcpus`
    /// processors and a TSC of `tsc_hz` hertz.
    pub fn new(
        host: &dyn Fn(u32, u32) -> [u32; 4],
        offer: &Offer,
        vcpus: u32,
        tsc_hz: u64,
    ) -> Self {
        let mut model = Self::from_host(host, offer, vcpus, tsc_hz);
        model.finish();
        model
    }

    /// The processor that `spec` describes, on a host with the CPUID `host`.
    ///
    /// # Errors
    /// [`CpuModelError`] for features that can't be had.
    pub fn with_spec(
        host: &dyn Fn(u32, u32) -> [u32; 4],
        offer: &Offer,
        spec: &CpuSpec,
        vcpus: u32,
        tsc_hz: u64,
    ) -> Result<Self, CpuModelError> {
        let mut model = Self::from_host(host, offer, vcpus, tsc_hz);
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

    /// All that the engine can run on a processor with the CPUID `host`.
    fn from_host(
        host: &dyn Fn(u32, u32) -> [u32; 4],
        offer: &Offer,
        vcpus: u32,
        tsc_hz: u64,
    ) -> Self {
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
        let mut features = offer.own;
        features.add_masked(&present, &offer.from_host);
        if !amd {
            features.add_with_needs(Feature::ARCH_CAPABILITIES);
        }
        let fits = |[size, offset, ..]: &[u32; 4]| {
            *size != 0 && u64::from(*size) + u64::from(*offset) <= u64::from(offer.xsave_size)
        };
        let host_xcr0 = u64::from(host(0xd, 0)[0]) & offer.xcr0;
        if !fits(&components[0]) || host_xcr0 & cr::XCR0_AVX == 0 {
            features.remove(Feature::AVX);
        }
        let whole = host_xcr0 & cr::XCR0_AVX512 == cr::XCR0_AVX512;
        if !whole || !components[3..].iter().all(fits) {
            features.remove(Feature::AVX512F);
        }
        features.drop_unmet();
        Self {
            vcpus: vcpus.max(1),
            tsc_hz,
            crystal_hz: offer.crystal_hz,
            amd,
            vendor: [ebx, ecx, edx],
            signature: host(1, 0)[0],
            max_basic: MAX_BASIC,
            has_extended: true,
            leaf2: host(2, 0),
            caches,
            features,
            x87: host(7, 0)[1] & X87_BEHAVIOUR,
            xcr0: host_xcr0,
            components,
            extended: (0..=0x21)
                .map(|index| host(0x8000_0000 + index, 0))
                .collect(),
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
            // Leaves of a hypervisor count for themselves.
            if self.features.word(word) == 0 || (0x4000_0000..0x8000_0000).contains(&leaf) {
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
        }
        if !self.features.has(Feature::AVX) {
            self.xcr0 &= !cr::XCR0_AVX;
        }
        if !self.features.has(Feature::AVX512F) {
            self.xcr0 &= !cr::XCR0_AVX512;
        }
    }

    /// The features that the guest sees.
    pub fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// The vendor is AMD, or licensed by it.
    pub fn is_amd(&self) -> bool {
        self.amd
    }

    /// Components of XCR0 that the guest may enable.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }
}
