"""ACPI tables, built from a description of the hardware.

Source: ACPI specification 6.5, chapters 5 (tables), 19 and 20 (ASL and its byte code).
"""

from ringfence.firmware.acpi.hardware import AcpiHardware, PciRoot, SerialLine
from ringfence.firmware.acpi.loader import Loader, loader
from ringfence.firmware.acpi.tables import build

__all__ = ["AcpiHardware", "Loader", "PciRoot", "SerialLine", "build", "loader"]
