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


@pytest.mark.parametrize(("model", "image"), CARDS, ids=[card[0] for card in CARDS])
def test_stream_between_machines(model: str, image: str) -> None:
    """A TCP stream from one guest to another arrives as it was sent."""
    ends = cable()
    name = guests.image(image).name
    vms = [
        ringfence.VM(name, nets=[f"wire,model={model}"], networks={"wire": end}, timeout=120)
        for end in ends
    ]
    sums: list[str] = []

    def receive(vm: ringfence.VM) -> None:
        sums.append(vm.run("nc -l -p 5000 | sha256sum", check=True).stdout)

    with vms[0], vms[1]:
        for host, vm in enumerate(vms, 1):
            mac = f"52:54:00:00:00:0{host}"
            vm.run(f"ip link set eth0 address {mac}; {UP.format(host=host)}", check=True)
        receiver = threading.Thread(target=receive, args=(vms[0],))
        receiver.start()
        script = (
            "head -c 2000000 /dev/urandom >/tmp/data; sha256sum </tmp/data; "
            "until nc 10.9.0.1 5000 </tmp/data; do sleep 0.1; done"
        )
        sent = vms[1].run(script, check=True).stdout
        receiver.join(60)
    assert sums == [sent]
