//! Tests over a flat memory without paging: linear addresses are physical ones.

mod cpu_models;
mod cpuid;
mod long;
mod native;
mod protected;
mod random;
mod real;
mod registers;
mod task;
mod transfer;
mod xsave;

use iced_x86::{Code, Decoder, DecoderOptions};
use proptest::prelude::ProptestConfig;
use ringfence_engine::{DescriptorTable, LocalDevices, NoLocalDevices, Segment, SegmentAttributes};
use ringfence_x86::{cr, flags};

use super::cpuid::{Availability, CpuidModel};
use crate::cpu::{CS, Cpu, RSP, SS};
use crate::env::{Env, Flush, Privilege, Trap};

const MEMORY: usize = 1 << 20;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const LDT: u64 = 0x3000;
const TSS: u64 = 0x4000;
const TSS2: u64 = 0x5000;
const CODE: u64 = 0x1_0000;
const HANDLER: u64 = 0x1_8000;
const KERNEL_STACK: u64 = 0x2_0000;
const IST_STACK: u64 = 0x2_8000;
const USER_STACK: u64 = 0x3_0000;
const DATA: u64 = 0x4_0000;

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_CODE32: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const USER_CODE64: u16 = 0x28 | 3;
const TASK: u16 = 0x30;
const TASK2: u16 = 0x40;
const ABSENT: u16 = 0x50;
const READ_ONLY: u16 = 0x58;
const CONFORMING: u16 = 0x60;
const GATE: u16 = 0x68;
const LOCAL: u16 = 0x78;

/// A flat memory of one mebibyte; everything above it, and one chosen page, is not present.
#[derive(Debug)]
struct Mock {
    memory: Vec<u8>,
    absent: Option<u64>,
    model: CpuidModel,
    flushes: Vec<Flush>,
    outputs: Vec<(u16, u8, u32)>,
    input: u32,
    tsc: u64,
    commits: usize,
    yields: bool,
    devices: NoLocalDevices,
}

impl Mock {
    fn new() -> Self {
        Self {
            memory: vec![0; MEMORY],
            absent: None,
            model: CpuidModel::new(2, 2_000_000_000),
            flushes: Vec::new(),
            outputs: Vec::new(),
            input: 0,
            tsc: 0x1_2345_6789,
            commits: 0,
            yields: false,
            devices: NoLocalDevices,
        }
    }

    fn range(
        &self,
        cpu: &Cpu,
        linear: u64,
        size: usize,
        privilege: Privilege,
        write: bool,
    ) -> Result<std::ops::Range<usize>, Trap> {
        let end = linear.saturating_add(size as u64);
        let bad = self
            .absent
            .filter(|page| linear < page + 0x1000 && end > *page);
        if end > MEMORY as u64 || bad.is_some() {
            let user = privilege == Privilege::Current && cpu.cpl == 3;
            let code = u32::from(write) << 1 | u32::from(user) << 2;
            return Err(Trap::page_fault(bad.unwrap_or(0).max(linear), code));
        }
        Ok(linear as usize..end as usize)
    }

    fn get(&self, address: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.memory[address as usize..address as usize + size]);
        u64::from_le_bytes(bytes)
    }

    fn put(&mut self, address: u64, size: usize, value: u64) {
        self.memory[address as usize..address as usize + size]
            .copy_from_slice(&value.to_le_bytes()[..size]);
    }

    fn descriptor(&mut self, selector: u16, value: u64) {
        self.put(GDT + u64::from(selector & 0xfff8), 8, value);
    }

    /// A 32-bit or 64-bit interrupt (kind 14) or trap (15) gate to [`HANDLER`].
    fn gate(&mut self, long: bool, vector: u8, selector: u16, kind: u64, dpl: u64, ist: u64) {
        let size = if long { 16 } else { 8 };
        let value = gate(selector, HANDLER, kind, dpl) | ist << 32;
        self.put(IDT + size * u64::from(vector), 8, value);
        if long {
            self.put(IDT + size * u64::from(vector) + 8, 8, 0);
        }
    }
}

impl Env for Mock {
    fn fetch(&mut self, cpu: &mut Cpu, linear: u64, out: &mut [u8; 15]) -> Result<usize, Trap> {
        self.load(cpu, linear, out, Privilege::Current).map(|()| 15)
    }
    fn check_fetch(&mut self, _: &mut Cpu, _: u64) -> Result<(), Trap> {
        Ok(())
    }
    fn load(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        out: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Trap> {
        let range = self.range(cpu, linear, out.len(), privilege, false)?;
        out.copy_from_slice(&self.memory[range]);
        Ok(())
    }
    fn store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        data: &[u8],
        privilege: Privilege,
    ) -> Result<(), Trap> {
        let range = self.range(cpu, linear, data.len(), privilege, true)?;
        self.memory[range].copy_from_slice(data);
        Ok(())
    }
    fn check_store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        privilege: Privilege,
    ) -> Result<(), Trap> {
        self.range(cpu, linear, size, privilege, true).map(|_| ())
    }
    fn update(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Trap> {
        self.range(cpu, linear, size, Privilege::Current, true)?;
        let old = self.get(linear, size);
        self.put(linear, size, f(old));
        Ok(old)
    }
    fn ram_page(&mut self, _: &mut Cpu, _: u64, _: bool) -> Option<*mut u8> {
        None
    }
    fn port_in(&mut self, _: &mut Cpu, _: u16, _: u8) -> Result<u32, Trap> {
        self.input += 1;
        Ok(self.input)
    }
    fn port_out(&mut self, _: &mut Cpu, port: u16, size: u8, value: u32) -> Result<(), Trap> {
        self.outputs.push((port, size, value));
        Ok(())
    }
    fn commit_element(&mut self) {
        self.commits += 1;
    }
    fn should_yield(&mut self) -> bool {
        self.yields
    }
    fn flush(&mut self, _: &mut Cpu, what: Flush) {
        self.flushes.push(what);
    }
    fn cpuid(&mut self, cpu: &Cpu, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.model.get(cpu, 0, leaf, subleaf)
    }
    fn availability(&self, code: Code) -> Availability {
        self.model.availability(code)
    }
    fn tsc(&mut self, cpu: &Cpu) -> u64 {
        self.tsc.wrapping_add(cpu.msr.tsc_adjust)
    }
    fn vcpu_id(&self) -> u32 {
        0
    }
    fn devices(&self) -> &dyn LocalDevices {
        &self.devices
    }
}

