//! The leaves of CPUID that a model answers with (SDM vol. 2, CPUID; APM vol. 3, appendix E).

use super::feature::{Feature, Word};
use super::model::{Dynamic, Model};

/// Leaf 1, EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 1, ECX: the operating system has set CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 8000_0001h, ECX: CmpLegacy (several cores) and topology extensions, on AMD.
const CMP_LEGACY: u32 = 1 << 1;
const TOPOEXT: u32 = 1 << 22;
/// What AMD repeats there of leaf 1, EDX.
const EXT1_EDX_SHARED: u32 = 0x0183_f3ff;
/// Leaf 8000_0008h, EBX: BTC_NO, a guest's return never uses the host's return predictor.
const EXT8_EBX_OWN: u32 = 1 << 29;
/// Leaf 8000_0021h, EAX: LFENCE serializes, null selectors clear the base, SRSO_NO.
const EXT21_EAX_OWN: u32 = 1 << 2 | 1 << 6 | 1 << 29;

/// Most physical-address bits: a terabyte of memory. UEFI firmware maps all that there could be,
/// which with those of a server's processor is more than fits into a small machine.
const PHYSICAL_BITS: u32 = 40;
/// Highest hypervisor leaf: timing information.
const MAX_HYPERVISOR: u32 = 0x4000_0010;
/// Signature of the hypervisor in leaf 4000_0000h.
const SIGNATURE: &[u8; 12] = b"Ringfence\0\0\0";
/// KVM's leaves, behind ours, and its signature.
const KVM_BASE: u32 = 0x4000_0100;
const KVM_FEATURES: u32 = 0x4000_0101;
const KVM_SIGNATURE: &[u8; 12] = b"KVMKVMKVM\0\0\0";
/// Legacy region and header of an XSAVE area.
const XSAVE_FIXED: u32 = 576;

