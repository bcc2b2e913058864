//! Host signals that guest code raises: SIGFPE for divide and floating-point errors, SIGSEGV for
//! misaligned vector operands. Any other fault is passed on to whoever handled it before.

use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{
    REG_R10, REG_RIP, SIGBUS, SIGFPE, SIGILL, SIGSEGV, c_int, c_void, sigaction, siginfo_t,
    ucontext_t,
};

use crate::interp::native::native_recovery;

/// Code caches of this process: start, end, and where to resume. Handlers may not lock.
const SLOTS: usize = 512;
static CACHES: [[AtomicU64; 3]; SLOTS] = [const { [const { AtomicU64::new(0) }; 3] }; SLOTS];

const SIGNALS: [c_int; 4] = [SIGFPE, SIGSEGV, SIGBUS, SIGILL];
static mut PREVIOUS: [MaybeUninit<sigaction>; 4] = [const { MaybeUninit::uninit() }; 4];

/// A code cache known to the handler until it is dropped.
#[derive(Debug)]
pub struct Registration(usize);

impl Registration {
    /// Makes faults at host addresses in `range` resume at `resume`, the address in R10. `None`
    /// when the process has too many processors.
    pub fn new(range: (u64, u64), resume: u64) -> Option<Self> {
        install();
        let free = |slot: &[AtomicU64; 3]| {
            slot[0]
                .compare_exchange(0, range.0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        let index = CACHES.iter().position(free)?;
        CACHES[index][2].store(resume, Ordering::SeqCst);
        CACHES[index][1].store(range.1, Ordering::SeqCst);
        Some(Self(index))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        CACHES[self.0][1].store(0, Ordering::SeqCst);
        CACHES[self.0][0].store(0, Ordering::SeqCst);
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (i, signal) in SIGNALS.into_iter().enumerate() {
            // SAFETY: plain registration of a handler; `PREVIOUS` is written here only, before
            // the handler can run.
            unsafe {
                let mut action: sigaction = zeroed();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigaction(signal, null(), (&raw mut PREVIOUS[i]).cast());
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
    });
}

unsafe extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid context.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[REG_RIP as usize] as u64;
    for [start, end, resume] in &CACHES {
        if rip.wrapping_sub(start.load(Ordering::Relaxed))
            < end
                .load(Ordering::Relaxed)
                .wrapping_sub(start.load(Ordering::Relaxed))
            && end.load(Ordering::Relaxed) != 0
        {
            registers[REG_R10 as usize] = rip as i64;
            registers[REG_RIP as usize] = resume.load(Ordering::Relaxed) as i64;
            return;
        }
    }
    if let Some(resume) = native_recovery(rip) {
        registers[REG_RIP as usize] = resume as i64;
        return;
    }
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
            handler if (*previous).sa_flags & libc::SA_SIGINFO != 0 => {
                let call: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    std::mem::transmute(handler);
                call(signal, info, context);
            }
            handler => {
                let call: extern "C" fn(c_int) = std::mem::transmute(handler);
                call(signal);
            }
        }
    }
}
