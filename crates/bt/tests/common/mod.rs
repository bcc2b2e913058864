//! The engine under test: its interpreter alone, and the whole of it.

#![allow(dead_code)]

use std::sync::Arc;

use ringfence_bt::BtVcpu;
use ringfence_bt::context::ContextBox;
use ringfence_bt::cpu::Cpu;
use ringfence_bt::interp::system::cpuid::CpuidModel;
use ringfence_bt::interp::{Step, step};
use ringfence_bt::softmmu::phys::Phys;
use ringfence_bt::softmmu::world::World;
use ringfence_engine::{Clock, Exit, GuestMemory, Registers, SystemRegisters, Vcpu};
use ringfence_testkit::compare::{Rules, differences};
use ringfence_testkit::guest::{self, Ring};
use ringfence_testkit::layout::{CODE, IMAGE_SIZE};
use ringfence_testkit::state::XSTATE_SIZE;
use ringfence_testkit::{Mock, Outcome, State};

/// Instructions after which the interpreter is taken to hang.
const STEP_LIMIT: usize = 1_000_000;

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

/// A guest processor that runs cases.
pub trait Machine {
    /// Its memory.
    fn memory(&self) -> &Arc<GuestMemory>;
    /// Its devices.
    fn mock(&self) -> &Arc<Mock>;
    /// Runs from `state` to the first exception.
    fn run(&mut self, state: &State, ring: Ring) -> Result<Outcome, String>;

    /// Writes code.
    fn write_code(&mut self, address: u64, bytes: &[u8]) {
        self.memory()
            .write(address, bytes)
            .expect("code has memory");
    }
    /// Sets all data.
    fn write_data(&mut self, image: &[u8]) {
        guest::write_data(self.memory(), image);
    }
    /// All data.
    fn read_data(&self) -> Vec<u8> {
        let mut image = vec![0; IMAGE_SIZE];
        guest::read_data(self.memory(), &mut image);
        image
    }
}

/// The whole engine.
pub struct Translated {
    pub vcpu: BtVcpu,
    bits: u32,
    memory: Arc<GuestMemory>,
    mock: Arc<Mock>,
}

impl Translated {
    pub fn new(bits: u32) -> Self {
        let memory = guest::memory().expect("memory of the guest");
        let mock = Arc::new(Mock::default());
        let clock = Arc::new(Clock::new());
        let mut vcpu =
            BtVcpu::new(0, 1, Arc::clone(&memory), mock.clone(), clock).expect("a processor");
        mock.attach(vcpu.kicker());
        vcpu.set_system_registers(&guest::system_registers(bits));
        memory
            .write(CODE, &guest::xcr0_code())
            .expect("code has memory");
        vcpu.set_registers(&guest::start_registers());
        let exit = vcpu.run(0).expect("the guest starts");
        assert_eq!((exit, mock.take()), (Exit::Interrupted, Some(3)));
        Self {
            vcpu,
            bits,
            memory,
            mock,
        }
    }

    pub fn begin(&mut self, state: &State, ring: Ring) {
        let registers = guest::prepare(&self.memory, state, ring);
        self.vcpu.set_registers(&registers);
        self.vcpu.set_xsave(&state.xsave).expect("a valid image");
    }

    pub fn outcome(&mut self, vector: u8) -> Outcome {
        let registers = self.vcpu.registers();
        let system = self.vcpu.system_registers();
        guest::outcome(
            &self.memory,
            vector,
            &registers,
            &system,
            &self.vcpu.xsave(),
        )
    }
}

impl Machine for Translated {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn mock(&self) -> &Arc<Mock> {
        &self.mock
    }

    fn run(&mut self, state: &State, ring: Ring) -> Result<Outcome, String> {
        self.begin(state, ring);
        let mut exit = self.vcpu.run(0);
        loop {
            // The device of the mock, when it lies outside the engine.
            let value = match exit {
                Ok(Exit::MmioRead { address, size }) => self.mock.load(address, size),
                Ok(Exit::MmioWrite {
                    address,
                    size,
                    value,
                }) => self.mock.store(address, size, value).then_some(0),
                _ => None,
            };
            let Some(value) = value else { break };
            exit = self.vcpu.run(value);
        }
        match (self.mock.take(), exit) {
            (Some(vector), Ok(Exit::Interrupted)) => Ok(self.outcome(vector)),
            (reported, exit) => {
                // The next case begins at CPL 0 again.
                self.vcpu
                    .set_system_registers(&guest::system_registers(self.bits));
                Err(format!("left with {exit:?}, vector {reported:?}"))
            }
        }
    }
}

/// The interpreter alone.
pub struct Interpreted {
    world: World,
    memory: Arc<GuestMemory>,
    mock: Arc<Mock>,
    context: ContextBox,
}

impl Interpreted {
    pub fn new(bits: u32) -> Self {
        let memory = guest::memory().expect("memory of the guest");
        let mock = Arc::new(Mock::default());
        let clock = Arc::new(Clock::new());
        let cpuid = Arc::new(CpuidModel::new(1, clock.tsc_hz()));
        let context = ContextBox::new([0; 2]);
        let phys = Phys::new(Arc::clone(&memory));
        // SAFETY: the context lives as long as the world, in the same structure.
        let world = unsafe { World::new(0, context.as_ptr(), phys, mock.clone(), clock, cpuid, 1) };
        let mut this = Self {
            world,
            memory,
            mock,
            context,
        };
        set_system_registers(this.cpu(), &guest::system_registers(bits));
        this.memory
            .write(CODE, &guest::xcr0_code())
            .expect("code has memory");
        set_registers(this.cpu(), &guest::start_registers());
        assert_eq!(this.finish(), Ok(3));
        this
    }

