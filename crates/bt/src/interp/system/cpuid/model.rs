//! The tables behind CPUID (SDM vol. 2, CPUID; APM vol. 3, appendix E).

use std::arch::x86_64::__cpuid_count;

use iced_x86::CpuidFeature;
use ringfence_x86::cr;

use super::{Feature, Rule, rule};
use crate::cpu::{Cpu, XSAVE_SIZE};

/// Leaf 1, ECX: what is taken over from the host.
const LEAF1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 1, ECX: what the engine and its interrupt hardware bring: x2APIC, TSC-deadline timer,
/// hypervisor present.
const LEAF1_ECX_OWN: u32 = bits(&[21, 24, 31]);
/// Leaf 1, EDX: FPU to PSE-36, CLFLUSH, MMX, FXSR, SSE, SSE2. All of x86-64's baseline.
const LEAF1_EDX: u32 = bits(&[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26,
]);
/// Leaf 1, EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 7, EBX: from the host. BMI1, AVX2, FDP_EXCPTN_ONLY, BMI2, ERMS, no FCS/FDS, RDSEED, ADX,
/// CLFLUSHOPT, CLWB, SHA.
const LEAF7_EBX: u32 = bits(&[3, 5, 6, 8, 9, 13, 18, 19, 23, 24, 29]);
/// Leaf 7, EBX: FSGSBASE, IA32_TSC_ADJUST, SMEP. Bits 10 (INVPCID) and 20 (SMAP) belong here when
/// the MMU has them, with leaf 1 ECX bit 17 (PCID).
const LEAF7_EBX_OWN: u32 = bits(&[0, 1, 7]);
/// Leaf 7, ECX: from the host. GFNI, VAES, VPCLMULQDQ.
const LEAF7_ECX: u32 = bits(&[8, 9, 10]);
/// Leaf 7, ECX: UMIP, RDPID.
const LEAF7_ECX_OWN: u32 = bits(&[2, 22]);
/// Leaf 7, EDX: from the host. FSRM.
const LEAF7_EDX: u32 = bits(&[4]);
/// Leaf 7, EDX: IA32_ARCH_CAPABILITIES.
const ARCH_CAPABILITIES: u32 = 1 << 29;
/// Leaf 0Dh, subleaf 1, EAX: XSAVEOPT, XSAVEC, XGETBV with ECX=1.
const LEAFD_EAX: u32 = bits(&[0, 1, 2]);
/// Leaf 8000_0001h, ECX: LAHF in 64-bit mode, LZCNT, SSE4A, misaligned SSE, PREFETCHW.
const EXT1_ECX: u32 = bits(&[0, 5, 6, 7, 8]);
/// Leaf 8000_0001h, ECX: CmpLegacy (several cores) and topology extensions, on AMD.
const CMP_LEGACY: u32 = 1 << 1;
const TOPOEXT: u32 = 1 << 22;
/// Leaf 8000_0001h, EDX: from the host. MMX extensions.
const EXT1_EDX: u32 = bits(&[22]);
/// Leaf 8000_0001h, EDX: SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
const EXT1_EDX_OWN: u32 = bits(&[11, 20, 26, 27, 29]);
/// What AMD repeats there of leaf 1, EDX.
const EXT1_EDX_SHARED: u32 = 0x0183_f3ff;
/// Leaf 8000_0008h, EBX: FXSAVE keeps error pointers.
const EXT8_EBX: u32 = bits(&[2]);
/// And BTC_NO: a guest's return never uses the host's return predictor.
const EXT8_EBX_OWN: u32 = bits(&[29]);
/// Leaf 8000_0021h, EAX: LFENCE serializes, null selectors clear the base, SRSO_NO.
const EXT21_EAX_OWN: u32 = bits(&[2, 6, 29]);

/// Highest basic leaf: processor frequency.
const MAX_BASIC: u32 = 0x16;
/// Highest hypervisor leaf: timing information.
const MAX_HYPERVISOR: u32 = 0x4000_0010;
/// Frequency of the local APIC's timer input, the crystal of leaf 15h, in hertz.
const CRYSTAL_HZ: u64 = 25_000_000;
/// Components of XCR0 that are offered: x87, SSE, AVX.
const XCR0: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX;
/// Legacy region and header of an XSAVE area.
const XSAVE_FIXED: u32 = 576;

/// CPUID of the host; zeros beyond its highest leaf.
fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: every x86-64 processor has CPUID, and it has no effect.
    #[allow(unused_unsafe)]
    let (largest, result) = unsafe {
        (
            __cpuid_count(leaf & 0x8000_0000, 0).eax,
            __cpuid_count(leaf, subleaf),
        )
    };
    if leaf > largest {
        return [0; 4];
    }
    [result.eax, result.ebx, result.ecx, result.edx]
}

const fn bits(numbers: &[u32]) -> u32 {
    let (mut mask, mut index) = (0, 0);
    while index < numbers.len() {
        mask |= 1 << numbers[index];
        index += 1;
    }
    mask
}

