//! What the host's KVM does, as a dictionary.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringfence_kvm::probe::probe;

use crate::funnel::detached;

/// Runs tiny guests on the KVM device at ``device``.
///
/// Without a usable device: ``absence`` (a stable name) and ``reason``. Otherwise ``chips``,
/// ``modes`` (why guests don't run, by mode), ``refused`` (instructions), ``cpuid``,
/// ``kernel_speed`` and
/// ``user_speed`` (instructions a second).
#[pyfunction]
pub fn kvm_probe(py: Python<'_>, device: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    match detached(py, || Ok(probe(&device)))? {
        Err(absence) => {
            dict.set_item("absence", absence.code())?;
            dict.set_item("reason", absence.to_string())?;
        }
        Ok(report) => {
            let modes = PyDict::new(py);
            for (mode, failure) in report.modes {
                modes.set_item(mode.name(), failure)?;
            }
            dict.set_item("chips", report.chips)?;
            dict.set_item("modes", modes)?;
            dict.set_item("refused", report.refused)?;
            dict.set_item("cpuid", report.cpuid)?;
            dict.set_item("kernel_speed", report.kernel_speed)?;
            dict.set_item("user_speed", report.user_speed)?;
        }
    }
    Ok(dict)
}