    pub fn cpu<'a>(&self) -> &'a mut Cpu {
        // SAFETY: the context lives on the heap for as long as the machine, which one thread
        // uses; no two borrows overlap.
        unsafe { &mut (*self.context.as_ptr()).cpu }
    }

    pub fn begin(&mut self, state: &State, ring: Ring) {
        let registers = guest::prepare(&self.memory, state, ring);
        let cpu = self.cpu();
        set_registers(cpu, &registers);
        cpu.xsave.0.fill(0);
        cpu.xsave.0[..XSTATE_SIZE].copy_from_slice(&state.xsave);
        self.world.forget_fetch();
    }

    /// Executes one instruction.
    pub fn step(&mut self) -> Step {
        self.world.begin_instruction();
        let step = step(self.cpu(), &mut self.world);
        self.world.pending.code_writes.clear();
        self.world.pending.pages.clear();
        self.world.pending.flush = None;
        // As the engine does: code that was written is fetched anew.
        self.world.forget_fetch();
        if !matches!(step, Step::Exit(_)) {
            self.world.end_instruction();
        }
        step
    }

    /// Executes instructions until an exception is reported.
    fn finish(&mut self) -> Result<u8, String> {
        for _ in 0..STEP_LIMIT {
            match self.step() {
                Step::Retired => {}
                other => return Err(format!("left with {other:?}")),
            }
            if let Some(vector) = self.mock.take() {
                return Ok(vector);
            }
        }
        Err("does not end".to_owned())
    }

    fn outcome(&self, vector: u8) -> Outcome {
        let cpu = self.cpu();
        let registers = Registers {
            gpr: cpu.gpr,
            rip: cpu.rip,
            rflags: cpu.rflags,
        };
        let system = SystemRegisters {
            segments: cpu.seg,
            cr2: cpu.cr2,
            ..Default::default()
        };
        guest::outcome(&self.memory, vector, &registers, &system, &cpu.xsave.0)
    }
}

impl Machine for Interpreted {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn mock(&self) -> &Arc<Mock> {
        &self.mock
    }

    fn run(&mut self, state: &State, ring: Ring) -> Result<Outcome, String> {
        self.begin(state, ring);
        self.finish().map(|vector| self.outcome(vector))
    }
}

fn set_registers(cpu: &mut Cpu, registers: &Registers) {
    (cpu.gpr, cpu.rip, cpu.rflags) = (registers.gpr, registers.rip, registers.rflags);
}

fn set_system_registers(cpu: &mut Cpu, registers: &SystemRegisters) {
    cpu.seg = registers.segments;
    (cpu.ldtr, cpu.tr) = (registers.ldtr, registers.tr);
    (cpu.gdtr, cpu.idtr) = (registers.gdtr, registers.idtr);
    (cpu.cr0, cpu.cr3, cpu.cr4) = (registers.cr0, registers.cr3, registers.cr4);
    cpu.efer = registers.efer;
    cpu.cpl = 0;
}

/// The host's processor and all engines; what they do must be the same.
pub struct Everyone {
    host: Option<ringfence_testkit::Native>,
    translated: Translated,
    interpreted: Interpreted,
    image: Vec<u8>,
}

impl Everyone {
    pub fn new() -> Self {
        // The engine's signal handlers come first: the harness hands on what is not its own.
        let (translated, interpreted) = (Translated::new(64), Interpreted::new(64));
        let host = ringfence_testkit::Native::new().ok();
        Self {
            host,
            translated,
            interpreted,
            image: vec![0; IMAGE_SIZE],
        }
    }

    /// Runs `parts` of code from `state`; returns the outcome that all agree on.
    pub fn run(&mut self, parts: &[(u64, Vec<u8>)], state: &State) -> Outcome {
        let mut outcomes = Vec::new();
        if let Some(host) = &mut self.host {
            for (at, bytes) in parts {
                host.write_code(*at, bytes);
            }
            host.write_data(&self.image, true);
            let outcome = host.run(state, false);
            let mut data = self.image.clone();
            host.read_data(&mut data);
            outcomes.push(("host", outcome, data));
        }
        let runs = [
            ("interpreter", Ring::User),
            ("translator, CPL 3", Ring::User),
            ("translator, CPL 0", Ring::Kernel),
        ];
        for (index, (name, ring)) in runs.into_iter().enumerate() {
            let machine: &mut dyn Machine = if index == 0 {
                &mut self.interpreted
            } else {
                &mut self.translated
            };
            for (at, bytes) in parts {
                machine.write_code(*at, bytes);
            }
            machine.write_data(&self.image);
            let outcome = machine
                .run(state, ring)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            outcomes.push((name, outcome, machine.read_data()));
        }
        let (first, expected, data) = &outcomes[0];
        for (name, found, found_data) in &outcomes[1..] {
            let rules = Rules {
                undefined_flags: 0,
                privilege: name.ends_with('0'),
            };
            let text = differences(expected, data, found, found_data, rules);
            assert!(text.is_empty(), "{name} differs from {first}:\n{text}");
        }
        *expected
    }
}
