//! /dev/kvm: whether it is there, and what it says that it can.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use ringfence_engine::EngineError;

/// Why there is no KVM to be had.
#[derive(Debug, thiserror::Error)]
pub enum Absence {
    /// The device does not exist.
    #[error("{path} does not exist")]
    Missing {
        /// Path of the device.
        path: String,
    },
    /// The user may not open the device.
    #[error("no permission to open {path}")]
    Denied {
        /// Path of the device.
        path: String,
    },
    /// Another hypervisor has the processor's virtualization.
    #[error("{path} is busy: another hypervisor uses the processor's virtualization")]
    Busy {
        /// Path of the device.
        path: String,
    },
    /// The device node has no driver behind it.
    #[error("{path} has no driver behind it")]
    NoDriver {
        /// Path of the device.
        path: String,
    },
    /// Something else is at the path.
    #[error("{path} is not a KVM device")]
    NotKvm {
        /// Path of the device.
        path: String,
    },
    /// The KVM of another architecture or of long ago.
    #[error("{path} speaks version {found} of the KVM API, not {expected}", expected = KVM_API_VERSION)]
    Version {
        /// Path of the device.
        path: String,
        /// What it speaks.
        found: i32,
    },
    /// It lacks something that a machine can't do without.
    #[error("{path} lacks {what}")]
    Lacks {
        /// Path of the device.
        path: String,
        /// What it lacks.
        what: String,
    },
    /// Anything else.
    #[error("{path} can't be opened: {source}")]
    Other {
        /// Path of the device.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Absence {
    /// A stable name of the reason.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Denied { .. } => "denied",
            Self::Busy { .. } => "busy",
            Self::NoDriver { .. } => "no-driver",
            Self::NotKvm { .. } => "not-kvm",
            Self::Version { .. } => "version",
            Self::Lacks { .. } => "lacks",
            Self::Other { .. } => "other",
        }
    }

    /// The reason why `open` failed on the device at `path`.
    pub fn of_open(path: &Path, error: io::Error) -> Self {
        let path = path.display().to_string();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::Missing { path },
            Some(libc::EACCES | libc::EPERM) => Self::Denied { path },
            Some(libc::EBUSY) => Self::Busy { path },
            Some(libc::ENXIO | libc::ENODEV) => Self::NoDriver { path },
            _ => Self::Other {
                path,
                source: error,
            },
        }
    }

    /// The reason why a device answered `version` to KVM_GET_API_VERSION, if there is one.
    pub fn of_version(path: &Path, version: i32) -> Option<Self> {
        let path = path.display().to_string();
        match version {
            ..0 => Some(Self::NotKvm { path }),
            _ if version == KVM_API_VERSION as i32 => None,
            found => Some(Self::Version { path, found }),
        }
    }
}

impl From<Absence> for EngineError {
    fn from(absence: Absence) -> Self {
        Self::Unsupported {
            engine: "kvm",
            reason: absence.to_string(),
        }
    }
}

/// Extensions that a machine can't do without: what every x86 KVM since Linux 4.10 has.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::UserMemory, "user memory"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::ReadonlyMem, "read-only memory"),
    (Cap::ExtCpuid, "CPUID of the guest"),
    (Cap::MpState, "the processors' states"),
    (Cap::VcpuEvents, "the events in flight"),
    (
        Cap::SetTssAddr,
        "the address of its TSS (it is not for x86)",
    ),
];

/// An open /dev/kvm.
#[derive(Debug)]
pub struct Host {
    pub(crate) kvm: Kvm,
    pub(crate) supported: CpuId,
}

impl Host {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// [`Absence`].
    pub fn open(path: &Path) -> Result<Self, Absence> {
        let shown = || path.display().to_string();
        let metadata = path
            .metadata()
            .map_err(|error| Absence::of_open(path, error))?;
        if !metadata.file_type().is_char_device() {
            return Err(Absence::NotKvm { path: shown() });
        }
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Absence::Missing { path: shown() })?;
        let kvm = Kvm::new_with_path(name)
            .map_err(|error| Absence::of_open(path, io::Error::from(error)))?;
        if let Some(absence) = Absence::of_version(path, kvm.get_api_version()) {
            return Err(absence);
        }
        if let Some((_, what)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            let what = (*what).to_owned();
            return Err(Absence::Lacks {
                path: shown(),
                what,
            });
        }
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|_| Absence::Lacks {
                path: shown(),
                what: "the list of supported CPUID leaves".to_owned(),
            })?;
        Ok(Self { kvm, supported })
    }

    /// Whether the kernel has PICs, PIT and APICs of its own.
    pub fn has_chips(&self) -> bool {
        self.kvm.check_extension(Cap::Irqchip) && self.kvm.check_extension(Cap::Pit2)
    }

    /// EAX, EBX, ECX, EDX of a leaf that KVM supports; zeros for others.
    pub(crate) fn supported(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let found = self.supported.as_slice().iter().find(|entry| {
            let indexed = entry.flags & kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
            entry.function == leaf && (!indexed || entry.index == subleaf)
        });
        found.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
    }
}
