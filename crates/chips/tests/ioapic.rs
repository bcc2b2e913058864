//! I/O APIC: 82093AA data sheet 290566, ICH data sheets.

use ringfence_chips::ioapic::IoApic;
use ringfence_chips::{Delivery, DeliveryMode, Message, Target};

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

/// An I/O APIC and what it has sent.
#[derive(Default)]
struct Bench {
    ioapic: IoApic,
    sent: Vec<Message>,
    refuse: bool,
}

impl Bench {
    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut IoApic, &mut dyn FnMut(&Message) -> Delivery) -> R,
    ) -> R {
        let (sent, refuse) = (&mut self.sent, self.refuse);
        work(&mut self.ioapic, &mut |message| {
            sent.push(*message);
            if refuse {
                Delivery::Refused
            } else {
                Delivery::Accepted
            }
        })
    }

    fn write(&mut self, index: u8, value: u32) {
        self.with(|ioapic, bus| {
            ioapic.write(0x00, index.into(), bus);
            ioapic.write(0x10, value, bus);
        });
    }

    fn read(&mut self, index: u8) -> u32 {
        self.with(|ioapic, bus| ioapic.write(0x00, index.into(), bus));
        self.ioapic.read(0x10, 4) as u32
    }

    fn entry(&mut self, pin: u8, high: u32, low: u32) {
        self.write(0x11 + 2 * pin, high);
        self.write(0x10 + 2 * pin, low);
    }

    fn line(&mut self, pin: u8, level: bool) {
        self.with(|ioapic, bus| ioapic.set_line(pin, level, bus));
    }

    fn eoi(&mut self, vector: u8) {
        self.with(|ioapic, bus| ioapic.end_of_interrupt(vector, bus));
    }

    fn vectors(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
            .iter()
            .map(|message| message.vector)
            .collect()
    }
}

#[test]
fn registers() {
    let mut bench = Bench::default();
    bench.write(0, 0xffff_ffff);
    assert_eq!(
        [0, 1, 2].map(|index| bench.read(index)),
        [0x0f00_0000, 0x0017_0020, 0x0f00_0000]
    );
    for pin in 0..24 {
        assert_eq!(bench.read(0x10 + 2 * pin), MASKED, "masked after reset");
        bench.entry(pin, 0xffff_ffff, 0xffff_ffff);
        assert_eq!(
            bench.read(0x10 + 2 * pin),
            0x1_afff,
            "reserved and read-only bits"
        );
        assert_eq!(bench.read(0x11 + 2 * pin), 0xff00_0000);
    }
    bench.write(0x40, 5);
    assert_eq!(
        [0x03, 0x0f, 0x40, 0xff].map(|index| bench.read(index)),
        [0; 4]
    );
    assert_eq!(bench.ioapic.read(0, 4), 0xff);
    bench.read(1);
    assert_eq!(
        [1, 2, 4, 8].map(|size| bench.ioapic.read(0x10, size)),
        [0x20, 0x20, 0x17_0020, 0x17_0020]
    );
    assert_eq!(
        (bench.ioapic.read(0x12, 2), bench.ioapic.read(0x14, 4)),
        (0x17, 0)
    );
}

#[test]
fn an_edge_is_sent_once() {
    let mut bench = Bench::default();
    bench.entry(4, 0x0300_0000, 0x34);
    bench.line(4, true);
    bench.line(4, true);
    let target = Target::Physical { id: 3, wide: false };
    let mode = DeliveryMode::Fixed;
    assert_eq!(
        bench.sent,
        [Message {
            mode,
            vector: 0x34,
            level: false,
            target,
            sender: None
        }]
    );
    bench.line(4, false);
    bench.line(4, true);
    assert_eq!(bench.vectors(), [0x34; 2]);
    assert_eq!(bench.read(0x18) & REMOTE_IRR, 0);
}

