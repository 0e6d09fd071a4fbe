"""What other processes ask of a sweep that runs: a file for each request, and one for its answer.

The driver stays the only writer of study and records: a command leaves a request in the sweep's
folder, the driver carries it out between two events of its trials, and says what came of it. A
request that no driver has taken yet is carried out when the sweep goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.runtime.filesystem import write_json_atomically
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from search_spaces.stored_values import as_kind
from sweeps.state.paths import SweepPaths

Kind = Literal["stop", "stop trial", "add", "note"]
ANSWER_SECONDS = 30.0
"""A driver looks twice a second, but for while it measures how many trials share a GPU."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Content:
    """What a request's file holds."""

    kind: Kind
    body: dict[str, Any]


@dataclass(frozen=True)
class _Answer:
    """What an answer's file holds."""

    text: str
    refused: bool


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
                content = as_kind(_Content, read_json(path))
                found.append(Request(content.kind, content.body, path))
            except UnusableFileError:
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
            answer = as_kind(_Answer, read_json(path))
        except FileNotFoundError:
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
            continue
        except UnusableFileError as error:
            raise InputError(f"{path}, the answer to this, is damaged: {error}.") from None
        path.unlink(missing_ok=True)
        if answer.refused:
            raise InputError(answer.text)
        return answer.text


def _answer_path(request: Path) -> Path:
    return request.with_suffix(".answer")
