//! The one table that says how each instruction code is translated.

use std::sync::OnceLock;

use iced_x86::{
    Code, CpuidFeature as F, EncodingKind, Instruction, Mnemonic as M, OpCodeOperandKind as K,
};

use crate::interp::native::class::is_avx512;

/// How an instruction is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Re-encoded as it is, but for registers and the memory operand.
    Plain,
    /// Executed by the interpreter; ends the block.
    Interpret,
    /// Dropped: no operation, or a hint.
    Nop,
    /// LEA.
    Lea,
    /// PUSH of a register, an immediate or memory.
    Push,
    /// POP to a register.
    Pop,
    /// LEAVE.
    Leave,
    /// CALL rel.
    Call,
    /// CALL r/m.
    CallIndirect,
    /// JMP rel.
    Jump,
    /// JMP r/m.
    JumpIndirect,
    /// Jcc.
    JumpIf,
    /// JRCXZ, JECXZ.
    JumpIfZero,
    /// LOOP.
    Loop,
    /// RET.
    Return,
    /// BT, BTS, BTR, BTC with a register as bit offset: a string of bits when in memory.
    BitTest,
    /// MOV with a 64-bit absolute address.
    AbsoluteMove,
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// PUSHF.
    PushFlags,
    /// MOV from a segment register to a general register.
    ReadSelector,
    /// CLI at privilege level 0.
    Cli,
    /// STI at privilege level 0.
    Sti,
    /// CLD.
    Cld,
    /// CLAC at privilege level 0.
    Clac,
    /// STAC at privilege level 0.
    Stac,
    /// PAUSE.
    Pause,
    /// SWAPGS at privilege level 0.
    Swapgs,
    /// LODS.
    Lods,
    /// STOS.
    Stos,
    /// MOVS.
    Movs,
    /// SCAS.
    Scas,
    /// CMPS.
    Cmps,
    /// XLAT.
    Xlat,
    /// ENTER without nesting.
    Enter,
    /// POPF that changes nothing but arithmetic flags, DF, and IF where it may.
    PopFlags,
    /// PUSHA.
    PushAll,
    /// POPA.
    PopAll,
    /// PUSH of a segment register.
    PushSelector,
    /// POP to a segment register where the 8086's rules hold.
    PopSelector,
    /// MOV to a segment register where the 8086's rules hold.
    LoadSelector,
    /// LDS, LES, LSS, LFS, LGS where the 8086's rules hold.
    FarPointer,
    /// SYSCALL in 64-bit mode.
    Syscall,
    /// SYSRET to 64-bit mode at privilege level 0.
    Sysret,
}

impl Kind {
    /// Only privilege level 0 may do it; elsewhere the interpreter raises the fault.
    pub fn is_privileged(self) -> bool {
        use Kind::{Clac, Cli, Stac, Sti, Swapgs, Sysret};
        matches!(self, Cli | Sti | Swapgs | Sysret | Clac | Stac)
    }
}

/// Where an operand is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// Implied, immediate, or not a general register.
    #[default]
    None,
    /// ModRM.reg.
    Reg,
    /// ModRM.rm.
    Rm,
    /// The low bits of the opcode.
    Opcode,
    /// VEX.vvvv.
    Vvvv,
}

/// Properties of an instruction code.
#[derive(Clone, Copy, Debug)]
pub struct CodeInfo {
    /// How it is translated.
    pub kind: Kind,
    /// Touches x87, MMX, SSE or AVX state.
    pub fp: bool,
    /// Needs AVX state to be enabled.
    pub avx: bool,
    /// Needs AVX-512 state to be enabled.
    pub avx512: bool,
    /// May raise a fault on the host: FP exceptions, alignment, divide error.
    pub faults: bool,
    /// Operand size in bytes, where the operand-size prefix chooses between 2 and 4.
    pub operand: Option<u8>,
    /// Has a ModRM byte.
    pub modrm: bool,
    /// The r/m operand may be a register or memory.
    pub rm_any: bool,
    /// Encodings of the operands.
    pub fields: [Field; 5],
}

