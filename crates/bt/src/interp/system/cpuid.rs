//! What CPUID tells the guest.

use iced_x86::CpuidFeature;

use crate::cpu::Cpu;

/// The processor that the guest sees.
#[derive(Clone, Debug)]
pub struct CpuidModel {
    vcpus: u32,
    tsc_hz: u64,
}

impl CpuidModel {
    /// The host's processor, less what the engine can't run, with `vcpus` processors and a TSC
    /// of `tsc_hz` hertz.
    pub fn new(vcpus: u32, tsc_hz: u64) -> Self {
        Self { vcpus, tsc_hz }
    }

    /// EAX, EBX, ECX, EDX of CPUID on processor `vcpu`.
    pub fn get(&self, cpu: &Cpu, vcpu: u32, leaf: u32, subleaf: u32) -> [u32; 4] {
        let _ = (cpu, vcpu, leaf, subleaf, self.vcpus, self.tsc_hz);
        [0; 4]
    }

    /// Whether instructions of `feature` exist for the guest; others raise #UD.
    pub fn allows(&self, feature: CpuidFeature) -> bool {
        let _ = feature;
        true
    }
}
