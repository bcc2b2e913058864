//! The wired machine: what an engine and a board see.

use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_chips::Platform;
use ringfence_engine::{Clock, Kick, LocalDevices, VcpuEvent};

const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
const SVR: u64 = 0xf0;
const EOI: u64 = 0xb0;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const TSC_DEADLINE: u32 = 0x6e0;

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Kick for Counter {
    fn notify(&self) {
        self.0.fetch_add(1, SeqCst);
    }
    fn interrupt(&self) {}
}

impl Counter {
    fn take(&self) -> u64 {
        self.0.swap(0, SeqCst)
    }
}

struct Machine {
    platform: Arc<Platform>,
    clock: Arc<Clock>,
    kicks: Vec<Arc<Counter>>,
}

impl Machine {
    fn new(vcpus: u32) -> Self {
        let clock = Arc::new(Clock::new());
        let platform = Platform::new(Arc::clone(&clock), vcpus);
        let kicks = (0..vcpus)
            .map(|vcpu| {
                let kick = Arc::new(Counter::default());
                platform.attach(vcpu, kick.clone());
                kick
            })
            .collect();
        Self {
            platform,
            clock,
            kicks,
        }
    }

    /// With every local APIC software-enabled and LINT0 masked.
    fn symmetric(vcpus: u32) -> Self {
        let machine = Self::new(vcpus);
        for vcpu in 0..vcpus {
            machine.lapic(vcpu, SVR, 0x1ff);
            machine.lapic(vcpu, LVT_LINT0, 0x1_0000);
        }
        machine.start_all();
        machine.taken();
        machine
    }

    fn start_all(&self) {
        for vcpu in 1..self.platform.vcpus() {
            self.lapic(0, 0x310, vcpu << 24);
            self.lapic(0, 0x300, 0x4608);
            assert_eq!(self.platform.take_event(vcpu), Some(VcpuEvent::Startup(8)));
        }
    }

    fn lapic(&self, vcpu: u32, offset: u64, value: u32) {
        assert!(
            self.platform
                .mmio_write(vcpu, LAPIC + offset, 4, value.into())
        );
    }

    fn lapic_read(&self, vcpu: u32, offset: u64) -> u32 {
        self.platform.mmio_read(vcpu, LAPIC + offset, 4).unwrap() as u32
    }

    fn entry(&self, pin: u32, high: u32, low: u32) {
        for (index, value) in [(0x11 + 2 * pin, high), (0x10 + 2 * pin, low)] {
            self.platform.mmio_write(0, IOAPIC, 4, index.into());
            self.platform.mmio_write(0, IOAPIC + 0x10, 4, value.into());
        }
    }

    fn outb(&self, port: u16, value: u8) {
        assert!(self.platform.port_write(0, port, 1, value.into()));
    }

    fn inb(&self, port: u16) -> u8 {
        self.platform.port_read(0, port, 1).unwrap() as u8
    }

    /// Vectors 20h and 28h; IRQs in `mask` masked.
    fn pics(&self, mask: u16) {
        for (port, base, cascade) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] {
            self.outb(port, 0x11);
            for icw in [base, cascade, 1] {
                self.outb(port + 1, icw);
            }
        }
        self.outb(0x21, mask as u8);
        self.outb(0xa1, (mask >> 8) as u8);
    }

    fn pit(&self, control: u8, count: u16) {
        self.outb(0x43, control);
        for byte in count.to_le_bytes() {
            self.outb(0x40, byte);
        }
    }

    fn taken(&self) -> Vec<u64> {
        self.kicks.iter().map(|kick| kick.take()).collect()
    }

    fn acknowledge(&self, vcpu: u32) -> Option<u8> {
        let pending = self.platform.interrupt_pending(vcpu);
        let vector = self.platform.acknowledge_interrupt(vcpu);
        assert_eq!(pending, vector.is_some());
        vector
    }

    /// Serves interrupts as a guest would, by `eoi`, until `count` have come; how long it took.
    fn serve(&self, count: u32, vector: u8, eoi: impl Fn(&Self)) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            while !self.platform.interrupt_pending(0) {
                assert!(start.elapsed() < Duration::from_secs(10), "no interrupt");
                thread::yield_now();
            }
            assert_eq!(self.platform.acknowledge_interrupt(0), Some(vector));
            eoi(self);
        }
        start.elapsed()
    }
}

