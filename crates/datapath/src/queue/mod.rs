//! A virtqueue from the device's side (VIRTIO 1.2, sections 2.6 to 2.8).

mod packed;
mod split;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ringfence_memory::GuestMemory;

use crate::chain::{Chain, Segment};
use crate::guest::{Descriptor, Map};

/// Descriptor flags (2.7.5, 2.8.1).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Descriptors of one buffer, indirect ones included: more than any driver uses, few enough to walk.
const MOST_DESCRIPTORS: usize = 1024;
/// The largest rings: 32768 entries (2.7, 2.8.10.1).
const LARGEST: u32 = 32768;

/// Where a ring is: guest physical addresses of its three areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u32,
    /// Descriptor area.
    pub descriptors: u64,
    /// Driver area: available ring, or driver event suppression.
    pub driver: u64,
    /// Device area: used ring, or device event suppression.
    pub device: u64,
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub event_index: bool,
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
}

/// How far the device has got: what a saved state holds of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Next entry to take; in a packed ring bit 15 is the wrap counter.
    pub available: u16,
    /// Next entry to use, likewise.
    pub used: u16,
    /// Entries used since the driver was last considered for an interrupt.
    pub unsignalled: u16,
}

/// How a driver broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Size or alignment of the areas.
    #[error("a ring of {size} entries at {address:#x} can't be")]
    BadLayout {
        /// Entries.
        size: u32,
        /// The area that is wrong.
        address: u64,
    },
    /// Something that has to be in memory is not.
    #[error("no memory at {address:#x}, which a ring points to")]
    Unmapped {
        /// Guest physical address.
        address: u64,
    },
    /// An index or the number of a descriptor is beyond the ring.
    #[error("index {index} is beyond the ring's {size} entries")]
    BadIndex {
        /// What the driver wrote.
        index: u32,
        /// Entries.
        size: u32,
    },
    /// A chain that does not end, or is longer than any can be.
    #[error("a chain of more than {0} descriptors")]
    TooLong(usize),
    /// A descriptor with flags that may not come together, or were not negotiated.
    #[error("a descriptor with flags {flags:#x} where it can't be")]
    BadDescriptor {
        /// Its flags.
        flags: u16,
    },
    /// A part for the device to read behind one for it to write.
    #[error("a readable part follows a writable one")]
    Order,
}

/// A virtqueue of a running device.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<GuestMemory>,
    layout: Layout,
    options: Options,
    position: Position,
}

