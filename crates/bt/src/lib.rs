//! The binary-translation engine.
//!
//! Guest instructions are re-encoded and run on the host's processor, with memory operands
//! rewritten to go through a software TLB. What can't run that way (system instructions, device
//! accesses, faults, accesses that cross a page) is executed by [`interp`], one instruction at a
//! time, on the same [`cpu::Cpu`] state; so privileged semantics exist once.
//!
//! Unsafe island 3.

pub mod cache;
pub mod context;
pub mod cpu;
pub mod emit;
pub mod env;
pub mod frontend;
pub mod interp;
pub mod paravirt;
mod report;
pub mod runtime;
pub mod softmmu;
mod state;
mod vcpu;

pub use vcpu::BtVcpu;