#[test]
fn the_pic_works_before_the_apic_is_set_up() {
    let machine = Machine::new(2);
    machine.pics(0);
    machine.taken();
    machine.platform.irq_line(4, true);
    assert_eq!(machine.taken(), [1, 0], "the bootstrap processor alone");
    assert!(!machine.platform.interrupt_pending(1));
    assert_eq!(machine.acknowledge(0), Some(0x24));
    assert_eq!(machine.acknowledge(0), None);
    machine.outb(0x20, 0x20);
    machine.platform.irq_line(12, true);
    assert_eq!(machine.acknowledge(0), Some(0x2c));
    machine.outb(0xa0, 0x20);
    machine.outb(0x20, 0x20);
    // LINT0 masked: not any more.
    machine.lapic(0, SVR, 0x1ff);
    machine.lapic(0, LVT_LINT0, 0x1_0700);
    machine.platform.irq_line(5, true);
    assert_eq!(machine.acknowledge(0), None);
    machine.taken();
    machine.lapic(0, LVT_LINT0, 0x700);
    assert_eq!(machine.taken(), [1, 0]);
    assert_eq!(machine.acknowledge(0), Some(0x25));
}

#[test]
fn lines_reach_the_io_apic_with_irq_0_at_pin_2() {
    let machine = Machine::symmetric(2);
    for (pin, vector) in [(0, 0x50), (1, 0x51), (2, 0x52), (23, 0x67)] {
        machine.entry(pin, 1 << 24, vector);
    }
    machine.pics(0xffff);
    machine.taken();
    for (gsi, vector) in [
        (0, Some(0x52)),
        (1, Some(0x51)),
        (2, None),
        (23, Some(0x67)),
        (24, None),
    ] {
        machine.platform.irq_line(gsi, true);
        machine.platform.irq_line(gsi, false);
        assert_eq!(
            machine.taken(),
            [0, u64::from(vector.is_some())],
            "GSI {gsi}"
        );
        assert_eq!(machine.acknowledge(1), vector);
        machine.lapic(1, EOI, 0);
    }
}

#[test]
fn a_level_interrupt_comes_again_until_its_line_drops() {
    let machine = Machine::symmetric(1);
    machine.entry(10, 0, 0x803a);
    machine.platform.irq_line(10, true);
    for _ in 0..3 {
        assert_eq!(machine.acknowledge(0), Some(0x3a));
        assert_eq!(machine.acknowledge(0), None);
        machine.taken();
        machine.lapic(0, EOI, 0);
        assert_eq!(machine.taken(), [1]);
    }
    machine.platform.irq_line(10, false);
    assert_eq!(machine.acknowledge(0), Some(0x3a));
    machine.lapic(0, EOI, 0);
    assert_eq!(machine.acknowledge(0), None);
    // With EOI broadcasts suppressed, the I/O APIC's own register ends it.
    machine.lapic(0, SVR, 0x11ff);
    machine.platform.irq_line(10, true);
    assert_eq!(machine.acknowledge(0), Some(0x3a));
    machine.lapic(0, EOI, 0);
    assert_eq!(machine.acknowledge(0), None);
    machine.platform.mmio_write(0, IOAPIC + 0x40, 4, 0x3a);
    assert_eq!(machine.acknowledge(0), Some(0x3a));
}

#[test]
fn a_level_refused_by_a_disabled_apic_arrives_when_it_is_enabled() {
    let machine = Machine::new(1);
    machine.entry(10, 0, 0x803a);
    machine.platform.irq_line(10, true);
    assert_eq!(machine.acknowledge(0), None);
    machine.lapic(0, SVR, 0x1ff);
    assert_eq!(machine.acknowledge(0), Some(0x3a));
}

#[test]
fn the_io_apic_may_pass_on_the_pic() {
    let machine = Machine::symmetric(1);
    machine.pics(0);
    machine.entry(0, 0, 0x700);
    machine.platform.irq_line(4, true);
    assert_eq!(machine.acknowledge(0), Some(0x24));
    assert_eq!(machine.acknowledge(0), None);
}

