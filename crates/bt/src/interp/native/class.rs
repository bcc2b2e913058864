//! What kind of floating-point or vector instruction an encoding is, and whether it may run now
//! (SDM vol. 2A, 2.4; vol. 3A, 13.1).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic};
use iced_x86::{OpAccess, OpKind};
use ringfence_x86::{cr, exception};

use super::state;
use crate::cpu::Cpu;
use crate::env::Trap;

/// Register file an instruction works on, which decides its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// x87, waiting: reports pending exceptions.
    X87,
    /// x87 control instruction that does not wait.
    X87Control,
    /// MMX registers only.
    Mmx,
    /// XMM and MMX registers.
    SseMmx,
    /// XMM registers, legacy encoding.
    Sse,
    /// VEX encoding.
    Avx,
    /// EVEX encoding, or opmask registers.
    Avx512,
}

/// What the native runner must know about an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits(u16);

impl Traits {
    const KNOWN: u16 = 1;
    const NATIVE: u16 = 1 << 1;
    const READS: u16 = 1 << 2;
    const WRITES: u16 = 1 << 3;
    const ALIGNED: u16 = 1 << 4;
    const FLAGS: u16 = 1 << 5;
    const KIND_SHIFT: u32 = 8;

    /// The memory operand is read.
    pub fn reads(self) -> bool {
        self.0 & Self::READS != 0
    }
    /// The memory operand is written.
    pub fn writes(self) -> bool {
        self.0 & Self::WRITES != 0
    }
    /// A memory operand that is not aligned to its size raises #GP(0).
    pub fn aligned(self) -> bool {
        self.0 & Self::ALIGNED != 0
    }
    /// Arithmetic flags are read or written.
    pub fn flags(self) -> bool {
        self.0 & Self::FLAGS != 0
    }
    /// The register file.
    pub fn kind(self) -> Kind {
        match self.0 >> Self::KIND_SHIFT {
            0 => Kind::X87,
            1 => Kind::X87Control,
            2 => Kind::Mmx,
            3 => Kind::SseMmx,
            4 => Kind::Sse,
            5 => Kind::Avx,
            _ => Kind::Avx512,
        }
    }
}

static TABLE: LazyLock<Box<[AtomicU16]>> =
    LazyLock::new(|| Code::values().map(|_| AtomicU16::new(0)).collect());

/// Traits of an instruction that the host can run; `None` for all others.
pub fn traits(instruction: &Instruction) -> Option<Traits> {
    let slot = TABLE.get(instruction.code() as usize)?;
    let mut bits = slot.load(Ordering::Relaxed);
    if bits == 0 {
        bits = Traits::KNOWN | classify(instruction).unwrap_or(0);
        slot.store(bits, Ordering::Relaxed);
    }
    (bits & Traits::NATIVE != 0).then_some(Traits(bits))
}

fn classify(instruction: &Instruction) -> Option<u16> {
    let kind = kind(instruction)?;
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let mut bits = Traits::NATIVE | (kind as u16) << Traits::KIND_SHIFT;
    // One code has register and memory forms; the access is that of the memory form.
    for operand in 0..instruction.op_count() {
        if instruction.op_kind(operand) == OpKind::Memory || memory_slot(instruction, operand) {
            bits |= match info.op_access(operand) {
                // XOR or SUB of a register with itself reads nothing, but memory it would.
                OpAccess::None => Traits::READS,
                access => memory_access(access),
            };
        }
    }
    if aligned(instruction, kind) {
        bits |= Traits::ALIGNED;
    }
    if instruction.rflags_read() | instruction.rflags_modified() != 0 {
        bits |= Traits::FLAGS;
    }
    Some(bits)
}

/// Whether the encoding allows memory in place of this register operand.
fn memory_slot(instruction: &Instruction, operand: u32) -> bool {
    format!("{:?}", instruction.op_code().op_kind(operand)).contains("mem")
}

fn memory_access(access: OpAccess) -> u16 {
    match access {
        OpAccess::Read | OpAccess::CondRead => Traits::READS,
        OpAccess::Write | OpAccess::CondWrite => Traits::WRITES,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Traits::READS | Traits::WRITES,
        _ => 0,
    }
}

/// The kind, when the host has all features that the instruction needs.
fn kind(instruction: &Instruction) -> Option<Kind> {
    use CpuidFeature as F;
    let features = instruction.cpuid_features();
    if !features.iter().all(|feature| host_has(*feature)) {
        return None;
    }
    let has = |feature| features.contains(&feature);
    let name = instruction.mnemonic();
    match instruction.encoding() {
        EncodingKind::Legacy => {}
        EncodingKind::VEX if features.iter().any(|&f| is_avx512(f)) => return Some(Kind::Avx512),
        EncodingKind::VEX => return Some(Kind::Avx),
        EncodingKind::EVEX => return Some(Kind::Avx512),
        _ => return None,
    }
    if has(F::FPU) || has(F::FPU287) || has(F::FPU387) || name == Mnemonic::Fisttp {
        return Some(match name {
            Mnemonic::Fninit
            | Mnemonic::Fnclex
            | Mnemonic::Fnstcw
            | Mnemonic::Fnstsw
            | Mnemonic::Fneni
            | Mnemonic::Fndisi
            | Mnemonic::Fnsetpm => Kind::X87Control,
            _ => Kind::X87,
        });
    }
    Some(match name {
        Mnemonic::Cvtpi2ps
        | Mnemonic::Cvtpi2pd
        | Mnemonic::Cvtps2pi
        | Mnemonic::Cvttps2pi
        | Mnemonic::Cvtpd2pi
        | Mnemonic::Cvttpd2pi
        | Mnemonic::Movdq2q
        | Mnemonic::Movq2dq => Kind::SseMmx,
        Mnemonic::Emms => Kind::Mmx,
        _ if (0..instruction.op_count()).any(|operand| {
            instruction.op_kind(operand) == OpKind::Register
                && instruction.op_register(operand).is_mm()
        }) =>
        {
            Kind::Mmx
        }
        _ => Kind::Sse,
    })
}

