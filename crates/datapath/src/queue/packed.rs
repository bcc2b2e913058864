//! Packed virtqueues (VIRTIO 1.2, section 2.8).

use super::{Builder, INDIRECT, NEXT, Queue, QueueError, WRITE, need_event};
use crate::chain::Chain;
use crate::guest::Map;

const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Bit of a position, and of an event offset, that holds the wrap counter.
const WRAP: u16 = 1 << 15;
/// Offset of the flags in an event suppression structure, and their values (2.8.10).
const EVENT_FLAGS: u64 = 2;
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESCRIPTOR: u16 = 2;
/// Offset of buffer number and flags in a descriptor.
const ID: u64 = 12;
const FLAGS: u64 = 14;

impl Queue {
    /// `position` after `count` descriptors.
    fn advanced(&self, position: u16, count: u16) -> u16 {
        let index = u32::from(position & !WRAP) + u32::from(count);
        if index < self.layout.size {
            position & WRAP | index as u16
        } else {
            (position ^ WRAP) & WRAP | (index - self.layout.size) as u16
        }
    }

    fn entry(&self, position: u16) -> u64 {
        self.layout.descriptors + 16 * u64::from(position & !WRAP)
    }

    pub(super) fn packed_available(&self, map: &Map) -> Result<bool, QueueError> {
        let position = self.position.available;
        let flags = map.load16(self.entry(position) + FLAGS)?;
        let wrap = position & WRAP != 0;
        Ok((flags & AVAILABLE != 0) == wrap && (flags & USED != 0) != wrap)
    }

    pub(super) fn pop_packed(&mut self, map: &Map) -> Result<Option<Chain>, QueueError> {
        if !self.packed_available(map)? {
            return Ok(None);
        }
        let mut builder = Builder::new(map, self.most_descriptors());
        let mut position = self.position.available;
        let mut taken = 0u16;
        loop {
            if u32::from(taken) >= self.layout.size {
                return Err(QueueError::TooLong(self.layout.size as usize));
            }
            let descriptor = map.descriptor(self.entry(position))?;
            let (id, flags) = (descriptor.third, descriptor.fourth);
            taken += 1;
            position = self.advanced(position, 1);
            if flags & INDIRECT != 0 {
                if !self.options.indirect || flags & NEXT != 0 {
                    return Err(QueueError::BadDescriptor { flags });
                }
                let count = builder.table(descriptor, flags)?;
                for index in 0..u64::from(count) {
                    let part = map.descriptor(descriptor.address + 16 * index)?;
                    if part.fourth & INDIRECT != 0 {
                        return Err(QueueError::BadDescriptor { flags: part.fourth });
                    }
                    builder.add(part, part.fourth)?;
                }
            } else {
                builder.add(descriptor, flags)?;
            }
            if flags & NEXT == 0 {
                let mut chain = builder.chain;
                chain.id = id;
                chain.taken = taken;
                self.position.available = position;
                return Ok(Some(chain));
            }
        }
    }

    pub(super) fn push_packed(
        &mut self,
        map: &Map,
        chain: &Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        let position = self.position.used;
        let entry = self.entry(position);
        map.store32(entry + 8, written)?;
        map.store16(entry + ID, chain.id)?;
        let wrap = if position & WRAP != 0 {
            AVAILABLE | USED
        } else {
            0
        };
        let write = if written != 0 { WRITE } else { 0 };
        // Last, since it hands the descriptor over.
        map.store16(entry + FLAGS, wrap | write)?;
        self.position.used = self.advanced(position, chain.taken);
        Ok(())
    }

    pub(super) fn packed_interrupt(&self, map: &Map, used: u16) -> Result<bool, QueueError> {
        let flags = map.load16(self.layout.driver + EVENT_FLAGS)?;
        match flags & 3 {
            EVENT_ENABLE => Ok(true),
            EVENT_DESCRIPTOR if self.options.event_index => {
                let event = map.load16(self.layout.driver)?;
                let new = self.position.used;
                let mut offset = event & !WRAP;
                if (event ^ new) & WRAP != 0 {
                    // Of the round before.
                    offset = offset.wrapping_sub(self.layout.size as u16);
                }
                let new = new & !WRAP;
                Ok(need_event(offset, new, new.wrapping_sub(used)))
            }
            _ => Ok(false),
        }
    }

    pub(super) fn packed_notification(&self, map: &Map, wanted: bool) -> Result<(), QueueError> {
        let flags = match (wanted, self.options.event_index) {
            (false, _) => EVENT_DISABLE,
            (true, false) => EVENT_ENABLE,
            (true, true) => {
                map.store16(self.layout.device, self.position.available)?;
                EVENT_DESCRIPTOR
            }
        };
        map.store16(self.layout.device + EVENT_FLAGS, flags)
    }
}
