//! `Video`: the memory of a VGA; `Picture`: what it shows.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringfence_chips::vga::{
    Frame, Kind, LARGEST, PixelFormat, Plan, Rect, Source, TEXT_SIZE, Text, Timing, Vga,
};
use ringfence_engine::Clock;

use crate::error::Failure;
use crate::funnel::detached;
use crate::memory::Memory;

/// Memory of a VGA, and the registers between it and the processors. Thread-safe.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct Video {
    pub(crate) vga: Arc<Vga>,
}

#[pymethods]
impl Video {
    #[new]
    fn new(py: Python<'_>, size: usize) -> PyResult<Self> {
        if !size.is_power_of_two() || !(0x40000..=0x1000_0000).contains(&size) {
            let what = format!("video memory is 256 KiB to 256 MiB, a power of two, not {size}");
            return Err(Failure::BadArgument(what).into());
        }
        detached(py, || {
            let memory = ringfence_memory::Memory::new(size as u64)?;
            let text = ringfence_memory::Memory::new(TEXT_SIZE)?;
            let vga = Arc::new(Vga::new(memory, text, Arc::new(Clock::new())));
            Ok(Self { vga })
        })
    }

    /// Size of the memory in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.vga.bytes().size()
    }

    /// The memory itself, to be mapped.
    #[getter]
    fn memory(&self) -> Memory {
        Memory::of(Arc::clone(self.vga.memory()))
    }

    /// What is to be mapped at the window of a text mode.
    #[getter]
    fn text_memory(&self) -> Memory {
        Memory::of(Arc::clone(self.vga.text()))
    }

    /// Where the window shows a text mode that can be mapped.
    fn direct_text(&self) -> Option<u64> {
        self.vga.direct_text()
    }

    /// Fills the text memory from the planes: it is the newer one from now on.
    fn enter_text(&self) {
        self.vga.enter_text();
    }

    /// Brings the planes up to date with the text memory, and ends its reign or not.
    #[pyo3(signature = (*, leave = false))]
    fn sync_text(&self, leave: bool) {
        self.vga.sync_text(leave);
    }

    /// Registers, latches and timing as after power-on.
    fn reset(&self) {
        self.vga.reset();
    }

    /// Lets the engine find the ports and the memory window, or not.
    fn set_decode(&self, ports: bool, window: bool) {
        self.vga.set_decode(ports, window);
    }

    /// Reads port 3C4h, 3C5h, 3CEh, 3CFh, 3BAh or 3DAh.
    fn port_read(&self, port: u16) -> u8 {
        self.vga.port_read(port).unwrap_or(0xff)
    }

    /// Writes port 3C4h, 3C5h, 3CEh or 3CFh.
    fn port_write(&self, port: u16, value: u8) {
        self.vga.port_write(port, value);
    }

    /// Whether a read of the input status reset the flip-flop since this was asked last.
    fn take_flip_flop_reset(&self) -> bool {
        self.vga.take_flip_flop_reset()
    }

    /// Sets the miscellaneous output register.
    fn set_misc(&self, value: u8) {
        self.vga.set_misc(value);
    }

    /// Shows a mode of the VBE in the window, from `offset` bytes on.
    #[pyo3(signature = (offset, *, linear = true))]
    fn set_bank(&self, offset: Option<usize>, linear: bool) {
        self.vga.set_bank(offset.map(|offset| (offset, linear)));
    }

    /// Leaves every change of a register to Python.
    fn set_watched(&self, watched: bool) {
        self.vga.set_watched(watched);
    }

    /// Tells when lines and frames begin and end.
    fn set_timing(&self, frame: u64, lines: u32, shown: u32, retrace: (u32, u32), line_shown: u32) {
        self.vga.set_timing(Timing {
            frame,
            lines,
            shown,
            retrace,
            line_shown,
        });
    }

    /// Sequencer index and five registers, graphics index and nine.
    #[getter]
    fn registers<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.vga.registers())
    }

    /// Sets them.
    fn set_registers(&self, values: [u8; 16]) {
        self.vga.set_registers(values);
    }

    /// The latches, plane 0 lowest.
    #[getter]
    fn latches(&self) -> u32 {
        self.vga.latches()
    }

    /// Sets the latches.
    fn set_latches(&self, latches: u32) {
        self.vga.set_latches(latches);
    }

    /// Changes with writes through the window.
    #[getter]
    fn writes(&self) -> u64 {
        self.vga.writes()
    }

    /// Address, size and offset in memory of the window where it is plain memory now.
    fn direct(&self) -> Option<(u64, u64, usize)> {
        self.vga.direct()
    }

    /// A load from the window.
    fn read(&self, address: u64, size: u8) -> u64 {
        self.vga.read(address, size)
    }

    /// A store to the window.
    fn write(&self, address: u64, size: u8, value: u64) {
        self.vga.write(address, size, value);
    }

    /// Makes the whole memory zero.
    fn clear(&self) {
        self.vga.bytes().clear();
    }

    /// Copies out of the memory; zeros beyond its end.
    fn peek<'py>(
        &self,
        py: Python<'py>,
        offset: usize,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let memory = self.vga.bytes();
        if size > memory.size() {
            let what = format!("video memory has not {size} bytes");
            return Err(Failure::BadArgument(what).into());
        }
        PyBytes::new_with(py, size, |out| {
            let count = memory.size().saturating_sub(offset).min(size);
            if count > 0 {
                memory.copy_to(offset, &mut out[..count]);
            }
            Ok(())
        })
    }

    /// Copies into the memory; what lies beyond its end is dropped.
    fn poke(&self, py: Python<'_>, offset: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        let memory = self.vga.bytes();
        let count = memory.size().saturating_sub(offset).min(data.len());
        if count > 0 {
            memory.copy_from(offset, &data[..count]);
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<Video size={:#x}>", self.vga.bytes().size())
    }
}

/// What a text mode adds to a plan.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct TextItems {
    dots: u32,
    fonts: (u32, u32),
    line_graphics: bool,
    blink: bool,
    lit: bool,
    cursor: (u32, u32, u32),
    underline: u32,
}

