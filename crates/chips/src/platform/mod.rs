//! The interrupt hardware of one machine, wired and locked.
//!
//! Locks, in the order in which they may be taken: the board (PICs, PIT, I/O APIC), then one local
//! APIC. Never two local APICs, never the board with a local APIC locked. The alarm's lock and
//! the one around a kick handle are leaves. A [`Kick`] is called with none of them held.
//!
//! What an engine asks at every poll is answered from [`Slot::summary`] and
//! [`Platform::pic_output`]: each side stores its own and then loads the other's (sequentially
//! consistent), so of a change on both sides at once at least one is seen.

mod access;
mod events;
mod slot;
mod video;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ringfence_engine::{Clock, Kick, LocalDevices as _};

use crate::alarm::{Alarm, Timers};
use crate::board::Board;
use crate::ioapic::Bus;
use crate::lapic::{Effect, Lapic};
use crate::message::{Delivery, DeliveryMode, Message, Target};
use crate::time::scale;
use events::{IoEvents, IrqEvents};
use slot::{NO_PAGE, Slot, summary};
pub use video::VideoSlot;

/// Most virtual processors of a machine.
pub const MAX_VCPUS: u32 = 64;

/// Shortest sleep of the timer thread in nanoseconds: a guest's fastest timer must not keep a
/// host processor busy.
const SHORTEST_SLEEP: u64 = 20_000;

/// No port, in [`Platform::pm_timer`].
const NO_PORT: u32 = u32::MAX;
/// Frequency of the ACPI power management timer (ACPI specification 6.5, section 4.8.2.1).
const PM_TIMER_HZ: u64 = 3_579_545;

/// No vector, in [`Platform::late_vector`].
const NO_VECTOR: u16 = 0x100;

/// What is left to do when the locks have been dropped.
#[derive(Debug, Default)]
struct Pass {
    /// Processors to kick, a bit each.
    kicks: u64,
    /// The timer thread is at work: it finds new deadlines by itself.
    serving: bool,
}

impl Pass {
    fn kick(&mut self, vcpu: u32) {
        self.kicks |= 1 << (vcpu & 63);
    }
}

/// PICs, PIT, I/O APIC and local APICs of one machine.
#[derive(Debug)]
pub struct Platform {
    clock: Arc<Clock>,
    slots: Box<[Slot]>,
    board: Mutex<Board>,
    /// Level of the PICs' INTR.
    pic_output: AtomicBool,
    /// Vector whose EOI the board waits for to deliver a late timer interrupt.
    late_vector: AtomicU16,
    /// When PIT or HPET are due, in nanoseconds.
    pit_deadline: AtomicU64,
    /// Port of the ACPI power management timer; [`NO_PORT`]: nowhere.
    pm_timer: AtomicU32,
    /// Where the search for the destination of lowest priority begins.
    rotation: AtomicU32,
    alarm: OnceLock<Alarm>,
    video: Arc<VideoSlot>,
    io_events: IoEvents,
    irq_events: IrqEvents,
    own: Weak<Self>,
}

impl Platform {
    /// The hardware of a machine with `vcpus` processors, 1 to [`MAX_VCPUS`] (others are brought
    /// into that range).
    ///
    /// # Panics
    /// When the host can't start a thread; see [`Platform::try_new`].
    pub fn new(clock: Arc<Clock>, vcpus: u32) -> Arc<Self> {
        match Self::try_new(clock, vcpus) {
            Ok(platform) => platform,
            Err(error) => panic!("the timer thread can't be started: {error}"),
        }
    }

    /// As [`Platform::new`].
    ///
    /// # Errors
    /// The host can't start a thread.
    pub fn try_new(clock: Arc<Clock>, vcpus: u32) -> io::Result<Arc<Self>> {
        let slots = (0..vcpus.clamp(1, MAX_VCPUS)).map(Slot::new).collect();
        let platform = Arc::new_cyclic(|own| Self {
            clock: Arc::clone(&clock),
            slots,
            board: Mutex::default(),
            pic_output: AtomicBool::new(false),
            late_vector: AtomicU16::new(NO_VECTOR),
            pit_deadline: AtomicU64::new(u64::MAX),
            pm_timer: AtomicU32::new(NO_PORT),
            rotation: AtomicU32::new(0),
            alarm: OnceLock::new(),
            video: Arc::new(VideoSlot::new(clock.clone())),
            io_events: IoEvents::default(),
            irq_events: IrqEvents::default(),
            own: own.clone(),
        });
        // A deterministic processor serves the timers itself.
        if clock.counted().is_none() {
            let alarm = Alarm::start(clock, Arc::downgrade(&platform))?;
            // The cell is empty: nobody else has the platform yet.
            let _ = platform.alarm.set(alarm);
        }
        Ok(platform)
    }

