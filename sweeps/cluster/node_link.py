"""One node as the bridge sees it: its actor, what runs there, and the thread that listens to it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.prepared import PreparedData
from search_spaces.user_spaces.reference import sources_digest
from sweeps.cluster import requirements
from sweeps.cluster.driver_files import files_of, write_back
from sweeps.cluster.host import Host
from sweeps.cluster.node_files import CHUNK_BYTES, sources_base
from sweeps.cluster.protocol import (
    PART_BYTES,
    POLL_SECONDS,
    PULSES,
    AnswerJob,
    Command,
    HostEvent,
    JobEvent,
    Node,
    NodeLeaving,
    NodeLost,
    NodeReady,
    NodeRefused,
    Places,
    StartJob,
    StopJob,
    UseData,
    longest_lease,
)
from sweeps.executors.base import Raised, Reported

if TYPE_CHECKING:
    from sweeps.cluster.bridge import Bridge

CALL_SECONDS = 60.0
SEND_SECONDS = 600.0
"""What a call may take: one that asks, and one that carries data or reads them through."""
OPEN_CHUNKS = 4
"""So many chunks of data are under way at once."""
WAKE_SECONDS = 3.0
"""How often who waits for a node looks whether it is lost."""
GROUPS = {"commands": 1, "listening": 1, "pulse": 1}
"""Threads of the actor: calls of one group keep their order."""


class RefusedError(Exception):
    """The node cannot be used; one line."""


class NodeLink:
    """A node from its actor's start to its loss; `live` is a thread's.

    Args:
        node_id: Ray's number for it.
        name: what it is called for as long as this link lives.
        num_cores, num_gpus: what is free there, and is reserved whole.
    """

    def __init__(self, bridge: Bridge, node_id: str, name: str, num_cores: int, num_gpus: int):
        self._bridge, self._node_id, self.name = bridge, node_id, name
        self._num_cores, self._num_gpus = num_cores, num_gpus
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._actor: Any = None
        self._node: Node | None = None
        self._lock = threading.Lock()
        self._jobs: dict[str, StartJob] = {}
        self._reports: dict[str, int] = {}
        self._folders: dict[str, str] = {}
        self._gone = threading.Event()
        self._heard, self._has_lease = time.monotonic(), False

    def put(self, command: Command) -> None:
        """Takes a command of the driver's; commands keep their order."""
        with self._lock:
            if isinstance(command, StartJob):
                self._jobs[command.job_id] = command
            elif isinstance(command, StopJob):
                self._jobs.pop(command.job_id, None)
        self._commands.put(command)

    def live(self) -> None:
        """Opens the node, and listens until it is lost or the bridge closes."""
        try:
            self._open()
            threading.Thread(target=self._carry_out, daemon=True, name=f"to {self.name}").start()
            self._listen()
        except RefusedError as error:
            self._bridge.remove(self)
            self._bridge.say(NodeRefused(self.name, str(error)))
            self._kill()
        except Exception as error:  # Whatever Ray raises, the node is of no use any more.
            self._lost(error)

    def close(self) -> None:
        """Ends what runs there."""
        self._commands.put(None)
        with contextlib.suppress(Exception):
            self._get(self._call("close"), 5)
        self._kill()

    # Opening.

    def _open(self) -> None:
        import ray
        from ray.exceptions import RayTaskError

        self._check_requirements()
        actor_class = ray.remote(concurrency_groups=GROUPS)(Host)
        self._actor = actor_class.options(
            num_cpus=self._num_cores, num_gpus=self._num_gpus, max_restarts=0, max_task_retries=3,
            scheduling_strategy=self._here(),
        ).remote(self._bridge.options, self.name, self._num_cores, self._num_gpus)  # fmt: skip
        try:
            self._node = self._get(self._call("open"), CALL_SECONDS)
            self._begin_lease()
            self._bridge.add(self)  # First: data that are named from now on come as a command.
            self._use(self._bridge.data)
        except RayTaskError as error:
            raise RefusedError(_cause(error)) from error

    def _check_requirements(self) -> None:
        import ray
        import ray.cloudpickle
        from ray.exceptions import RayTaskError

        ray.cloudpickle.register_pickle_by_value(requirements)
        names = requirements.LIBRARIES[self._bridge.options.backend], requirements.OURS
        look = ray.remote(num_cpus=0, max_retries=0)(requirements.found_here)
        asked = look.options(scheduling_strategy=self._here()).remote(*names)
        try:
            there = self._get(asked, CALL_SECONDS)
        except RayTaskError as error:
            raise RefusedError(_cause(error)) from error
        differing = requirements.differences(there, requirements.found_here(*names))
        if differing:
            raise RefusedError(differing)

    def _here(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self._node_id, soft=False)

    # Calls.

    def _call(self, method: str, *arguments: Any) -> Any:
        group = {"events": "listening", "read": "listening", "pulse": "pulse"}.get(
            method, "commands"
        )
        return getattr(self._actor, method).options(concurrency_group=group).remote(*arguments)

    def _ensure(self, method: str, *arguments: Any) -> None:
        """Has the node do what may be said twice, as often as it takes while it is not lost."""
        from ray.exceptions import ActorUnavailableError, GetTimeoutError

        while not (self._gone.is_set() or self._bridge.closing):
            try:
                self._get(self._call(method, *arguments), CALL_SECONDS)
                return
            except (ActorUnavailableError, GetTimeoutError):
                time.sleep(0.5)

    @staticmethod
    def _get(reference: Any, seconds: float) -> Any:
        import ray

        return ray.get(reference, timeout=seconds)

    def _carry_out(self) -> None:
        """Carries the driver's commands out, in their order; a thread's."""
        while (command := self._commands.get()) is not None:
            try:
                self._try(command)
            except Exception as error:  # A lost node is noticed by who listens.
                if isinstance(command, StartJob):
                    self._fail(command, error)
                elif isinstance(command, UseData):
                    self._bridge.say(NodeRefused(self.name, _cause(error)))

    def _try(self, command: Command) -> None:
        """Carries a command out, again and again while the node is out of reach and not lost."""
        from ray.exceptions import ActorUnavailableError

        while not (self._gone.is_set() or self._bridge.closing):
            try:
                self._do(command)
                return
            except ActorUnavailableError:
                time.sleep(0.5)

    def _do(self, command: Command) -> None:
        if isinstance(command, UseData):
            self._use(command.data)
        elif isinstance(command, StartJob):
            self._start(command)
        elif isinstance(command, AnswerJob):
            with self._lock:
                number = self._reports.pop(command.job_id, 0)
            self._ensure("answer", command.job_id, command.life, number, command.answer)
        elif isinstance(command, StopJob):
            self._ensure("stop", command.job_id, command.life)

    def _start(self, job: StartJob) -> None:
        places, files = Places(), {}
        if job.data is not None:
            places = Places(self._data_folder(job.data))
        if job.sources:
            places = self._with_sources(places, job)
        if job.folder:
            files = files_of(Path(job.folder))
        for name in [name for name, content in files.items() if len(content) > PART_BYTES]:
            content = files.pop(name)
            for offset in range(0, len(content), PART_BYTES):
                part = content[offset : offset + PART_BYTES]
                self._ensure("put_part", job.job_id, job.life, name, offset, part)
        self._ensure("start", job.job_id, job.life, job.payload, places, files)

    def _with_sources(self, places: Places, job: StartJob) -> Places:
        base = sources_base(job.space, job.sources)
        files = {
            str(Path(path).relative_to(base)): Path(path).read_bytes() for path, _ in job.sources
        }
        digest = sources_digest(job.sources)
        folder = self._get(self._call("put_sources", digest, files), SEND_SECONDS)
        return replace(places, sources=folder, base=base)

    def _fail(self, job: StartJob, error: Exception) -> None:
        """A job that cannot be started there ends, unless the node is gone, which ends it, too."""
        from ray.exceptions import RayActorError

        if isinstance(error, RayActorError):
            return
        cause = getattr(error, "cause", None) or error
        here = cause is error and isinstance(error, OSError)  # Its files cannot be read.
        event = Raised(job.job_id, type(cause).__name__, str(cause)[:500], "", here=here)
        with self._lock:
            if self._jobs.get(job.job_id) is not job:
                return
            del self._jobs[job.job_id]
        self._bridge.say(JobEvent(self.name, job.life, event))

    # Data.

    def _use(self, data: PreparedData | None) -> None:
        """Has the node hold the data that jobs will read; tells that it is ready."""
        if data is not None:
            self._data_folder(data)
        assert self._node is not None
        self._node = replace(self._node, data=data.fingerprint if data is not None else "")
        self._bridge.say(NodeReady(self._node))

    def _data_folder(self, data: PreparedData) -> str:
        """Where the node has the data; sends them if need be."""
        if data.fingerprint not in self._folders:
            digests = self._bridge.digests(data)
            folder = self._get(self._call("find_data", data, digests), SEND_SECONDS)
            self._folders[data.fingerprint] = folder or self._send(data, digests)
        return self._folders[data.fingerprint]

    def _send(self, data: PreparedData, digests: dict[str, str]) -> str:
        self._get(self._call("begin_data"), CALL_SECONDS)
        under_way: list[Any] = []
        for name in digests:
            with (Path(data.folder) / name).open("rb") as file:
                offset = 0
                while content := file.read(CHUNK_BYTES):
                    under_way.append(self._call("put_data", name, offset, content))
                    offset += len(content)
                    if len(under_way) > OPEN_CHUNKS:
                        self._get(under_way.pop(0), SEND_SECONDS)
        self._get(under_way, SEND_SECONDS)
        return str(self._get(self._call("end_data", data, digests), SEND_SECONDS))

    # Listening.

    def _begin_lease(self) -> None:
        """Before anything runs there: from now on the node ends its jobs when it is cut off."""
        confirmed = self._get(self._call("pulse", 0.0), CALL_SECONDS)
        self._get(self._call("pulse", confirmed), CALL_SECONDS)
        self._heard, self._has_lease = time.monotonic(), True
        threading.Thread(
            target=self._keep_lease, args=(confirmed,), daemon=True, name=f"pulse of {self.name}"
        ).start()

    def _keep_lease(self, confirmed: float) -> None:
        """Has the node show that it lives, and know that this was heard; a thread's.

        What carries files may take longer than a lease, so that is nothing to go by.
        """
        from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

        seconds = self._bridge.options.lease_seconds / PULSES
        while not (self._gone.is_set() or self._bridge.closing):
            try:
                confirmed = self._get(self._call("pulse", confirmed), self._lost_seconds)
                self._heard = time.monotonic()
            except (ActorUnavailableError, GetTimeoutError):
                pass  # Who listens gives it up in time.
            except RayActorError:
                return
            self._gone.wait(seconds)

    @property
    def _lost_seconds(self) -> float:
        return self._bridge.options.lost_seconds

    def _listen(self) -> None:
        from ray.exceptions import ActorUnavailableError, GetTimeoutError

        acknowledged, asked, since = 0, None, 0.0
        while not self._bridge.closing:
            if asked is None:
                asked, since = self._call("events", acknowledged, POLL_SECONDS), time.monotonic()
            try:
                for number, event in self._awaited(asked):
                    if number > acknowledged:
                        self._tell(number, self._whole(number, event))
                        acknowledged = number
            except (ActorUnavailableError, GetTimeoutError) as error:  # No death.
                if time.monotonic() - self._heard > self._lost_seconds:
                    raise
                waited = time.monotonic() - since
                if isinstance(error, ActorUnavailableError) or waited > SEND_SECONDS:
                    asked = None
                    time.sleep(0.5)
                continue
            asked = None

    def _awaited(self, reference: Any) -> Any:
        """The value of a call, for which it waits a moment.

        After a `get` that ends without it, what has arrived of the value is sent once more; a
        `wait` goes on fetching.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        ready, _ = ray.wait([reference], timeout=WAKE_SECONDS)
        if not ready:
            raise GetTimeoutError(f"nothing within {WAKE_SECONDS:g} seconds")
        return self._get(reference, CALL_SECONDS)

    def _whole(self, number: int, event: HostEvent) -> HostEvent:
        """An event with its large files, too, where anybody still wants them."""
        files = dict(event.files)
        with self._lock:
            job = self._jobs.get(event.event.job_id)
        if job is None or job.life != event.life:
            return event
        for name, size in event.large.items():
            files[name] = b"".join(
                self._get(self._call("read", number, name, offset), self._lost_seconds)
                for offset in range(0, size, PART_BYTES)
            )
        return replace(event, files=files, large={})

    def _tell(self, number: int, found: HostEvent) -> None:
        """Writes the files of an event, then tells the driver: what is reported is never lost."""
        event = found.event
        with self._lock:
            job = self._jobs.get(event.job_id)
            if job is None or job.life != found.life:
                return  # Of an earlier life.
            try:
                write_back(job, found)
            except OSError as error:
                if isinstance(event, Reported):
                    self._call("stop", job.job_id, job.life)
                event = Raised(job.job_id, type(error).__name__, str(error), "", here=True)
            if isinstance(event, Reported):
                self._reports[job.job_id] = number
            else:
                del self._jobs[job.job_id]
        self._bridge.say(JobEvent(self.name, found.life, event))

    def _lost(self, error: Exception) -> None:
        self._gone.set()
        self._bridge.remove(self)
        self._commands.put(None)
        outlasts = self._has_lease and not _has_ended(error)
        if outlasts:
            self._bridge.say(NodeLeaving(self.name))
        self._kill()
        if outlasts:
            self._outlast_lease()
        self._bridge.forget(self._node_id)
        self._bridge.say(NodeLost(self.name, _loss(error)))

    def _outlast_lease(self) -> None:
        """Waits until the node's jobs have ended by themselves, where they still live.

        The head gives a node up that it does not reach, in seconds where a firewall refuses it.
        """
        ended = self._heard + longest_lease(self._bridge.options.lease_seconds)
        while time.monotonic() < ended and not self._bridge.closing:
            time.sleep(0.1)

    def _kill(self) -> None:
        import ray

        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor)


def _cause(error: Exception) -> str:
    """What was raised on the node, in one line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def _has_ended(error: Exception) -> bool:
    """Whether nothing runs on a node any more: it was shut down, or its own raylet saw the end.

    A node that the head of the cluster has given up may only be out of its reach.
    """
    from ray.exceptions import ActorUnavailableError, RayActorError

    if not isinstance(error, RayActorError) or isinstance(error, ActorUnavailableError):
        return False
    return "node has died" not in str(error) or _is_shut_down(str(error))


def _is_shut_down(text: str) -> bool:
    return any(words in text for words in ("SIGTERM", "terminated expectedly", "preempted"))


def _loss(error: Exception) -> str:
    """How a node was lost, in a few words."""
    from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

    if isinstance(error, ActorUnavailableError | GetTimeoutError):
        return "it does not answer"
    if isinstance(error, RayActorError):
        return "it was shut down" if _is_shut_down(str(error)) else "it has ended"
    return _cause(error)
