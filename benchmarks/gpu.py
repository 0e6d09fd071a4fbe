"""Whether all of it holds on this machine's GPU, in ten minutes and one command.

    python benchmarks/gpu.py --backend torch
    python benchmarks/gpu.py --only packing --minutes 5
    python benchmarks/gpu.py --stand-in

Eight parts, the most important figures first: device, plain, packing, memory, spare, sweep, kill,
auto. Each is a process group of its own (`gpu_parts/`) with a share of the minutes, and is ended
with that; what it had found by then counts, and the others go on. With `--only` one part has all of
the minutes.

It prints a table and writes `gpu.json`, and `gpu.md`, a section for `docs/gpu.md`, into a new
folder; logs of a part that failed are beside them. Exit status: 0 where all that the project
promises holds; 1 where something does not, or a part did not come to its end, with its name; 2 for
options that cannot be; 130 after Ctrl-C.

`--stand-in` does all of it in small on cores, three parts at once, and measures nothing of a GPU.
MNIST is taken from SWEEPS_DATA_DIR or Keras' cache; nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpu_parts import results
from gpu_parts.findings import Task, read, work
from gpu_parts.results import Ended, Scene

if TYPE_CHECKING:
    import argparse

    from sweeps.resources.gpus import Gpu

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "support"
DO_PART = "--do-part"
"""The first argument of a part's own process; the second is its task."""
MINUTES = 9.0
POLL_SECONDS = 0.05
KEPT_LOG_BYTES = 200_000
CUDA_LIBRARIES = ("nvidia-cuda-runtime", "nvidia-cudnn", "nvidia-cublas", "jax-cuda")
"""What names of distributions begin with that bring CUDA."""
LIBRARIES = ("keras", "tensorflow", "torch", "jax", "jaxlib", "numpy", "optuna", "mlflow")


@dataclass(frozen=True)
class Part:
    """A part of the whole.

    Attributes:
        seconds: its share of nine minutes; of other minutes it has as large a share.
        package: where the module of its name is.
    """

    name: str
    title: str
    seconds: float
    package: str = "gpu_parts."


