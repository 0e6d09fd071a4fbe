"""A Ray cluster on this machine: a head without cores, and nodes that are added and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORE = 80 * 2**20
"""Bytes of a node's object store, Ray's least but little."""


@dataclass(frozen=True)
class Place:
    """Where a node runs, if not beside the head.

    Attributes:
        address: its own.
        command: what its command is given to.
    """

    address: str
    command: tuple[str, ...]


class RayNode:
    """A raylet with what it started, in a process group of its own.

    Args:
        place: where it runs.
        variables: of the environment, beside those of all nodes.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        number: int,
        num_cpus: int,
        token: bool,
        root: Path = ROOT,
        place: Place | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        head, _, port = address.rpartition(":")
        host = place.address if place is not None else f"127.0.0.{number + 1}"
        command = [
            "start", "--block", "--disable-usage-stats", f"--num-cpus={num_cpus}",
            f"--object-store-memory={STORE}", f"--temp-dir={folder}",
        ]  # fmt: skip
        if number == 0:
            command += ["--head", f"--port={port}", f"--node-ip-address={head}",
                        "--include-dashboard=false"]  # fmt: skip
        else:
            command += [f"--address={address}", f"--node-ip-address={host}"]
        self.log = folder / f"node-{number}.log"
        self._mark = f"TESTS_NODE={self.log}".encode()
        environment = {
            "TESTS_NODE": str(self.log),
            **os.environ,
            "PYTHONPATH": f"{root}:{Path(__file__).parent}",
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_worker_niceness": "0",
            **(variables or {}),
        }
        self.place = place
        before = place.command if place is not None else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "ray.scripts.scripts", *command],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def is_started(self) -> bool:
        """Whether it says that it runs.

        Raises:
            ChildProcessError: It has ended instead.
        """
        text = self.log.read_text()
        if self.process.poll() is not None:
            raise ChildProcessError(text)
        return "Ray runtime started" in text

    @property
    def identity(self) -> str:
        """The begin of Ray's number for it, which its name in a sweep ends with."""
        for number in self.raylets():
            for word in Path(f"/proc/{number}/cmdline").read_text().split("\0"):
                if word.startswith("--node_id="):
                    return word.partition("=")[2][:6]
        return ""

    def trial_processes(self) -> list[int]:
        """The processes of jobs, and of their server."""
        found = []
        for number in self.children():
            with contextlib.suppress(OSError):
                if b"multiprocessing" in Path(f"/proc/{number}/cmdline").read_bytes():
                    found.append(number)
        return found

    def children(self) -> list[int]:
        """Its processes: Ray's own are in several process groups, so each is known by a mark."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

    def raylets(self) -> list[int]:
        """Its raylet."""
        found = []
        for number in self.children():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0]
                if name.endswith(b"/raylet"):
                    found.append(number)
        return found

    def send(self, number: signal.Signals) -> None:
        """A signal to its raylet."""
        for raylet in self.raylets():
            with contextlib.suppress(OSError):
                os.kill(raylet, number)

    def freeze(self) -> None:
        """Stops all of its processes."""
        self._frozen = self.children()
        for number in self._frozen:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        for number in self._frozen:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGCONT)

    def await_end_of_trials(self, seconds: float = 30.0) -> None:
        """Waits until no process of a job lives."""
        deadline = time.monotonic() + seconds
        while self.trial_processes():
            assert time.monotonic() < deadline, "its trials live on"
            time.sleep(0.1)

    def end(self) -> None:
        """Ends everything of it."""
        for number in self.children():
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()


class RayCluster:
    """A head, and the nodes that are added."""

    def __init__(
        self, folder: Path, *, token: bool = False, host: str = "127.0.0.1",
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.token, self._variables = folder, token, variables
        (folder / "token").write_text("a-token-of-the-tests-which-is-long-enough\n")
        with socket.socket() as free:
            free.bind((host, 0))
            self.address = f"{host}:{free.getsockname()[1]}"
        self.nodes: list[RayNode] = []
        self.head = self.add(num_cpus=0)

    def add(self, num_cpus: int = 1, root: Path = ROOT, place: Place | None = None) -> RayNode:
        """One more node, started; on a busy machine Ray may give up, and is asked again."""
        for _ in range(3):
            node = RayNode(
                self.folder, self.address, len(self.nodes), num_cpus, self.token, root, place,
                self._variables,
            )  # fmt: skip
            self.nodes.append(node)
            try:
                while not node.is_started:
                    time.sleep(0.1)
                return node
            except ChildProcessError as error:
                problem = error
                node.end()
        raise problem

    @property
    def workers(self) -> list[RayNode]:
        """The nodes beside the head that live."""
        return [node for node in self.nodes[1:] if node.raylets()]

    def named(self, name: str) -> RayNode:
        """The node that a sweep calls so."""
        return next(n for n in self.nodes if n.identity and f"-{n.identity}" in name)

    def close(self) -> None:
        """Ends all nodes."""
        for node in reversed(self.nodes):
            node.end()


@contextlib.contextmanager
def ray_cluster(*, num_nodes: int = 1, **options: Any) -> Iterator[RayCluster]:
    """A cluster with a head and some nodes of one core; all is gone afterwards."""
    # A short path: Ray's sockets lie there.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        cluster = None
        try:
            cluster = RayCluster(Path(name), **options)
            for _ in range(num_nodes):
                cluster.add()
            yield cluster
        finally:
            if cluster is not None:
                cluster.close()
