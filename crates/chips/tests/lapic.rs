//! Local APIC: SDM vol. 3A, chapter 11.

mod support;

use ringfence_chips::lapic::{Effect, Lapic, Mode};
use ringfence_chips::{Delivery, DeliveryMode, Message, Target};
use ringfence_engine::VcpuEvent;
use support::FakeTime;

const ID: u32 = 0x20;
const VERSION: u32 = 0x30;
const TPR: u32 = 0x80;
const APR: u32 = 0x90;
const PPR: u32 = 0xa0;
const EOI: u32 = 0xb0;
const LDR: u32 = 0xd0;
const DFR: u32 = 0xe0;
const SVR: u32 = 0xf0;
const ISR: u32 = 0x100;
const TMR: u32 = 0x180;
const IRR: u32 = 0x200;
const ESR: u32 = 0x280;
const ICR: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const BASE: u64 = 0xfee0_0800;
const X2APIC: u64 = 0x400;
/// Nanoseconds of a timer tick at divider 1.
const TICK: u64 = 40;

struct Bench {
    lapic: Lapic,
    time: FakeTime,
}

impl Bench {
    fn new(id: u32) -> Self {
        Self {
            lapic: Lapic::new(id),
            time: FakeTime::default(),
        }
    }

    /// Software-enabled, spurious vector FFh.
    fn enabled(id: u32) -> Self {
        let mut bench = Self::new(id);
        assert_eq!(bench.write(SVR, 0x1ff), Effect::Enabled);
        bench
    }

    fn x2apic(id: u32) -> Self {
        let mut bench = Self::enabled(id);
        bench.lapic.set_base(BASE | X2APIC).unwrap();
        bench
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.lapic.read(offset, &self.time)
    }

    fn write(&mut self, offset: u32, value: u32) -> Effect {
        self.lapic.write(offset, value, &self.time)
    }

    fn fixed(&mut self, vector: u8) -> Delivery {
        self.lapic.deliver(DeliveryMode::Fixed, vector, false)
    }

    fn wrmsr(&mut self, register: u32, value: u64) -> Result<Effect, ()> {
        self.lapic.write_msr(register, value, &self.time)
    }

    fn rdmsr(&mut self, register: u32) -> Result<u64, ()> {
        self.lapic.read_msr(register, &self.time)
    }

    /// Sends an IPI by the xAPIC's ICR.
    fn ipi(&mut self, high: u32, low: u32) -> Option<Message> {
        self.write(ICR_HIGH, high);
        match self.write(ICR, low) {
            Effect::Send(message) => Some(message),
            effect => {
                assert_eq!(effect, Effect::None);
                None
            }
        }
    }

    /// Number of timer interrupts at times `step` apart.
    fn expiries(&mut self, step: u64, steps: u32) -> u32 {
        (0..steps).fold(0, |count, _| {
            self.time.advance(step);
            self.lapic.advance(&self.time);
            let vector = self.lapic.acknowledge();
            self.write(EOI, 0);
            count + u32::from(vector == Some(0x50))
        })
    }
}

#[test]
fn registers_after_reset() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.lapic.base(), 0xfee0_0800);
    assert_eq!(Lapic::new(0).base(), 0xfee0_0900, "bootstrap processor");
    assert_eq!(bench.lapic.page(), Some(0xfee0_0000));
    let values = [
        ID,
        VERSION,
        TPR,
        LDR,
        DFR,
        SVR,
        ESR,
        LVT_TIMER,
        LVT_LINT0,
        INITIAL_COUNT,
    ];
    let expected = [
        3 << 24,
        0x0105_0014,
        0,
        0,
        0xffff_ffff,
        0xff,
        0,
        0x1_0000,
        0x1_0000,
        0,
    ];
    assert_eq!(values.map(|offset| bench.read(offset)), expected);
}

