//! Ioctls that `kvm-ioctls` lacks, or has in a form that is too narrow.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use kvm_bindings::{kvm_interrupt, kvm_ioeventfd, kvm_irqfd};
use kvm_ioctls::{VcpuFd, VmFd};
use ringfence_engine::{IoAddress, IoEvent};

/// _IOW(KVMIO, 86h, struct kvm_interrupt).
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;
/// _IOW(KVMIO, 79h, struct kvm_ioeventfd).
const KVM_IOEVENTFD: libc::c_ulong = 0x4040_ae79;

/// _IOW(KVMIO, 76h, struct kvm_irqfd).
const KVM_IRQFD: libc::c_ulong = 0x4020_ae76;

const DATAMATCH: u32 = 1 << 0;
const PIO: u32 = 1 << 1;
const DEASSIGN: u32 = 1 << 2;

fn call<T>(fd: RawFd, request: libc::c_ulong, argument: &T) -> io::Result<()> {
    // SAFETY: the requests read one structure of this type and write nothing.
    let result = unsafe { libc::ioctl(fd, request, std::ptr::from_ref(argument)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Injects an external interrupt, on a machine without chips in the kernel.
pub fn interrupt(vcpu: &VcpuFd, vector: u8) -> io::Result<()> {
    let argument = kvm_interrupt { irq: vector.into() };
    call(vcpu.as_raw_fd(), KVM_INTERRUPT, &argument)
}

/// Makes a write signal an eventfd, or no longer.
pub fn io_event(vm: &VmFd, event: IoEvent, fd: RawFd, assign: bool) -> io::Result<()> {
    let (address, space) = match event.address {
        IoAddress::Port(port) => (port.into(), PIO),
        IoAddress::Memory(address) => (address, 0),
    };
    let value = if event.value.is_some() { DATAMATCH } else { 0 };
    let argument = kvm_ioeventfd {
        datamatch: event.value.unwrap_or(0),
        addr: address,
        len: event.size.into(),
        fd,
        flags: space | value | if assign { 0 } else { DEASSIGN },
        ..Default::default()
    };
    call(vm.as_raw_fd(), KVM_IOEVENTFD, &argument)
}

/// Makes an eventfd raise a global system interrupt, or no longer.
pub fn irq_event(vm: &VmFd, gsi: u32, fd: RawFd, assign: bool) -> io::Result<()> {
    let argument = kvm_irqfd {
        fd: fd as u32,
        gsi,
        flags: if assign { 0 } else { 1 },
        ..Default::default()
    };
    call(vm.as_raw_fd(), KVM_IRQFD, &argument)
}
