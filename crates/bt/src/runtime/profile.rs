//! A sampling profiler of one processor: what its thread's processor time goes into.
//!
//! A timer on the thread's CPU time sends SIGPROF; the handler counts the phase that the engine is
//! in or, for translated code, the place. Nothing is counted, and nothing paid but a store per
//! change of phase, unless the profiler was started.

use std::cell::Cell;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use libc::{REG_RIP, SIGPROF, c_int, c_void, sigaction, siginfo_t, ucontext_t};

/// What the processor's thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Outside the engine: device models, and whatever else the caller of `run` does.
    Outside,
    /// The dispatcher: finding and linking blocks, interrupts, requests of others.
    Dispatch,
    /// Translating.
    Translate,
    /// The interpreter, devices of the engine included.
    Interpret,
    /// A TLB miss of translated code.
    TlbMiss,
}

/// Names of the phases in reports, in the order of [`Phase`].
pub const PHASES: [&str; 5] = ["outside", "dispatch", "translate", "interpret", "tlb_miss"];

/// Bytes of translated code that share a counter: log2.
const GRAIN: u32 = 4;

/// Counters, at an address that never changes.
#[derive(Debug)]
pub struct Profile {
    phase: AtomicU8,
    phases: [AtomicU32; PHASES.len()],
    /// First host address of the code cache.
    base: u64,
    code: Vec<AtomicU32>,
}

thread_local! {
    /// The profile of the processor that this thread ran last.
    static CURRENT: Cell<*const Profile> = const { Cell::new(std::ptr::null()) };
}

impl Profile {
    fn new(range: (u64, u64)) -> Self {
        let buckets = (range.1 - range.0) >> GRAIN;
        let mut code = Vec::new();
        code.resize_with(buckets as usize, AtomicU32::default);
        Self {
            phase: AtomicU8::new(0),
            phases: Default::default(),
            base: range.0,
            code,
        }
    }

    fn count(&self, rip: u64) {
        let bucket = (rip.wrapping_sub(self.base) >> GRAIN) as usize;
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        let counter = self.code.get(bucket).or_else(|| self.phases.get(phase));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The profiler of a processor; off until it is started.
#[derive(Debug, Default)]
pub struct Profiler {
    profile: Option<Box<Profile>>,
    /// The thread that the timer watches, and the timer.
    timer: Option<(c_int, libc::timer_t)>,
    hertz: u32,
}

// SAFETY: a timer belongs to the process, whatever thread it watches.
unsafe impl Send for Profiler {}

impl Profiler {
    /// Begins anew with `hertz` samples per second of processor time; 0 stops.
    pub fn start(&mut self, hertz: u32, cache: (u64, u64)) {
        self.drop_timer();
        self.hertz = hertz;
        if hertz != 0 {
            // The handler may still run on another thread with the old one: it stays.
            match &self.profile {
                None => self.profile = Some(Box::new(Profile::new(cache))),
                Some(old) => {
                    let all = old.phases.iter().chain(&old.code);
                    all.for_each(|counter| counter.store(0, Ordering::Relaxed));
                }
            }
        }
    }

    /// The processor enters the engine on this thread.
    pub fn enter(&mut self) {
        if self.hertz == 0 {
            return;
        }
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::gettid() };
        if self.timer.is_none_or(|(watched, _)| watched != thread) {
            self.drop_timer();
            self.watch(thread);
        }
        self.phase(Phase::Dispatch);
    }

    /// The engine begins something else.
    pub fn phase(&self, phase: Phase) {
        if let Some(profile) = &self.profile {
            profile.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// Samples by phase, and of each part of translated code that has any, by host address.
    pub fn samples(&self) -> ([u32; PHASES.len()], Vec<(u64, u32)>) {
        let Some(profile) = &self.profile else {
            return Default::default();
        };
        let phases = [0, 1, 2, 3, 4].map(|i: usize| profile.phases[i].load(Ordering::Relaxed));
        let places = profile.code.iter().enumerate().filter_map(|(i, counter)| {
            let samples = counter.load(Ordering::Relaxed);
            (samples != 0).then_some((profile.base + ((i as u64) << GRAIN), samples))
        });
        (phases, places.collect())
    }

    fn watch(&mut self, thread: c_int) {
        let Some(profile) = &self.profile else { return };
        install();
        CURRENT.set(&raw const **profile);
        let period = libc::timespec {
            tv_sec: 0,
            tv_nsec: i64::from(1_000_000_000 / self.hertz.max(2)),
        };
        let times = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: plain system calls on values of our own.
        unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGPROF;
            event.sigev_notify_thread_id = thread;
            let mut timer = null_mut();
            let clock = libc::CLOCK_THREAD_CPUTIME_ID;
            if libc::timer_create(clock, &raw mut event, &raw mut timer) == 0 {
                libc::timer_settime(timer, 0, &raw const times, null_mut());
                self.timer = Some((thread, timer));
            }
        }
    }

    fn drop_timer(&mut self) {
        if let Some((thread, timer)) = self.timer.take() {
            // SAFETY: the timer was made in `watch`.
            unsafe {
                libc::timer_delete(timer);
                if libc::gettid() == thread {
                    CURRENT.set(std::ptr::null());
                }
            }
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.drop_timer();
        if let Some(profile) = self.profile.take() {
            // A thread that ran this processor may still point to it; a profile is a few pages.
            Box::leak(profile);
        }
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain registration of a handler.
        unsafe {
            let mut action: sigaction = zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigaction(SIGPROF, &raw const action, null_mut());
        }
    });
}

unsafe extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid context.
    let rip = unsafe { (*context.cast::<ucontext_t>()).uc_mcontext.gregs[REG_RIP as usize] };
    let profile = CURRENT.get();
    // SAFETY: null, or a profile that is never freed.
    if let Some(profile) = unsafe { profile.as_ref() } {
        profile.count(rip as u64);
    }
}
