//! Rings against a driver that keeps to the specification, and one that does not.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use ringfence_datapath::{Layout, Options, Position, Queue, QueueError};
use ringfence_memory::{GuestMemory, RegionKind};

const SIZE: u64 = 1 << 20;
const DESCRIPTORS: u64 = 0x1000;
const DRIVER: u64 = 0x9000;
const DEVICE: u64 = 0xb000;
const INDIRECT: u64 = 0x10000;
const DATA: u64 = 0x40000;

fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::new();
    memory.map(0, SIZE, RegionKind::Ram).unwrap();
    memory.map(SIZE, 0x1000, RegionKind::Rom).unwrap();
    Arc::new(memory)
}

/// Address, length, and whether the device writes it.
type Part = (u64, u32, bool);

/// The driver's side of a ring.
struct Driver {
    memory: Arc<GuestMemory>,
    size: u16,
    options: Options,
    free: Vec<u16>,
    /// Split: next index of the available ring; packed: position and wrap counter.
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    /// Descriptors of each buffer in flight.
    taken: HashMap<u16, Vec<u16>>,
    data: u64,
}

/// A buffer: lengths of parts to read and to write.
#[derive(Clone, Debug)]
struct Buffer {
    readable: Vec<u16>,
    writable: Vec<u16>,
    indirect: bool,
}

impl Driver {
    fn new(size: u16, options: Options) -> (Self, Queue) {
        let memory = memory();
        let layout = Layout {
            size: u32::from(size),
            descriptors: DESCRIPTORS,
            driver: DRIVER,
            device: DEVICE,
        };
        let queue = Queue::new(Arc::clone(&memory), layout, options).unwrap();
        let driver = Self {
            memory,
            size,
            options,
            free: (0..size).rev().collect(),
            next: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
            taken: HashMap::new(),
            data: DATA,
        };
        (driver, queue)
    }

    fn put16(&self, at: u64, value: u16) {
        self.memory.write(at, &value.to_le_bytes()).unwrap();
    }

    fn get16(&self, at: u64) -> u16 {
        let mut raw = [0; 2];
        self.memory.read(at, &mut raw).unwrap();
        u16::from_le_bytes(raw)
    }

    fn get32(&self, at: u64) -> u32 {
        u32::from(self.get16(at)) | u32::from(self.get16(at + 2)) << 16
    }

    fn descriptor(&self, at: u64, address: u64, length: u32, third: u16, fourth: u16) {
        let mut raw = address.to_le_bytes().to_vec();
        raw.extend(length.to_le_bytes());
        raw.extend(third.to_le_bytes());
        raw.extend(fourth.to_le_bytes());
        self.memory.write(at, &raw).unwrap();
    }

    /// Makes a buffer available; gives its number and parts, or nothing when the ring is full.
    fn add(&mut self, buffer: &Buffer) -> Option<(u16, Vec<Part>)> {
        let lengths = buffer.readable.iter().map(|&l| (l, false));
        let parts: Vec<Part> = lengths
            .chain(buffer.writable.iter().map(|&l| (l, true)))
            .map(|(length, write)| {
                let at = self.data;
                self.data = DATA + (self.data - DATA + u64::from(length)) % 0x80000;
                (at, u32::from(length), write)
            })
            .collect();
        let needed = if buffer.indirect { 1 } else { parts.len() };
        if needed > self.free.len() || parts.is_empty() {
            return None;
        }
        let id = if self.options.packed {
            self.add_packed(buffer, &parts)
        } else {
            self.add_split(buffer, &parts)
        };
        Some((id, parts))
    }

