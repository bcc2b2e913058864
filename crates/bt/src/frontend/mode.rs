//! The part of the processor state that translations depend on.

use ringfence_engine::Segment;
use ringfence_x86::{cr, flags};

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, SS};

/// What is known of a segment at translation. Bases and, but for the classes with a fixed one,
/// limits are looked up when the code runs: they may change without a new translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentClass {
    /// Offsets are linear addresses: base 0, limit 4 GiB.
    Flat,
    /// Limit 4 GiB.
    Unlimited,
    /// Limit FFFFh.
    Limit64K,
    /// Another limit.
    Limited,
    /// Null, expand-down, not writable: the interpreter makes the checks.
    Checked,
}

/// Mode of a translation: flag bits, and the code segment outside 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    flags: u32,
    base: u32,
    limit: u32,
}

const BITS32: u32 = 1 << 0;
const USER: u32 = 1 << 1;
const FPU: u32 = 1 << 2;
const AVX: u32 = 1 << 3;
const NO_TSC: u32 = 1 << 4;
const BITS16: u32 = 1 << 5;
const STACK16: u32 = 1 << 6;
const SEPARATE: u32 = 1 << 7;
/// Real mode.
const REAL: u32 = 1 << 8;
/// Virtual-8086 mode.
const V86: u32 = 1 << 9;
/// The code segment may be read.
const READABLE: u32 = 1 << 10;
/// IOPL allows CLI, STI, PUSHF and POPF.
const IOPL: u32 = 1 << 11;
/// Classes of ES, SS, DS, FS and GS, three bits each.
const CLASSES: u32 = 12;
/// Supervisor code that may access user pages in spite of CR4.SMAP.
const ACCESS: u32 = 1 << 27;
/// AVX-512 instructions run.
const AVX512: u32 = 1 << 28;
/// Instructions are counted.
const COUNTED: u32 = 1 << 29;

impl Mode {
    /// Code that the translator does not take: the interpreter runs it.
    pub const INTERPRET: Self = Self {
        flags: u32::MAX,
        base: 0,
        limit: 0,
    };

