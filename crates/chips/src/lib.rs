//! Interrupt hardware of a PC: dual 8259A, 8254, HPET, local APICs and I/O APIC; the memory of a VGA.
//!
//! Each chip is a plain state machine that is told the time ([`Time`]) and hands out what it
//! sends ([`Message`]); none has a thread, a lock or a clock of its own. [`Platform`] wires them
//! together, locks them, and is what an engine sees as
//! [`LocalDevices`](ringfence_engine::LocalDevices).

mod alarm;
mod board;
pub mod hpet;
pub mod ioapic;
pub mod lapic;
pub mod message;
pub mod pic;
pub mod pit;
mod platform;
mod time;
mod vectors;
pub mod vga;

pub use message::{Delivery, DeliveryMode, Message, Target};
pub use platform::{MAX_VCPUS, Platform, VideoSlot};
pub use time::Time;
pub use vectors::VectorSet;
