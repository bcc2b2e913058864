//! From guest instructions to host code.

pub mod classify;
mod control;
mod counted;
pub mod exit;
mod groups;
mod inline;
mod legacy;
mod lower;
pub mod memory;
pub mod mode;
mod segment;
mod stack;
mod string;
pub mod translate;

pub use lower::late_indirect_entries;
pub use memory::meta;
