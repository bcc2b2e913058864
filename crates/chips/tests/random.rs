//! A guest may do anything: no access panics, and what must hold still does.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use ringfence_chips::ioapic::IoApic;
use ringfence_chips::lapic::Lapic;
use ringfence_chips::pic::Pics;
use ringfence_chips::pit::Pit;
use ringfence_chips::{Delivery, DeliveryMode, Platform};
use ringfence_engine::{Clock, LocalDevices};
use support::FakeTime;

/// Register values: anything, and what is likely to mean something.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        any::<u16>().prop_map(u64::from),
        (0..64u32).prop_map(|bit| 1 << bit),
        prop_oneof![
            Just(0x1ff),
            Just(0x4_0050),
            Just(0x2_0050),
            Just(0xfee0_0c00)
        ],
        Just(0),
        Just(u64::MAX),
    ]
}

/// Steps of time: the next instant, and years.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![0..2000u64, 0..100_000_000u64, 0..1u64 << 56]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        prop_oneof![Just(0x20), Just(0x21), Just(0xa0), Just(0xa1), Just(0x61)],
        0x40..=0x43u16,
        0x4cf..=0x4d2u16,
        any::<u16>(),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    PortRead(u16, u8),
    PortWrite(u16, u8, u32),
    Read(u64, u8),
    Write(u64, u8, u64),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Line(u32, bool),
    Msi(u64, u32),
    Acknowledge,
    Event,
    Cr8(u64),
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..0x40u64).prop_map(|register| 0xfee0_0000 + register * 16),
        0xfee0_0000..0xfee0_1008u64,
        (0..0x11u64).prop_map(|offset| 0xfec0_0000 + offset * 4),
        0xfec0_0000..0xfec0_0108u64,
        any::<u64>(),
    ]
}

fn msr() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0x1b), Just(0x6e0), 0x800..=0x840u32, any::<u32>()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (port(), 0..=5u8).prop_map(|(port, size)| Step::PortRead(port, size)),
        1 => (port(), 0..=5u8, any::<u32>()).prop_map(|(p, size, v)| Step::PortWrite(p, size, v)),
        1 => (address(), 0..=9u8).prop_map(|(address, size)| Step::Read(address, size)),
        4 => (address(), prop_oneof![Just(4u8), 0..=9u8], value())
            .prop_map(|(address, size, value)| Step::Write(address, size, value)),
        1 => msr().prop_map(Step::ReadMsr),
        1 => (msr(), value()).prop_map(|(index, value)| Step::WriteMsr(index, value)),
        2 => (0..26u32, any::<bool>()).prop_map(|(gsi, level)| Step::Line(gsi, level)),
        1 => (0xfedf_ff00..0xfeef_ffffu64, any::<u32>()).prop_map(|(a, data)| Step::Msi(a, data)),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::Event),
        1 => value().prop_map(Step::Cr8),
    ]
}