    /// Number of processors.
    pub fn vcpus(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Makes processor `vcpu` hear of its interrupts. The handle must not own the platform.
    pub fn attach(&self, vcpu: u32, kick: Arc<dyn Kick>) {
        if let Some(slot) = self.slot(vcpu) {
            *slot.kick.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&kick));
            if slot.summary.load(SeqCst) & (summary::EVENT | summary::INTERRUPT) != 0 {
                kick.notify();
            }
        }
    }

    /// Where the machine's VGA is attached.
    pub fn video(&self) -> &Arc<VideoSlot> {
        &self.video
    }

    /// Sets the level of a global system interrupt: 0 to 15 reach PICs and I/O APIC, 16 to 23 the
    /// I/O APIC. 0 arrives at pin 2 of the I/O APIC; 2 is the PICs' cascade and has no line.
    pub fn irq_line(&self, gsi: u32, level: bool) {
        let mut pass = Pass::default();
        self.with_board(&mut pass, |board, _, bus| board.set_line(gsi, level, bus));
        self.finish(pass);
    }

    /// Answers double-word reads of the ACPI power management timer at `port`, or not any more.
    /// Its other registers are a device's; guests read this one in loops.
    pub fn set_pm_timer(&self, port: Option<u16>) {
        self.pm_timer.store(port.map_or(NO_PORT, u32::from), SeqCst);
    }

    /// Raises SMI# at a processor.
    pub fn smi(&self, vcpu: u32) {
        let mut pass = Pass::default();
        let raised = self.with_lapic(vcpu, &mut pass, |lapic, _| lapic.raise_smi());
        if raised.is_some() {
            pass.kick(vcpu);
        }
        self.finish(pass);
    }

    /// Delivers a message-signalled interrupt; one that is not valid is dropped.
    pub fn signal_msi(&self, address: u64, data: u32) {
        let Some(message) = Message::from_msi(address, data) else {
            return;
        };
        let mut pass = Pass::default();
        self.deliver(&message, &mut pass);
        self.finish(pass);
    }

    fn slot(&self, vcpu: u32) -> Option<&Slot> {
        self.slots.get(vcpu as usize)
    }

    /// Works on a local APIC and publishes what has changed.
    fn with_lapic<R>(
        &self,
        vcpu: u32,
        pass: &mut Pass,
        work: impl FnOnce(&mut Lapic, &Clock) -> R,
    ) -> Option<R> {
        let slot = self.slot(vcpu)?;
        let mut lapic = lock(&slot.lapic);
        let result = work(&mut lapic, &self.clock);
        slot.page.store(lapic.page().unwrap_or(NO_PAGE), SeqCst);
        let (new, old) = slot.publish(&lapic);
        let gained = new & !old;
        if gained & (summary::INTERRUPT | summary::EVENT) != 0
            || gained & summary::ACCEPTS_PIC != 0 && self.pic_output.load(SeqCst)
        {
            pass.kick(vcpu);
        }
        if lapic.take_deadline_change() {
            let deadline = lapic.deadline(&*self.clock).unwrap_or(u64::MAX);
            slot.deadline.store(deadline, SeqCst);
            drop(lapic);
            self.set_alarm(deadline, pass);
        }
        Some(result)
    }

    /// Works on the board, brings its wires up to date and publishes what has changed.
    fn with_board<R>(
        &self,
        pass: &mut Pass,
        work: impl FnOnce(&mut Board, u64, Bus<'_>) -> R,
    ) -> R {
        let mut board = lock(&self.board);
        let now = self.clock.nanoseconds();
        let mut bus = |message: &Message| self.deliver(message, pass);
        let result = work(&mut board, now, &mut bus);
        board.settle(now, &mut bus);
        let late = board.late_vector().map_or(NO_VECTOR, u16::from);
        self.late_vector.store(late, SeqCst);
        let output = board.pics.output();
        if output && !self.pic_output.swap(output, SeqCst) {
            self.pic_output_rises(pass);
        } else {
            self.pic_output.store(output, SeqCst);
        }
        let deadline = board.deadline(now).unwrap_or(u64::MAX);
        self.pit_deadline.store(deadline, SeqCst);
        drop(board);
        self.set_alarm(deadline, pass);
        result
    }

    fn pic_output_rises(&self, pass: &mut Pass) {
        for (vcpu, slot) in (0..).zip(&self.slots) {
            let summary = slot.summary.load(SeqCst);
            if summary & summary::ACCEPTS_PIC != 0 {
                pass.kick(vcpu);
            }
            if summary & summary::USES_LINT0 != 0 {
                self.with_lapic(vcpu, pass, |lapic, _| lapic.lint0_rise());
            }
        }
    }

    fn set_alarm(&self, deadline: u64, pass: &Pass) {
        if !pass.serving
            && let Some(alarm) = self.alarm.get()
        {
            alarm.set(deadline);
        }
    }

    /// Kicks, with all locks dropped.
    fn finish(&self, pass: Pass) {
        let mut left = pass.kicks;
        while left != 0 {
            let vcpu = left.trailing_zeros();
            left &= left - 1;
            let kick = self.slot(vcpu).and_then(|slot| {
                slot.kick
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            });
            if let Some(kick) = kick {
                kick.notify();
            }
        }
    }

    /// Takes a message to the local APICs that it is for. The board may be locked.
    fn deliver(&self, message: &Message, pass: &mut Pass) -> Delivery {
        if message.mode == DeliveryMode::LowestPriority {
            return match self.lowest_priority(message) {
                Some(vcpu) => self.deliver_to(vcpu, message, pass),
                None => Delivery::Refused,
            };
        }
        let mut best = Delivery::Refused;
        for vcpu in self.candidates(message) {
            best = best.max(self.deliver_to(vcpu, message, pass));
        }
        best
    }

    fn deliver_to(&self, vcpu: u32, message: &Message, pass: &mut Pass) -> Delivery {
        let delivery = self.with_lapic(vcpu, pass, |lapic, _| {
            if lapic.matches(&message.target, message.sender) {
                lapic.deliver(message.mode, message.vector, message.level)
            } else {
                Delivery::Refused
            }
        });
        let delivery = delivery.unwrap_or(Delivery::Refused);
        let vector = matches!(
            message.mode,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority
        );
        // An event may come on top of one that the processor does not take yet.
        if delivery == Delivery::Accepted && !vector {
            pass.kick(vcpu);
        }
        delivery
    }

    /// Processors that a message may be for: one, where its target names it.
    fn candidates(&self, message: &Message) -> std::ops::Range<u32> {
        let one = match (message.target, message.sender) {
            (
                Target::Physical {
                    id: 0xff,
                    wide: false,
                },
                _,
            ) => None,
            (Target::Physical { id: u32::MAX, .. }, _) => None,
            (Target::Physical { id, .. }, _) => Some(id),
            (Target::Myself, sender) => sender,
            _ => None,
        };
        match one {
            Some(id) if id < self.vcpus() => id..id + 1,
            Some(_) => 0..0,
            None => 0..self.vcpus(),
        }
    }

    /// The processor of the lowest priority among those that a message is for; equals take turns.
    fn lowest_priority(&self, message: &Message) -> Option<u32> {
        let candidates = self.candidates(message);
        let count = candidates.end - candidates.start;
        let first = self.rotation.fetch_add(1, SeqCst).checked_rem(count)?;
        (0..count)
            .map(|step| candidates.start + (first + step) % count)
            .filter_map(|vcpu| {
                let lapic = lock(&self.slot(vcpu)?.lapic);
                let matches = lapic.matches(&message.target, message.sender);
                Some((lapic.arbitration().filter(|_| matches)?, vcpu))
            })
            .min_by_key(|&(priority, _)| priority)
            .map(|(_, vcpu)| vcpu)
    }

    fn apply(&self, effect: Effect, pass: &mut Pass) {
        match effect {
            Effect::None => {}
            Effect::Send(message) => {
                self.deliver(&message, pass);
            }
            Effect::EndOfInterrupt { vector, broadcast } => {
                if broadcast || self.late_vector.load(SeqCst) == u16::from(vector) {
                    self.with_board(pass, |board, _, bus| {
                        if broadcast {
                            board.ioapic.end_of_interrupt(vector, bus);
                        }
                    });
                }
            }
            Effect::Enabled => {
                self.with_board(pass, |board, _, bus| board.ioapic.retry(bus));
            }
        }
    }
}

