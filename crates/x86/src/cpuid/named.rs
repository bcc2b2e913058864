//! The named processor models: the levels of the x86-64 psABI (System V ABI for AMD64, 3.1.1) and
//! processors that were sold.

use Vendor::{Amd, Intel};

use super::feature::{Feature, FeatureSet};

/// Highest basic leaf of models that have no smaller one: processor frequency.
pub const MAX_BASIC: u32 = 0x16;

/// Who made a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
}

/// The identity of a processor.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub vendor: Vendor,
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    /// Its name, at most 47 characters; empty on processors that tell none.
    pub brand: &'static str,
    /// Leaf 2, on Intel's.
    pub leaf2: [u32; 4],
    /// Whether it has extended leaves.
    pub extended: bool,
}

/// A model.
#[derive(Debug)]
pub struct Named {
    pub names: &'static [&'static str],
    /// `None`: the host's vendor, family and model number, by which a kernel chooses the errata
    /// that it works around.
    pub identity: Option<Identity>,
    /// Highest basic leaf.
    pub max_basic: u32,
    pub features: FeatureSet,
}

/// What makes a guest know that it is virtualized and talk to KVM's interface: `kvm` names all of
/// them. No model has any of itself.
pub const PARAVIRT: &[Feature] = &[
    Feature::KVM_CLOCK,
    Feature::KVM_STEAL_TIME,
    Feature::KVM_PV_EOI,
    Feature::KVM_PV_UNHALT,
    Feature::KVM_PV_TLB_FLUSH,
    Feature::KVM_PV_SCHED_YIELD,
    Feature::KVM_CLOCK_STABLE,
];

/// Features that a kernel uses when they are there, and a model does without when the engine has
/// none of them.
pub const OPTIONAL: FeatureSet = FeatureSet::of(&[&[
    Feature::PCID,
    Feature::INVPCID,
    Feature::SMAP,
    Feature::XSAVES,
    Feature::PKU,
    Feature::LA57,
    Feature::CLZERO,
    Feature::WBNOINVD,
    Feature::ARCH_CAPABILITIES,
]]);

/// Makes sets: what an earlier one has, and more.
macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident = $base:ident $(+ $more:ident)+;)+) => {
        $($(#[$doc])* const $name: FeatureSet = $base.with(&[$(Feature::$more),+]);)+
    };
}

/// What a virtual machine adds to any processor.
const MACHINE: FeatureSet = FeatureSet::of(&[&[Feature::HYPERVISOR]]);

sets! {
    PENTIUM = MACHINE + FPU + VME + DE + PSE + TSC + MSR + MCE + CX8 + APIC;
    PENTIUM_III = PENTIUM + PAE + SEP + MTRR + PGE + MCA + CMOV + PAT + PSE36 + MMX + FXSR + SSE;
    /// With NX, and the timers of a virtual machine.
    V1 = PENTIUM_III + CLFLUSH + SSE2 + SYSCALL + NX + LM + X2APIC + TSC_DEADLINE + TSC_ADJUST
        + ARAT + NONSTOP_TSC;
    V2 = V1 + CMPXCHG16B + LAHF + POPCNT + SSE3 + SSSE3 + SSE4_1 + SSE4_2;
    V3 = V2 + XSAVE + AVX + AVX2 + BMI1 + BMI2 + F16C + FMA + LZCNT + MOVBE;
    V4 = V3 + AVX512F + AVX512BW + AVX512CD + AVX512DQ + AVX512VL;

    NEHALEM = V2 + RDTSCP;
    WESTMERE = NEHALEM + AES + PCLMULQDQ;
    SANDY_BRIDGE = WESTMERE + XSAVE + XSAVEOPT + AVX + PCID;
    IVY_BRIDGE = SANDY_BRIDGE + F16C + RDRAND + FSGSBASE + SMEP + ERMS;
    HASWELL = IVY_BRIDGE + AVX2 + BMI1 + BMI2 + FMA + LZCNT + MOVBE + INVPCID;
    BROADWELL = HASWELL + RDSEED + ADX + SMAP + PREFETCHW;
    SKYLAKE = BROADWELL + CLFLUSHOPT + XSAVEC + XGETBV1 + XSAVES;
    SKYLAKE_SERVER = SKYLAKE + AVX512F + AVX512BW + AVX512CD + AVX512DQ + AVX512VL + CLWB + PDPE1GB
        + PKU;
    ICE_LAKE = SKYLAKE_SERVER + SHA + GFNI + VAES + VPCLMULQDQ + UMIP + RDPID + FSRM + LA57
        + WBNOINVD + AVX512IFMA + AVX512VBMI + AVX512VBMI2 + AVX512VNNI + AVX512BITALG
        + AVX512VPOPCNTDQ + ARCH_CAPABILITIES;

    ZEN = V3 + RDTSCP + AES + PCLMULQDQ + XSAVEOPT + XSAVEC + XGETBV1 + XSAVES + RDRAND + RDSEED
        + ADX + SHA + CLFLUSHOPT + FSGSBASE + SMEP + SMAP + PDPE1GB + MMXEXT + SSE4A + MISALIGNSSE
        + PREFETCHW;
    ZEN2 = ZEN + CLWB + UMIP + RDPID + CLZERO + WBNOINVD + XSAVEERPTR;
    ZEN3 = ZEN2 + PCID + INVPCID + ERMS + FSRM + VAES + VPCLMULQDQ + PKU;
    ZEN4 = ZEN3 + AVX512F + AVX512BW + AVX512CD + AVX512DQ + AVX512VL + GFNI + LA57 + AVX512IFMA
        + AVX512VBMI + AVX512VBMI2 + AVX512VNNI + AVX512BITALG + AVX512VPOPCNTDQ + AVX512BF16;
}

/// Leaf 2 of processors that describe their caches in leaf 4.
const LEAF2_SEE_LEAF4: [u32; 4] = [0x00ff_ff01, 0, 0, 0];
/// Leaf 2 of the Pentium III: small TLBs, 16 KiB of each first-level cache, 256 KiB of second level.
const LEAF2_PENTIUM_III: [u32; 4] = [0x0302_0101, 0, 0, 0x0c04_0882];

/// A level of the psABI.
const fn level(names: &'static [&'static str], features: FeatureSet) -> Named {
    let max_basic = MAX_BASIC;
    Named {
        names,
        identity: None,
        max_basic,
        features,
    }
}

