"""Part 4's sweep whose trials do not fit beside each other: halved, and gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gpu_parts import hungry_space, trials
from gpu_parts.findings import Finding, Task
from sweeps.executors.failures import FailureKind
from sweeps.resources.gpus import Gpu

SPACE = Path(__file__).with_name("hungry_space.py")
NAME = "crowded"
SHARING, NUM_TRIALS, NUM_EPOCHS = 2, 2, 3
TAKEN = 0.6
"""Of all memory, for each trial: more than half of it, and less than one process may have."""
BEGUN = [0, 1, 1, 2]
"""The epochs that begin in a trial whose memory ran out in the second, counted from 0."""
MIB = 2**20


def find(task: Task, gpu: Gpu) -> Iterator[Finding]:
    """Two trials at once, each of which needs more than half of the GPU in its second epoch."""
    assert gpu.memory_bytes is not None
    file = Path("hungry", "space.py")
    file.parent.mkdir()
    shutil.copy(SPACE, file)
    end = trials.sweep(task, NAME, [
        "--space", f"{file}:Hungry", "--no-baselines", "--sampler", "random", "--pruner", "none",
        "--fix", f"mebibytes={int(TAKEN * gpu.memory_bytes / MIB)}", "--gpus", task.gpu,
        "--trials-per-gpu", str(SHARING), "--workers", str(SHARING), "--trials", str(NUM_TRIALS),
        "--epochs", str(NUM_EPOCHS), "--timeout", "none", "--offline",
    ])  # fmt: skip
    lives = trials.lives(NAME)
    yield trials.in_order(NAME, end, lives)
    yield from findings(lives, trials.level(NAME), begun(file.with_name(hungry_space.EPOCHS_LOG)))


def begun(log: Path) -> dict[str, list[int]]:
    """Rate of a trial -> the epochs that began in it, in order; none without a log.

    Its `fit` is called before, too, to see what it declares: of first epochs in a row one counts.
    """
    found: dict[str, list[int]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        rate, epoch = line.split()
        if found.setdefault(rate, []) != [int(epoch)] or int(epoch):
            found[rate].append(int(epoch))
    return found


def findings(
    lives: Sequence[trials.Life], level: int | None, epochs: Mapping[str, Sequence[int]]
) -> Iterator[Finding]:
    """Whether it was tried again, with half as many at once, from the last epoch. Pure."""
    retried = [life for life in lives if life.num_retries]
    short = [life for life in retried if life.retry_kind == FailureKind.OUT_OF_MEMORY]
    whole = all(life.state == "COMPLETE" and life.num_retries <= 1 for life in lives)
    yield Finding(
        "without room: tried again, once", f"{len(short)} of {len(lives)} for memory", "",
        "at least 1, and all COMPLETE", len(lives), "promise",
        bool(retried) and short == retried and whole,
        "; ".join(sorted({life.retry_reason for life in retried})),
    )  # fmt: skip
    yield Finding(
        "without room: half as many at once", f"{level or 'unknown'} per GPU", "", "1 per GPU",
        len(lives), "promise", level == SHARING // 2,
    )  # fmt: skip
    seen = [list(epochs.get(str(life.params.get("rate")), ())) for life in retried]
    yield Finding(
        "without room: from the last epoch", f"epochs {seen[0] if seen else 'of no trial'}", "",
        f"epochs {BEGUN}", len(retried), "promise",
        all(found == BEGUN for found in seen) if seen else None, "counted from 0, as they began",
    )  # fmt: skip
