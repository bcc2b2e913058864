//! Facts of the x86 architecture that every engine shares: register bits, model-specific
//! register numbers, exception vectors and paging formats.
//!
//! Names follow the Intel Software Developer's Manual (SDM) and the AMD Architecture
//! Programmer's Manual (APM). Nothing here knows of a guest or of an engine.
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod cr;
pub mod exception;
pub mod flags;
pub mod msr;
pub mod paging;
