//! The x87 and SSE images in memory (SDM vol. 1, 8.1.10 and 10.5), and vector registers in the
//! XSAVE area.

use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

use iced_x86::{Code, Instruction, Mnemonic};
use ringfence_x86::{cr, exception};

use super::class::{Kind, fpu_check};
use crate::cpu::{Cpu, XSAVE_SIZE};
use crate::env::{Env, Privilege, Trap};
use crate::interp::address::{operand_address, store};
use crate::interp::{address, retire};

/// Offset of XSTATE_BV.
const XSTATE_BV: usize = 512;
/// Offset of the upper halves of YMM0 to YMM15, the same on every processor.
const YMM_HIGH: usize = 576;
/// Bytes of the opmask registers, the upper halves of ZMM0 to ZMM15, and ZMM16 to ZMM31.
const AVX512_SIZES: [usize; 3] = [64, 512, 1024];
/// Offsets of these components on this host; none lies beyond the area where they are offered.
static AVX512: LazyLock<[usize; 3]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        // SAFETY: every processor with XSAVE has the leaf, and CPUID has no effect.
        #[allow(unused_unsafe)]
        let leaf = unsafe { __cpuid_count(0xd, index as u32 + 5) };
        (leaf.ebx as usize).min(XSAVE_SIZE - AVX512_SIZES[index])
    })
});
/// Offsets in the legacy region.
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
/// Bits of MXCSR that exist.
pub const MXCSR_MASK: u32 = 0xffff;
/// FSW.ES and FSW.B.
const FSW_PENDING: u16 = 0x8080;

