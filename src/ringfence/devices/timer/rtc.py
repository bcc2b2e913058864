"""MC146818 real-time clock with CMOS memory, as in a PC.

Source: Motorola MC146818A data sheet (1988); PC wiring as in the IBM PC/AT technical reference:
index at offset 0, data at offset 1, interrupt on IRQ 8, century in byte 32h.

Time is not counted: it is computed from the machine's wall clock plus an offset when someone
looks. The update takes no time; the update-in-progress bit shows in the 244 microseconds before
it. Left out: daylight saving (the DSE bit is kept and does nothing), as in later chips.
"""

from collections.abc import Mapping
from typing import ClassVar

from ringfence.bus import Clock, IrqLine, State, Timer, restore_fields, save_fields
from ringfence.devices.timer.calendar import civil, seconds_of

__all__ = ["Rtc"]

INDEX, DATA = 0, 1

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D = range(6, 14)
CENTURY = 0x32

A_UIP, A_DIVIDER, A_RUNNING, A_RATE = 0x80, 0x70, 0x20, 0x0F
B_SET, B_PIE, B_AIE, B_UIE, B_SQWE, B_BINARY, B_24H, B_DSE = (0x80 >> bit for bit in range(8))
C_IRQ, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
D_VALID = 0x80

#: In alarm registers: matches anything.
ANY = 0xC0
_PM = 0x80
_TIME = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)
_SECOND = 1_000_000_000
_UIP_LEAD = 244_000
_DAY = 86_400
_SIZE = 128
_VERSION = 1
# The offset between wall clock and RTC, in microseconds, is signed: it is kept with this added.
_BIAS = 1 << 60
_FIELDS = {"_memory": _SIZE, "_index": 0x7F, "_flags": 0x70, "_bias": 1 << 61}


