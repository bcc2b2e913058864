//! Reasons in `Context::exit`: a block number above eight bits of reason.

/// The interpreter runs the instruction at the end of the block.
pub const SYSTEM: u32 = 0;
/// The kick flag was seen; RIP is stored.
pub const KICKED: u32 = 1;
/// An indirect branch has an unknown target; RIP is stored.
pub const TARGET: u32 = 2;
/// A memory helper gave up; RIP is that of its instruction.
pub const MEMORY: u32 = 3;
/// A native instruction faulted at `Context::exit_site`.
pub const FAULT: u32 = 4;
/// The guest spins: let another thread run. RIP is stored.
pub const PAUSED: u32 = 6;
/// The interpreter executes the instruction at RIP.
pub const INTERPRET: u32 = 5;
/// The budget does not allow all of the block; RIP is stored.
pub const BUDGET: u32 = 7;
/// Direct branch 0 of the block, not linked; others follow.
pub const BRANCH: u32 = 16;

/// The value for a reason of a block.
pub const fn code(block: u32, reason: u32) -> u32 {
    block << 8 | reason
}
