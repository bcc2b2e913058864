"""The debug ports."""

from ringfence.devices.debug.exit import DebugConsole, DebugExit
from ringfence.devices.debug.post import PostCodes
from support.fake_devices import HandClock, Port


def test_exit_port() -> None:
    left: list[int] = []
    device = DebugExit(left.append)
    device.write(1, 1, 9)
    assert left == []
    device.write(0, 4, 0x12345678)
    assert left == [0x12345678]
    assert device.read(0, 1) == 0


def test_console() -> None:
    port, clock = Port(), HandClock()
    device = DebugConsole(port, clock)
    assert device.read(0, 1) == 0xE9
    for byte in b"hi":
        device.write(0, 1, byte)
    assert port.written == b""
    clock.advance(1_000_000)
    assert port.written == b"hi"


def test_post_codes_without_repetitions() -> None:
    device = PostCodes()
    assert device.read(0, 1) == 0
    for value in [1, 1, 2, 2, 1, *range(3, 30)]:
        device.write(0, 1, value)
    assert device.codes == list(range(14, 30))
    assert device.read(0, 1) == 29
    device.reset()
    assert device.codes == []
