//! Sets of interrupt vectors: the IRR, ISR and TMR of a local APIC.

/// A set of vectors 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// Adds a vector; false if it was there.
    pub fn insert(&mut self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Takes a vector out; false if it was not there.
    pub fn remove(&mut self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        let had = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        had
    }

    /// Adds or takes out a vector.
    pub fn set(&mut self, vector: u8, member: bool) {
        if member {
            self.insert(vector);
        } else {
            self.remove(vector);
        }
    }

    /// Whether a vector is in the set.
    pub fn contains(&self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        self.0[word] & bit != 0
    }

    /// The highest vector, which is the one of highest priority.
    pub fn highest(&self) -> Option<u8> {
        let word = (0..4).rev().find(|&word| self.0[word] != 0)?;
        Some((word as u32 * 64 + 63 - self.0[word].leading_zeros()) as u8)
    }

    /// 32 bits as a register shows them: vectors `32 * index` and up, in bit 0 and up.
    pub fn register(&self, index: u32) -> u32 {
        let word = self.0[(index >> 1 & 3) as usize];
        (word >> ((index & 1) * 32)) as u32
    }

    const fn place(vector: u8) -> (usize, u64) {
        ((vector >> 6) as usize, 1 << (vector & 63))
    }
}
