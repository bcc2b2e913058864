//! Features that CPUID announces with a bit (SDM vol. 2, CPUID; APM vol. 3, appendix E), by their
//! names in Linux's /proc/cpuinfo and in QEMU.

pub use super::set::FeatureSet;

/// A register of CPUID that consists of feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Leaf 1, ECX.
    Leaf1Ecx,
    /// Leaf 1, EDX.
    Leaf1Edx,
    /// Leaf 6, EAX.
    Leaf6Eax,
    /// Leaf 7, subleaf 0, EBX.
    Leaf7Ebx,
    /// Leaf 7, subleaf 0, ECX.
    Leaf7Ecx,
    /// Leaf 7, subleaf 0, EDX.
    Leaf7Edx,
    /// Leaf 7, subleaf 1, EAX.
    Leaf7Sub1Eax,
    /// Leaf 0Dh, subleaf 1, EAX.
    LeafDSub1Eax,
    /// Leaf 8000_0001h, ECX.
    Ext1Ecx,
    /// Leaf 8000_0001h, EDX.
    Ext1Edx,
    /// Leaf 8000_0007h, EDX.
    Ext7Edx,
    /// Leaf 8000_0008h, EBX.
    Ext8Ebx,
    /// Leaf 4000_0101h, EAX: what KVM offers its guests.
    KvmEax,
}

/// Number of [`Word`]s.
pub(super) const WORDS: usize = Word::KvmEax as usize + 1;

impl Word {
    /// All of them.
    pub const ALL: [Self; WORDS] = [
        Self::Leaf1Ecx,
        Self::Leaf1Edx,
        Self::Leaf6Eax,
        Self::Leaf7Ebx,
        Self::Leaf7Ecx,
        Self::Leaf7Edx,
        Self::Leaf7Sub1Eax,
        Self::LeafDSub1Eax,
        Self::Ext1Ecx,
        Self::Ext1Edx,
        Self::Ext7Edx,
        Self::Ext8Ebx,
        Self::KvmEax,
    ];

    /// Leaf, subleaf and the index of the register among EAX, EBX, ECX, EDX.
    pub const fn place(self) -> (u32, u32, usize) {
        match self {
            Self::Leaf1Ecx => (1, 0, 2),
            Self::Leaf1Edx => (1, 0, 3),
            Self::Leaf6Eax => (6, 0, 0),
            Self::Leaf7Ebx => (7, 0, 1),
            Self::Leaf7Ecx => (7, 0, 2),
            Self::Leaf7Edx => (7, 0, 3),
            Self::Leaf7Sub1Eax => (7, 1, 0),
            Self::LeafDSub1Eax => (0xd, 1, 0),
            Self::Ext1Ecx => (0x8000_0001, 0, 2),
            Self::Ext1Edx => (0x8000_0001, 0, 3),
            Self::Ext7Edx => (0x8000_0007, 0, 3),
            Self::Ext8Ebx => (0x8000_0008, 0, 1),
            Self::KvmEax => (0x4000_0101, 0, 0),
        }
    }
}

/// A bit of CPUID that announces a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The register.
    pub word: Word,
    /// The bit in it.
    pub bit: u32,
}

/// Makes a constant per feature and the table of names, the first of which is Linux's.
macro_rules! features {
    ($($constant:ident = $word:ident $bit:literal: $($name:literal)+;)+) => {
        #[allow(missing_docs)]
        impl Feature {
            $(pub const $constant: Self = Self { word: Word::$word, bit: $bit };)+
        }

        /// Every feature with its names.
        const TABLE: &[(Feature, &[&str])] = &[$((Feature::$constant, &[$($name),+]),)+];
    };
}

