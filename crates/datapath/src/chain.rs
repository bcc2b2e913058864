//! A buffer of a virtqueue: what the device reads, then what it writes.

use std::ptr::{copy_nonoverlapping, write_bytes};
use std::sync::Arc;

use ringfence_memory::{GuestMemory, Region, RegionKind};

use crate::guest::{Map, note};

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes; never zero.
    pub length: u32,
}

/// A buffer that the driver made available (VIRTIO 1.2, section 2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its number: index of the first descriptor, or buffer id in a packed ring.
    pub id: u16,
    /// Descriptors of a packed ring that it takes up.
    pub(crate) taken: u16,
    /// Parts that the device may read.
    pub readable: Vec<Segment>,
    /// Parts that the device may write.
    pub writable: Vec<Segment>,
}

/// A part of a chain that lies in one region: a host address that stays valid with the region.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What keeps the memory there.
    pub region: Arc<Region>,
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: usize,
}

impl Piece {
    /// Host address of its first byte.
    pub fn host(&self) -> *mut u8 {
        self.region.host(self.address)
    }

    /// Tells processors that the device has written to it.
    pub fn note(&self) {
        note(&self.region, self.address, self.length as u64);
    }
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.length)).sum()
}

impl Chain {
    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies from `offset` of the readable part; gives how many bytes there were.
    pub fn read(&self, memory: &GuestMemory, offset: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in pieces(memory, &self.readable, offset, out.len() as u64, false) {
            // SAFETY: the piece lies in its region, and the pieces together are no longer than
            // `out`.
            unsafe {
                copy_nonoverlapping(piece.host(), out[done..].as_mut_ptr(), piece.length);
            }
            done += piece.length;
        }
        done
    }

    /// Copies to `offset` of the writable part; gives how many bytes fitted.
    pub fn write(&self, memory: &GuestMemory, offset: u64, data: &[u8]) -> usize {
        let mut done = 0;
        for piece in pieces(memory, &self.writable, offset, data.len() as u64, true) {
            // SAFETY: as in `read`, for `data`.
            unsafe { copy_nonoverlapping(data[done..].as_ptr(), piece.host(), piece.length) };
            piece.note();
            done += piece.length;
        }
        done
    }

    /// Fills `length` bytes from `offset` of the writable part; gives how many there were.
    pub fn fill(&self, memory: &GuestMemory, offset: u64, length: u64, byte: u8) -> u64 {
        let mut done = 0;
        for piece in pieces(memory, &self.writable, offset, length, true) {
            // SAFETY: the piece lies in its region.
            unsafe { write_bytes(piece.host(), byte, piece.length) };
            piece.note();
            done += piece.length as u64;
        }
        done
    }

    /// The host's pieces of a range of the readable part.
    pub fn readable_pieces(&self, memory: &GuestMemory, offset: u64, length: u64) -> Vec<Piece> {
        pieces(memory, &self.readable, offset, length, false)
    }

    /// The host's pieces of a range of the writable part.
    pub fn writable_pieces(&self, memory: &GuestMemory, offset: u64, length: u64) -> Vec<Piece> {
        pieces(memory, &self.writable, offset, length, true)
    }
}

/// The parts of `length` bytes from `offset` on, each within one region. Ends early where memory
/// has gone since the chain was read.
fn pieces(
    memory: &GuestMemory,
    segments: &[Segment],
    offset: u64,
    length: u64,
    write: bool,
) -> Vec<Piece> {
    let map = Map::new(memory);
    let mut found = Vec::new();
    let (mut skip, mut left) = (offset, length);
    for segment in segments {
        let size = u64::from(segment.length);
        if skip >= size {
            skip -= size;
            continue;
        }
        let mut at = segment.address + skip;
        let end = (segment.address + size).min(at.saturating_add(left));
        skip = 0;
        while at < end {
            let Some(region) = map.find(at) else {
                return found;
            };
            if write && region.kind != RegionKind::Ram {
                return found;
            }
            let length = (region.start + region.size).min(end) - at;
            found.push(Piece {
                region: Arc::clone(region),
                address: at,
                length: length as usize,
            });
            at += length;
            left -= length;
        }
        if left == 0 {
            break;
        }
    }
    found
}