fn word(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn double_word(bytes: &[u8], offset: usize) -> u32 {
    u32::from(word(bytes, offset)) | u32::from(word(bytes, offset + 2)) << 16
}

fn set_word(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
}

fn set_double_word(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes a component explicit: what was in its initial state is written out and marked in use.
fn materialize(cpu: &mut Cpu, component: u64) {
    let area = &mut cpu.xsave.0;
    if u64::from(area[XSTATE_BV]) & component != 0 {
        return;
    }
    area[XSTATE_BV] |= component as u8;
    match component {
        cr::XCR0_X87 => {
            area[..MXCSR].fill(0);
            area[ST..XMM].fill(0);
            set_word(area, 0, 0x037f);
        }
        cr::XCR0_SSE => area[XMM..XMM + 256].fill(0),
        cr::XCR0_AVX => area[YMM_HIGH..YMM_HIGH + 256].fill(0),
        _ => {
            let index = component.trailing_zeros() as usize - 5;
            area[AVX512[index]..][..AVX512_SIZES[index]].fill(0);
        }
    }
}

/// Whether an unmasked x87 exception waits to be reported.
pub fn x87_pending(cpu: &Cpu) -> bool {
    let area = &cpu.xsave.0;
    u64::from(area[XSTATE_BV]) & cr::XCR0_X87 != 0 && word(area, FSW) & 0x80 != 0
}

/// MXCSR.
pub fn mxcsr(cpu: &Cpu) -> u32 {
    double_word(&cpu.xsave.0, MXCSR)
}

/// FCW and FSW.
pub fn x87_words(cpu: &mut Cpu) -> (u16, u16) {
    materialize(cpu, cr::XCR0_X87);
    (word(&cpu.xsave.0, 0), word(&cpu.xsave.0, FSW))
}

/// Sets FCW; FSW.ES and B follow from the masks.
pub fn set_x87_control(cpu: &mut Cpu, control: u16) {
    materialize(cpu, cr::XCR0_X87);
    let area = &mut cpu.xsave.0;
    let status = word(area, FSW) & !FSW_PENDING;
    let pending = if status & !control & 0x3f != 0 {
        FSW_PENDING
    } else {
        0
    };
    set_word(area, 0, control);
    set_word(area, FSW, status | pending);
}

/// Replaces host addresses that a native run left in FIP and FDP by the guest's.
pub fn fix_pointers(cpu: &mut Cpu, code: std::ops::Range<u64>, data: Option<u64>) {
    let area = &mut cpu.xsave.0;
    let fip = u64::from(double_word(area, FIP)) | u64::from(double_word(area, FIP + 4)) << 32;
    if !code.contains(&fip) {
        return;
    }
    let mut rip = cpu.rip;
    let mut pointer = data.unwrap_or(0);
    if !(cpu.efer & cr::EFER_LMA != 0 && cpu.seg[crate::cpu::CS].attributes.long()) {
        rip = rip & 0xffff_ffff | u64::from(cpu.seg[crate::cpu::CS].selector) << 32;
        pointer &= 0xffff_ffff;
    }
    area[FIP..FIP + 8].copy_from_slice(&rip.to_le_bytes());
    area[FDP..FDP + 8].copy_from_slice(&pointer.to_le_bytes());
}

/// Prepares the area for XRSTOR: reserved bits clear, whatever was loaded into it.
pub fn sanitize(cpu: &mut Cpu, components: u64) {
    let area = &mut cpu.xsave.0;
    let masked = mxcsr_of(area) & MXCSR_MASK;
    set_double_word(area, MXCSR, masked);
    let mut header = [0; 64];
    for (index, byte) in components.to_le_bytes().into_iter().enumerate() {
        header[index] = area[XSTATE_BV + index] & byte;
    }
    area[XSTATE_BV..XSTATE_BV + 64].copy_from_slice(&header);
}

fn mxcsr_of(area: &[u8]) -> u32 {
    double_word(area, MXCSR)
}

/// XMM or YMM register `index` as 32 bytes.
pub fn vector(cpu: &Cpu, index: usize) -> [u8; 32] {
    let (area, index) = (&cpu.xsave.0, index & 15);
    let used = u64::from(area[XSTATE_BV]);
    let mut value = [0; 32];
    if used & cr::XCR0_SSE != 0 {
        value[..16].copy_from_slice(&area[XMM + 16 * index..][..16]);
    }
    if used & cr::XCR0_AVX != 0 {
        value[16..].copy_from_slice(&area[YMM_HIGH + 16 * index..][..16]);
    }
    value
}

/// Sets YMM register `index`; the rest of the ZMM register stays.
pub fn set_vector_part(cpu: &mut Cpu, index: usize, value: &[u8; 32]) {
    materialize(cpu, cr::XCR0_SSE);
    materialize(cpu, cr::XCR0_AVX);
    let (area, index) = (&mut cpu.xsave.0, index & 15);
    area[XMM + 16 * index..][..16].copy_from_slice(&value[..16]);
    area[YMM_HIGH + 16 * index..][..16].copy_from_slice(&value[16..]);
}

/// Sets all of YMM register `index`, and clears the rest of the ZMM register.
pub fn set_vector(cpu: &mut Cpu, index: usize, value: &[u8; 32]) {
    set_vector_part(cpu, index, value);
    let (area, index) = (&mut cpu.xsave.0, index & 15);
    if u64::from(area[XSTATE_BV]) & cr::XCR0_ZMM_HI256 != 0 {
        // What writes a YMM register clears the rest.
        area[AVX512[1] + 32 * index..][..32].fill(0);
    }
}

/// Opmask register `index`.
pub fn opmask(cpu: &Cpu, index: usize) -> u64 {
    let area = &cpu.xsave.0;
    if u64::from(area[XSTATE_BV]) & cr::XCR0_OPMASK == 0 {
        return 0;
    }
    let at = AVX512[0] + 8 * (index & 7);
    u64::from(double_word(area, at)) | u64::from(double_word(area, at + 4)) << 32
}

/// Sets opmask register `index`.
pub fn set_opmask(cpu: &mut Cpu, index: usize, value: u64) {
    materialize(cpu, cr::XCR0_OPMASK);
    let at = AVX512[0] + 8 * (index & 7);
    cpu.xsave.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// ZMM register `index`.
pub fn zmm(cpu: &Cpu, index: usize) -> [u8; 64] {
    let (area, index) = (&cpu.xsave.0, index & 31);
    let used = u64::from(area[XSTATE_BV]);
    let mut value = [0; 64];
    if index >= 16 {
        if used & cr::XCR0_HI16_ZMM != 0 {
            value.copy_from_slice(&area[AVX512[2] + 64 * (index - 16)..][..64]);
        }
        return value;
    }
    value[..32].copy_from_slice(&vector(cpu, index));
    if used & cr::XCR0_ZMM_HI256 != 0 {
        value[32..].copy_from_slice(&area[AVX512[1] + 32 * index..][..32]);
    }
    value
}

/// Sets ZMM register `index`.
pub fn set_zmm(cpu: &mut Cpu, index: usize, value: &[u8; 64]) {
    let index = index & 31;
    if index >= 16 {
        materialize(cpu, cr::XCR0_HI16_ZMM);
        cpu.xsave.0[AVX512[2] + 64 * (index - 16)..][..64].copy_from_slice(value);
        return;
    }
    let mut low = [0; 32];
    low.copy_from_slice(&value[..32]);
    set_vector(cpu, index, &low);
    materialize(cpu, cr::XCR0_ZMM_HI256);
    cpu.xsave.0[AVX512[1] + 32 * index..][..32].copy_from_slice(&value[32..]);
}

/// FWAIT, FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, FNSTENV, FLDENV, FNSAVE, FRSTOR; `None` for others.
pub fn execute<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Option<Result<(), Trap>> {
    use Mnemonic::*;
    let result = match instruction.mnemonic() {
        Wait => wait(cpu),
        Fxsave | Fxsave64 => fxsave(cpu, env, instruction),
        Fxrstor | Fxrstor64 => fxrstor(cpu, env, instruction),
        Ldmxcsr | Vldmxcsr | Stmxcsr | Vstmxcsr => move_mxcsr(cpu, env, instruction),
        Fnstenv | Fnsave => store_environment(cpu, env, instruction),
        Fldenv | Frstor => load_environment(cpu, env, instruction),
        _ => return None,
    };
    Some(result.and_then(|()| retire(cpu, instruction)))
}

fn wait(cpu: &Cpu) -> Result<(), Trap> {
    let both = cr::CR0_MP | cr::CR0_TS;
    if cpu.cr0 & both == both {
        return Err(Trap::NM);
    }
    if x87_pending(cpu) {
        Err(Trap::fault(exception::MF))
    } else {
        Ok(())
    }
}

/// Bytes of the FXSAVE image that are used: XMM8 to XMM15 exist in 64-bit mode only.
fn image_length(cpu: &Cpu) -> usize {
    if cpu.mode64() { XMM + 256 } else { XMM + 128 }
}

fn fxsave_address(cpu: &Cpu, instruction: &Instruction, write: bool) -> Result<u64, Trap> {
    if cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 {
        return Err(Trap::NM);
    }
    let linear = operand_address(cpu, instruction, 512, write)?;
    if linear & 15 != 0 {
        Err(Trap::GP0)
    } else {
        Ok(linear)
    }
}

fn fxsave<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let linear = fxsave_address(cpu, instruction, true)?;
    env.check_store(cpu, linear, 512, Privilege::Current)?;
    materialize(cpu, cr::XCR0_X87);
    materialize(cpu, cr::XCR0_SSE);
    let mut image = [0; XMM + 256];
    image.copy_from_slice(&cpu.xsave.0[..XMM + 256]);
    set_double_word(&mut image, MXCSR + 4, MXCSR_MASK);
    if instruction.mnemonic() == Mnemonic::Fxsave && cpu.mode64() {
        // 32-bit pointers with selectors, which 64-bit mode does not record.
        image[FIP + 4..FIP + 8].fill(0);
        image[FDP + 4..FDP + 8].fill(0);
    }
    env.store(cpu, linear, &image[..image_length(cpu)], Privilege::Current)
}

fn fxrstor<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let linear = fxsave_address(cpu, instruction, false)?;
    let mut image = [0; 512];
    env.load(cpu, linear, &mut image, Privilege::Current)?;
    if mxcsr_of(&image) & !MXCSR_MASK != 0 {
        return Err(Trap::GP0);
    }
    materialize(cpu, cr::XCR0_X87);
    materialize(cpu, cr::XCR0_SSE);
    if instruction.mnemonic() == Mnemonic::Fxrstor && cpu.mode64() {
        image[FIP + 4..FIP + 8].fill(0);
        image[FDP + 4..FDP + 8].fill(0);
    }
    let length = image_length(cpu);
    cpu.xsave.0[..length].copy_from_slice(&image[..length]);
    Ok(())
}

fn move_mxcsr<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    let vex = matches!(
        instruction.mnemonic(),
        Mnemonic::Vldmxcsr | Mnemonic::Vstmxcsr
    );
    fpu_check(cpu, if vex { Kind::Avx } else { Kind::Sse })?;
    let is_load = matches!(
        instruction.mnemonic(),
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr
    );
    let linear = operand_address(cpu, instruction, 4, !is_load)?;
    if !is_load {
        let value = u64::from(mxcsr(cpu));
        return store(cpu, env, linear, 4, value);
    }
    let value = address::load(cpu, env, linear, 4)? as u32;
    if value & !MXCSR_MASK != 0 {
        return Err(Trap::GP0);
    }
    set_double_word(&mut cpu.xsave.0, MXCSR, value);
    Ok(())
}

