//! The signals in which a case ends.

use std::arch::global_asm;
use std::mem::{MaybeUninit, offset_of, zeroed};
use std::ptr::{copy_nonoverlapping, null, null_mut};
use std::sync::Once;

use libc::{
    SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, c_int, c_void, sigaction, siginfo_t, ucontext_t,
};

use super::thunk::{Block, STACK, STACK_SIZE, block};
use crate::layout::HOST_BLOCK;
use crate::state::{MXCSR, layout};

const SIGNALS: [c_int; 5] = [SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP];
static mut PREVIOUS: [MaybeUninit<sigaction>; 5] = [const { MaybeUninit::uninit() }; 5];

/// Positions of RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 in the kernel's array.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Makes the process handle the signals of faults, and this thread handle them on the harness's
/// stack.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (i, signal) in SIGNALS.into_iter().enumerate() {
            // SAFETY: plain registration of a handler; `PREVIOUS` is written here only, before
            // the handler can run.
            unsafe {
                let mut action: sigaction = zeroed();
                action.sa_sigaction = ringfence_testkit_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigaction(signal, null(), (&raw mut PREVIOUS[i]).cast());
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
    });
    let stack = libc::stack_t {
        ss_sp: STACK as *mut c_void,
        ss_flags: 0,
        ss_size: STACK_SIZE as usize,
    };
    // SAFETY: the stack is mapped and used by one thread at a time, the owner of the harness.
    unsafe { libc::sigaltstack(&raw const stack, null_mut()) };
}

unsafe extern "C" {
    fn ringfence_testkit_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void);
}

// A case may have set AC and moved FS, which Rust code relies on: both are put right first.
global_asm!(
    ".pushsection .text
    .globl ringfence_testkit_signal
    ringfence_testkit_signal:
        pushfq
        btr qword ptr [rsp], 18
        popfq
        mov rax, rsp
        sub rax, {stack}
        cmp rax, {stack_size}
        jae 2f
        cmp qword ptr [{active}], 0
        je 2f
        mov qword ptr [{active}], 0
        rdfsbase rax
        mov qword ptr [{fs}], rax
        rdgsbase rax
        mov qword ptr [{gs}], rax
        mov rax, qword ptr [{host_fs}]
        wrfsbase rax
        mov rdi, rdx
        jmp {capture}
    2:  jmp {forward}
    .popsection",
    stack = const STACK,
    stack_size = const STACK_SIZE,
    active = const HOST_BLOCK + offset_of!(Block, active) as u64,
    host_fs = const HOST_BLOCK + offset_of!(Block, host_fs) as u64,
    fs = const HOST_BLOCK + offset_of!(Block, output.fs_base) as u64,
    gs = const HOST_BLOCK + offset_of!(Block, output.gs_base) as u64,
    capture = sym capture,
    forward = sym forward,
);

/// Copies what the case left, and sends the thread back to the harness.
unsafe extern "C" fn capture(context: *mut ucontext_t) {
    // SAFETY: the kernel passes a valid context; the case's thread owns the block, and the
    // frame's extended state has the standard XSAVE format.
    unsafe {
        let machine = &mut (*context).uc_mcontext;
        let registers = &mut machine.gregs;
        let block = &mut *block();
        for (to, from) in block.output.gpr.iter_mut().zip(REGISTERS) {
            *to = registers[from as usize] as u64;
        }
        block.output.rip = registers[libc::REG_RIP as usize] as u64;
        block.output.rflags = registers[libc::REG_EFL as usize] as u64;
        block.vector = registers[libc::REG_TRAPNO as usize] as u64;
        let fault = matches!(block.vector, 10..=14 | 17);
        block.error_code = if fault {
            registers[libc::REG_ERR as usize] as u64
        } else {
            0
        };
        block.address = if block.vector == 14 {
            registers[libc::REG_CR2 as usize] as u64
        } else {
            0
        };
        let fp = machine.fpregs.cast::<u8>();
        copy_nonoverlapping(fp, block.output.xsave.as_mut_ptr(), layout().size);
        // Rust code expects default control words and no pending exception.
        fp.cast::<u32>().write_unaligned(0x037f);
        fp.add(MXCSR).cast::<u32>().write_unaligned(0x1f80);
        registers[libc::REG_RIP as usize] = block.resume as i64;
        registers[libc::REG_RSP as usize] = block.host_rsp as i64;
        registers[libc::REG_EFL as usize] = 0x202;
        // CS 33h and SS 2Bh, those of 64-bit code; GS and FS selectors stay.
        let selectors = &mut registers[libc::REG_CSGSFS as usize];
        *selectors = *selectors & 0x0000_ffff_ffff_0000 | 0x002b_0000_0000_0033;
    }
}

/// Hands a signal that is not a case's to whoever handled it before.
unsafe extern "C" fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(index) = SIGNALS.iter().position(|&s| s == signal) else {
        return;
    };
    // SAFETY: `install` filled the entry before this handler could run.
    unsafe {
        let previous = (&raw const PREVIOUS[index]).cast::<sigaction>();
        match (*previous).sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // Back to what was there: the fault repeats and ends the process.
                libc::sigaction(signal, previous, null_mut());
            }
            handler => {
                let call: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    std::mem::transmute(handler);
                call(signal, info, context);
            }
        }
    }
}
