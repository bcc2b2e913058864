"""Network cards, as Linux drives them: pings to a peer, and a stream between two machines."""

import threading

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


def test_stream_between_machines() -> None:
    """A TCP stream from an 82540EM to a virtio card arrives as it was sent."""
    kinds = [("debian", "virtio-net"), ("debian-generic", "e1000")]
    vms = [
        ringfence.VM(
            guests.image(image).name,
            nets=[f"wire,model={model},mac=52:54:00:00:00:0{host}"],
            networks={"wire": end},
            timeout=120,
        )
        for host, ((image, model), end) in enumerate(zip(kinds, cable(), strict=True), 1)
    ]
    sums: list[str] = []

    def receive(vm: ringfence.VM) -> None:
        # Its standard input must stay open, or nc ends the connection.
        script = "mkfifo /tmp/open; sleep 90 >/tmp/open & nc -l -p 5000 </tmp/open | sha256sum"
        sums.append(vm.run(script, check=True).stdout)

    with vms[0], vms[1]:
        for host, vm in enumerate(vms, 1):
            vm.run(UP.format(host=host), check=True)
        receiver = threading.Thread(target=receive, args=(vms[0],))
        receiver.start()
        script = (
            "yes abcdefg | head -c 2000000 >/tmp/data; sha256sum </tmp/data; "
            "until nc 10.9.0.1 5000 </tmp/data; do sleep 0.1; done"
        )
        sent = vms[1].run(script, check=True).stdout
        receiver.join(60)
    assert sums == [sent]