#[test]
fn lowest_priority_goes_round_and_follows_the_priorities() {
    let machine = Machine::symmetric(4);
    for vcpu in 0..4 {
        machine.lapic(vcpu, 0xd0, 1 << (24 + vcpu));
    }
    for _ in 0..4 {
        machine.platform.signal_msi(0xfee0_f00c, 0x141);
    }
    for vcpu in 0..4 {
        assert_eq!(machine.acknowledge(vcpu), Some(0x41));
        machine.lapic(vcpu, EOI, 0);
    }
    for vcpu in [0, 1, 3] {
        machine.platform.set_task_priority(vcpu, 2);
    }
    for vector in [0x42, 0x53] {
        machine.platform.signal_msi(0xfee0_f00c, 0x100 | vector);
        assert_eq!(machine.acknowledge(2), Some(vector as u8));
        machine.lapic(2, EOI, 0);
    }
}

#[test]
fn ipis_reach_whom_they_are_for() {
    let machine = Machine::symmetric(4);
    let pending =
        |vcpus: &[u32]| (0..4).all(|v| machine.acknowledge(v).is_some() == vcpus.contains(&v));
    for (high, low, to) in [
        (2 << 24, 0x4040, &[2][..]),
        (0xff << 24, 0x4040, &[0, 1, 2, 3]),
        (9 << 24, 0x4040, &[]),
        (0, 0x4_4040, &[1]),
        (0, 0x8_4040, &[0, 1, 2, 3]),
        (0, 0xc_4040, &[0, 2, 3]),
    ] {
        machine.taken();
        machine.lapic(1, 0x310, high);
        machine.lapic(1, 0x300, low);
        let kicked = machine.taken();
        assert!(
            (0..4).all(|v| (kicked[v as usize] > 0) == to.contains(&v)),
            "{low:#x}"
        );
        assert!(pending(to), "{low:#x}");
        (0..4).for_each(|vcpu| machine.lapic(vcpu, EOI, 0));
    }
    machine.lapic(1, 0x310, 3 << 24);
    machine.lapic(1, 0x300, 0x4400);
    assert_eq!(machine.platform.take_event(3), Some(VcpuEvent::Nmi));
    assert_eq!(machine.platform.take_event(3), None);
}

#[test]
fn processors_are_started_by_init_and_sipi() {
    let machine = Machine::new(2);
    assert!(!machine.platform.waits_for_startup(0) && machine.platform.waits_for_startup(1));
    machine.lapic(0, 0x310, 1 << 24);
    machine.lapic(0, 0x300, 0xc500);
    machine.lapic(0, 0x300, 0x8500);
    assert_eq!(machine.taken(), [0, 1]);
    machine.lapic(0, 0x300, 0x4699);
    assert_eq!(machine.taken(), [0, 1], "an event on top of an event");
    assert_eq!(machine.platform.take_event(1), Some(VcpuEvent::Init));
    assert!(machine.platform.waits_for_startup(1));
    assert_eq!(
        machine.platform.take_event(1),
        Some(VcpuEvent::Startup(0x99))
    );
    assert!(!machine.platform.waits_for_startup(1));
    machine.lapic(0, 0x300, 0x4699);
    assert_eq!(
        machine.platform.take_event(1),
        None,
        "the second SIPI is ignored"
    );
}

#[test]
fn x2apic_mode_leaves_memory_and_answers_msrs() {
    let machine = Machine::symmetric(2);
    let platform = &machine.platform;
    assert_eq!(platform.read_msr(1, 0x1b), Some(Ok(0xfee0_0800)));
    assert_eq!(platform.read_msr(1, 0x802), Some(Err(())));
    assert_eq!(platform.write_msr(1, 0x1b, 0xfee0_0c00), Some(Ok(())));
    assert_eq!(platform.mmio_read(1, LAPIC + 0x20, 4), None);
    assert!(!platform.mmio_write(1, LAPIC + SVR, 4, 0));
    assert_eq!(platform.read_msr(1, 0x802), Some(Ok(1)));
    assert_eq!(platform.write_msr(1, 0x1b, 0xfee0_0800), Some(Err(())));
    assert_eq!(platform.write_msr(1, 0x830, 0x4041), Some(Ok(())));
    assert_eq!(machine.acknowledge(0), Some(0x41));
    assert_eq!(platform.write_msr(1, 0x83f, 0x42), Some(Ok(())));
    assert_eq!(machine.acknowledge(1), Some(0x42));
    assert_eq!(
        (platform.read_msr(0, 0x10), platform.write_msr(0, 0x10, 0)),
        (None, None)
    );
    assert_eq!(platform.read_msr(2, 0x1b), None);
    // The page moves with its base.
    assert_eq!(platform.write_msr(0, 0x1b, 0xd000_0900), Some(Ok(())));
    assert_eq!(platform.mmio_read(0, LAPIC + 0x30, 4), None);
    assert_eq!(platform.mmio_read(0, 0xd000_0030, 4), Some(0x0105_0014));
}