    fn add_split(&mut self, buffer: &Buffer, parts: &[Part]) -> u16 {
        let entries = if buffer.indirect { 1 } else { parts.len() };
        let taken: Vec<u16> = (0..entries).map(|_| self.free.pop().unwrap()).collect();
        let flags = |index: usize, write: bool| {
            u16::from(index + 1 < parts.len()) | if write { 2 } else { 0 }
        };
        if buffer.indirect {
            let table = INDIRECT + 0x400 * u64::from(taken[0]);
            for (index, &(at, length, write)) in parts.iter().enumerate() {
                let next = index as u16 + 1;
                self.descriptor(
                    table + 16 * index as u64,
                    at,
                    length,
                    flags(index, write),
                    next,
                );
            }
            let length = 16 * parts.len() as u32;
            let at = DESCRIPTORS + 16 * u64::from(taken[0]);
            self.descriptor(at, table, length, 4, 0);
        } else {
            for (index, &(at, length, write)) in parts.iter().enumerate() {
                let next = taken.get(index + 1).copied().unwrap_or(0);
                let entry = DESCRIPTORS + 16 * u64::from(taken[index]);
                self.descriptor(entry, at, length, flags(index, write), next);
            }
        }
        let id = taken[0];
        self.put16(DRIVER + 4 + 2 * u64::from(self.next % self.size), id);
        self.next = self.next.wrapping_add(1);
        self.put16(DRIVER + 2, self.next);
        self.taken.insert(id, taken);
        id
    }

    fn add_packed(&mut self, buffer: &Buffer, parts: &[Part]) -> u16 {
        let entries = if buffer.indirect { 1 } else { parts.len() };
        let taken: Vec<u16> = (0..entries).map(|_| self.free.pop().unwrap()).collect();
        let id = taken[0];
        let table = INDIRECT + 0x400 * u64::from(id);
        if buffer.indirect {
            for (index, &(at, length, write)) in parts.iter().enumerate() {
                let flags = if write { 2 } else { 0 };
                self.descriptor(table + 16 * index as u64, at, length, 0, flags);
            }
        }
        let mut last = Vec::new();
        for index in 0..entries {
            let wrap = if self.wrap { 1 << 7 } else { 1 << 15 };
            let (at, length, flags) = if buffer.indirect {
                (table, 16 * parts.len() as u32, 4)
            } else {
                let (at, length, write) = parts[index];
                let next = u16::from(index + 1 < entries);
                (at, length, next | if write { 2 } else { 0 })
            };
            last.push((self.next, at, length, flags | wrap));
            self.next += 1;
            if self.next == self.size {
                self.next = 0;
                self.wrap = !self.wrap;
            }
        }
        // The first descriptor last, which makes all of them available.
        for &(slot, at, length, flags) in last.iter().rev() {
            self.descriptor(DESCRIPTORS + 16 * u64::from(slot), at, length, id, flags);
        }
        self.taken.insert(id, taken);
        id
    }

    /// What the device has used: numbers and lengths.
    fn collect(&mut self) -> Vec<(u16, u32)> {
        let mut found = Vec::new();
        loop {
            let (id, length) = if self.options.packed {
                let at = DESCRIPTORS + 16 * u64::from(self.used);
                let flags = self.get16(at + 14);
                let wanted = if self.used_wrap { 0x8080 } else { 0 };
                if flags & 0x8080 != wanted {
                    return found;
                }
                (self.get16(at + 12), self.get32(at + 8))
            } else {
                if self.get16(DEVICE + 2) == self.used {
                    return found;
                }
                let at = DEVICE + 4 + 8 * u64::from(self.used % self.size);
                self.used = self.used.wrapping_add(1);
                (self.get32(at) as u16, self.get32(at + 4))
            };
            let Some(taken) = self.taken.remove(&id) else {
                // A packed ring's descriptor that was not used yet.
                return found;
            };
            if self.options.packed {
                self.used += taken.len() as u16;
                if self.used >= self.size {
                    self.used -= self.size;
                    self.used_wrap = !self.used_wrap;
                }
            }
            self.free.extend(taken);
            found.push((id, length));
        }
    }
}

fn buffers() -> impl Strategy<Value = Buffer> {
    let lengths = || prop::collection::vec(1u16..3000, 0..5);
    (lengths(), lengths(), any::<bool>()).prop_map(|(readable, writable, indirect)| Buffer {
        readable,
        writable,
        indirect,
    })
}

