//! What CPUID tells the guest, and which instructions exist because of it.
//!
//! A [`CpuidModel`] starts from what the engine can run on the host's processor and keeps what a
//! [`CpuSpec`] asks for. [`feature`] names the bits, [`named`] the models, [`availability`] maps
//! features to instructions.

pub mod availability;
pub mod feature;
mod leaves;
mod model;
mod named;
pub(super) mod registers;
mod set;
pub mod spec;

pub use availability::Availability;
pub use feature::Feature;
pub use model::CpuidModel;
pub use spec::{CpuModelError, CpuSpec};

use crate::cpu::Cpu;
use crate::env::Env;

impl Feature {
    /// Whether the guest's CPUID has the feature.
    pub(super) fn offered<E: Env>(self, cpu: &Cpu, env: &mut E) -> bool {
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
