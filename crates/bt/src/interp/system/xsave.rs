//! The XSAVE family, as copies between the guest's memory and [`Cpu::xsave`] (SDM vol. 1,
//! chapter 13).
//!
//! [`Cpu::xsave`] has the standard format with 64-bit instruction pointers; its XSTATE_BV is the
//! processor's XINUSE: a component whose bit is clear has its initial value, whatever the bytes.

use iced_x86::{Code, Instruction};
use ringfence_x86::cr;

use super::super::next_rip;
use super::cpuid::{Feature, Offered as _};
use super::{operand, supervisor_only};
use crate::cpu::{Cpu, RAX, RDX, XSAVE_SIZE};
use crate::env::{Env, Privilege, Trap};

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const ST: usize = 32;
const XMM: usize = 160;
const HEADER: usize = 512;
const EXTENDED: usize = 576;
/// Initial values.
const FCW_INIT: u16 = 0x37f;
const MXCSR_INIT: u32 = 0x1f80;
/// XCOMP_BV: the compacted format.
const COMPACTED: u64 = 1 << 63;
/// First component of the extended region, and one past the last that is known here.
const FIRST_EXTENDED: u32 = 2;
const COMPONENTS: u32 = 8;

/// One instruction of the family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Standard,
    /// Skips components in their initial state.
    Optimized,
    Compacted,
    /// Compacted, with supervisor components (none here).
    Supervisor,
}

/// XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS.
pub(super) fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Code::*;
    let (form, feature, save) = match instruction.code() {
        Xsave_mem | Xsave64_mem => (Form::Standard, Feature::XSAVE, true),
        Xsaveopt_mem | Xsaveopt64_mem => (Form::Optimized, Feature::XSAVEOPT, true),
        Xsavec_mem | Xsavec64_mem => (Form::Compacted, Feature::XSAVEC, true),
        Xsaves_mem | Xsaves64_mem => (Form::Supervisor, Feature::XSAVES, true),
        Xrstor_mem | Xrstor64_mem => (Form::Standard, Feature::XSAVE, false),
        Xrstors_mem | Xrstors64_mem => (Form::Supervisor, Feature::XSAVES, false),
        _ => return None,
    };
    let wide = matches!(
        instruction.code(),
        Xsave64_mem | Xsaveopt64_mem | Xsavec64_mem | Xsaves64_mem | Xrstor64_mem | Xrstors64_mem
    );
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 || !feature.offered(cpu, env) {
        return Some(Err(Trap::UD));
    }
    let result = prepare(cpu, instruction, form, save).and_then(|area| {
        let area = Area {
            linear: area,
            mode64: cpu.mode64(),
            wide,
        };
        if save {
            xsave(cpu, env, &area, form)
        } else {
            xrstor(cpu, env, &area, form)
        }
    });
    Some(result.map(|()| cpu.rip = next_rip(cpu, instruction)))
}

/// Checks what all of them check; gives the linear address of the area.
fn prepare(cpu: &Cpu, instruction: &Instruction, form: Form, save: bool) -> Result<u64, Trap> {
    if cpu.cr0 & cr::CR0_TS != 0 {
        return Err(Trap::NM);
    }
    if form == Form::Supervisor {
        supervisor_only(cpu)?;
    }
    let linear = operand::memory(cpu, instruction, 0, EXTENDED, save)?;
    if linear % 64 != 0 {
        Err(Trap::GP0)
    } else {
        Ok(linear)
    }
}

/// An XSAVE area in guest memory.
struct Area {
    linear: u64,
    mode64: bool,
    /// REX.W: 64-bit instruction and data pointers.
    wide: bool,
}

impl Area {
    fn at(&self, offset: usize) -> u64 {
        let linear = self.linear.wrapping_add(offset as u64);
        if self.mode64 {
            linear
        } else {
            linear & 0xffff_ffff
        }
    }

    fn load<E: Env>(
        &self,
        cpu: &mut Cpu,
        env: &mut E,
        offset: usize,
        out: &mut [u8],
    ) -> Result<(), Trap> {
        env.load(cpu, self.at(offset), out, Privilege::Current)
    }

