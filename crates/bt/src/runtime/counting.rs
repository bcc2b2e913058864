//! Instructions as time, for deterministic machines: see `frontend/counted.rs` for the code.
//!
//! The budget of translated code is what is left to the next thing that happens: a timer of the
//! chips, one of the machine, or the number of instructions at which the machine wants to stop.
//! An instruction counts when it has retired or faulted; a repeated one when it is complete.

use std::sync::atomic::Ordering::Relaxed;

use ringfence_engine::{Counted, Exit};

use super::core::{Core, Next};
use crate::frontend::mode::Mode;

/// Most instructions between two looks at the time.
const MOST: u64 = 1 << 30;
/// Most instructions that are interpreted in a row.
const MOST_STEPS: u32 = 4096;

impl Core {
    /// The counters, if instructions are counted.
    fn counted(&self) -> Option<&Counted> {
        self.world.clock().counted()
    }

    /// The mode that the processor is in, as translations are found by.
    pub(super) fn mode(&self) -> Mode {
        let mode = Mode::of(self.cpu());
        if self.interpreter {
            return Mode::INTERPRET;
        }
        if mode != Mode::INTERPRET && self.counted().is_some() {
            return mode.with_counted();
        }
        mode
    }

    /// Whether the time has come for something else than the next instruction.
    pub(super) fn is_due(&self) -> bool {
        self.counted().is_some_and(|counted| {
            let next = counted.deadline().min(self.world.devices.deadline());
            let due = next <= counted.nanoseconds() || counted.stop() <= counted.instructions();
            // Who has just looked, and found nothing to do, must go on.
            due && counted.instructions() != self.looked_at
        })
    }

    /// Serves the chips' timers; an exit if it is the machine's turn.
    pub(super) fn keep_time(&mut self) -> Option<Exit> {
        self.looked_at = self.counted()?.instructions();
        let counted = self.counted()?;
        let now = counted.nanoseconds();
        if self.world.devices.deadline() <= now {
            self.world.devices.serve_timers();
        }
        let leaves = counted.deadline() <= now || counted.stop() <= counted.instructions();
        leaves.then_some(Exit::Interrupted)
    }

    /// In HLT: lets time pass to the next timer, and returns whether there is one.
    pub(super) fn skip_idle(&self) -> bool {
        let Some(counted) = self.counted() else {
            return false;
        };
        let next = counted.deadline().min(self.world.devices.deadline());
        if next != u64::MAX {
            counted.skip_to(next);
        }
        next != u64::MAX
    }

    /// Gives translated code its budget.
    pub(super) fn begin_counting(&mut self) {
        let Some(counted) = self.counted() else {
            return;
        };
        let next = counted.deadline().min(self.world.devices.deadline());
        let left = next
            .saturating_sub(counted.nanoseconds())
            .min(counted.stop().saturating_sub(counted.instructions()))
            .min(MOST);
        self.budget = left as i64;
        self.context().budget = self.budget;
    }

    /// Takes what translated code has executed, and `more` instructions of its last block.
    pub(super) fn end_counting(&self, more: u32) {
        if let Some(counted) = self.counted() {
            let executed = self.budget - self.context().budget + i64::from(more);
            counted.set_instructions(counted.instructions() + executed as u64);
        }
    }

    /// The interpreter has executed an instruction.
    pub(super) fn count_step(&mut self) {
        let paused = self.world.take_paused();
        if let Some(counted) = self.counted()
            && !paused
        {
            counted.set_instructions(counted.instructions() + 1);
        }
    }

    /// Interprets the next instruction in a mode that is not translated; where instructions are
    /// counted, the ones after it as well until something may have changed.
    pub(super) fn interpret_run(&mut self) -> Next {
        for _ in 0..MOST_STEPS {
            self.statistics.interpreted += 1;
            let next = self.interpret();
            let context = self.context();
            let quiet = context.interrupt_waits == 0 && context.kick.load(Relaxed) == 0;
            let goes_on = self.interpreter
                && matches!(next, Next::Continue)
                && quiet
                && !context.cpu.halted
                && self.counted().is_some()
                && !self.is_due();
            if !goes_on {
                return next;
            }
        }
        Next::Continue
    }

    /// How many instructions of its block were executed before the native fault at `host`.
    pub(super) fn executed_at_fault(&self, host: u64) -> u32 {
        let id = self.cache.block_at(host);
        let faults = id.map(|id| &self.cache.blocks[id as usize].faults);
        let site = faults.and_then(|faults| faults.iter().find(|site| site.host == host));
        site.map_or(0, |site| u32::from(site.index))
    }

    /// Interprets the instruction at RIP, which translated code could not go on with, if there is
    /// time for it.
    pub(super) fn interpret_if_allowed(&mut self) -> Next {
        if self.is_due() {
            return Next::Continue;
        }
        self.interpret()
    }

    /// Whether instructions are counted and the next one must be the interpreter's.
    pub(super) fn must_step(&self) -> bool {
        self.cpu().interrupt_shadow && self.counted().is_some()
    }
}
