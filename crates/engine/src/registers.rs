//! Register sets as the engines exchange them, in the vocabulary of `struct kvm_regs` and
//! `struct kvm_sregs`.

/// General registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of their encodings.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

/// Attributes of a segment descriptor, bits 8 to 23 of its upper half (SDM vol. 3A, 3.4.5), as
/// in the VMX access-rights format: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15,
/// unusable 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SegmentAttributes(pub u32);

impl SegmentAttributes {
    /// The register holds a null selector.
    pub const UNUSABLE: u32 = 1 << 16;
    /// Present, writable data, accessed, DPL 0.
    pub const DATA16: Self = Self(0x93);
    /// Present, writable data, accessed, DPL 0, 32-bit, limit in pages.
    pub const DATA32: Self = Self(0xc093);
    /// Present, readable code, accessed, DPL 0, 32-bit, limit in pages.
    pub const CODE32: Self = Self(0xc09b);
    /// Present, readable code, accessed, DPL 0, 64-bit, limit in pages.
    pub const CODE64: Self = Self(0xa09b);
    /// Busy 32- or 64-bit task-state segment.
    pub const TSS_BUSY: Self = Self(0x8b);
    /// Local descriptor table.
    pub const LDT: Self = Self(0x82);

    /// Type field, 4 bits.
    pub const fn kind(self) -> u32 {
        self.0 & 0xf
    }
    /// Code or data rather than a system segment.
    pub const fn is_code_or_data(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }
    /// Present.
    pub const fn present(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// 64-bit code segment.
    pub const fn long(self) -> bool {
        self.0 & 1 << 13 != 0
    }
    /// Default operand size 32, or big stack.
    pub const fn big(self) -> bool {
        self.0 & 1 << 14 != 0
    }
    /// The register holds a null selector.
    pub const fn unusable(self) -> bool {
        self.0 & Self::UNUSABLE != 0
    }
    /// Code segment.
    pub const fn is_code(self) -> bool {
        self.0 & 0x18 == 0x18
    }
    /// Conforming code segment.
    pub const fn is_conforming(self) -> bool {
        self.0 & 0x1c == 0x1c
    }
    /// Writable data segment.
    pub const fn is_writable(self) -> bool {
        self.0 & 0x1a == 0x12
    }
    /// Readable code segment, or any data segment.
    pub const fn is_readable(self) -> bool {
        self.0 & 0x18 == 0x10 || self.0 & 0x1a == 0x1a
    }
    /// Expand-down data segment.
    pub const fn is_expand_down(self) -> bool {
        self.0 & 0x1c == 0x14
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Last valid offset in bytes, granularity applied.
    pub limit: u32,
    /// Attributes.
    pub attributes: SegmentAttributes,
    /// Visible selector.
    pub selector: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Last valid offset in bytes.
    pub limit: u16,
}

/// Segment, control and descriptor-table registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// ES, CS, SS, DS, FS, GS: the order of their encodings.
    pub segments: [Segment; 6],
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
    /// Task priority.
    pub cr8: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// IA32_APIC_BASE.
    pub apic_base: u64,
}
