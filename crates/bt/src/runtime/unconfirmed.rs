//! Pages whose code was read while another processor might still write to them unseen.
//!
//! Translation does not wait for the others to withdraw their right to write. Until they have, what
//! was read is compared with what is there now whenever this processor comes back to the
//! dispatcher, which it does at every interrupt and every serializing instruction: the points at
//! which an x86 processor must see code that another one changed (SDM vol. 3A, 8.1.3).

use std::sync::atomic::Ordering;

use ringfence_memory::{CodeHolder, GuestMemory};

use crate::softmmu::phys::Phys;

const PAGE: usize = 4096;

/// One such page.
#[derive(Debug)]
struct Page {
    gpa: u64,
    others: u64,
    bytes: Box<[u8; PAGE]>,
}

/// The unconfirmed pages of one processor.
#[derive(Debug, Default)]
pub struct Unconfirmed(Vec<Page>);

impl Unconfirmed {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all: no code of them is left.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets the pages in `[start, end)`: other memory is there now.
    pub fn forget(&mut self, start: u64, end: u64) {
        self.0.retain(|page| page.gpa < start || end <= page.gpa);
    }

    /// Has the processors in `others` withdraw from the page at `gpa`, and remembers what it holds
    /// now if one of them may still write.
    pub fn add(&mut self, phys: &Phys, gpa: u64, others: u64) {
        for_each(phys.memory(), others, |_, holder| {
            holder.withdraw_write(gpa)
        });
        if confirmed(phys, gpa, others) {
            return;
        }
        let bytes = read(phys, gpa);
        self.0.push(Page { gpa, others, bytes });
    }

    /// Calls `changed` with the range of each page that is not as it was; forgets pages that no one
    /// may write to any more.
    pub fn check(&mut self, phys: &Phys, mut changed: impl FnMut(u64, u64)) {
        self.0.retain_mut(|page| {
            // In this order: a write before the withdrawal is seen by the comparison.
            let confirmed = confirmed(phys, page.gpa, page.others);
            let now = read(phys, page.gpa);
            let differs = |&i: &usize| now[i] != page.bytes[i];
            if let Some(first) = (0..PAGE).find(differs) {
                let last = (first..PAGE).rev().find(differs).unwrap_or(first);
                changed(page.gpa + first as u64, page.gpa + last as u64 + 1);
                page.bytes = now;
            }
            !confirmed
        });
    }
}

fn read(phys: &Phys, gpa: u64) -> Box<[u8; PAGE]> {
    let mut bytes = Box::new([0; PAGE]);
    // A page that is gone reads as zeros, which differ from its code.
    let _ = phys.memory().read(gpa, &mut *bytes);
    bytes
}

/// Whether none of `others` can write to the page unseen.
fn confirmed(phys: &Phys, gpa: u64, others: u64) -> bool {
    let Some(place) = phys.place(gpa) else {
        return true;
    };
    let mut writing = false;
    let still = others & place.writers.load(Ordering::SeqCst);
    for_each(phys.memory(), still, |bit, holder| {
        writing |= holder.may_write() && place.writers.load(Ordering::SeqCst) & bit != 0;
    });
    !writing
}

fn for_each(memory: &GuestMemory, mut bits: u64, mut each: impl FnMut(u64, &dyn CodeHolder)) {
    while bits != 0 {
        if let Some(holder) = memory.holder(bits.trailing_zeros()) {
            each(bits & bits.wrapping_neg(), &*holder);
        }
        bits &= bits - 1;
    }
}
