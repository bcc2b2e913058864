//! `CoreError`, and the one place where failures get their stable codes.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::{create_exception, intern};
use ringfence_datapath::QueueError;
use ringfence_engine::EngineError;
use ringfence_engines::BuildError;
use ringfence_memory::MemoryError;
use ringfence_x86::cpuid::CpuModelError;

create_exception!(
    ringfence._core,
    CoreError,
    PyException,
    "An engine can't go on, or refuses what it is asked; ``code`` is stable."
);

/// Anything that becomes a `CoreError`.
#[derive(Debug)]
pub enum Failure {
    /// Of an engine.
    Engine(EngineError),
    /// Of guest memory.
    Memory(MemoryError),
    /// Of a virtqueue, which its driver broke.
    Queue(QueueError),
    /// The host refuses to take guest memory back.
    Discard(std::io::Error),
    /// No engine has that name.
    UnknownEngine(String),
    /// There is no such processor, or the engine can't run it.
    CpuModel(CpuModelError),
    /// An argument has a value that is not allowed.
    BadArgument(String),
    /// The processor is running, in another thread.
    Busy,
    /// The processor's engine panicked before; its state is lost.
    Broken,
    /// A Rust panic, with its message.
    Panic(String),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::UnknownEngine(name) => Self::UnknownEngine(name),
            BuildError::CpuModel(error) => Self::CpuModel(error),
            BuildError::Engine(error) => Self::Engine(error),
        }
    }
}

impl From<CpuModelError> for Failure {
    fn from(error: CpuModelError) -> Self {
        Self::CpuModel(error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl Failure {
    /// The stable code.
    const fn code(&self) -> &'static str {
        match self {
            Self::Engine(EngineError::Unsupported { .. }) => "unsupported",
            Self::Engine(EngineError::BadState(_)) => "bad_state",
            Self::Engine(EngineError::Host { .. }) => "host",
            Self::Engine(EngineError::Emulation { .. }) => "emulation",
            Self::Engine(EngineError::Internal(_)) => "internal",
            Self::Memory(MemoryError::Unaligned { .. }) => "unaligned",
            Self::Memory(MemoryError::Overlap { .. }) => "overlap",
            Self::Memory(MemoryError::Unmapped { .. }) => "unmapped",
            Self::Memory(MemoryError::Outside { .. }) => "bad_argument",
            Self::Memory(MemoryError::NotLogged { .. }) => "not_logged",
            Self::Memory(MemoryError::TooManyHolders) => "bad_argument",
            Self::Memory(MemoryError::Host { .. }) => "out_of_memory",
            Self::Queue(_) => "queue",
            Self::Discard(_) => "host",
            Self::UnknownEngine(_) => "unknown_engine",
            Self::BadArgument(_) => "bad_argument",
            Self::CpuModel(_) => "cpu_model",
            Self::Busy => "busy",
            Self::Broken => "broken",
            Self::Panic(_) => "panic",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Engine(EngineError::Host { what, source }) => {
                format!("the host refused {what}: {source}")
            }
            Self::Engine(error) => error.to_string(),
            Self::Memory(MemoryError::Host { size, source }) => {
                format!("the host can't map {size:#x} bytes for the guest: {source}")
            }
            Self::Memory(error) => error.to_string(),
            Self::Queue(error) => error.to_string(),
            Self::Discard(error) => format!("the host does not take memory back: {error}"),
            Self::UnknownEngine(name) => format!("there is no engine {name:?}"),
            Self::BadArgument(what) => what.clone(),
            Self::CpuModel(error) => error.to_string(),
            Self::Busy => "the virtual processor is running in another thread".into(),
            Self::Broken => "the virtual processor is unusable after an internal error".into(),
            Self::Panic(message) => format!("internal error (panic): {message}"),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| {
            let error = CoreError::new_err(failure.message());
            match error.value(py).setattr(intern!(py, "code"), failure.code()) {
                Ok(()) => error,
                Err(other) => other,
            }
        })
    }
}

/// Adds the exception to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = module.py().get_type::<CoreError>();
    class.setattr("code", "internal")?;
    module.add("CoreError", class)
}