PARTS = (
    Part("device", "the GPU, its list and its meter", 10),
    Part("plain", "model.fit, and the same through the project", 50),
    Part("packing", "trials an hour with several on the GPU", 100),
    Part("memory", "what a process takes, and its limit", 60),
    Part("spare", "a warm process for the next trial", 25),
    Part("sweep", "the default sweep, against cores", 185),
    Part("kill", "kill -9, and what is left", 55),
    Part("auto", "precision and compilation", 55),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts, prints and writes what they found; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # This checkout, whatever is installed.
    sys.path.insert(0, str(ROOT))
    if given[:1] == [DO_PART]:
        status = work(Task(**json.loads(given[1])))
        sys.stdout.flush()
        os._exit(status)  # What is left of it ends with its group.
    from search_spaces.errors import InputError

    try:
        options = _parsed(given)
        gpus, output = _checked_gpus(options), _free_output(options.output)
        with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as folder:
            run = _Run(options, gpus, Path(folder))
            run.begin(output)
            return run.run(["gpu.py", *given])
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parsed(given: list[str]) -> argparse.Namespace:
    """The options; raises InputError for any that cannot be."""
    from pipelines.runtime.compute import check_backend
    from search_spaces.errors import InputError, unknown_name
    from sweeps.cli.parser import OneLineParser

    parser = OneLineParser("python benchmarks/gpu.py", (__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--backend", default="tensorflow", metavar="NAME", help="tensorflow (default), torch, jax")
    add("--minutes", default=str(MINUTES), help="what all parts may take (default: %(default)s)")
    add("--only", metavar="PART", help=f"one of {', '.join(part.name for part in PARTS)}")
    add("--output", metavar="FOLDER", help="for what is written (default: a new one)")
    add("--stand-in", action="store_true", help="all of it in small, on cores, without a GPU")
    options = parser.parse_args(given)
    names = [part.name for part in PARTS]
    if options.only is not None and options.only not in names:
        raise unknown_name("part", options.only, names)
    try:
        minutes = float(options.minutes)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise InputError(f"--minutes must be a number above 0. Received: {options.minutes}.")
    options.minutes = minutes
    check_backend(options.backend)
    return options


def _checked_gpus(options: argparse.Namespace) -> tuple[Gpu, ...]:
    """The GPUs that there are; raises InputError where one is needed and none can be used."""
    if options.stand_in:
        return ()
    from search_spaces.errors import InputError
    from sweeps.resources.gpus import GpuQueryError, NvidiaSmi, missing_cuda

    try:
        gpus = NvidiaSmi().gpus()
        problem = missing_cuda(options.backend) if gpus else "nvidia-smi lists none"
    except GpuQueryError as error:
        gpus, problem = (), str(error)
    if problem:
        raise InputError(
            f"No GPU can be used here: {problem}. Start it where there is an NVIDIA GPU, or try "
            "the script on cores: --stand-in."
        )
    return gpus


def _free_output(given: str | None) -> Path:
    """The folder for what is written; raises InputError where that would replace anything."""
    from search_spaces.errors import InputError

    folder = Path(given or f"gpu-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    if given is None and folder.exists():
        folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    there = [name for name in (results.JSON_FILE, results.MARKDOWN_FILE, results.LOGS)
             if (folder / name).exists()]  # fmt: skip
    if there:
        raise InputError(
            f"--output must not hold {there[0]}, which would be replaced. Received: {folder}. "
            "Name another folder, or leave --output out."
        )
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(
            f"--output must be a folder that can be written. Received: {folder}. Name another one."
        )
    return folder


class _Run:
    """One start of the command. Everything that parts write is in a folder that is removed."""

    def __init__(self, options: argparse.Namespace, gpus: tuple[Gpu, ...], folder: Path) -> None:
        self._options, self._gpus, self._folder = options, gpus, folder
        self._output, self._dataset, self._images = Path(), "", ""
        self._stop = threading.Event()

    def begin(self, output: Path) -> None:
        """Prepares the images, and makes the folder for what is written.

        Raises:
            InputError: One of them cannot be had.
        """
        from gpu_parts.images import prepare_images

        from search_spaces.errors import InputError

        data = self._folder / "data"
        data.mkdir()
        stand_in = self._options.stand_in
        self._dataset, self._images = prepare_images(self._folder, data, stand_in=stand_in)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--output must be a folder that can be made. Received: {output} "
                f"({error.strerror}). Name another one."
            ) from None
        self._output = output

    def run(self, command: list[str]) -> int:
        """Runs the parts; returns the exit status."""
        options = self._options
        parts = [part for part in PARTS if options.only in (None, part.name)]
        scene = _scene(options, self._gpus, self._images, command)
        print(results.table_head(scene), flush=True)
        ended: list[Ended] = []
        interrupted = False
        # In small nothing is measured, so several at once disturb nobody. Each waits for processes
        # now and then, so that two leave cores unused.
        with ThreadPoolExecutor(3 if options.stand_in else 1) as pool:
            waiting = [pool.submit(self._part, part) for part in parts]
            try:
                while waiting:
                    try:
                        found = waiting[0].result()
                    except KeyboardInterrupt:
                        interrupted = True
                        self._stop.set()
                        continue
                    del waiting[0]
                    if found is not None:
                        ended.append(found)
                        results.write(self._output, scene, ended)
                        print(results.table_rows(found), flush=True)
            finally:
                self._stop.set()  # The pool waits for its threads, and they for their parts.
        results.write(self._output, scene, ended)
        return self._end(ended, interrupted=interrupted)

    def _end(self, ended: list[Ended], *, interrupted: bool) -> int:
        """Says where everything is, and what does not hold; returns the exit status."""
        what = f"{results.STAND_IN}: no figure of a GPU. " if self._options.stand_in else ""
        print(f"\n{what}Written: {self._output / results.JSON_FILE}, {results.MARKDOWN_FILE}")
        if interrupted:
            print("interrupted", file=sys.stderr)
            return 130
        complaints = [line for one in ended for line in one.complaints]
        for line in complaints:
            print(f"error: {line}", file=sys.stderr)
        return 1 if complaints else 0

    def _part(self, part: Part) -> Ended | None:
        """Runs a part to its end or its limit; None where Ctrl-C came before."""
        if self._stop.is_set():
            return None
        folder = self._folder / part.name
        (folder / ".sweeps").mkdir(parents=True)
        # Prepared once for all parts.
        (folder / ".sweeps" / "data").symlink_to(self._folder / "data")
        (folder / "tmp").mkdir()
        limit, began = self._limit(part), time.monotonic()
        task = Task(
            part.name, part.package + part.name, self._options.backend, limit, time.time() + limit,
            self._options.only is not None, self._options.stand_in, self._dataset,
            self._gpus[0].index if self._gpus else "0", str(folder / "findings.jsonl"),
        )  # fmt: skip
        with (folder / "part.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, DO_PART, json.dumps(asdict(task))],
                cwd=folder, env=self._environment(folder), stdin=subprocess.PIPE, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
            in_time = self._waited(process, began + limit)
            # Also what a part has left behind that came to its end. The process is not waited for
            # before: until then no other group can have its number.
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            assert process.stdin is not None
            process.stdin.close()
        seconds = time.monotonic() - began
        findings, problem = read(Path(task.findings))
        if self._stop.is_set() and not in_time:
            problem = "interrupted"
        elif not in_time:
            problem = f"out of time after {limit:.0f} s"
        elif status and not problem:
            problem = f"ended with status {status}: {_last_line(folder / 'part.log')}"
        elif problem:
            problem = f"failed: {problem}"
        found = Ended(part.name, part.title, seconds, limit, tuple(findings), problem)
        if found.complaints:
            _keep_logs(folder, self._output / results.LOGS / part.name)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _limit(self, part: Part) -> float:
        """Seconds that a part may take: its share; all of them where it is alone or in small."""
        seconds = 60.0 * self._options.minutes
        if self._options.only is not None or self._options.stand_in:
            return seconds
        return float(seconds * part.seconds / sum(one.seconds for one in PARTS))

    def _waited(self, process: subprocess.Popen[bytes], until: float) -> bool:
        """Whether a process has ended, before the limit and before Ctrl-C."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while time.monotonic() < until and not self._stop.is_set():
            if os.waitid(os.P_PID, process.pid, flags) is not None:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _environment(self, folder: Path) -> dict[str, str]:
        """What a part inherits: this checkout, and nothing that would send records elsewhere."""
        hidden = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "SWEEPS_STORAGE")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        support = [SUPPORT, SUPPORT / "drivers"]
        paths = [str(ROOT), *map(str, support), kept.get("PYTHONPATH", "")]
        return {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **kept,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(folder / "tmp"),
        }


def _scene(
    options: argparse.Namespace, gpus: tuple[Gpu, ...], images: str, command: list[str]
) -> Scene:
    from sweeps.resources.machine import detect_machine

    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if gpus:
        for found in importlib.metadata.distributions():
            if (found.name or "").startswith(CUDA_LIBRARIES):
                versions[found.name] = found.version
    cards = sorted({gpu.name for gpu in gpus})
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return Scene(
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        command=shlex.join(["python", f"benchmarks/{command[0]}", *command[1:]]),
        card=f"{len(gpus)} x {', '.join(cards)}" if gpus else results.STAND_IN,
        driver=driver if gpus else "none",
        backend=options.backend,
        versions=versions,
        num_cores=detect_machine(options.backend).num_cores,
        commit=_said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        images=images,
        stand_in=options.stand_in,
        nvidia_smi=_lines("nvidia-smi") if gpus else (),
    )


def _said(*command: str) -> str:
    """The first line of what a program prints; `unknown` where it does not."""
    return (_lines(*command) or ("unknown",))[0]


def _lines(*command: str) -> tuple[str, ...]:
    """What a program prints; nothing where it cannot be run, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(done.stdout.strip().splitlines())


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"


def _keep_logs(folder: Path, target: Path) -> None:
    """Copies the ends of all logs below a folder, each under the name of its path."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*.log")):
        name = "-".join(path.relative_to(folder).parts).lstrip(".")
        (target / name).write_bytes(path.read_bytes()[-KEPT_LOG_BYTES:])


def _interrupt(number: int, frame: FrameType | None) -> Any:
    """A command that is to end ends its parts first, which no signal of a terminal reaches."""
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    for _name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(_name) != signal.SIG_IGN:
            signal.signal(_name, _interrupt)
    sys.exit(main())
