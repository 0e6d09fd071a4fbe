"""The process between driver and cluster: Ray's client, which reaches every node of it.

It ends with the driver; that it ends, for whatever Ray does, costs the driver its nodes only.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.data.prepared import PreparedData
from sweeps.cluster.node_files import array_digests
from sweeps.cluster.node_link import NodeLink
from sweeps.cluster.protocol import (
    Close,
    ClusterOptions,
    Command,
    Connected,
    Message,
    NodeFound,
    Refused,
    UseData,
)
from sweeps.cluster.reaching import UnreachableError, reach
from sweeps.executors.base import Slot
from sweeps.executors.fork_server import DRIVERS_SIGNALS

LOOK_SECONDS = 1.0
"""How soon a node that joins is noticed."""
AGAIN_SECONDS = 5.0
"""After so long a node that was lost may come again."""
LAST_WORDS_SECONDS = 5.0
"""How long the driver is waited for with what was said last."""


def bridge_job(argument: tuple[Connection, ClusterOptions], report: object, slot: Slot) -> None:
    """Connects to the cluster, and relays between driver and nodes until the driver closes."""
    del report, slot
    pipe, options = argument
    Bridge(pipe, options).run()


class Outbox:
    """Messages to the driver, in their order; nobody waits for a driver that does not read.

    Who puts them in keeps the lease of a node by asking it again: with a driver that is busy or
    stopped all nodes would end their jobs. A job that reported waits for its answer, so there are
    never more messages than a few for each job.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, daemon=True, name="to the driver")
        self._thread.start()

    def put(self, message: Message) -> None:
        """Sends a message as soon as the driver reads it."""
        self._messages.put(message)

    def close(self, seconds: float = LAST_WORDS_SECONDS) -> None:
        """Waits at most so long until everything is sent."""
        self._messages.put(None)
        self._thread.join(seconds)

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # The driver is gone; who listens to it sees that, too.
            while (message := self._messages.get()) is not None:
                self._pipe.send(message)


class Bridge:
    """What is known of the cluster; links to nodes live in threads of their own.

    Attributes:
        data: what every node is to have; None for nothing.
        closing: whether everything ends.
    """

    def __init__(self, pipe: Connection, options: ClusterOptions) -> None:
        self._pipe, self.options = pipe, options
        self._outbox = Outbox(pipe)
        self._lock, self._digesting = threading.Lock(), threading.Lock()
        self._links: dict[str, NodeLink] = {}
        self._known: set[str] = set()
        self._num_links: Counter[str] = Counter()
        self._digests: dict[str, dict[str, str]] = {}
        self.data: PreparedData | None = None
        self.closing = False

    def run(self) -> None:
        """Connects, and does what the driver says until it closes or is gone."""
        try:
            self._run()
        finally:
            self._outbox.close()

    def _run(self) -> None:
        try:
            self._connect()
        except UnreachableError as error:
            self.say(Refused(str(error)))
            return
        except BaseException as error:  # Ray raises all kinds of them, SystemExit, too.
            self.say(Refused(_refusal(self.options.address, error)))
            return
        self.say(Connected())
        threading.Thread(target=self._look_for_nodes, daemon=True, name="nodes").start()
        with contextlib.suppress(EOFError, OSError):
            while not isinstance(command := self._pipe.recv(), Close):
                self._take(command)
        self._close()

    def say(self, message: Message) -> None:
        """Tells the driver."""
        self._outbox.put(message)

    def add(self, link: NodeLink) -> None:
        """A node takes commands from now on."""
        with self._lock:
            self._links[link.name] = link

    def remove(self, link: NodeLink) -> None:
        """A node takes no more commands."""
        with self._lock:
            self._links.pop(link.name, None)

    def forget(self, node_id: str) -> None:
        """A node that was lost may come again, after a while."""
        timer = threading.Timer(AGAIN_SECONDS, self._known.discard, [node_id])
        timer.daemon = True
        timer.start()

    def digests(self, data: PreparedData) -> dict[str, str]:
        """File -> digest of the arrays of prepared data, computed once."""
        with self._digesting:
            if data.fingerprint not in self._digests:
                self._digests[data.fingerprint] = array_digests(Path(data.folder))
            return self._digests[data.fingerprint]

    def _connect(self) -> None:
        reached = reach(self.options.address, insecure=self.options.insecure)
        import ray  # Now that it is known whether with a token: Ray reads that once.

        ray.init(address=reached.address, log_to_driver=False, logging_level="ERROR")
        for number in DRIVERS_SIGNALS:  # Ray has taken them over.
            signal.signal(number, signal.SIG_IGN)

    def _take(self, command: Command) -> None:
        with self._lock:
            if isinstance(command, UseData):
                self.data = command.data
                links = list(self._links.values())
            else:
                link = self._links.get(getattr(command, "node", ""))
                links = [] if link is None else [link]
        for link in links:
            link.put(command)

    def _look_for_nodes(self) -> None:
        """Links every node that has cores free, also one that comes later."""
        import ray

        while not self.closing:
            with contextlib.suppress(Exception):  # The head may be away for a while.
                every_free = _free()
                for node in ray.nodes():
                    node_id = node["NodeID"]
                    free = every_free.get(node_id, {})
                    num_cores = int(free.get("CPU", 0))
                    if node["Alive"] and node_id not in self._known and num_cores:
                        self._known.add(node_id)
                        host = node["NodeManagerHostname"]
                        num_gpus = int(free.get("GPU", 0)) if self.options.uses_gpus else 0
                        link = NodeLink(
                            self, node_id, self._new_name(host, node_id), num_cores, num_gpus
                        )
                        self.say(NodeFound(link.name))
                        threading.Thread(target=link.live, daemon=True, name=link.name).start()
            time.sleep(LOOK_SECONDS)

    def _new_name(self, host: str, node_id: str) -> str:
        """One that no link had: what the driver says to a node that was lost is for nobody else."""
        name = f"{host}-{node_id[:6]}"
        self._num_links[name] += 1
        return name if self._num_links[name] == 1 else f"{name}.{self._num_links[name]}"

    def _close(self) -> None:
        import ray

        self.closing = True
        closers = [threading.Thread(target=link.close) for link in list(self._links.values())]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(8)
        ray.shutdown()


def _free() -> dict[str, dict[str, Any]]:
    """Node -> what of it nobody has reserved. Ray has no public function for it."""
    from ray._private.state import available_resources_per_node

    return dict(available_resources_per_node())


def _refusal(address: str, error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return f"The Ray cluster at {address} has other versions: {text[:400]}"
    return f"The Ray cluster at {address} cannot be used ({type(error).__name__}: {text[:300]})."
