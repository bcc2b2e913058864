//! The block of memory that translated code reaches through the GS base: processor state, TLB,
//! branch targets, and what the code and the runtime tell each other.
//!
//! One context belongs to one virtual processor. Other threads touch only [`Context::kick`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::cpu::Cpu;

/// log2 of the number of TLB entries per privilege class.
pub const TLB_BITS: u32 = 12;
/// Privilege classes: what memory accesses may reach. 0 supervisor, 1 user, 2 supervisor with
/// user pages, by RFLAGS.AC while CR4.SMAP is set.
pub const CLASSES: usize = 3;
/// Number of TLB entries per privilege class.
pub const TLB_SIZE: usize = 1 << TLB_BITS;
/// Number of indirect-branch targets per privilege class, indexed by the low bits of the
/// linear address.
pub const TARGETS: usize = 1 << 16;

/// Value of [`Context::kick`]: added to a canonical address, it makes one that is not.
pub const KICKED: u64 = 1 << 62;

/// One page of the software TLB. `tag ^ address < 4096` is a hit.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct TlbEntry {
    /// Linear address of the page if it may be read, else a value no address hits.
    pub tag_read: u64,
    /// Linear address of the page if it may be written without asking.
    pub tag_write: u64,
    /// Host address of the page.
    pub host: u64,
    /// [`TlbEntry::LOGGED`] and [`TlbEntry::GLOBAL`].
    pub info: u64,
}

impl TlbEntry {
    /// The entry is in the flush log of local, of global translations.
    pub const LOGGED: [u64; 2] = [1, 4];
    /// The page is global.
    pub const GLOBAL: u64 = 2;

    /// A tag that no address with this index hits. It is not canonical, so that no address near one
    /// that hits the other tag of the entry does either, whatever its index.
    pub const fn miss(index: usize) -> u64 {
        1 << 62 | ((index ^ 1) as u64) << 12
    }

    /// Index of the entry for a linear address.
    pub const fn index(linear: u64) -> usize {
        (linear >> 12) as usize & (TLB_SIZE - 1)
    }
}

/// Slots of [`Context::recent`]: one for each general register, and one each for FS and GS.
pub const RECENT_SLOTS: usize = 18;

/// The page that the last access off some register went to: probed before the TLB, as its place
/// does not depend on the address.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct RecentPage {
    /// Linear address of the page that was read, or [`RecentPage::MISS`].
    pub tag_read: u64,
    /// Its host address.
    pub host_read: u64,
    /// Linear address of the page that was written, or [`RecentPage::MISS`].
    pub tag_write: u64,
    /// Its host address.
    pub host_write: u64,
}

impl RecentPage {
    /// Not canonical, and nothing that programs compute: only an address that would fault anyway
    /// hits it, and it would have to be made for that.
    pub const MISS: u64 = 0xa6c3_597e_1d84_b000;
}

/// Place for an XMM register.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Vector(pub [u64; 2]);

/// State that translated code addresses relative to GS.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Context {
    /// Architectural registers.
    pub cpu: Cpu,
    /// Address of this context.
    pub this: u64,
    /// Host stack pointer of the runtime while translated code runs.
    pub host_rsp: u64,
    /// Arithmetic flags in memory: OF in bit 0 of the low byte, LAHF's image in the high byte.
    pub flags: u32,
    /// EFLAGS at a native fault, in the same form.
    pub fault_flags: u32,
    /// Why translated code was left: see `runtime::exit`.
    pub exit: u32,
    /// Zero, or [`KICKED`]: leave translated code at the next poll.
    pub kick: AtomicU64,
    /// Guest x87, SSE and AVX state is in host registers.
    pub fpu_resident: u32,
    /// Components to save and restore: XCR0 of the guest, x87 and SSE at least.
    pub xsave_mask: u32,
    /// Host address in translated code at which a helper gave up or a native fault happened.
    pub exit_site: u64,
    /// Scratch of translated code.
    pub scratch: [u64; 2],
    /// Offset of a TLB entry over the slow path of an access.
    pub entry: u64,
    /// Padding.
    pub padding: u64,
    /// How many more times the guest may PAUSE before another thread gets the host's processor.
    pub pauses: u32,
    /// Instructions that may be executed before the runtime looks at the time; less those that a
    /// block has executed when it was left.
    pub budget: i64,
    /// Instructions that a block had executed when cold code left it.
    pub executed: u32,
    /// Not zero: an interrupt is to be delivered as soon as IF is set.
    pub interrupt_waits: u32,
    /// Not zero: the branch targets of the privilege class are those of 64-bit code.
    pub targets64: [u32; CLASSES],
    /// Host addresses of checked windows of the block that runs.
    pub windows: [u64; 64],
    /// Guest TSC less host TSC.
    pub tsc_offset: u64,
    /// Default MXCSR for the runtime.
    pub host_mxcsr: u32,
    /// Padding.
    pub reserved: u32,
    /// The runtime's state of this processor, for helpers.
    pub owner: u64,
    /// XMM0 to XMM15 over a light helper.
    pub xmm: [Vector; 16],
    /// Recent pages by privilege class.
    pub recent: [[RecentPage; RECENT_SLOTS]; CLASSES],
    /// TLB by privilege class.
    pub tlb: [[TlbEntry; TLB_SIZE]; CLASSES],
    /// Host addresses of indirect-branch targets by privilege class, for branches that leave the
    /// flags in EFLAGS and for those that leave them in the context.
    pub targets: [[[u64; TARGETS]; 2]; CLASSES],
    /// What an address that hits [`RecentPage::MISS`] reads and writes.
    pub garbage: [u8; 4096],
}