#[test]
fn widths_of_accesses() {
    let machine = Machine::new(1);
    let read = |offset, size| machine.platform.mmio_read(0, LAPIC + offset, size);
    assert_eq!(
        [1, 2, 4, 8].map(|s| read(0x30, s)),
        [0x14, 0x14, 0x0105_0014, 0x0105_0014].map(Some)
    );
    assert_eq!(
        (read(0x32, 2), read(0x33, 1), read(0x34, 4)),
        (Some(0x0105), Some(1), Some(0))
    );
    for (offset, size) in [(0x80, 1), (0x80, 2), (0x80, 8), (0x84, 4), (0x82, 4)] {
        assert!(machine.platform.mmio_write(0, LAPIC + offset, size, 0x55));
        assert_eq!(read(0x80, 4), Some(0), "ignored");
    }
    machine.outb(0x21, 0xfb);
    machine.outb(0xa1, 0xff);
    machine.outb(0x20, 0x0a);
    assert_eq!(machine.platform.port_read(0, 0x20, 2), Some(0xfb00));
    assert_eq!(machine.platform.port_read(0, 0x20, 4), Some(0xffff_fb00));
    assert_eq!(machine.platform.port_read(0, 0x61, 2).unwrap() >> 8, 0xff);
    assert!(machine.platform.port_write(0, 0x4d0, 2, 0x0208));
    assert_eq!((machine.inb(0x4d0), machine.inb(0x4d1)), (8, 2));
    assert_eq!(machine.platform.port_read(0, 0x22, 1), None);
    assert!(!machine.platform.port_write(0, 0x60, 1, 0));
    assert_eq!(machine.platform.mmio_read(0, IOAPIC + 0x100, 4), None);
    assert_eq!(machine.platform.mmio_read(0, u64::MAX, 8), None);
    assert_eq!(machine.platform.mmio_read(7, LAPIC, 4), None);
}

#[test]
fn port_61_shows_speaker_and_refresh() {
    let machine = Machine::new(1);
    machine.outb(0x61, 0xff);
    assert_eq!(machine.inb(0x61) & 0xcf, 0x0f, "only four bits can be set");
    machine.outb(0x43, 0xb0); // counter 2, mode 0: as Linux calibrates its TSC
    machine.outb(0x42, 0x00);
    machine.outb(0x42, 0x10);
    let start = machine.clock.nanoseconds();
    assert_eq!(machine.inb(0x61) & 0x20, 0);
    while machine.inb(0x61) & 0x20 == 0 {
        assert!(machine.clock.nanoseconds() - start < 1_000_000_000);
    }
    // 4096 input clocks.
    assert!(machine.clock.nanoseconds() - start >= 3_430_000);
    let seen = (0..100_000)
        .map(|_| machine.inb(0x61) & 0x10)
        .collect::<Vec<_>>();
    assert!(seen.contains(&0) && seen.contains(&0x10));
}

#[test]
fn the_pit_ticks_through_the_pic() {
    let machine = Machine::new(1);
    machine.pics(0xfffe);
    machine.pit(0x34, 1193); // 1 kHz
    let took = machine.serve(50, 0x20, |machine| machine.outb(0x20, 0x20));
    assert!(took >= Duration::from_millis(45), "{took:?}");
    assert!(machine.taken()[0] >= 50);
}

#[test]
fn the_pit_ticks_through_the_io_apic() {
    let machine = Machine::symmetric(1);
    machine.pics(0xffff);
    machine.entry(2, 0, 0x30);
    machine.pit(0x34, 1193);
    let took = machine.serve(50, 0x30, |machine| machine.lapic(0, EOI, 0));
    assert!(took >= Duration::from_millis(45), "{took:?}");
}

