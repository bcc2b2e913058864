//! `Machine`: guest memory, interrupt hardware and processors.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringfence_chips::{MAX_VCPUS, VideoSlot};
use ringfence_engine::{Clock, Counted, IoAddress, IoEvent, IrqSource, MachineOps};
use ringfence_engines::{ChipsChoice, Description, build};
use ringfence_memory::{GuestMemory, MapOptions, MemoryError, RegionKind};
use ringfence_x86::cpuid::CpuSpec;

use crate::error::Failure;
use crate::funnel::detached;
use crate::memory::Memory;
use crate::vcpu::Vcpu;
use crate::video::Video;

/// Global system interrupts that are wired to something.
const GSIS: u32 = ringfence_chips::ioapic::PINS as u32;

/// Guest memory, interrupt hardware (PICs, PIT, local and I/O APICs) and processors of one
/// virtual machine on one engine. Thread-safe.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct Machine {
    engine: String,
    memory: Arc<GuestMemory>,
    machine: Arc<dyn MachineOps>,
    video: Arc<VideoSlot>,
    clock: Arc<Clock>,
    vcpus: Vec<Py<Vcpu>>,
}

/// A copy of a descriptor of the caller's.
fn own(fd: i32) -> Result<OwnedFd, Failure> {
    let bad = || Failure::BadArgument(format!("{fd} is not an open file descriptor"));
    if fd < 0 {
        return Err(bad());
    }
    // SAFETY: the descriptor is only copied, which fails if it is not open.
    unsafe { BorrowedFd::borrow_raw(fd) }
        .try_clone_to_owned()
        .map_err(|_| bad())
}

fn io_event(
    port: Option<u16>,
    address: Option<u64>,
    size: u8,
    value: Option<u64>,
) -> Result<IoEvent, Failure> {
    let address = match (port, address) {
        (Some(port), None) => IoAddress::Port(port),
        (None, Some(address)) => IoAddress::Memory(address),
        _ => {
            let what = "an I/O event is at a port or at an address";
            return Err(Failure::BadArgument(what.to_owned()));
        }
    };
    Ok(IoEvent {
        address,
        size,
        value,
    })
}

impl Machine {
    /// Guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn deterministic(&self) -> Result<&Counted, Failure> {
        let what = "only a deterministic machine, one with a seed, counts instructions";
        let counted = self.clock.counted();
        counted.ok_or_else(|| Failure::BadArgument(what.to_owned()))
    }
}