#[test]
fn interrupts_are_served_by_priority() {
    let mut bench = Bench::enabled(0);
    assert_eq!(bench.fixed(0x31), Delivery::Accepted);
    assert_eq!(bench.fixed(0x31), Delivery::Coalesced);
    bench.fixed(0x45);
    bench.fixed(0x48);
    assert_eq!(bench.read(IRR + 0x20), 0x120);
    assert_eq!(bench.lapic.acknowledge(), Some(0x48));
    assert_eq!(bench.read(ISR + 0x20), 0x100);
    assert_eq!(
        (bench.read(PPR), bench.lapic.pending()),
        (0x40, None),
        "45h is of the same class"
    );
    bench.fixed(0x51);
    assert_eq!(bench.lapic.acknowledge(), Some(0x51));
    let ended = |vector| Effect::EndOfInterrupt {
        vector,
        broadcast: false,
    };
    assert_eq!(bench.write(EOI, 0), ended(0x51));
    assert_eq!(bench.write(EOI, 0), ended(0x48));
    assert_eq!(bench.lapic.acknowledge(), Some(0x45));
    assert_eq!(bench.write(EOI, 0), ended(0x45));
    assert_eq!(bench.lapic.acknowledge(), Some(0x31));
    bench.write(EOI, 0);
    assert_eq!(bench.write(EOI, 0), Effect::None);
}

#[test]
fn the_task_priority_holds_back_its_class_and_lower_ones() {
    let mut bench = Bench::enabled(0);
    bench.write(TPR, 0x53);
    assert_eq!((bench.lapic.cr8(), bench.read(PPR)), (5, 0x53));
    bench.fixed(0x5f);
    assert_eq!(bench.lapic.pending(), None);
    bench.lapic.set_cr8(4);
    assert_eq!((bench.lapic.pending(), bench.read(TPR)), (Some(0x5f), 0x40));
    assert_eq!(bench.read(APR), 0x50, "of the request");
    bench.lapic.acknowledge();
    bench.write(TPR, 0x5a);
    assert_eq!(bench.read(PPR), 0x5a, "equal classes: the task's");
    bench.write(TPR, 0x6a);
    assert_eq!((bench.read(PPR), bench.read(APR)), (0x6a, 0x6a));
}

#[test]
fn level_interrupts_are_broadcast_at_their_end_unless_suppressed() {
    let mut bench = Bench::enabled(0);
    for (svr, broadcast) in [(0x1ff, true), (0x11ff, false)] {
        bench.write(SVR, svr);
        bench.lapic.deliver(DeliveryMode::Fixed, 0x61, true);
        assert_eq!(bench.read(TMR + 0x30), 2);
        bench.lapic.acknowledge();
        assert_eq!(
            bench.write(EOI, 0),
            Effect::EndOfInterrupt {
                vector: 0x61,
                broadcast
            }
        );
    }
    bench.fixed(0x61);
    assert_eq!(bench.read(TMR + 0x30), 0, "an edge of the same vector");
}

#[test]
fn a_software_disabled_apic_takes_no_vectors_and_keeps_its_entries_masked() {
    let mut bench = Bench::enabled(1);
    bench.write(LVT_TIMER, 0x50);
    bench.fixed(0x40);
    bench.write(SVR, 0xff);
    assert_eq!(bench.read(LVT_TIMER), 0x1_0050);
    bench.write(LVT_TIMER, 0x50);
    assert_eq!(bench.read(LVT_TIMER), 0x1_0050);
    assert_eq!(bench.fixed(0x41), Delivery::Refused);
    assert_eq!(
        bench.lapic.deliver(DeliveryMode::Nmi, 0, false),
        Delivery::Accepted
    );
    assert_eq!(
        bench.lapic.pending(),
        Some(0x40),
        "what was requested before is held"
    );
    assert_eq!(bench.lapic.arbitration(), None);
}

#[test]
fn errors_are_collected_and_shown_after_a_write() {
    let mut bench = Bench::enabled(0);
    bench.write(LVT_ERROR, 0x71);
    bench.fixed(5);
    assert_eq!(bench.read(ESR), 0);
    assert_eq!(bench.lapic.acknowledge(), Some(0x71));
    bench.write(EOI, 0);
    assert_eq!(bench.ipi(0, 0x0f), None);
    bench.read(0x40);
    assert_eq!(bench.lapic.pending(), None, "not armed again");
    bench.write(ESR, 0);
    assert_eq!(bench.read(ESR), 0xe0);
    bench.write(0x3f0, 0);
    assert_eq!(bench.lapic.pending(), Some(0x71));
    bench.write(ESR, 0);
    assert_eq!(bench.read(ESR), 0x80);
    bench.write(ESR, 0);
    assert_eq!(bench.read(ESR), 0);
    // An illegal vector in the error entry itself.
    bench.write(LVT_ERROR, 0x03);
    bench.fixed(1);
    bench.write(ESR, 0);
    assert_eq!(bench.read(ESR), 0x40);
}

