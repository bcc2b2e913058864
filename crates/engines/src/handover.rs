//! A processor of one engine, with `bt` for the instructions that it can't execute.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_bt::BtVcpu;
use ringfence_engine::{
    Debugging, EngineError, Exit, Kick, ProcessorState, ProfileReport, Registers, SystemRegisters,
    Vcpu,
};
use ringfence_x86::cr;

/// A failure that soon after the last one is taken for a sign of more to come.
const SOON: Duration = Duration::from_micros(500);
/// Most instructions that are executed before the other engine is tried again.
const LONGEST_BURST: u32 = 4096;
/// Where the kernel's local APICs and its I/O APIC are, which only it can reach.
const CHIPS: std::ops::Range<u64> = 0xfec0_0000..0xfef0_0000;

/// Components of XCR0 that `bt` has.
const HELPED: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX | cr::XCR0_AVX512;

/// Makes the processor that helps.
type Maker = Box<dyn FnMut() -> Result<BtVcpu, EngineError> + Send>;

/// A processor of another engine, which `bt` helps.
pub struct Handover {
    main: Box<dyn Vcpu>,
    make: Maker,
    helper: Option<BtVcpu>,
    /// The chips are the kernel's.
    kernel_chips: bool,
    /// Instructions that the helper is still to execute; `None`: the main engine is at work.
    left: Option<u32>,
    burst: u32,
    /// Components of XCR0 that the helper knows nothing of.
    beyond: u64,
    /// What the main engine could not execute, and why.
    refused: (String, String),
    last: Option<Instant>,
    handovers: u64,
    instructions: u64,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover")
            .field("main", &self.main)
            .field("left", &self.left)
            .field("handovers", &self.handovers)
            .finish_non_exhaustive()
    }
}

impl Handover {
    /// Processor `main`; `make` makes a processor of the same number, model, memory and devices,
    /// when it is needed. With `kernel_chips`, the interrupt hardware is out of its reach.
    pub fn new(
        main: Box<dyn Vcpu>,
        kernel_chips: bool,
        make: impl FnMut() -> Result<BtVcpu, EngineError> + Send + 'static,
    ) -> Self {
        Self {
            main,
            make: Box::new(make),
            helper: None,
            kernel_chips,
            left: None,
            burst: 1,
            beyond: 0,
            refused: Default::default(),
            last: None,
            handovers: 0,
            instructions: 0,
        }
    }

    fn failed(&self, why: &str) -> EngineError {
        let (instruction, reason) = self.refused.clone();
        EngineError::Emulation {
            instruction,
            reason: format!("{reason}; bt can't either: {why}"),
        }
    }

    /// Takes the processor over from the main engine, which could not go on.
    fn take_over(&mut self, instruction: String, reason: String) -> Result<(), EngineError> {
        self.refused = (instruction, reason);
        let soon = self.last.is_some_and(|last| last.elapsed() < SOON);
        self.burst = if soon {
            (self.burst * 2).min(LONGEST_BURST)
        } else {
            1
        };
        let mut state = self.main.state()?;
        self.beyond = state.xcr0 & !HELPED;
        state.xcr0 &= HELPED;
        if self.helper.is_none() {
            let made = (self.make)().map_err(|error| self.failed(&error.to_string()))?;
            self.helper = Some(made);
        }
        let Some(helper) = &mut self.helper else {
            return Err(self.failed("it can't be made"));
        };
        let taken = helper.set_state(&state);
        let known = taken.is_err() || helper.has_next_instruction(self.beyond != 0);
        if let Err(error) = taken {
            return Err(self.failed(&error.to_string()));
        }
        if !known {
            return Err(self.failed("it has no such instruction"));
        }
        self.handovers += 1;
        self.left = Some(self.burst);
        Ok(())
    }

