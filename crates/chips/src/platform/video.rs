//! Where a VGA is attached, so that its memory window and its busiest ports are served inside the
//! engine.

use std::sync::{Arc, OnceLock};

use ringfence_engine::Clock;

use crate::vga::{self, Vga};

/// The place for a machine's VGA.
#[derive(Debug)]
pub struct VideoSlot {
    clock: Arc<Clock>,
    vga: OnceLock<Arc<Vga>>,
}

impl VideoSlot {
    /// The place in a machine that has this clock.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            vga: OnceLock::new(),
        }
    }

    /// Serves the memory window and the busiest ports of a VGA from now on; a machine has one.
    ///
    /// Returns whether it is the first.
    pub fn attach(&self, video: Arc<Vga>) -> bool {
        video.set_clock(Arc::clone(&self.clock));
        self.vga.set(video).is_ok()
    }

    /// The VGA, if an access lies in its window.
    fn at(&self, address: u64, size: u8) -> Option<&Vga> {
        let offset = address.checked_sub(vga::WINDOW)?;
        if offset + u64::from(size) > vga::WINDOW_SIZE {
            return None;
        }
        let video = self.vga.get().map(|video| &**video);
        video.filter(|video| video.decodes_window())
    }

    /// The VGA, if its ports answer.
    fn ports(&self) -> Option<&Vga> {
        let video = self.vga.get().map(|video| &**video);
        video.filter(|video| video.decodes_ports())
    }

    /// Reads a port, if it is one of the VGA's busiest.
    pub fn port_read(&self, port: u16, size: u8) -> Option<u32> {
        match self.ports() {
            Some(video) if size == 1 => video.port_read(port).map(u32::from),
            _ => None,
        }
    }

    /// Writes a port, if it is one of the VGA's busiest.
    pub fn port_write(&self, port: u16, size: u8, value: u32) -> bool {
        match (self.ports(), size) {
            (Some(video), 1) => video.fast_port_write(port, value as u8),
            (Some(video), 2) => video.fast_pair_write(port, value as u16),
            _ => false,
        }
    }

    /// Loads from the window.
    pub fn mmio_read(&self, address: u64, size: u8) -> Option<u64> {
        Some(self.at(address, size)?.read(address, size))
    }

    /// Stores to the window, if the address lies in it.
    pub fn mmio_write(&self, address: u64, size: u8, value: u64) -> bool {
        let Some(video) = self.at(address, size) else {
            return false;
        };
        video.write(address, size, value);
        true
    }
}
