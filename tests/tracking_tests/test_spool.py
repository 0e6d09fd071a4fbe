"""The spool loses nothing and doubles nothing, and its sender outlives any store."""

from __future__ import annotations

import json
import math
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import InputError
from tracking.spool import sender as sender_module
from tracking.spool.records import (
    DataRecord,
    EpochRecord,
    ModelRecord,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    SweepTagsRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    from_json,
    to_json,
)
from tracking.spool.sender import RejectedError, Sender
from tracking.spool.spool import Spool

DATA = DataRecord("tiny", "f" * 64, "made", {"a": [1]}, {"num_images": {"train": 3}})
RECORDS = [
    SweepRecord("s", {"seed": 0}, {"tag": "x"}, DATA, "uid"),
    TrialRecord(0, "trial 0", {"a": 1}, {"t": "1"}),
    EpochRecord(0, 1, {"loss": 0.25, "val_loss": 1e-300}),
    ModelRecord(0, "model.keras", (8, 8, 1), 3, {"val_accuracy": 0.5}, 1),
    TrialEnd(0, "COMPLETE", {"best": 0.1}, {"sweeps.reason": "ünï"}, {"a.txt": "b\nc"}),
    SweepEnd("FINISHED", {}, {}, {}, {"rank": [1, None]}),
]


