//! What the tests of the engines share: a mock machine, and the host's processor as the oracle of
//! single instructions.
//!
//! A [`Case`](generate::Case) is a few instructions with all of their inputs. [`Native`] runs it
//! on the host's processor; an engine runs it in a guest that [`guest`] lays out so that code and
//! data have the same linear addresses. Both end in a trap, and [`compare`] says what differs.

pub mod compare;
pub mod generate;
pub mod guest;
pub mod layout;
pub mod mock;
pub mod native;
pub mod random;
pub mod state;

pub use mock::Mock;
pub use native::Native;
pub use random::Random;
pub use state::{Outcome, State, XSTATE_SIZE};
