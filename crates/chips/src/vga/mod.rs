//! The part of a VGA that is reached per byte and per pixel: its memory in four planes with the
//! registers between memory and processor, the input status that programs poll, and the
//! conversion of memory to pixels.
//!
//! Source: IBM PS/2 hardware technical reference, "Video subsystem": sequencer and graphics
//! controller. What decides on modes and pictures (CRT controller, attributes, palette) is in
//! Python; it tells this part the timing, and what to draw as a [`Plan`].
//!
//! Memory is kept with the four planes interleaved: a plane's byte at offset `n` is at `4 * n +
//! plane`. So chain-4 memory is linear, as the linear framebuffer shows it; a real VGA leaves
//! three of four offsets unused then.

mod format;
mod planes;
mod registers;
mod retrace;
mod scan;
mod scroll;
mod text;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_engine::Clock;
use ringfence_memory::{Mapping, Memory};

pub use format::PixelFormat;
use registers::Registers;
pub use retrace::Timing;
pub use scan::{Frame, Kind, LARGEST, Plan, Rect, Source};
pub use scroll::Scroll;
pub use text::Text;

/// First address of the memory window.
pub const WINDOW: u64 = 0xa0000;
/// Size of the memory window.
pub const WINDOW_SIZE: u64 = 0x20000;

/// Size of the window of text modes.
pub const TEXT_SIZE: u64 = 0x8000;

/// Sequencer and graphics controller: index, then data.
const SEQUENCER: u16 = 0x3c4;
const GRAPHICS: u16 = 0x3ce;
/// Input status 1, where monochrome and where colour adapters have it.
const STATUS_MONO: u16 = 0x3ba;
const STATUS_COLOR: u16 = 0x3da;
/// Miscellaneous output: the processor may reach the memory; the CRT controller is at 3Dxh.
const MISC_COLOR: u8 = 1 << 0;

/// Memory, its registers and the retrace clock of one VGA. Thread-safe.
#[derive(Debug)]
pub struct Vga {
    memory: Arc<Memory>,
    /// What the guest sees of a text mode while that is mapped: planes 0 and 1 side by side.
    text: Arc<Memory>,
    /// What is there is newer than the planes.
    text_newer: Mutex<bool>,
    registers: Mutex<Registers>,
    timing: Mutex<Timing>,
    clock: Mutex<Arc<Clock>>,
    /// Whether the attribute controller's flip-flop was reset since Python looked.
    flip_flop_reset: AtomicBool,
    /// Whether ports and memory window answer at all.
    decodes: (AtomicBool, AtomicBool),
    /// Counts writes that came through the window, roughly: any change is a change.
    writes: AtomicU64,
}

impl Vga {
    /// A VGA on `memory`, whose size is a power of two from 256 KiB on, with `text` of
    /// [`TEXT_SIZE`].
    ///
    /// # Panics
    /// For other sizes.
    pub fn new(memory: Arc<Memory>, text: Arc<Memory>, clock: Arc<Clock>) -> Self {
        let size = memory.bytes().size();
        assert!(size.is_power_of_two() && size >= 0x40000 && text.size() == TEXT_SIZE);
        Self {
            memory,
            text,
            text_newer: Mutex::default(),
            registers: Mutex::default(),
            timing: Mutex::default(),
            clock: Mutex::new(clock),
            flip_flop_reset: AtomicBool::new(false),
            decodes: (AtomicBool::new(true), AtomicBool::new(true)),
            writes: AtomicU64::new(0),
        }
    }

