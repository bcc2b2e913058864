//! How other threads reach a running processor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ringfence_engine::Kick;

use crate::context::{ContextBox, KICKED};

/// Sets the flag that translated code polls, and wakes the processor from HLT.
#[derive(Debug)]
pub struct Kicker {
    context: Arc<ContextBox>,
    interrupt: AtomicBool,
    asleep: Mutex<bool>,
    wake: Condvar,
}

impl Kicker {
    /// A kicker for the processor of `context`.
    pub fn new(context: Arc<ContextBox>) -> Self {
        Self {
            context,
            interrupt: AtomicBool::new(false),
            asleep: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    fn flag(&self) -> &AtomicU64 {
        // SAFETY: the flag lives as long as the context, and is only ever accessed atomically.
        unsafe { &*self.context.kick_flag() }
    }

    /// Whether [`Kick::interrupt`] was called since the last time.
    pub fn take_interrupt(&self) -> bool {
        self.interrupt.swap(false, Ordering::SeqCst)
    }

    /// Sleeps until the flag is set.
    pub fn wait(&self) {
        let mut asleep = self.asleep.lock().unwrap_or_else(|e| e.into_inner());
        *asleep = true;
        while self.flag().load(Ordering::SeqCst) == 0 {
            asleep = self.wake.wait(asleep).unwrap_or_else(|e| e.into_inner());
        }
        *asleep = false;
    }
}

impl Kick for Kicker {
    fn notify(&self) {
        self.flag().store(KICKED, Ordering::SeqCst);
        if *self.asleep.lock().unwrap_or_else(|e| e.into_inner()) {
            self.wake.notify_all();
        }
    }

    fn interrupt(&self) {
        self.interrupt.store(true, Ordering::SeqCst);
        self.notify();
    }
}