#[test]
fn an_edge_at_a_masked_pin_is_lost() {
    let mut bench = Bench::default();
    bench.entry(4, 0, MASKED | 0x34);
    bench.line(4, true);
    bench.entry(4, 0, 0x34);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_level_is_sent_again_after_its_end() {
    let mut bench = Bench::default();
    bench.entry(9, 0, LEVEL | 0x39);
    bench.line(9, true);
    assert_eq!(bench.read(0x22), LEVEL | REMOTE_IRR | 0x39);
    bench.line(9, false);
    bench.line(9, true);
    assert_eq!(bench.vectors(), [0x39], "in service");
    bench.eoi(0x38);
    assert!(bench.sent.is_empty());
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39], "still asserted");
    bench.line(9, false);
    bench.with(|ioapic, bus| ioapic.write(0x40, 0x39, bus)); // EOI register
    assert_eq!(bench.read(0x22), LEVEL | 0x39);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_level_at_a_masked_pin_waits() {
    let mut bench = Bench::default();
    bench.entry(9, 0, MASKED | LEVEL | 0x39);
    bench.line(9, true);
    assert!(bench.sent.is_empty());
    bench.entry(9, 0, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39]);
    bench.entry(9, 0, MASKED | LEVEL | 0x39);
    assert_eq!(
        bench.read(0x22) & REMOTE_IRR,
        REMOTE_IRR,
        "in service all the same"
    );
}

#[test]
fn making_an_entry_edge_triggered_ends_its_service() {
    let mut bench = Bench::default();
    bench.entry(9, 0, LEVEL | 0x39);
    bench.line(9, true);
    bench.line(9, false);
    bench.entry(9, 0, MASKED | 0x39);
    bench.entry(9, 0, LEVEL | 0x39);
    assert_eq!(bench.read(0x22), LEVEL | 0x39);
}

#[test]
fn a_refused_level_is_tried_again() {
    let mut bench = Bench {
        refuse: true,
        ..Bench::default()
    };
    bench.entry(9, 0, LEVEL | 0x39);
    bench.line(9, true);
    assert_eq!(bench.read(0x22) & REMOTE_IRR, 0);
    bench.vectors();
    bench.refuse = false;
    bench.with(IoApic::retry);
    assert_eq!(bench.vectors(), [0x39]);
    bench.with(IoApic::retry);
    assert!(bench.sent.is_empty());
}

#[test]
fn modes_and_destinations_of_an_entry() {
    let mut bench = Bench::default();
    for (bits, mode) in [
        (0, DeliveryMode::Fixed),
        (1, DeliveryMode::LowestPriority),
        (2, DeliveryMode::Smi),
        (4, DeliveryMode::Nmi),
        (5, DeliveryMode::Init),
        (7, DeliveryMode::ExtInt),
    ] {
        bench.entry(5, 0x0c00_0000, 0x835 | bits << 8);
        bench.line(5, true);
        bench.line(5, false);
        let sent = bench.sent.pop().unwrap();
        assert_eq!(
            (sent.mode, sent.target),
            (
                mode,
                Target::Logical {
                    mda: 0xc,
                    wide: false
                }
            )
        );
    }
    for reserved in [3, 6] {
        bench.entry(5, 0, 0x35 | reserved << 8);
        bench.line(5, true);
        bench.line(5, false);
        assert!(bench.sent.is_empty());
    }
    bench.line(24, true);
    bench.line(255, true);
    assert!(bench.sent.is_empty());
}

#[test]
fn message_signalled_interrupts() {
    let message = Message::from_msi(0xfee0_3000, 0x41).unwrap();
    assert_eq!(
        (message.mode, message.vector, message.level),
        (DeliveryMode::Fixed, 0x41, false)
    );
    assert_eq!(message.target, Target::Physical { id: 3, wide: false });
    let message = Message::from_msi(0xfee0_300c, 0xc141).unwrap();
    assert_eq!(
        (message.mode, message.level),
        (DeliveryMode::LowestPriority, true)
    );
    assert_eq!(
        message.target,
        Target::Logical {
            mda: 3,
            wide: false
        }
    );
    let redirected = Message::from_msi(0xfee0_300c, 0x41).unwrap();
    assert_eq!(redirected.mode, DeliveryMode::LowestPriority);
    assert_eq!(Message::from_msi(0xfef0_0000, 0x41), None);
    assert_eq!(Message::from_msi(0x1_fee0_0000, 0x41), None);
    assert_eq!(Message::from_msi(0xfee0_0000, 0x341), None);
}