fn options() -> impl Strategy<Value = Options> {
    (any::<bool>(), any::<bool>()).prop_map(|(packed, event_index)| Options {
        packed,
        event_index,
        indirect: true,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Add(Buffer),
    Pop,
    /// Uses one of the buffers taken, not always the oldest.
    Push(usize),
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => buffers().prop_map(Step::Add),
        3 => Just(Step::Pop),
        3 => (0usize..8).prop_map(Step::Push),
        1 => Just(Step::Save),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Every buffer arrives once, as it was made, and goes back once.
    #[test]
    fn buffers_go_round(
        options in options(), power in 2u32..6, odd in any::<bool>(), steps in steps(),
    ) {
        let size = (1u16 << power) + u16::from(odd && options.packed);
        let (mut driver, mut queue) = Driver::new(size, options);
        let layout = Layout {
            size: u32::from(size),
            descriptors: DESCRIPTORS,
            driver: DRIVER,
            device: DEVICE,
        };
        let mut waiting = std::collections::VecDeque::new();
        let mut taken = Vec::new();
        for step in steps {
            match step {
                Step::Add(buffer) => waiting.extend(driver.add(&buffer)),
                Step::Pop => {
                    let chain = queue.pop().unwrap();
                    prop_assert_eq!(chain.is_some(), !waiting.is_empty());
                    if let Some(chain) = chain {
                        let (id, parts) = waiting.pop_front().unwrap();
                        prop_assert_eq!(chain.id, id);
                        let seen: Vec<_> = chain.readable.iter().map(|s| (s.address, s.length, false))
                            .chain(chain.writable.iter().map(|s| (s.address, s.length, true)))
                            .collect();
                        prop_assert_eq!(seen, parts);
                        taken.push(chain);
                    }
                }
                Step::Push(at) if !taken.is_empty() => {
                    let chain = taken.remove(at % taken.len());
                    let written = chain.writable_len() as u32;
                    queue.push(&chain, written).unwrap();
                    prop_assert_eq!(driver.collect(), [(chain.id, written)]);
                }
                Step::Push(_) => {}
                Step::Save => {
                    let position = queue.position();
                    queue = Queue::new(Arc::clone(&driver.memory), layout, options).unwrap();
                    queue.set_position(position).unwrap();
                }
            }
        }
    }

    /// Whatever is in the rings, nothing happens outside of memory and nothing goes on for ever.
    #[test]
    fn garbage_is_survived(
        options in options(), power in 1u32..8, bytes in prop::collection::vec(any::<u8>(), 4096),
        positions in any::<(u16, u16)>(),
    ) {
        let memory = memory();
        for area in [DESCRIPTORS, DRIVER, DEVICE] {
            memory.write(area, &bytes).unwrap();
        }
        let layout = Layout {
            size: 1 << power,
            descriptors: DESCRIPTORS,
            driver: DRIVER,
            device: DEVICE,
        };
        let mut queue = Queue::new(Arc::clone(&memory), layout, options).unwrap();
        let position = Position { available: positions.0, used: positions.1, unsignalled: 0 };
        let _ = queue.set_position(position);
        for _ in 0..300 {
            match queue.pop() {
                Ok(Some(chain)) => {
                    let mut out = [0; 64];
                    chain.read(&memory, 3, &mut out);
                    chain.write(&memory, 1, &out);
                    queue.push(&chain, 7).unwrap();
                    let _ = queue.needs_interrupt().unwrap();
                }
                Ok(None) => { queue.enable_notification().unwrap(); break; }
                Err(_) => break,
            }
        }
    }

    /// What is copied is what lies in the parts, however a copy is cut.
    #[test]
    fn copies_follow_the_parts(buffer in buffers(), cut in 0u64..4000) {
        let (mut driver, mut queue) = Driver::new(16, Options { indirect: true, ..Options::default() });
        if let Some((_, parts)) = driver.add(&buffer) {
            let mut expected = Vec::new();
            for &(at, length, _) in parts.iter().filter(|part| !part.2) {
                let content: Vec<u8> = (0..length).map(|i| (i as u64 * 7 + at) as u8).collect();
                driver.memory.write(at, &content).unwrap();
                expected.extend(content);
            }
            let chain = queue.pop().unwrap().unwrap();
            let mut out = vec![0; expected.len() + 10];
            let count = chain.read(&driver.memory, cut, &mut out);
            let rest = expected.get(cut as usize..).unwrap_or(&[]);
            prop_assert_eq!(&out[..count], rest);
            let room = chain.writable_len().saturating_sub(cut);
            let data: Vec<u8> = (0..room + 5).map(|i| i as u8).collect();
            prop_assert_eq!(chain.write(&driver.memory, cut, &data) as u64, room);
            let mut at = 0;
            for &(address, length, _) in parts.iter().filter(|part| part.2) {
                let mut seen = vec![0; length as usize];
                driver.memory.read(address, &mut seen).unwrap();
                for byte in seen {
                    if at >= cut {
                        prop_assert_eq!(byte, (at - cut) as u8);
                    }
                    at += 1;
                }
            }
        }
    }
}

fn one(options: Options) -> (Driver, Queue) {
    let (mut driver, mut queue) = Driver::new(8, options);
    let buffer = Buffer {
        readable: vec![16],
        writable: vec![],
        indirect: false,
    };
    driver.add(&buffer).unwrap();
    let chain = queue.pop().unwrap().unwrap();
    queue.push(&chain, 0).unwrap();
    (driver, queue)
}

#[test]
fn interrupts_are_suppressed_by_flags() {
    for packed in [false, true] {
        let options = Options {
            packed,
            ..Options::default()
        };
        let (driver, mut queue) = one(options);
        assert!(queue.needs_interrupt().unwrap());
        assert!(!queue.needs_interrupt().unwrap(), "nothing new");
        let (other, mut queue) = one(options);
        let flags = if packed { DRIVER + 2 } else { DRIVER };
        other.put16(flags, 1);
        assert!(!queue.needs_interrupt().unwrap());
        drop(driver);
    }
}

#[test]
fn interrupts_come_at_the_event_index() {
    for packed in [false, true] {
        let options = Options {
            packed,
            event_index: true,
            indirect: false,
        };
        for (event, wanted) in [(0, true), (1, false), (7, false)] {
            let (driver, mut queue) = one(options);
            if packed {
                driver.put16(DRIVER, event | 1 << 15);
                driver.put16(DRIVER + 2, 2);
            } else {
                driver.put16(DRIVER + 4 + 2 * 8, event);
            }
            assert_eq!(queue.needs_interrupt().unwrap(), wanted, "{packed} {event}");
        }
    }
}

#[test]
fn notification_is_asked_for_and_not() {
    for packed in [false, true] {
        for event_index in [false, true] {
            let options = Options {
                packed,
                event_index,
                indirect: false,
            };
            let (mut driver, mut queue) = one(options);
            queue.disable_notification().unwrap();
            if packed {
                assert_eq!(driver.get16(DEVICE + 2), 1);
            } else if !event_index {
                assert_eq!(driver.get16(DEVICE), 1);
            }
            assert!(!queue.enable_notification().unwrap());
            let event = match (packed, event_index) {
                (true, true) => (driver.get16(DEVICE), driver.get16(DEVICE + 2)),
                (true, false) => (0, driver.get16(DEVICE + 2)),
                (false, true) => (driver.get16(DEVICE + 4 + 8 * 8), driver.get16(DEVICE)),
                (false, false) => (0, driver.get16(DEVICE)),
            };
            let wanted = match (packed, event_index) {
                (true, true) => (1 | 1 << 15, 2),
                (false, true) => (1, 0),
                _ => (0, 0),
            };
            assert_eq!(event, wanted);
            let buffer = Buffer {
                readable: vec![1],
                writable: vec![],
                indirect: false,
            };
            driver.add(&buffer).unwrap();
            assert!(queue.enable_notification().unwrap());
        }
    }
}

fn split(edit: impl Fn(&Driver)) -> Result<Option<ringfence_datapath::Chain>, QueueError> {
    let (mut driver, mut queue) = Driver::new(
        8,
        Options {
            indirect: true,
            ..Options::default()
        },
    );
    let buffer = Buffer {
        readable: vec![16],
        writable: vec![16],
        indirect: false,
    };
    driver.add(&buffer).unwrap();
    edit(&driver);
    queue.pop()
}

#[test]
fn broken_chains_are_errors() {
    // A loop.
    let looped = split(|d| d.descriptor(DESCRIPTORS, DATA, 4, 1, 0));
    assert!(matches!(looped, Err(QueueError::TooLong(_))));
    // A next descriptor, and a head, beyond the ring.
    let next = split(|d| d.descriptor(DESCRIPTORS, DATA, 4, 1, 8));
    assert!(matches!(next, Err(QueueError::BadIndex { index: 8, .. })));
    let head = split(|d| d.put16(DRIVER + 4, 99));
    assert!(matches!(head, Err(QueueError::BadIndex { index: 99, .. })));
    // More available than there are entries.
    let many = split(|d| d.put16(DRIVER + 2, 9));
    assert!(matches!(many, Err(QueueError::BadIndex { .. })));
    // Readable behind writable.
    let order = split(|d| d.descriptor(DESCRIPTORS, DATA, 4, 3, 1));
    let order = order.and_then(|_| {
        split(|d| {
            d.descriptor(DESCRIPTORS, DATA, 4, 3, 1);
            d.descriptor(DESCRIPTORS + 16, DATA, 4, 0, 0);
        })
    });
    assert_eq!(order, Err(QueueError::Order));
    // No memory, wrapping around, and ROM for what is written.
    for (at, flags) in [
        (SIZE + 0x1000, 0),
        (u64::MAX - 1, 0),
        (SIZE, 2),
        (SIZE - 2, 2),
    ] {
        let outside = split(|d| d.descriptor(DESCRIPTORS, at, 4, flags, 0));
        assert!(
            matches!(outside, Err(QueueError::Unmapped { .. })),
            "{at:#x}"
        );
    }
    assert!(split(|d| d.descriptor(DESCRIPTORS, SIZE, 4, 0, 0)).is_ok());
    // Indirect: with next, of an odd or no length, of memory that is not there, nested.
    for (length, flags) in [(16, 5), (8, 4), (0, 4)] {
        let table = split(|d| d.descriptor(DESCRIPTORS, INDIRECT, length, flags, 1));
        assert!(matches!(table, Err(QueueError::BadDescriptor { .. })));
    }
    let nested = split(|d| {
        d.descriptor(DESCRIPTORS, INDIRECT, 16, 4, 0);
        d.descriptor(INDIRECT, INDIRECT, 16, 4, 0);
    });
    assert!(matches!(nested, Err(QueueError::BadDescriptor { .. })));
}

#[test]
fn layouts_are_checked() {
    let make = |size, descriptors, driver, device, packed| {
        let layout = Layout {
            size,
            descriptors,
            driver,
            device,
        };
        let options = Options {
            packed,
            ..Options::default()
        };
        Queue::new(memory(), layout, options).is_ok()
    };
    assert!(make(8, 16, 2, 4, false));
    assert!(make(7, 16, 4, 4, true));
    assert!(!make(7, 16, 2, 4, false), "split rings have a power of two");
    assert!(!make(0, 16, 4, 4, true));
    assert!(!make(65536, 16, 4, 4, false));
    assert!(!make(8, 8, 4, 4, false));
    assert!(!make(8, 16, 1, 4, false));
    assert!(!make(8, 16, 2, 4, true));
    assert!(!make(8, 16, 4, u64::MAX - 3, false));
}
