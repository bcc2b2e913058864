//! What devices do per byte, out of the interpreter's way: virtqueues and packets.
//!
//! Everything in a ring is the guest's, and hostile: an address, a length or an index is checked
//! before it is used, and a ring that breaks the rules of the specification stops with a
//! [`QueueError`], from which a device makes DEVICE_NEEDS_RESET.

mod chain;
mod guest;
pub mod packet;
mod queue;

pub use chain::{Chain, Piece, Segment};
pub use queue::{Layout, Options, Position, Queue, QueueError};
