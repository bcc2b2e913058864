//! The way into a case and back.

use std::arch::global_asm;
use std::mem::offset_of;

use crate::layout::HOST_BLOCK;
use crate::state::{State, layout};

/// Bytes of the alternate signal stack.
pub(super) const STACK_SIZE: u64 = 0x2_0000;
/// The alternate signal stack, behind the block.
pub(super) const STACK: u64 = HOST_BLOCK + 0x1_0000;

/// What assembly, signal handler and harness share, at [`HOST_BLOCK`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Block {
    /// Registers before the case.
    pub input: State,
    /// Registers after it.
    pub output: State,
    /// Host stack pointer while a case runs.
    pub host_rsp: u64,
    /// Host FS base while a case runs.
    pub host_fs: u64,
    /// A case is running.
    pub active: u64,
    /// Where the handler resumes.
    pub resume: u64,
    /// Vector of the exception.
    pub vector: u64,
    /// Its error code.
    pub error_code: u64,
    /// CR2 of a page fault.
    pub address: u64,
    /// Frame for the way into 32-bit code: RIP, CS, RFLAGS, RSP, SS.
    pub frame: [u64; 5],
    /// Components of the XSAVE image.
    pub components: u64,
}

/// The block.
pub(super) fn block() -> *mut Block {
    HOST_BLOCK as *mut Block
}

unsafe extern "sysv64" {
    fn ringfence_testkit_enter();
    fn ringfence_testkit_enter32();
    fn ringfence_testkit_resume();
}

/// Runs the case whose input is in the block.
///
/// # Safety
/// The block is mapped and filled, the signal handler is installed on this thread, and the case
/// can do no harm.
pub(super) unsafe fn enter(compatibility: bool) {
    // SAFETY: by the contract.
    unsafe {
        (*block()).components = layout().components.into();
        (*block()).resume = ringfence_testkit_resume as *const () as u64;
        if compatibility {
            let input = &(*block()).input;
            (*block()).frame = [input.rip, 0x23, input.rflags, input.gpr[4], 0x2b];
            ringfence_testkit_enter32();
        } else {
            ringfence_testkit_enter();
        }
    }
}

const fn input(offset: usize) -> u64 {
    HOST_BLOCK + (offset_of!(Block, input) + offset) as u64
}

/// Absolute address of general register `n` of the input.
const fn gpr(n: usize) -> u64 {
    input(offset_of!(State, gpr) + n * 8)
}

macro_rules! entry {
    ($name:literal, $tail:literal) => {
        concat!(
            ".globl ",
            $name,
            "\n",
            $name,
            ":\n",
            "push rbx
            push rbp
            push r12
            push r13
            push r14
            push r15
            mov qword ptr [{host_rsp}], rsp
            rdfsbase rax
            mov qword ptr [{host_fs}], rax
            mov qword ptr [{active}], 1
            mov eax, dword ptr [{components}]
            xor edx, edx
            xrstor64 [{xsave}]
            mov rax, qword ptr [{gs_base}]
            wrgsbase rax
            mov rax, qword ptr [{fs_base}]
            wrfsbase rax
            mov rcx, qword ptr [{rcx}]
            mov rdx, qword ptr [{rdx}]
            mov rbx, qword ptr [{rbx}]
            mov rbp, qword ptr [{rbp}]
            mov rsi, qword ptr [{rsi}]
            mov rdi, qword ptr [{rdi}]
            mov r8, qword ptr [{r8}]
            mov r9, qword ptr [{r9}]
            mov r10, qword ptr [{r10}]
            mov r11, qword ptr [{r11}]
            mov r12, qword ptr [{r12}]
            mov r13, qword ptr [{r13}]
            mov r14, qword ptr [{r14}]
            mov r15, qword ptr [{r15}]\n",
            $tail
        )
    };
}

global_asm!(
    ".pushsection .text",
    entry!(
        "ringfence_testkit_enter",
        "push qword ptr [{rflags}]
        popfq
        mov rax, qword ptr [{rax}]
        mov rsp, qword ptr [{rsp}]
        jmp qword ptr [{rip}]\n"
    ),
    // The segment registers' bases go with the selectors, which 32-bit code needs set.
    entry!(
        "ringfence_testkit_enter32",
        "mov eax, 0x2b
        mov ds, eax
        mov es, eax
        mov rax, qword ptr [{rax}]
        lea rsp, [{frame}]
        iretq\n"
    ),
    // The kernel restores neither NT nor DF as the handler set them.
    ".globl ringfence_testkit_resume
    ringfence_testkit_resume:
        mov rsp, qword ptr [{host_rsp}]
        push 0x202
        popfq
        xor eax, eax
        mov ds, eax
        mov es, eax
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        vzeroupper
        ret
    .popsection",
    host_rsp = const HOST_BLOCK + offset_of!(Block, host_rsp) as u64,
    host_fs = const HOST_BLOCK + offset_of!(Block, host_fs) as u64,
    active = const HOST_BLOCK + offset_of!(Block, active) as u64,
    components = const HOST_BLOCK + offset_of!(Block, components) as u64,
    frame = const HOST_BLOCK + offset_of!(Block, frame) as u64,
    xsave = const input(offset_of!(State, xsave)),
    rip = const input(offset_of!(State, rip)),
    rflags = const input(offset_of!(State, rflags)),
    fs_base = const input(offset_of!(State, fs_base)),
    gs_base = const input(offset_of!(State, gs_base)),
    rax = const gpr(0),
    rcx = const gpr(1),
    rdx = const gpr(2),
    rbx = const gpr(3),
    rsp = const gpr(4),
    rbp = const gpr(5),
    rsi = const gpr(6),
    rdi = const gpr(7),
    r8 = const gpr(8),
    r9 = const gpr(9),
    r10 = const gpr(10),
    r11 = const gpr(11),
    r12 = const gpr(12),
    r13 = const gpr(13),
    r14 = const gpr(14),
    r15 = const gpr(15),
);
