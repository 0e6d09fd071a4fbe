"""The driver's side of the bridge: its process, what it says, and which nodes there are.

Where the bridge ends, because Ray ended it or the head of the cluster is gone, all nodes are lost,
and it is started again and again.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.cluster.bridge import bridge_job
from sweeps.cluster.protocol import (
    Close,
    ClusterOptions,
    Command,
    Connected,
    Message,
    Node,
    NodeFound,
    NodeLeaving,
    NodeLost,
    NodeReady,
    NodeRefused,
    Refused,
    UseData,
)
from sweeps.executors.base import Slot
from sweeps.executors.credentials import passed
from sweeps.executors.processes import ProcessExecutor

log = logging.getLogger(__name__)
CONNECT_SECONDS = 30.0
"""What connecting may take; Ray itself would hang for longer than a minute."""
AGAIN_SECONDS = 5.0
"""Between two attempts to connect again."""
CLOSE_SECONDS = 15.0
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""The bridge alone needs them, of all processes that the driver starts."""
BRIDGE = "bridge"


class ClusterConnection:
    """A Ray cluster as the driver knows it.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be used.
    """

    def __init__(self, options: ClusterOptions) -> None:
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "--executor ray needs Ray, here and on the nodes: pip install 'keras-sweeps[ray]'."
            )
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="keras-sweeps-ray-"))
        self._log = self._folder / "bridge.log"
        self._processes = ProcessExecutor("", self._log, "spawn", environment=passed(TOKENS))
        self._pipe: Connection | None = None
        self._nodes: dict[str, Node] = {}
        self._data: UseData | None = None
        self._opening: set[str] = set()
        self._leaving: set[str] = set()
        self._again_at = 0.0
        self._said: set[str] = set()
        self._closed = False
        self._close_seconds = 0.0  # A bridge that never connected hangs in Ray.
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        self._start_bridge()
        while self._pipe is not None and time.monotonic() < deadline:
            found = self._read(0.5)
            for message in found:
                if isinstance(message, Refused):
                    raise InputError(message.reason)
                self._take(message)
            if any(isinstance(message, Connected) for message in found):
                self._close_seconds = CLOSE_SECONDS
                return
        raise InputError(
            f"The Ray cluster at {self._options.address} did not take this driver within "
            f"{CONNECT_SECONDS:.0f} s. Check that this machine is a node of it (`ray status`), and "
            "that its ports are open from here."
        )

    def await_nodes(self, seconds: float, say: Callable[[str], None] = lambda text: None) -> None:
        """Waits for the first node, and a moment for the others that are there already.

        Raises:
            InputError: None could be used.
        """
        say(f"connected to the Ray cluster at {self._options.address}; opening its nodes")
        deadline, problems, is_refused = time.monotonic() + seconds, [], False
        while time.monotonic() < deadline:
            known = len(self._nodes)
            for message in self.receive(2.0 if self._nodes else 0.5):
                is_refused |= isinstance(message, NodeRefused)
                if isinstance(message, NodeRefused | NodeLost):  # What was lost may come again.
                    problems.append(f"{message.name}: {message.reason}")
            if self._nodes and len(self._nodes) == known:
                return
            if is_refused and not self._nodes and not self._opening:
                break
        if not self._nodes:
            why = f" ({'; '.join(problems)})" if problems else ""
            raise InputError(
                f"No node of the Ray cluster at {self._options.address} can take trials{why}. A "
                "node needs a free core, and the same keras-sweeps and libraries as this machine."
            )

    @property
    def nodes(self) -> dict[str, Node]:
        """Name -> node, of those that take jobs now: those that have the data."""
        wanted = self._data.data.fingerprint if self._data is not None else None
        return {n.name: n for n in self._nodes.values() if wanted is None or n.data == wanted}

    @property
    def num_gpus_to_come(self) -> int:
        """GPUs of nodes that do not have the data yet."""
        ready = self.nodes
        return sum(len(n.machine.gpus) for n in self._nodes.values() if n.name not in ready)

    @property
    def channels(self) -> list[Connection]:
        """What can be read once something has happened."""
        pipe = [self._pipe] if self._pipe is not None else []
        return [*pipe, *self._processes.channels]

    def use_data(self, command: UseData) -> None:
        """From now on nodes take jobs once they have these data."""
        self._data = command
        self.send(command)

    def send(self, command: Command) -> None:
        """Tells the bridge; where it is gone, nobody."""
        if self._pipe is not None:
            try:
                self._pipe.send(command)
            except OSError:  # `receive` will see.
                return

    def receive(self, seconds: float = 0.0) -> list[Message]:
        """What has happened; waits at most so long. Keeps `nodes`, and says who comes and goes."""
        if self._pipe is None and not self._closed and time.monotonic() >= self._again_at:
            self._start_bridge()
        found = self._read(seconds)
        for message in found:
            self._take(message)
        return found

    def close(self) -> None:
        """Ends all jobs and the bridge."""
        self._closed = True
        self.send(Close())
        deadline = time.monotonic() + self._close_seconds
        while self._processes.channels and time.monotonic() < deadline:
            if self._pipe is None or not self._read(0.5):
                self._processes.events(0.1)
        self._processes.close()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_bridge(self) -> None:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self._processes.start(
            BRIDGE, bridge_job, (theirs, self._options), Slot(0, 1), str(self._log)
        )
        theirs.close()
        self._pipe = ours

    def _read(self, seconds: float) -> list[Message]:
        """What the bridge says; that it has ended means that all nodes are lost."""
        if self._pipe is None:
            time.sleep(seconds)
            return []
        found: list[Message] = []
        wait(self.channels, seconds)
        try:
            while self._pipe.poll():
                found.append(self._pipe.recv())
        except (EOFError, OSError):
            self._ended()
            named = {m.name for m in found if isinstance(m, NodeFound)}
            named |= {m.node.name for m in found if isinstance(m, NodeReady)} | self._leaving
            why = "the connection to the cluster has ended"
            found += [NodeLost(n, why) for n in sorted({*self._nodes, *self._opening, *named})]
        return found

    def _ended(self) -> None:
        assert self._pipe is not None
        self._pipe.close()
        self._pipe = None
        if self._processes.channels:  # It may hang in its end.
            self._processes.stop(BRIDGE)
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def _take(self, message: Message) -> None:
        match message:
            case Connected():
                log.info("connected to the Ray cluster at %s", self._options.address)
                if self._data is not None:
                    self.send(self._data)
            case Refused(reason):
                self._say_once(reason)
            case NodeFound(name):
                self._opening.add(name)
            case NodeReady(node):
                self._opening.discard(node.name)
                self._nodes[node.name] = node
            case NodeRefused(name, reason):
                self._opening.discard(name)
                self._nodes.pop(name, None)
                self._say_once(f"node {name} is not used: {reason}")
            case NodeLeaving(name):
                self._nodes.pop(name, None)
                self._leaving.add(name)
            case NodeLost(name, reason):
                self._opening.discard(name)
                if self._nodes.pop(name, None) is not None or name in self._leaving:
                    self._leaving.discard(name)
                    log.warning("node %s was lost: %s", name, reason)
                else:
                    log.info("node %s is not ready: %s", name, reason)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)