    fn store<E: Env>(
        &self,
        cpu: &mut Cpu,
        env: &mut E,
        offset: usize,
        data: &[u8],
    ) -> Result<(), Trap> {
        env.store(cpu, self.at(offset), data, Privilege::Current)
    }

    /// Bytes of the XMM or YMM registers that the mode reaches: 8 or 16 registers.
    fn vectors(&self) -> usize {
        if self.mode64 { 256 } else { 128 }
    }
}

/// XINUSE: the components that are not in their initial state. Hosts differ in whether SSE state
/// that was loaded but is all zero is in use; here it is not, whoever executed what.
pub fn in_use(cpu: &Cpu) -> u64 {
    let used = header(&cpu.xsave.0);
    let registers = &cpu.xsave.0[XMM..XMM + 256];
    if used & cr::XCR0_SSE != 0 && registers.iter().all(|&byte| byte == 0) {
        return used & !cr::XCR0_SSE;
    }
    used
}

/// The state in the standard format, for those outside: whoever takes MXCSR for a part of the SSE
/// component finds that in use when MXCSR is not in its initial state.
pub fn image(cpu: &Cpu) -> Vec<u8> {
    let mut area = cpu.xsave.0;
    let mut used = in_use(cpu);
    if mxcsr(&area) != MXCSR_INIT {
        used |= cr::XCR0_SSE;
    }
    set_header(&mut area, used);
    area.to_vec()
}

fn header(area: &[u8; XSAVE_SIZE]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&area[HEADER..HEADER + 8]);
    u64::from_le_bytes(bytes)
}

fn set_header(area: &mut [u8; XSAVE_SIZE], value: u64) {
    area[HEADER..HEADER + 8].copy_from_slice(&value.to_le_bytes());
}

/// Size and standard offset of an extended component, and whether the compacted format aligns it
/// to 64 bytes; from CPUID leaf 0Dh.
fn component<E: Env>(cpu: &Cpu, env: &mut E, index: u32) -> (usize, usize, bool) {
    let [size, offset, ecx, _] = env.cpuid(cpu, 0xd, index);
    let (size, offset) = (size as usize, offset as usize);
    let fits = offset >= EXTENDED && offset.saturating_add(size) <= XSAVE_SIZE;
    if fits {
        (size, offset, ecx & 2 != 0)
    } else {
        (0, EXTENDED, false)
    }
}

/// A component's place: in [`Cpu::xsave`], in the area, and its size.
#[derive(Clone, Copy, Default)]
struct Place {
    own: usize,
    area: usize,
    size: usize,
}

/// Places of the extended components; `layout` has the components of a compacted area.
fn places<E: Env>(cpu: &Cpu, env: &mut E, layout: Option<u64>) -> [Place; COMPONENTS as usize] {
    let mut places = [Place::default(); COMPONENTS as usize];
    let mut next = EXTENDED;
    for index in FIRST_EXTENDED..COMPONENTS {
        if cpu.xcr0 >> index & 1 == 0 {
            continue;
        }
        let (size, own, aligned) = component(cpu, env, index);
        let mut area = own;
        if let Some(layout) = layout {
            if layout >> index & 1 == 0 {
                continue;
            }
            area = if aligned {
                next.next_multiple_of(64)
            } else {
                next
            };
            next = area + size;
        }
        places[index as usize] = Place { own, area, size };
    }
    places
}

fn requested(cpu: &Cpu) -> u64 {
    cpu.xcr0 & (cpu.gpr[RDX] << 32 | cpu.gpr[RAX] & 0xffff_ffff)
}

fn mxcsr(area: &[u8; XSAVE_SIZE]) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&area[MXCSR..MXCSR + 4]);
    u32::from_le_bytes(bytes)
}

/// Gives the components whose bit in XINUSE is clear their initial bytes, but for MXCSR.
fn normalize(area: &mut [u8; XSAVE_SIZE], used: u64, places: &[Place]) {
    if used & cr::XCR0_X87 == 0 {
        area[..MXCSR].fill(0);
        area[ST..XMM].fill(0);
        area[..2].copy_from_slice(&FCW_INIT.to_le_bytes());
    }
    if used & cr::XCR0_SSE == 0 {
        area[XMM..XMM + 256].fill(0);
    }
    for (index, place) in places.iter().enumerate() {
        if used >> index & 1 == 0 {
            area[place.own..place.own + place.size].fill(0);
        }
    }
}

