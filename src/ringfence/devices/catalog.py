"""All device models: one line each.

``CATALOG`` holds what sits at fixed ports, ``FUNCTIONS`` the functions of the PCI bus. A package
of others adds functions by entry points of the group ``ringfence.devices``: the name is the
model's, the object its class, derived from ``PciDevice``.
"""

from importlib import import_module
from typing import NamedTuple

from ringfence.bus import Device
from ringfence.devices.pci.function import PciDevice
from ringfence.errors import ConfigError

__all__ = ["CATALOG", "ENTRY_POINTS", "FUNCTIONS", "Model", "load", "load_function"]

#: Group of entry points.
ENTRY_POINTS = "ringfence.devices"


class Model(NamedTuple):
    """A device model: where its class is, and what it is."""

    module: str
    name: str
    title: str


CATALOG: dict[str, Model] = {
    "uart16550": Model("serial.uart16550", "Uart16550", "16550A serial line"),
    "rtc": Model("timer.rtc", "Rtc", "MC146818 real-time clock and CMOS memory"),
    "i8042": Model("input.i8042", "I8042", "8042 keyboard controller with keyboard"),
    "ne2000": Model("net.ne2000", "Ne2000", "NE2000 network card on the ISA bus"),
    "sleep": Model("chipset.sleep", "SleepControl", "sleep registers of hardware-reduced ACPI"),
    "acpi-pm": Model("chipset.acpi_pm", "AcpiPm", "ACPI fixed hardware"),
    "smi-command": Model("chipset.acpi_pm", "SmiCommand", "SMI command port"),
    "reset-control": Model("chipset.reset", "ResetControl", "reset control register CF9h"),
    "system-control": Model("chipset.reset", "SystemControl", "system control port 92h"),
    "pci-config": Model("pci.mechanism", "PciConfig", "PCI configuration mechanism #1"),
    "vga": Model("vga.vga", "Vga", "VGA with the display interface of Bochs"),
    "isa-dma": Model("dma.i8237", "IsaDma", "8237A DMA controllers and page registers"),
    "floppy": Model("floppy.fdc", "FloppyController", "82077AA floppy disk controller"),
    "ide-channel": Model("ide.channel", "IdeChannel", "IDE channel with two drives"),
    "fw-cfg": Model("chipset.fw_cfg", "FwCfg", "firmware configuration device"),
    "flash": Model("flash.cfi", "CfiFlash", "flash memory with the Intel command set"),
    "parallel": Model("parallel.spp", "ParallelPort", "standard parallel port with a printer"),
    "post": Model("debug.post", "PostCodes", "power-on self-test codes, port 80h"),
    "debug-exit": Model("debug.exit", "DebugExit", "port that ends the machine"),
    "debug-console": Model("debug.exit", "DebugConsole", "console at port E9h"),
}

FUNCTIONS: dict[str, Model] = {
    "i440fx": Model("pci.host_bridge", "HostBridge", "Intel 440FX host bridge"),
    "ich9-lpc": Model("chipset.ich9", "Ich9Lpc", "ICH9 LPC bridge and interrupt router"),
    "ich9-smbus": Model("chipset.ich9", "Ich9SmBus", "ICH9 SMBus controller"),
    "q35-mch": Model("chipset.q35_mch", "Mch", "Intel Q35 host bridge"),
    "piix3": Model("chipset.piix3", "Piix3", "PIIX3 ISA bridge and interrupt router"),
    "stdvga": Model("vga.stdvga", "StdVga", "VGA as Bochs and QEMU have it, on PCI"),
    "ahci": Model("ahci.controller", "AhciController", "ICH9 AHCI controller"),
    "piix3-ide": Model("ide.piix", "PiixIde", "PIIX3 IDE controller with bus masters"),
    "e1000": Model("net.e1000_pci", "E1000", "Intel 82540EM gigabit network card"),
    "rtl8029": Model("net.rtl8029", "Rtl8029", "Realtek RTL8029AS network card (NE2000)"),
    "virtio-net": Model("virtio.models", "NetPci", "virtio network card"),
    "virtio-console": Model("virtio.models", "ConsolePci", "virtio console"),
    "virtio-rng": Model("virtio.models", "RngPci", "virtio random numbers"),
    "virtio-balloon": Model("virtio.models", "BalloonPci", "virtio memory balloon"),
    "virtio-9p": Model("virtio.models", "SharePci", "virtio shared folder"),
    "virtio-vsock": Model("virtio.models", "VsockPci", "virtio sockets to the host"),
    "virtio-blk": Model("virtio.models", "BlockPci", "virtio disk"),
    "piix4-pm": Model("chipset.piix4_pm", "Piix4Pm", "PIIX4 power management and SMBus"),
}


def load(name: str) -> type[Device]:
    """The class of the device model ``name``.

    Raises:
        ConfigError: there is none.
    """
    model = CATALOG.get(name)
    if model is None:
        raise ConfigError(f"there is no device {name!r}; there are {', '.join(sorted(CATALOG))}")
    found: type[Device] = getattr(import_module(f"ringfence.devices.{model.module}"), model.name)
    return found


def load_function(name: str) -> type[PciDevice]:
    """The class of the PCI function ``name``, ours or another package's.

    Raises:
        ConfigError: there is none, or it can't be loaded.
    """
    model = FUNCTIONS.get(name)
    if model is not None:
        module = import_module(f"ringfence.devices.{model.module}")
        found: type[PciDevice] = getattr(module, model.name)
        return found
    # Imported late: it takes as long as most of a start.
    from importlib.metadata import entry_points

    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    entry = others.get(name)
    if entry is None:
        names = ", ".join(sorted({*FUNCTIONS, *others}))
        raise ConfigError(f"there is no device {name!r}; there are {names}")
    try:
        other = entry.load()
    except Exception as error:
        raise ConfigError(
            f"the device {name!r} of {entry.value} can't be loaded: {error}"
        ) from error
    if not (isinstance(other, type) and issubclass(other, PciDevice)):
        raise ConfigError(f"the device {name!r} of {entry.value} is no PciDevice")
    return other
