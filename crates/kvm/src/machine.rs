//! A virtual machine: memory, interrupt hardware and what joins them to eventfds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_msi, kvm_msi, kvm_pit_config,
};
use kvm_ioctls::VmFd;
use ringfence_engine::{
    Clock, EngineError, GuestMemory, IoEvent, IrqSource, LocalDevices, MachineOps,
};
use ringfence_x86::cpuid::Model;

use crate::host::Host;
use crate::raw;
use crate::slots::Slots;
use crate::vcpu::KvmVcpu;

/// Where Intel's processors keep a TSS and a page table for real mode, out of the guest's sight:
/// three pages and one, below the local APICs.
const TSS: usize = 0xfeff_d000;
const IDENTITY_MAP: u64 = 0xfeff_c000;

/// Pins of the I/O APIC, which are also the first global system interrupts.
const PINS: u32 = 24;
/// The timer's interrupt, which reaches the I/O APIC at pin 2.
const TIMER: u32 = 0;
/// The PICs' cascade, which is wired to nothing.
const CASCADE: u32 = 2;
/// Global system interrupts that KVM routes.
const MOST_GSIS: u32 = 4096;

/// Where the interrupt hardware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chips {
    /// In the kernel: PICs, PIT, I/O APIC and local APICs.
    Kernel,
    /// In this process: the machine's [`LocalDevices`].
    Own,
    /// There is none.
    None,
}

/// What processors and machine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) chips: Chips,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) slots: Arc<Slots>,
    routes: Mutex<Routes>,
    io_events: Mutex<Vec<(IoEvent, OwnedFd)>>,
}

/// Interrupt routes beyond the chips' pins.
#[derive(Debug, Default)]
struct Routes {
    /// Message-signalled interrupts by the number of their route.
    messages: BTreeMap<u32, (u64, u32)>,
    /// Eventfds by their number, with the route that they raise.
    events: BTreeMap<u32, (u32, OwnedFd)>,
    next: u32,
}

/// A virtual machine of KVM.
#[derive(Debug)]
pub struct KvmMachine {
    shared: Arc<Shared>,
    devices: Arc<dyn LocalDevices>,
    /// Interrupt lines of a machine whose chips are not the kernel's.
    own: Option<Arc<dyn MachineOps>>,
}

pub(crate) fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> EngineError {
    move |error| EngineError::Host {
        what,
        source: io::Error::from(error),
    }
}

impl KvmMachine {
    /// A machine with the chips of the kernel; what else lives in the engine is in `devices`.
    ///
    /// # Errors
    /// [`EngineError::Host`] when the kernel refuses.
    pub fn with_kernel_chips(
        host: &Host,
        memory: Arc<GuestMemory>,
        devices: Arc<dyn LocalDevices>,
    ) -> Result<Self, EngineError> {
        let vm = create(host)?;
        vm.create_irq_chip()
            .map_err(refused("interrupt controllers in the kernel"))?;
        let config = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        vm.create_pit2(config)
            .map_err(refused("a timer in the kernel"))?;
        let machine = Self {
            shared: shared(vm, Chips::Kernel, memory)?,
            devices,
            own: None,
        };
        machine.route(&machine.routes())?;
        Ok(machine)
    }

    /// A machine whose interrupt hardware is `chips`.
    ///
    /// # Errors
    /// [`EngineError::Host`] when the kernel refuses.
    pub fn with_own_chips<C: LocalDevices + MachineOps + 'static>(
        host: &Host,
        memory: Arc<GuestMemory>,
        chips: Arc<C>,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            shared: shared(create(host)?, Chips::Own, memory)?,
            devices: Arc::clone(&chips) as Arc<dyn LocalDevices>,
            own: Some(chips),
        })
    }

    /// A machine without interrupt hardware: HLT leaves the engine.
    ///
    /// # Errors
    /// [`EngineError::Host`] when the kernel refuses.
    pub fn bare(host: &Host, memory: Arc<GuestMemory>) -> Result<Self, EngineError> {
        Ok(Self {
            shared: shared(create(host)?, Chips::None, memory)?,
            devices: Arc::new(ringfence_engine::NoLocalDevices),
            own: None,
        })
    }

    /// Processor `id`, in its state after power-up.
    ///
    /// # Errors
    /// [`EngineError::Host`] when the kernel refuses.
    pub fn create_vcpu(
        &self,
        host: &Host,
        id: u32,
        model: &Model,
        clock: &Clock,
    ) -> Result<KvmVcpu, EngineError> {
        KvmVcpu::new(
            host,
            Arc::clone(&self.shared),
            Arc::clone(&self.devices),
            id,
            model,
            clock,
        )
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.shared
            .routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells KVM which global system interrupts lead where.
    fn route(&self, routes: &Routes) -> Result<(), EngineError> {
        let mut entries = Vec::with_capacity(2 * PINS as usize + routes.messages.len());
        let mut pin = |gsi, chip, pin| {
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip.irqchip = chip;
            entry.u.irqchip.pin = pin;
            entries.push(entry);
        };
        for gsi in (0..PINS).filter(|gsi| *gsi != CASCADE) {
            match gsi {
                0..8 => pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
                8..16 => pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8),
                _ => {}
            }
            let input = if gsi == TIMER { CASCADE } else { gsi };
            pin(gsi, KVM_IRQCHIP_IOAPIC, input);
        }
        for (&gsi, &(address, data)) in &routes.messages {
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi = kvm_irq_routing_msi {
                address_lo: address as u32,
                address_hi: (address >> 32) as u32,
                data,
                ..Default::default()
            };
            entries.push(entry);
        }
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| EngineError::BadState("too many interrupt routes".to_owned()))?;
        self.shared
            .vm
            .set_gsi_routing(&table)
            .map_err(refused("interrupt routes"))
    }
}

