//! What virtual processors ask of each other about translated code.
//!
//! Each has code and TLB of its own. Before a processor reads code to translate it, it marks the
//! page and has the others withdraw their right to write to it without asking; from then on every
//! store to the page tells those who hold code of it. A processor that is not running answers
//! before it runs again, so no one waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ringfence_engine::Kick as _;
use ringfence_memory::CodeHolder;

use super::kick::Kicker;

/// A request of another processor or of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Drop code translated from the bytes `[start, end)`.
    Written(u64, u64),
    /// Ask before writing to this page.
    Withdraw(u64),
}

/// Requests to one processor.
#[derive(Debug)]
pub struct Mailbox {
    kicker: Arc<Kicker>,
    requests: Mutex<Vec<Request>>,
    waiting: AtomicBool,
    running: AtomicBool,
}

impl Mailbox {
    /// The mailbox of the processor that `kicker` reaches.
    pub fn new(kicker: Arc<Kicker>) -> Self {
        Self {
            kicker,
            requests: Mutex::default(),
            waiting: AtomicBool::new(false),
            running: AtomicBool::new(false),
        }
    }

    /// The processor begins or ceases to access memory. After the beginning it must look for
    /// requests before it does anything else.
    pub fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }

    /// Takes the requests.
    pub fn take(&self) -> Vec<Request> {
        if !self.waiting.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        self.waiting.store(false, Ordering::SeqCst);
        std::mem::take(&mut requests)
    }

    fn post(&self, request: Request) {
        let mut requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        if requests.last() != Some(&request) {
            requests.push(request);
        }
        self.waiting.store(true, Ordering::SeqCst);
        drop(requests);
        self.kicker.notify();
    }
}

impl CodeHolder for Mailbox {
    fn code_written(&self, start: u64, end: u64) {
        self.post(Request::Written(start, end));
    }

    fn withdraw_write(&self, page: u64) {
        self.post(Request::Withdraw(page));
    }

    fn may_write(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }
}
