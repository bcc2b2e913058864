//! The engine and its interpreter side by side, each with memory of its own.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use ringfence_bt::BtVcpu;
use ringfence_bt::context::ContextBox;
use ringfence_bt::cpu::{CS, Cpu, SS};
use ringfence_bt::interp::system::cpuid::CpuidModel;
use ringfence_bt::interp::{Step, step};
use ringfence_bt::softmmu::phys::Phys;
use ringfence_bt::softmmu::world::World;
use ringfence_engine::{
    Clock, DescriptorTable, Exit, GuestMemory, NoLocalDevices, Registers, Segment,
    SegmentAttributes, SystemRegisters, Vcpu,
};
use ringfence_memory::RegionKind;
use ringfence_testkit::Random;
use ringfence_x86::{cr, flags};

/// Bytes of memory.
pub const MEMORY: u64 = 0x14_0000;
/// Port that ends a program.
pub const END: u8 = 0xe9;
/// Where code segments begin, about.
pub const CODE: u64 = 0x1_0000;
/// The four data areas of 64 KiB each that segments are laid into.
pub const DATA: u64 = 0x4_0000;
pub const DATA_SIZE: u64 = 0x5_0000;
/// Offset in the code segment at which programs begin.
pub const START: u64 = 0x3f00;

const HANDLERS: u64 = 0x2000;
const IDT: u64 = 0x3000;
const GDT: u64 = 0x4000;
const TSS: u64 = 0x5000;
const STACK: u64 = 0xf000;
/// Data descriptors that programs may load begin here.
pub const FREE_SELECTOR: u16 = 0x40;
pub const FREE_SELECTORS: u16 = 16;
/// What a program may do before it is taken to hang.
const STEPS: usize = 5_000;
const EXITS: usize = 20_000;

/// A mode of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Real,
    /// Real mode with the limits that protected mode left.
    Unreal,
    Virtual8086,
    Protected16,
    Protected32,
}

impl Setting {
    pub fn as_8086(self) -> bool {
        matches!(self, Self::Real | Self::Unreal | Self::Virtual8086)
    }

    pub fn bits(self) -> u32 {
        if self == Self::Protected32 { 32 } else { 16 }
    }
}

/// Where a program starts.
#[derive(Clone, Debug)]
pub struct State {
    pub setting: Setting,
    pub registers: Registers,
    pub system: SystemRegisters,
}

/// What a program did.
#[derive(Debug)]
pub struct Run {
    /// It ran to its end.
    pub ended: bool,
    pub steps: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Port(u32),
    /// A handler of this vector.
    Vector(u8),
    Shutdown,
    Halt,
    Endless,
}

/// Both machines.
pub struct Both {
    engine: BtVcpu,
    engine_memory: Arc<GuestMemory>,
    world: World,
    context: ContextBox,
    memory: Arc<GuestMemory>,
    image: Vec<u8>,
}

fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::new();
    memory
        .map(0, MEMORY, RegionKind::Ram)
        .expect("memory of the guest");
    Arc::new(memory)
}

/// A descriptor's two halves.
fn descriptor(base: u64, limit: u32, attributes: u32) -> u64 {
    let limit = u64::from(if attributes & 0x8000 != 0 {
        limit >> 12
    } else {
        limit
    });
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(attributes & 0xf0ff) << 40
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56
}

fn segment(selector: u16, base: u64, limit: u32, attributes: u32) -> Segment {
    Segment {
        base,
        limit,
        attributes: SegmentAttributes(attributes),
        selector,
    }
}

