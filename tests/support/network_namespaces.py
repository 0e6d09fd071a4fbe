"""Hosts of their own on this machine: network namespaces with a link to it that can be cut; root's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_cluster import Place

_NETWORK = f"10.217.{os.getpid() % 250}"  # What a killed run has left must not be in the way.
HERE = f"{_NETWORK}.1"
"""This machine's address towards the hosts."""
CAN_BE_MADE = os.geteuid() == 0 and shutil.which("ip") is not None


@dataclass(frozen=True)
class Host:
    """A namespace; what runs in it sees an empty folder in place of one of ours.

    Attributes:
        link: this machine's end of its cable.
        hidden: the folder of ours that it does not see.
    """

    name: str
    address: str
    link: str
    hidden: Path

    @property
    def place(self) -> Place:
        """Where a node of it runs."""
        hide = 'mount -t tmpfs none "$0" && exec "$@"'
        return Place(
            self.address, ("ip", "netns", "exec", self.name, "sh", "-c", hide, str(self.hidden))
        )

    def cut(self) -> None:
        """Takes the link away."""
        _ip("link", "set", self.link, "down")

    def mend(self) -> None:
        """The link is there again."""
        _ip("link", "set", self.link, "up")

    def slow_down(self, megabits: int) -> None:
        """The link carries so many Mbit/s each way."""
        for inside, device in (((), self.link), (("-n", self.name), "eth0")):
            shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "latency", "400ms"]
            _run("tc", *inside, "qdisc", "replace", "dev", device, *shape)


@contextlib.contextmanager
def hosts(num: int, hidden: Path) -> Iterator[list[Host]]:
    """So many hosts, linked with this machine and each other; gone afterwards."""
    mark = f"{os.getpid() % 10_000}"
    bridge = f"ksb{mark}"
    made: list[Host] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{HERE}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(num):
            host = Host(
                f"ks{mark}n{number}", f"{_NETWORK}.{number + 2}", f"ks{mark}v{number}", hidden
            )
            made.append(host)
            _ip("netns", "add", host.name)
            _ip(
                "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name
            )
            _ip("link", "set", host.link, "master", bridge)
            _ip("link", "set", host.link, "up")
            inside = ("-n", host.name)
            _ip(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", host.link], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
