"""The transceiver inside an 82540EM: registers of IEEE 802.3 clause 22, Marvell 88E1000 layout.

The link is up at 1000 Mbit/s full duplex whenever the card's cable is plugged in; negotiation ends
at once.
"""

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["Phy"]

CONTROL, STATUS, ID1, ID2, ADVERTISE, PARTNER, EXPANSION = range(7)
GIGABIT_CONTROL, GIGABIT_STATUS, EXTENDED_STATUS = 9, 10, 15
SPECIFIC_CONTROL, SPECIFIC_STATUS, EXTENDED_SPECIFIC = 16, 17, 20
CONTROL_RESET, CONTROL_RESTART, CONTROL_NEGOTIATE = 0x8000, 0x0200, 0x1000

_LINK, _DONE = 0x0004, 0x0020
_RESET_VALUES = {
    CONTROL: 0x1140,
    STATUS: 0x7949,
    ID1: 0x0141,
    ID2: 0x0C20,
    ADVERTISE: 0x0DE1,
    PARTNER: 0xC1E1,
    EXPANSION: 0x000F,
    GIGABIT_CONTROL: 0x0E00,
    GIGABIT_STATUS: 0x3C00,
    EXTENDED_STATUS: 0x3000,
    SPECIFIC_CONTROL: 0x0360,
    EXTENDED_SPECIFIC: 0x0D60,
}
_WRITABLE = {CONTROL, ADVERTISE, GIGABIT_CONTROL, SPECIFIC_CONTROL, 18, EXTENDED_SPECIFIC, 29, 30}
_VERSION = 1
_FIELDS = {"_registers": 0xFFFF}


class Phy:
    """32 registers of 16 bits."""

    def __init__(self) -> None:
        self._registers: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Hardware reset."""
        self._registers = [_RESET_VALUES.get(index, 0) for index in range(32)]

    def read(self, register: int) -> int:
        """Reads a register."""
        if register == STATUS:
            return self._registers[STATUS] | _LINK | _DONE
        if register == SPECIFIC_STATUS:
            return 0xAC08  # 1000 Mbit/s, full duplex, resolved, link up
        return self._registers[register]

    def write(self, register: int, value: int) -> None:
        """Writes a register."""
        if register not in _WRITABLE:
            return
        if register == CONTROL:
            if value & CONTROL_RESET:
                self.reset()
                return
            value &= ~CONTROL_RESTART
        self._registers[register] = value

    def state(self) -> State:
        """The registers."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes the registers."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._registers = (self._registers + [0] * 32)[:32]
