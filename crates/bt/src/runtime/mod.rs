//! Running translated code: fixed stubs, host signals, the dispatcher.

pub mod core;
mod counting;
mod follow;
pub mod helpers;
pub mod kick;
pub mod mailbox;
pub mod profile;
pub mod signals;
pub mod stubs;
pub mod unconfirmed;