/// How an x87 environment lies in memory.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of a field: 2 or 4.
    field: usize,
    /// Pointers as linear addresses, in real mode and virtual-8086 mode.
    real: bool,
}

impl Layout {
    fn new(cpu: &Cpu, instruction: &Instruction) -> Self {
        let narrow = matches!(
            instruction.code(),
            Code::Fnstenv_m14byte
                | Code::Fldenv_m14byte
                | Code::Fnsave_m94byte
                | Code::Frstor_m94byte
        );
        let real = cpu.real_mode() || cpu.virtual8086();
        Self {
            field: if narrow { 2 } else { 4 },
            real,
        }
    }

    fn length(self) -> usize {
        7 * self.field
    }
}

/// FNSTENV masks all exceptions afterwards, FNSAVE initializes.
fn store_environment<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    fpu_check(cpu, Kind::X87Control)?;
    let layout = Layout::new(cpu, instruction);
    let all = instruction.mnemonic() == Mnemonic::Fnsave;
    let length = layout.length() + if all { 80 } else { 0 };
    let linear = operand_address(cpu, instruction, length, true)?;
    materialize(cpu, cr::XCR0_X87);
    let mut image = [0; 108];
    write_environment(&cpu.xsave.0, layout, &mut image);
    if all {
        for register in 0..8 {
            let from = &cpu.xsave.0[ST + 16 * register..][..10];
            image[layout.length() + 10 * register..][..10].copy_from_slice(from);
        }
    }
    env.store(cpu, linear, &image[..length], Privilege::Current)?;
    let area = &mut cpu.xsave.0;
    if all {
        area[..MXCSR].fill(0);
        set_word(area, 0, 0x037f);
    } else {
        let (control, status) = (word(area, 0) | 0x3f, word(area, FSW) & !FSW_PENDING);
        set_word(area, 0, control);
        set_word(area, FSW, status);
    }
    Ok(())
}

