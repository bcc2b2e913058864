//! The whole state of a virtual processor, in the vocabulary of the KVM API, so that one engine
//! can go on where another stopped.

use crate::{Registers, SystemRegisters};

/// Debug registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugRegisters {
    /// DR0 to DR3: linear addresses.
    pub addresses: [u64; 4],
    /// DR6: status.
    pub dr6: u64,
    /// DR7: control.
    pub dr7: u64,
}

/// What a processor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Executes instructions.
    #[default]
    Running,
    /// Waits in `HLT`.
    Halted,
    /// Waits for a start-up IPI.
    WaitingForStartup,
}

/// An event whose delivery was begun and has to be made again. What an instruction raises of its
/// own accord (INT n, INT3, INTO) is not one: the instruction is executed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Vector.
    pub vector: u8,
    /// Error code of an exception that has one.
    pub error_code: Option<u32>,
    /// What it is.
    pub kind: InjectedKind,
}

/// Kinds of [`Injected`] events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedKind {
    /// An exception of the instruction at RIP.
    Exception,
    /// An external interrupt, acknowledged already.
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
}

/// Interrupts and exceptions in flight (`struct kvm_vcpu_events`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// STI or a load of SS blocks interrupts for one instruction.
    pub interrupt_shadow: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// An NMI is being handled: further ones wait for IRET.
    pub nmi_blocked: bool,
    /// What is being delivered.
    pub injected: Option<Injected>,
}

/// The whole state of a virtual processor, but for its local APIC, which is the machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorState {
    /// General registers.
    pub registers: Registers,
    /// Segment, control and descriptor-table registers.
    pub system: SystemRegisters,
    /// Extended control register 0.
    pub xcr0: u64,
    /// Standard-format XSAVE image.
    pub xsave: Vec<u8>,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// Model-specific registers that are in none of the other sets, by number. The time-stamp
    /// counter is the machine's clock and not among them.
    pub msrs: Vec<(u32, u64)>,
    /// Interrupts and exceptions in flight.
    pub events: Events,
    /// Running, halted, or not started.
    pub activity: Activity,
}

/// Model-specific registers that a [`ProcessorState`] holds, where the processor has them.
pub const STATE_MSRS: [u32; 41] = {
    let mut list = [
        0x3b, // IA32_TSC_ADJUST
        0x174,
        0x175,
        0x176, // IA32_SYSENTER_CS, _ESP, _EIP
        0x1a0, // IA32_MISC_ENABLE
        0x277, // IA32_PAT
        0x2ff, // IA32_MTRR_DEF_TYPE
        0xc000_0081,
        0xc000_0082,
        0xc000_0083,
        0xc000_0084, // STAR, LSTAR, CSTAR, FMASK
        0xc000_0102,
        0xc000_0103, // KERNEL_GS_BASE, TSC_AUX
        0x250,
        0x258,
        0x259,
        0x268,
        0x269,
        0x26a,
        0x26b,
        0x26c,
        0x26d,
        0x26e,
        0x26f, // fixed MTRRs
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    // Variable MTRRs: base and mask of eight.
    let mut index = 0;
    while index < 16 {
        list[24 + index] = 0x200 + index as u32;
        index += 1;
    }
    list[40] = 0xda0; // IA32_XSS
    list
};

/// What a debugger wants of a processor (`struct kvm_guest_debug`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debugging {
    /// Leave with [`Exit::Debug`](crate::Exit::Debug) after each instruction.
    pub single_step: bool,
    /// Leave before the instruction at each of these linear addresses, but not before the one
    /// that a call of `run` begins with.
    pub breakpoints: [Option<u64>; 4],
}
