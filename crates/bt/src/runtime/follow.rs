//! What makes translations invalid: stores to code, requests of other processors and of devices,
//! changes of the map of memory.

use std::sync::atomic::Ordering;

use ringfence_memory::Changes;

use super::core::Core;
use super::mailbox::Request;
use crate::env::Flush;
use crate::frontend::mode::Mode;

impl Core {
    /// Makes stores to the page of `gpa`, from which code is to be translated, known.
    pub(super) fn protect(&mut self, gpa: u64) {
        let Some(place) = self.world.phys.place(gpa) else {
            return;
        };
        if place.holders.fetch_or(self.bit, Ordering::SeqCst) & self.bit != 0 {
            return;
        }
        let page = gpa & !0xfff;
        let writers = place.writers.load(Ordering::SeqCst);
        if writers & self.bit != 0 {
            place.writers.fetch_and(!self.bit, Ordering::SeqCst);
            self.world.tlb.protect(self.context(), place.host as u64);
        }
        let others = writers & !self.bit;
        if others != 0 {
            self.unconfirmed.add(&self.world.phys, page, others);
        }
    }

    /// Does what other processors and devices asked for, and looks after code that they may have
    /// changed.
    pub(super) fn answer_requests(&mut self) {
        self.follow_map();
        if !self.unconfirmed.is_empty() {
            let mut changes = Vec::new();
            self.unconfirmed
                .check(&self.world.phys, |start, end| changes.push((start, end)));
            for (start, end) in changes {
                self.invalidate(start, end);
            }
        }
        let Some((requests, ticket)) = self.mailbox.take() else {
            return;
        };
        for request in requests {
            match request {
                Request::Map => self.follow_map(),
                Request::WithdrawRange(start, end) => {
                    self.world.tlb.protect_range(self.context(), start, end);
                }
                Request::Written(start, end) => self.invalidate(start, end),
                Request::Withdraw(page) => {
                    let Some(place) = self.world.phys.place(page) else {
                        continue;
                    };
                    self.world.tlb.protect(self.context(), place.host as u64);
                    place.writers.fetch_and(!self.bit, Ordering::SeqCst);
                }
            }
        }
        self.mailbox.settle(ticket);
    }

    /// Makes the memory visible that only system-management mode sees, or hides it.
    pub(super) fn show_smram(&mut self, inside: bool) {
        let ranges = self.world.phys.smram();
        for (start, end) in ranges {
            // By the view that ends: its pages are told that there is no code of them any more.
            self.invalidate(start, end);
            self.unconfirmed.forget(start, end);
        }
        self.world.phys.set_smm(inside);
        self.world.tlb.flush(self.context(), false);
        self.world.forget_fetch();
    }

    /// Drops what was made by an older map of memory.
    fn follow_map(&mut self) {
        while let Some((changes, snapshot)) = self.world.phys.changes() {
            // By the old map: its pages are told that there is no code of them any more.
            match changes {
                Changes::Ranges(ranges) => {
                    for (start, end) in ranges {
                        self.invalidate(start, end);
                        self.unconfirmed.forget(start, end);
                    }
                    self.world.tlb.flush(self.context(), false);
                }
                Changes::Everything => self.drop_everything(),
            }
            self.world.phys.refresh(snapshot);
        }
        if self.world.phys.refresh_mask() {
            self.world.tlb.flush(self.context(), false);
            self.cache.flush(self.context(), false);
            self.world.forget_fetch();
        }
    }

    pub(super) fn apply_pending(&mut self) {
        if !self.cpu().smm && self.world.phys.in_smm() {
            self.show_smram(false);
        }
        let context = self.context();
        let pending = &mut self.world.pending;
        if let Some(flush) = pending.flush.take() {
            self.statistics.flushes += 1;
            self.cache.flush(context, flush == Flush::NonGlobal);
        }
        while let Some(page) = self.world.pending.pages.pop() {
            self.cache.flush_page(context, page);
        }
        while let Some((start, end)) = self.world.pending.code_writes.pop() {
            self.statistics.code_writes += 1;
            self.invalidate(start, end);
            if let Some(place) = self.world.phys.place(start) {
                let memory = self.world.phys.memory();
                let others = place.holders.load(Ordering::SeqCst) & !self.bit;
                memory.tell(place.region, others, start, end);
                if place.region.aliased {
                    let aliases = memory.aliases(place.region, start);
                    for alias in aliases.into_iter().filter(|&alias| alias != start) {
                        self.invalidate(alias, alias + (end - start));
                    }
                }
            }
        }
    }

    fn invalidate(&mut self, start: u64, end: u64) {
        self.world.forget_fetch();
        if start < end {
            self.cache.invalidate(self.context(), start, end);
            self.unprotect();
        }
    }

    /// Pages without translated code may be written to freely again.
    fn unprotect(&mut self) {
        while let Some(page) = self.cache.emptied.pop() {
            if let Some(place) = self.world.phys.place(page << 12) {
                let memory = self.world.phys.memory();
                let has_code = |&gpa: &u64| self.cache.has_code(gpa >> 12);
                if place.region.aliased
                    && memory
                        .aliases(place.region, page << 12)
                        .iter()
                        .any(has_code)
                {
                    continue;
                }
                place.holders.fetch_and(!self.bit, Ordering::SeqCst);
            }
        }
    }

    /// Drops all translations, of code and of addresses.
    pub fn drop_everything(&mut self) {
        self.statistics.resets += 1;
        self.tags.clear();
        self.last_tag = (Mode::INTERPRET, 0);
        self.cache.reset(self.context());
        self.unconfirmed.clear();
        self.unprotect();
        self.world.tlb.flush(self.context(), false);
        self.world.forget_fetch();
    }
}
