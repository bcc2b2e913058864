//! What virtual processors ask of each other about translated code.
//!
//! Each has code and TLB of its own. Before a processor reads code to translate it, it marks the
//! page and has the others withdraw their right to write to it without asking; from then on every
//! store to the page tells those who hold code of it. A processor that is not running answers
//! before it runs again, so no one waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Ask before writing to these host addresses.
    WithdrawRange(u64, u64),
    /// Follow the map of memory.
    Map,
}

/// Marks a processor as running until it is dropped, by a panic as well.
#[derive(Debug)]
pub struct Running(Arc<Mailbox>);

impl Running {
    /// `mailbox`'s processor runs.
    pub fn new(mailbox: &Arc<Mailbox>) -> Self {
        mailbox.set_running(true);
        Self(Arc::clone(mailbox))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set_running(false);
    }
}

/// Requests to one processor.
#[derive(Debug)]
pub struct Mailbox {
    kicker: Arc<Kicker>,
    requests: Mutex<Vec<Request>>,
    waiting: AtomicBool,
    running: AtomicBool,
    /// Requests made so far, and those that have been dealt with.
    posted: AtomicU64,
    settled: AtomicU64,
}

impl Mailbox {
    /// The mailbox of the processor that `kicker` reaches.
    pub fn new(kicker: Arc<Kicker>) -> Self {
        Self {
            kicker,
            requests: Mutex::default(),
            waiting: AtomicBool::new(false),
            running: AtomicBool::new(false),
            posted: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    /// The processor begins or ceases to access memory. After the beginning it must look for
    /// requests before it does anything else.
    pub fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }

    /// Takes the requests, and the ticket to hand to [`Mailbox::settle`] when they are dealt with.
    pub fn take(&self) -> Option<(Vec<Request>, u64)> {
        if !self.waiting.load(Ordering::SeqCst) {
            return None;
        }
        let mut requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        self.waiting.store(false, Ordering::SeqCst);
        let ticket = self.posted.load(Ordering::SeqCst);
        Some((std::mem::take(&mut requests), ticket))
    }

    /// The requests taken with `ticket` have been dealt with.
    pub fn settle(&self, ticket: u64) {
        self.settled.store(ticket, Ordering::SeqCst);
    }

    fn post(&self, request: Request) -> u64 {
        let mut requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        if requests.last() != Some(&request) {
            requests.push(request);
        }
        let ticket = self.posted.fetch_add(1, Ordering::SeqCst) + 1;
        self.waiting.store(true, Ordering::SeqCst);
        drop(requests);
        self.kicker.notify();
        ticket
    }
}

impl CodeHolder for Mailbox {
    fn code_written(&self, start: u64, end: u64) {
        let _ = self.post(Request::Written(start, end));
    }

    fn withdraw_write(&self, page: u64) {
        let _ = self.post(Request::Withdraw(page));
    }

    fn may_write(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    fn map_changed(&self) -> u64 {
        self.post(Request::Map)
    }

    fn withdraw_range(&self, start: u64, end: u64) -> u64 {
        self.post(Request::WithdrawRange(start, end))
    }

    fn has_settled(&self, ticket: u64) -> bool {
        !self.running.load(Ordering::SeqCst) || self.settled.load(Ordering::SeqCst) >= ticket
    }
}