#[test]
fn the_command_register_sends() {
    let mut bench = Bench::enabled(2);
    let message = |mode, vector, level, target| {
        Some(Message {
            mode,
            vector,
            level,
            target,
            sender: Some(2),
        })
    };
    let physical = Target::Physical { id: 5, wide: false };
    assert_eq!(
        bench.ipi(5 << 24, 0x4040),
        message(DeliveryMode::Fixed, 0x40, false, physical)
    );
    assert_eq!(bench.read(ICR), 0x4040);
    assert_eq!(bench.read(ICR_HIGH), 5 << 24);
    let logical = Target::Logical {
        mda: 3,
        wide: false,
    };
    assert_eq!(
        bench.ipi(3 << 24, 0x0941),
        message(DeliveryMode::LowestPriority, 0x41, false, logical)
    );
    assert_eq!(
        bench.ipi(5 << 24, 0x4400),
        message(DeliveryMode::Nmi, 0, false, physical)
    );
    assert_eq!(
        bench.ipi(5 << 24, 0x4500),
        message(DeliveryMode::Init, 0, false, physical)
    );
    assert_eq!(bench.ipi(5 << 24, 0x8500), None, "INIT level de-assert");
    assert_eq!(
        bench.ipi(5 << 24, 0x4608),
        message(DeliveryMode::Startup, 8, false, physical)
    );
    assert_eq!(
        bench.ipi(0, 0x4_4040),
        message(DeliveryMode::Fixed, 0x40, false, Target::Myself)
    );
    assert_eq!(
        bench.ipi(0, 0x8_4040),
        message(DeliveryMode::Fixed, 0x40, false, Target::All)
    );
    assert_eq!(
        bench.ipi(0, 0xc_4500),
        message(DeliveryMode::Init, 0, false, Target::Others)
    );
    assert_eq!(
        bench.ipi(5 << 24, 0x4200),
        message(DeliveryMode::Smi, 0, false, physical)
    );
    for reserved in [0x4340, 0x4740] {
        assert_eq!(bench.ipi(5 << 24, reserved), None);
    }
}

#[test]
fn physical_and_shorthand_destinations() {
    let lapic = Lapic::new(3);
    let matches = |target| lapic.matches(&target, Some(3));
    assert!(matches(Target::narrow(3, false)) && !matches(Target::narrow(2, false)));
    assert!(matches(Target::narrow(0xff, false)) && !matches(Target::wide(0xff, false)));
    assert!(matches(Target::wide(u32::MAX, false)) && matches(Target::wide(3, false)));
    assert!(matches(Target::All) && matches(Target::Myself) && !matches(Target::Others));
    assert!(lapic.matches(&Target::Others, Some(2)) && !lapic.matches(&Target::Myself, Some(2)));
}

#[test]
fn logical_destinations() {
    let mut bench = Bench::enabled(3);
    let hit = |bench: &Bench, mda| bench.lapic.matches(&Target::narrow(mda, true), None);
    bench.write(LDR, 0x08ff_ffff);
    assert_eq!(bench.read(LDR), 0x0800_0000);
    assert!(hit(&bench, 0x08) && hit(&bench, 0x0f) && hit(&bench, 0xff) && !hit(&bench, 0x07));
    bench.write(DFR, 0);
    assert_eq!(bench.read(DFR), 0x0fff_ffff);
    bench.write(LDR, 0x2400_0000);
    assert!(hit(&bench, 0x24) && hit(&bench, 0x2f) && hit(&bench, 0xff));
    assert!(!hit(&bench, 0x14) && !hit(&bench, 0x23) && !hit(&bench, 0x04));
    let x2apic = Bench::x2apic(0x13);
    let hit = |mda| x2apic.lapic.matches(&Target::wide(mda, true), None);
    assert!(hit(0x1_0008) && hit(0x1_ffff) && hit(u32::MAX));
    assert!(!hit(0x0008) && !hit(0x1_0004) && !hit(0x2_0008));
    assert!(x2apic.lapic.matches(&Target::narrow(0xff, true), None));
    assert!(
        !x2apic.lapic.matches(&Target::narrow(0x08, true), None),
        "cluster 0"
    );
}

