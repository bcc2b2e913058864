//! What CPUID tells a guest.
//!
//! A [`Model`] starts from what an engine can run on the host's processor ([`Offer`]) and keeps
//! what a [`CpuSpec`] asks for. [`feature`] names the bits, [`named`] the models.

pub mod feature;
mod leaves;
mod model;
mod named;
mod set;
pub mod spec;

pub use feature::{Feature, FeatureSet, Word};
pub use model::{Dynamic, Model, Offer};
pub use named::PARAVIRT;
pub use spec::{CpuModelError, CpuSpec};