/// A 64-bit processor.
const fn sold(
    names: &'static [&'static str],
    vendor: Vendor,
    numbers: [u32; 3],
    brand: &'static str,
    features: FeatureSet,
) -> Named {
    let [family, model, stepping] = numbers;
    let leaf2 = match vendor {
        Vendor::Intel => LEAF2_SEE_LEAF4,
        Vendor::Amd => [0; 4],
    };
    let extended = true;
    let identity = Identity {
        vendor,
        family,
        model,
        stepping,
        brand,
        leaf2,
        extended,
    };
    Named {
        names,
        identity: Some(identity),
        max_basic: MAX_BASIC,
        features,
    }
}

/// An Intel processor of the 1990s: no name, no extended leaves.
const fn old(
    names: &'static [&'static str],
    numbers: [u32; 3],
    max_basic: u32,
    leaf2: [u32; 4],
    features: FeatureSet,
) -> Named {
    let ([family, model, stepping], vendor) = (numbers, Vendor::Intel);
    let (brand, extended) = ("", false);
    let identity = Identity {
        vendor,
        family,
        model,
        stepping,
        brand,
        leaf2,
        extended,
    };
    Named {
        names,
        identity: Some(identity),
        max_basic,
        features,
    }
}

/// Makes the table, a model a line.
macro_rules! models {
    ($($how:ident $name:literal $(= $alias:literal)?, $($rest:expr),+;)+) => {
        /// All named models; `host` and `max` are not among them.
        pub const MODELS: &[Named] = &[$($how(&[$name $(, $alias)?], $($rest),+)),+];
    };
}

models! {
    level "x86-64-v1" = "x86-64", V1;
    level "x86-64-v2", V2;
    level "x86-64-v3", V3;
    level "x86-64-v4", V4;
    old "pentium", [5, 2, 12], 1, [0; 4], PENTIUM;
    old "pentium3", [6, 8, 3], 2, LEAF2_PENTIUM_III, PENTIUM_III;
    sold "Nehalem", Intel, [6, 26, 3], "Intel Core i7 9xx (Nehalem)", NEHALEM;
    sold "Westmere", Intel, [6, 44, 1], "Intel Xeon E56xx (Westmere)", WESTMERE;
    sold "SandyBridge", Intel, [6, 42, 1], "Intel Xeon E312xx (Sandy Bridge)", SANDY_BRIDGE;
    sold "IvyBridge", Intel, [6, 58, 9], "Intel Xeon E3-12xx v2 (Ivy Bridge)", IVY_BRIDGE;
    sold "Haswell", Intel, [6, 60, 4], "Intel Core (Haswell)", HASWELL;
    sold "Broadwell", Intel, [6, 61, 2], "Intel Core (Broadwell)", BROADWELL;
    sold "Skylake-Client", Intel, [6, 94, 3], "Intel Core (Skylake)", SKYLAKE;
    sold "Skylake-Server", Intel, [6, 85, 4], "Intel Xeon (Skylake)", SKYLAKE_SERVER;
    sold "Icelake-Server", Intel, [6, 106, 0], "Intel Xeon (Ice Lake)", ICE_LAKE;
    sold "EPYC", Amd, [23, 1, 2], "AMD EPYC", ZEN;
    sold "EPYC-Rome", Amd, [23, 49, 0], "AMD EPYC (Rome)", ZEN2;
    sold "EPYC-Milan", Amd, [25, 1, 1], "AMD EPYC (Milan)", ZEN3;
    sold "EPYC-Genoa", Amd, [25, 17, 0], "AMD EPYC (Genoa)", ZEN4;
}
