//! The part of the processor state that translations depend on.

use ringfence_engine::Segment;
use ringfence_x86::{cr, flags};

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, SS};

/// Mode bits of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// Code that the translator does not take: the interpreter runs it.
    pub const INTERPRET: Self = Self(u32::MAX);
    const BITS32: u32 = 1 << 0;
    const USER: u32 = 1 << 1;
    const FPU: u32 = 1 << 2;
    const AVX: u32 = 1 << 3;
    const NO_TSC: u32 = 1 << 4;
    const FS_CHECKED: u32 = 1 << 5;
    const GS_CHECKED: u32 = 1 << 6;
    const SEPARATE: u32 = 1 << 7;
    const ACCESS: u32 = 1 << 8;

    /// The mode that `cpu` is in.
    pub fn of(cpu: &Cpu) -> Self {
        let user = cpu.cpl == 3;
        let alignment = user && cpu.cr0 & cr::CR0_AM != 0 && cpu.rflags & flags::AC != 0;
        // RF holds for one instruction, where a breakpoint may lie.
        let debugged = cpu.breakpoints_hit != 0
            || cpu.rflags & flags::RF != 0 && crate::interp::breakpoints::armed(cpu);
        if debugged
            || cpu.rflags & (flags::TF | flags::VM) != 0
            || alignment
            || cpu.cr0 & cr::CR0_PE == 0
        {
            return Self::INTERPRET;
        }
        let mut bits = 0;
        if !cpu.mode64() {
            let flat = [SS, DS, ES].iter().all(|&s| is_flat(&cpu.seg[s]));
            let code = &cpu.seg[CS];
            let stack_big = cpu.seg[SS].attributes.big();
            let code_flat = code.base == 0 && code.limit == u32::MAX && code.attributes.big();
            if !flat || !code_flat || !stack_big {
                return Self::INTERPRET;
            }
            bits |= Self::BITS32;
            for (segment, bit) in [(FS, Self::FS_CHECKED), (GS, Self::GS_CHECKED)] {
                let s = &cpu.seg[segment];
                let unlimited = s.limit == u32::MAX && s.attributes.is_writable();
                if !unlimited || s.attributes.unusable() || s.attributes.is_expand_down() {
                    bits |= bit;
                }
            }
        }
        if user {
            bits |= Self::USER;
        } else if cpu.rflags & flags::AC != 0 && cpu.cr4 & cr::CR4_SMAP != 0 {
            bits |= Self::ACCESS;
        }
        if cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) == 0 && cpu.cr4 & cr::CR4_OSFXSR != 0 {
            bits |= Self::FPU;
            if cpu.cr4 & cr::CR4_OSXSAVE != 0 && cpu.xcr0 & 7 == 7 {
                bits |= Self::AVX;
            }
        }
        if user && cpu.cr4 & cr::CR4_TSD != 0 {
            bits |= Self::NO_TSC;
        }
        Self(bits)
    }

    /// The variant in which each access has a check of its own.
    pub fn with_separate(self, separate: bool) -> Self {
        Self(self.0 & !Self::SEPARATE | if separate { Self::SEPARATE } else { 0 })
    }

    /// Each access has a check of its own.
    pub fn separate(self) -> bool {
        self.0 & Self::SEPARATE != 0
    }

    /// Bits of code: 32 or 64.
    pub fn bits(self) -> u32 {
        if self.0 & Self::BITS32 != 0 { 32 } else { 64 }
    }

    /// The mode after CLAC or STAC.
    pub fn with_access(self, access: bool) -> Self {
        Self(self.0 & !Self::ACCESS | if access { Self::ACCESS } else { 0 })
    }

    /// Supervisor code that may access user pages in spite of CR4.SMAP.
    pub fn access(self) -> bool {
        self.0 & Self::ACCESS != 0
    }

    /// Privilege level 3.
    pub fn user(self) -> bool {
        self.0 & Self::USER != 0
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
    pub fn fpu(self) -> bool {
        self.0 & Self::FPU != 0
    }

    /// AVX instructions run.
    pub fn avx(self) -> bool {
        self.0 & Self::AVX != 0
    }

    /// RDTSC is allowed.
    pub fn tsc(self) -> bool {
        self.0 & Self::NO_TSC == 0
    }

    /// Accesses through this segment register (FS or GS) need checks that only the interpreter
    /// makes.
    pub fn checked(self, segment: usize) -> bool {
        match segment {
            FS => self.0 & Self::FS_CHECKED != 0,
            GS => self.0 & Self::GS_CHECKED != 0,
            _ => false,
        }
    }
}

fn is_flat(segment: &Segment) -> bool {
    let a = segment.attributes;
    segment.base == 0
        && segment.limit == u32::MAX
        && !a.unusable()
        && a.is_writable()
        && !a.is_expand_down()
}
