"""What a trial costs beside its training: wall and CPU seconds over those of a bare loop.

Every side trains the same model on the same images, with one learning rate a trial, as its own
documentation says (the programs are in `benchmarks/peers`). It runs twice, with one trial and with
more: the difference is what each further trial takes, without imports and without what is made
once. A repetition runs all sides, and is one pair of each side and the bare loop: the table has the
means, and of their differences the t interval (95 %), too.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peer_parts.images import in_parts
from sweeps.finalists.estimates import estimate

PROGRAMS = Path(__file__).parents[1] / "peers"
BARE = "bare loop"
DEFAULT_TRIALS, FEWER = 4, 1
OPTIONS = ("epochs",)
NUM_TRAINED, NUM_VALIDATED, NUM_TESTED = 10_000, 2_000, 100
"""Images of MNIST; the parts are given, so that no side makes its own."""
PAIRED = True
DATA_VARIABLE = "SWEEPS_DATA_DIR"
PR_SET_CHILD_SUBREAPER = 36
"""Linux' prctl: processes whose parents have ended become ours, so that their seconds count."""
_OURS = ("run", "--space", f"{PROGRAMS / 'small_cnn.py'}:build", "--sampler", "random",
         "--pruner", "none", "--timeout", "none", "--name", "cnn")  # fmt: skip
SIDES = {
    BARE: "bare_loop.py",
    "ours": "",
    "Optuna, MLflow": "optuna_mlflow.py",
    "Keras Tuner, MLflow": "keras_tuner_mlflow.py",
}


def measured(side: str, num_trials: int, *, epochs: int) -> dict[str, Any]:
    """One side, in the present folder: seconds of a further trial, and of the first one.

    Raises:
        SystemExit: There is no MNIST file, there are too few trials, or the side failed.
    """
    if num_trials <= FEWER:
        raise SystemExit(f"--trials must be at least {FEWER + 1}. Received: {num_trials}.")
    made = _data()
    few, many = (_seconds(side, made, num, epochs) for num in (FEWER, num_trials))
    return {
        "a_trial": [(b - a) / (num_trials - FEWER) for a, b in zip(few, many, strict=True)],
        "first": list(few),
    }


def _data() -> Path:
    """A part of MNIST; made where there is none in the data folder."""
    folder, made = os.environ.get(DATA_VARIABLE), Path("images.npz").absolute()
    if folder is None or not (Path(folder) / "mnist.npz").exists():
        raise SystemExit(f"Set {DATA_VARIABLE} to a folder with mnist.npz.")
    with np.load(Path(folder) / "mnist.npz") as file:
        x, y = file["x_train"], file["y_train"]
    np.savez(made, **in_parts(x, y, (NUM_TRAINED, NUM_VALIDATED, NUM_TESTED)))
    return made


def _seconds(side: str, data: Path, num_trials: int, epochs: int) -> tuple[float, float]:
    """Wall and CPU seconds of a side and all its processes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(f"trials-{num_trials}")
    folder.mkdir()
    if side == "ours":
        program = str(Path(sys.executable).with_name("keras-sweeps"))
        command = [program, *_OURS, "--dataset", str(data), "--trials", str(num_trials),
                   "--epochs", str(epochs)]  # fmt: skip
    else:
        command = [sys.executable, str(PROGRAMS / SIDES[side]), str(data), str(num_trials),
                   str(epochs), "sqlite:///mlflow.db"]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
    _wait_for_the_rest()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _wait_for_the_rest() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def combined(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of several repetitions side by side."""
    return {key: [line[key] for line in lines] for key in ("a_trial", "first")}


def table(found: Mapping[str, Mapping[str, Any]], **_: Any) -> list[str]:
    """A Markdown table: seconds of a further trial, over the bare loop's, and of the first one."""
    lines = [
        "| side | s a trial (CPU) | over the bare loop: wall | CPU | s of the first (CPU) |",
        "| --- | --- | --- | --- | --- |",
    ]
    bare = found[BARE]["a_trial"] if BARE in found else []
    for side, one in found.items():
        pairs = [] if side == BARE or not bare else list(zip(one["a_trial"], bare, strict=True))
        over = [_difference([a[k] - b[k] for a, b in pairs]) for k in range(2)]
        (wall, cpu), first = np.mean(one["a_trial"], axis=0), np.mean(one["first"], axis=0)
        lines.append(
            f"| {side} | {wall:.2f} ({cpu:.2f}) | {over[0]} | {over[1]} "
            f"| {first[0]:.1f} ({first[1]:.1f}) |"
        )
    return lines


def _difference(values: Sequence[float]) -> str:
    """A mean with its interval, where there is more than one value."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:+.2f}"
    found = estimate(values)
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
