//! Pixels as viewers want them: formats, and the tiles of the ZRLE encoding.
//!
//! Source: the remote framebuffer protocol (RFC 6143), sections 7.4 and 7.7.6.

use super::scan::{Frame, Rect};

/// Edge of a tile in pixels.
const TILE: u32 = 64;
/// Colours of a palette that is packed into bits, and of one that runs refer to.
const MOST_PACKED: usize = 16;
const MOST_COLORS: usize = 127;

/// A true-colour format.
#[derive(Clone, Copy, Debug)]
pub struct PixelFormat {
    /// Bytes of a pixel: 1 to 4.
    pub size: usize,
    /// Highest byte first.
    pub big_endian: bool,
    /// Largest value of red, green and blue.
    pub largest: [u32; 3],
    /// Their shifts to the left.
    pub shift: [u32; 3],
}

impl PixelFormat {
    fn is_plain(&self) -> bool {
        self.largest == [255; 3] && self.shift == [16, 8, 0]
    }

    fn convert(&self, pixel: u32) -> u32 {
        let channel = |index: usize, value: u32| {
            let scaled = (value & 0xff) * (self.largest[index] & 0xffff);
            (u64::from((scaled + 127) / 255) << (self.shift[index] & 31)) as u32
        };
        channel(0, pixel >> 16) | channel(1, pixel >> 8) | channel(2, pixel)
    }

    fn put(&self, out: &mut Vec<u8>, value: u32) {
        if self.big_endian {
            out.extend_from_slice(&value.to_be_bytes()[4 - self.size..]);
        } else {
            out.extend_from_slice(&value.to_le_bytes()[..self.size]);
        }
    }

    /// Bits of all channels.
    fn bits(&self) -> u32 {
        self.convert(0x00ff_ffff)
    }

    /// The compressed form (section 7.7.5): three bytes where they hold all bits, and which.
    fn compact(&self) -> Compact {
        let bits = self.bits();
        let low = bits & 0xff00_0000 == 0;
        let high = bits & 0x0000_00ff == 0;
        match (self.size, low, high) {
            (4, true, _) => Compact {
                first: usize::from(self.big_endian),
                size: 3,
            },
            (4, false, true) => Compact {
                first: usize::from(!self.big_endian),
                size: 3,
            },
            (size, ..) => Compact { first: 0, size },
        }
    }
}

/// Which bytes of a pixel are sent.
#[derive(Clone, Copy)]
struct Compact {
    first: usize,
    size: usize,
}

impl Frame {
    /// Pixels of a part, cut to the picture, line by line.
    pub fn packed(&self, rect: Rect, format: &PixelFormat) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.part(rect) {
            out.reserve(line.len() * format.size);
            if format.is_plain() && format.size == 4 && !format.big_endian {
                line.iter()
                    .for_each(|pixel| out.extend_from_slice(&pixel.to_le_bytes()));
            } else {
                for &pixel in line {
                    format.put(&mut out, format.convert(pixel));
                }
            }
        }
        out
    }

    /// A part as ZRLE sends it, before it is compressed.
    pub fn zrle(&self, rect: Rect, format: &PixelFormat) -> Vec<u8> {
        let (width, height) = self.size();
        let right = rect.x.saturating_add(rect.width).min(width);
        let bottom = rect.y.saturating_add(rect.height).min(height);
        let mut out = Vec::new();
        let mut pixels = Vec::with_capacity((TILE * TILE) as usize);
        let mut y = rect.y;
        while y < bottom {
            let mut x = rect.x;
            while x < right {
                let tile = Rect {
                    x,
                    y,
                    width: TILE.min(right - x),
                    height: TILE.min(bottom - y),
                };
                pixels.clear();
                for line in self.part(tile) {
                    pixels.extend_from_slice(line);
                }
                encode(&pixels, tile.width as usize, format, &mut out);
                x += TILE;
            }
            y += TILE;
        }
        out
    }
}

/// Lengths of the runs of equal pixels.
fn runs(pixels: &[u32]) -> impl Iterator<Item = (u32, usize)> {
    pixels
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len()))
}

fn encode(pixels: &[u32], width: usize, format: &PixelFormat, out: &mut Vec<u8>) {
    let compact = format.compact();
    let mut palette: Vec<u32> = Vec::new();
    let (mut count, mut rle_bytes, mut index_bytes) = (0, 0, 0);
    for (color, length) in runs(pixels) {
        count += 1;
        rle_bytes += compact.size + (length - 1) / 255 + 1;
        index_bytes += if length == 1 {
            1
        } else {
            (length - 1) / 255 + 2
        };
        if palette.len() <= MOST_COLORS && !palette.contains(&color) {
            palette.push(color);
        }
    }
    let put = |out: &mut Vec<u8>, pixel: u32| {
        let mut bytes = Vec::with_capacity(4);
        format.put(&mut bytes, format.convert(pixel));
        out.extend_from_slice(&bytes[compact.first..compact.first + compact.size]);
    };
    if palette.len() == 1 {
        out.push(1);
        put(out, palette[0]);
        return;
    }
    let colors = palette.len();
    let bits = match colors {
        ..=2 => 1,
        3..=4 => 2,
        _ => 4,
    };
    let height = pixels.len() / width.max(1);
    let table = colors * compact.size;
    let packed_bytes = if colors <= MOST_PACKED {
        table + (width * bits).div_ceil(8) * height
    } else {
        usize::MAX
    };
    let index_bytes = if colors <= MOST_COLORS {
        table + index_bytes
    } else {
        usize::MAX
    };
    let raw_bytes = pixels.len() * compact.size;
    let least = raw_bytes.min(rle_bytes).min(packed_bytes).min(index_bytes);
    let index_of = |color: u32| palette.iter().position(|&c| c == color).unwrap_or(0) as u8;
    if least == packed_bytes {
        out.push(colors as u8);
        palette.iter().for_each(|&color| put(out, color));
        for line in pixels.chunks(width) {
            for group in line.chunks(8 / bits) {
                let mut byte = 0;
                for (at, &pixel) in group.iter().enumerate() {
                    byte |= index_of(pixel) << (8 - bits * (at + 1));
                }
                out.push(byte);
            }
        }
    } else if least == index_bytes {
        out.push(128 | colors as u8);
        palette.iter().for_each(|&color| put(out, color));
        for (color, length) in runs(pixels) {
            let index = index_of(color);
            if length == 1 {
                out.push(index);
            } else {
                out.push(index | 128);
                put_length(out, length);
            }
        }
    } else if least == rle_bytes && count < pixels.len() {
        out.push(128);
        for (color, length) in runs(pixels) {
            put(out, color);
            put_length(out, length);
        }
    } else {
        out.push(0);
        pixels.iter().for_each(|&pixel| put(out, pixel));
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + (length - 1) / 255, 255);
    out.push(((length - 1) % 255) as u8);
}
