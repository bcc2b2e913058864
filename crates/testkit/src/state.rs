//! Inputs and outputs of a case.

use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::LazyLock;

/// Bytes of the XSAVE image that cases have: all components up to AVX-512.
pub const XSTATE_SIZE: usize = 2688;
/// Offset of MXCSR in the image.
pub const MXCSR: usize = 24;
/// Offset of the header.
pub const HEADER: usize = 512;
/// x87, SSE and AVX; and the three components of AVX-512.
const AVX: u8 = 7;
const AVX512: u8 = 0xe0;

/// How this host's processor lays out the image.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The components that cases have, as bits of XCR0.
    pub components: u8,
    /// Bytes of the image with all of them.
    pub size: usize,
    /// Offsets of opmask registers, upper halves of ZMM0 to ZMM15, and ZMM16 to ZMM31.
    avx512: [usize; 3],
}

/// Bytes of the components of AVX-512.
const AVX512_SIZES: [usize; 3] = [64, 512, 1024];

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let leaf = |subleaf| {
        // SAFETY: every processor has CPUID, and it has no effect.
        #[allow(unused_unsafe)]
        unsafe {
            __cpuid_count(0xd, subleaf)
        }
    };
    let avx512: [usize; 3] = std::array::from_fn(|index| leaf(index as u32 + 5).ebx as usize);
    let ends = avx512.iter().zip(AVX512_SIZES).map(|(at, size)| at + size);
    let size = ends.fold(832, usize::max);
    if is_x86_feature_detected!("avx512f") && size <= XSTATE_SIZE {
        Layout {
            components: AVX | AVX512,
            size,
            avx512,
        }
    } else {
        Layout {
            components: AVX,
            size: 832,
            avx512: [0; 3],
        }
    }
});

/// The layout of images on this host.
pub fn layout() -> Layout {
    *LAYOUT
}

impl Layout {
    /// Where component `index` (2, or 5 to 7) lies; empty if cases do not have it.
    pub fn component(&self, index: usize) -> Range<usize> {
        match index {
            2 => 576..832,
            5..=7 if self.components & AVX512 != 0 => {
                let start = self.avx512[index - 5];
                start..start + AVX512_SIZES[index - 5]
            }
            _ => 0..0,
        }
    }

    /// Offset of byte `at` of vector register `register`.
    pub fn vector_byte(&self, register: usize, at: usize) -> usize {
        match (register, at) {
            (0..=15, 0..=15) => 160 + register * 16 + at,
            (0..=15, 16..=31) => 576 + register * 16 + at - 16,
            (0..=15, _) => self.avx512[1] + register * 32 + at - 32,
            _ => self.avx512[2] + (register - 16) * 64 + at,
        }
    }

    /// What lies at offset `at`, beyond the legacy region.
    pub fn name(&self, at: usize) -> String {
        let within = |index| self.component(index).contains(&at);
        let from = |index| at - self.component(index).start;
        if within(2) {
            format!("ymm{} byte {}", from(2) / 16, 16 + from(2) % 16)
        } else if within(5) {
            format!("k{}", from(5) / 8)
        } else if within(6) {
            format!("zmm{} byte {}", from(6) / 32, 32 + from(6) % 32)
        } else if within(7) {
            format!("zmm{} byte {}", 16 + from(7) / 64, from(7) % 64)
        } else {
            format!("xsave {at}")
        }
    }
}

/// Registers before or after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    /// x87, SSE, AVX and AVX-512 state, standard format.
    pub xsave: [u8; XSTATE_SIZE],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
}

impl State {
    /// All zero, but for x87 and SSE control as after FNINIT and reset.
    pub fn new() -> Self {
        let mut xsave = [0; XSTATE_SIZE];
        xsave[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
        xsave[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        xsave[HEADER] = layout().components;
        Self {
            xsave,
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            fs_base: 0,
            gs_base: 0,
        }
    }

    /// Opmask register `index`.
    pub fn opmask(&self, index: usize) -> u64 {
        let at = layout().component(5).start + 8 * index;
        u64::from_le_bytes(std::array::from_fn(|i| self.xsave[at + i]))
    }

    /// XSAVE image with components that are in their initial configuration written out, and
    /// without what differs from processor to processor: x87 code and data pointers, the mask of
    /// MXCSR, the header, the bytes that the architecture leaves to software.
    pub fn normal_xsave(&self) -> [u8; XSTATE_SIZE] {
        let mut image = [0; XSTATE_SIZE];
        let present = self.xsave[HEADER];
        if present & 1 == 0 {
            image[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
        } else {
            image[..5].copy_from_slice(&self.xsave[..5]);
            for at in (32..160).step_by(16) {
                image[at..at + 10].copy_from_slice(&self.xsave[at..at + 10]);
            }
        }
        image[MXCSR..MXCSR + 4].copy_from_slice(&self.xsave[MXCSR..MXCSR + 4]);
        if present & 2 != 0 {
            image[160..416].copy_from_slice(&self.xsave[160..416]);
        }
        for index in [2, 5, 6, 7] {
            if present >> index & 1 != 0 {
                let range = layout().component(index);
                image[range.clone()].copy_from_slice(&self.xsave[range]);
            }
        }
        image
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Registers; RIP as the exception that ended the case saved it.
    pub state: State,
    /// Vector of that exception; a case that runs to its end meets INT3.
    pub vector: u8,
    /// Its error code, or zero.
    pub error_code: u32,
    /// Linear address of a page fault, else zero.
    pub address: u64,
}
