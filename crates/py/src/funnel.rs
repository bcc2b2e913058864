//! The way out of the interpreter and back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

use crate::error::Failure;

/// Runs `work` with the interpreter released. A failure, or a panic, becomes a `CoreError`.
pub fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> PyResult<T> {
    // What a panic leaves behind is guarded by locks, which it poisons.
    let result = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    result
        .unwrap_or_else(|panic| Err(Failure::Panic(message(&*panic))))
        .map_err(PyErr::from)
}

/// Runs `work`, which is short, with the interpreter held.
pub fn attached<T>(work: impl FnOnce() -> Result<T, Failure>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Failure::Panic(message(&*panic))))
        .map_err(PyErr::from)
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
