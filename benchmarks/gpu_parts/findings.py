"""What the command and its parts tell each other: a task to a part, findings back, a line each.

A finding is on disk once it is made: a part that is ended at its limit leaves what it had.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["figure", "promise", "goal"]
FAILED = "failed"
"""The key of the line that says why a part has failed; findings have others."""


@dataclass(frozen=True)
class Finding:
    """One answer, beside what was expected.

    Attributes:
        name: what was asked.
        found: a number in `unit`, or words.
        expected: what the project assumes or promises, in words; empty where nobody knew.
        n: how many measurements are behind `found`.
        kind: a `promise` that does not hold, or that nothing was measured of, makes the exit
            status 1; goals and figures do not.
        held: whether it is as expected; None where that is not asked.
        note: what else was seen.
    """

    name: str
    found: float | str
    unit: str = ""
    expected: str = ""
    n: int = 1
    kind: Kind = "figure"
    held: bool | None = None
    note: str = ""

    @property
    def broken(self) -> bool:
        """Whether the project promises this, and it does not hold."""
        return self.kind == "promise" and self.held is False

    @property
    def unproven(self) -> bool:
        """Whether the project promises this, and nobody can say whether it holds."""
        return self.kind == "promise" and not self.broken and (self.held is None or self.n < 1)


@dataclass(frozen=True)
class Task:
    """What a part is to do, and with what.

    Attributes:
        module: what holds the part's `find`.
        seconds: the part's time limit.
        ends_at: when that is reached, in seconds since 1970.
        alone: whether no other part runs, so that there is more time.
        stand_in: whether all is done in small on cores, with stand-ins for the device.
        dataset: as `--dataset` takes it.
        gpu: the GPU that is looked at, as `nvidia-smi` counts.
        findings: the file that takes what is found.
    """

    part: str
    module: str
    backend: str
    seconds: float
    ends_at: float
    alone: bool
    stand_in: bool
    dataset: str
    gpu: str
    findings: str

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.ends_at - time.time()

    @property
    def timed(self) -> Kind:
        """The kind of a promise about speed: stand-ins on cores keep none."""
        return "figure" if self.stand_in else "promise"


def work(task: Task) -> int:
    """Does a part in this process, which ends with the command; returns the exit status."""
    # The command alone decides about Ctrl-C; sweeps take the signal where a part sends it to them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_command, daemon=True).start()
    with Path(task.findings).open("a", encoding="utf-8", buffering=1) as file:
        try:
            if task.stand_in:
                from gpu_parts import stand_in

                stand_in.begin(task.part)
            for finding in importlib.import_module(task.module).find(task):
                file.write(json.dumps(asdict(finding)) + "\n")
        except Exception as error:  # Whatever a machine lacks is a row of the table.
            traceback.print_exc()
            words = " ".join(str(error).split())[:300]
            file.write(json.dumps({FAILED: f"{type(error).__name__}: {words}"}) + "\n")
            return 1
    return 0


def _end_with_command() -> None:
    """Ends the group once the command is gone, which holds the other end of standard input."""
    os.read(0, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def read(path: Path) -> tuple[list[Finding], str]:
    """The findings of a part so far, and why it has failed; empty where it has not."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [], ""
    findings, failed = [], ""
    for line in lines:
        try:
            body: dict[str, Any] = json.loads(line)
        except ValueError:  # The last line of a process that was killed.
            continue
        if FAILED in body:
            failed = str(body[FAILED])
        else:
            findings.append(Finding(**body))
    return findings, failed