#[test]
fn a_one_shot_timer_expires_once() {
    let mut bench = Bench::enabled(0);
    bench.write(DIVIDE, 0xb);
    bench.write(LVT_TIMER, 0x50);
    bench.write(INITIAL_COUNT, 1000);
    assert_eq!(bench.lapic.deadline(&bench.time), Some(1000 * TICK));
    bench.time.advance(400 * TICK);
    assert_eq!(
        (bench.read(INITIAL_COUNT), bench.read(CURRENT_COUNT)),
        (1000, 600)
    );
    assert_eq!(bench.expiries(599 * TICK, 1), 0);
    assert_eq!(bench.expiries(TICK, 1), 1);
    assert_eq!(bench.read(CURRENT_COUNT), 0);
    assert_eq!(bench.lapic.deadline(&bench.time), None);
    assert_eq!(bench.expiries(1000 * TICK, 5), 0);
}

#[test]
fn a_periodic_timer_goes_on_and_merges_what_was_missed() {
    let mut bench = Bench::enabled(0);
    bench.write(DIVIDE, 0xb);
    bench.write(LVT_TIMER, 0x2_0050);
    bench.write(INITIAL_COUNT, 100);
    assert_eq!(bench.expiries(50 * TICK, 10), 5);
    assert_eq!(bench.expiries(1030 * TICK, 1), 1);
    assert_eq!(bench.read(CURRENT_COUNT), 70);
    bench.write(INITIAL_COUNT, 0);
    assert_eq!(bench.expiries(1000 * TICK, 3), 0);
}

#[test]
fn the_divider_scales_the_count() {
    let mut bench = Bench::enabled(0);
    for (divide, by) in [
        (0, 2),
        (1, 4),
        (2, 8),
        (3, 16),
        (8, 32),
        (9, 64),
        (10, 128),
        (11, 1),
    ] {
        bench.write(DIVIDE, divide);
        bench.write(INITIAL_COUNT, 1000);
        bench.time.advance(10 * by * TICK);
        assert_eq!(bench.read(CURRENT_COUNT), 990, "divide by {by}");
    }
    // Changed on the way, the count goes on from where it is.
    bench.write(DIVIDE, 0);
    bench.time.advance(10 * 2 * TICK);
    assert_eq!(bench.read(CURRENT_COUNT), 980);
}

#[test]
fn a_masked_timer_counts_without_interrupting() {
    let mut bench = Bench::enabled(0);
    bench.write(DIVIDE, 0xb);
    bench.write(LVT_TIMER, 0x1_0050);
    bench.write(INITIAL_COUNT, 100);
    assert_eq!(bench.lapic.deadline(&bench.time), None);
    bench.time.advance(150 * TICK);
    bench.write(LVT_TIMER, 0x50);
    assert_eq!(bench.lapic.pending(), None, "what expired masked is lost");
}

#[test]
fn the_tsc_deadline_fires_once_and_disarms() {
    let mut bench = Bench::enabled(0);
    bench.lapic.set_tsc_deadline(5000, &bench.time);
    assert_eq!(
        bench.lapic.tsc_deadline(&bench.time),
        0,
        "another mode: ignored"
    );
    bench.write(LVT_TIMER, 0x4_0050);
    bench.write(INITIAL_COUNT, 7);
    assert_eq!(
        (bench.read(INITIAL_COUNT), bench.read(CURRENT_COUNT)),
        (0, 0)
    );
    bench.lapic.set_tsc_deadline(5001, &bench.time);
    assert_eq!(bench.lapic.deadline(&bench.time), Some(2501), "rounded up");
    assert_eq!(bench.expiries(2500, 1), 0);
    assert_eq!(bench.expiries(1, 1), 1);
    assert_eq!(bench.lapic.tsc_deadline(&bench.time), 0);
    // In the past: at once. Zero: never.
    bench.lapic.set_tsc_deadline(1, &bench.time);
    assert_eq!(bench.lapic.acknowledge(), Some(0x50));
    bench.write(EOI, 0);
    bench.lapic.set_tsc_deadline(u64::MAX, &bench.time);
    assert!(bench.lapic.deadline(&bench.time).is_some());
    bench.lapic.set_tsc_deadline(0, &bench.time);
    assert_eq!(bench.lapic.deadline(&bench.time), None);
    // Leaving the mode disarms.
    bench.lapic.set_tsc_deadline(1 << 40, &bench.time);
    bench.write(LVT_TIMER, 0x50);
    bench.write(LVT_TIMER, 0x4_0050);
    assert_eq!(bench.lapic.tsc_deadline(&bench.time), 0);
}