impl Timers for Platform {
    fn serve(&self) -> u64 {
        let mut pass = Pass {
            serving: true,
            ..Pass::default()
        };
        let now = self.clock.nanoseconds();
        for (vcpu, slot) in (0..).zip(&self.slots) {
            if slot.deadline.load(SeqCst) <= now {
                self.with_lapic(vcpu, &mut pass, |lapic, clock| {
                    lapic.advance(clock);
                    lapic.request_deadline_change();
                });
            }
        }
        if self.pit_deadline.load(SeqCst) <= now {
            self.with_board(&mut pass, |_, _, _| ());
        }
        self.finish(pass);
        self.deadline()
            .max(self.clock.nanoseconds().saturating_add(SHORTEST_SLEEP))
    }
}

/// The ACPI power management timer at a time in nanoseconds: 32 bits.
fn pm_timer_ticks(nanoseconds: u64) -> u32 {
    scale(nanoseconds, PM_TIMER_HZ, 1_000_000_000) as u32
}

/// Locks; a panic of another thread leaves a chip in some state that a guest could reach too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ringfence_engine::LocalDevices;

    use super::*;

    #[test]
    fn the_fastest_timer_lets_its_thread_sleep() {
        let platform = Platform::new(Arc::new(Clock::new()), 1);
        for (offset, value) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0x2_0050), (0x380, 1)] {
            platform.mmio_write(0, 0xfee0_0000 + offset, 4, value);
        }
        let before = platform.clock.nanoseconds();
        let next = platform.serve();
        assert!((before + SHORTEST_SLEEP..u64::MAX).contains(&next));
    }

    #[test]
    fn a_masked_timer_has_no_deadline() {
        let platform = Platform::new(Arc::new(Clock::new()), 1);
        for (port, value) in [(0x43, 0x34), (0x40, 0), (0x40, 1)] {
            platform.port_write(0, port, 1, value);
        }
        assert_eq!(platform.serve(), u64::MAX);
        platform.port_write(0, 0x21, 1, 0xfe);
        assert!(platform.serve() < u64::MAX);
    }
}
