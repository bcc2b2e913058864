//! A virtual processor: KVM_RUN and what comes of it.

use std::fmt::Write as _;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug,
    kvm_regs, kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use ringfence_engine::{
    Activity, Clock, Debugging, EngineError, Exit, Kick, LocalDevices, ProcessorState,
    ProfileReport, Registers, SystemRegisters, Vcpu, VcpuEvent,
};
use ringfence_x86::cpuid::{Feature, Model};
use ringfence_x86::{cr, flags, msr};

use crate::host::Host;
use crate::kick::{ImmediateExit, Kicker, signal};
use crate::machine::{Chips, Shared, refused};
use crate::run_page::{PortAccess, Reason, RunPage};
use crate::state::{self, Sets};
use crate::{cpuid, raw, registers};

/// Longest instruction in bytes.
const LONGEST: usize = 15;

/// Exits by kind.
#[derive(Clone, Copy, Debug, Default)]
struct Statistics {
    runs: u64,
    ports: u64,
    mmio: u64,
    halts: u64,
    interrupts: u64,
    signals: u64,
    local: u64,
    failures: u64,
}

/// What the next call of `run` completes.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
    Ports(PortAccess),
    Strings(PortAccess),
    Load,
}

/// A virtual processor of KVM.
#[derive(Debug)]
pub struct KvmVcpu {
    fd: VcpuFd,
    id: u32,
    shared: Arc<Shared>,
    devices: Arc<dyn LocalDevices>,
    kicker: Arc<Kicker>,
    pending: Pending,
    /// KVM_RUN has to be called to complete an instruction.
    incomplete: bool,
    sets: Sets,
    /// The state after power-up, for INIT.
    power_up: (kvm_regs, kvm_sregs),
    long_mode: bool,
    debugging: Debugging,
    /// An exit that came while an instruction was completed for [`Vcpu::state`].
    kept: Option<Exit>,
    statistics: Statistics,
    // What follows is in use where the kernel has no chips.
    halted: bool,
    nmi_waits: bool,
    apic_base: u64,
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kicker.forget();
    }
}

impl KvmVcpu {
    pub(crate) fn new(
        host: &Host,
        shared: Arc<Shared>,
        devices: Arc<dyn LocalDevices>,
        id: u32,
        model: &Model,
        clock: &Clock,
    ) -> Result<Self, EngineError> {
        signal();
        let mut fd = shared
            .vm
            .create_vcpu(id.into())
            .map_err(refused("a processor of KVM"))?;
        fd.set_cpuid2(&cpuid::entries(model, id)?)
            .map_err(refused("the CPU model to KVM"))?;
        // Best effort: a KVM that can't set it has a TSC of its own making.
        state::write_msr(&fd, msr::IA32_TSC, clock.tsc());
        let page = fd.get_kvm_run();
        // SAFETY: the page is mapped as long as `fd` lives; `drop` makes the kicker forget it.
        let byte = unsafe { ImmediateExit::new(&raw mut page.immediate_exit) };
        let sets = Sets::of(host, &fd);
        let power_up = (
            fd.get_regs().map_err(refused("general registers"))?,
            fd.get_sregs().map_err(refused("system registers"))?,
        );
        let kicker = Arc::new(Kicker::new(byte));
        shared.slots.add(&kicker);
        Ok(Self {
            kicker,
            apic_base: power_up.1.apic_base,
            fd,
            id,
            shared,
            devices,
            pending: Pending::Nothing,
            incomplete: false,
            sets,
            power_up,
            long_mode: model.features().has(Feature::LM),
            debugging: Debugging::default(),
            kept: None,
            statistics: Statistics::default(),
            halted: false,
            nmi_waits: false,
        })
    }

    fn own_chips(&self) -> bool {
        self.shared.chips == Chips::Own
    }

