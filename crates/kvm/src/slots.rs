//! Memory slots: the map of guest memory, as KVM knows it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use ringfence_engine::{EngineError, GuestMemory, Kick};
use ringfence_memory::{CodeHolder, Region, RegionKind};

use crate::kick::Kicker;

/// Address bit 20, and the size of the pieces that it makes of memory.
const A20: u64 = 1 << 20;
/// Addresses below are subject to A20; real mode reaches the first two pieces.
const A20_LIMIT: u64 = 64 << 20;
/// Between two attempts to stop processors that are in the guest.
const PATIENCE: Duration = Duration::from_micros(20);

/// A piece of guest memory.
#[derive(Clone, Debug)]
struct Slot {
    start: u64,
    size: u64,
    host: u64,
    flags: u32,
    /// Keeps the memory alive for as long as KVM may reach it.
    region: Arc<Region>,
    /// Guest physical address of the first byte in `region`: another one while A20 is disabled.
    source: u64,
}

impl Slot {
    fn same(&self, other: &Self) -> bool {
        let key = |slot: &Self| (slot.start, slot.size, slot.host, slot.flags);
        key(self) == key(other)
    }
}

/// The slots in use, and the gate that processors go through into the guest.
#[derive(Debug)]
pub struct Slots {
    vm: Arc<VmFd>,
    memory: Weak<GuestMemory>,
    inner: Mutex<Inner>,
    /// Held by each processor that is in the guest.
    gate: RwLock<()>,
    /// Processors are to stay out.
    closed: AtomicBool,
    kickers: Mutex<Vec<Weak<Kicker>>>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Option<(u64, u64)>,
    slots: Vec<Option<Slot>>,
    /// What an update from a place that could not fail has met.
    error: Option<EngineError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: kvm_ioctls::Error) -> EngineError {
    EngineError::Host {
        what: "guest memory to KVM",
        source: io::Error::from(error),
    }
}

fn piece(region: &Arc<Region>, start: u64, source: u64, size: u64) -> Slot {
    let readonly = match region.kind {
        RegionKind::Ram => 0,
        RegionKind::Rom => KVM_MEM_READONLY,
    };
    let log = if region.log_dirty {
        KVM_MEM_LOG_DIRTY_PAGES
    } else {
        0
    };
    Slot {
        start,
        size,
        host: region.host(source) as u64,
        flags: readonly | log,
        region: Arc::clone(region),
        source,
    }
}

/// The slots that `memory` asks for.
fn wanted(memory: &GuestMemory) -> Vec<Slot> {
    let regions = memory.regions();
    let whole = |region: &Arc<Region>| piece(region, region.start, region.start, region.size);
    if memory.address_mask() & A20 != 0 {
        return regions.iter().map(whole).collect();
    }
    let mut slots = Vec::new();
    for region in regions.iter() {
        let end = region.start + region.size;
        if region.start >= A20_LIMIT {
            slots.push(whole(region));
            continue;
        }
        // Pieces with the bit clear are seen twice, those with it set not at all.
        let mut at = region.start;
        while at < end.min(A20_LIMIT) {
            let next = ((at & !(A20 - 1)) + A20).min(end);
            if at & A20 == 0 {
                slots.push(piece(region, at, at, next - at));
                slots.push(piece(region, at | A20, at, next - at));
            }
            at = next;
        }
        if at < end {
            slots.push(piece(region, at, at, end - at));
        }
    }
    slots
}

impl Slots {
    /// The slots of `vm`, which follow the map of `memory` from now on.
    ///
    /// # Errors
    /// [`EngineError::Host`] when KVM refuses.
    pub fn new(vm: Arc<VmFd>, memory: &Arc<GuestMemory>) -> Result<Arc<Self>, EngineError> {
        let slots = Arc::new(Self {
            vm,
            memory: Arc::downgrade(memory),
            inner: Mutex::default(),
            gate: RwLock::new(()),
            closed: AtomicBool::new(false),
            kickers: Mutex::default(),
        });
        let holder: Weak<dyn CodeHolder> = Arc::<Self>::downgrade(&slots);
        memory
            .add_holder(holder)
            .map_err(|error| EngineError::Internal(error.to_string()))?;
        slots.update()?;
        Ok(slots)
    }

    /// Makes a processor known, so that it can be kept out of the guest.
    pub fn add(&self, kicker: &Arc<Kicker>) {
        lock(&self.kickers).push(Arc::downgrade(kicker));
    }

    /// Lets a processor into the guest for as long as the guard lives; `None` while it is to stay
    /// out.
    pub fn enter(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.closed.load(SeqCst) {
            std::thread::sleep(PATIENCE);
            return None;
        }
        let guard = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        (!self.closed.load(SeqCst)).then_some(guard)
    }

