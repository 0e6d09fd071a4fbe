"""What other processes ask of a sweep that runs: a file for each request, and one for its answer.

The driver stays the only writer of study and records: a command leaves a request in the sweep's
folder, the driver carries it out between two events of its trials, and says what came of it. A
request that no driver has taken yet is carried out when the sweep goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.runtime.filesystem import write_json_atomically
from search_spaces.errors import InputError
from sweeps.state.paths import SweepPaths

Kind = Literal["stop", "stop trial", "add", "note"]
ANSWER_SECONDS = 30.0
"""A driver looks twice a second, but for while it measures how many trials share a GPU."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Request:
    """Something that is asked of a sweep.

    Attributes:
        body: JSON values: `trial` of "stop trial"; `fix` and `like` of "add"; `text` of "note".
        path: its file.
    """

    kind: Kind
    body: dict[str, Any]
    path: Path = field(compare=False)

    def answer(self, text: str, *, refused: bool = False) -> None:
        """Says what came of it, in one line, and takes the request off the list."""
        answer = {"text": text, "refused": refused}
        write_json_atomically(_answer_path(self.path), answer)
        self.path.unlink(missing_ok=True)


def leave_request(paths: SweepPaths, kind: Kind, **body: Any) -> Path:
    """Leaves a request for the sweep's driver; returns its file."""
    paths.requests.mkdir(exist_ok=True)
    path = paths.requests / f"{time.time_ns()}-{os.getpid()}.json"
    write_json_atomically(path, {"kind": kind, "body": body})
    return path


def pending_requests(paths: SweepPaths) -> list[Request]:
    """The requests that were not answered, oldest first; what is damaged is taken off the list."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(paths.requests.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                found.append(Request(content["kind"], content["body"], path))
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
    return found


def wait_for_answer(request: Path, seconds: float = ANSWER_SECONDS) -> str | None:
    """The answer to a request, which is taken; None where none came in time.

    Raises:
        InputError: The driver refused it; the message says why.
    """
    path, deadline = _answer_path(request), time.monotonic() + seconds
    while True:
        try:
            answer = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
            continue
        path.unlink(missing_ok=True)
        if answer["refused"]:
            raise InputError(answer["text"])
        return str(answer["text"])


def _answer_path(request: Path) -> Path:
    return request.with_suffix(".answer")