    /// Brings the answer of the machine to the kernel; an exit if there is one more to answer
    /// before the processor can go on.
    fn complete(&mut self, completion: u64) -> Option<Exit> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Load => {
                RunPage(self.fd.get_kvm_run()).load(completion);
                None
            }
            Pending::Ports(access) => {
                if access.input {
                    RunPage(self.fd.get_kvm_run()).input(&access, completion as u32);
                }
                self.ports(access.rest()?)
            }
            // The bytes came by `answer_string`, or went with the exit.
            Pending::Strings(_) => None,
        }
    }

    /// Goes through the elements of a port access, up to one that the machine has to answer.
    fn ports(&mut self, mut access: PortAccess) -> Option<Exit> {
        loop {
            let (port, size) = (access.port, access.size);
            let mut page = RunPage(self.fd.get_kvm_run());
            if access.input {
                let Some(value) = self.devices.port_read(self.id, port, size) else {
                    if access.count > 1 {
                        page.fill(&access);
                        self.pending = Pending::Strings(access);
                        let count = access.count as u16;
                        return Some(Exit::PortInString { port, size, count });
                    }
                    self.pending = Pending::Ports(access);
                    return Some(Exit::PortIn { port, size });
                };
                page.input(&access, value);
            } else {
                let value = page.output(&access);
                if !self.devices.port_write(self.id, port, size, value) {
                    if access.count > 1 {
                        let data = page.outputs(&access);
                        self.pending = Pending::Strings(access);
                        return Some(Exit::PortOutString { port, size, data });
                    }
                    self.pending = Pending::Ports(access);
                    return Some(Exit::PortOut { port, size, value });
                }
            }
            self.statistics.local += 1;
            access = access.rest()?;
        }
    }

    fn run_until_exit(&mut self) -> Result<Exit, EngineError> {
        loop {
            if self.own_chips() && !self.incomplete && !self.prepare()? {
                // Waits for an interrupt, or for its start.
                self.kicker.wait();
                self.kicker.answer();
                if self.kicker.take_interrupt() {
                    return Ok(Exit::Interrupted);
                }
                continue;
            }
            let Some(inside) = self.shared.slots.enter() else {
                continue;
            };
            self.statistics.runs += 1;
            self.incomplete = false;
            let result = self.fd.run().map(|_| ());
            drop(inside);
            if self.own_chips() {
                self.look_at_apic();
            }
            if let Err(error) = result {
                match error.errno() {
                    libc::EINTR | libc::EAGAIN => {
                        self.statistics.signals += 1;
                        self.kicker.answer();
                        if self.kicker.take_interrupt() {
                            return Ok(Exit::Interrupted);
                        }
                        continue;
                    }
                    _ => return Err(refused("to run the processor")(error)),
                }
            }
            if let Some(exit) = self.after_run()? {
                return Ok(exit);
            }
        }
    }

    /// Goes on where a breakpoint may be, which is not to stop the processor once more.
    fn run_past_breakpoint(&mut self) -> Result<Exit, EngineError> {
        let wanted = self.debugging;
        if !self.at_breakpoint(&wanted) {
            return self.run_until_exit();
        }
        let step = Debugging {
            single_step: true,
            ..Debugging::default()
        };
        self.debug(&step)?;
        let result = self.run_until_exit();
        self.debug(&wanted)?;
        match result {
            Ok(Exit::Debug { .. }) if !wanted.single_step && !self.at_breakpoint(&wanted) => {
                self.run_until_exit()
            }
            result => result,
        }
    }

    fn at_breakpoint(&self, debugging: &Debugging) -> bool {
        let system = self.system_registers();
        let long = system.efer & cr::EFER_LMA != 0 && system.segments[1].attributes.long();
        let rip = self.registers().rip;
        let address = if long {
            rip
        } else {
            system.segments[1].base.wrapping_add(rip) & 0xffff_ffff
        };
        debugging.breakpoints.contains(&Some(address))
    }

    fn debug(&self, debugging: &Debugging) -> Result<(), EngineError> {
        let mut argument = kvm_guest_debug::default();
        if *debugging != Debugging::default() {
            argument.control = KVM_GUESTDBG_ENABLE;
        }
        if debugging.single_step {
            argument.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        for (index, address) in debugging.breakpoints.iter().enumerate() {
            if let Some(address) = address {
                argument.control |= KVM_GUESTDBG_USE_HW_BP;
                argument.arch.debugreg[index] = *address;
                // Globally enabled, execution, one byte (SDM vol. 3B, 17.2.4).
                argument.arch.debugreg[7] |= 2 << (index * 2);
            }
        }
        self.fd
            .set_guest_debug(&argument)
            .map_err(refused("debugging of the guest"))
    }

    /// What KVM_RUN has returned for: an exit, or `None` when this engine has dealt with it.
    fn after_run(&mut self) -> Result<Option<Exit>, EngineError> {
        let own = self.own_chips();
        Ok(match RunPage(self.fd.get_kvm_run()).reason() {
            Reason::Ports(access) => {
                self.statistics.ports += 1;
                self.incomplete = true;
                self.ports(access)
            }
            Reason::MmioRead { address, size } => {
                self.statistics.mmio += 1;
                self.incomplete = true;
                if let Some(value) = self.devices.mmio_read(self.id, address, size) {
                    self.statistics.local += 1;
                    RunPage(self.fd.get_kvm_run()).load(value);
                    return Ok(None);
                }
                self.pending = Pending::Load;
                Some(Exit::MmioRead { address, size })
            }
            Reason::MmioWrite {
                address,
                size,
                value,
            } => {
                self.statistics.mmio += 1;
                self.incomplete = true;
                if self.devices.mmio_write(self.id, address, size, value) {
                    self.statistics.local += 1;
                    return Ok(None);
                }
                Some(Exit::MmioWrite {
                    address,
                    size,
                    value,
                })
            }
            Reason::Halt if own => {
                self.statistics.halts += 1;
                self.halted = true;
                None
            }
            Reason::Halt => Some(Exit::Halt),
            Reason::Shutdown => Some(Exit::Shutdown),
            Reason::Debug { address } => Some(Exit::Debug { address }),
            Reason::Again => None,
            Reason::Failure(why) => {
                self.statistics.failures += 1;
                return Err(self.stuck(format!("KVM says that {why}")));
            }
            Reason::EntryFailure(code) => {
                self.statistics.failures += 1;
                return Err(self.stuck(format!("the processor refuses its state ({code:#x})")));
            }
            Reason::Unknown(reason) => {
                let what = format!("KVM stopped for reason {reason}, which nobody asked for");
                return Err(EngineError::Internal(what));
            }
        })
    }

    fn stuck(&mut self, reason: String) -> EngineError {
        EngineError::Emulation {
            instruction: self.recent_code().pop().unwrap_or_default(),
            reason,
        }
    }

    /// Takes over what the guest did to its local APIC without an exit: CR8, IA32_APIC_BASE.
    fn look_at_apic(&mut self) {
        let page = self.fd.get_kvm_run();
        let (cr8, base) = (page.cr8, page.apic_base);
        if cr8 != self.devices.task_priority(self.id) {
            self.devices.set_task_priority(self.id, cr8);
        }
        if base != self.apic_base {
            self.apic_base = base;
            // A base that is not valid keeps the old one, as WRMSR would.
            let _ = self.devices.write_msr(self.id, msr::IA32_APIC_BASE, base);
        }
    }

    /// Looks at events and interrupts of chips that are not the kernel's; whether the processor
    /// may run.
    fn prepare(&mut self) -> Result<bool, EngineError> {
        while let Some(event) = self.devices.take_event(self.id) {
            match event {
                VcpuEvent::Init => self.init()?,
                VcpuEvent::Startup(vector) => self.startup(vector)?,
                // The host's KVM need not have the mode: SMI# is not wired.
                VcpuEvent::Smi => {}
                VcpuEvent::Nmi => self.nmi_waits = true,
            }
        }
        if self.devices.waits_for_startup(self.id) {
            return Ok(false);
        }
        if std::mem::take(&mut self.nmi_waits) {
            self.halted = false;
            self.fd.nmi().map_err(refused("an NMI"))?;
        }
        let waits = self.devices.interrupt_pending(self.id);
        if self.halted {
            let enabled = self.fd.get_kvm_run().if_flag != 0;
            if !waits || !enabled {
                return Ok(false);
            }
            self.halted = false;
        }
        let page = self.fd.get_kvm_run();
        page.request_interrupt_window = 0;
        if waits {
            if page.ready_for_interrupt_injection == 0 {
                page.request_interrupt_window = 1;
            } else if let Some(vector) = self.devices.acknowledge_interrupt(self.id) {
                self.statistics.interrupts += 1;
                page.ready_for_interrupt_injection = 0;
                raw::interrupt(&self.fd, vector).map_err(|source| EngineError::Host {
                    what: "an interrupt",
                    source,
                })?;
                if self.devices.interrupt_pending(self.id) {
                    self.fd.get_kvm_run().request_interrupt_window = 1;
                }
            }
        }
        self.fd.get_kvm_run().cr8 = self.devices.task_priority(self.id);
        Ok(true)
    }

    /// INIT (SDM vol. 3A, table 9-1): x87 and SSE state and MSRs stay.
    fn init(&mut self) -> Result<(), EngineError> {
        let (regs, mut sregs) = self.power_up;
        let old = self.fd.get_sregs().map_err(refused("system registers"))?;
        let kept = cr::CR0_CD | cr::CR0_NW;
        sregs.cr0 = sregs.cr0 & !kept | old.cr0 & kept;
        sregs.apic_base = old.apic_base;
        self.fd
            .set_sregs(&sregs)
            .and_then(|()| self.fd.set_regs(&regs))
            .map_err(refused("a processor's reset"))?;
        self.halted = false;
        Ok(())
    }

    /// A start-up IPI: real mode at `vector << 12`.
    fn startup(&mut self, vector: u8) -> Result<(), EngineError> {
        let mut sregs = self.fd.get_sregs().map_err(refused("system registers"))?;
        sregs.cs.selector = u16::from(vector) << 8;
        sregs.cs.base = u64::from(vector) << 12;
        let regs = kvm_regs {
            rip: 0,
            ..self.power_up.0
        };
        self.halted = false;
        self.fd
            .set_sregs(&sregs)
            .and_then(|()| self.fd.set_regs(&regs))
            .map_err(refused("a processor's start"))
    }

    /// Has KVM complete an instruction whose exit was answered, without going on.
    fn settle(&mut self) -> Result<(), EngineError> {
        if self.kept.is_some() {
            let what = "an instruction waits for a device".to_owned();
            return Err(EngineError::BadState(what));
        }
        match self.pending {
            Pending::Ports(access) if access.input => {
                let what = "an instruction waits for a device".to_owned();
                return Err(EngineError::BadState(what));
            }
            Pending::Strings(access) if access.input => {
                let what = "an instruction waits for a device".to_owned();
                return Err(EngineError::BadState(what));
            }
            Pending::Load => {
                let what = "an instruction waits for a device".to_owned();
                return Err(EngineError::BadState(what));
            }
            Pending::Ports(_) | Pending::Strings(_) | Pending::Nothing => {
                self.pending = Pending::Nothing
            }
        }
        if std::mem::take(&mut self.incomplete) {
            self.kicker.hold();
            let result = self.fd.run().map(|_| ());
            match result {
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(refused("to complete an instruction")(error)),
                // One instruction may make several accesses.
                Ok(()) => {
                    self.kept = self.after_run()?;
                    if self.kept.is_some() {
                        let what = "an instruction waits for a device".to_owned();
                        return Err(EngineError::BadState(what));
                    }
                }
            }
            self.kicker.answer();
        }
        Ok(())
    }

    /// What the processor does, where the kernel does not know.
    fn activity(&self) -> Option<Activity> {
        (self.shared.chips != Chips::Kernel).then(|| {
            if self.devices.waits_for_startup(self.id) {
                Activity::WaitingForStartup
            } else if self.halted {
                Activity::Halted
            } else {
                Activity::Running
            }
        })
    }

    fn sregs(&self) -> Option<SystemRegisters> {
        let mut registers = registers::system(&self.fd.get_sregs().ok()?);
        if self.own_chips() {
            registers.cr8 = self.devices.task_priority(self.id);
        }
        Some(registers)
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, completion: u64) -> Result<Exit, EngineError> {
        if let Some(exit) = self.kept.take() {
            return Ok(exit);
        }
        if let Some(exit) = self.complete(completion) {
            return Ok(exit);
        }
        self.shared.slots.check()?;
        self.kicker.enter();
        let result = if self.debugging.breakpoints == [None; 4] {
            self.run_until_exit()
        } else {
            self.run_past_breakpoint()
        };
        self.kicker.leave();
        result
    }

    fn answer_string(&mut self, data: &[u8]) {
        if let Pending::Strings(access) = self.pending
            && access.input
        {
            RunPage(self.fd.get_kvm_run()).inputs(&access, data);
        }
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kicker) as Arc<dyn Kick>
    }

    // On a processor that exists, reading its registers does not fail.

    fn registers(&self) -> Registers {
        let regs = self.fd.get_regs().unwrap_or_default();
        registers::general(&regs)
    }

    fn set_registers(&mut self, registers: &Registers) {
        // Any value of a general register is valid.
        let _ = self.fd.set_regs(&registers::to_general(registers));
    }

    fn system_registers(&self) -> SystemRegisters {
        self.sregs().unwrap_or_default()
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) {
        if let Ok(mut sregs) = self.fd.get_sregs() {
            registers::to_system(registers, &mut sregs);
            sregs.interrupt_bitmap = [0; 4];
            // What KVM refuses is found by the guest, which keeps its old registers.
            let _ = self.fd.set_sregs(&sregs);
        }
        if self.own_chips() {
            self.devices.set_task_priority(self.id, registers.cr8);
            if registers.apic_base != 0 {
                let base = registers.apic_base;
                let _ = self.devices.write_msr(self.id, msr::IA32_APIC_BASE, base);
                self.apic_base = base;
            }
        }
    }

    fn xsave(&self) -> Vec<u8> {
        state::xsave(&self.fd, &self.sets).unwrap_or_default()
    }

    fn set_xsave(&mut self, image: &[u8]) -> Result<(), EngineError> {
        state::set_xsave(&self.fd, &self.sets, image)
    }

    fn state(&mut self) -> Result<ProcessorState, EngineError> {
        self.settle()?;
        let mut state = state::get(&self.fd, &self.sets, self.activity())?;
        if self.own_chips() {
            state.system.cr8 = self.devices.task_priority(self.id);
            state.events.nmi_pending |= self.nmi_waits;
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &ProcessorState) -> Result<(), EngineError> {
        if let Some(why) = self.objection(&state.system) {
            return Err(EngineError::BadState(why.to_owned()));
        }
        let _ = self.settle();
        state::set(
            &self.fd,
            &self.sets,
            state,
            self.shared.chips == Chips::Kernel,
        )?;
        self.set_system_registers(&state.system);
        self.halted = self.own_chips() && state.activity == Activity::Halted;
        let page = self.fd.get_kvm_run();
        page.ready_for_interrupt_injection = 0;
        page.if_flag = u8::from(state.registers.rflags & flags::IF != 0);
        Ok(())
    }

    fn set_debugging(&mut self, debugging: &Debugging) -> Result<(), EngineError> {
        self.debug(debugging)?;
        self.debugging = *debugging;
        Ok(())
    }

    fn objection(&self, registers: &SystemRegisters) -> Option<&'static str> {
        let long = registers.efer & (cr::EFER_LME | cr::EFER_LMA) != 0;
        (long && !self.long_mode)
            .then_some("the CPU model has no 64-bit mode (feature lm), which the guest needs")
    }

    fn recent_code(&mut self) -> Vec<String> {
        let (registers, system) = (self.registers(), self.system_registers());
        let code = system.segments[1];
        let bits = match (system.efer & cr::EFER_LMA != 0, code.attributes) {
            (true, attributes) if attributes.long() => 64,
            (_, attributes) if attributes.big() => 32,
            _ => 16,
        };
        let base = if bits == 64 { 0 } else { code.base };
        let rip = registers.rip;
        let mut bytes = [0; LONGEST];
        let mut count = 0;
        for byte in &mut bytes {
            let linear = base.wrapping_add(rip).wrapping_add(count as u64);
            let Some(address) = self.translate(linear) else {
                break;
            };
            if self
                .shared
                .memory
                .read(address, std::slice::from_mut(byte))
                .is_err()
            {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return vec![format!("{rip:016x}  (not mapped)")];
        }
        let mut decoder = Decoder::with_ip(bits, &bytes[..count], rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let mut text = String::new();
        FastFormatter::new().format(&instruction, &mut text);
        let mut line = format!("{rip:016x}  ");
        for byte in &bytes[..instruction.len().min(count)] {
            let _ = write!(line, "{byte:02x}");
        }
        vec![format!("{line:<50}{text}")]
    }

    fn start_profile(&mut self, _hertz: u32) -> Result<(), EngineError> {
        let reason = "it has no profiler: perf(1) sees its guests".to_owned();
        Err(EngineError::Unsupported {
            engine: "kvm",
            reason,
        })
    }

    fn profile(&self, _most: usize) -> ProfileReport {
        ProfileReport::default()
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let s = &self.statistics;
        vec![
            ("runs", s.runs),
            ("port_exits", s.ports),
            ("mmio_exits", s.mmio),
            ("local_accesses", s.local),
            ("halts", s.halts),
            ("interrupts", s.interrupts),
            ("signals", s.signals),
            ("emulation_failures", s.failures),
        ]
    }
}

impl KvmVcpu {
    fn translate(&self, linear: u64) -> Option<u64> {
        let translation = self.fd.translate_gva(linear).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }
}
