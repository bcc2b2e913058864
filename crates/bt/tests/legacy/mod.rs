//! A small PC without devices, and programs for it.

#![allow(dead_code)]

pub mod machine;
pub mod program;