#[test]
fn lint0_passes_on_the_pic() {
    let mut bench = Bench::new(0);
    assert!(bench.lapic.accepts_pic(), "virtual wire after reset");
    assert!(!Lapic::new(1).accepts_pic());
    bench.write(SVR, 0x1ff);
    assert!(bench.lapic.accepts_pic());
    bench.write(LVT_LINT0, 0x1_0700);
    assert!(!bench.lapic.accepts_pic() && !bench.lapic.uses_lint0());
    bench.write(LVT_LINT0, 0x400);
    assert!(bench.lapic.uses_lint0());
    bench.lapic.lint0_rise();
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Nmi));
    bench.write(LVT_LINT0, 0x33);
    bench.lapic.lint0_rise();
    assert_eq!(bench.lapic.pending(), Some(0x33));
    // A message from the I/O APIC does the same once.
    bench.lapic.deliver(DeliveryMode::ExtInt, 0, false);
    assert!(bench.lapic.accepts_pic());
    bench.lapic.acknowledge_pic();
    assert!(!bench.lapic.accepts_pic());
    // Without an APIC, LINT0 is INTR.
    bench.lapic.set_base(0xfee0_0000).unwrap();
    assert!(bench.lapic.accepts_pic());
}

#[test]
fn init_and_startup() {
    let mut bench = Bench::new(1);
    assert!(bench.lapic.waits_for_startup() && !bench.lapic.has_event());
    assert_eq!(
        bench.lapic.deliver(DeliveryMode::Nmi, 0, false),
        Delivery::Accepted
    );
    assert!(!bench.lapic.has_event(), "an NMI waits as well");
    assert_eq!(
        bench.lapic.deliver(DeliveryMode::Startup, 0x9a, false),
        Delivery::Accepted
    );
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Startup(0x9a)));
    assert!(!bench.lapic.waits_for_startup());
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Nmi));
    assert_eq!(
        bench.lapic.deliver(DeliveryMode::Startup, 0x9b, false),
        Delivery::Refused,
        "it runs"
    );
    bench.write(SVR, 0x1ff);
    bench.write(TPR, 0x20);
    bench.lapic.deliver(DeliveryMode::Init, 0, false);
    bench.lapic.deliver(DeliveryMode::Startup, 0x10, false);
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Init));
    assert_eq!(
        (bench.read(SVR), bench.read(TPR), bench.read(ID)),
        (0xff, 0, 1 << 24)
    );
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Startup(0x10)));
    assert_eq!(bench.lapic.take_event(), None);
    // INIT drops what came before it.
    bench.lapic.deliver(DeliveryMode::Nmi, 0, false);
    bench.lapic.deliver(DeliveryMode::Init, 0, false);
    bench.lapic.deliver(DeliveryMode::Startup, 0x11, false);
    bench.lapic.deliver(DeliveryMode::Init, 0, false);
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Init));
    assert_eq!(bench.lapic.take_event(), None);
    bench.lapic.deliver(DeliveryMode::Startup, 0x12, false);
    assert_eq!(bench.lapic.take_event(), Some(VcpuEvent::Startup(0x12)));
    assert_eq!(bench.lapic.take_event(), None, "no NMI");
    // The bootstrap processor starts again by itself.
    let mut bootstrap = Lapic::new(0);
    bootstrap.deliver(DeliveryMode::Init, 0, false);
    assert_eq!(bootstrap.take_event(), Some(VcpuEvent::Init));
    assert!(!bootstrap.waits_for_startup() && bootstrap.accepts_pic());
}

