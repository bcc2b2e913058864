"""Compares our run of a small guest with QEMU's, instruction by instruction.

QEMU is driven through its gdbstub (GDB manual, appendix E, "Remote Serial Protocol"); we
single-step a deterministic machine. Both begin at the guest's entry with the registers that QEMU
has there, so what differs is what an instruction does. For guests that touch no device, take no
interrupt and do not begin with a store: time is not the same on both sides, and the first
instruction is executed once to bring our machine to life.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import EngineError
from ringfence.machine import VM

__all__ = ["GdbRemote", "QemuDifference", "against_qemu"]

QEMU = "qemu-system-x86_64"
_LONG = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
#: RFLAGS that are compared: CF, PF, AF, ZF, SF, DF, OF.
_FLAGS = 0xCD5
_START_LIMIT = 20.0


class GdbRemote:
    """The remote end of a GDB connection.

    Args:
        connection: A socket to a gdbstub.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._input = b""

    def ask(self, command: str) -> str:
        """Sends a packet and gives the answer.

        Raises:
            EngineError: the other end closed the connection, or answers with an error.
        """
        body = command.encode()
        self._socket.sendall(b"$%s#%02x" % (body, sum(body) & 0xFF))
        while True:
            start = self._input.find(b"$")
            end = self._input.find(b"#", start)
            if start >= 0 and end >= 0 and len(self._input) >= end + 3:
                break
            data = self._socket.recv(65536)
            if not data:
                raise EngineError("the gdbstub closed the connection")
            self._input += data
        answer = self._input[start + 1 : end].decode()
        self._input = self._input[end + 3 :]
        self._socket.sendall(b"+")
        if answer.startswith("E"):
            raise EngineError(f"the gdbstub refuses {command!r}: {answer}")
        return answer

    def registers(self) -> dict[str, int]:
        """General registers, RIP and RFLAGS; the layout is the one of 64-bit targets."""
        data = bytes.fromhex(self.ask("g").replace("x", "0"))
        values = {
            name: int.from_bytes(data[at * 8 : at * 8 + 8], "little")
            for at, name in enumerate((*_LONG, "rip"))
        }
        values["rflags"] = int.from_bytes(data[136:140], "little")
        return values

    def run_to(self, address: int) -> None:
        """Goes on until the instruction at ``address`` is next."""
        self.ask(f"Z1,{address:x},1")
        self.ask("c")
        self.ask(f"z1,{address:x},1")

    def step(self) -> None:
        """Executes one instruction."""
        self.ask("s")


@dataclass(frozen=True, slots=True)
class QemuDifference:
    """The first instruction that does something else than in QEMU."""

    #: How many instructions were executed before it, from the entry on.
    instructions: int
    #: It, as disassembled by us.
    instruction: str
    #: Names of registers that differ afterwards, with our value and QEMU's.
    registers: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        lines = [f"instruction {self.instructions + 1}: {self.instruction}"]
        lines += [
            f"  {name}: ours {ours:#x}, QEMU's {theirs:#x}"
            for name, (ours, theirs) in self.registers.items()
        ]
        return "\n".join(lines)


def against_qemu(
    kernel: Path, entry: int, *, until: int, cpu: str = "x86-64-v2", qemu_cpu: str = "max"
) -> QemuDifference | None:
    """Runs a kernel with a PVH entry on both sides, and compares after every instruction.

    Args:
        kernel: The ELF file; see :func:`ringfence.testing.pvh_kernel`.
        entry: Physical address of its entry.
        until: How many instructions to compare.
        cpu: Our processor model.
        qemu_cpu: QEMU's.

    Returns:
        The first difference, or ``None``.

    Raises:
        EngineError: QEMU is not there or does not start, or our machine ended.
    """
    with _qemu(kernel, qemu_cpu) as remote:
        remote.run_to(entry)
        vm = VM(kernel=kernel, deterministic=True, cpu=cpu, memory="128M")
        try:
            return _compare(vm, remote, entry, until)
        finally:
            vm.stop()


def _compare(vm: VM, remote: GdbRemote, entry: int, until: int) -> QemuDifference | None:
    # One instruction, undone: the machine is made when it first runs.
    vm.run_to(1)
    processor = vm.machine.processor
    if processor is None:
        raise EngineError("our machine ended at its first instruction")
    start = remote.registers()
    processor.set_registers({**start, "rip": entry})
    for count in range(until):
        instruction = processor.recent_code()[-1]
        remote.step()
        if not vm.run_to(count + 2):
            raise EngineError(f"our machine ended after {count + 1} instructions: {vm.exit}")
        ours, theirs = processor.registers(), remote.registers()
        for values in (ours, theirs):
            values["rflags"] &= _FLAGS
        different = {
            name: (ours[name], theirs[name])
            for name in (*_LONG, "rip", "rflags")
            if ours[name] != theirs[name]
        }
        if different:
            return QemuDifference(count, instruction, different)
    return None


@contextmanager
def _qemu(kernel: Path, cpu: str) -> Iterator[GdbRemote]:
    """QEMU with the kernel, stopped before its first instruction."""
    if shutil.which(QEMU) is None:
        raise EngineError(f"{QEMU} is not installed")
    with tempfile.TemporaryDirectory(prefix="ringfence-") as folder:
        path = Path(folder) / "gdb"
        command = [
            *(QEMU, "-accel", "tcg", "-machine", "pc", "-cpu", cpu, "-m", "128M"),
            *("-nodefaults", "-display", "none", "-S", "-kernel", str(kernel)),
            *("-gdb", f"unix:{path},server=on,wait=off"),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                with _connected(path, process) as connection:
                    yield GdbRemote(connection)
            finally:
                process.kill()


def _connected(path: Path, process: "subprocess.Popen[bytes]") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_START_LIMIT)
    deadline = time.monotonic() + _START_LIMIT
    while True:
        try:
            connection.connect(str(path))
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = process.stderr.read().decode(errors="replace") if process.stderr else ""
                raise EngineError(f"{QEMU} did not start: {said.strip() or error}") from error
            time.sleep(0.02)
        else:
            return connection
