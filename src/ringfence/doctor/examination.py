"""The whole examination."""

from dataclasses import dataclass
from typing import Any

from ringfence import engines
from ringfence.doctor.finding import Finding, Verdict
from ringfence.doctor.host import Host
from ringfence.machine.firmware import places
from ringfence.units import GIB, MIB

__all__ = ["Examination", "examine"]

_CPUINFO, _MEMINFO, _STATUS = "/proc/cpuinfo", "/proc/meminfo", "/proc/self/status"
_HUGE = "/sys/kernel/mm/transparent_hugepage/enabled"
_TUN = "/dev/net/tun"
#: CAP_NET_ADMIN (capabilities(7)).
_NET_ADMIN = 1 << 12
#: The least that a machine is given unless its user says otherwise, and room for ourselves.
_LITTLE_MEMORY = 768 * MIB


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        engine: What ``--engine auto`` is here; ``None`` if no engine runs.
        findings: Each thing that was looked at.
    """

    engine: str | None
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether machines run here."""
        return all(finding.verdict is not Verdict.FAILED for finding in self.findings)

    def to_mapping(self) -> dict[str, Any]:
        """For programs."""
        findings = [finding.to_mapping() for finding in self.findings]
        return {"healthy": self.healthy, "engine": self.engine, "findings": findings}


def examine(host: Host | None = None) -> Examination:
    """Looks at this host. Takes a moment, for it runs tiny guests on KVM."""
    host = host or Host()
    checks = (
        _processor,
        _bt,
        _kvm,
        _engine,
        _memory,
        _huge_pages,
        _tap,
        _seabios,
        _ovmf,
        _qemu,
    )
    bt = engines.probe("bt").available
    return Examination(engines.choice()[0] if bt else None, tuple(check(host) for check in checks))


def _processor(host: Host) -> Finding:
    name = host.field(_CPUINFO, "model name") or "a processor without a name"
    count = host.processors()
    text = f"{name}, {count} processor{'s' if count != 1 else ''} for this process"
    flags = host.field(_CPUINFO, "flags").split()
    if "vmx" in flags or "svm" in flags:
        text += f", with virtualization ({'VT-x' if 'vmx' in flags else 'AMD-V'})"
    elif "hypervisor" in flags:
        text += ", itself virtual and without nested virtualization"
    elif flags:
        text += ", without virtualization, or with it switched off in the firmware"
    return Finding("processor", Verdict.OK, text)


def _bt(_: Host) -> Finding:
    found = engines.probe("bt")
    if found.available:
        return Finding("bt", Verdict.OK, "the binary translator runs here")
    mend = "use a host with Linux on x86-64"
    return Finding("bt", Verdict.FAILED, f"no guest can run: {found.reason}", mend)


def _kvm(_: Host) -> Finding:
    found = engines.probe("kvm")
    if not found.available:
        return Finding("kvm", Verdict.LACKING, found.reason, found.mend)
    if not found.advised:
        mend = "it can be had by --engine kvm; bt is the better choice"
        return Finding("kvm", Verdict.LACKING, found.reason, mend)
    return Finding("kvm", Verdict.OK, found.reason or "guests run on the processor itself")


def _engine(_: Host) -> Finding:
    name = engines.choice()[0]
    return Finding("engine", Verdict.OK, f"--engine auto is {name} here")


def _memory(host: Host) -> Finding:
    def size(name: str) -> int:
        number = host.field(_MEMINFO, name).split()
        return int(number[0]) * 1024 if number and number[0].isdigit() else 0

    total, free = size("MemTotal"), size("MemAvailable")
    text = f"{_readable(free)} available of {_readable(total)}"
    limit = host.number("/sys/fs/cgroup/memory.max")
    if limit is not None and limit < total:
        used = host.number("/sys/fs/cgroup/memory.current") or 0
        free = min(free, max(limit - used, 0))
        text += f"; this process's group may have {_readable(limit)}, {_readable(free)} are left"
    if free < _LITTLE_MEMORY:
        mend = "end other programs, or give machines less (--memory 256M)"
        return Finding("memory", Verdict.LACKING, text, mend)
    return Finding("memory", Verdict.OK, text)


def _readable(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size // MIB} MiB"


def _huge_pages(host: Host) -> Finding:
    setting = host.text(_HUGE)
    chosen = setting.partition("[")[2].partition("]")[0]
    if chosen in ("always", "madvise"):
        text = f"transparent huge pages ({chosen}) back guest memory"
        return Finding("huge-pages", Verdict.OK, text)
    mend = f"echo madvise | sudo tee {_HUGE}" if setting else "use a kernel that has them"
    text = "guest memory has 4 KiB pages only: transparent huge pages are off"
    return Finding("huge-pages", Verdict.LACKING, text, mend)


def _tap(host: Host) -> Finding:
    refused = host.may_use(_TUN)
    rights = host.field(_STATUS, "CapEff")
    admin = bool(int(rights, 16) & _NET_ADMIN) if rights else False
    if refused:
        mend = "load the module tun, and in a container pass the device in (--device /dev/net/tun)"
        text = f"no TAP interfaces: {_TUN}: {refused}"
        return Finding("tap", Verdict.LACKING, text, mend)
    if not admin:
        text = "TAP interfaces that the administrator made for this user can be used, none made"
        mend = "sudo ip tuntap add dev tap0 mode tap user $USER"
        return Finding("tap", Verdict.LACKING, text, mend)
    return Finding("tap", Verdict.OK, "TAP interfaces can be made and used")


def _package(name: str, package: str, found: str | None, use: str, *, others: str = "") -> Finding:
    if found is not None:
        return Finding(name, Verdict.OK, f"{use}: {found}")
    mend = f"sudo apt install {package}{others}"
    return Finding(name, Verdict.LACKING, f"not installed; it is for {use}", mend)


def _seabios(host: Host) -> Finding:
    return _package("seabios", "seabios", host.first(places("bios")), "machines with a BIOS")


def _ovmf(host: Host) -> Finding:
    others = " (elsewhere edk2-ovmf)"
    return _package("ovmf", "ovmf", host.first(places("uefi")), "machines with UEFI", others=others)


def _qemu(host: Host) -> Finding:
    program = "qemu-img"
    found = program if host.program(program) else None
    return _package("qemu", "qemu-utils", found, "conversion of disk images")
