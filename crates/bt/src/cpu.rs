//! The architectural state of one virtual processor.

use ringfence_engine::{DescriptorTable, Segment};
use ringfence_x86::{cr, flags};

/// Index of RAX in [`Cpu::gpr`].
pub const RAX: usize = 0;
/// Index of RCX in [`Cpu::gpr`].
pub const RCX: usize = 1;
/// Index of RDX in [`Cpu::gpr`].
pub const RDX: usize = 2;
/// Index of RBX in [`Cpu::gpr`].
pub const RBX: usize = 3;
/// Index of RSP in [`Cpu::gpr`].
pub const RSP: usize = 4;
/// Index of RBP in [`Cpu::gpr`].
pub const RBP: usize = 5;
/// Index of RSI in [`Cpu::gpr`].
pub const RSI: usize = 6;
/// Index of RDI in [`Cpu::gpr`].
pub const RDI: usize = 7;

/// Index of ES in [`Cpu::seg`].
pub const ES: usize = 0;
/// Index of CS in [`Cpu::seg`].
pub const CS: usize = 1;
/// Index of SS in [`Cpu::seg`].
pub const SS: usize = 2;
/// Index of DS in [`Cpu::seg`].
pub const DS: usize = 3;
/// Index of FS in [`Cpu::seg`].
pub const FS: usize = 4;
/// Index of GS in [`Cpu::seg`].
pub const GS: usize = 5;

/// Size in bytes of the XSAVE area that is kept for a processor: all components up to AVX-512.
pub const XSAVE_SIZE: usize = 4096;

/// XSAVE area, standard format (SDM vol. 1, 13.4): legacy region, header, extended region.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct XsaveArea(pub [u8; XSAVE_SIZE]);

/// Model-specific registers without hardware of their own.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What the guest added to its TSC: IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// Fixed-range MTRRs, in order of their numbers 250h, 258h, 259h, 268h to 26Fh.
    pub mtrr_fixed: [u64; 11],
    /// Variable-range MTRRs, base and mask alternating, from 200h.
    pub mtrr_variable: [u64; 16],
}

/// Registers of one virtual processor, as the architecture defines them.
///
/// The layout is fixed: translated code reaches the fields by their offsets.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Cpu {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Instruction pointer. Outside 64-bit mode the upper half is zero.
    pub rip: u64,
    /// All of RFLAGS, bit 1 set.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub seg: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table.
    pub idtr: DescriptorTable,
    /// Control register 0.
    pub cr0: u64,
    /// Page-fault linear address.
    pub cr2: u64,
    /// Page-table base.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// Extended control register 0.
    pub xcr0: u64,
    /// Debug registers; 4 and 5 are unused.
    pub dr: [u64; 8],
    /// Current privilege level, 0 in real mode, 3 in virtual-8086 mode.
    pub cpl: u8,
    /// STI or a load of SS blocks interrupts for one instruction.
    pub interrupt_shadow: bool,
    /// An NMI is being handled: further ones wait for IRET.
    pub nmi_blocked: bool,
    /// System-management mode.
    pub smm: bool,
    /// NMIs were blocked when it was entered.
    pub smm_nmi_blocked: bool,
    /// Where it saves the state, less 8000h.
    pub smbase: u32,
    /// FERR# is active: an x87 exception was reported while CR0.NE was clear.
    pub fpu_error: bool,
    /// HLT: wait for an interrupt.
    pub halted: bool,
    /// Data and I/O breakpoints that were met, by number: a debug exception is due.
    pub breakpoints_hit: u8,
    /// Model-specific registers.
    pub msr: Msrs,
    /// x87, SSE and AVX state, valid while it is not resident in host registers.
    pub xsave: XsaveArea,
}

