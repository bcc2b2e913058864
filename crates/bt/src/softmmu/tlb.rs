//! Filling and flushing of the TLB that translated code probes.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::atomic::Ordering;

use super::phys::Place;
use super::walk::Translation;
use crate::cache::FastHasher;
use crate::context::{CLASSES, Context, TLB_SIZE, TlbEntry};

/// Book-keeping of one processor's TLB; the entries are in its [`Context`].
#[derive(Debug)]
pub struct Tlb {
    bit: u64,
    /// Indices of entries that were filled since they were last flushed, by class, for local and
    /// global translations.
    log: [[Vec<u16>; 2]; CLASSES],
    /// 2 MiB ranges of linear addresses in which a large page was seen.
    large: HashSet<u64, BuildHasherDefault<FastHasher>>,
}

impl Tlb {
    /// The TLB of the processor whose bit in the words of guest memory is `bit`.
    pub fn new(bit: u64) -> Self {
        // The log never grows: an index is in it once. So filling allocates nothing.
        let log = || Vec::with_capacity(TLB_SIZE);
        Self {
            bit,
            log: std::array::from_fn(|_| [log(), log()]),
            large: HashSet::default(),
        }
    }

    /// Whether [`Tlb::fill`] would take note of a large page it does not know.
    pub fn is_new_large(&self, linear: u64, translation: &Translation) -> bool {
        translation.large && !self.large.contains(&(linear >> 21))
    }

    /// Enters the translation of `linear`, for a store if `write`. Pages with code are not entered
    /// for writing, nor are pages whose first store is to be logged, until it comes.
    pub fn fill(
        &mut self,
        context: &mut Context,
        class: usize,
        linear: u64,
        translation: &Translation,
        place: &Place<'_>,
        write: bool,
    ) {
        let page = linear & !0xfff;
        let index = TlbEntry::index(linear);
        let kind = usize::from(translation.global);
        let logged = context.tlb[class][index].info & (TlbEntry::LOGGED[0] | TlbEntry::LOGGED[1]);
        if logged & TlbEntry::LOGGED[kind] == 0 {
            self.log[class][kind].push(index as u16);
        }
        if self.is_new_large(linear, translation) {
            self.large.insert(linear >> 21);
        }
        let global = if translation.global {
            TlbEntry::GLOBAL
        } else {
            0
        };
        let mut tag_write = TlbEntry::miss(index);
        if write && place.ram {
            place.mark_dirty();
        }
        if translation.writable && place.ram && !place.is_clean() {
            // First the right to write, then the look for code: a translator does it the other
            // way round, so one of the two sees the other.
            if place.writers.load(Ordering::SeqCst) & self.bit == 0 {
                place.writers.fetch_or(self.bit, Ordering::SeqCst);
            }
            if place.holders.load(Ordering::SeqCst) == 0 {
                tag_write = page;
            }
        }
        let host = place.host as u64 & !0xfff;
        let info = logged | TlbEntry::LOGGED[kind] | global;
        context.tlb[class][index] = TlbEntry {
            tag_read: page,
            tag_write,
            host,
            info,
        };
    }

    /// Makes the page of `linear`, whose translation was just entered, the recent page of `slot`.
    pub fn fill_recent(context: &mut Context, class: usize, slot: usize, linear: u64) {
        let entry = context.tlb[class][TlbEntry::index(linear)];
        let page = linear & !0xfff;
        let Some(recent) = context.recent[class].get_mut(slot) else {
            return;
        };
        if entry.tag_read == page {
            (recent.tag_read, recent.host_read) = (page, entry.host);
        }
        if entry.tag_write == page {
            (recent.tag_write, recent.host_write) = (page, entry.host);
        }
    }

    /// Drops all translations, or all that are not global.
    pub fn flush(&mut self, context: &mut Context, keep_global: bool) {
        for class in 0..CLASSES {
            context.forget_recent(class);
            let kinds = if keep_global { 1 } else { 2 };
            for (log, flag) in self.log[class].iter_mut().zip(TlbEntry::LOGGED).take(kinds) {
                for index in log.drain(..).map(usize::from) {
                    let entry = &mut context.tlb[class][index];
                    entry.info &= !flag;
                    if !(keep_global && entry.info & TlbEntry::GLOBAL != 0) {
                        drop_entry(entry, index);
                    }
                }
            }
        }
        if !keep_global {
            self.large.clear();
        }
    }

    /// Drops the translation of `linear`; all, if it may belong to a large page.
    pub fn flush_page(&mut self, context: &mut Context, linear: u64) {
        if self.large.contains(&(linear >> 21)) {
            return self.flush(context, false);
        }
        let index = TlbEntry::index(linear);
        for class in 0..CLASSES {
            context.forget_recent(class);
            let entry = &mut context.tlb[class][index];
            let page = linear & !0xfff;
            if entry.tag_read == page {
                // It stays in its log, which costs one visit at the next flush.
                drop_entry(entry, index);
            }
        }
    }

    /// Takes away the right to write freely to the physical page that is at `host`.
    pub fn protect(&mut self, context: &mut Context, host: u64) {
        self.protect_range(context, host & !0xfff, (host & !0xfff) + 0x1000);
    }

    /// Takes away the right to write freely to host addresses `[start, end)`.
    pub fn protect_range(&mut self, context: &mut Context, start: u64, end: u64) {
        for class in 0..CLASSES {
            context.forget_recent(class);
            for index in 0..TLB_SIZE {
                let entry = &mut context.tlb[class][index];
                if entry.host.wrapping_sub(start) < end - start {
                    entry.tag_write = TlbEntry::miss(index);
                }
            }
        }
    }
}

fn drop_entry(entry: &mut TlbEntry, index: usize) {
    let tag = TlbEntry::miss(index);
    *entry = TlbEntry {
        tag_read: tag,
        tag_write: tag,
        host: 0,
        info: entry.info & !TlbEntry::GLOBAL,
    };
}
