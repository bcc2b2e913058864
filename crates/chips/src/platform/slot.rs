//! One processor's part of the platform.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock};

use ringfence_engine::Kick;

use super::lock;
use crate::lapic::Lapic;

/// No page, in [`Slot::page`].
pub(super) const NO_PAGE: u64 = u64::MAX;

/// Bits of [`Slot::summary`].
pub(super) mod summary {
    /// The local APIC has a vector to deliver.
    pub const INTERRUPT: u8 = 1 << 0;
    /// The PICs' INTR reaches the processor.
    pub const ACCEPTS_PIC: u8 = 1 << 1;
    /// INIT, SIPI or NMI.
    pub const EVENT: u8 = 1 << 2;
    /// In the wait-for-SIPI state.
    pub const WAITING: u8 = 1 << 3;
    /// LINT0 is open in another mode than ExtINT.
    pub const USES_LINT0: u8 = 1 << 4;
}

/// One processor.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) lapic: Mutex<Lapic>,
    pub(super) summary: AtomicU8,
    /// Guest physical address of the local APIC's registers.
    pub(super) page: AtomicU64,
    /// When the local APIC's timer is due, in nanoseconds.
    pub(super) deadline: AtomicU64,
    pub(super) kick: RwLock<Option<Arc<dyn Kick>>>,
    /// Another processor wants this one out of HLT.
    pub(super) woken: AtomicBool,
}

impl Slot {
    pub(super) fn new(id: u32) -> Self {
        let lapic = Lapic::new(id);
        let slot = Self {
            summary: AtomicU8::new(0),
            page: AtomicU64::new(lapic.page().unwrap_or(NO_PAGE)),
            deadline: AtomicU64::new(u64::MAX),
            kick: RwLock::new(None),
            woken: AtomicBool::new(false),
            lapic: Mutex::new(lapic),
        };
        slot.publish(&lock(&slot.lapic));
        slot
    }

    /// Stores the summary; the new one and the one before.
    pub(super) fn publish(&self, lapic: &Lapic) -> (u8, u8) {
        let bit = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let waiting = lapic.waits_for_startup();
        let new = bit(!waiting && lapic.pending().is_some(), summary::INTERRUPT)
            | bit(!waiting && lapic.accepts_pic(), summary::ACCEPTS_PIC)
            | bit(lapic.has_event(), summary::EVENT)
            | bit(waiting, summary::WAITING)
            | bit(lapic.uses_lint0(), summary::USES_LINT0);
        (new, self.summary.swap(new, SeqCst))
    }
}