    /// The mode that `cpu` is in.
    pub fn of(cpu: &Cpu) -> Self {
        let user = cpu.cpl == 3;
        let alignment = user && cpu.cr0 & cr::CR0_AM != 0 && cpu.rflags & flags::AC != 0;
        // RF holds for one instruction, where a breakpoint may lie.
        let debugged = cpu.breakpoints_hit != 0
            || cpu.rflags & flags::RF != 0 && crate::interp::breakpoints::armed(cpu);
        if debugged || cpu.rflags & flags::TF != 0 || alignment {
            return Self::INTERPRET;
        }
        let mut bits = 0;
        let (mut base, mut limit) = (0, 0);
        if !cpu.mode64() {
            let code = &cpu.seg[CS];
            (base, limit) = (code.base as u32, code.limit);
            let (real, v86) = (cpu.real_mode(), cpu.virtual8086());
            let set = |condition, bit| if condition { bit } else { 0 };
            bits |= if code.attributes.big() {
                BITS32
            } else {
                BITS16
            };
            bits |= set(!cpu.seg[SS].attributes.big(), STACK16)
                | set(real, REAL)
                | set(v86, V86)
                | set(real || v86 || code.attributes.is_readable(), READABLE);
            let down = code.attributes.is_expand_down();
            if down {
                // What a toggle of CR0.PE can leave in CS.
                return Self::INTERPRET;
            }
            for (i, segment) in [ES, SS, DS, FS, GS].into_iter().enumerate() {
                let class = class(&cpu.seg[segment], real || v86);
                bits |= (class as u32) << (CLASSES + 3 * i as u32);
            }
            let iopl = (cpu.rflags & flags::IOPL) >> flags::IOPL.trailing_zeros();
            bits |= set(u64::from(cpu.cpl) <= iopl, IOPL);
        }
        if user {
            bits |= USER;
        } else if cpu.rflags & flags::AC != 0 && cpu.cr4 & cr::CR4_SMAP != 0 {
            bits |= ACCESS;
        }
        // The interpreter sees when FERR# falls.
        let seen = cpu.fpu_error;
        if !seen && cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) == 0 && cpu.cr4 & cr::CR4_OSFXSR != 0 {
            bits |= FPU;
            if cpu.cr4 & cr::CR4_OSXSAVE != 0 && cpu.xcr0 & 7 == 7 && bits & (REAL | V86) == 0 {
                bits |= AVX;
                if cpu.xcr0 & cr::XCR0_AVX512 == cr::XCR0_AVX512 {
                    bits |= AVX512;
                }
            }
        }
        if user && cpu.cr4 & cr::CR4_TSD != 0 {
            bits |= NO_TSC;
        }
        Self {
            flags: bits,
            base,
            limit,
        }
    }

    /// The variant in which each access has a check of its own.
    pub fn with_separate(self, separate: bool) -> Self {
        Self {
            flags: self.flags & !SEPARATE | if separate { SEPARATE } else { 0 },
            ..self
        }
    }

    const fn has(self, bit: u32) -> bool {
        self.flags & bit != 0
    }

    /// The variant that counts instructions.
    pub fn with_counted(self) -> Self {
        Self {
            flags: self.flags | COUNTED,
            ..self
        }
    }

    /// Instructions are counted.
    pub fn counted(self) -> bool {
        self.has(COUNTED)
    }

    /// Each access has a check of its own.
    pub const fn separate(self) -> bool {
        self.has(SEPARATE)
    }

    /// Bits of code: 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        if self.has(BITS32) {
            32
        } else if self.has(BITS16) {
            16
        } else {
            64
        }
    }

    /// 64-bit mode.
    pub const fn long(self) -> bool {
        self.bits() == 64
    }

    /// The stack pointer is SP.
    pub const fn stack16(self) -> bool {
        self.has(STACK16)
    }

    /// Real mode.
    pub const fn real(self) -> bool {
        self.has(REAL)
    }

    /// Segments are loaded as the 8086 does: real or virtual-8086 mode.
    pub const fn as_8086(self) -> bool {
        self.has(REAL | V86)
    }

    /// Virtual-8086 mode.
    pub const fn virtual8086(self) -> bool {
        self.has(V86)
    }

    /// The privilege level allows changes of IF (outside 64-bit mode, where it is not asked).
    pub const fn iopl(self) -> bool {
        self.has(IOPL)
    }

    /// The mode after CLAC or STAC.
    pub fn with_access(self, access: bool) -> Self {
        Self {
            flags: self.flags & !ACCESS | if access { ACCESS } else { 0 },
            ..self
        }
    }

    /// Supervisor code that may access user pages in spite of CR4.SMAP.
    pub fn access(self) -> bool {
        self.has(ACCESS)
    }

    /// Privilege level 3.
    pub fn user(self) -> bool {
        self.has(USER)
    }

    /// Privilege class of memory accesses: see [`crate::context::CLASSES`].
    pub fn class(self) -> usize {
        match (self.user(), self.access()) {
            (true, _) => 1,
            (false, true) => 2,
            _ => 0,
        }
    }

    /// x87, MMX and SSE instructions run.
    pub const fn fpu(self) -> bool {
        self.has(FPU)
    }

    /// AVX instructions run.
    pub const fn avx(self) -> bool {
        self.has(AVX)
    }

    /// AVX-512 instructions run.
    pub const fn avx512(self) -> bool {
        self.has(AVX512)
    }

    /// RDTSC is allowed.
    pub const fn tsc(self) -> bool {
        !self.has(NO_TSC)
    }

    /// What is known of the segment with this index in [`Cpu::seg`].
    pub const fn segment(self, segment: usize) -> SegmentClass {
        if self.long() {
            return match segment {
                FS | GS => SegmentClass::Unlimited,
                _ => SegmentClass::Flat,
            };
        }
        let place = match segment {
            CS => return self.code_segment(),
            ES => 0,
            SS => 1,
            DS => 2,
            FS => 3,
            _ => 4,
        };
        match self.flags >> (CLASSES + 3 * place) & 7 {
            0 => SegmentClass::Flat,
            1 => SegmentClass::Unlimited,
            2 => SegmentClass::Limit64K,
            3 => SegmentClass::Limited,
            _ => SegmentClass::Checked,
        }
    }

    const fn code_segment(self) -> SegmentClass {
        match (self.has(READABLE), self.base, self.limit) {
            (false, ..) => SegmentClass::Checked,
            (_, 0, u32::MAX) => SegmentClass::Flat,
            (_, _, u32::MAX) => SegmentClass::Unlimited,
            (_, _, 0xffff) => SegmentClass::Limit64K,
            _ => SegmentClass::Limited,
        }
    }

    /// Limit of the code segment.
    pub const fn limit(self) -> u32 {
        self.limit
    }

    /// Linear address of an instruction pointer.
    pub const fn linear(self, ip: u64) -> u64 {
        if self.long() {
            ip
        } else {
            ip.wrapping_add(self.base as u64) & 0xffff_ffff
        }
    }

    /// Instruction pointer of a linear address.
    pub const fn ip(self, linear: u64) -> u64 {
        if self.long() {
            linear
        } else {
            linear.wrapping_sub(self.base as u64) & 0xffff_ffff
        }
    }

    /// The instruction pointer `ip`, found by adding to `from`, as it wraps in this mode.
    pub const fn wrap(self, ip: u64, from: u64) -> u64 {
        match self.bits() {
            64 => ip,
            16 if from <= 0xffff => ip & 0xffff,
            _ => ip & 0xffff_ffff,
        }
    }

    /// Whether `length` bytes of code at `ip` are in the code segment.
    pub const fn in_limit(self, ip: u64, length: u64) -> bool {
        self.long() || ip + length.saturating_sub(1) <= self.limit as u64
    }
}

