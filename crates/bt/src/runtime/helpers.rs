//! Light helpers: called from translated code with the guest's vector state in host registers.
//!
//! The stub saves XMM0 to XMM15, which is all that baseline Rust touches. The upper halves and
//! x87 state stay in place, so nothing here may allocate or call the C library (whose copies use
//! wider registers); what needs that gives up, and the interpreter does the instruction.

use std::sync::atomic::Ordering;

use super::core::Core;
use super::profile::Phase;
use crate::context::{Context, TlbEntry};
use crate::frontend::meta;
use crate::interp::breakpoints;
use crate::softmmu::tlb::Tlb;
use crate::softmmu::walk::{Access, walk};

/// Host address of linear address `linear`, or 0: then RIP is at the instruction, and the
/// interpreter executes it.
///
/// # Safety
/// For the stub only: `context` is the running processor's, its owner is set.
pub unsafe extern "sysv64" fn memory_miss(context: *mut Context, linear: u64, meta: u32) -> u64 {
    // SAFETY: the stub passes the context whose owner runs this code; the owner's other fields
    // are disjoint from the context.
    let (context, core) = unsafe {
        let context = &mut *context;
        let core = &mut *(context.owner as *mut Core);
        (context, core)
    };
    core.statistics.tlb_misses += 1;
    core.profiler.phase(Phase::TlbMiss);
    let class = (meta >> meta::CLASS_SHIFT) as usize;
    let write = meta & meta::WRITE != 0;
    let window = meta & meta::WINDOW != 0;
    let size = u64::from(meta & meta::SIZE);
    let found = translate(core, context, class, linear, write, size);
    core.profiler.phase(Phase::Dispatch);
    if let Some(host) = found {
        let slot = (meta >> meta::RECENT_SHIFT & meta::RECENT) as usize;
        Tlb::fill_recent(context, class, slot, linear);
        return host;
    }
    if window {
        return meta::FAILED;
    }
    let key = &core.cache.blocks[context.exit as usize].key;
    let offset = u64::from(meta >> meta::OFFSET_SHIFT & 0xfff);
    context.cpu.rip = key.mode.ip(key.linear & !0xfff | offset);
    0
}

fn translate(
    core: &mut Core,
    context: &mut Context,
    class: usize,
    linear: u64,
    write: bool,
    size: u64,
) -> Option<u64> {
    let offset = linear & 0xfff;
    if offset + size > 4096 || (linear as i64) << 16 >> 16 != linear as i64 {
        return None;
    }
    let entry = &context.tlb[class][TlbEntry::index(linear)];
    let tag = if write {
        entry.tag_write
    } else {
        entry.tag_read
    };
    if tag ^ linear < 4096 {
        return Some(entry.host + offset);
    }
    if breakpoints::on_page(&context.cpu, linear, false) {
        return None;
    }
    let access = Access {
        write,
        fetch: false,
        user: class == 1,
        implicit: false,
    };
    let world = &mut core.world;
    let translation = walk(&context.cpu, &world.phys, linear, access).ok()?;
    if world.tlb.is_new_large(linear, &translation) {
        return None;
    }
    let place = world.phys.place(translation.gpa)?;
    if write && !place.ram {
        return None;
    }
    if write && place.holders.load(Ordering::SeqCst) != 0 {
        // A page of code, which often holds data too. Only this processor may have its code, and
        // must be known to write there, in case that another one translates some meanwhile.
        let beside = !place.is_clean() && !place.region.aliased && {
            place.writers.fetch_or(core.bit, Ordering::SeqCst);
            place.holders.load(Ordering::SeqCst) == core.bit
                && !core.cache.touches_code(translation.gpa, size)
        };
        return beside.then_some(place.host as u64);
    }
    world
        .tlb
        .fill(context, class, linear, &translation, &place, write);
    Some(place.host as u64)
}
