"""Where everything sits on the board ``pc``: addresses, interrupts, memory map."""

from typing import NamedTuple

from ringfence.devices.chipset.acpi_pm import (
    ACPI_DISABLE,
    ACPI_ENABLE,
    GPE0,
    PM1_CONTROL,
    PM_TIMER,
    SLP_TYP_S5,
)
from ringfence.devices.chipset.reset import RESET_VALUE
from ringfence.devices.timer.rtc import CENTURY
from ringfence.firmware.acpi import AcpiHardware, PciRoot, SerialLine
from ringfence.firmware.e820 import RAM, RESERVED, MemoryRange
from ringfence.units import GIB, KIB, MIB


class SerialPlace(NamedTuple):
    """Where a UART sits."""

    port: int
    irq: int
    #: A byte that is never held back to be sent with others.
    flush_byte: int | None = None


# Ports.
#: COM2 carries lines of control, which should arrive when they end.
SERIAL = (
    SerialPlace(0x3F8, 4),
    SerialPlace(0x2F8, 3, flush_byte=0x0A),
    SerialPlace(0x3E8, 4),
    SerialPlace(0x2E8, 3),
)
I8042 = 0x60
RTC = 0x70
POST = 0x80
SYSTEM_CONTROL = 0x92
SMI_COMMAND = 0xB2
PARALLEL = 0x378
#: Where SeaBIOS and OVMF say what they do.
FIRMWARE_LOG = 0x402
#: They say much, byte by byte, at a time when seconds count: nanoseconds to gather it for.
FIRMWARE_LOG_DELAY = 5_000_000
FW_CFG = 0x510
DEBUG_CONSOLE = 0xE9
DEBUG_EXIT = 0xF4
PM = 0x600
PCI = 0xCF8
RESET = 0xCF9

#: What the PCI bus decodes in ports, but for the mechanism's own.
PCI_IO = ((0, 0xCF7), (0xD00, 0xFFFF))
#: Ports that base registers get without firmware.
PCI_IO_FREE = range(0xC000, 0x10000)

# Places on the PCI bus.
HOST_BRIDGE = 0
#: The south bridge: function 0 is the ISA bridge, 1 IDE, 3 power management.
SOUTH_BRIDGE, IDE_FUNCTION, PM_FUNCTION = 1, 1, 3
DISPLAY = 2

# Interrupts.
KEYBOARD_IRQ = 1
MOUSE_IRQ = 12
PARALLEL_IRQ = 7
RTC_IRQ = 8
SCI = 9
#: Where the four lines of the PCI bus go without firmware: what the usual BIOS sets.
PCI_IRQS = (10, 10, 11, 11)
#: Interrupts that an operating system may choose for them.
PCI_CHOICE = (5, 10, 11)
#: The I/O APIC's input of the PIT, which the PICs have at IRQ 0.
TIMER_GSI = 2

# Memory.
VIDEO = 0xA0000
#: Behind the video memory: option ROMs, then the firmware's ROM or the RAM that shadows it.
SHADOW = 0xC0000
#: Extended BIOS data area: the kilobyte below the video memory.
EBDA = VIDEO - KIB
#: Where a BIOS would be, and the ACPI tables are.
BIOS = 0xE0000
ONE_MEGABYTE = 1 * MIB
#: Memory beyond this lies above 4 GiB, and memory-mapped devices between.
LOW_LIMIT = 3 * GIB
#: By this subsystem SeaBIOS knows that there is a firmware configuration device.
FW_CFG_SUBSYSTEM = (0x1AF4, 0x1100)
#: Memory for base registers: from there to the I/O APIC, and far above the guest's memory.
PCI_MEMORY = range(0xE0000000, 0xFEC00000)
PCI_HIGH_SIZE = 64 * GIB
LOCAL_APIC = 0xFEE00000
IO_APIC = 0xFEC00000
HPET = 0xFED00000


def memory_map(memory: int, low_limit: int = LOW_LIMIT) -> list[MemoryRange]:
    """The memory map that a machine with ``memory`` bytes tells its guest."""
    low = min(memory, low_limit)
    ranges = [
        MemoryRange(0, EBDA, RAM),
        MemoryRange(EBDA, VIDEO - EBDA, RESERVED),
        MemoryRange(BIOS, ONE_MEGABYTE - BIOS, RESERVED),
        MemoryRange(ONE_MEGABYTE, low - ONE_MEGABYTE, RAM),
    ]
    if memory > low:
        ranges.append(MemoryRange(4 * GIB, memory - low, RAM))
    return ranges


def pci_high(memory: int) -> range:
    """Addresses for 64-bit base registers above 4 GiB, for a machine with ``memory`` bytes."""
    start = max(4 * GIB + memory + PCI_HIGH_SIZE - 1, PCI_HIGH_SIZE) // PCI_HIGH_SIZE
    return range(start * PCI_HIGH_SIZE, (start + 1) * PCI_HIGH_SIZE)


def acpi_hardware(
    cpus: int,
    *,
    serial: int,
    keyboard: bool,
    mouse: bool = False,
    vga: bool = False,
    pci: PciRoot | None = None,
    pm: int = PM,
) -> AcpiHardware:
    """What the ACPI tables tell of the board.

    Args:
        cpus: Processors.
        serial: Serial lines.
        keyboard: Whether there is a keyboard controller.
        mouse: Whether there is a mouse behind it.
        vga: Whether there is a VGA.
        pci: The PCI bus.
        pm: Where the power management registers are.
    """
    return AcpiHardware(
        cpus=cpus,
        local_apic=LOCAL_APIC,
        io_apic=IO_APIC,
        io_apic_id=0,
        sci=SCI,
        timer_gsi=TIMER_GSI,
        pm1_event=pm,
        pm1_control=pm + PM1_CONTROL,
        pm_timer=pm + PM_TIMER,
        gpe0=pm + GPE0,
        smi_command=SMI_COMMAND,
        acpi_enable=ACPI_ENABLE,
        acpi_disable=ACPI_DISABLE,
        reset_port=RESET,
        reset_value=RESET_VALUE,
        slp_typ_s5=SLP_TYP_S5,
        century=CENTURY,
        rtc_port=RTC,
        rtc_irq=RTC_IRQ,
        keyboard_irq=KEYBOARD_IRQ if keyboard else None,
        mouse_irq=MOUSE_IRQ if mouse else None,
        vga=vga,
        pci=pci,
        serial=tuple(SerialLine(place.port, place.irq) for place in SERIAL[:serial]),
    )
