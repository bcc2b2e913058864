//! From guest instructions to host code.

pub mod classify;
mod control;
mod lower;
mod memory;
pub mod mode;
pub mod translate;

pub use lower::{exit, late_indirect_entry};
pub use memory::meta;
