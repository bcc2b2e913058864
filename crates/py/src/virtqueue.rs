//! `VirtQueue` and `Chain`: rings of virtio devices, and the buffers in them.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use ringfence_datapath::packet::{self, Offload};
use ringfence_datapath::{Chain as Buffer, Layout, Options, Piece, Position, Queue};
use ringfence_memory::GuestMemory;

use crate::error::Failure;
use crate::funnel::attached;
use crate::machine::Machine;

/// A virtqueue from the device's side.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct VirtQueue(Mutex<Queue>);

impl VirtQueue {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[pymethods]
impl VirtQueue {
    #[new]
    #[pyo3(signature = (machine, size, descriptors, driver, device, *, packed = false,
        event_index = false, indirect = false))]
    #[allow(
        clippy::too_many_arguments,
        reason = "a ring has three areas and as many options"
    )]
    fn new(
        machine: &Bound<'_, Machine>,
        size: u32,
        descriptors: u64,
        driver: u64,
        device: u64,
        packed: bool,
        event_index: bool,
        indirect: bool,
    ) -> PyResult<Self> {
        let layout = Layout {
            size,
            descriptors,
            driver,
            device,
        };
        let options = Options {
            packed,
            event_index,
            indirect,
        };
        let memory = Arc::clone(machine.get().memory());
        attached(|| Ok(Self(Mutex::new(Queue::new(memory, layout, options)?))))
    }

    /// The next buffer that the driver made available.
    fn pop(&self) -> PyResult<Option<Chain>> {
        attached(|| {
            let mut queue = self.queue();
            let buffer = queue.pop()?;
            let memory = queue.memory();
            Ok(buffer.map(|buffer| Chain::new(buffer, Arc::clone(memory))))
        })
    }

    /// Whether a buffer is available.
    fn available(&self) -> PyResult<bool> {
        attached(|| Ok(self.queue().available()?))
    }

    /// Gives a buffer back.
    #[pyo3(signature = (chain, written = 0))]
    fn push(&self, chain: &Bound<'_, Chain>, written: u32) -> PyResult<()> {
        attached(|| Ok(self.queue().push(&chain.get().buffer, written)?))
    }

    /// Whether the driver wants an interrupt for what was pushed since the last call.
    fn needs_interrupt(&self) -> PyResult<bool> {
        attached(|| Ok(self.queue().needs_interrupt()?))
    }

    /// Asks to be notified; true when a buffer came meanwhile.
    fn enable_notification(&self) -> PyResult<bool> {
        attached(|| Ok(self.queue().enable_notification()?))
    }

    /// Asks not to be notified.
    fn disable_notification(&self) -> PyResult<()> {
        attached(|| Ok(self.queue().disable_notification()?))
    }

    /// How far the device has got.
    fn position(&self) -> (u16, u16, u16) {
        let position = self.queue().position();
        (position.available, position.used, position.unsignalled)
    }

    /// Goes on where another queue has got to.
    fn set_position(&self, available: u16, used: u16, unsignalled: u16) -> PyResult<()> {
        let position = Position {
            available,
            used,
            unsignalled,
        };
        attached(|| Ok(self.queue().set_position(position)?))
    }
}

/// A buffer of a virtqueue.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct Chain {
    buffer: Buffer,
    memory: Arc<GuestMemory>,
    readable: u64,
    writable: u64,
}

impl Chain {
    fn new(buffer: Buffer, memory: Arc<GuestMemory>) -> Self {
        Self {
            readable: buffer.readable_len(),
            writable: buffer.writable_len(),
            buffer,
            memory,
        }
    }

    fn left(&self, offset: u64, size: Option<u64>) -> u64 {
        let left = self.readable.saturating_sub(offset);
        size.map_or(left, |size| size.min(left))
    }
}

fn views<'py>(py: Python<'py>, pieces: Vec<Piece>) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
    let view = |piece| PyMemoryView::from(Bound::new(py, Span(piece))?.as_any());
    pieces.into_iter().map(view).collect()
}

#[pymethods]
impl Chain {
    /// Number of the buffer.
    #[getter]
    fn id(&self) -> u16 {
        self.buffer.id
    }

    /// Bytes that the device may read.
    #[getter]
    fn readable(&self) -> u64 {
        self.readable
    }

    /// Bytes that the device may write.
    #[getter]
    fn writable(&self) -> u64 {
        self.writable
    }

    /// Guest physical address and length of each piece of the writable part.
    fn segments(&self) -> Vec<(u64, u32)> {
        let segments = self.buffer.writable.iter();
        segments.map(|s| (s.address, s.length)).collect()
    }

    /// Copies out of the readable part.
    #[pyo3(signature = (offset = 0, size = None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        size: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let size = self.left(offset, size) as usize;
        PyBytes::new_with(py, size, |out| {
            attached(|| {
                self.buffer.read(&self.memory, offset, out);
                Ok(())
            })
        })
    }

    /// Copies into the writable part; gives how many bytes fitted.
    fn write(&self, offset: u64, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            return attached(|| Ok(self.buffer.write(&self.memory, offset, bytes)));
        }
        let bytes = pyo3::buffer::PyBuffer::<u8>::get(data)?.to_vec(data.py())?;
        attached(|| Ok(self.buffer.write(&self.memory, offset, &bytes)))
    }

    /// Fills bytes of the writable part; gives how many there were.
    #[pyo3(signature = (offset, size, byte = 0))]
    fn fill(&self, offset: u64, size: u64, byte: u8) -> PyResult<u64> {
        attached(|| Ok(self.buffer.fill(&self.memory, offset, size, byte)))
    }

    /// The readable part itself, in pieces.
    fn readable_views<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        size: u64,
    ) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        views(py, self.buffer.readable_pieces(&self.memory, offset, size))
    }

    /// The writable part itself, in pieces.
    fn writable_views<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        size: u64,
    ) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        views(py, self.buffer.writable_pieces(&self.memory, offset, size))
    }

    /// Tells processors what was written through a view.
    fn written(&self, offset: u64, size: u64) -> PyResult<()> {
        attached(|| {
            for piece in self.buffer.writable_pieces(&self.memory, offset, size) {
                piece.note();
            }
            Ok(())
        })
    }

    /// The frames of a packet behind `skip` bytes of header, checksums complete.
    #[pyo3(signature = (skip, *, checksum = None, segment = 0, version = 4))]
    fn frames<'py>(
        &self,
        py: Python<'py>,
        skip: u64,
        checksum: Option<(usize, usize)>,
        segment: usize,
        version: u8,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let frames = attached(|| {
            let mut packet = vec![0; self.left(skip, None) as usize];
            self.buffer.read(&self.memory, skip, &mut packet);
            let (start, offset) = checksum.unwrap_or_default();
            let offload = Offload {
                checksum: checksum.is_some(),
                start,
                offset,
                segment,
                version,
            };
            packet::frames(&packet, &offload)
                .map_err(|error| Failure::BadArgument(error.to_string()))
        })?;
        Ok(frames.iter().map(|frame| PyBytes::new(py, frame)).collect())
    }
}

/// A piece of guest memory as a buffer; keeps the memory there.
#[pyclass(frozen)]
#[derive(Debug)]
struct Span(Piece);

#[pymethods]
impl Span {
    /// # Safety
    /// For the interpreter only, which passes a buffer structure to fill.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let piece = &slf.get().0;
        let bytes = piece.host().cast::<c_void>();
        let size = piece.length as ffi::Py_ssize_t;
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
}
