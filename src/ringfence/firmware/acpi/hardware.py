"""What the ACPI tables tell of a machine, as a board fills it in."""

from typing import NamedTuple

__all__ = ["AcpiHardware", "PciRoot", "SerialLine"]


class SerialLine(NamedTuple):
    """A 16550 UART."""

    port: int
    irq: int


class PciRoot(NamedTuple):
    """The PCI bus, its interrupt router and what it hands on."""

    #: Device number of the bridge with the router, and offset of each of its route registers, in
    #: groups of four that follow each other.
    router: int
    routes: tuple[int, ...]
    #: For each device number, the lines (indices of ``routes``) of its four pins.
    wiring: tuple[tuple[int, ...], ...]
    #: Interrupts that the router can be told to use.
    interrupts: tuple[int, ...]
    #: First and last address of the memory that the bus decodes.
    memory: tuple[tuple[int, int], ...]
    #: What the bus decodes in ports: first and last.
    io: tuple[tuple[int, int], ...]
    #: Memory-mapped configuration space; ``None`` where there is mechanism #1 only.
    ecam: int | None = None


class AcpiHardware(NamedTuple):
    """Addresses and interrupts of a PC."""

    cpus: int
    #: Local APIC identifiers are 0 to ``cpus - 1``.
    local_apic: int
    io_apic: int
    io_apic_id: int
    #: System control interrupt: an ISA IRQ, level-triggered, active high.
    sci: int
    #: GSI that the timer's ISA IRQ 0 is wired to.
    timer_gsi: int
    pm1_event: int
    pm1_control: int
    pm_timer: int
    gpe0: int
    smi_command: int
    acpi_enable: int
    acpi_disable: int
    reset_port: int
    reset_value: int
    slp_typ_s5: int
    #: Index of the century in CMOS memory.
    century: int
    rtc_port: int
    rtc_irq: int
    keyboard_irq: int | None
    serial: tuple[SerialLine, ...] = ()
    pci: PciRoot | None = None
    #: Interrupt of a PS/2 mouse; ``None``: there is none.
    mouse_irq: int | None = None
    #: There is a VGA at its customary place.
    vga: bool = False
    #: Port and interrupt of the parallel port; ``None``: there is none.
    parallel: SerialLine | None = None
    #: Base of the HPET; ``None``: there is none.
    hpet: int | None = None