features! {
    FPU = Leaf1Edx 0: "fpu";
    VME = Leaf1Edx 1: "vme";
    DE = Leaf1Edx 2: "de";
    PSE = Leaf1Edx 3: "pse";
    TSC = Leaf1Edx 4: "tsc";
    MSR = Leaf1Edx 5: "msr";
    PAE = Leaf1Edx 6: "pae";
    MCE = Leaf1Edx 7: "mce";
    CX8 = Leaf1Edx 8: "cx8";
    APIC = Leaf1Edx 9: "apic";
    SEP = Leaf1Edx 11: "sep";
    MTRR = Leaf1Edx 12: "mtrr";
    PGE = Leaf1Edx 13: "pge";
    MCA = Leaf1Edx 14: "mca";
    CMOV = Leaf1Edx 15: "cmov";
    PAT = Leaf1Edx 16: "pat";
    PSE36 = Leaf1Edx 17: "pse36";
    CLFLUSH = Leaf1Edx 19: "clflush" "clfsh";
    MMX = Leaf1Edx 23: "mmx";
    FXSR = Leaf1Edx 24: "fxsr";
    SSE = Leaf1Edx 25: "sse";
    SSE2 = Leaf1Edx 26: "sse2";
    SSE3 = Leaf1Ecx 0: "pni" "sse3";
    PCLMULQDQ = Leaf1Ecx 1: "pclmulqdq";
    MONITOR = Leaf1Ecx 3: "monitor";
    VMX = Leaf1Ecx 5: "vmx";
    SSSE3 = Leaf1Ecx 9: "ssse3";
    FMA = Leaf1Ecx 12: "fma";
    CMPXCHG16B = Leaf1Ecx 13: "cx16";
    PCID = Leaf1Ecx 17: "pcid";
    SSE4_1 = Leaf1Ecx 19: "sse4_1";
    SSE4_2 = Leaf1Ecx 20: "sse4_2";
    X2APIC = Leaf1Ecx 21: "x2apic";
    MOVBE = Leaf1Ecx 22: "movbe";
    POPCNT = Leaf1Ecx 23: "popcnt";
    TSC_DEADLINE = Leaf1Ecx 24: "tsc_deadline_timer" "tsc_deadline";
    AES = Leaf1Ecx 25: "aes";
    XSAVE = Leaf1Ecx 26: "xsave";
    AVX = Leaf1Ecx 28: "avx";
    F16C = Leaf1Ecx 29: "f16c";
    RDRAND = Leaf1Ecx 30: "rdrand";
    HYPERVISOR = Leaf1Ecx 31: "hypervisor";
    ARAT = Leaf6Eax 2: "arat";
    FSGSBASE = Leaf7Ebx 0: "fsgsbase";
    TSC_ADJUST = Leaf7Ebx 1: "tsc_adjust";
    BMI1 = Leaf7Ebx 3: "bmi1";
    HLE = Leaf7Ebx 4: "hle";
    AVX2 = Leaf7Ebx 5: "avx2";
    SMEP = Leaf7Ebx 7: "smep";
    BMI2 = Leaf7Ebx 8: "bmi2";
    ERMS = Leaf7Ebx 9: "erms";
    INVPCID = Leaf7Ebx 10: "invpcid";
    RTM = Leaf7Ebx 11: "rtm";
    MPX = Leaf7Ebx 14: "mpx";
    AVX512F = Leaf7Ebx 16: "avx512f";
    AVX512DQ = Leaf7Ebx 17: "avx512dq";
    RDSEED = Leaf7Ebx 18: "rdseed";
    ADX = Leaf7Ebx 19: "adx";
    SMAP = Leaf7Ebx 20: "smap";
    AVX512IFMA = Leaf7Ebx 21: "avx512ifma";
    CLFLUSHOPT = Leaf7Ebx 23: "clflushopt";
    CLWB = Leaf7Ebx 24: "clwb";
    AVX512CD = Leaf7Ebx 28: "avx512cd";
    SHA = Leaf7Ebx 29: "sha_ni";
    AVX512BW = Leaf7Ebx 30: "avx512bw";
    AVX512VL = Leaf7Ebx 31: "avx512vl";
    AVX512VBMI = Leaf7Ecx 1: "avx512vbmi";
    UMIP = Leaf7Ecx 2: "umip";
    PKU = Leaf7Ecx 3: "pku";
    WAITPKG = Leaf7Ecx 5: "waitpkg";
    AVX512VBMI2 = Leaf7Ecx 6: "avx512_vbmi2" "avx512vbmi2";
    GFNI = Leaf7Ecx 8: "gfni";
    VAES = Leaf7Ecx 9: "vaes";
    VPCLMULQDQ = Leaf7Ecx 10: "vpclmulqdq";
    AVX512VNNI = Leaf7Ecx 11: "avx512_vnni" "avx512vnni";
    AVX512BITALG = Leaf7Ecx 12: "avx512_bitalg" "avx512bitalg";
    AVX512VPOPCNTDQ = Leaf7Ecx 14: "avx512_vpopcntdq" "avx512_vpopcnt";
    LA57 = Leaf7Ecx 16: "la57";
    RDPID = Leaf7Ecx 22: "rdpid";
    CLDEMOTE = Leaf7Ecx 25: "cldemote";
    MOVDIRI = Leaf7Ecx 27: "movdiri";
    MOVDIR64B = Leaf7Ecx 28: "movdir64b";
    FSRM = Leaf7Edx 4: "fsrm";
    SERIALIZE = Leaf7Edx 14: "serialize";
    ARCH_CAPABILITIES = Leaf7Edx 29: "arch_capabilities";
    AVX_VNNI = Leaf7Sub1Eax 4: "avx_vnni";
    AVX512BF16 = Leaf7Sub1Eax 5: "avx512_bf16" "avx512bf16";
    XSAVEOPT = LeafDSub1Eax 0: "xsaveopt";
    XSAVEC = LeafDSub1Eax 1: "xsavec";
    XGETBV1 = LeafDSub1Eax 2: "xgetbv1";
    XSAVES = LeafDSub1Eax 3: "xsaves";
    LAHF = Ext1Ecx 0: "lahf_lm";
    SVM = Ext1Ecx 2: "svm";
    LZCNT = Ext1Ecx 5: "abm" "lzcnt";
    SSE4A = Ext1Ecx 6: "sse4a";
    MISALIGNSSE = Ext1Ecx 7: "misalignsse";
    PREFETCHW = Ext1Ecx 8: "3dnowprefetch" "prefetchw";
    XOP = Ext1Ecx 11: "xop";
    FMA4 = Ext1Ecx 16: "fma4";
    TBM = Ext1Ecx 21: "tbm";
    SYSCALL = Ext1Edx 11: "syscall";
    NX = Ext1Edx 20: "nx";
    MMXEXT = Ext1Edx 22: "mmxext";
    PDPE1GB = Ext1Edx 26: "pdpe1gb";
    RDTSCP = Ext1Edx 27: "rdtscp";
    LM = Ext1Edx 29: "lm";
    NONSTOP_TSC = Ext7Edx 8: "nonstop_tsc" "invtsc" "constant_tsc";
    CLZERO = Ext8Ebx 0: "clzero";
    XSAVEERPTR = Ext8Ebx 2: "xsaveerptr";
    WBNOINVD = Ext8Ebx 9: "wbnoinvd";
    KVM_CLOCK = KvmEax 3: "kvmclock" "kvm_clock";
    KVM_STEAL_TIME = KvmEax 5: "kvm_steal_time";
    KVM_PV_EOI = KvmEax 6: "kvm_pv_eoi";
    KVM_PV_UNHALT = KvmEax 7: "kvm_pv_unhalt";
    KVM_PV_TLB_FLUSH = KvmEax 9: "kvm_pv_tlb_flush";
    KVM_PV_SCHED_YIELD = KvmEax 13: "kvm_pv_sched_yield";
    KVM_CLOCK_STABLE = KvmEax 24: "kvmclock_stable_bit";
}