impl Both {
    pub fn new() -> Self {
        let (engine_memory, memory) = (memory(), memory());
        let clock = Arc::new(Clock::new());
        let devices = Arc::new(NoLocalDevices);
        let engine = BtVcpu::new(
            0,
            1,
            engine_memory.clone(),
            devices.clone(),
            Arc::clone(&clock),
        )
        .expect("a processor");
        let cpuid = Arc::new(CpuidModel::new(1, clock.tsc_hz()));
        let context = ContextBox::new([0; 2]);
        let phys = Phys::new(Arc::clone(&memory));
        // SAFETY: the context lives as long as the world, in the same structure.
        let world = unsafe { World::new(0, context.as_ptr(), phys, devices, clock, cpuid, 1) };
        Self {
            engine,
            engine_memory,
            world,
            context,
            memory,
            image: vec![0; MEMORY as usize],
        }
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = address as usize;
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes tables, data and a state to start from.
    pub fn prepare(&mut self, random: &mut Random, setting: Setting) -> State {
        self.image.fill(0);
        let data = DATA as usize..(DATA + DATA_SIZE) as usize;
        random.fill(&mut self.image[data]);
        for vector in 0..256u64 {
            let handler = HANDLERS + vector * 4;
            // out vector, al; hlt
            self.put(handler, &[0xe6, vector as u8, 0xf4, 0xf4]);
            if setting.as_8086() && setting != Setting::Virtual8086 {
                self.put(vector * 4, &(handler as u32).to_le_bytes());
            }
            let gate = handler & 0xffff | 8 << 16 | 0xee00 << 32;
            self.put(IDT + vector * 8, &gate.to_le_bytes());
        }
        self.put(GDT + 8, &descriptor(0, u32::MAX, 0xc09b).to_le_bytes());
        self.put(GDT + 16, &descriptor(0, u32::MAX, 0xc093).to_le_bytes());
        for i in 0..u64::from(FREE_SELECTORS) {
            let (base, limit, attributes) = data_segment(random, true);
            let value = descriptor(base, limit, attributes);
            let at = GDT + u64::from(FREE_SELECTOR) + i * 8;
            self.put(at, &value.to_le_bytes());
        }
        self.put(TSS + 4, &(STACK as u32).to_le_bytes());
        self.put(TSS + 8, &16u16.to_le_bytes());
        self.put(TSS + 0x66, &0x68u16.to_le_bytes());
        // Software interrupts of virtual-8086 mode and ports.
        self.put(TSS + 0x68 + 0x2000, &[0xff]);

        let mut gpr: [u64; 16] = [0; 16];
        for value in gpr.iter_mut().take(8) {
            *value = if random.one_in(3) {
                random.bits() & 0xffff_ffff
            } else {
                random.bits() & 0xffff
            };
        }
        gpr[4] = random.bits() & 0xffff_fffe & if random.one_in(4) { !0 } else { 0xffff };
        let mut system = SystemRegisters {
            cr0: cr::CR0_ET,
            gdtr: DescriptorTable {
                base: GDT,
                limit: FREE_SELECTOR + FREE_SELECTORS * 8 - 1,
            },
            idtr: DescriptorTable {
                base: if setting == Setting::Real || setting == Setting::Unreal {
                    0
                } else {
                    IDT
                },
                limit: 0x7ff,
            },
            tr: segment(0x18, TSS, 0x2100, 0x8b),
            ldtr: segment(0, 0, 0, SegmentAttributes::UNUSABLE),
            ..SystemRegisters::default()
        };
        let code = CODE + random.below(256) * 16;
        let mut rflags = flags::FIXED | random.bits() & (flags::ARITHMETIC | flags::DF);
        for index in 0..6 {
            let selector = (DATA >> 4) + random.below(DATA_SIZE >> 4) - 0x800;
            let (base, limit, attributes) = data_segment(random, false);
            system.segments[index] = match setting {
                Setting::Real => segment(selector as u16, selector << 4, 0xffff, 0x93),
                Setting::Unreal => segment(selector as u16, selector << 4, limit, 0x93),
                Setting::Virtual8086 => segment(selector as u16, selector << 4, 0xffff, 0xf3),
                _ => segment(FREE_SELECTOR, base, limit, attributes),
            };
        }
        let limit = random.pick(&[0xffff, 0xffff, 0xffff, u32::MAX, 0x7fff]);
        system.segments[CS] = match setting {
            Setting::Real => segment((code >> 4) as u16, code, 0xffff, 0x9b),
            Setting::Unreal => segment((code >> 4) as u16, code, limit, 0x93),
            Setting::Virtual8086 => segment((code >> 4) as u16, code, 0xffff, 0xf3),
            Setting::Protected16 => segment(8, code, limit, 0x9b),
            Setting::Protected32 => segment(8, code + random.below(16), limit, 0x409b),
        };
        match setting {
            Setting::Virtual8086 => {
                system.cr0 |= cr::CR0_PE;
                rflags |= flags::VM | if random.one_in(2) { flags::IOPL } else { 0 };
            }
            Setting::Protected16 | Setting::Protected32 => system.cr0 |= cr::CR0_PE,
            _ => {}
        }
        if random.one_in(2) {
            system.cr4 |= cr::CR4_OSFXSR;
        }
        State {
            setting,
            registers: Registers {
                gpr,
                rip: START,
                rflags,
            },
            system,
        }
    }

    fn cpu<'a>(&self) -> &'a mut Cpu {
        // SAFETY: the context lives on the heap for as long as the machine, which one thread
        // uses; no two borrows overlap.
        unsafe { &mut (*self.context.as_ptr()).cpu }
    }

    fn interpret(&mut self, state: &State) -> (End, u64, Vec<(u64, u64)>) {
        let cpu = self.cpu();
        *cpu = *Cpu::new();
        let system = &state.system;
        cpu.gpr = state.registers.gpr;
        (cpu.rip, cpu.rflags) = (state.registers.rip, state.registers.rflags);
        cpu.seg = system.segments;
        (cpu.ldtr, cpu.tr) = (system.ldtr, system.tr);
        (cpu.gdtr, cpu.idtr) = (system.gdtr, system.idtr);
        (cpu.cr0, cpu.cr4) = (system.cr0, system.cr4);
        cpu.cpl = if cpu.virtual8086() { 3 } else { 0 };
        // SAFETY: the context lives as long as the machine; nothing else borrows its TLB.
        let context = unsafe { &mut *self.context.as_ptr() };
        self.world.tlb.flush(context, false);
        let mut stores = Vec::new();
        for steps in 0..STEPS as u64 {
            self.world.begin_instruction();
            let result = step(cpu, &mut self.world);
            self.world.pending = Default::default();
            self.world.forget_fetch();
            match result {
                Step::Retired => self.world.end_instruction(),
                Step::Halted => return (End::Halt, steps, stores),
                Step::Shutdown => return (End::Shutdown, steps, stores),
                Step::Exit(exit) => match answer(&exit, &mut stores) {
                    Ok(value) => self.world.complete(exit, value),
                    Err(end) => {
                        self.world.end_instruction();
                        return (end, steps, stores);
                    }
                },
            }
        }
        (End::Endless, STEPS as u64, stores)
    }

    fn translate(&mut self, state: &State) -> (End, Vec<(u64, u64)>) {
        self.engine.set_registers(&state.registers);
        self.engine.set_system_registers(&state.system);
        let mut stores = Vec::new();
        let mut value = 0;
        for _ in 0..EXITS {
            let exit = self.engine.run(value).expect("no defect");
            match answer(&exit, &mut stores) {
                Ok(next) => value = next,
                Err(end) => return (end, stores),
            }
        }
        (End::Endless, stores)
    }
}

/// What the machine answers to an exit, or how the program ended.
fn answer(exit: &Exit, stores: &mut Vec<(u64, u64)>) -> Result<u64, End> {
    match *exit {
        Exit::PortOut { port, value, .. } if port == u16::from(END) => Err(End::Port(value)),
        Exit::PortOut { port, .. } => Err(End::Vector(port as u8)),
        Exit::MmioRead { address, .. } => Ok(address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7),
        Exit::MmioWrite { address, value, .. } => {
            stores.push((address, value));
            Ok(0)
        }
        Exit::Shutdown => Err(End::Shutdown),
        Exit::Halt => Err(End::Halt),
        _ => Err(End::Endless),
    }
}

/// Base, limit and attributes of a data segment, of a present one unless `any`.
fn data_segment(random: &mut Random, any: bool) -> (u64, u32, u32) {
    let base = DATA + random.below(DATA_SIZE - 0x1_0000);
    let base = random.pick(&[base & !0xf, base, base & !0xfff, 0]);
    let limit = random.pick(&[0xffff, 0xffff, u32::MAX, 0xff, 0x8fff, 0xffff, 0xffe2]);
    let page = if limit == u32::MAX { 0x8000 } else { 0 };
    let big = random.pick(&[0, 0x4000]);
    let kind = if any {
        random.pick(&[0x93, 0x93, 0x91, 0x97, 0x9b, 0x13])
    } else {
        random.pick(&[0x93, 0x93, 0x93, 0x93, 0x93, 0x91, 0x97, 0x9b])
    };
    (base, limit, kind | page | big)
}

/// Runs a program on both machines and compares everything.
pub fn run_both(both: &mut Both, state: &State, code: &[u8]) -> Result<Run, String> {
    let base = state.system.segments[CS].base;
    both.put(base + START, code);
    let image = std::mem::take(&mut both.image);
    for memory in [&both.memory, &both.engine_memory] {
        memory.write(0, &image).expect("memory");
    }
    both.image = image;
    let (expected, steps, expected_stores) = both.interpret(state);
    let run = Run {
        ended: matches!(expected, End::Port(_)),
        steps,
    };
    if expected == End::Endless {
        return Ok(run);
    }
    let (found, stores) = both.translate(state);
    let cpu = both.cpu();
    let registers = both.engine.registers();
    let system = both.engine.system_registers();
    let mut text = String::new();
    if found != expected {
        text.push_str(&format!("ended by {found:?}, not {expected:?}\n"));
    }
    for i in 0..8 {
        if registers.gpr[i] != cpu.gpr[i] {
            let (a, b) = (registers.gpr[i], cpu.gpr[i]);
            text.push_str(&format!("register {i}: {a:#x}, not {b:#x}\n"));
        }
    }
    let mut mask = flags::ARITHMETIC | flags::DF | flags::IF | flags::IOPL | flags::VM;
    let faulted = matches!(expected, End::Vector(_) | End::Shutdown);
    if faulted {
        // Flags that are dead at a fault need not be right.
        mask &= !flags::ARITHMETIC;
    }
    if (registers.rflags ^ cpu.rflags) & mask != 0 {
        let (a, b) = (registers.rflags, cpu.rflags);
        text.push_str(&format!("flags {a:#x}, not {b:#x}\n"));
    }
    if registers.rip != cpu.rip && !matches!(expected, End::Shutdown) {
        let (a, b) = (registers.rip, cpu.rip);
        text.push_str(&format!("rip {a:#x}, not {b:#x}\n"));
    }
    if system.segments != cpu.seg {
        text.push_str(&format!(
            "segments {:x?}\nnot {:x?}\n",
            system.segments, cpu.seg
        ));
    }
    let hide = |stores: &[(u64, u64)]| -> Vec<_> {
        let mask = if faulted { !flags::ARITHMETIC } else { !0 };
        stores
            .iter()
            .map(|(at, value)| (*at, value & mask))
            .collect()
    };
    let (stores, expected_stores) = (hide(&stores), hide(&expected_stores));
    if stores != expected_stores {
        text.push_str(&format!("stores {stores:x?}\nnot {expected_stores:x?}\n"));
    }
    let (mut a, mut b) = (vec![0; MEMORY as usize], vec![0; MEMORY as usize]);
    both.engine_memory.read(0, &mut a).expect("memory");
    both.memory.read(0, &mut b).expect("memory");
    if faulted {
        hide_flags(cpu, &mut a);
        hide_flags(cpu, &mut b);
    }
    if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
        let (a, b) = (&a[at..at + 8], &b[at..at + 8]);
        text.push_str(&format!("memory at {at:#x}: {a:02x?}, not {b:02x?}\n"));
    }
    if text.is_empty() {
        return Ok(run);
    }
    text.push_str(&format!("{:x?}\n", state));
    let mut line = String::new();
    for instruction in
        &mut Decoder::with_ip(state.setting.bits(), code, START, DecoderOptions::NONE)
    {
        line.clear();
        FastFormatter::new().format(&instruction, &mut line);
        text.push_str(&format!("{:x}  {line}\n", instruction.ip()));
    }
    Err(text)
}

/// Clears the flags in the frame of an exception, on top of the stack.
fn hide_flags(cpu: &Cpu, memory: &mut [u8]) {
    let stack = &cpu.seg[SS];
    let mask = if stack.attributes.big() {
        0xffff_ffff
    } else {
        0xffff
    };
    for offset in [-4i64, -3, -2, -1, 4, 5, 8, 9, 12, 13] {
        let offset = offset as u64;
        let at = stack
            .base
            .wrapping_add(cpu.gpr[4].wrapping_add(offset) & mask)
            & 0xffff_ffff;
        if let Some(byte) = memory.get_mut(at as usize) {
            *byte = 0;
        }
    }
}
