//! `ringfence._core`: the engines and the interrupt hardware as Python sees them.
//!
//! One file per class and no logic: arguments are converted, the work runs in
//! [`funnel::detached`], results are converted back. The stub is `src/ringfence/_core.pyi`.

mod error;
mod exit;
mod funnel;
mod machine;
mod memory;
mod probe;
mod registers;
mod state;
mod vcpu;
mod video;
mod virtqueue;

use pyo3::prelude::*;

/// Frequency of the host's time-stamp counter, in hertz.
#[pyfunction]
fn host_tsc_hz(py: Python<'_>) -> PyResult<u64> {
    funnel::detached(py, || Ok(ringfence_engine::Clock::new().tsc_hz()))
}

/// The compiled part of Ringfence: engines and interrupt hardware.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    error::register(module)?;
    exit::register(module)?;
    module.add_class::<machine::Machine>()?;
    module.add_class::<memory::Memory>()?;
    module.add_class::<vcpu::Vcpu>()?;
    module.add_class::<video::Video>()?;
    module.add_class::<video::Picture>()?;
    module.add_function(wrap_pyfunction!(probe::kvm_probe, module)?)?;
    module.add_class::<virtqueue::VirtQueue>()?;
    module.add_class::<virtqueue::Chain>()?;
    module.add_function(wrap_pyfunction!(host_tsc_hz, module)?)
}
