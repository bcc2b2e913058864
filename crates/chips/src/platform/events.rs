//! Eventfds: writes of the guest that signal one (KVM_IOEVENTFD), and interrupts that one raises
//! (KVM_IRQFD).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::thread;

use ringfence_engine::{EngineError, IoAddress, IoEvent, IrqSource, MachineOps};
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::{Platform, lock};

/// Writes that signal an eventfd.
#[derive(Debug, Default)]
pub(super) struct IoEvents {
    /// Spares most machines the lock.
    any: AtomicBool,
    events: RwLock<Vec<(IoEvent, File)>>,
}

impl IoEvents {
    /// Whether a write was one of them.
    #[inline]
    pub(super) fn signal(&self, address: IoAddress, size: u8, value: u64) -> bool {
        self.any.load(SeqCst) && self.look_up(address, size, value)
    }

    fn look_up(&self, address: IoAddress, size: u8, value: u64) -> bool {
        let events = self.events.read().unwrap_or_else(|e| e.into_inner());
        let hit = events.iter().find(|(event, _)| {
            event.address == address
                && event.size == size
                && event.value.is_none_or(|wanted| wanted == value)
        });
        let Some((_, fd)) = hit else {
            return false;
        };
        // A counter that is full stays signalled.
        let _ = (&mut &*fd).write(&1u64.to_ne_bytes());
        true
    }
}

/// Eventfds that raise interrupts, and the thread that waits for them.
#[derive(Debug, Default)]
pub(super) struct IrqEvents {
    next: AtomicU32,
    waiter: Mutex<Option<Arc<Waiter>>>,
}

/// What the thread and those who talk to it share.
#[derive(Debug)]
struct Waiter {
    epoll: OwnedFd,
    stop: File,
    sources: Mutex<BTreeMap<u32, (IrqSource, File)>>,
}

/// What the eventfd that ends the thread is called.
const STOP: u64 = u64::MAX;

impl Waiter {
    fn start(platform: &Weak<Platform>) -> io::Result<Arc<Self>> {
        let waiter = Arc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            stop: File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            sources: Mutex::default(),
        });
        let data = epoll::EventData::new_u64(STOP);
        epoll::add(&waiter.epoll, &waiter.stop, data, epoll::EventFlags::IN)?;
        let (shared, platform) = (Arc::clone(&waiter), platform.clone());
        thread::Builder::new()
            .name("ringfence-irqfd".into())
            .spawn(move || shared.serve(&platform))?;
        Ok(waiter)
    }

    fn serve(&self, platform: &Weak<Platform>) {
        let mut ready = Vec::with_capacity(16);
        loop {
            ready.clear();
            let spare = rustix::buffer::spare_capacity(&mut ready);
            match epoll::wait(&self.epoll, spare, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &ready {
                let number = event.data.u64();
                if number == STOP {
                    return;
                }
                let Some(platform) = platform.upgrade() else {
                    return;
                };
                self.raise(&platform, number as u32);
            }
        }
    }

    fn raise(&self, platform: &Platform, number: u32) {
        let source = {
            let sources = lock(&self.sources);
            let Some((source, fd)) = sources.get(&number) else {
                return;
            };
            // Only a poll said so: another thread may have read it since.
            if (&mut &*fd).read(&mut [0; 8]).is_err() {
                return;
            }
            *source
        };
        match source {
            IrqSource::Line(gsi) => {
                Platform::irq_line(platform, gsi, true);
                Platform::irq_line(platform, gsi, false);
            }
            IrqSource::Msi { address, data } => Platform::signal_msi(platform, address, data),
        }
    }
}

impl Drop for IrqEvents {
    fn drop(&mut self) {
        if let Some(waiter) = lock(&self.waiter).take() {
            let _ = (&mut &waiter.stop).write(&1u64.to_ne_bytes());
        }
    }
}

fn host(what: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |source| EngineError::Host { what, source }
}

impl MachineOps for Platform {
    fn irq_line(&self, gsi: u32, level: bool) -> Result<(), EngineError> {
        Self::irq_line(self, gsi, level);
        Ok(())
    }

    fn signal_msi(&self, address: u64, data: u32) -> Result<(), EngineError> {
        Self::signal_msi(self, address, data);
        Ok(())
    }

    fn smi(&self, vcpu: u32) -> Result<(), EngineError> {
        Self::smi(self, vcpu);
        Ok(())
    }

    fn set_pm_timer(&self, port: Option<u16>) {
        Self::set_pm_timer(self, port);
    }

    fn has_hpet(&self) -> bool {
        true
    }

    fn add_io_event(&self, event: IoEvent, fd: OwnedFd) -> Result<(), EngineError> {
        event.check()?;
        let mut events = self
            .io_events
            .events
            .write()
            .unwrap_or_else(|e| e.into_inner());
        if events.iter().any(|(other, _)| other.collides(&event)) {
            return Err(EngineError::BadState(
                "this write signals an eventfd already".into(),
            ));
        }
        events.push((event, File::from(fd)));
        self.io_events.any.store(true, SeqCst);
        Ok(())
    }

    fn remove_io_event(&self, event: IoEvent) -> Result<(), EngineError> {
        let mut events = self
            .io_events
            .events
            .write()
            .unwrap_or_else(|e| e.into_inner());
        let Some(at) = events.iter().position(|(other, _)| *other == event) else {
            return Err(EngineError::BadState(
                "this write signals no eventfd".into(),
            ));
        };
        events.remove(at);
        self.io_events.any.store(!events.is_empty(), SeqCst);
        Ok(())
    }

    fn add_irq_event(&self, source: IrqSource, fd: OwnedFd) -> Result<u32, EngineError> {
        let failed = host("to wait for an eventfd");
        let mut waiter = lock(&self.irq_events.waiter);
        let waiter = match &mut *waiter {
            Some(waiter) => waiter,
            none => none.insert(Waiter::start(&self.own).map_err(&failed)?),
        };
        let number = self.irq_events.next.fetch_add(1, SeqCst);
        let fd = File::from(fd);
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| failed(error.into()))?;
        let data = epoll::EventData::new_u64(number.into());
        epoll::add(&waiter.epoll, &fd, data, epoll::EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        lock(&waiter.sources).insert(number, (source, fd));
        Ok(number)
    }

    fn remove_irq_event(&self, number: u32) -> Result<(), EngineError> {
        let waiter = lock(&self.irq_events.waiter);
        let removed = waiter.as_ref().and_then(|waiter| {
            let (_, fd) = lock(&waiter.sources).remove(&number)?;
            // The descriptor may have copies, which would keep it in the set.
            let _ = epoll::delete(&waiter.epoll, &fd);
            Some(())
        });
        removed.ok_or_else(|| EngineError::BadState(format!("there is no irq event {number}")))
    }
}
