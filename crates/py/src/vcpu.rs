//! `Vcpu`: one virtual processor.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use ringfence_engine::{Debugging, Kick, Vcpu as EngineVcpu};

use crate::error::Failure;
use crate::funnel::detached;
use crate::{exit, registers, state};

/// One virtual processor. ``run`` belongs to one thread at a time; the rest of the methods
/// need it stopped, but for ``interrupt``.
#[pyclass(frozen, module = "ringfence._core")]
pub struct Vcpu {
    index: u32,
    engine: Mutex<Box<dyn EngineVcpu>>,
    kick: Arc<dyn Kick>,
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Vcpu {
    /// Processor number `index` on its engine.
    pub fn new(index: u32, engine: Box<dyn EngineVcpu>) -> Self {
        let kick = engine.kicker();
        Self {
            index,
            engine: Mutex::new(engine),
            kick,
        }
    }

    /// The engine, if it is not running. After a panic its state can still be looked at.
    fn stopped(&self) -> Result<MutexGuard<'_, Box<dyn EngineVcpu>>, Failure> {
        match self.engine.try_lock() {
            Ok(engine) => Ok(engine),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
        }
    }
}

#[pymethods]
impl Vcpu {
    /// Number of the processor.
    #[getter]
    fn index(&self) -> u32 {
        self.index
    }

    /// Runs the guest until something leaves the engine, with the interpreter released.
    ///
    /// ``completion`` answers the :class:`PortIn` or :class:`MmioRead` returned last; bytes answer
    /// a :class:`PortInString`.
    #[pyo3(signature = (completion = None))]
    fn run(&self, py: Python<'_>, completion: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let mut value = 0;
        let mut bytes: Option<&[u8]> = None;
        if let Some(answer) = completion {
            match answer.cast::<PyBytes>() {
                Ok(given) => bytes = Some(given.as_bytes()),
                Err(_) => value = answer.extract::<u64>()?,
            }
        }
        let exit = detached(py, || match self.engine.try_lock() {
            Ok(mut engine) => {
                if let Some(bytes) = bytes {
                    engine.answer_string(bytes);
                }
                Ok(engine.run(value)?)
            }
            Err(TryLockError::Poisoned(_)) => Err(Failure::Broken),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
        })?;
        exit::to_python(py, &exit)
    }

    /// Makes ``run`` return :class:`Interrupted` soon, or at once if it is not running.
    fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            self.kick.interrupt();
            Ok(())
        })
    }

    /// ``rax`` to ``r15``, ``rip``, ``rflags``.
    fn registers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let values = detached(py, || Ok(self.stopped()?.registers()))?;
        registers::general_to_dict(py, &values)
    }

    /// Sets those that are named.
    fn set_registers(&self, py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut registers = detached(py, || Ok(self.stopped()?.registers()))?;
        registers::update_general(&mut registers, values)?;
        detached(py, || {
            self.stopped()?.set_registers(&registers);
            Ok(())
        })
    }

    /// ``es cs ss ds fs gs ldtr tr`` (dicts of ``base limit attributes selector``), ``gdtr``,
    /// ``idtr`` (dicts of ``base limit``), ``cr0 cr2 cr3 cr4 cr8 efer apic_base``.
    fn system_registers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let values = detached(py, || Ok(self.stopped()?.system_registers()))?;
        registers::system_to_dict(py, &values)
    }

    /// Sets those that are named. Attributes are descriptor bits 8 to 23 as in the VMX
    /// access-rights format (0x9b code16, 0xc09b code32, 0xa09b code64, 0xc093 data32,
    /// 0x8b busy TSS, 0x10000 unusable).
    fn set_system_registers(&self, py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut registers = detached(py, || Ok(self.stopped()?.system_registers()))?;
        registers::update_system(&mut registers, values)?;
        detached(py, || {
            let mut engine = self.stopped()?;
            if let Some(why) = engine.objection(&registers) {
                return Err(Failure::BadArgument(why.to_owned()));
            }
            engine.set_system_registers(&registers);
            Ok(())
        })
    }

    /// Standard-format XSAVE image.
    fn xsave<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let image = detached(py, || Ok(self.stopped()?.xsave()))?;
        Ok(PyBytes::new(py, &image))
    }

    /// Sets x87, SSE and AVX state from a standard-format XSAVE image.
    fn set_xsave(&self, py: Python<'_>, image: &Bound<'_, PyAny>) -> PyResult<()> {
        let image = PyBuffer::<u8>::get(image)?.to_vec(py)?;
        detached(py, || Ok(self.stopped()?.set_xsave(&image)?))
    }

    /// The whole state of the processor, by name, as ``set_state`` takes it.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let values = detached(py, || Ok(self.stopped()?.state()?))?;
        state::to_dict(py, &values)
    }

    /// Goes on where the processor of ``values`` stopped, on whichever engine.
    fn set_state(&self, py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<()> {
        let values = state::from_dict(values)?;
        detached(py, || Ok(self.stopped()?.set_state(&values)?))
    }

    /// Leaves with :class:`Debug` after each instruction, or before those at linear addresses.
    #[pyo3(signature = (*, single_step = false, breakpoints = Vec::new()))]
    fn set_debugging(
        &self,
        py: Python<'_>,
        single_step: bool,
        breakpoints: Vec<u64>,
    ) -> PyResult<()> {
        let mut debugging = Debugging {
            single_step,
            ..Debugging::default()
        };
        if breakpoints.len() > debugging.breakpoints.len() {
            let what = "a processor has four breakpoints".to_owned();
            return Err(Failure::BadArgument(what).into());
        }
        for (place, address) in debugging.breakpoints.iter_mut().zip(breakpoints) {
            *place = Some(address);
        }
        detached(py, || Ok(self.stopped()?.set_debugging(&debugging)?))
    }

    /// Makes the interpreter execute everything, or lets code be translated again.
    fn set_interpreter(&self, py: Python<'_>, interpreter: bool) -> PyResult<()> {
        detached(py, || {
            self.stopped()?.set_interpreter(interpreter);
            Ok(())
        })
    }

    /// Counters of the engine.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = detached(py, || Ok(self.stopped()?.statistics()))?;
        let dict = PyDict::new(py);
        for (name, value) in counters {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Disassembly of the code around the last instruction, newest last: for error messages.
    fn recent_code(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        detached(py, || Ok(self.stopped()?.recent_code()))
    }

    /// Counts ``hertz`` times per second of processor time what it goes into; 0 stops.
    fn start_profile(&self, py: Python<'_>, hertz: u32) -> PyResult<()> {
        detached(py, || Ok(self.stopped()?.start_profile(hertz)?))
    }

    /// What was counted since: ``phases`` (samples by name), and the ``most`` hottest ``blocks``
    /// (dicts of ``address user samples guest host``; the last two are listings).
    #[pyo3(signature = (most = 0))]
    fn profile<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyDict>> {
        let report = detached(py, || Ok(self.stopped()?.profile(most)))?;
        let phases = PyDict::new(py);
        for (name, samples) in report.phases {
            phases.set_item(name, samples)?;
        }
        let blocks = PyList::empty(py);
        for block in report.blocks {
            let entry = PyDict::new(py);
            entry.set_item("address", block.linear)?;
            entry.set_item("user", block.user)?;
            entry.set_item("samples", block.samples)?;
            entry.set_item("guest", block.guest)?;
            entry.set_item("host", block.host)?;
            blocks.append(entry)?;
        }
        let dict = PyDict::new(py);
        dict.set_item("phases", phases)?;
        dict.set_item("blocks", blocks)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("<Vcpu index={}>", self.index)
    }
}