/// Offset in bytes of a context field from the GS base.
macro_rules! at {
    ($($field:tt)+) => { std::mem::offset_of!($crate::context::Context, $($field)+) as i32 };
}
pub(crate) use at;

/// Offset of general register `index`.
pub const fn gpr(index: u8) -> i32 {
    (offset_of!(Context, cpu.gpr) + index as usize * 8) as i32
}

/// Offset of the base of segment register `index`.
pub const fn segment_base(index: usize) -> i32 {
    let segment = size_of::<ringfence_engine::Segment>();
    (offset_of!(Context, cpu.seg) + index * segment) as i32
}

/// Offset of the first TLB entry of a privilege class.
pub const fn tlb(class: usize) -> i32 {
    (offset_of!(Context, tlb) + class * TLB_SIZE * size_of::<TlbEntry>()) as i32
}

/// Offset of a recent page of a privilege class.
pub const fn recent(class: usize, slot: u8) -> i32 {
    let index = class * RECENT_SLOTS + slot as usize;
    (offset_of!(Context, recent) + index * size_of::<RecentPage>()) as i32
}

/// Offset of the branch-target table of a privilege class for flags in EFLAGS or the context.
pub const fn targets(class: usize, in_memory: bool) -> i32 {
    (offset_of!(Context, targets) + (class * 2 + in_memory as usize) * TARGETS * 8) as i32
}

/// Owner of a [`Context`]; its address never changes.
#[derive(Debug)]
pub struct ContextBox(NonNull<Context>);

// SAFETY: the context is plain memory owned by the box.
unsafe impl Send for ContextBox {}
// SAFETY: shared access is limited to `kick`, which is atomic.
unsafe impl Sync for ContextBox {}

impl ContextBox {
    /// A context with a processor after power-up and empty tables.
    pub fn new(miss: [u64; 2]) -> Self {
        let layout = Layout::new::<Context>();
        // SAFETY: the layout has a size; zero is a valid value of every field, as all are
        // integers, booleans or arrays of them.
        let pointer = unsafe { alloc_zeroed(layout) }.cast::<Context>();
        let Some(pointer) = NonNull::new(pointer) else {
            handle_alloc_error(layout)
        };
        let mut this = Self(pointer);
        let context = this.get();
        context.cpu = *Cpu::new();
        context.this = pointer.as_ptr() as u64;
        context.xsave_mask = 3;
        context.host_mxcsr = 0x1f80;
        for class in 0..CLASSES {
            for (index, entry) in context.tlb[class].iter_mut().enumerate() {
                let tag = TlbEntry::miss(index);
                *entry = TlbEntry {
                    tag_read: tag,
                    tag_write: tag,
                    host: 0,
                    info: 0,
                };
            }
            context.forget_recent(class);
            context.forget_targets(class, miss);
        }
        this
    }

    /// The context.
    pub fn get(&mut self) -> &mut Context {
        // SAFETY: the box owns the context and `&mut self` is exclusive.
        unsafe { self.0.as_mut() }
    }

    /// The context, to look at.
    pub fn peek(&self) -> &Context {
        // SAFETY: the box owns the context, and no one writes to it while it is borrowed.
        unsafe { self.0.as_ref() }
    }

    /// Its address.
    pub fn as_ptr(&self) -> *mut Context {
        self.0.as_ptr()
    }

    /// The flag that other threads set.
    pub fn kick_flag(&self) -> *const AtomicU64 {
        // SAFETY: the field lies in the context, which lives as long as the box.
        unsafe { &raw const (*self.0.as_ptr()).kick }
    }
}

impl Drop for ContextBox {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.0.as_ptr().cast(), Layout::new::<Context>()) };
    }
}

impl Context {
    /// Sends all indirect branches of a privilege class to `miss`.
    pub fn forget_targets(&mut self, class: usize, miss: [u64; 2]) {
        for (table, miss) in self.targets[class].iter_mut().zip(miss) {
            table.fill(miss);
        }
    }

    /// Sends the indirect branches of one slot to `miss`.
    pub fn forget_target(&mut self, class: usize, slot: usize, miss: [u64; 2]) {
        for (table, miss) in self.targets[class].iter_mut().zip(miss) {
            table[slot] = miss;
        }
    }

    /// Forgets the recent pages of a privilege class.
    pub fn forget_recent(&mut self, class: usize) {
        let host = self.garbage.as_ptr() as u64;
        let (tag_read, tag_write) = (RecentPage::MISS, RecentPage::MISS);
        let (host_read, host_write) = (host, host);
        self.recent[class] = [RecentPage {
            tag_read,
            host_read,
            tag_write,
            host_write,
        }; RECENT_SLOTS];
    }
}
