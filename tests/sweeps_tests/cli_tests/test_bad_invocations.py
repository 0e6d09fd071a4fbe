"""What a careless or hostile person types ends with status 2, in one line, and leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_invocations import Bad, bad_invocations, ending_of
from hostile_files import make_hostile_files

ROWS = bad_invocations()
AREAS = sorted({row.area for row in ROWS})
PART = 8
"""One row of so many is part of the default suite, and another one of each area at least."""
SECONDS = 20


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bad") / "folder"
    folder.mkdir()
    make_hostile_files(folder)
    yield folder
    (folder / "closed").chmod(0o700)


def test_the_table_has_rows_of_every_command():
    assert len(ROWS) >= 300 and len(set(map(str, ROWS))) > 1_000
    assert len({row.words[0] for row in ROWS}) >= 23


@pytest.mark.parametrize("area", AREAS)
def test_a_part_of_the_table_is_refused(hostile, area):
    rows = [row for row in ROWS if row.area == area and _is_light(row)]
    check(rows[::PART], hostile)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("area", AREAS)
def test_the_whole_table_is_refused(hostile, area):
    check([row for row in ROWS if row.area == area and not row.as_nobody], hostile)


def _is_light(row: Bad) -> bool:
    return not (row.heavy or row.as_nobody)


def check(rows: list[Bad], folder: Path) -> None:
    """All of them are refused."""

    def late(*_: object) -> None:
        raise TimeoutError("not within time")

    os.chdir(folder)  # Each test begins in a folder of its own.
    kinds, before = {}, signal.signal(signal.SIGALRM, late)
    try:
        for row in rows:
            signal.alarm(SECONDS)
            ending = ending_of(row, folder)
            if ending.kind != "refused":
                kinds[str(row)] = f"{ending.kind}: {ending.raised or ending.err} {ending.changed}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not kinds