proptest! {
    #[test]
    fn platform(vcpus in 1..5u32, steps in prop::collection::vec((0..6u32, step()), 1..300)) {
        let platform = Platform::new(Arc::new(Clock::new()), vcpus);
        for (vcpu, step) in steps {
            let present = vcpu < vcpus;
            match step {
                Step::PortRead(port, size) => {
                    let value = platform.port_read(vcpu, port, size);
                    if size < 4 {
                        prop_assert!(value.unwrap_or(0) >> (size * 8) == 0);
                    }
                }
                Step::PortWrite(port, size, value) => {
                    platform.port_write(vcpu, port, size, value);
                }
                Step::Read(address, size) => {
                    let value = platform.mmio_read(vcpu, address, size);
                    if size < 8 {
                        prop_assert!(value.unwrap_or(0) >> (size * 8) == 0);
                    }
                }
                Step::Write(address, size, value) => {
                    platform.mmio_write(vcpu, address, size, value);
                }
                Step::ReadMsr(index) => {
                    platform.read_msr(vcpu, index);
                }
                Step::WriteMsr(index, value) => {
                    platform.write_msr(vcpu, index, value);
                    if let Some(Ok(base)) = platform.read_msr(vcpu, 0x1b) {
                        prop_assert!(base & 0xc00 != 0x400, "x2APIC without APIC");
                        prop_assert_eq!(base & 0x100 != 0, vcpu == 0);
                    }
                }
                Step::Line(gsi, level) => platform.irq_line(gsi, level),
                Step::Msi(address, data) => platform.signal_msi(address, data),
                Step::Acknowledge => {
                    let vector = platform.acknowledge_interrupt(vcpu);
                    prop_assert!(present || vector.is_none());
                }
                Step::Event => {
                    platform.take_event(vcpu);
                    prop_assert!(vcpu != 0 || !platform.waits_for_startup(0));
                }
                Step::Cr8(value) => {
                    platform.set_task_priority(vcpu, value);
                    prop_assert!(platform.task_priority(vcpu) <= 15);
                    prop_assert!(!present || platform.task_priority(vcpu) == value & 15);
                }
            }
        }
    }

    #[test]
    fn lapic(
        id in 0..70u32,
        steps in prop::collection::vec((0..8u8, 0..0x41u32, value(), pause()), 1..300),
    ) {
        let (mut lapic, time) = (Lapic::new(id), FakeTime::default());
        for (kind, register, value, pause) in steps {
            match kind {
                0 => {
                    lapic.read(register * 16, &time);
                }
                1 | 2 => {
                    lapic.write(register * 16, value as u32, &time);
                }
                3 => {
                    let _ = lapic.read_msr(register, &time);
                }
                4 => {
                    let _ = lapic.write_msr(register, value, &time);
                }
                5 => {
                    let _ = lapic.set_base(value);
                    lapic.set_tsc_deadline(value, &time);
                }
                6 => {
                    if let Some(mode) = DeliveryMode::from_bits(register) {
                        lapic.deliver(mode, value as u8, value & 0x100 != 0);
                    }
                    lapic.take_event();
                }
                _ => {
                    time.advance(pause.min(u64::MAX / 4 - time.0.get().min(u64::MAX / 4)));
                    lapic.advance(&time);
                }
            }
            let deadline = lapic.deadline(&time);
            lapic.advance(&time);
            if let Some(deadline) = deadline {
                prop_assert!(deadline > time.0.get() || lapic.take_deadline_change());
            }
            if let Some(vector) = lapic.pending() {
                prop_assert!(vector >= 16 && vector >> 4 > lapic.processor_priority() >> 4);
                prop_assert_eq!(lapic.acknowledge(), Some(vector));
                prop_assert_eq!(lapic.processor_priority() >> 4, vector >> 4);
            }
        }
    }

    #[test]
    fn pit(steps in prop::collection::vec((0..6u8, any::<u8>(), pause()), 1..300)) {
        let (mut pit, mut now) = (Pit::new(), 0u64);
        for (kind, value, pause) in steps {
            now = now.saturating_add(pause).min(1 << 62);
            match kind {
                0 => {
                    pit.read(value & 3, now);
                }
                1..4 => pit.write(kind % 3, value, now),
                4 => pit.write(3, value, now),
                _ => pit.set_gate2(value & 1 != 0, now),
            }
            pit.take_rises(now);
            prop_assert_eq!(pit.take_rises(now), 0);
            if let Some(rise) = pit.next_rise(now) {
                prop_assert!(rise > now);
                prop_assert_eq!(pit.clone().take_rises(rise - 1), 0);
                prop_assert_eq!(pit.clone().take_rises(rise), 1);
                prop_assert!(pit.clone().out0(rise));
            }
        }
    }

    #[test]
    fn pic(steps in prop::collection::vec((0..8u8, 0..6usize, any::<u8>()), 1..300)) {
        const PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
        let mut pics = Pics::new();
        for (kind, port, value) in steps {
            match kind {
                0 => {
                    pics.read(PORTS[port]);
                }
                1..4 => pics.write(PORTS[port], value),
                4..7 => {
                    pics.set_line(value & 0x1f, value & 0x80 != 0);
                }
                _ => {
                    pics.acknowledge();
                }
            }
            prop_assert_eq!(pics.read(0x4d0) & 7, 0);
            prop_assert_eq!(pics.read(0x4d1) & 0x21, 0);
        }
    }

    #[test]
    fn ioapic(steps in prop::collection::vec((0..6u8, any::<u8>(), any::<u32>()), 1..300)) {
        let mut ioapic = IoApic::new();
        for (kind, small, value) in steps {
            let mut bus = |message: &ringfence_chips::Message| {
                assert!(message.mode != DeliveryMode::Startup);
                [Delivery::Refused, Delivery::Coalesced, Delivery::Accepted][value as usize % 3]
            };
            match kind {
                0 => {
                    ioapic.set_line(small & 0x1f, value & 1 != 0, &mut bus);
                }
                1 => ioapic.end_of_interrupt(small, &mut bus),
                2 => ioapic.write(0, u32::from(small & 0x3f), &mut bus),
                3 => ioapic.write(0x10, value, &mut bus),
                4 => ioapic.write(small.into(), value, &mut bus),
                _ => {
                    let read = ioapic.read(small.into(), value as u8 & 15);
                    prop_assert!(read <= u64::from(u32::MAX));
                }
            }
        }
    }
}