fn xsave<E: Env>(cpu: &mut Cpu, env: &mut E, area: &Area, form: Form) -> Result<(), Trap> {
    let wanted = requested(cpu);
    let compacted = matches!(form, Form::Compacted | Form::Supervisor);
    let places = places(cpu, env, compacted.then_some(wanted));
    let mut used = in_use(cpu);
    let mut image = cpu.xsave.0;
    normalize(&mut image, used, &places);
    if compacted && mxcsr(&image) != MXCSR_INIT {
        // Here MXCSR is a part of the SSE component.
        used |= cr::XCR0_SSE;
    }
    let written = if form == Form::Standard {
        wanted
    } else {
        wanted & used
    };
    if written & cr::XCR0_X87 != 0 {
        if !area.wide {
            // FCS and FDS, which processors no longer keep.
            image[12..16].fill(0);
            image[20..24].fill(0);
        }
        area.store(cpu, env, 0, &image[..MXCSR])?;
        area.store(cpu, env, ST, &image[ST..XMM])?;
    }
    let control = if compacted {
        written & cr::XCR0_SSE != 0
    } else {
        wanted & (cr::XCR0_SSE | cr::XCR0_AVX) != 0
    };
    if control {
        area.store(cpu, env, MXCSR, &image[MXCSR..ST])?;
    }
    if written & cr::XCR0_SSE != 0 {
        area.store(cpu, env, XMM, &image[XMM..XMM + area.vectors()])?;
    }
    for index in FIRST_EXTENDED..COMPONENTS {
        if written >> index & 1 != 0 {
            let place = places[index as usize];
            let size = reached(area, index, place.size);
            area.store(cpu, env, place.area, &image[place.own..place.own + size])?;
        }
    }
    let mut header = [0; 16];
    if compacted {
        header[..8].copy_from_slice(&(wanted & used).to_le_bytes());
        header[8..].copy_from_slice(&(COMPACTED | wanted).to_le_bytes());
        return area.store(cpu, env, HEADER, &header);
    }
    let mut old = [0; 8];
    area.load(cpu, env, HEADER, &mut old)?;
    let merged = u64::from_le_bytes(old) & !wanted | wanted & used;
    area.store(cpu, env, HEADER, &merged.to_le_bytes())
}

/// Bytes of an extended component that the mode reaches: registers 8 to 31 exist in 64-bit mode
/// alone.
fn reached(area: &Area, index: u32, size: usize) -> usize {
    match index {
        2 => size.min(area.vectors()),
        // ZMM0 to ZMM7, and none of ZMM16 to ZMM31.
        6 => size.min(2 * area.vectors()),
        7 if !area.mode64 => 0,
        _ => size,
    }
}