/// Whether the host has a feature whose instructions run natively.
fn host_has(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    match feature {
        F::FPU | F::FPU287 | F::FPU387 | F::MMX | F::SSE | F::SSE2 => true,
        F::CMOV => true,
        F::SSE3 => is_x86_feature_detected!("sse3"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::SSE4A => is_x86_feature_detected!("sse4a"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::GFNI => is_x86_feature_detected!("gfni"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        F::AVX_VNNI => is_x86_feature_detected!("avxvnni"),
        F::AVX512F => is_x86_feature_detected!("avx512f"),
        F::AVX512DQ => is_x86_feature_detected!("avx512dq"),
        F::AVX512_IFMA => is_x86_feature_detected!("avx512ifma"),
        F::AVX512CD => is_x86_feature_detected!("avx512cd"),
        F::AVX512BW => is_x86_feature_detected!("avx512bw"),
        F::AVX512VL => is_x86_feature_detected!("avx512vl"),
        F::AVX512_VBMI => is_x86_feature_detected!("avx512vbmi"),
        F::AVX512_VBMI2 => is_x86_feature_detected!("avx512vbmi2"),
        F::AVX512_VNNI => is_x86_feature_detected!("avx512vnni"),
        F::AVX512_BITALG => is_x86_feature_detected!("avx512bitalg"),
        F::AVX512_VPOPCNTDQ => is_x86_feature_detected!("avx512vpopcntdq"),
        F::AVX512_BF16 => is_x86_feature_detected!("avx512bf16"),
        _ => false,
    }
}

/// The parts of AVX-512 that are offered.
pub fn is_avx512(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::AVX512F
            | F::AVX512DQ
            | F::AVX512_IFMA
            | F::AVX512CD
            | F::AVX512BW
            | F::AVX512VL
            | F::AVX512_VBMI
            | F::AVX512_VBMI2
            | F::AVX512_VNNI
            | F::AVX512_BITALG
            | F::AVX512_VPOPCNTDQ
            | F::AVX512_BF16
    )
}

/// Memory operands that must be aligned: those of 16 bytes in legacy SSE, with exceptions, and
/// the aligned and streaming moves of AVX (SDM vol. 1, 14.9).
fn aligned(instruction: &Instruction, kind: Kind) -> bool {
    use Mnemonic::*;
    let name = instruction.mnemonic();
    match kind {
        Kind::Avx | Kind::Avx512 => matches!(
            name,
            Vmovaps
                | Vmovapd
                | Vmovdqa
                | Vmovdqa32
                | Vmovdqa64
                | Vmovntps
                | Vmovntpd
                | Vmovntdq
                | Vmovntdqa
        ),
        Kind::Sse | Kind::SseMmx => {
            !matches!(
                name,
                Movups
                    | Movupd
                    | Movdqu
                    | Lddqu
                    | Pcmpestri
                    | Pcmpestri64
                    | Pcmpestrm
                    | Pcmpestrm64
                    | Pcmpistri
                    | Pcmpistrm
            ) && (!name_is_sha(name) || *SHA_ALIGNED)
        }
        _ => false,
    }
}

/// SHA instructions check the alignment of their operand, but not on AMD's processors.
static SHA_ALIGNED: LazyLock<bool> = LazyLock::new(|| {
    // SAFETY: every x86-64 processor has CPUID, and it has no effect.
    #[allow(unused_unsafe)]
    let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
    (vendor.ebx, vendor.edx, vendor.ecx) != (0x6874_7541, 0x6974_6e65, 0x444d_4163)
});

fn name_is_sha(name: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        name,
        Sha1msg1 | Sha1msg2 | Sha1nexte | Sha1rnds4 | Sha256msg1 | Sha256msg2 | Sha256rnds2
    )
}

/// Whether an instruction of `kind` may run: #UD or #NM by CR0, CR4 and XCR0, and #MF when an
/// x87 exception is pending that it must report.
///
/// # Errors
/// That exception.
pub fn fpu_check(cpu: &Cpu, kind: Kind) -> Result<(), Trap> {
    let (em, ts) = (cpu.cr0 & cr::CR0_EM != 0, cpu.cr0 & cr::CR0_TS != 0);
    match kind {
        Kind::X87 | Kind::X87Control => {
            if em || ts {
                return Err(Trap::NM);
            }
        }
        Kind::Mmx | Kind::Sse | Kind::SseMmx => {
            if em || kind != Kind::Mmx && cpu.cr4 & cr::CR4_OSFXSR == 0 {
                return Err(Trap::UD);
            }
        }
        Kind::Avx | Kind::Avx512 => {
            let mut needed = cr::XCR0_SSE | cr::XCR0_AVX;
            if kind == Kind::Avx512 {
                needed |= cr::XCR0_AVX512;
            }
            let enabled = cpu.cr4 & cr::CR4_OSXSAVE != 0 && cpu.xcr0 & needed == needed;
            if !enabled || cpu.real_mode() || cpu.virtual8086() {
                return Err(Trap::UD);
            }
        }
    }
    if ts {
        return Err(Trap::NM);
    }
    if matches!(kind, Kind::X87 | Kind::Mmx | Kind::SseMmx) && state::x87_pending(cpu) {
        return Err(Trap::fault(exception::MF));
    }
    Ok(())
}
