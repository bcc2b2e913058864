//! The named processor models: the levels of the x86-64 psABI (System V ABI for AMD64, 3.1.1) and
//! processors that were sold.

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

type F = Feature;

/// What a virtual machine adds to any processor.
const MACHINE: &[F] = &[F::HYPERVISOR];
/// And to one that is not old.
const TIMERS: &[F] = &[
    F::X2APIC,
    F::TSC_DEADLINE,
    F::TSC_ADJUST,
    F::ARAT,
    F::NONSTOP_TSC,
];

const PENTIUM: &[F] = &[
    F::FPU,
    F::VME,
    F::DE,
    F::PSE,
    F::TSC,
    F::MSR,
    F::MCE,
    F::CX8,
    F::APIC,
];
const PENTIUM_III: &[F] = &[
    F::PAE,
    F::SEP,
    F::MTRR,
    F::PGE,
    F::MCA,
    F::CMOV,
    F::PAT,
    F::PSE36,
    F::MMX,
    F::FXSR,
    F::SSE,
];
/// What x86-64 adds: with the above the level v1 of the psABI, and NX.
const LONG: &[F] = &[F::CLFLUSH, F::SSE2, F::SYSCALL, F::NX, F::LM];
const V2: &[F] = &[
    F::CMPXCHG16B,
    F::LAHF,
    F::POPCNT,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
];
const V3: &[F] = &[
    F::XSAVE,
    F::AVX,
    F::AVX2,
    F::BMI1,
    F::BMI2,
    F::F16C,
    F::FMA,
    F::LZCNT,
    F::MOVBE,
];
const V4: &[F] = &[
    F::AVX512F,
    F::AVX512BW,
    F::AVX512CD,
    F::AVX512DQ,
    F::AVX512VL,
];

const NEHALEM: &[F] = &[F::RDTSCP];
const WESTMERE: &[F] = &[F::AES, F::PCLMULQDQ];
const SANDY_BRIDGE: &[F] = &[F::XSAVE, F::XSAVEOPT, F::AVX, F::PCID];
const IVY_BRIDGE: &[F] = &[F::F16C, F::RDRAND, F::FSGSBASE, F::SMEP, F::ERMS];
const HASWELL: &[F] = &[F::INVPCID];
const BROADWELL: &[F] = &[F::RDSEED, F::ADX, F::SMAP, F::PREFETCHW];
const SKYLAKE: &[F] = &[F::CLFLUSHOPT, F::XSAVEC, F::XGETBV1, F::XSAVES];
const SKYLAKE_SERVER: &[F] = &[F::CLWB, F::PDPE1GB, F::PKU];
const ICE_LAKE: &[F] = &[
    F::SHA,
    F::GFNI,
    F::VAES,
    F::VPCLMULQDQ,
    F::UMIP,
    F::RDPID,
    F::FSRM,
    F::LA57,
    F::WBNOINVD,
    F::AVX512IFMA,
    F::AVX512VBMI,
    F::AVX512VBMI2,
    F::AVX512VNNI,
    F::AVX512BITALG,
    F::AVX512VPOPCNTDQ,
    F::ARCH_CAPABILITIES,
];
const ZEN: &[F] = &[
    F::RDTSCP,
    F::AES,
    F::PCLMULQDQ,
    F::XSAVEOPT,
    F::XSAVEC,
    F::XGETBV1,
    F::XSAVES,
    F::RDRAND,
    F::RDSEED,
    F::ADX,
    F::SHA,
    F::CLFLUSHOPT,
    F::FSGSBASE,
    F::SMEP,
    F::SMAP,
    F::PDPE1GB,
    F::MMXEXT,
    F::SSE4A,
    F::MISALIGNSSE,
    F::PREFETCHW,
];
const ZEN2: &[F] = &[
    F::CLWB,
    F::UMIP,
    F::RDPID,
    F::CLZERO,
    F::WBNOINVD,
    F::XSAVEERPTR,
];
const ZEN3: &[F] = &[
    F::PCID,
    F::INVPCID,
    F::ERMS,
    F::FSRM,
    F::VAES,
    F::VPCLMULQDQ,
    F::PKU,
];
const ZEN4: &[F] = &[
    F::GFNI,
    F::LA57,
    F::AVX512IFMA,
    F::AVX512VBMI,
    F::AVX512VBMI2,
    F::AVX512VNNI,
    F::AVX512BITALG,
    F::AVX512VPOPCNTDQ,
    F::AVX512BF16,
];

/// Leaf 2 of processors that describe their caches in leaf 4.
const LEAF2_SEE_LEAF4: [u32; 4] = [0x00ff_ff01, 0, 0, 0];

const fn identity(vendor: Vendor, numbers: [u32; 3], brand: &'static str) -> Option<Identity> {
    let [family, model, stepping] = numbers;
    let leaf2 = match vendor {
        Vendor::Intel => LEAF2_SEE_LEAF4,
        Vendor::Amd => [0; 4],
    };
    Some(Identity {
        vendor,
        family,
        model,
        stepping,
        brand,
        leaf2,
        extended: true,
    })
}

