//! `struct kvm_run`: the page through which the kernel says why a processor stopped.

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR,
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN,
    kvm_run,
};

/// KVM_INTERNAL_ERROR_EMULATION, _SIMUL_EX, _DELIVERY_EV, _UNEXPECTED_EXIT_REASON.
const SUBERRORS: [&str; 4] = [
    "it can't emulate the instruction",
    "exceptions came at the same time",
    "it failed while it delivered an event",
    "the processor stopped for a reason that it does not know",
];

/// Why KVM_RUN returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Port accesses.
    Ports(PortAccess),
    /// A load where no memory is.
    MmioRead {
        /// Guest physical address.
        address: u64,
        /// Bytes.
        size: u8,
    },
    /// A store where no writable memory is.
    MmioWrite {
        /// Guest physical address.
        address: u64,
        /// Bytes.
        size: u8,
        /// The value.
        value: u64,
    },
    /// HLT, on a machine without chips in the kernel.
    Halt,
    /// A triple fault.
    Shutdown,
    /// A breakpoint or a single step of the debugger.
    Debug {
        /// Linear address of the next instruction.
        address: u64,
    },
    /// Interrupts can be injected now, or a signal came.
    Again,
    /// KVM can't go on.
    Failure(&'static str),
    /// The processor refused the state of the guest.
    EntryFailure(u64),
    /// A reason that is not for us.
    Unknown(u32),
}

/// `IN`, `OUT`, or a burst of `INS` or `OUTS`, which one exit brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// `IN` or `INS`.
    pub input: bool,
    /// I/O port.
    pub port: u16,
    /// Bytes of an element.
    pub size: u8,
    /// Elements.
    pub count: u32,
    /// Offset of the next element in the page.
    offset: usize,
}

/// The page of one processor.
#[derive(Debug)]
pub struct RunPage<'a>(pub &'a mut kvm_run);

impl RunPage<'_> {
    /// Why KVM_RUN returned.
    pub fn reason(&self) -> Reason {
        let run = &*self.0;
        match run.exit_reason {
            KVM_EXIT_IO => {
                // SAFETY: the reason says that this member of the union is valid.
                let io = unsafe { run.__bindgen_anon_1.io };
                Reason::Ports(PortAccess {
                    input: u32::from(io.direction) == KVM_EXIT_IO_IN,
                    port: io.port,
                    size: io.size,
                    count: io.count,
                    offset: io.data_offset as usize,
                })
            }
            KVM_EXIT_MMIO => {
                // SAFETY: as above.
                let mmio = unsafe { run.__bindgen_anon_1.mmio };
                let size = mmio.len.min(8) as u8;
                let address = mmio.phys_addr;
                if mmio.is_write == 0 {
                    return Reason::MmioRead { address, size };
                }
                let mut bytes = mmio.data;
                bytes[usize::from(size)..].fill(0);
                Reason::MmioWrite {
                    address,
                    size,
                    value: u64::from_le_bytes(bytes),
                }
            }
            KVM_EXIT_HLT => Reason::Halt,
            KVM_EXIT_SHUTDOWN => Reason::Shutdown,
            KVM_EXIT_DEBUG => {
                // SAFETY: as above.
                let debug = unsafe { run.__bindgen_anon_1.debug };
                Reason::Debug {
                    address: debug.arch.pc,
                }
            }
            KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_INTR => Reason::Again,
            KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: as above.
                let internal = unsafe { run.__bindgen_anon_1.internal };
                let at = (internal.suberror as usize).wrapping_sub(1);
                Reason::Failure(SUBERRORS.get(at).copied().unwrap_or("an internal error"))
            }
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: as above.
                let failure = unsafe { run.__bindgen_anon_1.fail_entry };
                Reason::EntryFailure(failure.hardware_entry_failure_reason)
            }
            other => Reason::Unknown(other),
        }
    }

    /// The next element of an access, in the page.
    fn element(&mut self, access: &PortAccess) -> *mut u8 {
        std::ptr::from_mut(self.0)
            .cast::<u8>()
            .wrapping_add(access.offset)
    }

    /// The value of the next element of an `OUT`.
    pub fn output(&mut self, access: &PortAccess) -> u32 {
        let mut bytes = [0; 4];
        let size = usize::from(access.size).min(4);
        // SAFETY: the kernel's offset and count lie in the mapping that the page begins.
        unsafe {
            std::ptr::copy_nonoverlapping(self.element(access), bytes.as_mut_ptr(), size);
        }
        u32::from_le_bytes(bytes)
    }

    /// Answers the next element of an `IN`.
    pub fn input(&mut self, access: &PortAccess, value: u32) {
        let size = usize::from(access.size).min(4);
        // SAFETY: as above.
        unsafe {
            let bytes = value.to_le_bytes();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.element(access), size);
        }
    }

    /// The elements that are left of a burst of `OUTS`, in order.
    pub fn outputs(&mut self, access: &PortAccess) -> Vec<u8> {
        let mut bytes = vec![0; access.bytes()];
        // SAFETY: as above, for all elements.
        unsafe {
            let elements = self.element(access);
            std::ptr::copy_nonoverlapping(elements, bytes.as_mut_ptr(), bytes.len());
        }
        bytes
    }

    /// Answers the elements that are left of a burst of `INS`.
    pub fn inputs(&mut self, access: &PortAccess, data: &[u8]) {
        let count = data.len().min(access.bytes());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.element(access), count) };
    }

    /// Answers the elements that are left of a burst of `INS` by FFh, for now.
    pub fn fill(&mut self, access: &PortAccess) {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(self.element(access), 0xff, access.bytes()) };
    }

    /// Answers a load.
    pub fn load(&mut self, value: u64) {
        self.0.__bindgen_anon_1.mmio.data = value.to_le_bytes();
    }
}

impl PortAccess {
    /// Bytes of the elements that are left.
    fn bytes(&self) -> usize {
        self.count as usize * usize::from(self.size)
    }

    /// The access without its first element; `None` when that was the last.
    pub fn rest(mut self) -> Option<Self> {
        self.count = self.count.saturating_sub(1);
        self.offset += usize::from(self.size);
        (self.count > 0).then_some(self)
    }
}