fn write_environment(area: &[u8], layout: Layout, image: &mut [u8]) {
    let (fip, fdp) = (double_word(area, FIP), double_word(area, FDP));
    let (fcs, fds) = (word(area, FIP + 4), word(area, FDP + 4));
    let opcode = u32::from(word(area, FOP) & 0x7ff);
    let status = [word(area, 0), word(area, FSW), full_tags(area)];
    let pointers = match (layout.real, layout.field) {
        (false, 2) => [fip, u32::from(fcs), fdp, u32::from(fds)],
        (false, _) => [
            fip,
            u32::from(fcs) | opcode << 16,
            fdp,
            u32::from(fds) | 0xffff_0000,
        ],
        (true, _) => [
            fip & 0xffff,
            (fip >> 16) << 12 | opcode,
            fdp & 0xffff,
            (fdp >> 16) << 12,
        ],
    };
    let reserved = if layout.field == 4 { 0xffff_0000 } else { 0 };
    let fields = status
        .map(|value| u32::from(value) | reserved)
        .into_iter()
        .chain(pointers);
    for (index, value) in fields.enumerate() {
        let at = index * layout.field;
        image[at..at + layout.field].copy_from_slice(&value.to_le_bytes()[..layout.field]);
    }
}

/// The tag word of 16 bits from the abridged one and the contents (SDM vol. 1, 8.1.7).
fn full_tags(area: &[u8]) -> u16 {
    let top = usize::from(word(area, FSW) >> 11 & 7);
    let mut tags = 0;
    for physical in 0..8 {
        let tag = if area[FTW] & 1 << physical == 0 {
            3
        } else {
            let at = ST + 16 * ((physical + 8 - top) & 7);
            let exponent = word(area, at + 8) & 0x7fff;
            let (low, high) = (double_word(area, at), double_word(area, at + 4));
            match exponent {
                0 if low == 0 && high == 0 => 1,
                0 | 0x7fff => 2,
                _ if high >> 31 == 0 => 2,
                _ => 0,
            }
        };
        tags |= tag << (2 * physical);
    }
    tags
}

