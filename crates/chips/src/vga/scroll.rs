//! Finds out that a picture is the last one moved up or down, as consoles scroll.

/// Most lines that a picture is moved by.
const FARTHEST: usize = 128;
/// A move of fewer lines is not worth telling.
const LEAST: usize = 32;

/// Lines that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scroll {
    /// First line where they were.
    pub from: u32,
    /// First line where they are.
    pub to: u32,
    /// How many.
    pub lines: u32,
}

/// A value that lines have in common only if they are equal, all but surely.
pub fn hash(line: &[u32]) -> u64 {
    line.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &pixel| {
        (hash ^ u64::from(pixel))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23)
    })
}

/// The longest run of lines of `new` that `old` has elsewhere, if it is the larger part of what
/// has changed.
pub fn find(old: &[u64], new: &[u64]) -> Option<Scroll> {
    let height = new.len();
    if old.len() != height {
        return None;
    }
    let changed = old.iter().zip(new).filter(|(a, b)| a != b).count();
    if changed < height / 4 {
        return None;
    }
    let mut best: Option<(usize, Scroll)> = None;
    for distance in 1..FARTHEST.min(height / 2) {
        for up in [true, false] {
            let (from, to) = if up { (distance, 0) } else { (0, distance) };
            let span = height - distance;
            let (mut start, mut moved) = (0, 0);
            for at in 0..=span {
                if at < span && old[from + at] == new[to + at] {
                    // Lines that look alike everywhere prove nothing.
                    moved += usize::from(old[to + at] != new[to + at]);
                    continue;
                }
                if at - start >= LEAST
                    && moved * 2 >= changed
                    && best.is_none_or(|(most, _)| moved > most)
                {
                    let scroll = Scroll {
                        from: (from + start) as u32,
                        to: (to + start) as u32,
                        lines: (at - start) as u32,
                    };
                    best = Some((moved, scroll));
                }
                (start, moved) = (at + 1, 0);
            }
        }
    }
    best.map(|(_, scroll)| scroll)
}