#[test]
fn transitions_between_modes() {
    const DISABLED: u64 = 0xfee0_0000;
    let cases = [
        (DISABLED, DISABLED | X2APIC, false),
        (BASE, DISABLED | X2APIC, false),
        (BASE, BASE | X2APIC, true),
        (BASE | X2APIC, BASE, false),
        (BASE | X2APIC, DISABLED | X2APIC, false),
        (BASE | X2APIC, DISABLED, true),
        (DISABLED, BASE | X2APIC, false),
        (DISABLED, BASE, true),
        (BASE, BASE | 1 << 9, false),
        (BASE, BASE | 1, false),
        (BASE, BASE | 1 << 52, false),
        (BASE, 0xd000_0000 | 0x800, true),
    ];
    for (from, to, allowed) in cases {
        let mut lapic = Lapic::new(1);
        lapic.set_base(from).unwrap();
        assert_eq!(lapic.set_base(to).is_ok(), allowed, "{from:#x} to {to:#x}");
        assert_eq!(lapic.base(), if allowed { to } else { from });
    }
    let mut bench = Bench::enabled(1);
    bench.lapic.set_base(DISABLED).unwrap();
    assert_eq!(
        (bench.lapic.mode(), bench.lapic.page()),
        (Mode::Disabled, None)
    );
    assert_eq!(bench.fixed(0x40), Delivery::Refused);
    assert!(!bench.lapic.matches(&Target::All, None));
    bench.lapic.set_base(BASE).unwrap();
    assert_eq!(bench.read(SVR), 0xff, "its state was lost");
    // The bootstrap flag is not software's.
    let mut bootstrap = Lapic::new(0);
    bootstrap.set_base(BASE).unwrap();
    assert_eq!(bootstrap.base(), BASE | 0x100);
}

#[test]
fn x2apic_registers() {
    let mut bench = Bench::x2apic(0x13);
    assert_eq!(bench.lapic.page(), None);
    assert_eq!(bench.rdmsr(0x02), Ok(0x13));
    assert_eq!(bench.rdmsr(0x03), Ok(0x0105_0014));
    assert_eq!(bench.rdmsr(0x0d), Ok(0x1_0008));
    assert_eq!(bench.rdmsr(0x0f), Ok(0x1ff));
    assert_eq!(bench.wrmsr(0x08, 0x25), Ok(Effect::None));
    assert_eq!((bench.rdmsr(0x08), bench.rdmsr(0x0a)), (Ok(0x25), Ok(0x25)));
    for unreadable in [0x00, 0x09, 0x0b, 0x0c, 0x0e, 0x2f, 0x31, 0x3f, 0x40, 0xff] {
        assert_eq!(bench.rdmsr(unreadable), Err(()), "{unreadable:#x}");
    }
    for read_only in [0x02, 0x03, 0x0a, 0x0d, 0x0e, 0x10, 0x18, 0x20, 0x31, 0x39] {
        assert_eq!(bench.wrmsr(read_only, 0), Err(()), "{read_only:#x}");
    }
    for (register, value) in [
        (0x08, 0x100),
        (0x0b, 1),
        (0x0f, 0x800),
        (0x28, 1),
        (0x30, 1 << 13),
        (0x32, 1 << 19),
        (0x38, 1 << 32),
        (0x3e, 4),
        (0x3f, 0x100),
    ] {
        assert_eq!(
            bench.wrmsr(register, value),
            Err(()),
            "reserved bit of {register:#x}"
        );
    }
    let message = |target| {
        Ok(Effect::Send(Message {
            mode: DeliveryMode::Fixed,
            vector: 0x40,
            level: false,
            target,
            sender: Some(0x13),
        }))
    };
    assert_eq!(
        bench.wrmsr(0x30, 0x105 << 32 | 0x4040),
        message(Target::wide(0x105, false))
    );
    assert_eq!(bench.rdmsr(0x30), Ok(0x105 << 32 | 0x4040));
    assert_eq!(
        bench.wrmsr(0x30, 0x1_0004 << 32 | 0x4840),
        message(Target::wide(0x1_0004, true))
    );
    assert_eq!(bench.wrmsr(0x3f, 0x40), message(Target::Myself));
    bench.fixed(0x40);
    bench.lapic.acknowledge();
    let ended = Effect::EndOfInterrupt {
        vector: 0x40,
        broadcast: false,
    };
    assert_eq!(bench.wrmsr(0x0b, 0), Ok(ended));
    let mut xapic = Bench::enabled(1);
    assert_eq!(
        (xapic.rdmsr(0x02), xapic.wrmsr(0x08, 0)),
        (Err(()), Err(()))
    );
}
