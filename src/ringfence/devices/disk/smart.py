"""SMART and general-purpose logs of a disk that never fails (ATA/ATAPI-6, 8.41; ATA8-ACS, 7.24)."""

from typing import TYPE_CHECKING

from ringfence.devices.disk.taskfile import SECTOR, Action, Collect, Data

if TYPE_CHECKING:
    from ringfence.devices.disk.ata import AtaDisk

__all__ = ["log", "start"]

#: Attributes: identifier, flags, value, worst, threshold.
_ATTRIBUTES = (
    (1, 0x000B, 100, 100, 6),  # raw read error rate
    (3, 0x0007, 100, 100, 0),  # spin-up time
    (4, 0x0032, 100, 100, 20),  # start/stop count
    (5, 0x0033, 100, 100, 36),  # reallocated sectors
    (9, 0x0032, 100, 100, 0),  # power-on hours
    (12, 0x0032, 100, 100, 0),  # power cycles
    (194, 0x0022, 100, 100, 0),  # temperature
    (197, 0x0012, 100, 100, 0),  # pending sectors
)
#: The registers of a SMART command hold this key.
_KEY_MID, _KEY_HIGH = 0x4F, 0xC2
_DIRECTORY, _SUMMARY, _SELF_TEST, _NCQ_ERROR = 0x00, 0x01, 0x06, 0x10
_SIZES = {_SUMMARY: 1, _SELF_TEST: 1, _NCQ_ERROR: 1}
_MOST_SECTORS = 256


def start(disk: "AtaDisk") -> Action:
    """Begins a SMART command."""
    tf = disk.registers
    feature = tf.features & 0xFF
    if (tf.mid & 0xFF, tf.high & 0xFF) != (_KEY_MID, _KEY_HIGH):
        return disk.abort()
    if feature == 0xD8:
        disk.smart_on = 1
        return disk.succeed()
    if not disk.smart_on:
        return disk.abort()
    if feature == 0xD9:
        disk.smart_on = 0
    elif feature == 0xDA:
        # The key comes back unchanged: no threshold exceeded.
        pass
    elif feature in (0xD0, 0xD1):
        disk.succeed()
        return Data(_values() if feature == 0xD0 else _thresholds())
    elif feature == 0xD5:
        data = log(tf.low & 0xFF, 0, tf.count & 0xFF)
        if data is None:
            return disk.abort()
        disk.succeed()
        return Data(data)
    elif feature == 0xD6 and tf.count & 0xFF == 1:
        return Collect(SECTOR, lambda _: disk.succeed())
    elif feature not in (0xD2, 0xD3, 0xD4, 0xDB):
        return disk.abort()
    return disk.succeed()


def log(address: int, page: int, count: int) -> bytes | None:
    """``count`` sectors of a log, or ``None`` if there is none."""
    size = _SIZES.get(address, 1 if address == _DIRECTORY else 0)
    if not 0 < count <= _MOST_SECTORS or page + count > max(size, 1) or not size:
        return None
    data = bytearray(count * SECTOR)
    if address == _DIRECTORY:
        data[0] = 1
        for known, sectors in _SIZES.items():
            data[2 * known] = sectors
    elif address == _NCQ_ERROR:
        # The error was not of a queued command.
        data[0] = 0x80
    else:
        data[0] = 1
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def _values() -> bytes:
    data = bytearray(SECTOR)
    data[0] = 1
    for index, (identifier, flags, value, worst, _) in enumerate(_ATTRIBUTES):
        at = 2 + 12 * index
        data[at] = identifier
        data[at + 1 : at + 3] = flags.to_bytes(2, "little")
        data[at + 3], data[at + 4] = value, worst
        if identifier == 194:
            data[at + 5] = 31
    # Off-line collection never started; self-tests and logs are there.
    data[362], data[363] = 0x00, 0x00
    data[367], data[368], data[370] = 0x11, 0x03, 0x01
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def _thresholds() -> bytes:
    data = bytearray(SECTOR)
    data[0] = 1
    for index, (identifier, *_, threshold) in enumerate(_ATTRIBUTES):
        data[2 + 12 * index : 4 + 12 * index] = bytes([identifier, threshold])
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)
