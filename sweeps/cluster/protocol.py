"""What driver, bridge and nodes tell each other. Everything is numbered, and may come twice.

Each start of a job has a number, its `life`: what an earlier life says is dropped. Events of a node
are numbered, and sent again until they are acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipelines.data.prepared import PreparedData
from search_spaces.user_spaces.reference import Sources
from sweeps.executors.base import Event
from sweeps.formatting import count
from sweeps.resources.machine import Machine

POLL_SECONDS = 10.0
"""How long a node holds back the answer to "what has happened?" when nothing has."""
LEASE_SECONDS = 20.0
"""A node whose answers nobody has received for so long ends its jobs: the driver may be cut off
from it, and starts them elsewhere. Ray alone let such a job live for 50 s beside its successor."""
LOST_SECONDS = 30.0
"""A node that has not answered for so long is lost: later than its lease ends."""
PART_BYTES = 4 * 2**20
"""A larger file of a job travels in parts: what Ray has not moved after 10 s it sends once more."""
PULSES = 5
"""How often a node is asked for a sign of life in the time of a lease."""


def watch_seconds(lease_seconds: float) -> float:
    """How often a node looks whether its lease has ended."""
    return min(1.0, lease_seconds / 4)


def longest_lease(lease_seconds: float) -> float:
    """Seconds after a node was last heard in which the last of its jobs ends."""
    return lease_seconds + 2 * watch_seconds(lease_seconds)


@dataclass(frozen=True)
class ClusterOptions:
    """How a cluster is used.

    Attributes:
        address: HOST:PORT of its head.
        cache: the folder of each node for what it keeps; `~` is the home of the node's user.
        preload: module that a node's server of workers imports once.
        backend: what Keras has on the nodes.
        insecure: whether a cluster without authentication is taken beyond this machine.
        uses_gpus: whether GPUs of nodes are used, where they have any.
        sees_our_files: whether a node may find the driver's folders under their own paths.
        lease_seconds, lost_seconds: see `LEASE_SECONDS` and `LOST_SECONDS`.
        memory_limit: the share of a node's memory in use at which its largest job is ended.
    """

    address: str
    cache: str = "~/.cache/keras-sweeps"
    preload: str = "sweeps.workers.preload"
    backend: str = "tensorflow"
    insecure: bool = False
    uses_gpus: bool = True
    sees_our_files: bool = True
    lease_seconds: float = LEASE_SECONDS
    lost_seconds: float = LOST_SECONDS
    memory_limit: float = 0.9


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that takes jobs.

    Attributes:
        name: its host's name and the begin of Ray's number for it.
        machine: what of it is reserved for us.
        data: the fingerprint of the data that it has at hand; empty for none.
    """

    name: str
    machine: Machine
    data: str = ""

    @property
    def text(self) -> str:
        """What it has, for people."""
        machine = self.machine
        gpus = f", {count(len(machine.gpus), 'GPU')}" if machine.gpus else ""
        memory = machine.memory_bytes / 2**30
        return f"{count(machine.num_cores, 'core')}{gpus}, {memory:.0f} GiB"


# From the driver to the bridge.


@dataclass(frozen=True)
class UseData:
    """Every node is to have these data before it takes jobs."""

    data: PreparedData


@dataclass(frozen=True)
class StartJob:
    """Starts a job on a node.

    Attributes:
        payload: the job, its argument and its slot, pickled.
        folder: whose files go to the node before, and come back; empty for none.
        log_path: takes what the job printed, when it has ended.
        data: what the job reads; None for nothing.
        space, sources: a user's space, and its files, which go to the node.
    """

    node: str
    job_id: str
    life: int
    payload: bytes
    folder: str = ""
    log_path: str = ""
    data: PreparedData | None = None
    space: str = ""
    sources: Sources = ()


@dataclass(frozen=True)
class AnswerJob:
    """The answer to a job's latest report."""

    node: str
    job_id: str
    life: int
    answer: object


@dataclass(frozen=True)
class StopJob:
    """Ends a job at once."""

    node: str
    job_id: str
    life: int


@dataclass(frozen=True)
class Close:
    """Ends everything."""


Command = UseData | StartJob | AnswerJob | StopJob | Close

# From the bridge to the driver.


@dataclass(frozen=True)
class Connected:
    """The bridge has reached the cluster."""


@dataclass(frozen=True)
class Refused:
    """The cluster cannot be used; one line for people."""

    reason: str


@dataclass(frozen=True)
class NodeFound:
    """A node is being opened: it will be ready, refused or lost."""

    name: str


@dataclass(frozen=True)
class NodeReady:
    """A node takes jobs from now on; told again when it has other data."""

    node: Node


@dataclass(frozen=True)
class NodeRefused:
    """A node cannot be used; one line for people."""

    name: str
    reason: str


@dataclass(frozen=True)
class NodeLeaving:
    """A node takes no more jobs; it will be lost, once what runs there must have ended."""

    name: str


@dataclass(frozen=True)
class NodeLost:
    """A node is gone, with all that ran there; one line for people."""

    name: str
    reason: str


@dataclass(frozen=True)
class JobEvent:
    """What a job of some life did."""

    node: str
    life: int
    event: Event


Message = (
    Connected | Refused | NodeFound | NodeReady | NodeRefused | NodeLeaving | NodeLost | JobEvent
)

# Between the bridge and a node.


@dataclass(frozen=True)
class Places:
    """Where on a node is what a task names.

    Attributes:
        data: the folder of the prepared data; empty where there are none.
        sources: the folder with the copies of the space's sources; empty for none.
        base: the folder of the driver's that `sources` is a copy of.
    """

    data: str = ""
    sources: str = ""
    base: str = ""


@dataclass(frozen=True)
class HostEvent:
    """An event with the files that belong to it.

    Attributes:
        files: name -> content, of the files that changed since the last time.
        large: name -> size of those that are read in parts.
        log: what the job printed, once it has ended.
    """

    life: int
    event: Event
    files: Mapping[str, bytes] = field(default_factory=dict)
    log: bytes = b""
    large: Mapping[str, int] = field(default_factory=dict)

    @property
    def light(self) -> HostEvent:
        """The same without its large files."""
        large = {name: len(c) for name, c in self.files.items() if len(c) > PART_BYTES}
        files = {name: c for name, c in self.files.items() if name not in large}
        return replace(self, files=files, large=large)
