//! A signal handler that does nothing but recover native runs.

use super::thunk::native_recovery;

/// Installs handlers of SIGFPE and SIGSEGV that send a faulting native run to its recovery
/// address, and end the process for any other. A runtime with handlers of its own calls
/// [`native_recovery`] there instead.
pub fn install_signal_handlers() {
    for number in [libc::SIGFPE, libc::SIGSEGV] {
        // SAFETY: an all-zero sigaction is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        action.sa_sigaction = function as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler is async-signal-safe: it reads atomics and its own frame.
        unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) };
    }
}

extern "C" fn handle(number: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid context, which belongs to this frame.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    match native_recovery(*rip as u64) {
        Some(recovery) => *rip = recovery as i64,
        None => {
            // The fault repeats with the default action.
            // SAFETY: `signal` is async-signal-safe.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}