#[test]
fn ticks_that_came_late_are_made_up_for_up_to_a_limit() {
    for by_pic in [true, false] {
        let machine = if by_pic {
            Machine::new(1)
        } else {
            Machine::symmetric(1)
        };
        machine.pics(if by_pic { 0xfffe } else { 0xffff });
        if !by_pic {
            machine.entry(2, 0, 0x20);
        }
        machine.pit(0x34, 1193);
        // The guest does not look for 95 ticks.
        thread::sleep(Duration::from_millis(95));
        let eoi = |machine: &Machine| {
            if by_pic {
                machine.outb(0x20, 0x20)
            } else {
                machine.lapic(0, EOI, 0)
            }
        };
        let took = machine.serve(90, 0x20, eoi);
        assert!(took < Duration::from_millis(60), "{took:?}");
        // Nor for 400: no more than 100 are kept.
        thread::sleep(Duration::from_millis(400));
        let took = machine.serve(150, 0x20, eoi);
        assert!(took >= Duration::from_millis(40), "{took:?}");
    }
}

#[test]
fn a_masked_pit_does_not_wake_anybody() {
    let machine = Machine::symmetric(1);
    machine.pics(0xffff);
    machine.pit(0x34, 1193);
    machine.taken();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.taken(), [0]);
    // Unmasked, it goes on without what it missed.
    machine.entry(2, 0, 0x30);
    let took = machine.serve(10, 0x30, |machine| machine.lapic(0, EOI, 0));
    assert!(took >= Duration::from_millis(8), "{took:?}");
}

#[test]
fn the_apic_timer_wakes_at_its_deadline() {
    let machine = Machine::symmetric(1);
    machine.lapic(0, LVT_TIMER, 0x4_0050);
    // A later deadline first, so that the thread must be woken to sleep less.
    for milliseconds in [1000, 20] {
        let deadline = machine.clock.tsc() + machine.clock.tsc_hz() * milliseconds / 1000;
        assert_eq!(
            machine.platform.write_msr(0, TSC_DEADLINE, deadline),
            Some(Ok(()))
        );
        assert_eq!(
            machine.platform.read_msr(0, TSC_DEADLINE),
            Some(Ok(deadline))
        );
    }
    let deadline = machine.platform.read_msr(0, TSC_DEADLINE).unwrap().unwrap();
    let took = machine.serve(1, 0x50, |machine| machine.lapic(0, EOI, 0));
    assert!(machine.clock.tsc() >= deadline, "not early");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(machine.platform.read_msr(0, TSC_DEADLINE), Some(Ok(0)));
    assert!(machine.taken()[0] >= 1);
    // Periodic, 1 ms: 25,000 ticks of 40 ns.
    machine.lapic(0, 0x3e0, 0xb);
    machine.lapic(0, LVT_TIMER, 0x2_0051);
    machine.lapic(0, 0x380, 25_000);
    let took = machine.serve(30, 0x51, |machine| machine.lapic(0, EOI, 0));
    assert!(took >= Duration::from_millis(28), "{took:?}");
    assert!(machine.lapic_read(0, 0x390) <= 25_000);
}

#[test]
fn the_fastest_timer_leaves_the_host_alone() {
    let machine = Machine::symmetric(1);
    machine.lapic(0, 0x3e0, 0xb);
    machine.lapic(0, LVT_TIMER, 0x2_0051);
    machine.lapic(0, 0x380, 1);
    let start = Instant::now();
    let mut served = 0;
    while start.elapsed() < Duration::from_millis(50) {
        if machine.acknowledge_any(0).is_some() {
            served += 1;
            machine.lapic(0, EOI, 0);
        }
        thread::yield_now();
    }
    assert!((1..=3000).contains(&served), "{served}");
}

impl Machine {
    /// As `acknowledge`, while the timer may come in between.
    fn acknowledge_any(&self, vcpu: u32) -> Option<u8> {
        self.platform.acknowledge_interrupt(vcpu)
    }
}

#[test]
fn the_timer_thread_ends_with_the_machine() {
    let (done, ended) = mpsc::channel();
    let platform = Platform::new(Arc::new(Clock::new()), 1);
    platform.port_write(0, 0x43, 1, 0x34);
    for _ in 0..2 {
        platform.port_write(0, 0x40, 1, 9);
    }
    let weak = Arc::downgrade(&platform);
    thread::spawn(move || {
        drop(platform);
        done.send(()).unwrap();
    });
    ended
        .recv_timeout(Duration::from_secs(5))
        .expect("the drop waits for the thread");
    assert!(weak.upgrade().is_none());
}

