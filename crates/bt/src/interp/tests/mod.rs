//! Tests of ordinary instructions over a flat memory.

mod control;
mod fpu;
mod host;
mod integer;
mod random;
mod strings;

use iced_x86::{Decoder, DecoderOptions};
use ringfence_engine::{Exit, LocalDevices, NoLocalDevices, Segment, SegmentAttributes};
use ringfence_x86::{cr, flags};

use super::execute;
use crate::cpu::{CS, Cpu, RSP};
use crate::env::{Env, Flush, Privilege, Trap};

const MEMORY: usize = 1 << 18;
const CODE: u64 = 0x1000;
const STACK: u64 = 0x8000;
const DATA: u64 = 0x1_0000;

/// A flat memory; one page may be absent, another read-only, a third a device.
#[derive(Debug)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// The world of the tests.
#[derive(Debug)]
struct Flat {
    pages: Vec<Page>,
    absent: Option<u64>,
    read_only: Option<u64>,
    device: Option<u64>,
    bulk: bool,
    yields: bool,
    commits: usize,
    devices: NoLocalDevices,
}

impl Flat {
    fn new() -> Self {
        let pages = (0..MEMORY / 4096).map(|_| Page([0; 4096])).collect();
        Self {
            pages,
            absent: None,
            read_only: None,
            device: None,
            bulk: true,
            yields: false,
            commits: 0,
            devices: NoLocalDevices,
        }
    }

    fn byte(&mut self, linear: u64) -> &mut u8 {
        &mut self.pages[linear as usize / 4096].0[linear as usize % 4096]
    }

    fn get(&mut self, linear: u64, size: usize) -> u64 {
        (0..size).rev().fold(0, |value, i| {
            value << 8 | u64::from(*self.byte(linear + i as u64))
        })
    }

    fn put(&mut self, linear: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            *self.byte(linear + i as u64) = *byte;
        }
    }

    fn check(&self, linear: u64, size: usize, write: bool) -> Result<(), Trap> {
        for at in linear..linear.saturating_add(size as u64) {
            let page = Some(at & !0xfff);
            let code = u32::from(write) << 1;
            if page == self.absent || at >= MEMORY as u64 {
                return Err(Trap::page_fault(at, code));
            }
            if write && page == self.read_only {
                return Err(Trap::page_fault(at, code | 1));
            }
        }
        Ok(())
    }
}

impl Env for Flat {
    fn fetch(&mut self, _: &mut Cpu, linear: u64, out: &mut [u8; 15]) -> Result<usize, Trap> {
        self.check(linear, 1, false)?;
        let mut length = 0;
        while length < 15 && self.check(linear + length as u64, 1, false).is_ok() {
            out[length] = *self.byte(linear + length as u64);
            length += 1;
        }
        Ok(length)
    }
    fn check_fetch(&mut self, _: &mut Cpu, linear: u64) -> Result<(), Trap> {
        self.check(linear, 1, false)
    }
    fn load(&mut self, _: &mut Cpu, at: u64, out: &mut [u8], _: Privilege) -> Result<(), Trap> {
        self.check(at, out.len(), false)?;
        if self.device == Some(at & !0xfff) {
            return Err(Trap::Exit(Exit::MmioRead {
                address: at,
                size: out.len() as u8,
            }));
        }
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = *self.byte(at + i as u64);
        }
        Ok(())
    }
    fn store(&mut self, _: &mut Cpu, at: u64, data: &[u8], _: Privilege) -> Result<(), Trap> {
        self.check(at, data.len(), true)?;
        if self.device == Some(at & !0xfff) {
            let size = data.len() as u8;
            return Err(Trap::Exit(Exit::MmioWrite {
                address: at,
                size,
                value: 0,
            }));
        }
        self.put(at, data);
        Ok(())
    }
    fn check_store(&mut self, _: &mut Cpu, at: u64, n: usize, _: Privilege) -> Result<(), Trap> {
        self.check(at, n, true)
    }
    fn update(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Trap> {
        self.check(linear, size, true)?;
        let old = self.get(linear, size);
        let new = f(old).to_le_bytes();
        self.store(cpu, linear, &new[..size], Privilege::Current)?;
        Ok(old)
    }
    fn ram_page(&mut self, _: &mut Cpu, linear: u64, write: bool) -> Option<*mut u8> {
        let special = self.device == Some(linear & !0xfff);
        if !self.bulk || special || self.check(linear, 1, write).is_err() {
            return None;
        }
        Some(self.byte(linear))
    }
    fn port_in(&mut self, _: &mut Cpu, _: u16, _: u8) -> Result<u32, Trap> {
        Ok(0)
    }
    fn port_out(&mut self, _: &mut Cpu, _: u16, _: u8, _: u32) -> Result<(), Trap> {
        Ok(())
    }
    fn commit_element(&mut self) {
        self.commits += 1;
    }
    fn should_yield(&mut self) -> bool {
        self.yields
    }
    fn flush(&mut self, _: &mut Cpu, _: Flush) {}
    fn cpuid(&mut self, _: &Cpu, _: u32, _: u32) -> [u32; 4] {
        [0; 4]
    }
    fn tsc(&mut self, _: &Cpu) -> u64 {
        0
    }
    fn vcpu_id(&self) -> u32 {
        0
    }
    fn devices(&self) -> &dyn LocalDevices {
        &self.devices
    }
}

/// A processor at [`CODE`] in flat segments of the given width.
fn processor(bits: u32) -> Box<Cpu> {
    let mut cpu = Cpu::new();
    cpu.cr0 = cr::CR0_PE | cr::CR0_ET | cr::CR0_NE;
    cpu.cr4 = cr::CR4_OSFXSR | cr::CR4_OSXSAVE | cr::CR4_OSXMMEXCPT;
    cpu.xcr0 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX;
    let big = if bits == 16 { 0x8093 } else { 0xc093 };
    let data = Segment {
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes(big),
        selector: 0x10,
    };
    cpu.seg = [data; 6];
    cpu.seg[CS].attributes = match bits {
        64 => SegmentAttributes::CODE64,
        32 => SegmentAttributes::CODE32,
        _ => SegmentAttributes(0x809b),
    };
    if bits == 64 {
        cpu.efer = cr::EFER_LMA | cr::EFER_LME;
    }
    cpu.rip = CODE;
    cpu.gpr[RSP] = STACK;
    cpu
}

/// Executes the bytes as one instruction.
fn run(cpu: &mut Cpu, env: &mut Flat, bytes: &[u8]) -> Result<(), Trap> {
    cpu.rip = CODE;
    env.put(CODE, bytes);
    let mut decoder = Decoder::with_ip(cpu.bitness(), bytes, CODE, DecoderOptions::NONE);
    let result = execute(cpu, env, &decoder.decode());
    if result.is_err() {
        assert_eq!(cpu.rip, CODE, "a fault leaves RIP on the instruction");
    }
    result
}

/// Sets the arithmetic flags.
fn set_flags(cpu: &mut Cpu, arithmetic: u64) {
    cpu.rflags = cpu.rflags & !flags::ARITHMETIC | arithmetic;
}
