"""A serial line whose other end is a Python program."""

import re
import threading
import time

import pytest

from ringfence.chars import Console, NullPort, Stream
from ringfence.errors import GuestStopped, GuestTimeout


def later(seconds: float, call: object, *arguments: object) -> None:
    threading.Timer(seconds, call, arguments).start()  # type: ignore[arg-type]


def test_receive_waits_for_output() -> None:
    stream = Stream()
    later(0.05, stream.write, b"hi")
    assert stream.receive(5) == b"hi"
    before = time.monotonic()
    assert stream.receive(0.05) == b""
    assert time.monotonic() - before >= 0.05


def test_close_ends_reading_after_what_is_left() -> None:
    stream = Stream()
    stream.write(b"rest")
    stream.close()
    assert stream.closed
    assert stream.receive() == b"rest"
    assert stream.receive() == b""
    stream.send("nobody hears")
    assert stream.pending_input == 0


def test_input_waits_until_it_is_taken() -> None:
    stream, wakes = Stream(), []
    stream.send("early")
    stream.on_input(lambda: wakes.append(stream.pending_input))
    stream.send(b"+late")
    stream.send("")
    assert wakes == [10]
    assert stream.read(3) == b"ear"
    assert stream.read(100) == b"ly+late"
    assert stream.read(100) == b""


def test_expect_leaves_the_rest() -> None:
    stream = Stream()
    stream.write(b"login: \r\npassword: ")
    assert stream.expect("login: ") == "login: "
    assert stream.expect(re.compile(r"pass\w+")) == "\r\npassword"
    assert stream.receive(0) == b": "


def test_expect_over_several_writes() -> None:
    stream = Stream()
    for index, part in enumerate([b"kernel pa", b"nic - no", b"t syncing"]):
        later(0.02 * (index + 1), stream.write, part)
    assert stream.expect("panic - not syncing", 5) == "kernel panic - not syncing"


def test_expect_tells_what_it_saw() -> None:
    stream = Stream("com1")
    stream.write(b"something else")
    with pytest.raises(GuestTimeout, match=r"com1: 'prompt' did not come within 0.05 s.*\n.*else"):
        stream.expect("prompt", 0.05)
    assert stream.receive(0) == b"something else", "it can still be read"
    later(0.05, stream.close)
    with pytest.raises(GuestStopped, match="ended"):
        stream.expect("prompt", 5)


def test_receive_until() -> None:
    stream = Stream()
    stream.write(b"one\0two\0thr")
    assert stream.receive_until(b"\0") == b"one"
    assert stream.receive_until(b"\0") == b"two"
    assert stream.receive_until(b"\0", 0.01) is None


def test_output_that_nobody_reads_is_limited() -> None:
    stream = Stream(limit=100)
    for index in range(100):
        stream.write(b"%09d\n" % index)
    assert stream.dropped == 900
    assert stream.receive(0) == b"".join(b"%09d\n" % index for index in range(90, 100))
    assert stream.tail(10) == "000000099\n"


def test_expect_while_output_is_dropped() -> None:
    stream = Stream(limit=64)
    done: list[str] = []
    waiter = threading.Thread(target=lambda: done.append(stream.expect("the end", 10)))
    waiter.start()
    for _ in range(200):
        stream.write(b"noise " * 10)
    stream.write(b"the e")
    time.sleep(0.02)
    stream.write(b"nd")
    waiter.join(10)
    assert done
    assert done[0].endswith("the end")


def test_history_is_limited() -> None:
    stream = Stream(limit=1)
    for _ in range(1000):
        stream.write(bytes(1000))
    assert len(stream.tail(1 << 20)) <= 128 << 10


def test_listeners_come_and_go() -> None:
    stream = Stream()
    heard: list[bytes] = []
    forget = stream.listen(heard.append)
    stream.write(b"a")
    forget()
    stream.write(b"b")
    assert heard == [b"a"]
    stream.discard()
    assert stream.receive(0) == b""


def test_null_port() -> None:
    port = NullPort()
    port.write(b"x")
    port.on_input(lambda: None)
    assert port.read(10) == b""


def test_console_is_the_hosts_end() -> None:
    line = Stream()
    console = Console(line)
    line.write(b"login: ")
    assert repr(console) == "<Console 'console' open, 7 bytes to read>"
    assert console.expect("login: ", 1) == "login: "
    console.write("root\n")
    assert console.pending_input == 5
    assert line.read(10) == b"root\n"
    heard: list[bytes] = []
    forget = console.listen(heard.append)
    line.write(b"# ")
    forget()
    assert heard == [b"# "]
    assert console.read(1) == b"# "
    assert console.tail() == "login: # "
    line.close()
    assert console.closed
    assert console.receive() == b""
    assert console.dropped == 0
