//! How a machine is made.

use std::path::Path;
use std::sync::Arc;

use ringfence_bt::BtVcpu;
use ringfence_bt::interp::system::cpuid::CpuidModel;
use ringfence_chips::{Platform, VideoSlot};
use ringfence_engine::{Clock, EngineError, GuestMemory, LocalDevices, MachineOps, Vcpu};
use ringfence_kvm::{Chips, Host, KvmMachine};
use ringfence_x86::cpuid::{CpuModelError, CpuSpec};

use crate::handover::Handover;
use crate::kernel_chips::KernelChips;

/// Where the interrupt hardware of a machine on `kvm` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChipsChoice {
    /// In the kernel, if it has some.
    #[default]
    Auto,
    /// In the kernel.
    Kernel,
    /// In this process, as on `bt`.
    Own,
}

/// A machine as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// `bt` or `kvm`.
    pub engine: &'a str,
    /// Processors.
    pub vcpus: u32,
    /// Their model.
    pub cpu: &'a CpuSpec,
    /// Path of the KVM device.
    pub device: &'a Path,
    /// Where the chips are, on `kvm`.
    pub chips: ChipsChoice,
    /// Of a deterministic machine on `bt`: where its random numbers come from.
    pub seed: Option<u64>,
}

/// Why a machine can't be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No engine has that name.
    #[error("there is no engine {0:?}")]
    UnknownEngine(String),
    /// There is no such processor, or the engine can't run it.
    #[error(transparent)]
    CpuModel(#[from] CpuModelError),
    /// The engine can't be had, or the host refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A machine without memory, its processors not yet run.
#[derive(Debug)]
pub struct Built {
    /// Guest memory, empty.
    pub memory: Arc<GuestMemory>,
    /// What the processors share.
    pub machine: Arc<dyn MachineOps>,
    /// The machine's clock.
    pub clock: Arc<Clock>,
    /// The processors.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// Where a VGA is attached.
    pub video: Arc<VideoSlot>,
}

/// Makes a machine.
///
/// # Errors
/// [`BuildError`].
pub fn build(description: &Description<'_>) -> Result<Built, BuildError> {
    match description.engine {
        "bt" => bt(description),
        "kvm" => kvm(description),
        other => Err(BuildError::UnknownEngine(other.to_owned())),
    }
}

fn platform(clock: &Arc<Clock>, vcpus: u32) -> Result<Arc<Platform>, EngineError> {
    Platform::try_new(Arc::clone(clock), vcpus).map_err(|source| EngineError::Host {
        what: "a thread for timers",
        source,
    })
}

fn bt(description: &Description<'_>) -> Result<Built, BuildError> {
    let vcpus = description.vcpus;
    let memory = Arc::new(GuestMemory::new());
    let clock = description
        .seed
        .map_or_else(Clock::new, Clock::deterministic);
    let clock = Arc::new(clock);
    let platform = platform(&clock, vcpus)?;
    let model = CpuidModel::with_spec(description.cpu, vcpus, clock.tsc_hz())?;
    let model = Arc::new(model);
    let processors = (0..vcpus)
        .map(|id| {
            let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
            let devices: Arc<dyn LocalDevices> = platform.clone();
            let vcpu = BtVcpu::with_model(id, Arc::clone(&model), memory, devices, clock)?;
            platform.attach(id, vcpu.kicker());
            Ok(Box::new(vcpu) as Box<dyn Vcpu>)
        })
        .collect::<Result<_, EngineError>>()?;
    Ok(Built {
        memory,
        machine: platform.clone(),
        clock,
        vcpus: processors,
        video: Arc::clone(platform.video()),
    })
}

fn kvm(description: &Description<'_>) -> Result<Built, BuildError> {
    let vcpus = description.vcpus;
    let host = Host::open(description.device).map_err(EngineError::from)?;
    let memory = Arc::new(GuestMemory::new());
    let clock = Arc::new(Clock::new());
    let chips = match description.chips {
        ChipsChoice::Auto if host.has_chips() => Chips::Kernel,
        ChipsChoice::Kernel => Chips::Kernel,
        ChipsChoice::Auto | ChipsChoice::Own => Chips::Own,
    };
    let (machine, platform, video) = match chips {
        Chips::Kernel => {
            let video = Arc::new(VideoSlot::new(Arc::clone(&clock)));
            let devices = Arc::new(KernelChips::new(Arc::clone(&video)));
            let machine = KvmMachine::with_kernel_chips(&host, Arc::clone(&memory), devices)?;
            (machine, None, video)
        }
        Chips::Own | Chips::None => {
            let platform = platform(&clock, vcpus)?;
            let own = Arc::clone(&platform);
            let machine = KvmMachine::with_own_chips(&host, Arc::clone(&memory), own)?;
            let video = Arc::clone(platform.video());
            (machine, Some(platform), video)
        }
    };
    let model = ringfence_kvm::model(&host, description.cpu, chips, vcpus, clock.tsc_hz())?;
    let behalf = Arc::new(CpuidModel::on_behalf(model.clone()));
    let processors = (0..vcpus)
        .map(|id| {
            let main = machine.create_vcpu(&host, id, &model, &clock)?;
            if let Some(platform) = &platform {
                platform.attach(id, main.kicker());
            }
            let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
            let (behalf, own) = (Arc::clone(&behalf), platform.clone());
            let video = Arc::clone(&video);
            let make = move || {
                let devices: Arc<dyn LocalDevices> = match &own {
                    Some(platform) => platform.clone(),
                    None => Arc::new(KernelChips::new(Arc::clone(&video))),
                };
                let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
                BtVcpu::with_model(id, Arc::clone(&behalf), memory, devices, clock)
            };
            let vcpu = Handover::new(Box::new(main), platform.is_none(), make);
            Ok(Box::new(vcpu) as Box<dyn Vcpu>)
        })
        .collect::<Result<_, EngineError>>()?;
    Ok(Built {
        memory,
        machine: Arc::new(machine),
        clock,
        vcpus: processors,
        video,
    })
}
