//! Inputs and outputs of a case.

/// Bytes of the XSAVE image that cases have: legacy region, header, AVX component.
pub const XSTATE_SIZE: usize = 832;
/// Offset of MXCSR in the image.
pub const MXCSR: usize = 24;
/// Offset of the header.
pub const HEADER: usize = 512;

/// Registers before or after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    /// x87, SSE and AVX state, standard format.
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
        xsave[HEADER] = 7;
        Self {
            xsave,
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            fs_base: 0,
            gs_base: 0,
        }
    }

    /// XSAVE image with components that are in their initial configuration written out, and
    /// without what differs from processor to processor: x87 code and data pointers, the mask of
    /// MXCSR, the header, the bytes that the architecture leaves to software.
    pub fn normal_xsave(&self) -> [u8; XSTATE_SIZE] {
        let mut image = self.xsave;
        let present = image[HEADER];
        let mxcsr: [u8; 4] = std::array::from_fn(|i| image[MXCSR + i]);
        if present & 1 == 0 {
            image[..MXCSR].fill(0);
            image[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
            image[32..160].fill(0);
        }
        if present & 2 == 0 {
            image[160..416].fill(0);
        }
        if present & 4 == 0 {
            image[576..].fill(0);
        }
        image[5..MXCSR].fill(0);
        image[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr);
        image[28..32].fill(0);
        for register in 0..8 {
            image[32 + register * 16 + 10..48 + register * 16].fill(0);
        }
        image[416..576].fill(0);
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
