//! The engine contract on top of the dispatcher.

use std::sync::Arc;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions};
use ringfence_engine::{
    Activity, Clock, Debugging, EngineError, Exit, GuestMemory, Kick, LocalDevices, ProcessorState,
    ProfileReport, Registers, SystemRegisters, Vcpu,
};
use ringfence_x86::{cr, flags, msr};

use crate::cpu::{SS, XSAVE_SIZE};
use crate::interp::system::cpuid::{Availability, CpuidModel, Feature};
use crate::interp::system::xsave;
use crate::report;
use crate::runtime::core::Core;
use crate::state;

/// Instructions disassembled around RIP for error messages.
const CONTEXT_BYTES: usize = 15;

/// A virtual processor of the binary-translation engine.
#[derive(Debug)]
pub struct BtVcpu {
    core: Box<Core>,
    id: u32,
    /// An exit that came while an instruction was completed for [`Vcpu::state`].
    kept: Option<Exit>,
}

impl BtVcpu {
    /// Processor `id` of a machine with `vcpus` processors of the host's model, in its state after
    /// power-up.
    ///
    /// # Errors
    /// [`EngineError`] when the host refuses memory or lacks an instruction set extension.
    pub fn new(
        id: u32,
        vcpus: u32,
        memory: Arc<GuestMemory>,
        devices: Arc<dyn LocalDevices>,
        clock: Arc<Clock>,
    ) -> Result<Self, EngineError> {
        let model = Arc::new(CpuidModel::new(vcpus, clock.tsc_hz()));
        Self::with_model(id, model, memory, devices, clock)
    }

    /// Processor `id` of a machine whose processors are all of `model`.
    ///
    /// # Errors
    /// [`EngineError`] when the host refuses memory or lacks an instruction set extension.
    pub fn with_model(
        id: u32,
        model: Arc<CpuidModel>,
        memory: Arc<GuestMemory>,
        devices: Arc<dyn LocalDevices>,
        clock: Arc<Clock>,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            core: Core::new(id, model, memory, devices, clock)?,
            id,
            kept: None,
        })
    }

    /// Whether this engine has the instruction at RIP, as far as it can be fetched. For a
    /// processor of [`CpuidModel::on_behalf`], which has others too. With `wide`, it has extended
    /// state of which this engine knows nothing, and which XSAVE and its like would miss.
    pub fn has_next_instruction(&mut self, wide: bool) -> bool {
        let cpu = self.core.cpu();
        let mut bytes = [0; CONTEXT_BYTES];
        let Some(count) = self.core.world.peek(cpu, cpu.code_address(), &mut bytes) else {
            return true;
        };
        let options = DecoderOptions::NONE;
        let mut decoder = Decoder::with_ip(cpu.bitness(), &bytes[..count], cpu.rip, options);
        let instruction = decoder.decode();
        let saves = instruction.cpuid_features().contains(&CpuidFeature::XSAVE);
        let present = self.core.world.cpuid.availability(instruction.code());
        present != Availability::Absent && !(saves && wide)
    }

    /// Whether the processor waits in `HLT`.
    pub fn is_halted(&self) -> bool {
        self.core.cpu().halted
    }

    /// Executes one instruction by interpretation, or what of it is left to do, without looking at
    /// interrupts: for an engine that can't. `None` when it has retired; after an exit, the next
    /// call completes it as [`Vcpu::run`] does.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for a defect of the engine.
    pub fn step(&mut self, completion: u64) -> Result<Option<Exit>, EngineError> {
        self.core.step(completion)
    }
}

impl Vcpu for BtVcpu {
    fn set_interpreter(&mut self, interpreter: bool) {
        self.core.interpreter = interpreter;
    }

    fn run(&mut self, completion: u64) -> Result<Exit, EngineError> {
        if let Some(exit) = self.kept.take() {
            return Ok(exit);
        }
        self.core.run(completion)
    }

    fn answer_string(&mut self, data: &[u8]) {
        self.core.world.answer_string(data);
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::clone(self.core.kicker()) as Arc<dyn Kick>
    }

    fn registers(&self) -> Registers {
        let cpu = self.core.cpu();
        Registers {
            gpr: cpu.gpr,
            rip: cpu.rip,
            rflags: cpu.rflags,
        }
    }

    fn set_registers(&mut self, registers: &Registers) {
        let cpu = self.core.cpu();
        cpu.gpr = registers.gpr;
        cpu.rip = registers.rip;
        cpu.rflags = registers.rflags | flags::FIXED;
    }

    fn system_registers(&self) -> SystemRegisters {
        let cpu = self.core.cpu();
        let devices = &self.core.world.devices;
        let apic_base = devices.read_msr(self.id, msr::IA32_APIC_BASE);
        SystemRegisters {
            segments: cpu.seg,
            ldtr: cpu.ldtr,
            tr: cpu.tr,
            gdtr: cpu.gdtr,
            idtr: cpu.idtr,
            cr0: cpu.cr0,
            cr2: cpu.cr2,
            cr3: cpu.cr3,
            cr4: cpu.cr4,
            cr8: devices.task_priority(self.id),
            efer: cpu.efer,
            apic_base: apic_base.and_then(Result::ok).unwrap_or(0),
        }
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) {
        let cpu = self.core.cpu();
        cpu.seg = registers.segments;
        cpu.ldtr = registers.ldtr;
        cpu.tr = registers.tr;
        cpu.gdtr = registers.gdtr;
        cpu.idtr = registers.idtr;
        cpu.cr0 = registers.cr0 | cr::CR0_ET;
        cpu.cr2 = registers.cr2;
        cpu.cr3 = registers.cr3;
        cpu.cr4 = registers.cr4;
        cpu.efer = registers.efer;
        cpu.cpl = if cpu.virtual8086() {
            3
        } else if cpu.real_mode() {
            0
        } else {
            cpu.seg[SS].attributes.dpl()
        };
        let devices = &self.core.world.devices;
        devices.set_task_priority(self.id, registers.cr8);
        if registers.apic_base != 0 {
            // An invalid base keeps the old one, as WRMSR would.
            let _ = devices.write_msr(self.id, msr::IA32_APIC_BASE, registers.apic_base);
        }
        self.core.drop_everything();
    }

