//! `Memory`: host memory that machines show at physical addresses.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::error::Failure;
use crate::funnel::detached;

/// Host memory of whole pages, to be mapped into machines at no, one or several addresses.
/// Thread-safe; a writable buffer of bytes.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct Memory(Arc<ringfence_memory::Memory>);

impl Memory {
    /// A Python object in front of this one.
    pub fn of(memory: Arc<ringfence_memory::Memory>) -> Self {
        Self(memory)
    }

    /// The object behind the Python one.
    pub fn inner(&self) -> Arc<ringfence_memory::Memory> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Memory {
    #[new]
    fn new(py: Python<'_>, size: u64) -> PyResult<Self> {
        detached(py, || Ok(Self(ringfence_memory::Memory::new(size)?)))
    }

    /// A writable view of the bytes, without a copy.
    fn view(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    /// Size in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// Tells processors and the dirty log what was written through a view.
    #[pyo3(signature = (offset = 0, size = None))]
    fn written(&self, py: Python<'_>, offset: u64, size: Option<u64>) -> PyResult<()> {
        let size = size.unwrap_or_else(|| self.0.size().saturating_sub(offset));
        detached(py, || Ok(self.0.written(offset, size)?))
    }

    /// Bitmap of the pages written to since the last call.
    #[pyo3(signature = (offset = 0, size = None))]
    fn dirty_pages<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        size: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let size = size.unwrap_or_else(|| self.0.size().saturating_sub(offset));
        let bitmap = detached(py, || Ok(self.0.take_dirty(offset, size)?))?;
        Ok(PyBytes::new(py, &bitmap))
    }

    fn __len__(&self) -> usize {
        self.0.size() as usize
    }

    /// # Safety
    /// For the interpreter only, which passes a buffer structure to fill.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let memory = &slf.get().0;
        let size = ffi::Py_ssize_t::try_from(memory.size())
            .map_err(|_| PyErr::from(Failure::BadArgument("the memory is too large".into())))?;
        let bytes = memory.as_ptr().cast::<c_void>();
        // SAFETY: the bytes live as long as the object, to which the buffer holds a reference;
        // guest memory may change at any time, as with any buffer that is shared.
        let failed = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes, size, 0, flags) };
        if failed != 0 {
            // SAFETY: as asked for by the protocol.
            unsafe { (*view).obj = ptr::null_mut() };
            return Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("refused")));
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<Memory size={:#x}>", self.0.size())
    }
}