/// What a feature needs, besides what that in turn needs.
pub(super) const NEEDS: &[(Feature, &[Feature])] = {
    type F = Feature;
    &[
        (F::SSE, &[F::FXSR]),
        (F::SSE2, &[F::SSE]),
        (F::SSE3, &[F::SSE2]),
        (F::SSSE3, &[F::SSE3]),
        (F::SSE4_1, &[F::SSSE3]),
        (F::SSE4_2, &[F::SSE4_1]),
        (F::SSE4A, &[F::SSE3]),
        (F::MISALIGNSSE, &[F::SSE]),
        (F::AES, &[F::SSE2]),
        (F::PCLMULQDQ, &[F::SSE2]),
        (F::SHA, &[F::SSSE3]),
        (F::GFNI, &[F::SSE2]),
        (F::MMXEXT, &[F::MMX]),
        (F::CMPXCHG16B, &[F::LM, F::CX8]),
        (
            F::LM,
            &[
                F::PAE,
                F::PGE,
                F::MSR,
                F::CX8,
                F::CMOV,
                F::FXSR,
                F::SSE2,
                F::SYSCALL,
            ],
        ),
        (F::LAHF, &[F::LM]),
        (F::FSGSBASE, &[F::LM]),
        (F::PDPE1GB, &[F::LM]),
        (F::PCID, &[F::LM]),
        (F::INVPCID, &[F::PCID]),
        (F::LA57, &[F::LM]),
        (F::NX, &[F::PAE]),
        (F::PSE36, &[F::PSE]),
        (F::MTRR, &[F::MSR]),
        (F::PAT, &[F::MSR]),
        (F::MCA, &[F::MCE, F::MSR]),
        (F::APIC, &[F::MSR]),
        (F::X2APIC, &[F::APIC, F::MSR]),
        (F::TSC_DEADLINE, &[F::APIC, F::TSC]),
        (F::ARAT, &[F::APIC]),
        (F::TSC_ADJUST, &[F::TSC, F::MSR]),
        (F::NONSTOP_TSC, &[F::TSC]),
        (F::RDTSCP, &[F::TSC, F::MSR]),
        (F::CLFLUSHOPT, &[F::CLFLUSH]),
        (F::CLWB, &[F::CLFLUSH]),
        (F::XSAVE, &[F::FXSR]),
        (F::XSAVEOPT, &[F::XSAVE]),
        (F::XSAVEC, &[F::XSAVE]),
        (F::XGETBV1, &[F::XSAVE]),
        (F::XSAVES, &[F::XSAVEC]),
        (F::KVM_CLOCK, &[F::HYPERVISOR]),
        (F::KVM_STEAL_TIME, &[F::HYPERVISOR]),
        (F::KVM_PV_EOI, &[F::HYPERVISOR]),
        (F::KVM_PV_UNHALT, &[F::HYPERVISOR]),
        (F::KVM_PV_TLB_FLUSH, &[F::HYPERVISOR]),
        (F::KVM_PV_SCHED_YIELD, &[F::HYPERVISOR]),
        (F::KVM_CLOCK_STABLE, &[F::HYPERVISOR]),
        (F::AVX, &[F::XSAVE, F::SSE4_2]),
        (F::AVX2, &[F::AVX]),
        (F::FMA, &[F::AVX]),
        (F::F16C, &[F::AVX]),
        (F::VAES, &[F::AVX, F::AES]),
        (F::VPCLMULQDQ, &[F::AVX, F::PCLMULQDQ]),
        (F::AVX_VNNI, &[F::AVX2]),
        (F::XOP, &[F::AVX]),
        (F::FMA4, &[F::AVX]),
        (F::AVX512F, &[F::AVX2, F::FMA, F::F16C]),
        (F::AVX512DQ, &[F::AVX512F]),
        (F::AVX512CD, &[F::AVX512F]),
        (F::AVX512BW, &[F::AVX512F]),
        (F::AVX512VL, &[F::AVX512F]),
        (F::AVX512IFMA, &[F::AVX512F]),
        (F::AVX512VBMI, &[F::AVX512BW]),
        (F::AVX512VBMI2, &[F::AVX512BW]),
        (F::AVX512VNNI, &[F::AVX512F]),
        (F::AVX512BITALG, &[F::AVX512BW]),
        (F::AVX512VPOPCNTDQ, &[F::AVX512F]),
        (F::AVX512BF16, &[F::AVX512BW]),
    ]
};

impl Feature {
    /// The feature of this name; case, and whether words are joined by `_`, `-` or `.`, do not
    /// matter.
    pub fn named(name: &str) -> Option<Self> {
        let wanted = name.to_ascii_lowercase().replace(['-', '.'], "_");
        let entry = TABLE
            .iter()
            .find(|(_, names)| names.contains(&wanted.as_str()))?;
        Some(entry.0)
    }

    /// Its name in /proc/cpuinfo.
    pub fn name(self) -> &'static str {
        TABLE
            .iter()
            .find(|(feature, _)| *feature == self)
            .map_or("?", |(_, names)| names[0])
    }

    /// Every feature that has a name.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(feature, _)| *feature)
    }

    /// What it needs directly.
    pub fn needs(self) -> &'static [Self] {
        NEEDS
            .iter()
            .find(|(feature, _)| *feature == self)
            .map_or(&[], |(_, needs)| needs)
    }
}
