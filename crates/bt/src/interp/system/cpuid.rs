//! What CPUID tells the guest: the host's processor, less what the engine can't run.

mod model;

use iced_x86::CpuidFeature;

use crate::cpu::Cpu;
use crate::env::Env;
pub use model::CpuidModel;

/// Register of a CPUID result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A bit of CPUID that announces a feature (SDM vol. 2, CPUID; APM vol. 3, appendix E).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    leaf: u32,
    subleaf: u32,
    output: Output,
    bit: u32,
}

const fn feature(leaf: u32, subleaf: u32, output: Output, bit: u32) -> Feature {
    Feature {
        leaf,
        subleaf,
        output,
        bit,
    }
}

impl Feature {
    const SSE3: Self = feature(1, 0, Output::Ecx, 0);
    const PCLMULQDQ: Self = feature(1, 0, Output::Ecx, 1);
    pub(super) const MONITOR: Self = feature(1, 0, Output::Ecx, 3);
    const SSSE3: Self = feature(1, 0, Output::Ecx, 9);
    const FMA: Self = feature(1, 0, Output::Ecx, 12);
    const CMPXCHG16B: Self = feature(1, 0, Output::Ecx, 13);
    pub(super) const PCID: Self = feature(1, 0, Output::Ecx, 17);
    const SSE4_1: Self = feature(1, 0, Output::Ecx, 19);
    const SSE4_2: Self = feature(1, 0, Output::Ecx, 20);
    const MOVBE: Self = feature(1, 0, Output::Ecx, 22);
    const POPCNT: Self = feature(1, 0, Output::Ecx, 23);
    const AES: Self = feature(1, 0, Output::Ecx, 25);
    pub(super) const XSAVE: Self = feature(1, 0, Output::Ecx, 26);
    const AVX: Self = feature(1, 0, Output::Ecx, 28);
    const F16C: Self = feature(1, 0, Output::Ecx, 29);
    const RDRAND: Self = feature(1, 0, Output::Ecx, 30);
    pub(super) const SEP: Self = feature(1, 0, Output::Edx, 11);
    pub(super) const FSGSBASE: Self = feature(7, 0, Output::Ebx, 0);
    const BMI1: Self = feature(7, 0, Output::Ebx, 3);
    const AVX2: Self = feature(7, 0, Output::Ebx, 5);
    pub(super) const SMEP: Self = feature(7, 0, Output::Ebx, 7);
    const BMI2: Self = feature(7, 0, Output::Ebx, 8);
    pub(super) const INVPCID: Self = feature(7, 0, Output::Ebx, 10);
    const AVX512F: Self = feature(7, 0, Output::Ebx, 16);
    const RDSEED: Self = feature(7, 0, Output::Ebx, 18);
    const ADX: Self = feature(7, 0, Output::Ebx, 19);
    pub(super) const SMAP: Self = feature(7, 0, Output::Ebx, 20);
    const CLFLUSHOPT: Self = feature(7, 0, Output::Ebx, 23);
    const CLWB: Self = feature(7, 0, Output::Ebx, 24);
    const SHA: Self = feature(7, 0, Output::Ebx, 29);
    pub(super) const UMIP: Self = feature(7, 0, Output::Ecx, 2);
    const GFNI: Self = feature(7, 0, Output::Ecx, 8);
    const VAES: Self = feature(7, 0, Output::Ecx, 9);
    const VPCLMULQDQ: Self = feature(7, 0, Output::Ecx, 10);
    pub(super) const LA57: Self = feature(7, 0, Output::Ecx, 16);
    pub(super) const RDPID: Self = feature(7, 0, Output::Ecx, 22);
    pub(super) const ARCH_CAPABILITIES: Self = feature(7, 0, Output::Edx, 29);
    pub(super) const XSAVEOPT: Self = feature(0xd, 1, Output::Eax, 0);
    pub(super) const XSAVEC: Self = feature(0xd, 1, Output::Eax, 1);
    pub(super) const XGETBV1: Self = feature(0xd, 1, Output::Eax, 2);
    pub(super) const XSAVES: Self = feature(0xd, 1, Output::Eax, 3);
    const LZCNT: Self = feature(0x8000_0001, 0, Output::Ecx, 5);
    const SSE4A: Self = feature(0x8000_0001, 0, Output::Ecx, 6);
    const PREFETCHW: Self = feature(0x8000_0001, 0, Output::Ecx, 8);
    pub(super) const NX: Self = feature(0x8000_0001, 0, Output::Edx, 20);
    pub(super) const RDTSCP: Self = feature(0x8000_0001, 0, Output::Edx, 27);

