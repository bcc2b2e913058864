//! Sequencer and graphics controller: the registers between processor and memory.

use super::{GRAPHICS, SEQUENCER};

/// Sequencer: map mask, character map select, memory mode.
pub const MAP_MASK: usize = 2;
pub const MEMORY_MODE: usize = 4;
/// Graphics controller.
pub const SET_RESET: usize = 0;
pub const ENABLE_SET_RESET: usize = 1;
pub const COLOR_COMPARE: usize = 2;
pub const DATA_ROTATE: usize = 3;
pub const READ_MAP: usize = 4;
pub const MODE: usize = 5;
pub const MISCELLANEOUS: usize = 6;
pub const COLOR_CARE: usize = 7;
pub const BIT_MASK: usize = 8;

/// Memory mode: more than 64 KiB, no odd/even addressing, chain 4.
pub const EXTENDED: u8 = 1 << 1;
pub const NO_ODD_EVEN: u8 = 1 << 2;
pub const CHAIN_4: u8 = 1 << 3;
/// Mode of the graphics controller: read mode 1, odd/even addressing.
pub const READ_COMPARE: u8 = 1 << 3;
pub const HOST_ODD_EVEN: u8 = 1 << 4;
/// Miscellaneous of the graphics controller: odd/even addressing replaces address bit 0.
pub const CHAIN_ODD_EVEN: u8 = 1 << 1;
/// Miscellaneous output: the processor reaches the memory; page of odd/even addressing.
pub const MISC_MEMORY: u8 = 1 << 1;
pub const MISC_PAGE: u8 = 1 << 5;

/// Bits that exist, by register.
const SEQUENCER_BITS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];
const GRAPHICS_BITS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    pub sequencer_index: u8,
    pub sequencer: [u8; 5],
    pub graphics_index: u8,
    pub graphics: [u8; 9],
    pub latches: u32,
    pub misc: u8,
    pub bank: Option<(usize, bool)>,
    pub watched: bool,
}

impl Registers {
    pub fn read(&self, port: u16) -> u8 {
        let register = |file: &[u8], index: u8| file.get(usize::from(index)).copied().unwrap_or(0);
        match port {
            SEQUENCER => self.sequencer_index,
            0x3c5 => register(&self.sequencer, self.sequencer_index),
            GRAPHICS => self.graphics_index,
            _ => register(&self.graphics, self.graphics_index),
        }
    }

    pub fn write(&mut self, port: u16, value: u8) {
        let set = |file: &mut [u8], bits: &[u8], index: u8| {
            let index = usize::from(index);
            if let (Some(register), Some(bits)) = (file.get_mut(index), bits.get(index)) {
                *register = value & bits;
            }
        };
        match port {
            SEQUENCER => self.sequencer_index = value & 7,
            0x3c5 => set(&mut self.sequencer, &SEQUENCER_BITS, self.sequencer_index),
            GRAPHICS => self.graphics_index = value & 15,
            0x3cf => set(&mut self.graphics, &GRAPHICS_BITS, self.graphics_index),
            _ => {}
        }
    }

    /// The index register at a port.
    pub fn index(&self, port: u16) -> u8 {
        if port == SEQUENCER {
            self.sequencer_index
        } else {
            self.graphics_index
        }
    }

    /// Whether a write to a port changes nothing that Python goes by.
    pub fn is_fast(&self, port: u16) -> bool {
        match port {
            SEQUENCER | GRAPHICS => true,
            0x3c5 => !self.watched && usize::from(self.sequencer_index) == MAP_MASK,
            0x3cf => {
                let index = usize::from(self.graphics_index);
                !self.watched && index != MODE && index != MISCELLANEOUS
            }
            _ => false,
        }
    }

    pub fn all(&self) -> [u8; 16] {
        let mut all = [0; 16];
        all[0] = self.sequencer_index;
        all[1..6].copy_from_slice(&self.sequencer);
        all[6] = self.graphics_index;
        all[7..].copy_from_slice(&self.graphics);
        all
    }

    pub fn set_all(&mut self, values: [u8; 16]) {
        self.sequencer_index = values[0] & 7;
        self.graphics_index = values[6] & 15;
        for (index, bits) in SEQUENCER_BITS.into_iter().enumerate() {
            self.sequencer[index] = values[1 + index] & bits;
        }
        for (index, bits) in GRAPHICS_BITS.into_iter().enumerate() {
            self.graphics[index] = values[7 + index] & bits;
        }
    }

    /// First address and size of the part of the window that answers.
    pub fn window(&self) -> (u64, u64) {
        match self.graphics[MISCELLANEOUS] >> 2 & 3 {
            0 => (0xa0000, 0x20000),
            1 => (0xa0000, 0x10000),
            2 => (0xb0000, 0x8000),
            _ => (0xb8000, 0x8000),
        }
    }

    /// Whether the window is that of a text mode, where characters and attributes lie side by
    /// side, in the page that is shown: its address.
    pub fn text(&self) -> Option<u64> {
        let (start, size) = self.window();
        let plain = self.bank.is_none()
            && self.misc & MISC_MEMORY != 0
            && self.misc & MISC_PAGE != 0
            && size == super::TEXT_SIZE
            && self.sequencer[MEMORY_MODE] & (EXTENDED | NO_ODD_EVEN | CHAIN_4) == EXTENDED
            && self.sequencer[MAP_MASK] == 0x03
            && self.graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN != 0
            && self.graphics[ENABLE_SET_RESET] == 0
            && self.graphics[DATA_ROTATE] == 0
            && self.graphics[READ_MAP] & 2 == 0
            && self.graphics[MODE] & 0x1b == HOST_ODD_EVEN
            && self.graphics[BIT_MASK] == 0xff;
        plain.then_some(start)
    }

    /// See [`Vga::direct`](super::Vga::direct).
    pub fn direct(&self, memory: usize) -> Option<(u64, u64, usize)> {
        if self.misc & MISC_MEMORY == 0 {
            return None;
        }
        if let Some((bank, linear)) = self.bank {
            let whole = linear && memory.checked_sub(bank)? >= 0x10000;
            return whole.then_some((0xa0000, 0x10000, bank));
        }
        let plain = self.sequencer[MEMORY_MODE] & CHAIN_4 != 0
            && self.sequencer[MAP_MASK] == 0x0f
            && self.graphics[ENABLE_SET_RESET] == 0
            && self.graphics[DATA_ROTATE] == 0
            && self.graphics[MODE] & 0x0b == 0
            && self.graphics[BIT_MASK] == 0xff;
        let (start, size) = self.window();
        plain.then_some((start, size.min(0x10000), 0))
    }
}