    /// Executes instructions with the helper; an exit that is the machine's to answer, or `None`
    /// when the main engine is to go on.
    fn help(&mut self, mut completion: u64) -> Result<Option<Exit>, EngineError> {
        let Some(mut helper) = self.helper.take() else {
            return Ok(None);
        };
        let result = loop {
            match helper.step(completion) {
                Ok(None) => {}
                Ok(Some(Exit::MmioRead { address, .. } | Exit::MmioWrite { address, .. }))
                    if self.kernel_chips && CHIPS.contains(&address) =>
                {
                    let why = format!("it reaches for the kernel's chip at {address:#x}");
                    break Err(self.failed(&why));
                }
                Ok(Some(exit)) => break Ok(Some(exit)),
                Err(error) => break Err(error),
            }
            completion = 0;
            self.instructions += 1;
            let left = self.left.unwrap_or(1).saturating_sub(1);
            self.left = Some(left);
            let goes_on = left > 0 && helper.has_next_instruction(self.beyond != 0);
            let state = if !goes_on || helper.is_halted() {
                helper.state()
            } else {
                continue;
            };
            break state.and_then(|mut state| {
                state.xcr0 |= self.beyond;
                self.left = None;
                self.last = Some(Instant::now());
                self.main.set_state(&state).map(|()| None)
            });
        };
        self.helper = Some(helper);
        result
    }
}

impl Vcpu for Handover {
    fn run(&mut self, mut completion: u64) -> Result<Exit, EngineError> {
        loop {
            if self.left.is_some() {
                if let Some(exit) = self.help(completion)? {
                    return Ok(exit);
                }
                completion = 0;
            }
            match self.main.run(completion) {
                Err(EngineError::Emulation {
                    instruction,
                    reason,
                }) => self.take_over(instruction, reason)?,
                other => return other,
            }
            completion = 0;
        }
    }

    fn answer_string(&mut self, data: &[u8]) {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.answer_string(data),
            _ => self.main.answer_string(data),
        }
    }

    fn start_profile(&mut self, hertz: u32) -> Result<(), EngineError> {
        self.main.start_profile(hertz)
    }

    fn profile(&self, most: usize) -> ProfileReport {
        self.main.profile(most)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.main.kicker()
    }

    fn registers(&self) -> Registers {
        match (&self.left, &self.helper) {
            (Some(_), Some(helper)) => helper.registers(),
            _ => self.main.registers(),
        }
    }

    fn set_registers(&mut self, registers: &Registers) {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.set_registers(registers),
            _ => self.main.set_registers(registers),
        }
    }

    fn system_registers(&self) -> SystemRegisters {
        match (&self.left, &self.helper) {
            (Some(_), Some(helper)) => helper.system_registers(),
            _ => self.main.system_registers(),
        }
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.set_system_registers(registers),
            _ => self.main.set_system_registers(registers),
        }
    }

    fn xsave(&self) -> Vec<u8> {
        match (&self.left, &self.helper) {
            (Some(_), Some(helper)) => helper.xsave(),
            _ => self.main.xsave(),
        }
    }

    fn set_xsave(&mut self, image: &[u8]) -> Result<(), EngineError> {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.set_xsave(image),
            _ => self.main.set_xsave(image),
        }
    }

    fn state(&mut self) -> Result<ProcessorState, EngineError> {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.state(),
            _ => self.main.state(),
        }
    }

    fn set_state(&mut self, state: &ProcessorState) -> Result<(), EngineError> {
        self.left = None;
        self.main.set_state(state)
    }

    fn set_debugging(&mut self, debugging: &Debugging) -> Result<(), EngineError> {
        self.main.set_debugging(debugging)
    }

    fn objection(&self, registers: &SystemRegisters) -> Option<&'static str> {
        self.main.objection(registers)
    }

    fn recent_code(&mut self) -> Vec<String> {
        match (&self.left, &mut self.helper) {
            (Some(_), Some(helper)) => helper.recent_code(),
            _ => self.main.recent_code(),
        }
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let mut statistics = self.main.statistics();
        statistics.push(("handovers", self.handovers));
        statistics.push(("handover_instructions", self.instructions));
        statistics
    }
}
