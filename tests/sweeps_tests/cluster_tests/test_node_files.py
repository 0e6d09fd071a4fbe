"""Files on a node: data that arrive whole or not at all, and a user's sources under their digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.data.prepared import PreparedData
from pipelines.objectives import OBJECTIVES
from pipelines.training.cost import MeasureTask
from pipelines.training.trial import Schedule, TrialTask
from sweeps.cluster.executor import _start_command
from sweeps.cluster.node_files import (
    DataCache,
    array_digests,
    changed_files,
    located,
    sources_base,
    store_sources,
)
from sweeps.cluster.node_memory import NodeMemory
from sweeps.cluster.protocol import Places
from sweeps.executors.base import Slot
from sweeps.workers.jobs import measure_job


def send(cache: DataCache, data: PreparedData, *, damaged: str = "", chunk: int = 100) -> str:
    """As the bridge sends data, each chunk twice: calls may be repeated."""
    digests = array_digests(Path(data.folder))
    cache.begin()
    for name in digests:
        content = (Path(data.folder) / name).read_bytes()
        if name == damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        for offset in range(0, len(content), chunk):
            for _ in range(2):
                cache.put(name, offset, content[offset : offset + chunk])
    return cache.end(data, digests)


def test_data_arrive_whole_and_are_kept_for_the_next_sweep(tiny_data, tmp_path):
    digests = array_digests(Path(tiny_data.folder))
    cache = DataCache(tmp_path / "cache")
    assert cache.find(tiny_data, digests, ours=False) == ""
    folder = send(cache, tiny_data)
    assert Path(folder).is_relative_to(tmp_path / "cache")
    assert array_digests(Path(folder)) == digests
    assert DataCache(tmp_path / "cache").find(tiny_data, digests, ours=False) == folder
    arrays = [np.load(Path(where) / "x_train.npy") for where in (folder, tiny_data.folder)]
    np.testing.assert_array_equal(*arrays)


def test_data_in_a_shared_folder_are_not_sent(tiny_data, tmp_path):
    digests = array_digests(Path(tiny_data.folder))
    assert DataCache(tmp_path).find(tiny_data, digests, ours=True) == tiny_data.folder


def test_a_damaged_chunk_is_refused_and_leaves_nothing(tiny_data, tmp_path):
    cache = DataCache(tmp_path / "cache")
    with pytest.raises(OSError, match=r"x_train\.npy did not arrive whole"):
        send(cache, tiny_data, damaged="x_train.npy")
    assert not list((tmp_path / "cache").glob("*/*.npy"))
    assert send(cache, tiny_data), "the next transfer is another one"


def test_data_that_were_damaged_in_the_cache_are_sent_again(tiny_data, tmp_path):
    digests = array_digests(Path(tiny_data.folder))
    cache = DataCache(tmp_path / "cache")
    folder = send(cache, tiny_data)
    path = Path(folder) / "y_train.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.find(tiny_data, digests, ours=False) == ""
    assert send(cache, tiny_data) == folder and array_digests(Path(folder)) == digests


def test_a_transfer_that_broke_off_leaves_nothing(tiny_data, tmp_path):
    cache = DataCache(tmp_path / "cache")
    cache.begin()
    cache.put("x_train.npy", 0, b"some")
    cache.close()
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.fixture
def package(tmp_path):
    """A space in a package that imports a module beside it."""
    folder = tmp_path / "project" / "mine"
    folder.mkdir(parents=True)
    files = [folder / name for name in ("__init__.py", "space.py", "layers.py")]
    for file in files:
        file.write_text(f"# {file.name}\n")
    return folder, tuple((str(file), "digest") for file in files)


def test_a_users_space_is_named_as_its_copy_on_the_node_and_recorded_as_the_users(
    package, tiny_data, tmp_path
):
    folder, sources = package
    space = f"{folder / 'space.py'}:MySpace"
    base = sources_base(space, sources)
    assert base == str(tmp_path / "project"), "whole packages, or they could not be imported"
    files = {str(Path(p).relative_to(base)): Path(p).read_bytes() for p, _ in sources}
    copies = store_sources(tmp_path / "node", "abc", files)
    task = TrialTask(
        number=0, space=space, params={}, data=tiny_data, schedule=Schedule(1), seed=0,
        objective=OBJECTIVES["val_accuracy"], folder="/of/the/driver", sources=sources,
    )  # fmt: skip
    there = located(task, "/of/the/node", Places("/cache/data", copies, base))
    assert there.space == f"{copies}/mine/space.py:MySpace"
    assert (there.folder, there.data.folder) == ("/of/the/node", "/cache/data")
    assert [path for path, _ in there.sources] == [
        f"{copies}/mine/{name}" for name in ("__init__.py", "space.py", "layers.py")
    ]
    assert all(Path(path).exists() for path, _ in there.sources)
    assert there.identity == task.identity, "so its checkpoints go on anywhere"
    measured = MeasureTask(space, ({},), tiny_data, 1, 0, sources=sources)
    to_measure = located(measured, "/of/the/node", Places("/cache/data", copies, base))
    assert (to_measure.space, to_measure.sources) == (there.space, there.sources)
    command = _start_command("measure-1-0", 1, measure_job, measured, Slot(0, 1, node="a"), "log")
    assert (command.space, command.sources, command.folder) == (space, sources, "")
    assert command.data.fingerprint == tiny_data.fingerprint


def test_only_what_changed_since_the_last_report_travels(tmp_path):
    known: dict[str, tuple[int, int]] = {}
    (tmp_path / "checkpoint.npz").write_bytes(b"1")
    (tmp_path / "output.log").write_bytes(b"text")
    (tmp_path / "half.new").write_bytes(b"half")
    assert changed_files(tmp_path, known) == {"checkpoint.npz": b"1"}
    assert changed_files(tmp_path, known) == {}
    (tmp_path / "model.keras").write_bytes(b"22")
    assert changed_files(tmp_path, known) == {"model.keras": b"22"}


def test_the_largest_job_ends_where_memory_is_short_and_only_one(monkeypatch):
    from sweeps.cluster import node_memory

    sizes = {1: 10, 2: 30, 3: 20}
    monkeypatch.setattr(node_memory, "process_bytes", sizes.__getitem__)
    monkeypatch.setattr(node_memory, "used_share", lambda: 0.95)
    memory = NodeMemory(0.9)
    assert memory.largest({"a": 1, "b": 2, "c": 3}) == 2
    assert memory.largest({"a": 1, "b": 2, "c": 3}) is None, "it is ending"
    assert memory.ended("b") and not memory.ended("a")
    assert memory.largest({"a": 1, "c": 3}) == 3
    monkeypatch.setattr(node_memory, "used_share", lambda: 0.5)
    assert memory.largest({"a": 1}) is None
