//! How other threads reach a processor that is in KVM_RUN.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use ringfence_engine::Kick;

/// Where the processor is.
#[derive(Debug)]
struct Place {
    /// The thread that is inside `run`.
    thread: Option<libc::pid_t>,
    /// `kvm_run.immediate_exit`, while the page is mapped.
    immediate_exit: Option<ImmediateExit>,
    /// Somebody called since the processor last looked.
    called: bool,
}

/// The byte `kvm_run.immediate_exit`.
#[derive(Clone, Copy, Debug)]
pub struct ImmediateExit(*const AtomicU8);

// SAFETY: the byte is only ever accessed atomically, and `Place` forgets it before it is unmapped.
unsafe impl Send for ImmediateExit {}

impl ImmediateExit {
    /// The byte at `address`.
    ///
    /// # Safety
    /// It must be valid until [`Kicker::forget`].
    pub unsafe fn new(address: *mut u8) -> Self {
        Self(address.cast())
    }

    fn set(self, value: u8) {
        // SAFETY: the address is valid by the contract of `new`.
        unsafe { (*self.0).store(value, SeqCst) };
    }
}

/// Sets `immediate_exit`, which keeps the processor from entering the guest, and sends the thread a
/// signal, which takes it out.
#[derive(Debug)]
pub struct Kicker {
    interrupt: AtomicBool,
    place: Mutex<Place>,
    wake: Condvar,
}

impl Kicker {
    /// A kicker for the processor with this byte.
    pub fn new(immediate_exit: ImmediateExit) -> Self {
        Self {
            interrupt: AtomicBool::new(false),
            place: Mutex::new(Place {
                thread: None,
                immediate_exit: Some(immediate_exit),
                called: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread is inside `run` from now on.
    pub fn enter(&self) {
        // SAFETY: the call has no effect.
        self.place().thread = Some(unsafe { libc::gettid() });
    }

    /// It no longer is.
    pub fn leave(&self) {
        self.place().thread = None;
    }

    /// Forgets the processor's page.
    pub fn forget(&self) {
        self.place().immediate_exit = None;
    }

    /// After KVM_RUN was interrupted: lets it enter the guest again.
    pub fn answer(&self) {
        let mut place = self.place();
        place.called = false;
        if let Some(byte) = place.immediate_exit {
            byte.set(0);
        }
    }

    /// Makes the next KVM_RUN return before the guest, with what is incomplete done.
    pub fn hold(&self) {
        if let Some(byte) = self.place().immediate_exit {
            byte.set(1);
        }
    }

    /// Whether [`Kick::interrupt`] was called since the last time.
    pub fn take_interrupt(&self) -> bool {
        self.interrupt.swap(false, SeqCst)
    }

    /// Sleeps until somebody calls.
    pub fn wait(&self) {
        let mut place = self.place();
        while !place.called {
            place = self
                .wake
                .wait(place)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Kick for Kicker {
    fn notify(&self) {
        let mut place = self.place();
        place.called = true;
        if let Some(byte) = place.immediate_exit {
            byte.set(1);
        }
        if let Some(thread) = place.thread {
            // SAFETY: the thread is inside `run`, which it can't leave while the place is locked.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
        self.wake.notify_all();
    }

    fn interrupt(&self) {
        self.interrupt.store(true, SeqCst);
        self.notify();
    }
}

/// The signal that takes a thread out of KVM_RUN, its handler installed.
pub fn signal() -> libc::c_int {
    static SIGNAL: OnceLock<libc::c_int> = OnceLock::new();
    extern "C" fn nothing(_: libc::c_int) {}
    *SIGNAL.get_or_init(|| {
        let number = libc::SIGRTMIN() + 5;
        // SAFETY: the structure is plain data; the handler does nothing; the signal is one that
        // nobody else in the process was given. Without SA_RESTART, KVM_RUN returns EINTR.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(number, &raw const action, std::ptr::null_mut());
        }
        number
    })
}