impl Cpu {
    /// A processor after power-up (SDM vol. 3A, table 9-1).
    pub fn new() -> Box<Self> {
        let mut cpu = Box::new(Self {
            gpr: [0; 16],
            rip: 0,
            rflags: flags::FIXED,
            seg: Default::default(),
            ldtr: Default::default(),
            tr: Default::default(),
            gdtr: Default::default(),
            idtr: Default::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: cr::XCR0_X87,
            dr: [0; 8],
            cpl: 0,
            interrupt_shadow: false,
            nmi_blocked: false,
            smm: false,
            smm_nmi_blocked: false,
            smbase: 0,
            halted: false,
            fpu_error: false,
            breakpoints_hit: 0,
            msr: Msrs::default(),
            xsave: XsaveArea([0; XSAVE_SIZE]),
        });
        cpu.reset(false);
        cpu
    }

    /// Resets the processor: power-up, or INIT, which keeps x87 and SSE state, MSRs and the
    /// cache-control bits of CR0.
    pub fn reset(&mut self, init: bool) {
        use ringfence_engine::SegmentAttributes as A;
        self.gpr = [0; 16];
        self.rip = 0xfff0;
        self.rflags = flags::FIXED;
        let data = Segment {
            base: 0,
            limit: 0xffff,
            attributes: A::DATA16,
            selector: 0,
        };
        self.seg = [data; 6];
        self.seg[CS] = Segment {
            base: 0xffff_0000,
            selector: 0xf000,
            attributes: A(0x9b),
            ..data
        };
        self.ldtr = Segment {
            attributes: A::LDT,
            ..data
        };
        self.tr = Segment {
            attributes: A::TSS_BUSY,
            ..data
        };
        self.gdtr = DescriptorTable {
            base: 0,
            limit: 0xffff,
        };
        self.idtr = self.gdtr;
        let kept = if init {
            self.cr0 & (cr::CR0_CD | cr::CR0_NW)
        } else {
            cr::CR0_CD | cr::CR0_NW
        };
        self.cr0 = cr::CR0_ET | kept;
        (self.cr2, self.cr3, self.cr4, self.efer) = (0, 0, 0, 0);
        self.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
        self.cpl = 0;
        self.interrupt_shadow = false;
        self.nmi_blocked = false;
        self.halted = false;
        self.smm = false;
        self.breakpoints_hit = 0;
        self.fpu_error = false;
        if !init {
            self.smbase = 0x3_0000;
            self.xcr0 = cr::XCR0_X87;
            self.msr = Msrs {
                pat: 0x0007_0406_0007_0406,
                misc_enable: 1,
                ..Msrs::default()
            };
            self.xsave.0.fill(0);
            self.xsave.0[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
            self.xsave.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
            self.xsave.0[28..32].copy_from_slice(&0xffffu32.to_le_bytes());
            // The x87 and SSE components hold the values just written.
            self.xsave.0[512] = 3;
        }
    }

    /// Long mode is active (64-bit or compatibility mode).
    pub fn long_mode(&self) -> bool {
        self.efer & cr::EFER_LMA != 0
    }

    /// 64-bit mode: long mode with a 64-bit code segment.
    pub fn mode64(&self) -> bool {
        self.long_mode() && self.seg[CS].attributes.long()
    }

    /// Real mode (not virtual-8086).
    pub fn real_mode(&self) -> bool {
        self.cr0 & cr::CR0_PE == 0
    }

    /// Virtual-8086 mode.
    pub fn virtual8086(&self) -> bool {
        self.rflags & flags::VM != 0
    }

    /// Linear address of the instruction at RIP.
    pub fn code_address(&self) -> u64 {
        if self.mode64() {
            self.rip
        } else {
            self.seg[CS].base.wrapping_add(self.rip) & 0xffff_ffff
        }
    }

    /// Bits of code that is being executed: 16, 32 or 64.
    pub fn bitness(&self) -> u32 {
        if self.mode64() {
            64
        } else if self.seg[CS].attributes.big() {
            32
        } else {
            16
        }
    }

    /// Width in bits of the stack pointer: 16, 32 or 64.
    pub fn stack_bits(&self) -> u32 {
        if self.mode64() {
            64
        } else if self.seg[SS].attributes.big() {
            32
        } else {
            16
        }
    }
}