#[pymethods]
impl Machine {
    #[new]
    #[pyo3(signature = (
        engine = "bt", *, vcpus = 1, cpu = "host", device = None, chips = "auto", seed = None
    ))]
    fn new(
        py: Python<'_>,
        engine: &str,
        vcpus: u32,
        cpu: &str,
        device: Option<PathBuf>,
        chips: &str,
        seed: Option<u64>,
    ) -> PyResult<Self> {
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            let what = format!("a machine has 1 to {MAX_VCPUS} virtual processors, not {vcpus}");
            return Err(Failure::BadArgument(what).into());
        }
        if seed.is_some() && (vcpus != 1 || engine != "bt") {
            let what = format!(
                "a deterministic machine has one virtual processor on bt, not {vcpus} on {engine}"
            );
            return Err(Failure::BadArgument(what).into());
        }
        let chips = match chips {
            "auto" => ChipsChoice::Auto,
            "kernel" => ChipsChoice::Kernel,
            "own" => ChipsChoice::Own,
            _ => {
                let what = format!("chips are auto, kernel or own, not {chips:?}");
                return Err(Failure::BadArgument(what).into());
            }
        };
        let device = device.unwrap_or_else(|| "/dev/kvm".into());
        let built = detached(py, || {
            let cpu = CpuSpec::parse(cpu)?;
            Ok(build(&Description {
                engine,
                vcpus,
                cpu: &cpu,
                device: &device,
                chips,
                seed,
            })?)
        })?;
        let vcpus = (0..)
            .zip(built.vcpus)
            .map(|(index, vcpu)| Py::new(py, Vcpu::new(index, vcpu)))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            engine: engine.to_owned(),
            memory: built.memory,
            machine: built.machine,
            video: built.video,
            clock: built.clock,
            vcpus,
        })
    }

    /// Signals ``fd``, an eventfd, at each such write, which then does not leave the engine.
    #[pyo3(signature = (fd, *, port = None, address = None, size = 4, value = None))]
    fn io_event(
        &self,
        py: Python<'_>,
        fd: i32,
        port: Option<u16>,
        address: Option<u64>,
        size: u8,
        value: Option<u64>,
    ) -> PyResult<()> {
        let event = io_event(port, address, size, value)?;
        detached(py, || Ok(self.machine.add_io_event(event, own(fd)?)?))
    }

    /// Undoes ``io_event``.
    #[pyo3(signature = (*, port = None, address = None, size = 4, value = None))]
    fn remove_io_event(
        &self,
        py: Python<'_>,
        port: Option<u16>,
        address: Option<u64>,
        size: u8,
        value: Option<u64>,
    ) -> PyResult<()> {
        let event = io_event(port, address, size, value)?;
        detached(py, || Ok(self.machine.remove_io_event(event)?))
    }

    /// Raises an edge of ``gsi`` each time ``fd``, an eventfd, is signalled.
    fn irq_event(&self, py: Python<'_>, fd: i32, gsi: u32) -> PyResult<u32> {
        if gsi >= GSIS {
            let what = format!("global system interrupts are 0 to {}, not {gsi}", GSIS - 1);
            return Err(Failure::BadArgument(what).into());
        }
        let source = IrqSource::Line(gsi);
        detached(py, || Ok(self.machine.add_irq_event(source, own(fd)?)?))
    }

    /// Delivers a message-signalled interrupt each time ``fd``, an eventfd, is signalled.
    fn msi_event(&self, py: Python<'_>, fd: i32, address: u64, data: u32) -> PyResult<u32> {
        let source = IrqSource::Msi { address, data };
        detached(py, || Ok(self.machine.add_irq_event(source, own(fd)?)?))
    }

    /// Undoes ``irq_event`` or ``msi_event``.
    fn remove_irq_event(&self, py: Python<'_>, number: u32) -> PyResult<()> {
        detached(py, || Ok(self.machine.remove_irq_event(number)?))
    }

    /// Adds zeroed memory; committed lazily.
    #[pyo3(signature = (address, size, *, readonly = false))]
    fn map_memory(&self, py: Python<'_>, address: u64, size: u64, readonly: bool) -> PyResult<()> {
        let kind = if readonly {
            RegionKind::Rom
        } else {
            RegionKind::Ram
        };
        detached(py, || Ok(self.memory.map(address, size, kind)?))
    }

    /// Shows a memory object, or a part of it, at a guest physical address.
    #[pyo3(signature = (address, memory, *, offset = 0, size = None, readonly = false,
        log_dirty = false, replace = false, smm = false))]
    #[allow(
        clippy::too_many_arguments,
        reason = "a mapping has this many properties, all named"
    )]
    fn map(
        &self,
        py: Python<'_>,
        address: u64,
        memory: &Bound<'_, Memory>,
        offset: u64,
        size: Option<u64>,
        readonly: bool,
        log_dirty: bool,
        replace: bool,
        smm: bool,
    ) -> PyResult<()> {
        let memory = memory.get().inner();
        let options = MapOptions {
            readonly,
            log_dirty,
            replace,
            smm,
        };
        let size = size.unwrap_or_else(|| memory.size().saturating_sub(offset));
        detached(py, || {
            Ok(self
                .memory
                .map_object(address, &memory, offset, size, options)?)
        })
    }

    /// Takes memory away; objects keep their contents.
    #[pyo3(signature = (address, size, *, smm = false))]
    fn unmap(&self, py: Python<'_>, address: u64, size: u64, smm: bool) -> PyResult<()> {
        detached(py, || Ok(self.memory.unmap(address, size, smm)?))
    }

    /// Raises SMI# at a processor: it enters system-management mode.
    #[pyo3(signature = (vcpu = 0))]
    fn smi(&self, py: Python<'_>, vcpu: u32) -> PyResult<()> {
        if vcpu as usize >= self.vcpus.len() {
            let what = format!("no virtual processor {vcpu} among {}", self.vcpus.len());
            return Err(Failure::BadArgument(what).into());
        }
        detached(py, || Ok(self.machine.smi(vcpu)?))
    }

    /// Bitmap of the pages written to since the last call, where the mapping has a log.
    fn dirty_pages<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        size: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bitmap = detached(py, || Ok(self.memory.take_dirty(address, size)?))?;
        Ok(PyBytes::new(py, &bitmap))
    }

    /// Enables or disables address line A20 of the processors.
    fn a20(&self, py: Python<'_>, enabled: bool) -> PyResult<()> {
        detached(py, || {
            self.memory.set_a20(enabled);
            Ok(())
        })
    }

    /// Reads as a bus master does: FFh where there is no memory.
    fn dma_read<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, size, |out| {
            detached(py, || {
                self.memory.dma_read(address, out);
                Ok(())
            })
        })
    }

    /// Writes as a bus master does: dropped where there is no RAM.
    fn dma_write(&self, py: Python<'_>, address: u64, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        detached(py, || {
            self.memory.dma_write(address, &bytes);
            Ok(())
        })
    }

    /// Gives pages back to the host, which read as zeros then; gives how many bytes.
    fn discard(&self, py: Python<'_>, address: u64, size: u64) -> PyResult<u64> {
        detached(py, || {
            self.memory.discard(address, size).map_err(Failure::Discard)
        })
    }

    /// Copies guest memory; raises :class:`CoreError` where there is none.
    fn read<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        // Refused before the copy's memory is allocated.
        let mapped = self
            .memory
            .regions()
            .iter()
            .map(|region| region.size)
            .sum::<u64>();
        if size as u64 > mapped {
            let size = size as u64;
            return Err(Failure::from(MemoryError::Unmapped {
                start: address,
                size,
            })
            .into());
        }
        PyBytes::new_with(py, size, |out| {
            detached(py, || Ok(self.memory.read(address, out)?))
        })
    }

    /// Copies into guest memory, ROM included.
    fn write(&self, py: Python<'_>, address: u64, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = data.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            return detached(py, || Ok(self.memory.write(address, bytes)?));
        }
        let bytes = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        detached(py, || Ok(self.memory.write(address, &bytes)?))
    }

    /// Fills guest memory.
    #[pyo3(signature = (address, size, byte = 0))]
    fn fill(&self, py: Python<'_>, address: u64, size: usize, byte: u8) -> PyResult<()> {
        detached(py, || Ok(self.memory.fill(address, size, byte)?))
    }

    /// Sets the level of a global system interrupt (0 to 23; 0 to 15 reach the PICs too).
    fn irq_line(&self, py: Python<'_>, gsi: u32, level: bool) -> PyResult<()> {
        if gsi >= GSIS {
            let what = format!("global system interrupts are 0 to {}, not {gsi}", GSIS - 1);
            return Err(Failure::BadArgument(what).into());
        }
        detached(py, || Ok(self.machine.irq_line(gsi, level)?))
    }

    /// Answers double-word reads of the ACPI power management timer at ``port``; ``None``: leaves
    /// them to the device.
    #[pyo3(signature = (port))]
    fn pm_timer(&self, py: Python<'_>, port: Option<u16>) -> PyResult<()> {
        detached(py, || {
            self.machine.set_pm_timer(port);
            Ok(())
        })
    }

    /// Delivers a message-signalled interrupt.
    fn signal_msi(&self, py: Python<'_>, address: u64, data: u32) -> PyResult<()> {
        detached(py, || Ok(self.machine.signal_msi(address, data)?))
    }

    /// Serves memory window and busiest ports of a VGA inside the engine; a machine has one.
    fn attach_video(&self, video: &Bound<'_, Video>) -> PyResult<()> {
        if self.video.attach(Arc::clone(&video.get().vga)) {
            return Ok(());
        }
        Err(Failure::BadArgument("the machine has a VGA already".to_owned()).into())
    }

    /// A virtual processor. 0 is the bootstrap processor; the others wait for INIT and SIPI.
    fn vcpu(&self, py: Python<'_>, index: usize) -> PyResult<Py<Vcpu>> {
        match self.vcpus.get(index) {
            Some(vcpu) => Ok(vcpu.clone_ref(py)),
            None => {
                let count = self.vcpus.len();
                let what = format!("no virtual processor {index} among {count}");
                Err(Failure::BadArgument(what).into())
            }
        }
    }

    /// Whether there are high precision event timers at FED00000h.
    #[getter]
    fn hpet(&self) -> bool {
        self.machine.has_hpet()
    }

    /// Number of virtual processors.
    #[getter]
    fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    /// Time since the machine was made, on the guest's TSC.
    #[getter]
    fn nanoseconds(&self) -> u64 {
        self.clock.nanoseconds()
    }

    /// Frequency of the guest's TSC, in hertz.
    #[getter]
    fn tsc_hz(&self) -> u64 {
        self.clock.tsc_hz()
    }

    /// Instructions that a deterministic machine has executed; 0 in others.
    #[getter]
    fn instructions(&self) -> u64 {
        self.clock.counted().map_or(0, Counted::instructions)
    }

    /// Makes ``run`` of a deterministic machine return :class:`Interrupted` after so many
    /// instructions since the machine was made; ``None``: never.
    #[pyo3(signature = (instructions))]
    fn stop_at(&self, instructions: Option<u64>) -> PyResult<()> {
        let counted = self.deterministic()?;
        counted.set_stop(instructions.unwrap_or(u64::MAX));
        Ok(())
    }

    /// Makes ``run`` of a deterministic machine return :class:`Interrupted` when its clock
    /// reaches ``nanoseconds``; ``None``: never.
    #[pyo3(signature = (nanoseconds))]
    fn set_deadline(&self, nanoseconds: Option<u64>) -> PyResult<()> {
        let counted = self.deterministic()?;
        counted.set_deadline(nanoseconds.unwrap_or(u64::MAX));
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!(
            "<Machine engine='{}' vcpus={}>",
            self.engine,
            self.vcpus.len()
        )
    }
}