fn create(host: &Host) -> Result<VmFd, EngineError> {
    let vm = host
        .kvm
        .create_vm()
        .map_err(refused("a virtual machine of KVM"))?;
    vm.set_identity_map_address(IDENTITY_MAP)
        .and_then(|()| vm.set_tss_address(TSS))
        .map_err(refused("the addresses of KVM's own pages"))?;
    Ok(vm)
}

fn shared(vm: VmFd, chips: Chips, memory: Arc<GuestMemory>) -> Result<Arc<Shared>, EngineError> {
    let vm = Arc::new(vm);
    Ok(Arc::new(Shared {
        slots: Slots::new(Arc::clone(&vm), &memory)?,
        vm,
        chips,
        memory,
        routes: Mutex::new(Routes {
            next: PINS,
            ..Routes::default()
        }),
        io_events: Mutex::default(),
    }))
}

impl MachineOps for KvmMachine {
    fn irq_line(&self, gsi: u32, level: bool) -> Result<(), EngineError> {
        match &self.own {
            Some(chips) => chips.irq_line(gsi, level),
            None if gsi >= PINS || gsi == CASCADE => Ok(()),
            None => self
                .shared
                .vm
                .set_irq_line(gsi, level)
                .map_err(refused("an interrupt")),
        }
    }

    fn signal_msi(&self, address: u64, data: u32) -> Result<(), EngineError> {
        if let Some(chips) = &self.own {
            return chips.signal_msi(address, data);
        }
        let message = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..Default::default()
        };
        match self.shared.vm.signal_msi(message) {
            Ok(_) => Ok(()),
            // Nobody takes it, or it is not valid: a bus drops it too.
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::ENOENT) => Ok(()),
            Err(error) => Err(refused("a message-signalled interrupt")(error)),
        }
    }

    fn add_io_event(&self, event: IoEvent, fd: OwnedFd) -> Result<(), EngineError> {
        event.check()?;
        let mut events = self
            .shared
            .io_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if events.iter().any(|(other, _)| other.collides(&event)) {
            let what = "this write signals an eventfd already".to_owned();
            return Err(EngineError::BadState(what));
        }
        raw::io_event(&self.shared.vm, event, fd.as_raw_fd(), true).map_err(|source| {
            EngineError::Host {
                what: "an I/O event",
                source,
            }
        })?;
        events.push((event, fd));
        Ok(())
    }

    fn remove_io_event(&self, event: IoEvent) -> Result<(), EngineError> {
        let mut events = self
            .shared
            .io_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(at) = events.iter().position(|(other, _)| *other == event) else {
            let what = "this write signals no eventfd".to_owned();
            return Err(EngineError::BadState(what));
        };
        let (_, fd) = events.remove(at);
        raw::io_event(&self.shared.vm, event, fd.as_raw_fd(), false).map_err(|source| {
            EngineError::Host {
                what: "to forget an I/O event",
                source,
            }
        })
    }

    fn add_irq_event(&self, source: IrqSource, fd: OwnedFd) -> Result<u32, EngineError> {
        if let Some(chips) = &self.own {
            return chips.add_irq_event(source, fd);
        }
        let mut routes = self.routes();
        let number = routes.next;
        let gsi = match source {
            IrqSource::Line(gsi) => gsi,
            IrqSource::Msi { address, data } => {
                let free = (PINS..MOST_GSIS).find(|gsi| !routes.messages.contains_key(gsi));
                let gsi = free
                    .ok_or_else(|| EngineError::BadState("too many interrupt routes".to_owned()))?;
                routes.messages.insert(gsi, (address, data));
                self.route(&routes).inspect_err(|_| {
                    routes.messages.remove(&gsi);
                })?;
                gsi
            }
        };
        raw::irq_event(&self.shared.vm, gsi, fd.as_raw_fd(), true).map_err(|source| {
            EngineError::Host {
                what: "an interrupt by eventfd",
                source,
            }
        })?;
        routes.next += 1;
        routes.events.insert(number, (gsi, fd));
        Ok(number)
    }

    fn remove_irq_event(&self, number: u32) -> Result<(), EngineError> {
        if let Some(chips) = &self.own {
            return chips.remove_irq_event(number);
        }
        let mut routes = self.routes();
        let Some((gsi, fd)) = routes.events.remove(&number) else {
            return Err(EngineError::BadState(format!(
                "there is no irq event {number}"
            )));
        };
        raw::irq_event(&self.shared.vm, gsi, fd.as_raw_fd(), false).map_err(|source| {
            EngineError::Host {
                what: "to forget an interrupt by eventfd",
                source,
            }
        })?;
        if routes.messages.remove(&gsi).is_some() {
            self.route(&routes)?;
        }
        Ok(())
    }
}
