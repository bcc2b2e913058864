//! Sets of features, and what one feature has to do with another.

use super::feature::{Feature, NEEDS, WORDS, Word};

/// A set of feature bits, those without a name included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet([u32; WORDS]);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The features of all `groups`.
    pub const fn of(groups: &[&[Feature]]) -> Self {
        let mut set = Self::EMPTY;
        let mut group = 0;
        while group < groups.len() {
            set = set.with(groups[group]);
            group += 1;
        }
        set
    }

    /// This set and `more`.
    pub const fn with(mut self, more: &[Feature]) -> Self {
        let mut index = 0;
        while index < more.len() {
            self.0[more[index].word as usize] |= 1 << more[index].bit;
            index += 1;
        }
        self
    }

    /// One register.
    pub fn word(&self, word: Word) -> u32 {
        self.0[word as usize]
    }

    /// Sets one register.
    pub fn set_word(&mut self, word: Word, value: u32) {
        self.0[word as usize] = value;
    }

    /// Whether `feature` is in the set.
    pub fn has(&self, feature: Feature) -> bool {
        self.0[feature.word as usize] >> feature.bit & 1 != 0
    }

    /// Takes `feature` out.
    pub fn remove(&mut self, feature: Feature) {
        self.0[feature.word as usize] &= !(1 << feature.bit);
    }

    /// Adds `feature` and all that it needs.
    pub fn add_with_needs(&mut self, feature: Feature) {
        self.0[feature.word as usize] |= 1 << feature.bit;
        for &needed in feature.needs() {
            self.add_with_needs(needed);
        }
    }

    /// Takes out every feature that needs one which is not in the set.
    pub fn drop_unmet(&mut self) {
        loop {
            let before = *self;
            for &(feature, needs) in NEEDS {
                if !needs.iter().all(|&needed| self.has(needed)) {
                    self.remove(feature);
                }
            }
            if *self == before {
                return;
            }
        }
    }

    /// The named features in this set that are not in `other`.
    pub fn beyond(&self, other: &Self) -> Vec<Feature> {
        Feature::all()
            .filter(|&f| self.has(f) && !other.has(f))
            .collect()
    }

    /// Adds the bits of `other` that are also in `mask`.
    pub fn add_masked(&mut self, other: &Self, mask: &Self) {
        for ((own, other), mask) in self.0.iter_mut().zip(other.0).zip(mask.0) {
            *own |= other & mask;
        }
    }
}
