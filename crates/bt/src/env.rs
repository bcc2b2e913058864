//! What an instruction may ask of the world outside its registers: memory through the MMU, I/O
//! ports, interrupt hardware, the TLB.

use iced_x86::Code;
use ringfence_engine::{Exit, LocalDevices};
use ringfence_x86::exception as ex;

use crate::cpu::Cpu;
use crate::interp::system::cpuid::Availability;
use crate::paravirt::Paravirt;

/// An exception that an instruction raises, before delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, for the vectors that have one.
    pub error_code: Option<u32>,
    /// For #PF: the linear address, stored in CR2 at delivery.
    pub address: Option<u64>,
}

/// Why an instruction did not retire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A fault: RIP still points to the instruction.
    Exception(Exception),
    /// The instruction needs the machine. It is executed again, from its start, when the machine
    /// has answered; accesses it made before are replayed, not repeated.
    Exit(Exit),
}

impl Trap {
    /// #UD.
    pub const UD: Self = Self::fault(ex::UD);
    /// #NM.
    pub const NM: Self = Self::fault(ex::NM);
    /// #DE.
    pub const DE: Self = Self::fault(ex::DE);
    /// #GP(0).
    pub const GP0: Self = Self::coded(ex::GP, 0);
    /// #SS(0).
    pub const SS0: Self = Self::coded(ex::SS, 0);

    /// A fault without an error code.
    pub const fn fault(vector: u8) -> Self {
        Self::Exception(Exception {
            vector,
            error_code: None,
            address: None,
        })
    }

    /// A fault with an error code.
    pub const fn coded(vector: u8, code: u32) -> Self {
        Self::Exception(Exception {
            vector,
            error_code: Some(code),
            address: None,
        })
    }

    /// A page fault at linear address `address`.
    pub const fn page_fault(address: u64, code: u32) -> Self {
        Self::Exception(Exception {
            vector: ex::PF,
            error_code: Some(code),
            address: Some(address),
        })
    }
}

/// Privilege with which memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// By the current privilege level.
    Current,
    /// As supervisor, whatever the level: descriptor tables, task-state segments.
    System,
}

/// Translations to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All translations, global ones as well: CR0.PG, CR0.WP, CR4 or EFER.NXE changed.
    All,
    /// Translations of pages that are not global: CR3 was loaded.
    NonGlobal,
    /// The translation of one linear address: INVLPG.
    Page(u64),
}

/// The world of one virtual processor, as instructions see it.
///
/// Linear addresses are complete: segment base added and truncated to 32 bits outside 64-bit
/// mode; checks of segment limits and of canonical form are done before.
pub trait Env {
    /// Fetches instruction bytes at linear address `linear` into `out`; returns how many.
    ///
    /// Stops before a page that can't be fetched if at least one byte was read.
    ///
    /// # Errors
    /// A page fault when not even the first byte can be fetched.
    fn fetch(&mut self, cpu: &mut Cpu, linear: u64, out: &mut [u8; 15]) -> Result<usize, Trap>;
    /// The page fault that fetching at `linear` raises, when decoding ran out of bytes there.
    ///
    /// # Errors
    /// Always, but when the page can be fetched by now.
    fn check_fetch(&mut self, cpu: &mut Cpu, linear: u64) -> Result<(), Trap>;
    /// Loads `out.len()` bytes (any number, page crossings and MMIO included).
    ///
    /// # Errors
    /// A page fault, or an exit to a device.
    fn load(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        out: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Trap>;
    /// Stores `data`; every page is checked before the first byte is written.
    ///
    /// # Errors
    /// A page fault, or an exit to a device.
    fn store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        data: &[u8],
        privilege: Privilege,
    ) -> Result<(), Trap>;
    /// Checks that `size` bytes can be written, without writing.
    ///
    /// # Errors
    /// A page fault.
    fn check_store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        privilege: Privilege,
    ) -> Result<(), Trap>;
    /// Replaces the `size`-byte (1, 2, 4, 8) value at `linear` by `f(value)`, atomically as seen
    /// by other processors when it is RAM; returns the old value. Faults like a store.
    ///
    /// # Errors
    /// A page fault, or an exit to a device.
    fn update(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Trap>;
    /// For bulk string operations: host address of `linear` when it is RAM that may be accessed
    /// without side effects, valid to the end of its 4 KiB page. `None`: go element by element.
    fn ram_page(&mut self, cpu: &mut Cpu, linear: u64, write: bool) -> Option<*mut u8>;
    /// Reads an I/O port; permission was checked.
    ///
    /// # Errors
    /// An exit to a device.
    fn port_in(&mut self, cpu: &mut Cpu, port: u16, size: u8) -> Result<u32, Trap>;
    /// Writes an I/O port; permission was checked.
    ///
    /// # Errors
    /// An exit to a device.
    fn port_out(&mut self, cpu: &mut Cpu, port: u16, size: u8, value: u32) -> Result<(), Trap>;
    /// Whether the machine has just answered a string access, which the instruction now repeats.
    fn string_answered(&self) -> bool {
        false
    }
    /// Reads the first elements of a repeated input, of `size` bytes each, into `out`; returns how
    /// many, at least one.
    ///
    /// # Errors
    /// An exit to a device.
    fn port_in_string(
        &mut self,
        cpu: &mut Cpu,
        port: u16,
        size: u8,
        out: &mut [u8],
    ) -> Result<usize, Trap> {
        let value = self.port_in(cpu, port, size)?;
        out[..usize::from(size)].copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
        Ok(1)
    }
    /// Writes the first elements of a repeated output, of `size` bytes each; returns how many, at
    /// least one.
    ///
    /// # Errors
    /// An exit to a device.
    fn port_out_string(
        &mut self,
        cpu: &mut Cpu,
        port: u16,
        size: u8,
        data: &[u8],
    ) -> Result<usize, Trap> {
        let mut value = [0; 4];
        value[..usize::from(size)].copy_from_slice(&data[..usize::from(size)]);
        self.port_out(cpu, port, size, u32::from_le_bytes(value))?;
        Ok(1)
    }
    /// One element of a repeated instruction is complete and its registers are committed: forget
    /// the accesses that a replay would answer.
    fn commit_element(&mut self);
    /// Whether a repeated instruction should pause before its next element (an interrupt or a
    /// kick waits): it then returns with RIP still on the instruction.
    fn should_yield(&mut self) -> bool;
    /// Drops translations.
    fn flush(&mut self, cpu: &mut Cpu, what: Flush);
    /// CPUID.
    fn cpuid(&mut self, cpu: &Cpu, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Whether the guest's processor has an instruction. The default has them all.
    fn availability(&self, _code: Code) -> Availability {
        Availability::Present
    }
    /// The guest's TSC, IA32_TSC_ADJUST included.
    fn tsc(&mut self, cpu: &Cpu) -> u64;
    /// A random number, where the host's generator must not be asked.
    fn random(&mut self) -> Option<u64> {
        None
    }
    /// The number of this processor.
    fn vcpu_id(&self) -> u32;
    /// Interrupt hardware.
    fn devices(&self) -> &dyn LocalDevices;
    /// What a guest that knows KVM's interface has of it; where there is none, nothing.
    fn paravirt(&mut self) -> Option<&mut Paravirt> {
        None
    }
}
