//! What the profiler of an engine found.

/// Where a processor's time went, in samples.
#[derive(Clone, Debug, Default)]
pub struct ProfileReport {
    /// By what the engine did: `translated`, `slow_paths` (of translated code), `stubs`, then
    /// its phases.
    pub phases: Vec<(&'static str, u64)>,
    /// The blocks of translated code with the most samples, most first.
    pub blocks: Vec<HotBlock>,
}

/// A block of translated code.
#[derive(Clone, Debug)]
pub struct HotBlock {
    /// Linear address.
    pub linear: u64,
    /// It runs at privilege level 3.
    pub user: bool,
    /// Samples in it.
    pub samples: u64,
    /// Disassembly of the first guest instructions, if they can still be read.
    pub guest: Vec<String>,
    /// Disassembly of the host code, with samples for each 16 bytes.
    pub host: Vec<String>,
}
