//! The `kvm` engine: guests on the host's processor through /dev/kvm (Linux, Documentation/virt/kvm/
//! api.rst).
//!
//! [`Host`] opens the device and knows what it offers; [`KvmMachine`] is a virtual machine with its
//! memory slots and interrupt hardware, [`KvmVcpu`] a processor; [`probe`] runs tiny guests to find
//! what really works.
//!
//! Unsafe island 2: besides the ioctls that the crates `kvm-ioctls` and `kvm-bindings` lack, the
//! `kvm_run` page that the kernel shares with us.

mod cpuid;
mod host;
mod kick;
mod machine;
pub mod probe;
mod raw;
mod registers;
mod run_page;
mod slots;
mod state;
mod vcpu;

pub use cpuid::{features, model};
pub use host::{Absence, Host};
pub use machine::{Chips, KvmMachine};
pub use vcpu::KvmVcpu;
