"""The actor on a node: holds what is reserved there, runs a process for each job, reports.

Ray calls it in threads of its own; one thread of ours drives the processes. Calls may come twice.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe, connection
from pathlib import Path

from pipelines.data.prepared import PreparedData, unfinished_folder
from pipelines.runtime.compiled_programs import compiled_variables
from pipelines.runtime.compute import choose_backend
from sweeps.cluster.node_files import (
    LOG_FILE,
    UNFINISHED,
    DataCache,
    changed_files,
    located,
    store_sources,
    without_rays_modules,
)
from sweeps.cluster.node_memory import NodeMemory
from sweeps.cluster.protocol import (
    PART_BYTES,
    ClusterOptions,
    HostEvent,
    Node,
    Places,
    watch_seconds,
)
from sweeps.executors.base import Event, Raised, Reported, Slot
from sweeps.executors.credentials import drop_credentials
from sweeps.executors.failures import kernel_memory_kills
from sweeps.executors.processes import ProcessExecutor
from sweeps.resources.machine import detect_machine

WAKE_SECONDS = 1.0
"""How often memory is looked at."""
FIRST_SECONDS = 120.0
"""In place of a lease before the first sign of life has arrived; no job runs before."""


@dataclass
class _Job:
    """A job that runs here.

    Attributes:
        known: its files as the driver has them.
        reported: the number of the event that it waits for an answer to; None where it does not.
        memory_kills: the machine's count when it was started.
    """

    life: int
    folder: Path
    memory_kills: int
    known: dict[str, tuple[int, int]] = field(default_factory=dict)
    reported: int | None = None


class Host:
    """Runs jobs on its node for one driver; it ends itself when nobody asks for it any more.

    Args:
        name: the node's.
        num_cores, num_gpus: what is reserved.
    """

    def __init__(self, options: ClusterOptions, name: str, num_cores: int, num_gpus: int) -> None:
        _forget_ray()
        self._options = options
        self._name, self._num_cores, self._num_gpus = name, num_cores, num_gpus
        self._node: Node | None = None
        self._jobs: dict[str, _Job] = {}
        self._confirmed = time.monotonic() + FIRST_SECONDS - options.lease_seconds
        threading.Thread(target=self._watch_lease, daemon=True, name="lease").start()

    # What the bridge calls.

    def open(self) -> Node:
        """Makes ready for jobs; returns what is here. What fails here is told as it is by Ray."""
        if self._node is None:
            self._open()
            machine = detect_machine(self._options.backend)
            gpus = machine.gpus if self._num_gpus else ()
            machine = replace(machine, num_cores=self._num_cores, gpus=gpus)
            self._node = Node(self._name, machine)
        return self._node

    def _open(self) -> None:
        options = self._options
        cache = Path(options.cache).expanduser().absolute()
        self._files = contextlib.ExitStack()
        self._folder = self._files.enter_context(unfinished_folder(cache / "jobs"))
        self._sources = cache / "sources"
        self._data = DataCache(cache / "data")
        choose_backend(options.backend)
        self._executor = ProcessExecutor(
            options.preload, self._folder / "server.log",
            environment=compiled_variables(cache / "compiled", options.backend),
        )  # fmt: skip
        self._memory = NodeMemory(options.memory_limit)
        self._last_life: dict[str, int] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._ring = Pipe(duplex=False)
        self._number = 0
        self._unacknowledged: list[tuple[int, HostEvent]] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="jobs")
        self._thread.start()

    def find_data(self, data: PreparedData, digests: Mapping[str, str]) -> str:
        """The folder in which the very data are; empty where they have to be sent."""
        return self._data.find(data, digests, ours=self._options.sees_our_files)

    def begin_data(self) -> None:
        """Begins a transfer of data."""
        self._data.begin()

    def put_data(self, name: str, offset: int, content: bytes) -> None:
        """A chunk of a file."""
        self._data.put(name, offset, content)

    def end_data(self, data: PreparedData, digests: Mapping[str, str]) -> str:
        """Ends a transfer; returns the folder."""
        return self._data.end(data, digests)

    def put_sources(self, digest: str, files: Mapping[str, bytes]) -> str:
        """Copies of a space's sources; returns their folder."""
        return store_sources(self._sources, digest, files)

    def put_part(self, job_id: str, life: int, name: str, offset: int, content: bytes) -> None:
        """A part of a large file that a job begins with; it may come twice, and too late."""
        if self._last_life.get(job_id, 0) >= life:
            return
        path = self._parts(job_id, life) / name
        path.parent.mkdir(exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(content)

    def start(
        self, job_id: str, life: int, payload: bytes, places: Places, files: Mapping[str, bytes]
    ) -> None:
        """Starts a job that begins with these files, and with those that came in parts."""
        self._command(lambda: self._start(job_id, life, payload, places, files))

    def answer(self, job_id: str, life: int, number: int, answer: object) -> None:
        """The answer to the report of that number."""
        self._command(lambda: self._answer(job_id, life, number, answer))

    def stop(self, job_id: str, life: int) -> None:
        """Ends a job at once."""
        self._command(lambda: self._stop(job_id, life))

    def events(self, acknowledged: int, timeout_seconds: float) -> list[tuple[int, HostEvent]]:
        """The events above a number; waits for the first one."""
        with self._changed:
            self._unacknowledged = [e for e in self._unacknowledged if e[0] > acknowledged]
            if not self._unacknowledged:
                self._changed.wait(timeout_seconds)
            return [(number, event.light) for number, event in self._unacknowledged]

    def read(self, number: int, name: str, offset: int) -> bytes:
        """A part of a large file of an event that is not acknowledged."""
        with self._changed:
            event = next(event for known, event in self._unacknowledged if known == number)
        return event.files[name][offset : offset + PART_BYTES]

    def pulse(self, confirmed: float) -> float:
        """A sign of life, which keeps the lease; returns the time, of a clock of this node's own.

        Args:
            confirmed: the latest time that has arrived, 0 for none. What counts is not that the
                bridge is heard here, but that it has heard this node: else it gives the node up.
        """
        if confirmed:
            self._confirmed = confirmed
        return time.monotonic()

    def close(self) -> None:
        """Ends all jobs, and removes their files."""
        self._closing.set()
        self._ring.send(None)
        self._thread.join(10)
        self._data.close()
        self._files.close()

    # The thread that drives the processes.

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        self._ring.send(None)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                connection.wait([self._bell, *self._executor.channels], WAKE_SECONDS)
                while self._bell.poll():
                    self._bell.recv()
                while not self._commands.empty():
                    self._commands.get()()
                for event in self._executor.events(0) if self._jobs else ():
                    self._tell(event)
                self._spare_memory()
        except BaseException:  # Without this thread the node is of no use: the bridge will see.
            traceback.print_exc()
            self._end(1)
        self._executor.close()

    def _start(
        self, job_id: str, life: int, payload: bytes, places: Places, files: Mapping[str, bytes]
    ) -> None:
        if self._last_life.get(job_id, 0) >= life:
            return  # The same call once more.
        self._last_life[job_id] = life
        if job_id in self._jobs:
            self._stop(job_id, self._jobs[job_id].life)
        folder = self._folder / f"{job_id}-{life}"
        job = _Job(life, folder, kernel_memory_kills())
        try:
            parts = self._parts(job_id, life)
            parts.mkdir(exist_ok=True)
            for earlier in self._folder.glob(f"{job_id}-*{UNFINISHED}"):
                if earlier != parts:  # Of a start that came to nothing.
                    shutil.rmtree(earlier, ignore_errors=True)
            parts.rename(folder)
            for name, content in files.items():
                (folder / name).write_bytes(content)
            changed_files(folder, job.known)
            function, argument, slot = pickle.loads(payload)  # noqa: S301
            argument = located(argument, str(folder), places)
            assert isinstance(slot, Slot)
            here = replace(slot, node="")
            self._executor.start(job_id, function, argument, here, str(folder / LOG_FILE))
        except Exception as error:  # Whatever the driver sent that this node cannot use.
            text = "".join(traceback.format_exception(error))
            self._jobs[job_id] = job
            self._tell(Raised(job_id, type(error).__name__, str(error)[:500], text))
            return
        self._jobs[job_id] = job

    def _parts(self, job_id: str, life: int) -> Path:
        """Where the files of a job wait until it starts."""
        return self._folder / f"{job_id}-{life}{UNFINISHED}"

    def _answer(self, job_id: str, life: int, number: int, answer: object) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.life == life and job.reported == number:
            job.reported = None
            self._executor.answer(job_id, answer)

    def _stop(self, job_id: str, life: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.life == life:
            self._executor.stop(job_id)
            self._forget(job_id)

    def _tell(self, event: Event) -> None:
        """Has the bridge told of an event, with the files that belong to it."""
        job = self._jobs[event.job_id]
        number = self._number = self._number + 1
        log = b""
        if isinstance(event, Reported):
            job.reported = number
        else:
            with contextlib.suppress(OSError):
                log = (job.folder / LOG_FILE).read_bytes()
        if isinstance(event, Raised):
            short = kernel_memory_kills() > job.memory_kills or self._memory.ended(event.job_id)
            event = replace(event, memory_ran_out=short)
        files = changed_files(job.folder, job.known)
        if not isinstance(event, Reported):
            self._forget(event.job_id)
        with self._changed:
            self._unacknowledged.append((number, HostEvent(job.life, event, files, log)))
            self._changed.notify_all()

    def _forget(self, job_id: str) -> None:
        shutil.rmtree(self._jobs.pop(job_id).folder, ignore_errors=True)

    def _spare_memory(self) -> None:
        """Ends the largest job where memory runs short, before Ray ends all that is here."""
        running = {job_id: self._executor.process_id(job_id) for job_id in self._jobs}
        process_id = self._memory.largest(running)
        if process_id is not None:
            with contextlib.suppress(OSError):
                os.kill(process_id, signal.SIGKILL)

    # The lease.

    def _watch_lease(self) -> None:
        lease = self._options.lease_seconds
        while time.monotonic() - self._confirmed < lease:
            time.sleep(watch_seconds(lease))
        print(f"the driver has heard nothing for {lease:g} s: all jobs end", flush=True)
        self._end(1)

    def _end(self, status: int) -> None:
        """Ends this process and its jobs at once."""
        for job_id in list(self._jobs):
            process_id = self._executor.process_id(job_id)
            if process_id is not None:
                with contextlib.suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
        os._exit(status)


def _forget_ray() -> None:
    """What Ray gives its workers, and the processes of jobs must not inherit.

    It sets the threads of libraries to the number of cores that are reserved.
    """
    os.environ.pop("OMP_NUM_THREADS", None)
    without_rays_modules()
    drop_credentials()