/// Drops the last outside reference while the timer thread holds one.
#[test]
fn the_timer_thread_may_be_the_last_owner() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some("ringfence-timer") {
            PANICKED.store(true, SeqCst);
        }
        hook(info);
    }));
    for _ in 0..300 {
        let machine = Machine::symmetric(1);
        machine.lapic(0, 0x3e0, 0xb);
        machine.lapic(0, LVT_TIMER, 0x2_0051);
        machine.lapic(0, 0x380, 1);
        // The thread wakes every 20 µs and owns the platform for part of that.
        machine.platform.attach(0, Arc::new(Sleepy));
        thread::sleep(Duration::from_micros(100));
    }
    assert!(!PANICKED.load(SeqCst), "it must not wait for itself");
}

/// A kick that takes its time.
#[derive(Debug)]
struct Sleepy;

impl Kick for Sleepy {
    fn notify(&self) {
        thread::sleep(Duration::from_millis(1));
    }
    fn interrupt(&self) {}
}

#[test]
fn the_pic_reaches_lint0_in_other_modes_than_ext_int() {
    let machine = Machine::symmetric(2);
    machine.pics(0);
    machine.lapic(1, LVT_LINT0, 0x400);
    machine.lapic(0, LVT_LINT0, 0x34);
    machine.platform.irq_line(4, true);
    assert_eq!(machine.platform.take_event(1), Some(VcpuEvent::Nmi));
    assert_eq!(machine.acknowledge(0), Some(0x34));
    machine.platform.irq_line(3, true);
    assert_eq!(
        machine.platform.take_event(1),
        None,
        "INTR did not rise again"
    );
}

/// A kick that calls back into the platform, as an engine's thread would right after it.
#[derive(Debug)]
struct Reentrant(std::sync::Weak<Platform>);

impl Kick for Reentrant {
    fn notify(&self) {
        if let Some(platform) = self.0.upgrade() {
            platform.port_read(0, 0x21, 1);
            platform.mmio_read(0, LAPIC + 0x20, 4);
            platform.acknowledge_interrupt(0);
            platform.mmio_write(0, LAPIC + EOI, 4, 0);
        }
    }
    fn interrupt(&self) {}
}

#[test]
fn no_lock_is_held_while_kicking() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let machine = Machine::symmetric(1);
        machine
            .platform
            .attach(0, Arc::new(Reentrant(Arc::downgrade(&machine.platform))));
        machine.entry(10, 0, 0x3a);
        machine.platform.irq_line(10, true);
        machine.platform.signal_msi(LAPIC, 0x41);
        machine.lapic(0, 0x300, 0x4_4042);
        done.send(()).unwrap();
    });
    ended
        .recv_timeout(Duration::from_secs(5))
        .expect("deadlock");
}

#[test]
fn sixty_four_processors_exchange_interrupts_without_losing_any() {
    const ROUNDS: u32 = 300;
    let machine = Machine::symmetric(64);
    let platform = &machine.platform;
    let send = |from: u32, to: u32| {
        platform.mmio_write(from, LAPIC + 0x310, 4, u64::from(to) << 24);
        platform.mmio_write(from, LAPIC + 0x300, 4, 0x4044);
    };
    let receive = |vcpu: u32, round: u32| {
        let start = Instant::now();
        while !platform.interrupt_pending(vcpu) {
            assert!(start.elapsed() < Duration::from_secs(10), "lost");
            thread::yield_now();
        }
        assert_eq!(platform.acknowledge_interrupt(vcpu), Some(0x44));
        platform.mmio_write(vcpu, LAPIC + EOI, 4, 0);
        // Traffic on the board at the same time.
        platform.port_read(vcpu, 0x61, 1);
        platform.irq_line(7, round.is_multiple_of(2));
    };
    thread::scope(|scope| {
        for (ping, pong) in [(0, 63), (31, 1)] {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    send(ping, pong);
                    receive(ping, round);
                }
            });
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    receive(pong, round);
                    send(pong, ping);
                }
            });
        }
    });
}