impl Queue {
    /// A ring at its start.
    ///
    /// # Errors
    /// [`QueueError::BadLayout`] when the areas can't be a ring.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: Layout,
        options: Options,
    ) -> Result<Self, QueueError> {
        let bad = |address| QueueError::BadLayout {
            size: layout.size,
            address,
        };
        let power = options.packed || layout.size.is_power_of_two();
        if layout.size == 0 || layout.size > LARGEST || !power {
            return Err(bad(layout.descriptors));
        }
        let alignments = if options.packed {
            [16, 4, 4]
        } else {
            [16, 2, 4]
        };
        let areas = [layout.descriptors, layout.driver, layout.device];
        for (area, alignment) in areas.into_iter().zip(alignments) {
            // The largest ring area is 512 KiB and a little: no sum below can wrap.
            if !area.is_multiple_of(alignment) || area >= u64::MAX - (1 << 24) {
                return Err(bad(area));
            }
        }
        let start = if options.packed { 1 << 15 } else { 0 };
        Ok(Self {
            memory,
            layout,
            options,
            position: Position {
                available: start,
                used: start,
                unsignalled: 0,
            },
        })
    }

    /// How far the device has got.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on where a saved state stopped.
    ///
    /// # Errors
    /// [`QueueError::BadIndex`] when the position is beyond the ring.
    pub fn set_position(&mut self, position: Position) -> Result<(), QueueError> {
        if self.options.packed {
            for index in [position.available, position.used] {
                self.check_index(u32::from(index & !(1 << 15)))?;
            }
        }
        self.position = position;
        Ok(())
    }

    /// Guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Takes the next buffer that the driver made available.
    ///
    /// # Errors
    /// [`QueueError`] when the ring breaks the rules; it stays as it is.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.pop_packed(&map)
        } else {
            self.pop_split(&map)
        }
    }

    /// Whether a buffer is available.
    ///
    /// # Errors
    /// As [`Queue::pop`].
    pub fn available(&self) -> Result<bool, QueueError> {
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.packed_available(&map)
        } else {
            Ok(self.split_available(&map)? != 0)
        }
    }

    /// Gives a buffer back, of whose writable part the device has written `written` bytes.
    ///
    /// # Errors
    /// [`QueueError::Unmapped`] when the ring's memory has gone.
    pub fn push(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.push_packed(&map, chain, written)?;
        } else {
            self.push_split(&map, chain, written)?;
        }
        let entries = if self.options.packed { chain.taken } else { 1 };
        self.position.unsignalled = self.position.unsignalled.saturating_add(entries);
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was used since the last call.
    ///
    /// # Errors
    /// [`QueueError::Unmapped`] when the ring's memory has gone.
    pub fn needs_interrupt(&mut self) -> Result<bool, QueueError> {
        let used = std::mem::take(&mut self.position.unsignalled);
        if used == 0 {
            return Ok(false);
        }
        // What was used must be visible before what the driver asks for is read.
        fence(Ordering::SeqCst);
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.packed_interrupt(&map, used)
        } else {
            self.split_interrupt(&map, used)
        }
    }

    /// Asks the driver to notify of new buffers; true when one came meanwhile.
    ///
    /// # Errors
    /// As [`Queue::pop`].
    pub fn enable_notification(&mut self) -> Result<bool, QueueError> {
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.packed_notification(&map, true)?;
        } else {
            self.split_notification(&map, true)?;
        }
        fence(Ordering::SeqCst);
        self.available()
    }

    /// Tells the driver that it need not notify of new buffers.
    ///
    /// # Errors
    /// [`QueueError::Unmapped`] when the ring's memory has gone.
    pub fn disable_notification(&mut self) -> Result<(), QueueError> {
        let map = Map::new(&self.memory);
        if self.options.packed {
            self.packed_notification(&map, false)
        } else {
            self.split_notification(&map, false)
        }
    }

    fn check_index(&self, index: u32) -> Result<(), QueueError> {
        if index < self.layout.size {
            return Ok(());
        }
        Err(QueueError::BadIndex {
            index,
            size: self.layout.size,
        })
    }

    fn most_descriptors(&self) -> usize {
        MOST_DESCRIPTORS.max(self.layout.size as usize)
    }
}

/// Gathers the parts of a chain and checks them.
struct Builder<'a> {
    map: &'a Map,
    chain: Chain,
    count: usize,
    most: usize,
}

impl<'a> Builder<'a> {
    fn new(map: &'a Map, most: usize) -> Self {
        Self {
            map,
            chain: Chain::default(),
            count: 0,
            most,
        }
    }

    /// Adds what a descriptor points to.
    fn add(&mut self, descriptor: Descriptor, flags: u16) -> Result<(), QueueError> {
        self.count += 1;
        if self.count > self.most {
            return Err(QueueError::TooLong(self.most));
        }
        let write = flags & WRITE != 0;
        if !write && !self.chain.writable.is_empty() {
            return Err(QueueError::Order);
        }
        let (address, length) = (descriptor.address, descriptor.length);
        if length == 0 {
            return Ok(());
        }
        if !self.map.covers(address, u64::from(length), write) {
            return Err(QueueError::Unmapped { address });
        }
        let list = if write {
            &mut self.chain.writable
        } else {
            &mut self.chain.readable
        };
        list.push(Segment { address, length });
        Ok(())
    }

    /// Number of descriptors in an indirect table.
    fn table(&self, descriptor: Descriptor, flags: u16) -> Result<u32, QueueError> {
        let length = descriptor.length;
        let count = length / 16;
        if length == 0 || !length.is_multiple_of(16) {
            return Err(QueueError::BadDescriptor { flags });
        }
        let address = descriptor.address;
        if !self.map.covers(address, u64::from(length), false) {
            return Err(QueueError::Unmapped { address });
        }
        Ok(count)
    }
}

/// Whether an event index lies among the entries from `old` to `new` (2.7.7.2).
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
