//! Input status 1: where the beam is.

/// Not in the picture, and in the vertical retrace.
const DISPLAY_DISABLED: u8 = 1 << 0;
const RETRACE: u8 = 1 << 3;

/// When lines and frames begin and end, as the CRT controller is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Nanoseconds of a frame.
    pub frame: u64,
    /// Lines of a frame.
    pub lines: u32,
    /// Lines that show the picture.
    pub shown: u32,
    /// First line of the vertical retrace, and the line after its last.
    pub retrace: (u32, u32),
    /// Thousandths of a line that show the picture.
    pub line_shown: u32,
}

impl Default for Timing {
    /// Text mode of 400 lines at 70 Hz.
    fn default() -> Self {
        Self {
            frame: 14_268_000,
            lines: 449,
            shown: 400,
            retrace: (412, 414),
            line_shown: 800,
        }
    }
}

impl Timing {
    /// The status at a time in nanoseconds.
    pub fn status(&self, now: u64) -> u8 {
        let (frame, lines) = (self.frame.max(1), u64::from(self.lines.max(1)));
        // In thousandths of a line.
        let position = u128::from(now % frame) * u128::from(lines) * 1000 / u128::from(frame);
        let (line, within) = ((position / 1000) as u32, (position % 1000) as u32);
        let mut status = 0;
        if line >= self.shown || within >= self.line_shown {
            status |= DISPLAY_DISABLED;
        }
        if (self.retrace.0..self.retrace.1).contains(&line) {
            status |= RETRACE | DISPLAY_DISABLED;
        }
        status
    }
}
