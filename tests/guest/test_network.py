"""Network cards, as Linux drives them: pings of several sizes to a peer."""

import pytest

import ringfence
from ringfence.net import cable
from support import guests
from support.peer import Peer

CARDS = [("e1000", "debian-generic"), ("rtl8029", "debian-generic")]
UP = (
    "ip addr add 10.9.0.{host}/24 dev eth0 && ip link set eth0 up && "
    "cat /sys/class/net/eth0/address"
)


@pytest.mark.parametrize(("model", "image"), CARDS, ids=[card[0] for card in CARDS])
def test_pings(model: str, image: str) -> None:
    ours, theirs = cable()
    peer = Peer(ours)
    with ringfence.VM(
        guests.image(image).name,
        nets=[f"wire,model={model},mac=52:54:00:12:34:56"],
        networks={"wire": theirs},
        timeout=90,
    ) as vm:
        assert vm.run(UP.format(host=2), check=True).stdout == "52:54:00:12:34:56\n"
        for size in (0, 1001, 1472):
            done = vm.run(f"ping -c 3 -i 0.1 -W 5 -s {size} 10.9.0.1", check=True)
            assert " 0% packet loss" in done.stdout
        assert "eth0" in vm.run("cat /proc/interrupts").stdout
    peer.close()
    assert peer.pings == 9
    assert not peer.bad