    /// What an update has met since the last time.
    ///
    /// # Errors
    /// [`EngineError::Host`] when KVM refused memory.
    pub fn check(&self) -> Result<(), EngineError> {
        match lock(&self.inner).error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn set(&self, number: usize, slot: &Slot, size: u64) -> Result<(), EngineError> {
        let region = kvm_userspace_memory_region {
            slot: number as u32,
            flags: slot.flags,
            guest_phys_addr: slot.start,
            memory_size: size,
            userspace_addr: slot.host,
        };
        // SAFETY: the memory outlives the slot, which holds a reference to it; guest memory is
        // only ever accessed by raw pointers.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(refused)
    }

    /// Makes the slots those of the map.
    fn update(&self) -> Result<(), EngineError> {
        let Some(memory) = self.memory.upgrade() else {
            return Ok(());
        };
        let mut inner = lock(&self.inner);
        let seen = (memory.generation(), memory.address_mask());
        if inner.seen == Some(seen) {
            return Ok(());
        }
        let wanted = wanted(&memory);
        let goes = |slot: &Slot| !wanted.iter().any(|other| other.same(slot));
        if inner.slots.iter().flatten().any(goes) {
            // Between the old map and the new one, no processor may see neither.
            self.closed.store(true, SeqCst);
            let result = self.alone(|| self.replace(&mut inner.slots, &wanted));
            self.closed.store(false, SeqCst);
            result?;
        } else {
            self.replace(&mut inner.slots, &wanted)?;
        }
        inner.seen = Some(seen);
        Ok(())
    }

    /// Does `work` while no processor is in the guest.
    fn alone<R>(&self, work: impl FnOnce() -> R) -> R {
        let _guard = loop {
            for kicker in lock(&self.kickers).iter().filter_map(Weak::upgrade) {
                kicker.notify();
            }
            if let Ok(guard) = self.gate.try_write() {
                break guard;
            }
            std::thread::sleep(PATIENCE);
        };
        work()
    }

    fn replace(&self, slots: &mut Vec<Option<Slot>>, wanted: &[Slot]) -> Result<(), EngineError> {
        self.log(slots, |_| true)?;
        for (number, place) in slots.iter_mut().enumerate() {
            if let Some(slot) = place
                && !wanted.iter().any(|other| other.same(slot))
            {
                self.set(number, slot, 0)?;
                *place = None;
            }
        }
        for slot in wanted {
            if slots.iter().flatten().any(|other| other.same(slot)) {
                continue;
            }
            let free = slots.iter().position(Option::is_none);
            let number = free.unwrap_or(slots.len());
            self.set(number, slot, slot.size)?;
            match slots.get_mut(number) {
                Some(place) => *place = Some(slot.clone()),
                None => slots.push(Some(slot.clone())),
            }
        }
        Ok(())
    }

    /// Brings what KVM has logged of the slots that `of` names into the log of their memory.
    fn log(&self, slots: &[Option<Slot>], of: impl Fn(&Slot) -> bool) -> Result<(), EngineError> {
        for (number, slot) in slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            if slot.flags & KVM_MEM_LOG_DIRTY_PAGES == 0 || !of(slot) {
                continue;
            }
            let bitmap = self
                .vm
                .get_dirty_log(number as u32, slot.size as usize)
                .map_err(refused)?;
            for (word, mut bits) in (0u64..).zip(bitmap) {
                while bits != 0 {
                    let page = word * 64 + u64::from(bits.trailing_zeros());
                    bits &= bits - 1;
                    if let Some((word, bit)) = slot.region.dirty(slot.source + page * 4096) {
                        word.fetch_or(bit, SeqCst);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            lock(&self.inner).error = Some(error);
        }
    }
}

impl CodeHolder for Slots {
    // KVM translates no code, and follows changes at once.

    fn code_written(&self, _: u64, _: u64) {}

    fn withdraw_write(&self, _: u64) {}

    fn may_write(&self) -> bool {
        false
    }

    fn map_changed(&self) -> u64 {
        let result = self.update();
        self.note(result);
        0
    }

    fn withdraw_range(&self, _: u64, _: u64) -> u64 {
        0
    }

    fn has_settled(&self, _: u64) -> bool {
        true
    }

    fn collect_dirty(&self, start: u64, end: u64) {
        let result = {
            let inner = lock(&self.inner);
            self.log(&inner.slots, |slot| {
                slot.host < end && start < slot.host + slot.size
            })
        };
        self.note(result);
    }
}
