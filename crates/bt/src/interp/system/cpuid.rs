//! What CPUID tells the guest, and which instructions and registers exist because of it.
//!
//! [`model`] says what the engine can run, [`availability`] maps features to instructions,
//! [`registers`] to model-specific registers.

pub mod availability;
mod model;
pub(super) mod registers;

pub use availability::Availability;
pub use model::CpuidModel;
pub use ringfence_x86::cpuid::{CpuModelError, CpuSpec, Feature, feature, spec};

use crate::cpu::Cpu;
use crate::env::Env;

/// Whether the guest's CPUID has a feature.
pub(super) trait Offered {
    /// Whether it has.
    fn offered<E: Env>(self, cpu: &Cpu, env: &mut E) -> bool;
}

impl Offered for Feature {
    fn offered<E: Env>(self, cpu: &Cpu, env: &mut E) -> bool {
        let (leaf, subleaf, output) = self.word.place();
        env.cpuid(cpu, leaf, subleaf)[output] >> self.bit & 1 != 0
    }
}

/// Bits of a physical address: leaf 8000_0008h, or 36 on processors without it.
pub(super) fn physical_width<E: Env>(cpu: &Cpu, env: &mut E) -> u32 {
    match env.cpuid(cpu, 0x8000_0008, 0)[0] & 0xff {
        0 => 36,
        width => width.min(52),
    }
}
