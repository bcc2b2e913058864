//! Random numbers that a seed reproduces on every host.

/// A generator of random numbers (SplitMix64, from the JDK's SplittableRandom).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which is not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A value that instructions find interesting: near zero, a power of two or a sign change,
    /// a repeated byte, or anything.
    pub fn value(&mut self) -> u64 {
        let any = self.bits();
        match self.below(8) {
            0 => self.below(20).wrapping_sub(4),
            1 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            2 => (1u64 << self.below(64))
                .wrapping_sub(self.below(3))
                .wrapping_neg(),
            3 => {
                self.pick(&[0, 1, u64::MAX, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff])
                    | if any & 1 == 0 { 0 } else { any << 32 }
            }
            4 => self.pick(&[
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                0x1_0000_0000,
                i64::MAX as u64,
                i64::MIN as u64,
                0x8000_0000_8000_0000,
                0xffff_ffff_8000_0000,
            ]),
            5 => (any & 0xff) * 0x0101_0101_0101_0101,
            6 => any >> self.below(64),
            _ => any,
        }
    }
}