/// Properties of `instruction`'s code.
pub fn info(instruction: &Instruction) -> &'static CodeInfo {
    static TABLE: OnceLock<Vec<CodeInfo>> = OnceLock::new();
    &TABLE.get_or_init(|| Code::values().map(classify).collect())[instruction.code() as usize]
}

fn classify(code: Code) -> CodeInfo {
    let op = code.op_code();
    let mnemonic = code.mnemonic();
    let mut fields = [Field::None; 5];
    let mut modrm = false;
    let (mut vsib, mut rm_any) = (false, false);
    for (i, field) in fields.iter_mut().enumerate().take(op.op_count() as usize) {
        let kind = op.op_kind(i as u32);
        *field = field_of(kind);
        rm_any |= matches!(kind, K::r32_or_mem | K::r64_or_mem);
        modrm |= matches!(*field, Field::Reg | Field::Rm) || vector_modrm(kind);
        vsib |= matches!(kind, K::mem_vsib32x | K::mem_vsib64x | K::mem_vsib32y)
            || matches!(kind, K::mem_vsib64y | K::mem_vsib32z | K::mem_vsib64z);
    }
    let fp = is_fp(code);
    let evex = op.encoding() == EncodingKind::EVEX;
    let vex = op.encoding() != EncodingKind::Legacy;
    let kind = if vsib || op.encoding() == EncodingKind::D3NOW {
        Kind::Interpret
    } else {
        kind(code)
    };
    CodeInfo {
        kind,
        fp,
        avx: fp && vex,
        operand: match op.operand_size() {
            16 => Some(2),
            32 => Some(4),
            _ => None,
        },
        avx512: code.cpuid_features().iter().any(|&f| is_avx512(f)) || evex,
        faults: fp || matches!(mnemonic, M::Div | M::Idiv | M::Cmpxchg16b),
        modrm: modrm || evex,
        rm_any,
        fields,
    }
}

fn field_of(kind: K) -> Field {
    match kind {
        K::r8_reg
        | K::r16_reg
        | K::r16_reg_mem
        | K::r32_reg
        | K::r32_reg_mem
        | K::r64_reg
        | K::r64_reg_mem => Field::Reg,
        K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::r32_or_mem_mpx
        | K::r64_or_mem_mpx
        | K::r16_rm
        | K::r32_rm
        | K::r64_rm
        | K::mem
        | K::mem_mib
        | K::mem_mpx => Field::Rm,
        K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode => Field::Opcode,
        K::r32_vvvv | K::r64_vvvv => Field::Vvvv,
        _ => Field::None,
    }
}

/// Vector and x87 operands that are encoded in ModRM.
fn vector_modrm(kind: K) -> bool {
    matches!(
        kind,
        K::mm_reg
            | K::mm_rm
            | K::mm_or_mem
            | K::xmm_reg
            | K::xmm_rm
            | K::xmm_or_mem
            | K::ymm_reg
            | K::ymm_rm
            | K::ymm_or_mem
            | K::zmm_reg
            | K::zmm_rm
            | K::zmm_or_mem
            | K::k_reg
            | K::k_rm
            | K::k_or_mem
    )
}

fn is_fp(code: Code) -> bool {
    let hint = matches!(
        code.mnemonic(),
        M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Sfence
            | M::Lfence
            | M::Mfence
            | M::Movnti
            | M::Crc32
            | M::Pause
            | M::Clflush
            | M::Popcnt
    );
    !hint
        && code.cpuid_features().iter().any(|&feature| {
            is_avx512(feature)
                || matches!(
                    feature,
                    F::FPU
                        | F::FPU287
                        | F::FPU387
                        | F::FPU287XL_ONLY
                        | F::FPU387SL_ONLY
                        | F::MMX
                        | F::SSE
                        | F::SSE2
                        | F::SSE3
                        | F::SSSE3
                        | F::SSE4_1
                        | F::SSE4_2
                        | F::SSE4A
                        | F::AVX
                        | F::AVX2
                        | F::FMA
                        | F::F16C
                        | F::AES
                        | F::PCLMULQDQ
                        | F::SHA
                        | F::GFNI
                        | F::VAES
                        | F::VPCLMULQDQ
                        | F::AVX_VNNI
                )
        })
}

