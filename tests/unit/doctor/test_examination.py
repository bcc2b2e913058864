"""The examination of hosts: those below a folder, with what a probe of KVM found."""

from pathlib import Path

import pytest

from ringfence import engines
from ringfence.doctor import Examination, Finding, Host, Verdict, examine
from ringfence.engines import Capabilities

Files = dict[str, str]

#: A host that has everything.
WELL: Files = {
    "/proc/cpuinfo": "processor : 0\nmodel name : Acme 1000\nflags : fpu svm\n",
    "/proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
    "/proc/self/status": "Name: x\nCapEff: 000001ffffffffff\n",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "/dev/net/tun": "",
    "/usr/share/seabios/bios-256k.bin": "",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "",
}


class Below(Host):
    """A host with these files, and no more; all programs are there."""

    def __init__(self, root: Path, files: Files) -> None:
        super().__init__(root)
        for name, text in files.items():
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def program(self, name: str) -> bool:
        return name == "qemu-img"

    def processors(self) -> int:
        return 4


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Capabilities]:
    """What probes find, by engine; KVM is good at first."""
    found = {"bt": Capabilities("bt", True), "kvm": Capabilities("kvm", True)}
    monkeypatch.setattr(engines, "probe", found.__getitem__)
    monkeypatch.setattr(engines, "choice", lambda: ("kvm", "engine: kvm"))
    return found


def look(root: Path, changes: Files | None = None, *without: str) -> Examination:
    files = {name: text for name, text in WELL.items() if name not in without}
    return examine(Below(root, {**files, **(changes or {})}))


def finding(examination: Examination, name: str) -> Finding:
    (one,) = (finding for finding in examination.findings if finding.name == name)
    return one


@pytest.mark.usefixtures("kvm")
def test_a_host_that_has_everything(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.healthy
    assert found.engine == "kvm"
    assert {one.verdict for one in found.findings} == {Verdict.OK}
    assert not any(one.mend for one in found.findings)
    said = finding(found, "processor").text
    assert said == "Acme 1000, 4 processors for this process, with virtualization (AMD-V)"
    assert finding(found, "memory").text == "4.0 GiB available of 8.0 GiB"


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(
    ("name", "changes", "without", "said", "mend"),
    [
        ("memory", {"/proc/meminfo": "MemTotal: 900000 kB\n"}, (), "0 MiB of 878 MiB", "--memory"),
        (
            "memory",
            {
                "/sys/fs/cgroup/memory.max": "1073741824\n",
                "/sys/fs/cgroup/memory.current": "973741824",
            },
            (),
            "may have 1.0 GiB, 95 MiB are left",
            "--memory",
        ),
        (
            "huge-pages",
            {"/sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"},
            (),
            "are off",
            "tee",
        ),
        (
            "huge-pages",
            {},
            ("/sys/kernel/mm/transparent_hugepage/enabled",),
            "are off",
            "use a kernel",
        ),
        ("tap", {}, ("/dev/net/tun",), "it does not exist", "--device /dev/net/tun"),
        ("tap", {"/proc/self/status": "CapEff: 0\n"}, (), "administrator", "ip tuntap add"),
        ("seabios", {}, ("/usr/share/seabios/bios-256k.bin",), "with a BIOS", "install seabios"),
        ("ovmf", {}, ("/usr/share/OVMF/OVMF_CODE_4M.fd",), "with UEFI", "install ovmf"),
    ],
)
def test_what_is_lacking_has_a_mend(
    tmp_path: Path, name: str, changes: Files, without: tuple[str, ...], said: str, mend: str
) -> None:
    examination = look(tmp_path, changes, *without)
    one = finding(examination, name)
    assert one.verdict is Verdict.LACKING
    assert said.replace("0 MiB of", "0 MiB available of") in one.text
    assert mend in one.mend
    assert examination.healthy


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("fpu vmx hypervisor", "with virtualization (VT-x)"),
        ("fpu hypervisor", "itself virtual and without nested virtualization"),
        ("fpu", "switched off in the firmware"),
    ],
)
def test_processors(tmp_path: Path, flags: str, said: str) -> None:
    examination = look(tmp_path, {"/proc/cpuinfo": f"flags : {flags}\n"})
    assert said in finding(examination, "processor").text


def test_kvm_that_can_not_be_had(tmp_path: Path, kvm: dict[str, Capabilities]) -> None:
    kvm["kvm"] = Capabilities("kvm", False, "no permission", mend="join the group")
    one = finding(look(tmp_path), "kvm")
    assert (one.verdict, one.text, one.mend) == (
        Verdict.LACKING,
        "no permission",
        "join the group",
    )


def test_kvm_that_is_slow(tmp_path: Path, kvm: dict[str, Capabilities]) -> None:
    kvm["kvm"] = Capabilities("kvm", True, "it is slow", advised=False)
    one = finding(look(tmp_path), "kvm")
    assert one.verdict is Verdict.LACKING
    assert "--engine kvm" in one.mend


def test_a_host_where_nothing_runs(tmp_path: Path, kvm: dict[str, Capabilities]) -> None:
    kvm["bt"] = Capabilities("bt", False, "it needs Linux")
    found = look(tmp_path)
    assert not found.healthy
    assert found.engine is None
    assert finding(found, "bt").verdict is Verdict.FAILED


@pytest.mark.usefixtures("kvm")
def test_a_host_without_any_files(tmp_path: Path) -> None:
    assert look(tmp_path, None, *WELL).healthy


@pytest.mark.usefixtures("kvm")
def test_for_programs(tmp_path: Path) -> None:
    mapping = look(tmp_path).to_mapping()
    assert mapping["healthy"] is True
    assert mapping["findings"][0].keys() == {"name", "verdict", "text", "mend"}


def test_this_host() -> None:
    found = examine()
    assert found.healthy
    assert found.engine in ("bt", "kvm")
