"""Systems and programs seen on the screen and driven by keys, as people do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringfence import VM
from ringfence.testing import ScreenDriver

pytestmark = pytest.mark.guest

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden" / "screen"
GRUB = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
MEMTEST = Path("/usr/lib/memtest86+/memtest86+x64.iso")


def needs(path: Path, package: str) -> None:
    if not path.exists():
        pytest.skip(f"needs {path}: install {package}")


@pytest.fixture
def boot_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A disk with the boot sector that the test names."""
    if shutil.which("nasm") is None:
        pytest.skip("needs nasm")
    disk = tmp_path / f"{request.param}.img"
    source = TESTS / "guests" / "screen" / f"{request.param}.asm"
    subprocess.run(["nasm", "-f", "bin", "-o", disk, source], check=True)
    with disk.open("r+b") as file:
        file.truncate(1 << 20)
    return disk


@pytest.mark.parametrize(
    ("boot_disk", "size"),
    [("text", (720, 400)), ("mode13", (320, 200)), ("planar", (640, 480))],
    indirect=["boot_disk"],
)
def test_programs_look_as_they_should(boot_disk: Path, size: tuple[int, int]) -> None:
    golden = GOLDEN / f"{boot_disk.stem}.png"
    with VM(disks=[str(boot_disk)], memory="64M", timeout=60) as vm:
        user = ScreenDriver(vm, dump_to=boot_disk.parent)
        assert user.expect_image(golden).size == size
        if size == (720, 400):
            page = vm.screen.page()
            assert page
            at = 3 * 80 + 16
            assert page.codes[at : at + 6] == b"ABCCBA"
            assert set(page.attributes[at : at + 6]) == {0x1E}
            assert page.cursor == (1, 3)
        else:
            assert user.text == ""


@pytest.mark.parametrize("boot_disk", ["keys"], indirect=True)
def test_keys_reach_int_16h(boot_disk: Path) -> None:
    with VM(disks=[str(boot_disk)], memory="64M", timeout=60) as vm:
        user = ScreenDriver(vm)
        user.expect(re.compile(r"^[012]\d>", re.MULTILINE))
        user.type("aA1 \n")
        user.press("esc", "f1", "f12", "up", "delete", "ctrl-c", "alt-x", "shift-tab", "kp-5")
        user.expect(
            "1E61 1E41 0231 3920 1C0D 011B 3B00 8600 48E0 53E0 2E03 2D00 0F00 4C00",
        )
        user.press("capslock")
        user.type("q")
        user.expect("1051")
        assert vm.keyboard.leds == {"capslock"}


@pytest.mark.parametrize("boot_disk", ["keys"], indirect=True)
def test_other_layouts(boot_disk: Path) -> None:
    """The same text by a French keyboard arrives as other keys."""
    with VM(disks=[str(boot_disk)], memory="64M", timeout=60, keyboard_layout="fr") as vm:
        user = ScreenDriver(vm)
        user.expect(">")
        user.type("aq")
        user.expect("1071 1E61")


def test_bios_menu(tmp_path: Path) -> None:
    disk = tmp_path / "empty.img"
    disk.write_bytes(bytes(1 << 20))
    with VM(disks=[str(disk)], memory="64M", boot_menu=True, timeout=60) as vm:
        user = ScreenDriver(vm)
        user.expect("for boot menu")
        user.press("esc")
        user.expect(re.compile(r"Select boot device:\s+1\. .*[Dd]isk"))
        user.press("1")
        user.expect("Booting from Hard Disk")


def test_grub_menu_and_command_line() -> None:
    needs(GRUB, "grub-rescue-pc")
    with VM(cdroms=[str(GRUB)], memory="128M", timeout=150) as vm:
        user = ScreenDriver(vm, timeout=60)
        user.expect("*GNU/Linux")
        user.press("down", "down")
        user.expect(re.compile(r"\*FreeBSD"))
        user.press("c")
        user.expect("grub>")
        user.line("echo 'typed: {}|~' $prefix")
        user.expect(re.compile(r"^typed: \{\}\|~ \(hd96\)", re.MULTILINE))
        user.press("esc")
        user.expect(re.compile(r"\*"))


def test_memtest_is_configured_by_keys() -> None:
    needs(MEMTEST, "memtest86+")
    with VM(cdroms=[str(MEMTEST)], memory="64M", timeout=150) as vm:
        user = ScreenDriver(vm, timeout=60)
        user.expect("<F1> to configure")
        user.press("f1")
        user.expect("Settings:")
        user.press("f1")
        assert "*.*********" in user.expect("Test Selection:")
        # Add test 1, which is not among those that are chosen.
        user.press("f3")
        user.type("1\n")
        user.expect("***********")
        user.press("f10")
        user.expect("Settings:")
        user.press("f10")
        user.expect(re.compile(r"Testing: |Pass:?\s+\d"))


def test_linux_has_a_framebuffer_console(debian: str) -> None:
    with VM(debian, display="vga", append="console=tty0", memory="256M", timeout=120) as vm:
        assert vm.run("cat /proc/fb", timeout=90).stdout.startswith("0 EFI VGA")
        assert vm.screen.image().size == (1024, 768)
        vm.run("(setsid sh -c 'exec sh </dev/tty1 >/dev/tty1 2>&1' &); sleep 0.3", timeout=30)
        before = vm.screen.image()
        vm.keyboard.type("echo typed $((6*7)) > /tmp/answer; echo shown; stty size > /tmp/size\n")
        wait = "for i in $(seq 50); do [ -s /tmp/size ] && break; sleep 0.1; done; "
        assert vm.run(wait + "cat /tmp/answer /tmp/size", timeout=60).stdout == (
            "typed 42\n48 128\n"
        )
        assert vm.screen.image() != before


def test_uefi_shell_is_driven_by_keys() -> None:
    with VM(firmware="uefi", memory="256M", timeout=170) as vm:
        vm.console.expect("Shell>", 120)
        assert vm.screen.text() == ""
        before = vm.screen.image()
        assert before.size == (1024, 768)
        assert before.getextrema() != ((0, 0), (0, 0), (0, 0))
        vm.keyboard.type("echo six times seven\n")
        # The shell shows what it says on the serial line too.
        vm.console.expect("six times seven\r\n", 30)
        vm.console.expect("Shell>", 30)
        assert vm.screen.image() != before
