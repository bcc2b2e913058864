//! `Machine`: guest memory, interrupt hardware and processors.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringfence_bt::BtVcpu;
use ringfence_bt::interp::system::cpuid::{CpuSpec, CpuidModel};
use ringfence_chips::{MAX_VCPUS, Platform};
use ringfence_engine::{Clock, LocalDevices};
use ringfence_memory::{GuestMemory, MapOptions, MemoryError, RegionKind};

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
    memory: Arc<GuestMemory>,
    platform: Arc<Platform>,
    clock: Arc<Clock>,
    vcpus: Vec<Py<Vcpu>>,
}

#[pymethods]
impl Machine {
    #[new]
    #[pyo3(signature = (engine = "bt", *, vcpus = 1, cpu = "host"))]
    fn new(py: Python<'_>, engine: &str, vcpus: u32, cpu: &str) -> PyResult<Self> {
        if engine != "bt" {
            return Err(Failure::UnknownEngine(engine.to_owned()).into());
        }
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            let what = format!("a machine has 1 to {MAX_VCPUS} virtual processors, not {vcpus}");
            return Err(Failure::BadArgument(what).into());
        }
        let spec = CpuSpec::parse(cpu).map_err(Failure::from)?;
        let (memory, platform, clock, engines) = detached(py, || {
            let memory = Arc::new(GuestMemory::new());
            let clock = Arc::new(Clock::new());
            let platform = Platform::try_new(Arc::clone(&clock), vcpus).map_err(Failure::Thread)?;
            let devices: Arc<dyn LocalDevices> = platform.clone();
            let model = Arc::new(CpuidModel::with_spec(&spec, vcpus, clock.tsc_hz())?);
            let engines = (0..vcpus)
                .map(|id| {
                    let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
                    let (model, devices) = (Arc::clone(&model), Arc::clone(&devices));
                    BtVcpu::with_model(id, model, memory, devices, clock)
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok((memory, platform, clock, engines))
        })?;
        let vcpus = (0..)
            .zip(engines)
            .map(|(index, engine)| {
                let vcpu = Vcpu::new(index, engine);
                platform.attach(index, vcpu.kicker());
                Py::new(py, vcpu)
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            memory,
            platform,
            clock,
            vcpus,
        })
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
        log_dirty = false, replace = false))]
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
    ) -> PyResult<()> {
        let memory = memory.get().inner();
        let options = MapOptions {
            readonly,
            log_dirty,
            replace,
        };
        let size = size.unwrap_or_else(|| memory.size().saturating_sub(offset));
        detached(py, || {
            Ok(self
                .memory
                .map_object(address, &memory, offset, size, options)?)
        })
    }

    /// Takes memory away; objects keep their contents.
    fn unmap(&self, py: Python<'_>, address: u64, size: u64) -> PyResult<()> {
        detached(py, || Ok(self.memory.unmap(address, size)?))
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
        detached(py, || {
            self.platform.irq_line(gsi, level);
            Ok(())
        })
    }

    /// Delivers a message-signalled interrupt.
    fn signal_msi(&self, py: Python<'_>, address: u64, data: u32) -> PyResult<()> {
        detached(py, || {
            self.platform.signal_msi(address, data);
            Ok(())
        })
    }

    /// Serves memory window and busiest ports of a VGA inside the engine; a machine has one.
    fn attach_video(&self, video: &Bound<'_, Video>) -> PyResult<()> {
        if self.platform.attach_video(Arc::clone(&video.get().vga)) {
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

    fn __repr__(&self) -> String {
        format!("<Machine engine='bt' vcpus={}>", self.vcpus.len())
    }
}