    /// The video memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Mapping {
        self.memory.bytes()
    }

    /// The memory to be mapped at the window of a text mode.
    pub fn text(&self) -> &Arc<Memory> {
        &self.text
    }

    /// Where the window shows a text mode that can be mapped.
    pub fn direct_text(&self) -> Option<u64> {
        if !self.decodes_window() {
            return None;
        }
        lock(&self.registers).text()
    }

    /// Fills the text memory from the planes: it is the newer one from now on.
    pub fn enter_text(&self) {
        if lock(&self.registers).text().is_none() {
            return;
        }
        let mut newer = lock(&self.text_newer);
        *newer = true;
        for index in (0..TEXT_SIZE as usize).step_by(2) {
            let planes = self.bytes().dword(index * 4);
            self.text.bytes().set_byte(index, planes as u8);
            self.text.bytes().set_byte(index + 1, (planes >> 8) as u8);
        }
    }

    /// Brings the planes up to date with the text memory, and ends its reign or not.
    pub fn sync_text(&self, leave: bool) {
        let mut newer = lock(&self.text_newer);
        if !*newer {
            return;
        }
        *newer = !leave;
        let mut text = vec![0; TEXT_SIZE as usize];
        self.text.bytes().copy_to(0, &mut text);
        for (index, cell) in text.chunks_exact(2).enumerate() {
            let offset = 2 * index * 4;
            let planes = self.bytes().dword(offset) & 0xffff_0000;
            let cell = u32::from(u16::from_le_bytes([cell[0], cell[1]]));
            self.bytes().set_dword(offset, planes | cell);
        }
    }

    /// Counts by this clock from now on.
    pub fn set_clock(&self, clock: Arc<Clock>) {
        *lock(&self.clock) = clock;
    }

    /// Lets the engine find the ports and the memory window, or not.
    pub fn set_decode(&self, ports: bool, window: bool) {
        self.decodes.0.store(ports, Ordering::Relaxed);
        self.decodes.1.store(window, Ordering::Relaxed);
    }

    /// Whether the ports answer.
    pub fn decodes_ports(&self) -> bool {
        self.decodes.0.load(Ordering::Relaxed)
    }

    /// Whether the memory window answers.
    pub fn decodes_window(&self) -> bool {
        self.decodes.1.load(Ordering::Relaxed)
    }

    /// Registers as after power-on.
    pub fn reset(&self) {
        *lock(&self.registers) = Registers::default();
        *lock(&self.timing) = Timing::default();
        self.flip_flop_reset.store(false, Ordering::Relaxed);
        self.sync_text(true);
    }

    /// Reads a port for the engine: `None` when it is none of those kept here.
    pub fn port_read(&self, port: u16) -> Option<u8> {
        match port {
            SEQUENCER | 0x3c5 | GRAPHICS | 0x3cf => Some(lock(&self.registers).read(port)),
            STATUS_MONO | STATUS_COLOR => {
                let registers = lock(&self.registers);
                // The other one of the two addresses floats.
                if (registers.misc & MISC_COLOR != 0) != (port == STATUS_COLOR) {
                    return Some(0xff);
                }
                drop(registers);
                self.flip_flop_reset.store(true, Ordering::Release);
                let now = lock(&self.clock).nanoseconds();
                Some(lock(&self.timing).status(now))
            }
            _ => None,
        }
    }

    /// Writes a port for the engine: false when Python has to hear of it, which then calls
    /// [`Vga::port_write`] itself.
    pub fn fast_port_write(&self, port: u16, value: u8) -> bool {
        let mut registers = lock(&self.registers);
        registers.is_fast(port) && {
            registers.write(port, value);
            true
        }
    }

    /// The same for index and data written at once.
    pub fn fast_pair_write(&self, port: u16, value: u16) -> bool {
        if port != SEQUENCER && port != GRAPHICS {
            return false;
        }
        let [index, data] = value.to_le_bytes();
        let mut registers = lock(&self.registers);
        let before = registers.index(port);
        registers.write(port, index);
        if registers.is_fast(port + 1) {
            registers.write(port + 1, data);
            return true;
        }
        registers.write(port, before);
        false
    }

    /// Writes a port of the sequencer or the graphics controller.
    pub fn port_write(&self, port: u16, value: u8) {
        lock(&self.registers).write(port, value);
    }

    /// Whether the flip-flop was reset since this was asked last.
    pub fn take_flip_flop_reset(&self) -> bool {
        self.flip_flop_reset.swap(false, Ordering::AcqRel)
    }

    /// Miscellaneous output register, whose bits reach memory and status.
    pub fn set_misc(&self, misc: u8) {
        lock(&self.registers).misc = misc;
    }

    /// Where the window begins in memory, in bytes, when a linear (`true`) or planar mode of the
    /// VBE shows it; `None` for the modes of a VGA.
    pub fn set_bank(&self, bank: Option<(usize, bool)>) {
        lock(&self.registers).bank = bank;
    }

    /// Whether Python wants to hear of every change of the registers, since it has mapped memory
    /// at the window as they were.
    pub fn set_watched(&self, watched: bool) {
        lock(&self.registers).watched = watched;
    }

    /// What the retrace clock is to show.
    pub fn set_timing(&self, timing: Timing) {
        *lock(&self.timing) = timing;
    }

    /// The registers in order: sequencer index and five, graphics index and nine.
    pub fn registers(&self) -> [u8; 16] {
        lock(&self.registers).all()
    }

    /// Sets the registers, as [`Vga::registers`] gives them.
    pub fn set_registers(&self, values: [u8; 16]) {
        lock(&self.registers).set_all(values);
    }

    /// The latches, plane 0 lowest.
    pub fn latches(&self) -> u32 {
        lock(&self.registers).latches
    }

    /// Sets the latches.
    pub fn set_latches(&self, latches: u32) {
        lock(&self.registers).latches = latches;
    }

    /// Changes with writes through the window.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Where the whole window is plain memory as the registers are: address, size, and offset in
    /// memory.
    pub fn direct(&self) -> Option<(u64, u64, usize)> {
        if !self.decodes_window() {
            return None;
        }
        lock(&self.registers).direct(self.bytes().size())
    }

    /// Reads `size` (1 to 8) bytes at `address` in the window.
    pub fn read(&self, address: u64, size: u8) -> u64 {
        let mut registers = lock(&self.registers);
        (0..size.min(8)).fold(0, |value, index| {
            let byte = planes::read(&mut registers, self.bytes(), address + u64::from(index));
            value | u64::from(byte) << (index * 8)
        })
    }

    /// Writes `size` (1 to 8) bytes at `address` in the window.
    pub fn write(&self, address: u64, size: u8, value: u64) {
        let mut registers = lock(&self.registers);
        for (index, byte) in (0..size.min(8)).zip(value.to_le_bytes()) {
            planes::write(
                &mut registers,
                self.bytes(),
                address + u64::from(index),
                byte,
            );
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Locks; a panic of another thread leaves registers that a guest could have set too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
