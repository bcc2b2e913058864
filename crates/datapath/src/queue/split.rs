//! Split virtqueues (VIRTIO 1.2, section 2.7).

use super::{Builder, INDIRECT, NEXT, Queue, QueueError, need_event};
use crate::chain::Chain;
use crate::guest::Map;

/// VIRTQ_AVAIL_F_NO_INTERRUPT, in the flags of the available ring.
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY, in the flags of the used ring.
const NO_NOTIFY: u16 = 1;
const FLAGS: u64 = 0;
const INDEX: u64 = 2;
const RING: u64 = 4;

impl Queue {
    fn slot(&self, index: u16) -> u64 {
        u64::from(index) % u64::from(self.layout.size)
    }

    /// How many entries of the available ring are new.
    pub(super) fn split_available(&self, map: &Map) -> Result<u16, QueueError> {
        let index = map.load16(self.layout.driver + INDEX)?;
        let new = index.wrapping_sub(self.position.available);
        if u32::from(new) > self.layout.size {
            return Err(QueueError::BadIndex {
                index: u32::from(index),
                size: self.layout.size,
            });
        }
        Ok(new)
    }

    pub(super) fn pop_split(&mut self, map: &Map) -> Result<Option<Chain>, QueueError> {
        if self.split_available(map)? == 0 {
            return Ok(None);
        }
        let slot = self.slot(self.position.available);
        let head = map.load16(self.layout.driver + RING + 2 * slot)?;
        let chain = self.walk(map, head)?;
        self.position.available = self.position.available.wrapping_add(1);
        Ok(Some(chain))
    }

    fn walk(&self, map: &Map, head: u16) -> Result<Chain, QueueError> {
        let mut builder = Builder::new(map, self.most_descriptors());
        builder.chain.id = head;
        let (mut table, mut size) = (self.layout.descriptors, self.layout.size);
        let (mut index, mut indirect) = (u32::from(head), false);
        loop {
            if index >= size {
                return Err(QueueError::BadIndex { index, size });
            }
            let descriptor = map.descriptor(table + 16 * u64::from(index))?;
            let (flags, next) = (descriptor.third, descriptor.fourth);
            if flags & INDIRECT != 0 {
                if indirect || !self.options.indirect || flags & NEXT != 0 {
                    return Err(QueueError::BadDescriptor { flags });
                }
                size = builder.table(descriptor, flags)?;
                (table, index, indirect) = (descriptor.address, 0, true);
                continue;
            }
            builder.add(descriptor, flags)?;
            if flags & NEXT == 0 {
                return Ok(builder.chain);
            }
            index = u32::from(next);
        }
    }

    pub(super) fn push_split(
        &mut self,
        map: &Map,
        chain: &Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        let entry = self.layout.device + RING + 8 * self.slot(self.position.used);
        map.store32(entry, u32::from(chain.id))?;
        map.store32(entry + 4, written)?;
        let used = self.position.used.wrapping_add(1);
        map.store16(self.layout.device + INDEX, used)?;
        self.position.used = used;
        Ok(())
    }

    pub(super) fn split_interrupt(&self, map: &Map, used: u16) -> Result<bool, QueueError> {
        if !self.options.event_index {
            return Ok(map.load16(self.layout.driver + FLAGS)? & NO_INTERRUPT == 0);
        }
        let event = map.load16(self.layout.driver + RING + 2 * u64::from(self.layout.size))?;
        let new = self.position.used;
        Ok(need_event(event, new, new.wrapping_sub(used)))
    }

    pub(super) fn split_notification(&self, map: &Map, wanted: bool) -> Result<(), QueueError> {
        if !self.options.event_index {
            let flags = if wanted { 0 } else { NO_NOTIFY };
            return map.store16(self.layout.device + FLAGS, flags);
        }
        if wanted {
            let event = self.layout.device + RING + 8 * u64::from(self.layout.size);
            map.store16(event, self.position.available)?;
        }
        Ok(())
    }
}
