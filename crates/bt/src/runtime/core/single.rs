//! One instruction at a time: for a debugger, and for an engine that asks this one to help.

use ringfence_engine::{EngineError, Exit, Injected, InjectedKind};

use super::gs::set_gs_base;
use super::{Core, Incomplete, Next, Running};
use crate::env::Exception;
use crate::interp::step;
use crate::interp::system::{Delivery, deliver_exception};

impl Core {
    /// Executes one instruction, or what of it is left to do, without looking at interrupts;
    /// `None` when it has retired.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for a defect of the engine.
    pub fn step(&mut self, completion: u64) -> Result<Option<Exit>, EngineError> {
        let context = self.context();
        context.owner = std::ptr::from_mut(self) as u64;
        set_gs_base(context.this);
        if let Some(exit) = self.answering.take() {
            self.world.complete(exit, completion);
        }
        let running = Running::new(&self.mailbox);
        self.answer_requests();
        let exit = if self.incomplete.is_some() {
            self.complete()
        } else {
            match self.interpret() {
                Next::Leave(exit) => Some(exit),
                Next::Continue | Next::Enter(_) => None,
            }
        };
        drop(running);
        Ok(exit.map(|exit| self.leave(exit)))
    }

    /// Does the rest of what waited for the machine's answer, or what comes before all else.
    pub(super) fn complete(&mut self) -> Option<Exit> {
        match self.incomplete.take()? {
            Incomplete::Instruction => {
                self.world.begin_instruction();
                let result = step(self.cpu(), &mut self.world);
                self.after_step(result)
            }
            Incomplete::Interrupt(vector) => self.interrupt(vector),
            Incomplete::Nmi => self.nmi(),
            Incomplete::Exception(exception) => self.exception(exception),
        }
    }

    /// Whether an instruction waits for the machine's answer.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.is_some()
    }

    /// Whether the machine has to bring a value before the instruction can go on.
    pub fn waits_for_answer(&self) -> bool {
        matches!(
            self.answering,
            Some(Exit::PortIn { .. } | Exit::PortInString { .. } | Exit::MmioRead { .. })
        )
    }

    /// Forgets what was half done, and has `injected` delivered first.
    pub fn begin_with(&mut self, injected: Option<Injected>) {
        self.answering = None;
        self.incomplete = injected.map(|event| match event.kind {
            InjectedKind::Interrupt => Incomplete::Interrupt(event.vector),
            InjectedKind::Nmi => Incomplete::Nmi,
            InjectedKind::Exception => Incomplete::Exception(Exception {
                vector: event.vector,
                error_code: event.error_code,
                address: None,
            }),
        });
    }

    /// Goes on one instruction after the other, for a debugger.
    pub(super) fn debug(&mut self) -> Result<Exit, EngineError> {
        let mut first = true;
        loop {
            if let Some(exit) = self.prepare()? {
                return Ok(self.leave(exit));
            }
            let cpu = self.cpu();
            let waits = cpu.halted || self.world.devices.waits_for_startup(self.id);
            let address = cpu.code_address();
            if !waits && !first && self.debugging.breakpoints.contains(&Some(address)) {
                return Ok(Exit::Debug { address });
            }
            first = false;
            let next = if waits {
                self.dispatch()?
            } else {
                self.interpret()
            };
            if let Next::Leave(exit) = next {
                return Ok(self.leave(exit));
            }
            if self.debugging.single_step && !waits {
                let address = self.cpu().code_address();
                return Ok(Exit::Debug { address });
            }
        }
    }

    pub(super) fn exception(&mut self, exception: Exception) -> Option<Exit> {
        self.world.begin_instruction();
        match deliver_exception(self.cpu(), &mut self.world, exception) {
            Delivery::Done => self.retired(),
            Delivery::Exit(exit) => {
                self.incomplete = Some(Incomplete::Exception(exception));
                return Some(exit);
            }
            Delivery::Shutdown => return Some(Exit::Shutdown),
        }
        None
    }
}