fn xrstor<E: Env>(cpu: &mut Cpu, env: &mut E, area: &Area, form: Form) -> Result<(), Trap> {
    let wanted = requested(cpu);
    let mut header = [0; 64];
    area.load(cpu, env, HEADER, &mut header)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let (present, layout) = (word(0), word(8));
    let compacted = layout & COMPACTED != 0;
    let valid = if compacted {
        let components = layout & !COMPACTED;
        Feature::XSAVEC.offered(cpu, env)
            && components & !cpu.xcr0 == 0
            && present & !components == 0
            && header[16..].iter().all(|&byte| byte == 0)
    } else {
        form != Form::Supervisor
            && present & !cpu.xcr0 == 0
            && header[8..24].iter().all(|&byte| byte == 0)
    };
    if !valid {
        return Err(Trap::GP0);
    }
    let own = places(cpu, env, None);
    let places = if compacted {
        places(cpu, env, Some(layout))
    } else {
        own
    };
    let mut image = cpu.xsave.0;
    // What is not restored must survive the change of XINUSE below.
    normalize(&mut image, in_use(cpu), &own);
    let loaded = wanted & present;
    if loaded & cr::XCR0_X87 != 0 {
        let (legacy, registers) = image.split_at_mut(MXCSR);
        area.load(cpu, env, 0, legacy)?;
        area.load(cpu, env, ST, &mut registers[ST - MXCSR..XMM - MXCSR])?;
        sanitize(&mut image, area.wide);
    }
    let control = if compacted {
        wanted & cr::XCR0_SSE != 0
    } else {
        wanted & (cr::XCR0_SSE | cr::XCR0_AVX) != 0
    };
    if control {
        let value = if compacted && loaded & cr::XCR0_SSE == 0 {
            MXCSR_INIT
        } else {
            let mut bytes = [0; 4];
            area.load(cpu, env, MXCSR, &mut bytes)?;
            u32::from_le_bytes(bytes)
        };
        let mut mask = [0; 4];
        mask.copy_from_slice(&image[MXCSR_MASK..ST]);
        let mask = match u32::from_le_bytes(mask) {
            0 => 0xffbf,
            mask => mask,
        };
        if value & !mask != 0 {
            return Err(Trap::GP0);
        }
        image[MXCSR..MXCSR + 4].copy_from_slice(&value.to_le_bytes());
    }
    if loaded & cr::XCR0_SSE != 0 {
        area.load(cpu, env, XMM, &mut image[XMM..XMM + area.vectors()])?;
    }
    for index in FIRST_EXTENDED..COMPONENTS {
        if loaded >> index & 1 != 0 {
            let place = places[index as usize];
            let size = reached(area, index, place.size);
            area.load(
                cpu,
                env,
                place.area,
                &mut image[place.own..place.own + size],
            )?;
        }
    }
    // Requested components that the area does not have get their initial values; outside 64-bit
    // mode registers 8 to 15 keep theirs.
    let reset = wanted & !present;
    let used = in_use(cpu) & !reset | loaded;
    let used = if area.mode64 {
        used
    } else {
        let upper = own[6].own + own[6].size / 2;
        keep_upper(&mut image, reset, in_use(cpu), used, upper)
    };
    normalize(&mut image, used, &own);
    set_header(&mut image, used);
    cpu.xsave.0 = image;
    Ok(())
}

/// What loading the x87 component makes of its bytes (SDM vol. 1, 8.1).
fn sanitize(image: &mut [u8; XSAVE_SIZE], wide: bool) {
    let control = u16::from_le_bytes([image[0], image[1]]) & 0x1f3f | 0x40;
    let status = u16::from_le_bytes([image[2], image[3]]) & !0x8080;
    // ES and B summarize the unmasked exceptions.
    let summary = if status & !control & 0x3f != 0 {
        0x8080
    } else {
        0
    };
    image[0..2].copy_from_slice(&control.to_le_bytes());
    image[2..4].copy_from_slice(&(status | summary).to_le_bytes());
    image[5] = 0;
    // The opcode has 11 bits, a register 80.
    image[7] &= 7;
    for slot in 0..8 {
        image[ST + 16 * slot + 10..ST + 16 * (slot + 1)].fill(0);
    }
    if !wide {
        image[12..16].fill(0);
        image[20..24].fill(0);
    }
}

/// Resets the vector registers that are reached outside 64-bit mode, and keeps the others in use.
fn keep_upper(
    image: &mut [u8; XSAVE_SIZE],
    reset: u64,
    before: u64,
    used: u64,
    zmm8: usize,
) -> u64 {
    let registers = cr::XCR0_SSE | cr::XCR0_AVX | cr::XCR0_ZMM_HI256 | cr::XCR0_HI16_ZMM;
    let kept = reset & before & registers;
    if kept & cr::XCR0_SSE != 0 {
        image[XMM..XMM + 128].fill(0);
    }
    if kept & cr::XCR0_AVX != 0 {
        image[EXTENDED..EXTENDED + 128].fill(0);
    }
    if kept & cr::XCR0_ZMM_HI256 != 0 {
        image[zmm8 - 256..zmm8].fill(0);
    }
    used | kept
}
