//! The engine contract on top of the dispatcher.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions};
use ringfence_engine::{
    Clock, EngineError, Exit, GuestMemory, Kick, LocalDevices, Registers, SystemRegisters, Vcpu,
};
use ringfence_x86::{cr, flags, msr};

use crate::cpu::{SS, XSAVE_SIZE};
use crate::interp::system::cpuid::{CpuidModel, Feature};
use crate::report::{self, ProfileReport};
use crate::runtime::core::Core;

/// Instructions disassembled around RIP for error messages.
const CONTEXT_BYTES: usize = 15;

/// A virtual processor of the binary-translation engine.
#[derive(Debug)]
pub struct BtVcpu {
    core: Box<Core>,
    id: u32,
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
        })
    }

    /// Why a processor of this model can't have these registers, when it can't.
    pub fn objection(&self, registers: &SystemRegisters) -> Option<&'static str> {
        let long = registers.efer & (cr::EFER_LME | cr::EFER_LMA) != 0;
        let lacks = long && !self.core.world.cpuid.features().has(Feature::LM);
        lacks.then_some("the CPU model has no 64-bit mode (feature lm), which the guest needs")
    }

    /// Disassembly of the instructions that last left translated code, newest last.
    pub fn recent_code(&mut self) -> Vec<String> {
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

    /// Counts `hertz` times per second of processor time what it goes into; 0 stops.
    pub fn start_profile(&mut self, hertz: u32) {
        let cache = self.core.cache.range();
        self.core.profiler.start(hertz, cache);
    }

    /// What was counted since, with listings of the `most` hottest blocks.
    pub fn profile(&self, most: usize) -> ProfileReport {
        report::profile(&self.core, most)
    }
}

impl Vcpu for BtVcpu {
    fn run(&mut self, completion: u64) -> Result<Exit, EngineError> {
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
        self.core.cpu().xsave.0.to_vec()
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
