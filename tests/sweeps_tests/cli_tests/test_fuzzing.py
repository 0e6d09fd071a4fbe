"""Whatever a file or an option holds, it is taken or refused by the one error that people read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hostile_files import npy, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sweeps import made_trial, write_sweep

from pipelines.data.array_files import npy_arrays
from pipelines.data.custom.listing import list_table
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, named_path, parsed_json
from sweeps.cli.config_file import config_lines
from sweeps.cli.main import make_parser
from sweeps.history.recorded_sweep import read_sweep
from sweeps.options import OPTIONS
from sweeps.state.sweep_file import read_sweep_file
from tracking.filters import quoted
from tracking.stores import check_database

few = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "\0", "٣", "1e999", "9" * 400, "nan", "-1", "~x/y", "a" * 300, "' OR 1"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
refusals = contextlib.suppress(InputError)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("fuzzed") / ".sweeps"
    return write_sweep(work_dir, "fuzzed", made_trial(0, [0.5, 0.6], {"units": 32}))


@few
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_config_files(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with refusals:
        config_lines(make_parser("run"), ["--config", str(path)])


@few
@given(JSON)
def test_values_of_config_files(tmp_path, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"space: cnn\ntrials: {json.dumps(value)}\nset: {json.dumps(value)}\n")
    with refusals:
        config_lines(make_parser("run"), ["--config", str(path)])


@few
@given(st.sampled_from(sorted(OPTIONS)), st.one_of(WORDS, JSON))
def test_values_of_options(name, value):
    with refusals:
        OPTIONS[name].read(value)


@few
@given(WORDS)
def test_paths(text):
    with contextlib.suppress(UnusableFileError):
        assert not named_path(text).is_dir() or Path(text).expanduser().is_dir()


@few
@given(st.sampled_from(["sqlite:///", "sqlite://", "nosuch://", "", "sqlite:///x.db?"]), WORDS)
def test_addresses(head, text):
    before = set(Path.cwd().iterdir())
    with refusals:
        check_database(f"{head or 'sqlite'}{text}" if head else f"sqlite:{text}", "--storage")
    assert set(Path.cwd().iterdir()) == before, "looking makes nothing"


@few
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=6), st.text())
def test_heads_of_arrays(tmp_path, changes, head):
    import numpy as np

    content = bytearray(plain(np.zeros((3, 4, 4), np.uint8)))
    for place, value in changes:
        content[place] = value
    for made in (bytes(content), npy(head.encode("ascii", "replace").decode()[:60_000])):
        (tmp_path / "x.npy").write_bytes(made)
        with refusals:
            list(npy_arrays({"x": tmp_path / "x.npy"})["x"].rows())


@few
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="path,lbe\n\"'0é\\", max_size=80)))
def test_tables(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"path,label\n" + (content if isinstance(content, bytes) else content.encode())
    )
    with refusals:
        list_table(path)


@few
@given(
    st.lists(st.sampled_from(["format", "uid", "status", "kind", "settings", "data_name"])), JSON
)
def test_files_of_sweeps(sweep, tmp_path, names, value):
    body = json.loads(sweep.state.read_text())
    for name in names:
        body[name] = value
    body["settings"] = {**body["settings"], "seed": value} if "settings" not in names else value
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(body))
    with refusals:
        read_sweep_file(path)


@few
@given(st.integers(0, 5), st.lists(WORDS, min_size=1, max_size=2), JSON)
def test_records_of_sweeps(sweep, place, names, value):
    path = sweep.spool / "records.jsonl"
    whole = path.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    line = lines[place % len(lines)]
    target = line["body"] if place % 2 else line
    for name in (*names, *list(target)[place : place + 1]):
        target[name] = value
    try:
        path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
        with refusals:
            read_sweep(sweep)
    finally:
        path.write_bytes(whole)


@few
@given(st.text(max_size=40))
def test_texts_of_searches_keep_their_quotes(text):
    with refusals:
        found = quoted(text)
        assert found[1:-1] == text and found[0] == found[-1] and found[0] not in text


def test_what_is_nested_too_deeply_is_no_json():
    with pytest.raises(UnusableFileError, match="nested too deeply"):
        parsed_json("[" * 100_000)