/// Instructions that the translator takes are listed by what they are; the rest, which is rare or
/// privileged, is the interpreter's.
fn kind(code: Code) -> Kind {
    use iced_x86::FlowControl as C;
    let mnemonic = code.mnemonic();
    match mnemonic {
        M::Nop
        | M::Endbr64
        | M::Endbr32
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Reservednop => return Kind::Nop,
        M::Lea => return Kind::Lea,
        M::Leave => {
            return Kind::Leave;
        }
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => return Kind::Lods,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => return Kind::Stos,
        M::Movsb | M::Movsw | M::Movsq => return Kind::Movs,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => return Kind::Scas,
        M::Cmpsb | M::Cmpsw | M::Cmpsq => return Kind::Cmps,
        M::Xlatb => return Kind::Xlat,
        M::Enter => return Kind::Enter,
        M::Popf | M::Popfd | M::Popfq => return Kind::PopFlags,
        M::Rdtsc => return Kind::Rdtsc,
        M::Rdtscp => return Kind::Rdtscp,
        M::Pause => return Kind::Pause,
        M::Cli => return Kind::Cli,
        M::Sti => return Kind::Sti,
        M::Clac => return Kind::Clac,
        M::Stac => return Kind::Stac,
        M::Cld => return Kind::Cld,
        M::Swapgs => return Kind::Swapgs,
        _ => {}
    }
    match code {
        Code::Movsd_m32_m32 => return Kind::Movs,
        Code::Cmpsd_m32_m32 => return Kind::Cmps,
        Code::Push_r16
        | Code::Push_imm16
        | Code::Pushw_imm8
        | Code::Push_rm16
        | Code::Push_r64
        | Code::Push_r32
        | Code::Pushq_imm8
        | Code::Pushd_imm8
        | Code::Pushq_imm32
        | Code::Pushd_imm32
        | Code::Push_rm64
        | Code::Push_rm32 => {
            return Kind::Push;
        }
        Code::Pop_r64 | Code::Pop_r32 | Code::Pop_r16 => return Kind::Pop,
        Code::Pushaw | Code::Pushad => return Kind::PushAll,
        Code::Popaw | Code::Popad => return Kind::PopAll,
        Code::Pushw_ES
        | Code::Pushw_CS
        | Code::Pushw_SS
        | Code::Pushw_DS
        | Code::Pushw_FS
        | Code::Pushw_GS
        | Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS => return Kind::PushSelector,
        Code::Popw_ES
        | Code::Popw_SS
        | Code::Popw_DS
        | Code::Popw_FS
        | Code::Popw_GS
        | Code::Popd_ES
        | Code::Popd_SS
        | Code::Popd_DS
        | Code::Popd_FS
        | Code::Popd_GS => return Kind::PopSelector,
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => return Kind::LoadSelector,
        Code::Les_r16_m1616
        | Code::Les_r32_m1632
        | Code::Lds_r16_m1616
        | Code::Lds_r32_m1632
        | Code::Lss_r16_m1616
        | Code::Lss_r32_m1632
        | Code::Lfs_r16_m1616
        | Code::Lfs_r32_m1632
        | Code::Lgs_r16_m1616
        | Code::Lgs_r32_m1632 => return Kind::FarPointer,
        Code::Pushfw | Code::Pushfq | Code::Pushfd => return Kind::PushFlags,
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
            return Kind::ReadSelector;
        }
        Code::Syscall => return Kind::Syscall,
        Code::Sysretq => return Kind::Sysret,
        Code::Pop_rm64 | Code::Pop_rm32 => return Kind::Interpret,
        Code::Bt_rm32_r32
        | Code::Bt_rm64_r64
        | Code::Bts_rm32_r32
        | Code::Bts_rm64_r64
        | Code::Btr_rm32_r32
        | Code::Btr_rm64_r64
        | Code::Btc_rm32_r32
        | Code::Btc_rm64_r64 => {
            return Kind::BitTest;
        }
        Code::Bt_rm16_r16 | Code::Bts_rm16_r16 | Code::Btr_rm16_r16 | Code::Btc_rm16_r16 => {
            return Kind::Interpret;
        }
        Code::Mov_AL_moffs8
        | Code::Mov_AX_moffs16
        | Code::Mov_EAX_moffs32
        | Code::Mov_RAX_moffs64
        | Code::Mov_moffs8_AL
        | Code::Mov_moffs16_AX
        | Code::Mov_moffs32_EAX
        | Code::Mov_moffs64_RAX => return Kind::AbsoluteMove,
        Code::Call_rel16 | Code::Call_rel32_64 | Code::Call_rel32_32 => return Kind::Call,
        Code::Call_rm16 | Code::Call_rm64 | Code::Call_rm32 => return Kind::CallIndirect,
        Code::Jmp_rm16 | Code::Jmp_rm64 | Code::Jmp_rm32 => return Kind::JumpIndirect,
        Code::Jmp_rel8_16
        | Code::Jmp_rel16
        | Code::Jmp_rel8_64
        | Code::Jmp_rel8_32
        | Code::Jmp_rel32_64
        | Code::Jmp_rel32_32 => {
            return Kind::Jump;
        }
        Code::Retnw
        | Code::Retnw_imm16
        | Code::Retnq
        | Code::Retnd
        | Code::Retnq_imm16
        | Code::Retnd_imm16 => return Kind::Return,
        Code::Jrcxz_rel8_64
        | Code::Jecxz_rel8_64
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_16
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => {
            return Kind::JumpIfZero;
        }
        Code::Loop_rel8_64_RCX
        | Code::Loop_rel8_64_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX => {
            return Kind::Loop;
        }
        _ => {}
    }
    if code.is_jcc_short_or_near() {
        return Kind::JumpIf;
    }
    if code.flow_control() != C::Next
        || code.op_code().is_input_output()
        || code.is_string_instruction()
    {
        return Kind::Interpret;
    }
    let plain_integer = matches!(
        mnemonic,
        M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Movbe
            | M::Movnti
            | M::Xchg
            | M::Xadd
            | M::Cmpxchg
            | M::Cmpxchg8b
            | M::Cmpxchg16b
            | M::Bswap
            | M::Add
            | M::Or
            | M::Adc
            | M::Sbb
            | M::And
            | M::Sub
            | M::Xor
            | M::Cmp
            | M::Test
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shld
            | M::Shrd
            | M::Mul
            | M::Imul
            | M::Div
            | M::Idiv
            | M::Bt
            | M::Bts
            | M::Btr
            | M::Btc
            | M::Bsf
            | M::Bsr
            | M::Popcnt
            | M::Lzcnt
            | M::Tzcnt
            | M::Andn
            | M::Bextr
            | M::Blsi
            | M::Blsmsk
            | M::Blsr
            | M::Bzhi
            | M::Mulx
            | M::Pdep
            | M::Pext
            | M::Rorx
            | M::Sarx
            | M::Shlx
            | M::Shrx
            | M::Adcx
            | M::Adox
            | M::Crc32
            | M::Cbw
            | M::Cwde
            | M::Cdqe
            | M::Cwd
            | M::Cdq
            | M::Cqo
            | M::Lahf
            | M::Sahf
            | M::Clc
            | M::Stc
            | M::Cmc
            | M::Pause
            | M::Lfence
            | M::Sfence
            | M::Mfence
            | M::Rdrand
            | M::Rdseed
    );
    let conditional = code.condition_code() != iced_x86::ConditionCode::None;
    if (plain_integer || conditional) && !touches_segment_or_control(code) {
        return Kind::Plain;
    }
    let saved_state = matches!(
        mnemonic,
        M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Fnstenv
            | M::Fldenv
            | M::Fnsave
            | M::Frstor
            | M::Fstenv
            | M::Fsave
            | M::Maskmovdqu
            | M::Maskmovq
            | M::Vmaskmovdqu
            | M::Wait
            | M::Clflush
            | M::Clflushopt
            | M::Clwb
    );
    if is_fp(code) && !saved_state {
        Kind::Plain
    } else {
        Kind::Interpret
    }
}

/// MOV to and from segment, control, debug and test registers.
fn touches_segment_or_control(code: Code) -> bool {
    let op = code.op_code();
    (0..op.op_count()).any(|i| {
        matches!(
            op.op_kind(i),
            K::seg_reg | K::cr_reg | K::dr_reg | K::tr_reg | K::mem_offs
        )
    })
}
