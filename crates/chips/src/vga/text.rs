//! Characters, attributes and the cursor of text modes.

use super::scan::{Plan, Source};

/// What a text mode adds to a [`Plan`].
#[derive(Clone, Debug)]
pub struct Text {
    /// Dots of a character: 8 or 9.
    pub dots: u32,
    /// Offsets in plane 2 of the fonts for attributes with bit 3 clear and set.
    pub fonts: (u32, u32),
    /// The ninth dot of line characters (C0h to DFh) is that of the eighth.
    pub line_graphics: bool,
    /// Bit 7 of attributes blinks instead of brightening the background.
    pub blink: bool,
    /// What blinks is shown now.
    pub lit: bool,
    /// Address counter of the cursor, and first and last row scan; no cursor: last before first.
    pub cursor: (u32, u32, u32),
    /// Row scan of the underline of attributes that have one; beyond the row: none.
    pub underline: u32,
}

/// Draws a line from an address, a row scan count and a panning.
pub fn draw(
    plan: &Plan,
    text: &Text,
    source: Source<'_>,
    (address, row_scan, panning): (u32, u32, u32),
    line: &mut [u32],
) {
    let dots = text.dots.clamp(8, 9) as usize;
    let mut skip = (panning as usize).min(dots - 1);
    let (mut done, mut cell) = (0, 0u32);
    while done < line.len() {
        let counter = address.wrapping_add(cell);
        let planes = source.dword(plan.index(counter, 0));
        let (code, attribute) = (planes & 0xff, planes >> 8 & 0xff);
        let font = if attribute & 8 != 0 {
            text.fonts.1
        } else {
            text.fonts.0
        };
        let mut bits = source.dword((font + code * 32 + row_scan) & 0xffff) >> 16 & 0xff;
        let (foreground, mut background) = (attribute & 15, attribute >> 4);
        if text.blink {
            if attribute & 0x80 != 0 && !text.lit {
                bits = 0;
            }
            background &= 7;
        }
        bits <<= 1;
        if text.line_graphics && code & 0xe0 == 0xc0 {
            bits |= bits >> 1 & 1;
        }
        if attribute & 7 == 1 && row_scan == text.underline {
            bits = 0x1ff;
        }
        let (at, first, last) = text.cursor;
        if counter & 0xffff == at & 0xffff && (first..=last).contains(&row_scan) {
            bits = 0x1ff;
        }
        let color = |index: u32| plan.palette.get(index as usize).copied().unwrap_or(0);
        let colors = [color(background), color(foreground)];
        for dot in skip..dots {
            let Some(pixel) = line.get_mut(done) else {
                return;
            };
            *pixel = colors[(bits >> (8 - dot) & 1) as usize];
            done += 1;
        }
        (cell, skip) = (cell + 1, 0);
    }
}
