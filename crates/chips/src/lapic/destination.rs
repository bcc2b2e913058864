//! Which messages a local APIC takes for its own.

use super::{Lapic, Mode};
use crate::message::Target;

impl Lapic {
    /// Whether a message for `target`, sent by the APIC `sender`, is for this APIC (SDM vol. 3A,
    /// 11.6.2 and 11.12.10).
    pub fn matches(&self, target: &Target, sender: Option<u32>) -> bool {
        if self.mode() == Mode::Disabled {
            return false;
        }
        match *target {
            Target::All => true,
            Target::Others => sender != Some(self.id),
            Target::Myself => sender == Some(self.id),
            Target::Physical { id, wide } => {
                id == self.id || id == if wide { u32::MAX } else { 0xff }
            }
            Target::Logical { mda, wide } => self.matches_logical(mda, wide),
        }
    }

    fn matches_logical(&self, mda: u32, wide: bool) -> bool {
        if mda == u32::MAX && wide {
            return true;
        }
        if self.mode() == Mode::X2Apic {
            let ldr = self.logical_id();
            // An 8-bit broadcast reaches everyone; other 8-bit addresses lie in cluster 0.
            return mda == 0xff && !wide || mda >> 16 == ldr >> 16 && mda & ldr & 0xffff != 0;
        }
        let (ldr, mda) = (self.ldr >> 24, mda & 0xff);
        match self.dfr >> 28 {
            0xf => mda & ldr != 0,
            0x0 if mda == 0xff => true,
            0x0 => mda >> 4 == ldr >> 4 && mda & ldr & 0xf != 0,
            _ => false,
        }
    }

    /// Logical x2APIC ID: cluster in the upper half, a bit in the lower.
    pub(super) fn logical_id(&self) -> u32 {
        self.id >> 4 << 16 | 1 << (self.id & 0xf)
    }

    /// The priority by which the destination of a lowest-priority message is chosen; `None`: this
    /// APIC takes no interrupts.
    pub fn arbitration(&self) -> Option<u8> {
        self.software_enabled().then(|| self.processor_priority())
    }
}