/// The processor that the guest sees: the vendor, family and name of the host, the features of
/// the host that the engine runs natively, one thread per core and one package.
#[derive(Clone, Debug)]
pub struct CpuidModel {
    vcpus: u32,
    tsc_hz: u64,
    amd: bool,
    /// Leaf 0 of the host: the vendor.
    vendor: [u32; 4],
    leaf1: [u32; 4],
    leaf2: [u32; 4],
    /// Leaf 4 (Intel) or 8000_001Dh (AMD), by subleaf.
    caches: Vec<[u32; 4]>,
    leaf7: [u32; 4],
    /// Leaf 0Dh, subleaf 1, EAX.
    xsave: u32,
    xcr0: u64,
    /// Leaf 0Dh of the components, from subleaf 2.
    components: [[u32; 4]; 6],
    extended: Vec<[u32; 4]>,
    allowed: [u64; 4],
}

impl CpuidModel {
    /// The host's processor, less what the engine can't run, with `vcpus` processors and a TSC
    /// of `tsc_hz` hertz.
    pub fn new(vcpus: u32, tsc_hz: u64) -> Self {
        Self::from_host(&host, vcpus, tsc_hz)
    }

    /// As [`Self::new`], with `host` in place of the CPUID instruction.
    pub(super) fn from_host(host: &dyn Fn(u32, u32) -> [u32; 4], vcpus: u32, tsc_hz: u64) -> Self {
        let vendor = host(0, 0);
        let amd = matches!(vendor[1..], [0x6874_7541, 0x444d_4163, 0x6974_6e65])
            || matches!(vendor[1..], [0x6f67_7948, 0x656e_6975, 0x6e65_476e]);
        let cache_leaf = if amd { 0x8000_001d } else { 4 };
        let caches = (0..8)
            .map(|subleaf| host(cache_leaf, subleaf))
            .take_while(|values| values[0] & 0x1f != 0)
            .collect();
        let mut components = [[0; 4]; 6];
        for (index, component) in components.iter_mut().enumerate() {
            *component = host(0xd, index as u32 + 2);
        }
        let extended = (0..=0x21)
            .map(|index| host(0x8000_0000 + index, 0))
            .collect();
        let mut model = Self {
            vcpus: vcpus.max(1),
            tsc_hz,
            amd,
            vendor,
            leaf1: host(1, 0),
            leaf2: host(2, 0),
            caches,
            leaf7: host(7, 0),
            xsave: host(0xd, 1)[0] & LEAFD_EAX,
            xcr0: u64::from(host(0xd, 0)[0]) & XCR0,
            components,
            extended,
            allowed: [0; 4],
        };
        model.restrict();
        model.allow();
        model
    }

    /// Drops what the engine does not offer.
    fn restrict(&mut self) {
        let [_, _, ecx, edx] = &mut self.leaf1;
        *ecx = *ecx & LEAF1_ECX | LEAF1_ECX_OWN;
        *edx = LEAF1_EDX | if self.vcpus > 1 { HTT } else { 0 };
        let fits = |component: &[u32; 4]| {
            u64::from(component[0]) + u64::from(component[1]) <= XSAVE_SIZE as u64
        };
        if !Feature::XSAVE.of(self.leaf1) || !fits(&self.components[0]) {
            self.xcr0 &= !cr::XCR0_AVX;
        }
        let avx = self.xcr0 & cr::XCR0_AVX != 0;
        if !avx {
            // AVX, FMA and F16C need the AVX component.
            self.leaf1[2] &= !bits(&[12, 28, 29]);
        }
        let [_, ebx, ecx, edx] = self.leaf7;
        let mut leaf7 = [
            0,
            ebx & LEAF7_EBX | LEAF7_EBX_OWN,
            ecx & LEAF7_ECX | LEAF7_ECX_OWN,
            edx & LEAF7_EDX | if self.amd { 0 } else { ARCH_CAPABILITIES },
        ];
        if !avx {
            leaf7[1] &= !bits(&[5]);
            leaf7[2] &= !bits(&[9, 10]);
        }
        self.leaf7 = leaf7;
        if !Feature::XSAVE.of(self.leaf1) {
            (self.xsave, self.xcr0) = (0, 0);
        }
    }

    /// Fills the set of instruction-set extensions that exist.
    fn allow(&mut self) {
        let model = self.clone();
        // Only the bits that don't depend on a processor's state are looked at.
        let cpu = Cpu::new();
        for feature in CpuidFeature::values() {
            let allowed = match rule(feature) {
                Rule::Always => true,
                Rule::Never => false,
                Rule::If(bit) => bit.of(model.get(&cpu, 0, bit.leaf, bit.subleaf)),
            };
            if let Some(word) = self.allowed.get_mut(feature as usize / 64) {
                *word |= u64::from(allowed) << (feature as usize % 64);
            }
        }
    }