class Rtc:
    """The clock, its three interrupts and 114 bytes of memory.

    Args:
        irq: Interrupt wire, active until register C is read.
        clock: The machine's clock.
        memory: Bytes of guest memory below and above 4 GiB, told in the customary registers.
        cmos: More contents of the memory, by index.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 2

    def __init__(
        self,
        irq: IrqLine,
        clock: Clock,
        memory: tuple[int, int] = (0, 0),
        cmos: Mapping[int, int] | None = None,
    ) -> None:
        self._irq = irq
        self._clock = clock
        self._timer: Timer | None = None
        self._memory = bytearray(_SIZE)
        self._memory[REG_A] = A_RUNNING | 6
        self._memory[REG_B] = B_24H
        self._index = 0
        self._flags = 0
        self._bias = _BIAS
        self._seen = clock.wall()
        self._store_memory_size(*memory)
        for index, value in (cmos or {}).items():
            self._memory[index] = value
        self.reset()

    def reset(self) -> None:
        """RESET pin: clears interrupt enables and flags; time and memory are battery-backed."""
        self._memory[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE) & 0xFF
        self._flags = 0
        self._index = 0
        self._seen = self._now()
        self._arm()

    def read(self, offset: int, size: int) -> int:
        """Reads the register that the index selects; the index itself can't be read."""
        if offset == INDEX:
            return 0xFF
        index = self._index
        if index == REG_A:
            return self._memory[REG_A] | (A_UIP if self._updating() else 0)
        if index == REG_C:
            return self._read_flags()
        if index == REG_D:
            return D_VALID
        if index in _TIME and self._running():
            self._load_time()
        return self._memory[index]

    def write(self, offset: int, size: int, value: int) -> None:
        """Selects a register (bit 7 masks NMI, which nothing raises here) or writes it."""
        if offset == INDEX:
            self._index = value & 0x7F
            return
        index = self._index
        if index == REG_A:
            self._write_a(value)
        elif index == REG_B:
            self._write_b(value)
        elif index in (REG_C, REG_D):
            pass
        elif index in _TIME:
            self._write_time(index, value)
        elif index in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
            self._catch_up()
            self._memory[index] = value
            self._arm()
        else:
            self._memory[index] = value

    def state(self) -> State:
        """Memory, index, flags and the distance to the wall clock."""
        self._catch_up()
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes memory, index, flags and the distance to the wall clock."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._memory[REG_A] &= ~A_UIP & 0xFF
        self._seen = self._now()
        self._arm()

    # Time.

    def _now(self) -> int:
        """The RTC's time in nanoseconds since 1970, of which registers show the seconds."""
        return self._clock.wall() + (self._bias - _BIAS) * 1000

    def _running(self) -> bool:
        """The divider chain counts and no one is setting the time."""
        return self._memory[REG_A] & A_DIVIDER == A_RUNNING and not self._memory[REG_B] & B_SET

    def _updating(self) -> bool:
        return self._running() and self._now() % _SECOND >= _SECOND - _UIP_LEAD

    def _encode(self, value: int) -> int:
        return value if self._memory[REG_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self._memory[REG_B] & B_BINARY else (value >> 4) * 10 + (value & 15)

    def _encode_hour(self, hour: int) -> int:
        if self._memory[REG_B] & B_24H:
            return self._encode(hour)
        return self._encode(hour % 12 or 12) | (_PM if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self._memory[REG_B] & B_24H:
            return self._decode(value)
        return self._decode(value & 0x7F) % 12 + (12 if value & _PM else 0)

    def _load_time(self) -> None:
        """Fills the time registers from the clock."""
        year, month, day, weekday, second = civil(self._now() // _SECOND)
        memory = self._memory
        memory[SECONDS] = self._encode(second % 60)
        memory[MINUTES] = self._encode(second // 60 % 60)
        memory[HOURS] = self._encode_hour(second // 3600)
        memory[WEEKDAY] = self._encode(weekday)
        memory[DAY] = self._encode(day)
        memory[MONTH] = self._encode(month)
        memory[YEAR] = self._encode(year % 100)
        memory[CENTURY] = self._encode(year // 100 % 100)

    def _store_time(self) -> None:
        """Moves the clock to what the time registers say."""
        memory = self._memory
        year = self._decode(memory[CENTURY]) % 100 * 100 + self._decode(memory[YEAR]) % 100
        hour = self._decode_hour(memory[HOURS])
        wanted = seconds_of(year, self._decode(memory[MONTH]), self._decode(memory[DAY]))
        wanted += hour * 3600 + self._decode(memory[MINUTES]) * 60 + self._decode(memory[SECONDS])
        now = self._now()
        self._bias += (wanted - now // _SECOND) * 1_000_000
        self._seen = self._now()

    def _write_time(self, index: int, value: int) -> None:
        if not self._running():
            self._memory[index] = value
            return
        self._catch_up()
        self._load_time()
        self._memory[index] = value
        self._store_time()
        self._arm()

    def _write_a(self, value: int) -> None:
        self._change(REG_A, value & ~A_UIP & 0xFF)

    def _write_b(self, value: int) -> None:
        # Setting SET clears UIE.
        self._change(REG_B, value & ~B_UIE & 0xFF if value & B_SET else value)

    def _change(self, register: int, value: int) -> None:
        """Writes register A or B, by which time may stop or go on."""
        self._catch_up()
        was_running = self._running()
        if was_running:
            # Should time stop now, the registers keep what they show.
            self._load_time()
        held = self._memory[REG_A] & A_DIVIDER != A_RUNNING
        self._memory[register] = value
        if not was_running and self._running():
            self._store_time()
            if held:
                # Released from reset, the divider chain makes its first update in half a second.
                self._bias += (_SECOND // 2 - self._now() % _SECOND) // 1000
                self._seen = self._now()
        self._arm()

    # Interrupts.

    def _period(self) -> int:
        """Nanoseconds between periodic interrupts, or 0 (table 5, 32.768 kHz time base)."""
        rate = self._memory[REG_A] & A_RATE
        if rate == 0 or self._memory[REG_A] & A_DIVIDER != A_RUNNING:
            return 0
        if rate <= 2:
            rate += 7
        return _SECOND * (1 << rate - 1) // 32768

    def _catch_up(self) -> None:
        """Sets the flags of what has happened since the last look."""
        now = self._now()
        seen, self._seen = self._seen, now
        if now <= seen:
            return
        period = self._period()
        if period and now // period != seen // period:
            self._flags |= C_PERIODIC
        if self._running() and now // _SECOND != seen // _SECOND:
            self._flags |= C_UPDATE
            alarm = self._next_alarm(seen // _SECOND)
            if alarm is not None and alarm <= now // _SECOND:
                self._flags |= C_ALARM

    def _next_alarm(self, after: int) -> int | None:
        """The first second later than ``after`` that matches the alarm, or ``None``."""
        memory = self._memory
        hour, minute, second = (
            None if memory[index] & ANY == ANY else decode(memory[index])
            for index, decode in (
                (HOURS_ALARM, self._decode_hour),
                (MINUTES_ALARM, self._decode),
                (SECONDS_ALARM, self._decode),
            )
        )
        if (hour or 0) > 23 or (minute or 0) > 59 or (second or 0) > 59:
            return None
        today = (after + 1) // _DAY * _DAY
        at = (after + 1) % _DAY
        for start, first in ((today, at), (today + _DAY, 0)):
            for h in range(first // 3600, 24) if hour is None else (hour,):
                low = max(first - h * 3600, 0)
                for m in range(low // 60, 60) if minute is None else (minute,):
                    s = max(low - m * 60, 0) if second is None else second
                    if s < 60 and h * 3600 + m * 60 + s >= first:
                        return start + h * 3600 + m * 60 + s
        return None

    def _read_flags(self) -> int:
        self._catch_up()
        value = self._flags | (C_IRQ if self._flags & self._memory[REG_B] & 0x70 else 0)
        self._flags = 0
        self._update_irq()
        self._arm()
        return value

    def _update_irq(self) -> None:
        self._irq.set(bool(self._flags & self._memory[REG_B] & 0x70))

    def _expired(self) -> None:
        self._timer = None
        self._catch_up()
        self._arm()

    def _arm(self) -> None:
        """Asks to be called at the next enabled event; none while one waits to be seen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._update_irq()
        enabled = self._memory[REG_B] & 0x70
        if not enabled or self._flags & enabled:
            return
        now = self._now()
        events: list[int] = []
        period = self._period()
        if enabled & B_PIE and period:
            events.append((now // period + 1) * period)
        if enabled & B_UIE and self._running():
            events.append((now // _SECOND + 1) * _SECOND)
        if enabled & B_AIE and self._running():
            alarm = self._next_alarm(now // _SECOND)
            if alarm is not None:
                events.append(alarm * _SECOND)
        if events:
            self._timer = self._clock.call_at(self._clock.now() + min(events) - now, self._expired)

    def _store_memory_size(self, below: int, above: int) -> None:
        """Base and extended memory where BIOSes put them (15h to 18h, 30h, 34h, 5Bh to 5Dh)."""
        memory = self._memory
        base = min(640, below >> 10)
        extended = min(max((below >> 10) - 1024, 0), 0xFFFF)
        beyond = min(max(below - (16 << 20), 0) >> 16, 0xFFFF)
        for index, value, count in (
            (0x15, base, 2),
            (0x17, extended, 2),
            (0x30, extended, 2),
            (0x34, beyond, 2),
            (0x5B, min(above >> 16, 0xFFFFFF), 3),
        ):
            memory[index : index + count] = value.to_bytes(count, "little")
