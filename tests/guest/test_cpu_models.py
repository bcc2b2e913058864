"""Processor models, as Linux sees them."""

from pathlib import Path

import pytest

from ringfence import VM, ConfigError, EngineError

#: What each level of the x86-64 psABI adds, in the words of /proc/cpuinfo.
V2 = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
V3 = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
AVX = {"avx", "avx2", "fma", "f16c"}


def host_flags() -> set[str]:
    """The flags of the host's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split(":")[1].split())


def boot(image: str, cpu: str, cpus: int = 1) -> list[dict[str, str]]:
    """Boots with that model; gives /proc/cpuinfo by processor. The kernel complains of nothing."""
    with VM(image, cpu=cpu, cpus=cpus, memory="256M", timeout=100) as vm:
        shown = vm.run("cat /proc/cpuinfo; dmesg >&2", check=True)
    for complaint in ("unchecked MSR", "Call Trace", "invalid opcode", "WARNING:"):
        assert complaint not in shown.stderr
    processors = []
    for block in shown.stdout.strip().split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        processors.append({name.strip(): value.strip() for name, value in pairs})
    return processors


def flags_of(image: str, cpu: str) -> set[str]:
    return set(boot(image, cpu)[0]["flags"].split())


def test_levels(debian: str) -> None:
    v1 = flags_of(debian, "x86-64-v1")
    assert {"lm", "sse2", "fxsr", "cmov", "cx8", "syscall", "hypervisor"} <= v1
    assert not v1 & (V2 | V3)
    if host_flags() >= V2:
        v2 = flags_of(debian, "x86-64-v2")
        assert v2 >= V2
        assert not v2 & V3
    if host_flags() >= V3:
        assert flags_of(debian, "x86-64-v3") >= V2 | V3


def test_the_host_is_the_default(debian: str) -> None:
    flags = flags_of(debian, "host")
    known = V2 | V3 | {"aes", "sha_ni", "adx", "rdrand"}
    assert flags & known == host_flags() & known


@pytest.mark.parametrize(
    ("cpu", "gone"),
    [
        ("host,-avx2", {"avx2"}),
        ("host,-avx", AVX),
        ("host,-xsave", AVX | {"xsave", "xsaveopt", "xgetbv1"}),
        ("host,-hypervisor", {"hypervisor"}),
        ("host,-smep,-umip,-fsgsbase,-rdtscp", {"smep", "umip", "fsgsbase", "rdtscp"}),
        ("host,-x2apic,-tsc_deadline_timer", {"x2apic", "tsc_deadline_timer"}),
        ("host,-mtrr,-pat,-tsc_adjust", {"mtrr", "pat", "tsc_adjust"}),
        ("host,-apic", {"apic", "x2apic", "tsc_deadline_timer"}),
    ],
)
def test_hidden_features(debian: str, cpu: str, gone: set[str]) -> None:
    flags = flags_of(debian, cpu)
    assert not flags & gone
    assert flags >= (V2 | V3) & host_flags() - gone


def test_a_processor_that_was_sold(debian: str) -> None:
    processors = boot(debian, "Nehalem", cpus=2)
    assert len(processors) == 2
    for processor in processors:
        assert processor["vendor_id"] == "GenuineIntel"
        assert (processor["cpu family"], processor["model"]) == ("6", "26")
        assert "Nehalem" in processor["model name"]
        assert not set(processor["flags"].split()) & V3


def test_user_code_gets_sigill(debian: str) -> None:
    # POPCNT, then exit(0), as a static ELF program.
    script = (
        r"printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\076\0\1\0\0\0\170\0\100\0\0\0\0\0"
        r"\100\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\100\0\070\0\1\0\0\0\0\0\0\0"
        r"\1\0\0\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\100\0\0\0\0\0\0\0\100\0\0\0\0\0"
        r"\0\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\20\0\0\0\0\0\0"
        r"\363\017\270\301\061\377\270\074\0\0\0\017\005' > /tmp/popcnt"
        "; chmod +x /tmp/popcnt; /tmp/popcnt; echo status $?"
    )
    for cpu, status in (("x86-64-v2", 0), ("x86-64-v1", 132)):
        with VM(debian, cpu=cpu, memory="256M", timeout=60) as vm:
            assert vm.run(script).stdout.splitlines()[-1] == f"status {status}", cpu


@pytest.mark.parametrize(
    ("cpu", "named"),
    [
        ("i286", "i286"),
        ("host,+flux", "flux"),
        ("host,+la57", "la57"),
        ("x86-64-v4,+xop", "xop"),
    ],
)
def test_what_there_is_not(debian: str, cpu: str, named: str) -> None:
    vm = VM(debian, cpu=cpu)
    with pytest.raises(ConfigError, match=named) as error:
        vm.start()
    assert str(error.value).startswith("cpu: ")


def test_a_64_bit_kernel_needs_a_64_bit_processor(debian: str) -> None:
    with pytest.raises(EngineError, match="no 64-bit mode"):
        VM(debian, cpu="pentium3").start()
