//! Reasons why a virtual processor leaves the engine.

/// What a virtual processor wants from the machine. Names and meaning follow `struct kvm_run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `IN`: the next [`run`](crate::Vcpu::run) gets the value.
    PortIn {
        /// I/O port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
    },
    /// `OUT`.
    PortOut {
        /// I/O port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// The value written.
        value: u32,
    },
    /// `REP INS`, several elements at once: [`answer_string`](crate::Vcpu::answer_string) gives
    /// their bytes before the next [`run`](crate::Vcpu::run). An engine may send single
    /// [`Exit::PortIn`]s instead.
    PortInString {
        /// I/O port.
        port: u16,
        /// 1, 2 or 4 bytes an element.
        size: u8,
        /// Elements, in at most 4 KiB.
        count: u16,
    },
    /// `REP OUTS`, several elements at once.
    PortOutString {
        /// I/O port.
        port: u16,
        /// 1, 2 or 4 bytes an element.
        size: u8,
        /// The elements, in order.
        data: Vec<u8>,
    },
    /// A load from an address without memory: the next [`run`](crate::Vcpu::run) gets the value.
    MmioRead {
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        size: u8,
    },
    /// A store to an address without writable memory.
    MmioWrite {
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        size: u8,
        /// The value stored.
        value: u64,
    },
    /// `HLT`, where the engine has no interrupt hardware to wake it.
    Halt,
    /// The processor shut down: a triple fault.
    Shutdown,
    /// `VMCALL` or `VMMCALL`.
    Hypercall,
    /// A breakpoint or single step that a debugger asked for.
    Debug {
        /// Linear address of the next instruction.
        address: u64,
    },
    /// Another thread kicked the processor.
    Interrupted,
}

/// Why an engine can't go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The host lacks something that the engine needs.
    #[error("this host can't run the {engine} engine: {reason}")]
    Unsupported {
        /// Name of the engine.
        engine: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A state that was handed in is not valid.
    #[error("invalid processor state: {0}")]
    BadState(String),
    /// The host refused a resource.
    #[error("the host refused {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The guest did what the engine can't.
    #[error("the engine can't execute {instruction}: {reason}")]
    Emulation {
        /// The instruction, disassembled, or its address.
        instruction: String,
        /// Why.
        reason: String,
    },
    /// A defect of the engine itself.
    #[error("internal error of the engine: {0}")]
    Internal(String),
}
