//! The timer thread of a machine: sleeps until the nearest deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use ringfence_engine::Clock;

/// Longest sleep in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Something with deadlines.
pub(crate) trait Timers: Send + Sync + 'static {
    /// Serves the deadlines that have passed and returns the next one, in nanoseconds.
    fn serve(&self) -> u64;
}

#[derive(Debug)]
struct Shared {
    /// The nearest deadline in nanoseconds; changes only with `stopped` locked.
    next: AtomicU64,
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// Handle of the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Alarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    /// Starts the thread. It holds `timers` only while it serves them.
    pub(crate) fn start(clock: Arc<Clock>, timers: Weak<impl Timers>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(u64::MAX),
            stopped: Mutex::new(false),
            changed: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name("ringfence-timer".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    while shared.sleep(&clock) {
                        let Some(timers) = timers.upgrade() else {
                            return;
                        };
                        let next = timers.serve();
                        // The last owner of `timers` may be this thread.
                        drop(timers);
                        shared.set(next);
                    }
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Asks for service at a time in nanoseconds, at the latest.
    pub(crate) fn set(&self, deadline: u64) {
        self.shared.set(deadline);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        *self
            .shared
            .stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.changed.notify_all();
        if let Some(thread) = mem::take(&mut self.thread)
            && thread.thread().id() != thread::current().id()
        {
            // It can only have ended by a panic, which was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn set(&self, deadline: u64) {
        if deadline >= self.next.load(Ordering::SeqCst) {
            return;
        }
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = deadline < self.next.load(Ordering::SeqCst);
        if earlier {
            self.next.store(deadline, Ordering::SeqCst);
        }
        drop(stopped);
        if earlier {
            self.changed.notify_one();
        }
    }

    /// Sleeps until the deadline has passed, and clears it; false when the thread is to end.
    fn sleep(&self, clock: &Clock) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *stopped {
                return false;
            }
            let (next, now) = (self.next.load(Ordering::SeqCst), clock.nanoseconds());
            if next <= now {
                // Cleared before the deadlines are read: one that is set meanwhile is not lost.
                self.next.store(u64::MAX, Ordering::SeqCst);
                return true;
            }
            let sleep = Duration::from_nanos((next - now).min(LONGEST));
            stopped = self
                .changed
                .wait_timeout(stopped, sleep)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
