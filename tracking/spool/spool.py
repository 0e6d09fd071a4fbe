"""A durable, append-only record of everything that a tracker is to receive.

A record is on disk before anything else happens with it, and it is sent, in order, until the
tracking store has acknowledged it: a store that is slow, down, or away for the whole sweep delays
nothing and loses nothing. One process at a time writes a spool (the sweep's lock sees to it).

    spool/records.jsonl    one record per line
    spool/sent.jsonl       one acknowledgement per line, in the records' order
    spool/rejected.jsonl   what was set aside, with the reason, and which of it was sent since
    spool/files/           files that wait to be uploaded
"""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, check_regular, parsed_json
from tracking.spool.records import (
    RECURRING,
    Record,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    SweepTagsRecord,
    from_json,
    to_json,
)

T = TypeVar("T")


class Spool:
    """The spool in a folder, which is created. Thread-safe.

    Args:
        read_only: for a look at a spool that another process may be writing.

    Raises:
        InputError: A line in the middle is damaged; a torn last line is cut off.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        if not read_only:
            (folder / "files").mkdir(parents=True, exist_ok=True)
        self._records_path = folder / "records.jsonl"
        self._sent_path = folder / "sent.jsonl"
        self._condition = threading.Condition()
        # In this order: what is acknowledged meanwhile must not look like more than there is.
        self._answers = _open_lines(self._sent_path, read_answer, mend=not read_only)
        records = _open_lines(self._records_path, read_record, mend=not read_only)
        self._keys = {key for key, _ in records}
        if len(self._answers) > len(records):
            raise lost_lines(self._records_path)
        self._waiting = [record for _, record in records[len(self._answers) :]]
        if not read_only:
            self._records = self._records_path.open("ab", buffering=0)
            self._sent = self._sent_path.open("ab", buffering=0)
            _sync_folder(folder)  # The files' names must survive a loss of power, too.

    def put(self, record: Record) -> bool:
        """Adds a record; returns False where one of its key is there already.

        Recurring records never share a key: of two in one millisecond the second gets the next one.
        Returns when it is on disk.

        Raises:
            OSError: There is no room; nothing was added.
        """
        with self._condition:
            while isinstance(record, RECURRING) and record.key in self._keys:
                record = replace(record, at_ms=record.at_ms + 1)
            if record.key in self._keys:
                return False
            _append(self._records, to_json(record))
            self._keys.add(record.key)
            self._waiting.append(record)
            self._condition.notify_all()
            return True

    def has(self, key: str) -> bool:
        """Whether a record of that key was ever put."""
        with self._condition:
            return key in self._keys

    def next(self, timeout_seconds: float) -> Record | None:
        """The oldest record that is not acknowledged; None where none comes in time."""
        with self._condition:
            if not self._waiting:
                self._condition.wait(timeout_seconds)
            return self._waiting[0] if self._waiting else None

    def acknowledge(self, record: Record, answer: Mapping[str, str]) -> None:
        """Notes that the oldest record has arrived, with what the store named it.

        Raises:
            ValueError: It is not the oldest.
        """
        with self._condition:
            if not self._waiting or self._waiting[0].key != record.key:
                raise ValueError(f"Records are acknowledged in order. Received: {record.key}.")
            # Not synchronised: an acknowledgement that is lost means that a record is sent twice.
            _append(self._sent, {"key": record.key, **answer}, durable=False)
            del self._waiting[0]
            self._condition.notify_all()

    def set_aside(self, record: Record, reason: str) -> None:
        """Notes that the oldest record cannot be sent, so that the next one is."""
        self._note_aside({**to_json(record), "reason": reason})
        self.acknowledge(record, {"rejected": reason})

    def sent_after_all(self, record: Record, answer: Mapping[str, str]) -> None:
        """Notes that a record that was set aside has arrived, with what the store named it."""
        self._note_aside({"key": record.key, "sent": dict(answer)})

    def _note_aside(self, line: Mapping[str, Any]) -> None:
        with (self._folder / "rejected.jsonl").open("ab", buffering=0) as file:
            _append(file, line)

    def answers(self) -> list[dict[str, str]]:
        """The acknowledgements of earlier sessions."""
        late = [{"key": line["key"], **line["sent"]} for line in self._aside() if "sent" in line]
        return self._answers + late

    def waiting(self) -> list[Record]:
        """The records that are not acknowledged, oldest first."""
        with self._condition:
            return list(self._waiting)

    @property
    def num_waiting(self) -> int:
        """Records that are not acknowledged."""
        with self._condition:
            return len(self._waiting)

    def reasons_aside(self) -> dict[str, str]:
        """Why each record that is set aside was not sent, by its key."""
        reasons: dict[str, str] = {}
        for line in self._aside():
            if "sent" in line:
                reasons.pop(line["key"], None)
            else:
                reasons[line["key"]] = line["reason"]
        return reasons

    def aside_lines(self) -> list[str]:
        """One line for each record that is set aside: its key and the reason."""
        return [f"{key}: {reason}" for key, reason in self.reasons_aside().items()]

    def _aside(self) -> list[dict[str, Any]]:
        path = self._folder / "rejected.jsonl"
        return _open_lines(path, read_aside, mend=False)

    def adopt(self, path: Path, key: str) -> Path:
        """Moves a file into the spool, where it stays until it is uploaded; returns its path."""
        target = self._folder / "files" / key.replace("/", "_") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        return target

    def folder_of(self, key: str) -> Path:
        """Where the adopted files of a record are."""
        return self._folder / "files" / key.replace("/", "_")

    def replay(self) -> Iterator[Record]:
        """All records since the beginning, sent or not."""
        for _, record in _open_lines(self._records_path, read_record, mend=False):
            yield record

    def last_ms(self) -> int:
        """When the latest record happened, in milliseconds since 1970; 0 in an empty spool."""
        last = 0
        for record in self.replay():
            last = max(last, record.at_ms)
        return last

    def active_seconds(self, *, up_to_end: bool = False) -> float:
        """Wall time that the sweep's earlier sessions took, by their records' times.

        Args:
            up_to_end: whether to count up to the sweep's latest end only; 0 where it has not come
                to one. An interrupt is none.
        """
        total, ended, first, last = 0.0, 0.0, 0, 0
        for record in self.replay():
            if isinstance(record, SweepTagsRecord):
                continue  # A note may come days after a session.
            starts = isinstance(record, SweepRecord) or (
                isinstance(record, SweepStateRecord) and record.status == "RUNNING"
            )
            if starts:
                total += (last - first) / 1000
                first = record.at_ms
            last = record.at_ms
            if isinstance(record, SweepEnd) and record.status != "KILLED":
                ended = total + (last - first) / 1000
        return ended if up_to_end else total + (last - first) / 1000

    def close(self) -> None:
        """Closes the files."""
        self._records.close()
        self._sent.close()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(file: Any, line: Mapping[str, Any], *, durable: bool = True) -> None:
    """Adds a whole line or, where there is no room for it, nothing."""
    start = file.seek(0, os.SEEK_END)
    content = json.dumps(line).encode() + b"\n"
    try:
        # An unbuffered write may take a part without raising anything.
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        if durable:
            os.fsync(file.fileno())
    except OSError:
        # Half a line would spoil the next one.
        file.truncate(start)
        raise


def read_record(line: bytes) -> tuple[str, Record]:
    """The key and the record of a line; raises UnusableFileError where it is none."""
    found = parsed_json(line)
    record = from_json(found)
    return found["key"], record


def read_answer(line: bytes) -> dict[str, str]:
    """The acknowledgement of a line; raises UnusableFileError where it is none."""
    found = parsed_json(line)
    if not isinstance(found, dict) or "key" not in found or not _are_texts(found):
        raise UnusableFileError("no acknowledgement")
    return found


def read_aside(line: bytes) -> dict[str, Any]:
    """A line about a record that was set aside, or sent since; raises UnusableFileError."""
    found = parsed_json(line)
    if isinstance(found, dict) and isinstance(found.get("key"), str):
        if isinstance(found.get("reason"), str):
            return found
        if isinstance(found.get("sent"), dict) and _are_texts(found["sent"]):
            return found
    raise UnusableFileError("no record that was set aside")


def _are_texts(found: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in found.values())


def lost_lines(path: Path) -> InputError:
    """The error for a file of records that holds fewer than were sent."""
    return InputError(
        f"{path} has lost lines: more records were sent than it holds. Restore the file, or move "
        "the folder away and let `keras-sweeps doctor` say what is missing."
    )


def damaged_line(path: Path, number: int, error: UnusableFileError) -> InputError:
    """The error for a line of a spool that holds nothing of its kind."""
    return InputError(
        f"{path}, line {number}, is damaged ({error}). Restore the file, or remove that line and "
        "let `keras-sweeps doctor` say what is missing. If a later version of keras-sweeps wrote "
        "it, use that one."
    )


def spool_damage(folder: Path) -> list[str]:
    """One line for each line of a spool that cannot be read, and for lines that were lost.

    Nothing is written. A torn last line is none: it is cut off when the spool is opened.
    """
    problems: list[str] = []
    nums: dict[str, int] = {}
    # In this order, because another process may be writing it.
    for name, read in (
        ("sent.jsonl", read_answer), ("records.jsonl", read_record), ("rejected.jsonl", read_aside),
    ):  # fmt: skip
        damaged: list[InputError] = []
        try:
            lines = _open_lines(folder / name, read, mend=False, damaged=damaged)
        except InputError as error:  # It is no plain file.
            problems.append(str(error))
            continue
        problems += map(str, damaged)
        nums[name] = len(lines) + len(damaged)
    if nums.get("sent.jsonl", 0) > nums.get("records.jsonl", math.inf):
        problems.append(str(lost_lines(folder / "records.jsonl")))
    return problems


def _open_lines(
    path: Path,
    read: Callable[[bytes], T],
    *,
    mend: bool,
    damaged: list[InputError] | None = None,
) -> list[T]:
    """The file's lines without a torn last one, left by a loss of power.

    Args:
        read: raises UnusableFileError for a line of another kind.
        mend: whether the torn line is cut off the file.
        damaged: takes the error for each damaged line, which is then left out; None to raise it.

    Raises:
        InputError: A line is damaged, or it is no plain file.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        return []
    except UnusableFileError as error:
        raise InputError(f"{path} must be a plain file, but {error}. Restore it.") from None
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.splitlines()
    found: list[T] = []
    for index, line in enumerate(lines):
        try:
            found.append(read(line))
        except UnusableFileError as error:
            if index < len(lines) - 1 or _is_json(line):
                problem = damaged_line(path, index + 1, error)
                if damaged is None:
                    raise problem from None
                damaged.append(problem)
                continue
            whole = whole[: -len(line) - 1]
    if mend and len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return found


def _is_json(line: bytes) -> bool:
    try:
        parsed_json(line)
    except UnusableFileError:
        return False
    return True
