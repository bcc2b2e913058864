//! From video memory to pixels, as a plan says that Python makes of the registers.

use ringfence_memory::Mapping;

use super::scroll::{self, Scroll};
use super::text::{self, Text};

/// Largest width and height of a picture in pixels.
pub const LARGEST: u32 = 4096;

/// How memory is to be read as pixels.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing but black.
    Blank,
    /// Characters and attributes in planes 0 and 1, the font in plane 2.
    Text(Text),
    /// One bit in each of four planes.
    Planar,
    /// Pairs of bits, as in the modes of a CGA.
    Pairs,
    /// A byte in each plane: 256 colours.
    Bytes,
    /// The linear framebuffer with this many bits per pixel: 8, 15, 16, 24 or 32.
    Linear(u8),
}

/// A picture: what to draw, from where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How memory becomes pixels.
    pub kind: Kind,
    /// Pixels of a line, at most [`LARGEST`].
    pub width: u32,
    /// Lines, at most [`LARGEST`].
    pub height: u32,
    /// First address: character clocks, or bytes of a linear framebuffer.
    pub start: u32,
    /// From one row to the next, in the same units.
    pub pitch: u32,
    /// First scan line that shows memory from address 0 on.
    pub split: u32,
    /// Whether panning goes on below the split.
    pub split_pans: bool,
    /// Scan lines per line of the picture.
    pub repeat: u32,
    /// Scan lines per count of the row scan counter: 1 or 2.
    pub double: u32,
    /// Counts per row.
    pub row: u32,
    /// Count that the first row begins with.
    pub preset: u32,
    /// Pixels that the picture is moved left.
    pub panning: u32,
    /// The address counter is shifted left by so many bits, its bits from here on fill in.
    pub shift: (u32, u32),
    /// The row scan counter's lowest bits replace address bits 13 and 14.
    pub row_bits: (bool, bool),
    /// Addresses wrap at this mask.
    pub mask: u32,
    /// Colours, as 00RRGGBBh: of attributes (the first 16), or of bytes.
    pub palette: Vec<u32>,
}

/// Part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Pixels across.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

/// A picture that was drawn last.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
    /// What is drawn before it is compared; kept for its memory.
    next: Vec<u32>,
    hashes: Vec<u64>,
}

/// What lines are read from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Video memory.
    Memory(&'a Mapping),
    /// A copy of a framebuffer in guest memory.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    pub(super) fn dword(&self, index: u32) -> u32 {
        match self {
            Self::Memory(memory) => memory.dword((index as usize * 4) & (memory.size() - 1)),
            Self::Bytes(_) => 0,
        }
    }

    /// Bytes from `offset` on; zeros beyond the end.
    fn line(&self, offset: usize, out: &mut [u8]) {
        out.fill(0);
        let size = match self {
            Self::Memory(memory) => memory.size(),
            Self::Bytes(bytes) => bytes.len(),
        };
        let count = size.saturating_sub(offset).min(out.len());
        match self {
            Self::Memory(memory) if count > 0 => memory.copy_to(offset, &mut out[..count]),
            Self::Bytes(bytes) if count > 0 => {
                out[..count].copy_from_slice(&bytes[offset..offset + count]);
            }
            _ => {}
        }
    }
}

impl Plan {
    /// Address counter, row scan count and panning of a line of the picture.
    fn line(&self, y: u32) -> (u32, u32, u32) {
        let scan = y.saturating_mul(self.repeat.max(1));
        let (start, scan, preset, panning) = if scan >= self.split {
            let panning = if self.split_pans { self.panning } else { 0 };
            (0, scan - self.split, 0, panning)
        } else {
            (self.start, scan, self.preset, self.panning)
        };
        let count = scan / self.double.max(1) + preset;
        let rows = self.row.max(1);
        let address = start.wrapping_add((count / rows).wrapping_mul(self.pitch));
        (address, count % rows, panning)
    }

    /// Index of four planes' bytes for a value of the address counter.
    pub(super) fn index(&self, counter: u32, row_scan: u32) -> u32 {
        let (shift, from) = self.shift;
        let filled = counter >> (from & 31) & ((1 << (shift & 3)) - 1);
        let mut index = counter << (shift & 3) | filled;
        if self.row_bits.0 {
            index = index & !0x2000 | (row_scan & 1) << 13;
        }
        if self.row_bits.1 {
            index = index & !0x4000 | (row_scan >> 1 & 1) << 14;
        }
        index & self.mask
    }

