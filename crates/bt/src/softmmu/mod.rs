//! The software MMU: page walks, the TLB that translated code probes, flushes.

pub mod phys;
pub mod tlb;
pub mod walk;
pub mod world;