/// A plan as Python makes it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct PlanItems {
    kind: String,
    width: u32,
    height: u32,
    start: u32,
    pitch: u32,
    split: u32,
    split_pans: bool,
    repeat: u32,
    double: u32,
    row: u32,
    preset: u32,
    panning: u32,
    shift: (u32, u32),
    row_bits: (bool, bool),
    mask: u32,
    palette: Vec<u32>,
    text: Option<TextItems>,
}

impl PlanItems {
    fn plan(self) -> Result<Plan, Failure> {
        let kind = match (self.kind.as_str(), self.text) {
            ("text", Some(text)) => Kind::Text(Text {
                dots: text.dots,
                fonts: text.fonts,
                line_graphics: text.line_graphics,
                blink: text.blink,
                lit: text.lit,
                cursor: text.cursor,
                underline: text.underline,
            }),
            ("planar", _) => Kind::Planar,
            ("pairs", _) => Kind::Pairs,
            ("bytes", _) => Kind::Bytes,
            ("linear8", _) => Kind::Linear(8),
            ("linear15", _) => Kind::Linear(15),
            ("linear16", _) => Kind::Linear(16),
            ("linear24", _) => Kind::Linear(24),
            ("linear32", _) => Kind::Linear(32),
            ("blank", _) => Kind::Blank,
            (kind, _) => {
                let what = format!("no picture of the kind {kind:?}");
                return Err(Failure::BadArgument(what));
            }
        };
        Ok(Plan {
            kind,
            width: self.width.min(LARGEST),
            height: self.height.min(LARGEST),
            start: self.start,
            pitch: self.pitch,
            split: self.split,
            split_pans: self.split_pans,
            repeat: self.repeat,
            double: self.double,
            row: self.row,
            preset: self.preset,
            panning: self.panning,
            shift: self.shift,
            row_bits: self.row_bits,
            mask: self.mask,
            palette: self.palette,
        })
    }
}

type Part = (u32, u32, u32, u32);
/// First line before, first line after, how many.
type Move = (u32, u32, u32);
/// Bytes of a pixel, highest first or not, largest values and shifts of red, green and blue.
type Format = (usize, bool, [u32; 3], [u32; 3]);

