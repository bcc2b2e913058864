"""A processor after reset, where firmware begins.

Source: SDM vol. 3A, table 9-1: real mode, CS:IP F000h:FFF0h with the base FFFF0000h.
"""

from typing import Any

from ringfence.firmware.boot import BootPlan

__all__ = ["plan"]

_CODE, _DATA, _LDT, _TASK = 0x9B, 0x93, 0x82, 0x8B
_CR0_RESET = 0x6000_0010


def plan() -> BootPlan:
    """Registers of the first processor; nothing is written to memory."""

    def segment(attributes: int, base: int = 0, selector: int = 0) -> dict[str, int]:
        return {"base": base, "limit": 0xFFFF, "attributes": attributes, "selector": selector}

    table = {"base": 0, "limit": 0xFFFF}
    registers: dict[str, Any] = {
        "cs": segment(_CODE, 0xFFFF0000, 0xF000),
        **{name: segment(_DATA) for name in ("ds", "es", "fs", "gs", "ss")},
        "ldtr": segment(_LDT),
        "tr": segment(_TASK),
        "gdtr": table,
        "idtr": table,
        "cr0": _CR0_RESET,
        "cr2": 0,
        "cr3": 0,
        "cr4": 0,
        "efer": 0,
    }
    return BootPlan("firmware", [], {"rip": 0xFFF0, "rflags": 2}, registers)