    /// Whether instructions of `feature` exist for the guest; others raise #UD.
    pub fn allows(&self, feature: CpuidFeature) -> bool {
        let index = feature as usize;
        self.allowed
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// EAX, EBX, ECX, EDX of CPUID on processor `vcpu`, whose local APIC has the same number.
    ///
    /// Leaves beyond the highest one read as zero, as AMD has it.
    pub fn get(&self, cpu: &Cpu, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0 => [MAX_BASIC, self.vendor[1], self.vendor[2], self.vendor[3]],
            1 => self.signature(cpu, vcpu),
            2 if !self.amd => self.leaf2,
            4 if !self.amd => self.cache(subleaf),
            // ARAT: the APIC timer runs in all power states.
            6 => [1 << 2, 0, 0, 0],
            7 if subleaf == 0 => self.leaf7,
            0xb => self.topology(vcpu, subleaf),
            0xd => self.extended_state(cpu, subleaf),
            0x15 => self.crystal(),
            0x16 => {
                let mhz = (self.tsc_hz / 1_000_000) as u32 & 0xffff;
                [mhz, mhz, (CRYSTAL_HZ / 1_000_000) as u32, 0]
            }
            0x4000_0000 => {
                let word =
                    |at: usize| u32::from_le_bytes(std::array::from_fn(|i| SIGNATURE[at + i]));
                [MAX_HYPERVISOR, word(0), word(4), word(8)]
            }
            0x4000_0010 => {
                let khz = |hz: u64| (hz / 1000).min(u64::from(u32::MAX)) as u32;
                [khz(self.tsc_hz), khz(CRYSTAL_HZ), 0, 0]
            }
            0x8000_0000.. => self.extended(vcpu, leaf, subleaf),
            _ => [0; 4],
        }
    }

    fn signature(&self, cpu: &Cpu, vcpu: u32) -> [u32; 4] {
        let [eax, _, mut ecx, edx] = self.leaf1;
        if cpu.cr4 & cr::CR4_OSXSAVE != 0 {
            ecx |= 1 << 27;
        }
        let count = self.vcpus.min(255);
        // Initial APIC ID, processors in the package, CLFLUSH line of 8 * 8 bytes.
        [eax, vcpu << 24 | count << 16 | 8 << 8, ecx, edx]
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

    fn extended_state(&self, cpu: &Cpu, subleaf: u32) -> [u32; 4] {
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
                size(cpu.xcr0 & self.xcr0),
                size(self.xcr0),
                0,
            ],
            1 => {
                let compacted = (2..8).filter(|index| cpu.xcr0 & self.xcr0 & 1 << index != 0);
                let mut end = XSAVE_FIXED;
                for index in compacted {
                    let [size, _, ecx, _] = self.components[index as usize - 2];
                    end = if ecx & 2 != 0 {
                        end.next_multiple_of(64)
                    } else {
                        end
                    } + size;
                }
                [self.xsave, if self.xsave & 2 != 0 { end } else { 0 }, 0, 0]
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
            (CRYSTAL_HZ / 100_000) as u32,
            numerator,
            CRYSTAL_HZ as u32,
            0,
        ]
    }

    fn extended(&self, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let host = |index: u32| {
            self.extended
                .get(index as usize)
                .copied()
                .unwrap_or_default()
        };
        let index = leaf - 0x8000_0000;
        let largest = if self.amd { 0x8000_0021 } else { 0x8000_0008 };
        if leaf > largest {
            return [0; 4];
        }
        let [eax, ebx, ecx, edx] = host(index);
        match index {
            0 => {
                let vendor = if self.amd {
                    [self.vendor[1], self.vendor[2], self.vendor[3]]
                } else {
                    [0; 3]
                };
                [largest, vendor[0], vendor[1], vendor[2]]
            }
            1 => {
                let mut own_ecx = ecx & EXT1_ECX;
                let mut own_edx = edx & EXT1_EDX | EXT1_EDX_OWN;
                if self.amd {
                    own_ecx |= TOPOEXT | if self.vcpus > 1 { CMP_LEGACY } else { 0 };
                    own_edx |= self.leaf1[3] & EXT1_EDX_SHARED;
                }
                [eax, ebx, own_ecx, own_edx]
            }
            2..=4 => [eax, ebx, ecx, edx],
            5 | 6 => [eax, ebx, ecx, edx],
            // Invariant TSC.
            7 => [0, 0, 0, 1 << 8],
            8 => {
                let cores = self.id_bits() << 12 | (self.vcpus - 1) & 0xff;
                let own = if self.amd { EXT8_EBX_OWN } else { 0 };
                // 48 linear-address bits: no 5-level paging.
                let widths = eax & 0xff | 48 << 8;
                [
                    widths,
                    ebx & EXT8_EBX | own,
                    if self.amd { cores } else { 0 },
                    0,
                ]
            }
            0x19 | 0x1a => [eax, ebx, ecx, edx],
            0x1d => self.cache(subleaf),
            // Extended APIC ID, core number, node 0 of 1.
            0x1e => [vcpu, vcpu & 0xff, 0, 0],
            0x21 => [EXT21_EAX_OWN, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// Signature of the hypervisor in leaf 4000_0000h.
const SIGNATURE: &[u8; 12] = b"Ringfence\0\0\0";