    fn of(self, values: [u32; 4]) -> bool {
        values[self.output as usize] >> self.bit & 1 != 0
    }

    /// Whether the guest's CPUID has the feature.
    pub(super) fn offered<E: Env>(self, cpu: &Cpu, env: &mut E) -> bool {
        self.of(env.cpuid(cpu, self.leaf, self.subleaf))
    }
}

/// How CPUID decides whether an instruction exists.
enum Rule {
    Always,
    Never,
    If(Feature),
}

/// The rule for an instruction-set extension, as the decoder names it.
fn rule(feature: CpuidFeature) -> Rule {
    use CpuidFeature as F;
    Rule::If(match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 => {
            return Rule::Always;
        }
        F::CMOV | F::CPUID | F::CX8 | F::FPU | F::FPU287 | F::FPU387 | F::FXSR | F::MMX => {
            return Rule::Always;
        }
        F::MSR | F::MULTIBYTENOP | F::PAUSE | F::SSE | F::SSE2 | F::SYSCALL | F::SEP => {
            return Rule::Always;
        }
        F::TSC | F::RDPMC | F::CLFSH | F::SMM => return Rule::Always,
        // Hints, which are no-operations on processors that lack the feature.
        F::CET_IBT | F::CLDEMOTE | F::PREFETCHITI | F::PREFETCHWT1 => return Rule::Always,
        // An unknown F3 prefix is ignored: WBNOINVD executes as WBINVD.
        F::WBNOINVD => return Rule::Always,
        F::PREFETCHW => Feature::PREFETCHW,
        F::SSE3 => Feature::SSE3,
        F::SSSE3 => Feature::SSSE3,
        F::SSE4_1 => Feature::SSE4_1,
        F::SSE4_2 => Feature::SSE4_2,
        F::SSE4A => Feature::SSE4A,
        F::AVX => Feature::AVX,
        F::AVX2 => Feature::AVX2,
        F::AVX512F => Feature::AVX512F,
        F::FMA => Feature::FMA,
        F::F16C => Feature::F16C,
        F::AES => Feature::AES,
        F::VAES => Feature::VAES,
        F::PCLMULQDQ => Feature::PCLMULQDQ,
        F::VPCLMULQDQ => Feature::VPCLMULQDQ,
        F::GFNI => Feature::GFNI,
        F::SHA => Feature::SHA,
        F::ADX => Feature::ADX,
        F::BMI1 => Feature::BMI1,
        F::BMI2 => Feature::BMI2,
        F::LZCNT => Feature::LZCNT,
        F::POPCNT => Feature::POPCNT,
        F::MOVBE => Feature::MOVBE,
        F::CMPXCHG16B => Feature::CMPXCHG16B,
        F::CLFLUSHOPT => Feature::CLFLUSHOPT,
        F::CLWB => Feature::CLWB,
        F::RDRAND => Feature::RDRAND,
        F::RDSEED => Feature::RDSEED,
        F::RDTSCP => Feature::RDTSCP,
        F::RDPID => Feature::RDPID,
        F::FSGSBASE => Feature::FSGSBASE,
        F::XSAVE => Feature::XSAVE,
        F::XSAVEOPT => Feature::XSAVEOPT,
        F::XSAVEC => Feature::XSAVEC,
        F::XSAVES => Feature::XSAVES,
        F::INVPCID => Feature::INVPCID,
        F::SMAP => Feature::SMAP,
        F::MONITOR => Feature::MONITOR,
        _ => return Rule::Never,
    })
}
