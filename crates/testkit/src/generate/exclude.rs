//! What is not tested here, and why.

use iced_x86::{Code, Mnemonic};

/// Instructions that are not compared with the host, with the reason.
pub const EXCLUDED: &[(&[Mnemonic], &str)] = {
    use Mnemonic::*;
    &[
        (
            &[
                Syscall, Sysret, Sysretq, Sysenter, Sysexit, Sysexitq, Int, Int1, Into,
            ],
            "enters the host's kernel instead of the guest's",
        ),
        (
            &[Rdtsc, Rdtscp, Rdpmc, Rdpid],
            "reads the host's time or processor number",
        ),
        (&[Rdrand, Rdseed], "random result"),
        (&[Cpuid, Xgetbv], "the guest's answer is not the host's"),
        (
            &[Sgdt, Sidt, Sldt, Str, Smsw, Lar, Lsl, Verr, Verw],
            "shows the host's tables, or what its kernel emulates for UMIP",
        ),
        (
            &[Lds, Les, Lfs, Lgs, Lss, Iret, Iretd, Iretq, Retf],
            "loads a segment from random memory; the interpreter's own tests cover it",
        ),
        (
            &[
                Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64, Xsaves, Xsaves64, Xrstor,
                Xrstor64, Xrstors, Xrstors64, Fxsave, Fxsave64, Fxrstor, Fxrstor64,
            ],
            "compared with the host in crates/bt/src/interp/system/tests, with valid images",
        ),
        (
            &[Fnsave, Fsave, Frstor, Fnstenv, Fstenv, Fldenv],
            "the image shows the address of the last x87 instruction, which AMD and Intel keep \
             differently",
        ),
        (
            &[Monitor, Mwait, Monitorx, Mwaitx, Umonitor, Umwait, Tpause],
            "waits",
        ),
        (
            &[Hlt, In, Insb, Insw, Insd, Out, Outsb, Outsw, Outsd],
            "port I/O at CPL 0 is the machine's",
        ),
        (
            &[
                Vmcall, Vmmcall, Vmrun, Vmload, Vmsave, Stgi, Clgi, Skinit, Invlpga, Rsm,
            ],
            "virtualization, which the guest does not have",
        ),
        (
            &[Wrfsbase, Wrgsbase, Swapgs],
            "the harness finds its way back by FS and GS; the privileged tests cover them",
        ),
        (
            &[
                Endbr32,
                Endbr64,
                Rdsspd,
                Rdsspq,
                Incsspd,
                Incsspq,
                Cldemote,
                Prefetchit0,
                Prefetchit1,
            ],
            "a hint without effect",
        ),
        (
            &[Ud0, Ud1],
            "the operands of UD0 and UD1 are decoded by some processors only",
        ),
        (
            &[Clzero],
            "clears the line around RAX, whatever the operand size",
        ),
        (
            &[Xbegin, Xend, Xabort, Xtest],
            "transactional memory, which the guest does not have",
        ),
        (&[Salc], "only in 32-bit code, and undocumented"),
        (
            &[
                Loadall,
                Umov,
                Ibts,
                Xbts,
                Montmul,
                Xsha1,
                Xsha256,
                Ccs_hash,
                Ccs_encrypt,
            ],
            "no current processor has it",
        ),
    ]
};

/// Why instructions with this mnemonic are not compared with the host, if they are not.
pub fn excluded(mnemonic: Mnemonic) -> Option<&'static str> {
    let entry = EXCLUDED
        .iter()
        .find(|(mnemonics, _)| mnemonics.contains(&mnemonic))?;
    Some(entry.1)
}

/// Single codes whose form, not whose mnemonic, is excluded.
pub(super) fn excluded_form(code: Code) -> Option<&'static str> {
    use Code::*;
    match code {
        Jmp_m1616 | Jmp_m1632 | Jmp_m1664 | Call_m1616 | Call_m1632 | Call_m1664 | Jmp_ptr1616
        | Jmp_ptr1632 | Call_ptr1616 | Call_ptr1632 => {
            Some("far branch: the interpreter's own tests cover it")
        }
        Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 | Popw_FS | Popq_FS | Popw_GS
        | Popq_GS | Popd_FS | Popd_GS | Popw_ES | Popd_ES | Popw_SS | Popd_SS | Popw_DS
        | Popd_DS => Some("loads a segment; the privileged tests cover it"),
        Reservednop_rm16_r16_0F0D | Reservednop_rm32_r32_0F0D | Reservednop_rm64_r64_0F0D => {
            Some("a NOP on Intel, #UD on AMD")
        }
        Movsxd_r16_rm16 => Some("reads 16 bits on Intel, 32 on AMD"),
        _ => None,
    }
}

/// Instructions of which some processors leave undefined flags as they were. A translator may
/// have dropped the old values, as no program can count on them.
pub fn passes_flags(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mul | Imul
            | Div
            | Idiv
            | Bsf
            | Bsr
            | Tzcnt
            | Lzcnt
            | Shl
            | Sal
            | Shr
            | Sar
            | Shld
            | Shrd
            | Bextr
            | Bzhi
            | Aaa
            | Aas
            | Aam
            | Aad
            | Daa
            | Das
    )
}

/// Whether the instruction does something else at CPL 0 than at CPL 3.
pub fn ring_sensitive(code: Code) -> bool {
    use Mnemonic::*;
    let op = code.op_code();
    op.is_privileged()
        || !op.cpl3()
        || matches!(
            code.mnemonic(),
            Cli | Sti | Popf | Popfd | Popfq | Pushf | Pushfd | Pushfq | Clac | Stac | Clts | Mov
        ) && (code.mnemonic() != Mov || touches_segment(code))
        || matches!(code.mnemonic(), Push | Pop) && touches_segment(code)
}

/// Names a segment, control or debug register.
pub(super) fn touches_segment(code: Code) -> bool {
    use iced_x86::OpCodeOperandKind as K;
    let op = code.op_code();
    (0..op.op_count()).any(|i| {
        matches!(
            op.op_kind(i),
            K::seg_reg
                | K::cr_reg
                | K::dr_reg
                | K::tr_reg
                | K::es
                | K::cs
                | K::ss
                | K::ds
                | K::fs
                | K::gs
        )
    })
}