const fn level(names: &'static [&'static str], features: FeatureSet) -> Named {
    Named {
        names,
        identity: None,
        max_basic: MAX_BASIC,
        features,
    }
}

const fn intel(
    names: &'static [&'static str],
    model: u32,
    stepping: u32,
    brand: &'static str,
    features: FeatureSet,
) -> Named {
    let identity = identity(Vendor::Intel, [6, model, stepping], brand);
    Named {
        names,
        identity,
        max_basic: MAX_BASIC,
        features,
    }
}

const fn amd(
    names: &'static [&'static str],
    numbers: [u32; 3],
    brand: &'static str,
    features: FeatureSet,
) -> Named {
    let identity = identity(Vendor::Amd, numbers, brand);
    Named {
        names,
        identity,
        max_basic: MAX_BASIC,
        features,
    }
}

const fn of_1990s(
    names: &'static [&'static str],
    numbers: [u32; 3],
    max_basic: u32,
    leaf2: [u32; 4],
    features: FeatureSet,
) -> Named {
    let [family, model, stepping] = numbers;
    let vendor = Vendor::Intel;
    let identity = Identity {
        vendor,
        family,
        model,
        stepping,
        brand: "",
        leaf2,
        extended: false,
    };
    Named {
        names,
        identity: Some(identity),
        max_basic,
        features,
    }
}

const fn set(groups: &[&[F]]) -> FeatureSet {
    FeatureSet::of(groups)
}

/// All named models; `host` and `max` are not among them.
pub const MODELS: &[Named] = &[
    level(
        &["x86-64-v1", "x86-64"],
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG]),
    ),
    level(
        &["x86-64-v2"],
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG, V2]),
    ),
    level(
        &["x86-64-v3"],
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG, V2, V3]),
    ),
    level(
        &["x86-64-v4"],
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG, V2, V3, V4]),
    ),
    of_1990s(
        &["pentium"],
        [5, 2, 12],
        1,
        [0; 4],
        set(&[MACHINE, PENTIUM]),
    ),
    of_1990s(
        &["pentium3"],
        [6, 8, 3],
        2,
        [0x0302_0101, 0, 0, 0x0c04_0882],
        set(&[MACHINE, PENTIUM, PENTIUM_III]),
    ),
    intel(
        &["Nehalem"],
        26,
        3,
        "Intel Core i7 9xx (Nehalem)",
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG, V2, NEHALEM]),
    ),
    intel(
        &["Westmere"],
        44,
        1,
        "Intel Xeon E56xx (Westmere)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            NEHALEM,
            WESTMERE,
        ]),
    ),
    intel(
        &["SandyBridge"],
        42,
        1,
        "Intel Xeon E312xx (Sandy Bridge)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
        ]),
    ),
    intel(
        &["IvyBridge"],
        58,
        9,
        "Intel Xeon E3-12xx v2 (Ivy Bridge)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
        ]),
    ),
    intel(
        &["Haswell"],
        60,
        4,
        "Intel Core (Haswell)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
            HASWELL,
        ]),
    ),
    intel(
        &["Broadwell"],
        61,
        2,
        "Intel Core (Broadwell)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
            HASWELL,
            BROADWELL,
        ]),
    ),
    intel(
        &["Skylake-Client"],
        94,
        3,
        "Intel Core (Skylake)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
            HASWELL,
            BROADWELL,
            SKYLAKE,
        ]),
    ),
    intel(
        &["Skylake-Server"],
        85,
        4,
        "Intel Xeon (Skylake)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            V4,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
            HASWELL,
            BROADWELL,
            SKYLAKE,
            SKYLAKE_SERVER,
        ]),
    ),
    intel(
        &["Icelake-Server"],
        106,
        0,
        "Intel Xeon (Ice Lake)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            V4,
            NEHALEM,
            WESTMERE,
            SANDY_BRIDGE,
            IVY_BRIDGE,
            HASWELL,
            BROADWELL,
            SKYLAKE,
            SKYLAKE_SERVER,
            ICE_LAKE,
        ]),
    ),
    amd(
        &["EPYC"],
        [0x17, 1, 2],
        "AMD EPYC",
        set(&[MACHINE, TIMERS, PENTIUM, PENTIUM_III, LONG, V2, V3, ZEN]),
    ),
    amd(
        &["EPYC-Rome"],
        [0x17, 49, 0],
        "AMD EPYC (Rome)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            ZEN,
            ZEN2,
        ]),
    ),
    amd(
        &["EPYC-Milan"],
        [0x19, 1, 1],
        "AMD EPYC (Milan)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            ZEN,
            ZEN2,
            ZEN3,
        ]),
    ),
    amd(
        &["EPYC-Genoa"],
        [0x19, 17, 0],
        "AMD EPYC (Genoa)",
        set(&[
            MACHINE,
            TIMERS,
            PENTIUM,
            PENTIUM_III,
            LONG,
            V2,
            V3,
            V4,
            ZEN,
            ZEN2,
            ZEN3,
            ZEN4,
        ]),
    ),
];