fn pixel_format((size, big_endian, largest, shift): Format) -> Result<PixelFormat, Failure> {
    if !matches!(size, 1 | 2 | 4) || largest.iter().any(|&most| most > 0xffff) {
        let what = format!("no pixel format has {size} bytes and the maxima {largest:?}");
        return Err(Failure::BadArgument(what));
    }
    Ok(PixelFormat {
        size,
        big_endian,
        largest,
        shift,
    })
}

fn parts(rects: Vec<Rect>) -> Vec<Part> {
    let part = |r: Rect| (r.x, r.y, r.width, r.height);
    rects.into_iter().map(part).collect()
}

/// What pixels are drawn from.
enum Pixels {
    Memory(Arc<Vga>),
    Bytes(Vec<u8>),
}

impl Pixels {
    fn of(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(video) = source.cast::<Video>() {
            return Ok(Self::Memory(Arc::clone(&video.get().vga)));
        }
        Ok(Self::Bytes(PyBuffer::<u8>::get(source)?.to_vec(py)?))
    }

    fn source(&self) -> Source<'_> {
        match self {
            Self::Memory(vga) => Source::Memory(vga.bytes()),
            Self::Bytes(bytes) => Source::Bytes(bytes),
        }
    }
}

/// A picture that was drawn last, and what has changed since. Thread-safe.
#[pyclass(frozen, module = "ringfence._core")]
pub struct Picture {
    frame: Mutex<Frame>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture").finish_non_exhaustive()
    }
}

impl Picture {
    fn lock(&self) -> MutexGuard<'_, Frame> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Picture {
    #[new]
    fn new() -> Self {
        Self {
            frame: Mutex::default(),
        }
    }

    /// Width and height in pixels.
    #[getter]
    fn size(&self) -> (u32, u32) {
        self.lock().size()
    }

    /// Draws what video memory, or a copy of a framebuffer, shows by a plan.
    ///
    /// Returns what has changed: left, top, width, height.
    fn draw(
        &self,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        plan: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Part>> {
        let plan = plan.extract::<PlanItems>()?.plan()?;
        let source = Pixels::of(py, source)?;
        detached(py, || Ok(parts(self.lock().draw(source.source(), &plan))))
    }

    /// The same for those who can move lines by themselves: also returns a move that comes first
    /// (first line before, first line after, how many), or `None`.
    fn draw_scrolled(
        &self,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        plan: &Bound<'_, PyAny>,
    ) -> PyResult<(Option<Move>, Vec<Part>)> {
        let plan = plan.extract::<PlanItems>()?.plan()?;
        let source = Pixels::of(py, source)?;
        detached(py, || {
            let (scroll, rects) = self.lock().draw_scrolled(source.source(), &plan);
            Ok((scroll.map(|s| (s.from, s.to, s.lines)), parts(rects)))
        })
    }

    /// Pixels of a part, cut to the picture, line by line: red, green, blue, a byte each.
    fn rgb<'py>(&self, py: Python<'py>, part: Part) -> PyResult<Bound<'py, PyBytes>> {
        let (x, y, width, height) = part;
        let bytes = detached(py, || {
            let frame = self.lock();
            let mut bytes = Vec::new();
            for line in frame.part(Rect {
                x,
                y,
                width,
                height,
            }) {
                for pixel in line {
                    bytes.extend_from_slice(&pixel.to_be_bytes()[1..]);
                }
            }
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Pixels of a part in another format: `size` (1, 2, 4) bytes each, lowest first unless
    /// `big_endian`; for red, green and blue the largest value and the shift to the left.
    fn packed<'py>(
        &self,
        py: Python<'py>,
        part: Part,
        wire: Format,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (x, y, width, height) = part;
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        let format = pixel_format(wire)?;
        let bytes = detached(py, || Ok(self.lock().packed(rect, &format)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A part as the tiles of ZRLE (RFC 6143, section 7.7.6), before they are compressed.
    fn zrle<'py>(
        &self,
        py: Python<'py>,
        part: Part,
        wire: Format,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (x, y, width, height) = part;
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        let format = pixel_format(wire)?;
        let bytes = detached(py, || Ok(self.lock().zrle(rect, &format)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn __repr__(&self) -> String {
        let (width, height) = self.lock().size();
        format!("<Picture {width}x{height}>")
    }
}