    fn color(&self, index: u32) -> u32 {
        self.palette.get(index as usize).copied().unwrap_or(0)
    }

    fn draw_line(&self, source: Source<'_>, y: u32, line: &mut [u32], bytes: &mut Vec<u8>) {
        let (address, row_scan, panning) = self.line(y);
        match &self.kind {
            Kind::Blank => line.fill(0),
            Kind::Linear(depth) => self.draw_linear(source, *depth, address, line, bytes),
            Kind::Text(text) => {
                text::draw(self, text, source, (address, row_scan, panning), line);
            }
            Kind::Planar => self.draw_cells(line, 8, panning, |cell, out| {
                let planes = source.dword(self.index(address.wrapping_add(cell), row_scan));
                for (bit, pixel) in out.iter_mut().enumerate() {
                    let bits = planes >> (7 - bit);
                    let index = bits & 1 | bits >> 7 & 2 | bits >> 14 & 4 | bits >> 21 & 8;
                    *pixel = self.color(index);
                }
            }),
            Kind::Pairs => self.draw_cells(line, 8, panning, |cell, out| {
                let planes = source.dword(self.index(address.wrapping_add(cell), row_scan));
                for (at, pixel) in (0u32..).zip(out) {
                    // Planes 0 and 2 hold the first four pixels, 1 and 3 the other ones.
                    let (byte, pair) = (at / 4 * 8, 6 - at % 4 * 2);
                    let low = planes >> (byte + pair) & 3;
                    let high = planes >> (byte + 16 + pair) & 3;
                    *pixel = self.color(low | high << 2);
                }
            }),
            Kind::Bytes => self.draw_cells(line, 4, panning, |cell, out| {
                let planes = source.dword(self.index(address.wrapping_add(cell), row_scan));
                for (byte, pixel) in planes.to_le_bytes().into_iter().zip(out) {
                    *pixel = self.color(byte.into());
                }
            }),
        }
    }

    /// Draws cells of `across` pixels, the first of them moved left.
    fn draw_cells(
        &self,
        line: &mut [u32],
        across: u32,
        panning: u32,
        mut draw: impl FnMut(u32, &mut [u32]),
    ) {
        let mut pixels = [0; 8];
        let across = across as usize;
        let panning = (panning as usize).min(across - 1);
        let (mut done, mut cell, mut skip) = (0, 0, panning);
        while done < line.len() {
            draw(cell, &mut pixels[..across]);
            let count = (across - skip).min(line.len() - done);
            line[done..done + count].copy_from_slice(&pixels[skip..skip + count]);
            (done, cell, skip) = (done + count, cell + 1, 0);
        }
    }

    fn draw_linear(
        &self,
        source: Source<'_>,
        depth: u8,
        address: u32,
        line: &mut [u32],
        bytes: &mut Vec<u8>,
    ) {
        let each = usize::from(depth.div_ceil(8)).clamp(1, 4);
        bytes.resize(line.len() * each, 0);
        source.line(address as usize, bytes);
        let pixels = line.iter_mut().zip(bytes.chunks_exact(each));
        match depth {
            8 => pixels.for_each(|(out, b)| *out = self.color(b[0].into())),
            15 => pixels.for_each(|(out, b)| {
                let value = u32::from(u16::from_le_bytes([b[0], b[1]]));
                let five = |shift: u32| {
                    let bits = value >> shift & 31;
                    bits << 3 | bits >> 2
                };
                *out = five(10) << 16 | five(5) << 8 | five(0);
            }),
            16 => pixels.for_each(|(out, b)| {
                let value = u32::from(u16::from_le_bytes([b[0], b[1]]));
                let (red, green, blue) = (value >> 11, value >> 5 & 63, value & 31);
                *out = (red << 3 | red >> 2) << 16
                    | (green << 2 | green >> 4) << 8
                    | (blue << 3 | blue >> 2);
            }),
            _ => pixels.for_each(|(out, b)| {
                *out = u32::from(b[2]) << 16 | u32::from(b[1]) << 8 | u32::from(b[0]);
            }),
        }
    }
}