impl Model {
    /// EAX, EBX, ECX, EDX of CPUID on processor `vcpu`, whose local APIC has the same number.
    ///
    /// Leaves beyond the highest one read as zero, as AMD has it.
    pub fn get(&self, dynamic: Dynamic, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0x8000_0000.. => return self.extended(vcpu, leaf, subleaf),
            0x4000_0000.. => return self.hypervisor(leaf),
            _ if leaf > self.max_basic => return [0; 4],
            _ => {}
        }
        let word = |word| self.features.word(word);
        match leaf {
            0 => [
                self.max_basic,
                self.vendor[0],
                self.vendor[1],
                self.vendor[2],
            ],
            1 => self.leaf1(dynamic, vcpu),
            2 if !self.amd => self.leaf2,
            4 if !self.amd => self.cache(subleaf),
            6 => [word(Word::Leaf6Eax), 0, 0, 0],
            7 if subleaf == 0 => {
                let ebx = word(Word::Leaf7Ebx) | self.x87;
                let largest = u32::from(word(Word::Leaf7Sub1Eax) != 0);
                [largest, ebx, word(Word::Leaf7Ecx), word(Word::Leaf7Edx)]
            }
            7 if subleaf == 1 => [word(Word::Leaf7Sub1Eax), 0, 0, 0],
            0xb => self.topology(vcpu, subleaf),
            0xd => self.extended_state(dynamic, subleaf),
            0x15 => self.crystal(),
            0x16 => {
                let mhz = (self.tsc_hz / 1_000_000) as u32 & 0xffff;
                [mhz, mhz, (self.crystal_hz / 1_000_000) as u32, 0]
            }
            _ => [0; 4],
        }
    }

    fn leaf1(&self, dynamic: Dynamic, vcpu: u32) -> [u32; 4] {
        let (mut ecx, mut edx) = (
            self.features.word(Word::Leaf1Ecx),
            self.features.word(Word::Leaf1Edx),
        );
        if dynamic.osxsave {
            ecx |= OSXSAVE;
        }
        if self.vcpus > 1 {
            edx |= HTT;
        }
        let count = self.vcpus.min(255);
        // CLFLUSH lines of 8 * 8 bytes.
        let line = if self.features.has(Feature::CLFLUSH) {
            8 << 8
        } else {
            0
        };
        // Initial APIC ID and processors in the package.
        [self.signature, vcpu << 24 | count << 16 | line, ecx, edx]
    }

    fn hypervisor(&self, leaf: u32) -> [u32; 4] {
        if !self.features.has(Feature::HYPERVISOR) {
            return [0; 4];
        }
        match leaf {
            0x4000_0000 => {
                let word =
                    |at: usize| u32::from_le_bytes(std::array::from_fn(|i| SIGNATURE[at + i]));
                [MAX_HYPERVISOR, word(0), word(4), word(8)]
            }
            KVM_BASE if self.features.word(Word::KvmEax) != 0 => {
                let word =
                    |at: usize| u32::from_le_bytes(std::array::from_fn(|i| KVM_SIGNATURE[at + i]));
                [KVM_BASE + 1, word(0), word(4), word(8)]
            }
            KVM_FEATURES => [self.features.word(Word::KvmEax), 0, 0, 0],
            MAX_HYPERVISOR => {
                let khz = |hz: u64| (hz / 1000).min(u64::from(u32::MAX)) as u32;
                [khz(self.tsc_hz), khz(self.crystal_hz), 0, 0]
            }
            _ => [0; 4],
        }
    }

    /// Bits of an APIC ID that number the processors of the package.
    fn id_bits(&self) -> u32 {
        self.vcpus.next_power_of_two().trailing_zeros()
    }

    /// A cache, private to its core but for the last level.
    fn cache(&self, subleaf: u32) -> [u32; 4] {
        let Some(&[eax, ebx, ecx, edx]) = self.caches.get(subleaf as usize) else {
            return [0; 4];
        };
        let shared = if eax >> 5 & 7 >= 3 {
            (1u32 << self.id_bits()) - 1
        } else {
            0
        };
        let mut eax = eax & 0x3fff | (shared & 0xfff) << 14;
        if !self.amd {
            eax |= ((1u32 << self.id_bits()) - 1).min(63) << 26;
        }
        [eax, ebx, ecx, edx]
    }

    fn topology(&self, vcpu: u32, subleaf: u32) -> [u32; 4] {
        match subleaf {
            // One thread per core.
            0 => [0, 1, 1 << 8, vcpu],
            1 => [self.id_bits(), self.vcpus & 0xffff, 2 << 8 | 1, vcpu],
            _ => [0, 0, subleaf & 0xff, vcpu],
        }
    }

    fn extended_state(&self, dynamic: Dynamic, subleaf: u32) -> [u32; 4] {
        if self.xcr0 == 0 {
            return [0; 4];
        }
        let offered = |index: u32| self.xcr0 >> index & 1 != 0;
        let size = |xcr0: u64| {
            let ends = (2..8)
                .filter(|index| xcr0 >> index & 1 != 0)
                .map(|index: u32| {
                    let [size, offset, ..] = self.components[index as usize - 2];
                    size + offset
                });
            ends.fold(XSAVE_FIXED, u32::max)
        };
        match subleaf {
            0 => [
                self.xcr0 as u32,
                size(dynamic.xcr0 & self.xcr0),
                size(self.xcr0),
                0,
            ],
            1 => {
                let compacted = (2..8).filter(|index| dynamic.xcr0 & self.xcr0 & 1 << index != 0);
                let mut end = XSAVE_FIXED;
                for index in compacted {
                    let [size, _, ecx, _] = self.components[index as usize - 2];
                    end = if ecx & 2 != 0 {
                        end.next_multiple_of(64)
                    } else {
                        end
                    } + size;
                }
                let compacts = self.features.has(Feature::XSAVEC);
                let flags = self.features.word(Word::LeafDSub1Eax);
                [flags, if compacts { end } else { 0 }, 0, 0]
            }
            2..8 if offered(subleaf) => {
                let [size, offset, ecx, _] = self.components[subleaf as usize - 2];
                [size, offset, ecx & 2, 0]
            }
            _ => [0; 4],
        }
    }

    /// TSC = crystal * EBX / EAX, in steps of 100 kHz.
    fn crystal(&self) -> [u32; 4] {
        let numerator = (self.tsc_hz / 100_000).min(u64::from(u32::MAX)) as u32;
        [
            (self.crystal_hz / 100_000) as u32,
            numerator,
            self.crystal_hz as u32,
            0,
        ]
    }

    fn extended(&self, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let index = leaf - 0x8000_0000;
        let largest = if self.amd { 0x8000_0021 } else { 0x8000_0008 };
        if !self.has_extended || leaf > largest {
            return [0; 4];
        }
        let stored = self
            .extended
            .get(index as usize)
            .copied()
            .unwrap_or_default();
        let [eax, ebx, _, _] = stored;
        let word = |word| self.features.word(word);
        match index {
            0 => {
                let [ebx, ecx, edx] = if self.amd { self.vendor } else { [0; 3] };
                [largest, ebx, ecx, edx]
            }
            1 => {
                let (mut ecx, mut edx) = (word(Word::Ext1Ecx), word(Word::Ext1Edx));
                if self.amd {
                    ecx |= TOPOEXT | if self.vcpus > 1 { CMP_LEGACY } else { 0 };
                    edx |= word(Word::Leaf1Edx) & EXT1_EDX_SHARED;
                }
                [eax, ebx, ecx, edx]
            }
            2..=6 | 0x19 | 0x1a => stored,
            7 => [0, 0, 0, word(Word::Ext7Edx)],
            8 => {
                let cores = self.id_bits() << 12 | (self.vcpus - 1) & 0xff;
                let own = if self.amd { EXT8_EBX_OWN } else { 0 };
                // 48 linear-address bits: no 5-level paging.
                let widths = (eax & 0xff).min(PHYSICAL_BITS) | 48 << 8;
                [
                    widths,
                    word(Word::Ext8Ebx) | own,
                    if self.amd { cores } else { 0 },
                    0,
                ]
            }
            0x1d => self.cache(subleaf),
            // Extended APIC ID, core number, node 0 of 1.
            0x1e => [vcpu, vcpu & 0xff, 0, 0],
            0x21 => [EXT21_EAX_OWN, 0, 0, 0],
            _ => [0; 4],
        }
    }
}