class Store:
    """A store that can be away, slow or unwilling, and remembers what arrived."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.again: list[bool] = []
        self.away = threading.Event()
        self.attempts = 0
        self.refused: set[str] = set()

    def apply(self, record: Any, *, again: bool) -> dict[str, str]:
        self.attempts += 1
        if self.away.is_set():
            raise ConnectionError("server\ngone")
        if record.key in self.refused:
            raise RejectedError("never")
        self.arrived.append(record.key)
        self.again.append(again)
        return {"id": f"id of {record.key}"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sender_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE_SECONDS", 0.05)


def test_records_come_back_from_json_as_they_were():
    for record in RECORDS:
        assert from_json(json.loads(json.dumps(to_json(record)))) == record
    nan = from_json(json.loads(json.dumps(to_json(EpochRecord(0, 2, {"loss": math.nan})))))
    assert math.isnan(nan.metrics["loss"])


def test_what_was_put_is_there_after_a_kill_and_in_order(tmp_path):
    spool = Spool(tmp_path)
    assert all(spool.put(record) for record in RECORDS)
    # No close: a kill closes nothing.
    again = Spool(tmp_path)
    assert again.num_waiting == len(RECORDS)
    assert list(again.replay()) == RECORDS
    assert not again.put(RECORDS[2]), "once is once, also over sessions"
    assert again.has(RECORDS[2].key)


def test_tags_of_one_millisecond_are_all_kept(tmp_path):
    records = [
        TagsRecord(0, {"a": "1"}, 5), TagsRecord(0, {"b": "2"}, 5), TagsRecord(1, {"a": "1"}, 5),
        SweepTagsRecord({"c": "3"}, 5), SweepTagsRecord({"d": "4"}, 5), TagsRecord(0, {"e": "5"}, 5),
    ]  # fmt: skip
    spool = Spool(tmp_path)
    assert all(spool.put(record) for record in records)
    found = list(Spool(tmp_path, read_only=True).replay())
    assert [record.tags for record in found] == [record.tags for record in records]
    assert [record.at_ms for record in found] == [5, 6, 5, 5, 6, 7]
    assert len({record.key for record in found}) == len(records)


def test_acknowledged_records_are_not_sent_again(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    with pytest.raises(ValueError, match="in order"):
        spool.acknowledge(RECORDS[1], {})
    spool.acknowledge(RECORDS[0], {"id": "run"})
    again = Spool(tmp_path)
    assert again.next(0) == RECORDS[1]
    assert again.answers() == [{"key": "sweep", "id": "run"}]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_read_up_to(tmp_path, cut):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    spool.acknowledge(RECORDS[0], {"id": "run"})
    for name, kept in (("records.jsonl", len(RECORDS) - 1), ("sent.jsonl", 0)):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        assert len(whole[:-cut].splitlines()) >= kept
    again = Spool(tmp_path)
    assert again.num_waiting == len(RECORDS) - 1
    assert again.put(RECORDS[-1]), "what was torn off can be put again"
    assert list(Spool(tmp_path).replay()) == RECORDS


def test_a_look_from_outside_changes_nothing(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    look = Spool(tmp_path, read_only=True)
    assert look.num_waiting == len(RECORDS) - 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_damaged_middle_is_refused_by_name(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"{broken\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"records.jsonl, line 3, is damaged"):
        Spool(tmp_path)
    path.write_bytes(lines[0])
    (tmp_path / "sent.jsonl").write_text('{"key": "a"}\n' * 3)
    with pytest.raises(InputError, match="has lost lines"):
        Spool(tmp_path)


def test_a_full_disk_adds_nothing_and_spoils_nothing(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.put(RECORDS[0])

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tracking.spool.spool.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            spool.put(RECORDS[1])
    # A nearly full disk takes a part of a write and raises nothing.
    size = (tmp_path / "records.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        with pytest.raises(OSError, match=r"No space|too large"):
            spool.put(RECORDS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "records.jsonl").stat().st_size == size
    assert spool.put(RECORDS[1])
    assert list(Spool(tmp_path).replay()) == RECORDS[:2]


def test_everything_arrives_in_order_and_its_answers_are_kept(tmp_path):
    spool, store = Spool(tmp_path), Store()
    sender = Sender(spool, lambda: store)
    for record in RECORDS:
        spool.put(record)
    assert sender.drain(5)
    sender.close()
    assert store.arrived == [record.key for record in RECORDS]
    assert not any(store.again)
    assert Spool(tmp_path).answers()[0] == {"key": "sweep", "id": "id of sweep"}


def test_a_store_that_is_away_delays_nothing_and_loses_nothing(tmp_path):
    spool, store = Spool(tmp_path), Store()
    store.away.set()
    sender = Sender(spool, lambda: store)
    started = time.monotonic()
    for record in RECORDS:
        spool.put(record)
    assert time.monotonic() - started < 2
    assert not sender.drain(0.3)
    assert "ConnectionError: server" in sender.problem
    assert store.attempts > 1
    store.away.clear()
    assert sender.drain(5)
    sender.close()
    assert store.arrived == [record.key for record in RECORDS]
    assert store.again == [True] + [False] * (len(RECORDS) - 1), "the first may have arrived"


def test_a_store_that_cannot_even_be_opened_is_opened_later(tmp_path):
    spool, store, attempts = Spool(tmp_path), Store(), []

    def open_store() -> Store:
        attempts.append(1)
        if len(attempts) < 4:
            raise ConnectionError("not yet")
        return store

    sender = Sender(spool, open_store)
    spool.put(RECORDS[0])
    assert sender.drain(5)
    sender.close()
    assert len(attempts) == 4


def test_what_the_store_refuses_for_good_is_kept_and_said_and_stops_nothing(tmp_path):
    spool, store = Spool(tmp_path), Store()
    store.refused = {RECORDS[2].key}
    sender = Sender(spool, lambda: store)
    for record in RECORDS:
        spool.put(record)
    assert sender.drain(5)
    sender.close()
    assert len(store.arrived) == len(RECORDS) - 1
    assert Spool(tmp_path).aside_lines() == ["trial-0/epoch-1: never"]
    assert Spool(tmp_path).num_waiting == 0


class Broken(Store):
    """A store for which some records raise what no store should raise."""

    def __init__(self, keys: set[str]) -> None:
        super().__init__()
        self.broken = keys
        self.known: set[str] = set()

    def apply(self, record: Any, *, again: bool) -> dict[str, str]:
        number = getattr(record, "number", None)
        if number is not None and record.key != f"trial-{number}" and number not in self.known:
            raise RejectedError(f"no run of trial {number}")
        if record.key in self.broken:
            self.attempts += 1
            raise LookupError("no metadata\nof a library")
        if isinstance(record, TrialRecord):
            self.known.add(record.number)
        return super().apply(record, again=again)


def sent_by(spool: Spool, store: Store, patience: float = 5) -> bool:
    sender = Sender(spool, lambda: store)
    sent = sender.drain(patience)
    sender.close()
    return sent


def test_a_record_that_cannot_be_sent_holds_up_nothing_and_is_tried_again(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    store = Broken({"trial-0/model"})
    assert sent_by(spool, store)
    assert set(store.arrived) == {record.key for record in RECORDS} - {"trial-0/model"}
    expected = ["trial-0/model: LookupError: no metadata"]
    assert Spool(tmp_path).aside_lines() == expected and spool.num_waiting == 0
    assert sent_by(Spool(tmp_path), store), "what is aside is tried again, and stays aside"
    assert Spool(tmp_path).aside_lines() == expected
    store.broken.clear()
    del store.arrived[:]
    again = Spool(tmp_path)
    assert sent_by(again, store)
    assert store.arrived == ["trial-0/model", "trial-0/end"], "the trial's end is its last word"
    assert again.aside_lines() == []
    assert {"key": "trial-0/model", "id": "id of trial-0/model"} in again.answers()


def test_what_was_aside_counts_as_sent_once_all_that_follows_it_has_arrived(tmp_path):
    """Else a run would be told a state of before last, and nobody would tell it more."""
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    store = Broken({"trial-0/model"})
    assert sent_by(spool, store)
    store.broken = {"trial-0/end"}
    assert sent_by(Spool(tmp_path), store)
    assert list(Spool(tmp_path).reasons_aside()) == ["trial-0/model"]
    store.broken.clear()
    del store.arrived[:]
    assert sent_by(Spool(tmp_path), store)
    assert store.arrived == ["trial-0/model", "trial-0/end"]
    assert Spool(tmp_path).aside_lines() == []


def test_a_run_that_cannot_be_made_takes_its_trial_along_and_no_other(tmp_path):
    spool = Spool(tmp_path)
    other = [TrialRecord(1, "trial 1", {}, {}), EpochRecord(1, 1, {"loss": 1.0})]
    for record in (*RECORDS[:-1], *other, RECORDS[-1]):
        spool.put(record)
    store = Broken({"trial-0"})
    assert sent_by(spool, store)
    assert list(spool.reasons_aside()) == [record.key for record in RECORDS[1:-1]]
    assert {"sweep", "trial-1", "trial-1/epoch-1", RECORDS[-1].key} == set(store.arrived)
    store.broken.clear()
    del store.arrived[:]
    assert sent_by(Spool(tmp_path), store)
    assert store.arrived == [record.key for record in RECORDS[1:-1]]


def test_after_one_the_others_of_its_kind_do_not_wait_as_long(tmp_path):
    spool, models = Spool(tmp_path), set()
    spool.put(RECORDS[0])
    for number in range(4):
        spool.put(TrialRecord(number, "t", {}, {}))
        model = ModelRecord(number, "model.keras", (8, 8, 1), 3, {}, 1)
        spool.put(model)
        models.add(model.key)
    spool.put(RECORDS[-1])
    store = Broken(models)
    assert sent_by(spool, store)
    assert set(spool.reasons_aside()) == models
    assert store.attempts - len(store.arrived) < 2 * sender_module.MAX_ATTEMPTS + 3


def test_messages_that_differ_in_ids_alone_are_one_cause(tmp_path):
    class Telling(Broken):
        def apply(self, record: Any, *, again: bool) -> dict[str, str]:
            try:
                return super().apply(record, again=again)
            except LookupError:
                where = f"/runs/{record.number:08x}{'3f2a9c0d' * 3}/trial-{record.number}"
                raise LookupError(f"no metadata in {where}") from None

    spool, models = Spool(tmp_path), set()
    spool.put(RECORDS[0])
    for number in range(4):
        spool.put(TrialRecord(number, "t", {}, {}))
        model = ModelRecord(number, "model.keras", (8, 8, 1), 3, {}, 1)
        spool.put(model)
        models.add(model.key)
    spool.put(RECORDS[-1])
    store = Telling(models)
    assert sent_by(spool, store)
    assert set(spool.reasons_aside()) == models
    assert store.attempts - len(store.arrived) < 2 * sender_module.MAX_ATTEMPTS + 3


def test_the_last_record_is_set_aside_too_when_one_that_was_sent_arrives_again(tmp_path):
    spool, last = Spool(tmp_path), RECORDS[-1]
    for record in RECORDS:
        spool.put(record)
    store = Broken({last.key})
    assert sent_by(spool, store)
    assert spool.aside_lines() == [f"{last.key}: LookupError: no metadata"]
    again = [key for key in store.arrived if store.arrived.count(key) > 1]
    assert set(again) == {"trial-0/epoch-1"}, "what says nothing of a state"
    away = Spool(tmp_path / "away")
    for record in RECORDS[:3]:
        away.put(record)
    store = Store()
    assert sent_by(away, store)
    store.away.set()
    away.put(last)
    assert not sent_by(away, store, patience=0.8)
    assert away.aside_lines() == [] and away.num_waiting == 1


def test_the_first_failure_after_an_outage_sets_nothing_aside(tmp_path):
    class Returning(Store):
        blips = 1

        def apply(self, record: Any, *, again: bool) -> dict[str, str]:
            if not self.away.is_set() and record.key == "trial-0" and self.blips:
                self.blips -= 1
                raise ConnectionError("server\ngone")
            return super().apply(record, again=again)

    for attempts in range(1, 2 * sender_module.MAX_ATTEMPTS):
        spool, store = Spool(tmp_path / str(attempts)), Returning()
        for record in RECORDS:
            spool.put(record)
        sender = Sender(spool, lambda store=store: store)
        while not store.arrived:
            time.sleep(0.001)
        store.away.set()
        before = store.attempts
        while store.attempts - before < attempts and spool.num_waiting:
            time.sleep(0.001)
        store.away.clear()
        assert sender.drain(5)
        sender.close()
        assert spool.aside_lines() == [], attempts


def test_what_was_set_aside_is_tried_once_more_before_the_end(tmp_path):
    class Mended(Broken):
        """The library that was missing comes with the last record."""

        def apply(self, record: Any, *, again: bool) -> dict[str, str]:
            if record.key == RECORDS[-1].key:
                self.broken.clear()
            return super().apply(record, again=again)

    spool, store = Spool(tmp_path), Mended({"trial-0/model"})
    for record in RECORDS:
        spool.put(record)
    store.broken.add(RECORDS[-2].key)  # Else the probe reaches the last one first.
    assert sent_by(spool, store)
    assert spool.aside_lines() == [] and spool.num_waiting == 0
    assert "trial-0/model" in store.arrived


def test_a_store_that_is_away_sets_nothing_aside_however_often_it_is_tried(tmp_path):
    spool, store = Spool(tmp_path), Store()
    store.away.set()
    for record in RECORDS:
        spool.put(record)
    assert not sent_by(spool, store, patience=0.8)
    assert store.attempts > 2 * sender_module.MAX_ATTEMPTS
    assert spool.aside_lines() == [] and spool.num_waiting == len(RECORDS)
    store.away.clear()
    assert sent_by(spool, store) and spool.aside_lines() == []


def test_nothing_is_sent_before_the_sweep_itself(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS:
        spool.put(record)
    store = Broken({"sweep"})
    assert not sent_by(spool, store, patience=0.5)
    assert store.arrived == [] and spool.num_waiting == len(RECORDS)


def test_what_waited_at_the_start_may_have_arrived_before(tmp_path):
    spool = Spool(tmp_path)
    for record in RECORDS[:2]:
        spool.put(record)
    store = Store()
    sender = Sender(Spool(tmp_path), lambda: store)
    assert sender.drain(5)
    sender.close()
    assert store.again == [True, True]
    spool.put(RECORDS[2])


def test_waiting_for_a_slow_store_ends_when_told(tmp_path):
    spool, store = Spool(tmp_path), Store()
    store.away.set()
    spool.put(RECORDS[0])
    sender = Sender(spool, lambda: store)
    started = time.monotonic()
    assert not sender.drain(30, lambda: True)
    assert time.monotonic() - started < 5
    sender.close()


def test_adopted_files_lie_where_their_record_says(tmp_path):
    spool = Spool(tmp_path / "spool")
    file = tmp_path / "curves.png"
    file.write_bytes(b"png")
    kept = spool.adopt(file, "trial-0/files/epoch-1")
    assert kept.read_bytes() == b"png" and not file.exists()
    assert kept.parent == spool.folder_of("trial-0/files/epoch-1")


def test_the_time_of_earlier_sessions_is_added_up(tmp_path):
    spool = Spool(tmp_path)
    spool.put(SweepRecord("s", {}, {}, DATA, "u", at_ms=1_000))
    spool.put(EpochRecord(0, 1, {"a": 1.0}, at_ms=11_000))
    spool.put(SweepStateRecord("SCHEDULED", {}, at_ms=12_000))
    spool.put(SweepStateRecord("RUNNING", {}, at_ms=90_000))
    spool.put(EpochRecord(0, 2, {"a": 1.0}, at_ms=95_000))
    assert spool.active_seconds() == 16.0
    assert Spool(tmp_path / "new").active_seconds() == 0.0


def test_a_time_limit_counts_from_the_latest_end_and_an_interrupt_is_none(tmp_path):
    spool = Spool(tmp_path)
    spool.put(SweepRecord("s", {}, {}, DATA, "u", at_ms=1_000))
    spool.put(SweepEnd("KILLED", at_ms=11_000))
    assert (spool.active_seconds(), spool.active_seconds(up_to_end=True)) == (10.0, 0.0)
    spool.put(SweepStateRecord("RUNNING", {}, at_ms=20_000))
    spool.put(SweepEnd("FINISHED", at_ms=25_000))
    assert spool.active_seconds(up_to_end=True) == spool.active_seconds() == 15.0
    spool.put(SweepStateRecord("RUNNING", {}, at_ms=50_000))
    spool.put(EpochRecord(0, 2, {"a": 1.0}, at_ms=52_000))
    assert (spool.active_seconds(), spool.active_seconds(up_to_end=True)) == (17.0, 15.0)


def test_the_spool_is_read_by_line_whatever_its_size(tmp_path):
    spool = Spool(tmp_path)
    for epoch in range(300):
        spool.put(EpochRecord(0, epoch, {"loss": 1.0}))
    assert Path(tmp_path / "records.jsonl").read_text().count("\n") == 300
    assert Spool(tmp_path).num_waiting == 300
