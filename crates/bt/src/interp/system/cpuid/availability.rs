//! Which instructions exist for a guest that sees given features.

use iced_x86::{Code, CpuidFeature};

use super::feature::{Feature, FeatureSet};

/// What becomes of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It executes.
    Present,
    /// It raises #UD.
    Absent,
    /// It raises #UD in 64-bit mode: LAHF and SAHF on early 64-bit processors.
    AbsentIn64Bit,
    /// The F3 prefix is ignored: TZCNT executes as BSF, LZCNT as BSR (SDM vol. 2, TZCNT).
    BitScan,
}

/// How CPUID decides whether an extension exists.
enum Rule {
    Always,
    Never,
    If(Feature),
}

/// The rule for an instruction-set extension, as the decoder names it.
fn rule(feature: CpuidFeature) -> Rule {
    use CpuidFeature as F;
    Rule::If(match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::CPUID => {
            return Rule::Always;
        }
        F::FPU | F::FPU287 | F::FPU387 | F::RDPMC | F::SMM => return Rule::Always,
        // Hints, which are no-operations on processors that lack the feature.
        F::MULTIBYTENOP | F::PAUSE | F::CET_IBT | F::CLDEMOTE | F::PREFETCHITI => {
            return Rule::Always;
        }
        F::PREFETCHWT1 => return Rule::Always,
        // An unknown F3 prefix is ignored: WBNOINVD executes as WBINVD.
        F::WBNOINVD => return Rule::Always,
        F::X64 => Feature::LM,
        F::CMOV => Feature::CMOV,
        F::CX8 => Feature::CX8,
        F::FXSR => Feature::FXSR,
        F::MMX => Feature::MMX,
        F::MSR => Feature::MSR,
        F::TSC => Feature::TSC,
        F::SEP => Feature::SEP,
        F::SYSCALL => Feature::SYSCALL,
        F::CLFSH => Feature::CLFLUSH,
        F::PREFETCHW => Feature::PREFETCHW,
        F::SSE => Feature::SSE,
        F::SSE2 => Feature::SSE2,
        F::SSE3 => Feature::SSE3,
        F::SSSE3 => Feature::SSSE3,
        F::SSE4_1 => Feature::SSE4_1,
        F::SSE4_2 => Feature::SSE4_2,
        F::SSE4A => Feature::SSE4A,
        F::AVX => Feature::AVX,
        F::AVX2 => Feature::AVX2,
        F::AVX512F => Feature::AVX512F,
        F::AVX512BW => Feature::AVX512BW,
        F::AVX512CD => Feature::AVX512CD,
        F::AVX512DQ => Feature::AVX512DQ,
        F::AVX512VL => Feature::AVX512VL,
        F::AVX512_IFMA => Feature::AVX512IFMA,
        F::AVX512_VBMI => Feature::AVX512VBMI,
        F::AVX512_VBMI2 => Feature::AVX512VBMI2,
        F::AVX512_VNNI => Feature::AVX512VNNI,
        F::AVX512_BITALG => Feature::AVX512BITALG,
        F::AVX512_VPOPCNTDQ => Feature::AVX512VPOPCNTDQ,
        F::AVX512_BF16 => Feature::AVX512BF16,
        F::AVX_VNNI => Feature::AVX_VNNI,
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
        F::CLZERO => Feature::CLZERO,
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

/// Whether instructions of an extension exist for a guest that sees `features`.
pub(super) fn extension(features: &FeatureSet, extension: CpuidFeature) -> bool {
    match rule(extension) {
        Rule::Always => true,
        Rule::Never => false,
        // 64-bit processors have the encoding, as a no-operation at least (APM vol. 3, PREFETCH).
        Rule::If(Feature::PREFETCHW) if features.has(Feature::LM) => true,
        Rule::If(feature) => features.has(feature),
    }
}

/// [`Availability`] of an instruction for a guest that sees `features`.
pub(super) fn of(features: &FeatureSet, code: Code) -> Availability {
    // Without shadow stacks they are the hint NOPs whose encodings they took (SDM vol. 2, RDSSPD).
    if matches!(code, Code::Rdsspd_r32 | Code::Rdsspq_r64) {
        return Availability::Present;
    }
    if code
        .cpuid_features()
        .iter()
        .all(|&f| extension(features, f))
    {
        let lahf = matches!(code, Code::Lahf | Code::Sahf);
        return if lahf && !features.has(Feature::LAHF) {
            Availability::AbsentIn64Bit
        } else {
            Availability::Present
        };
    }
    if bit_scan(code).is_some() {
        Availability::BitScan
    } else if matches!(code, Code::Rdsspd_r32 | Code::Rdsspq_r64) {
        // Without shadow stacks a no-operation (SDM vol. 2, RDSSP), by which Xen finds them out.
        Availability::Present
    } else {
        Availability::Absent
    }
}

/// BSF for TZCNT and BSR for LZCNT, of the same operand size.
pub fn bit_scan(code: Code) -> Option<Code> {
    Some(match code {
        Code::Tzcnt_r16_rm16 => Code::Bsf_r16_rm16,
        Code::Tzcnt_r32_rm32 => Code::Bsf_r32_rm32,
        Code::Tzcnt_r64_rm64 => Code::Bsf_r64_rm64,
        Code::Lzcnt_r16_rm16 => Code::Bsr_r16_rm16,
        Code::Lzcnt_r32_rm32 => Code::Bsr_r32_rm32,
        Code::Lzcnt_r64_rm64 => Code::Bsr_r64_rm64,
        _ => return None,
    })
}
