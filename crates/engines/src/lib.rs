//! Machines on either engine, and what one engine does for the other.
//!
//! `bt` and `kvm` don't know of each other. [`build`] makes a machine of one of them; on `kvm`, each
//! processor is a [`Handover`], which has `bt` execute the instructions that KVM can't.
#![forbid(unsafe_code)]

mod build;
mod handover;
mod kernel_chips;

pub use build::{BuildError, Built, ChipsChoice, Description, build};
pub use handover::Handover;