/// FLDENV and FRSTOR.
fn load_environment<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
) -> Result<(), Trap> {
    fpu_check(cpu, Kind::X87)?;
    let layout = Layout::new(cpu, instruction);
    let all = instruction.mnemonic() == Mnemonic::Frstor;
    let length = layout.length() + if all { 80 } else { 0 };
    let linear = operand_address(cpu, instruction, length, false)?;
    let mut image = [0; 108];
    env.load(cpu, linear, &mut image[..length], Privilege::Current)?;
    materialize(cpu, cr::XCR0_X87);
    let field = |index: usize| {
        let at = index * layout.field;
        if layout.field == 2 {
            u32::from(word(&image, at))
        } else {
            double_word(&image, at)
        }
    };
    let area = &mut cpu.xsave.0;
    let (control, mut status) = (field(0) as u16, field(1) as u16 & !FSW_PENDING);
    if status & !control & 0x3f != 0 {
        status |= FSW_PENDING;
    }
    set_word(area, 0, control);
    set_word(area, FSW, status);
    let tags = field(2);
    area[FTW] = (0..8).fold(0, |used, i| used | u8::from(tags >> (2 * i) & 3 != 3) << i);
    let [fip, selector, fdp, data_selector] = [3, 4, 5, 6].map(field);
    let (fip, fcs, fdp, fds, opcode) = if layout.real {
        let (fip, fdp) = (
            fip & 0xffff | selector >> 12 << 16,
            fdp & 0xffff | data_selector >> 12 << 16,
        );
        (fip, 0, fdp, 0, selector & 0x7ff)
    } else if layout.field == 2 {
        (fip, selector, fdp, data_selector, 0)
    } else {
        (
            fip,
            selector & 0xffff,
            fdp,
            data_selector & 0xffff,
            selector >> 16 & 0x7ff,
        )
    };
    set_word(area, FOP, opcode as u16);
    set_double_word(area, FIP, fip);
    set_double_word(area, FIP + 4, fcs);
    set_double_word(area, FDP, fdp);
    set_double_word(area, FDP + 4, fds);
    if all {
        for register in 0..8 {
            let from = &image[layout.length() + 10 * register..][..10];
            area[ST + 16 * register..][..10].copy_from_slice(from);
            area[ST + 16 * register + 10..][..6].fill(0);
        }
    }
    Ok(())
}
