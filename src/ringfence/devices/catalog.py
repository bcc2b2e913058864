"""All device models: one line each."""

from importlib import import_module
from typing import NamedTuple

from ringfence.bus import Device
from ringfence.errors import ConfigError

__all__ = ["CATALOG", "Model", "load"]


class Model(NamedTuple):
    """A device model: where its class is, and what it is."""

    module: str
    name: str
    title: str


CATALOG: dict[str, Model] = {
    "uart16550": Model("serial.uart16550", "Uart16550", "16550A serial line"),
    "rtc": Model("timer.rtc", "Rtc", "MC146818 real-time clock and CMOS memory"),
    "i8042": Model("input.i8042", "I8042", "8042 keyboard controller with keyboard"),
    "acpi-pm": Model("chipset.acpi_pm", "AcpiPm", "ACPI fixed hardware"),
    "smi-command": Model("chipset.acpi_pm", "SmiCommand", "SMI command port"),
    "reset-control": Model("chipset.reset", "ResetControl", "reset control register CF9h"),
    "system-control": Model("chipset.reset", "SystemControl", "system control port 92h"),
    "pci-config": Model("pci.mechanism", "PciConfig", "PCI configuration mechanism #1"),
    "post": Model("debug.post", "PostCodes", "power-on self-test codes, port 80h"),
    "debug-exit": Model("debug.exit", "DebugExit", "port that ends the machine"),
    "debug-console": Model("debug.exit", "DebugConsole", "console at port E9h"),
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