impl Frame {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Draws a picture over this one; gives the parts that differ, from top to bottom.
    ///
    /// A picture of another size differs everywhere.
    pub fn draw(&mut self, source: Source<'_>, plan: &Plan) -> Vec<Rect> {
        if self.resize(plan) {
            self.draw_next(source, plan);
            std::mem::swap(&mut self.pixels, &mut self.next);
            return self.everything();
        }
        self.draw_next(source, plan);
        self.take_next()
    }

    /// As [`Frame::draw`], for those who can move lines by themselves: gives a move that comes
    /// first, and the parts that differ after it.
    pub fn draw_scrolled(
        &mut self,
        source: Source<'_>,
        plan: &Plan,
    ) -> (Option<Scroll>, Vec<Rect>) {
        let anew = self.resize(plan);
        self.draw_next(source, plan);
        let width = self.width.max(1) as usize;
        let hashes: Vec<u64> = self.next.chunks_exact(width).map(scroll::hash).collect();
        let before = std::mem::replace(&mut self.hashes, hashes);
        if anew {
            std::mem::swap(&mut self.pixels, &mut self.next);
            return (None, self.everything());
        }
        let found = scroll::find(&before, &self.hashes);
        if let Some(Scroll { from, to, lines }) = found {
            let (from, to) = (from as usize * width, to as usize * width);
            self.pixels
                .copy_within(from..from + lines as usize * width, to);
        }
        (found, self.take_next())
    }

    /// Whether the picture has another size now.
    fn resize(&mut self, plan: &Plan) -> bool {
        let (width, height) = (plan.width.min(LARGEST), plan.height.min(LARGEST));
        let anew = (width, height) != self.size();
        if anew {
            (self.width, self.height) = (width, height);
            for pixels in [&mut self.pixels, &mut self.next] {
                *pixels = vec![0; width as usize * height as usize];
            }
        }
        anew
    }

    fn everything(&self) -> Vec<Rect> {
        vec![Rect {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }]
    }

    fn draw_next(&mut self, source: Source<'_>, plan: &Plan) {
        let mut bytes = Vec::new();
        let width = self.width.max(1) as usize;
        for (y, line) in (0..).zip(self.next.chunks_exact_mut(width)) {
            plan.draw_line(source, y, line, &mut bytes);
        }
    }

    /// Makes the next picture the present one; gives the parts that differ.
    fn take_next(&mut self) -> Vec<Rect> {
        let mut changed: Vec<Rect> = Vec::new();
        let width = self.width.max(1) as usize;
        let lines = self
            .pixels
            .chunks_exact(width)
            .zip(self.next.chunks_exact(width));
        for (y, (old, new)) in (0..).zip(lines) {
            if old == new {
                continue;
            }
            let first = old.iter().zip(new).position(|(a, b)| a != b).unwrap_or(0);
            let last = old.iter().zip(new).rposition(|(a, b)| a != b);
            let (left, right) = (first as u32, last.unwrap_or(first) as u32 + 1);
            add_line(&mut changed, y, left, right);
        }
        std::mem::swap(&mut self.pixels, &mut self.next);
        changed
    }

    /// The pixels of a part (cut to the picture), line by line, each as 00RRGGBBh.
    pub fn part(&self, rect: Rect) -> impl Iterator<Item = &[u32]> {
        let right = rect.x.saturating_add(rect.width).min(self.width);
        let bottom = rect.y.saturating_add(rect.height).min(self.height);
        let (left, top) = (rect.x.min(right), rect.y.min(bottom));
        (top..bottom).map(move |y| {
            let line = y as usize * self.width as usize;
            &self.pixels[line + left as usize..line + right as usize]
        })
    }
}

/// Lines that are near each other belong to one part: fewer parts, little more area.
const NEAR: u32 = 8;

fn add_line(changed: &mut Vec<Rect>, y: u32, left: u32, right: u32) {
    if let Some(last) = changed.last_mut()
        && y - (last.y + last.height) < NEAR
    {
        let (old_left, old_right) = (last.x, last.x + last.width);
        last.x = old_left.min(left);
        last.width = old_right.max(right) - last.x;
        last.height = y + 1 - last.y;
        return;
    }
    changed.push(Rect {
        x: left,
        y,
        width: right - left,
        height: 1,
    });
}