/// A gate descriptor, its first 8 bytes.
fn gate(selector: u16, offset: u64, kind: u64, dpl: u64) -> u64 {
    let access = 0x80 | dpl << 5 | kind;
    offset & 0xffff | u64::from(selector) << 16 | access << 40 | (offset & 0xffff_0000) << 32
}

/// A descriptor with a byte limit below 64 KiB.
fn system(base: u64, limit: u64, access: u64) -> u64 {
    limit & 0xffff | (base & 0xff_ffff) << 16 | access << 40 | (base & 0xff00_0000) << 32
}

/// Protected mode at level 0: flat segments, a TSS, an empty IDT.
fn protected() -> (Box<Cpu>, Mock) {
    let (mut cpu, mut env) = (Cpu::new(), Mock::new());
    cpu.cr0 |= cr::CR0_PE | cr::CR0_NE;
    cpu.gdtr = DescriptorTable {
        base: GDT,
        limit: 0xff,
    };
    cpu.idtr = DescriptorTable {
        base: IDT,
        limit: 0x7ff,
    };
    env.descriptor(KERNEL_CODE, 0x00cf_9b00_0000_ffff);
    env.descriptor(KERNEL_DATA, 0x00cf_9300_0000_ffff);
    env.descriptor(USER_CODE32, 0x00cf_fb00_0000_ffff);
    env.descriptor(USER_DATA, 0x00cf_f300_0000_ffff);
    env.descriptor(USER_CODE64, 0x00af_fb00_0000_ffff);
    env.descriptor(TASK, system(TSS, 0x2067, 0x8b));
    env.descriptor(TASK2, system(TSS2, 0x67, 0x89));
    env.descriptor(ABSENT, 0x00cf_7300_0000_ffff);
    env.descriptor(READ_ONLY, 0x00cf_9000_0000_ffff);
    env.descriptor(CONFORMING, 0x00cf_9f00_0000_ffff);
    env.descriptor(LOCAL, system(LDT, 0x1f, 0x82));
    env.put(TSS + 4, 4, KERNEL_STACK);
    env.put(TSS + 8, 4, u64::from(KERNEL_DATA));
    cpu.tr = Segment {
        base: TSS,
        limit: 0x2067,
        attributes: SegmentAttributes::TSS_BUSY,
        selector: TASK,
    };
    let data = Segment {
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes::DATA32,
        selector: KERNEL_DATA,
    };
    cpu.seg = [data; 6];
    cpu.seg[CS] = Segment {
        attributes: SegmentAttributes::CODE32,
        selector: KERNEL_CODE,
        ..data
    };
    cpu.gpr[RSP] = KERNEL_STACK;
    cpu.rip = CODE;
    (cpu, env)
}

/// 64-bit mode at level 0.
fn long() -> (Box<Cpu>, Mock) {
    let (mut cpu, mut env) = protected();
    cpu.cr0 |= cr::CR0_PG;
    cpu.cr4 = cr::CR4_PAE | cr::CR4_OSFXSR;
    cpu.efer = cr::EFER_LME | cr::EFER_LMA | cr::EFER_SCE;
    cpu.idtr.limit = 0xfff;
    env.descriptor(KERNEL_CODE, 0x00af_9b00_0000_ffff);
    env.descriptor(TASK + 8, 0);
    env.descriptor(TASK2 + 8, 0);
    env.put(TSS + 4, 8, KERNEL_STACK);
    env.put(TSS + 0x24, 8, IST_STACK + 8);
    cpu.seg[CS].attributes = SegmentAttributes::CODE64;
    (cpu, env)
}

/// Puts the processor at level 3, with interrupts enabled.
fn to_user(cpu: &mut Cpu) {
    cpu.cpl = 3;
    let long = cpu.long_mode();
    cpu.seg[CS].selector = if long { USER_CODE64 } else { USER_CODE32 };
    cpu.seg[CS].attributes.0 |= 3 << 5;
    cpu.seg[SS].selector = USER_DATA;
    cpu.seg[SS].attributes.0 |= 3 << 5;
    cpu.gpr[RSP] = USER_STACK;
    cpu.rflags |= flags::IF;
}

/// `count` cases, or as many as the environment's `PROPTEST_CASES` asks for.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        config.cases
    } else {
        count
    };
    ProptestConfig { cases, ..config }
}

/// Decodes `code` at CS:RIP and executes it.
fn run(cpu: &mut Cpu, env: &mut Mock, code: &[u8]) -> Result<(), Trap> {
    let bits = cpu.bitness();
    let mut decoder = Decoder::with_ip(bits, code, cpu.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    assert_eq!(
        instruction.len(),
        code.len(),
        "{:?} {code:x?}",
        instruction.code()
    );
    super::execute(cpu, env, &instruction)
        .unwrap_or_else(|| panic!("{:?} is not a system instruction", instruction.code()))
}