fn class(segment: &Segment, as_8086: bool) -> SegmentClass {
    let a = segment.attributes;
    let usable = as_8086 || a.is_writable();
    if !usable || a.unusable() || a.is_expand_down() {
        return SegmentClass::Checked;
    }
    match (segment.base, segment.limit) {
        // Loads change the base alone where the 8086's rules hold.
        (0, u32::MAX) if !as_8086 => SegmentClass::Flat,
        (_, u32::MAX) => SegmentClass::Unlimited,
        (_, 0xffff) => SegmentClass::Limit64K,
        _ => SegmentClass::Limited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_mode_after_power_up() {
        let mode = Mode::of(&Cpu::new());
        assert_eq!((mode.bits(), mode.class()), (16, 0));
        assert!(mode.real() && mode.stack16() && mode.as_8086() && mode.iopl());
        assert_eq!(mode.segment(DS), SegmentClass::Limit64K);
        assert_eq!(mode.linear(0xfff0), 0xffff_fff0);
        assert_eq!(mode.ip(0xffff_0000), 0);
        assert_eq!(mode.wrap(0x1_0002, 0xfffe), 2);
        assert!(mode.in_limit(0xfffe, 2) && !mode.in_limit(0xfffe, 3));
    }

    #[test]
    fn a_load_changes_no_mode_where_the_8086_rules_hold() {
        let mut cpu = Cpu::new();
        let before = Mode::of(&cpu);
        cpu.seg[DS].base = 0x12340;
        assert_eq!(Mode::of(&cpu), before);
        cpu.seg[DS].limit = u32::MAX;
        let unreal = Mode::of(&cpu);
        assert_eq!(unreal.segment(DS), SegmentClass::Unlimited);
        cpu.seg[DS].base = 0;
        assert_eq!(Mode::of(&cpu), unreal);
    }
}