    fn xsave(&self) -> Vec<u8> {
        xsave::image(self.core.cpu())
    }

    fn set_xsave(&mut self, image: &[u8]) -> Result<(), EngineError> {
        let bad = |why: &str| Err(EngineError::BadState(format!("XSAVE image: {why}")));
        if image.len() < 576 || image.len() > XSAVE_SIZE {
            return bad("its size is not between 576 and 4096 bytes");
        }
        if image[520..576].iter().any(|&byte| byte != 0) {
            return bad("it is not in standard format, or reserved header bytes are set");
        }
        let area = &mut self.core.cpu().xsave.0;
        area.fill(0);
        area[..image.len()].copy_from_slice(image);
        Ok(())
    }

    fn state(&mut self) -> Result<ProcessorState, EngineError> {
        self.kept = match self.kept.take() {
            None if self.core.is_incomplete() && !self.core.waits_for_answer() => {
                self.core.step(0)?
            }
            kept => kept,
        };
        if self.core.is_incomplete() {
            let what = "an instruction waits for a device";
            return Err(EngineError::BadState(what.to_owned()));
        }
        let mut state = ProcessorState {
            registers: self.registers(),
            system: self.system_registers(),
            xsave: self.xsave(),
            ..state::of(self.core.cpu())
        };
        state.events.nmi_pending = self.core.nmi_pending;
        if self.core.world.devices.waits_for_startup(self.id) {
            state.activity = Activity::WaitingForStartup;
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &ProcessorState) -> Result<(), EngineError> {
        if let Some(why) = self.objection(&state.system) {
            return Err(EngineError::BadState(why.to_owned()));
        }
        let beyond = state.xcr0 & !(self.core.world.cpuid.xcr0() | cr::XCR0_X87);
        if beyond != 0 {
            let what = format!("the CPU model has not the components {beyond:#x} of XCR0");
            return Err(EngineError::BadState(what));
        }
        self.set_xsave(&state.xsave)?;
        self.set_registers(&state.registers);
        state::set(self.core.cpu(), state);
        self.set_system_registers(&state.system);
        self.kept = None;
        self.core.nmi_pending = state.events.nmi_pending;
        self.core.begin_with(state.events.injected);
        Ok(())
    }

    fn set_debugging(&mut self, debugging: &Debugging) -> Result<(), EngineError> {
        self.core.debugging = *debugging;
        Ok(())
    }

    fn objection(&self, registers: &SystemRegisters) -> Option<&'static str> {
        let long = registers.efer & (cr::EFER_LME | cr::EFER_LMA) != 0;
        let lacks = long && !self.core.world.cpuid.features().has(Feature::LM);
        lacks.then_some("the CPU model has no 64-bit mode (feature lm), which the guest needs")
    }

    fn recent_code(&mut self) -> Vec<String> {
        let mut addresses: Vec<u64> = self.core.recent().collect();
        let cpu = self.core.cpu();
        if addresses.last() != Some(&cpu.rip) {
            addresses.push(cpu.rip);
        }
        let mut lines = Vec::new();
        for rip in addresses {
            let mut bytes = [0; CONTEXT_BYTES];
            let base = if cpu.mode64() {
                0
            } else {
                cpu.seg[crate::cpu::CS].base
            };
            let linear = base.wrapping_add(rip);
            let Some(count) = self.core.world.peek(cpu, linear, &mut bytes) else {
                lines.push(format!("{rip:016x}  (not mapped)"));
                continue;
            };
            let bits = cpu.bitness();
            let mut decoder = Decoder::with_ip(bits, &bytes[..count], rip, DecoderOptions::NONE);
            lines.push(report::line(&decoder.decode(), &bytes));
        }
        lines
    }

    fn start_profile(&mut self, hertz: u32) -> Result<(), EngineError> {
        let cache = self.core.cache.range();
        self.core.profiler.start(hertz, cache);
        Ok(())
    }

    fn profile(&self, most: usize) -> ProfileReport {
        report::profile(&self.core, most)
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let s = &self.core.statistics;
        vec![
            ("blocks", s.blocks),
            ("code_bytes", self.core.cache.used() as u64),
            ("interpreted_system", s.system),
            ("interpreted_memory", s.memory),
            ("interpreted_faults", s.faults),
            ("interpreted_modes", s.interpreted),
            ("tlb_misses", s.tlb_misses),
            ("target_misses", s.target_misses),
            ("branches_resolved", s.branches),
            ("interrupts", s.interrupts),
            ("code_writes", s.code_writes),
            ("cache_resets", s.resets),
            ("tlb_flushes", s.flushes),
            ("halts", s.halts),
            ("device_accesses", self.core.world.device_accesses),
        ]
    }
}
