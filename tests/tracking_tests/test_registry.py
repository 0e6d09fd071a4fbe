"""The registry: one champion, no double versions, history intact, whatever breaks off when."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from search_spaces.errors import InputError
from tracking.models.model_store import ForeignModelError, ModelStore, StoredModel
from tracking.models.registry import ChampionHistory, Registry, _as_default_store, check_model_name

NAME = "digits"


class Killed(BaseException):
    """As SIGKILL would: nothing catches it."""


class Mortal:
    """A client of MLflow that dies before its n-th call, which is after the one before."""

    def __init__(self, client: MlflowClient, calls: int) -> None:
        self._client, self._left = client, calls

    def __getattr__(self, name):
        self._left -= 1
        if self._left == 0:
            raise Killed
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(uri) -> MlflowClient:
    # A store keeps its files where it is made: not in the checkout.
    with contextlib.chdir(Path(uri.removeprefix("sqlite:///")).parent):
        return MlflowClient(uri)


@pytest.fixture
def make_model(client, tmp_path):
    def make(content: bytes = b"weights") -> StoredModel:
        import hashlib

        run = client.create_run("0")
        model = client.create_logged_model(
            "0", name="model", source_run_id=run.info.run_id,
            tags={"sweeps.model_sha256": hashlib.sha256(content).hexdigest(),
                  "sweeps.data": "digits"},
        )  # fmt: skip
        folder = tmp_path / model.model_id / "data"
        folder.mkdir(parents=True)
        (folder / "model.keras").write_bytes(content)
        client.log_model_artifacts(model.model_id, str(folder.parent))
        client.finalize_logged_model(model.model_id, "READY")
        return StoredModel(model.model_id, run.info.run_id, dict(model.tags))

    return make


@pytest.fixture
def name(client) -> str:
    """A registered model's name of this test's own."""
    return f"model {time.monotonic_ns()}"


def set_champion(
    registry: Registry, name: str, version: int, after: ChampionHistory | None = None
) -> bool:
    """Makes a version the champion, by default upon the present history."""
    after = registry.champion_history(name) if after is None else after
    return registry.set_champion(
        name, version, after, kind="promotion", by="somebody", why="a reason"
    )


def assert_sound(registry: Registry, name: str) -> None:
    """One champion, which is the history's last; generations without gaps or doubles."""
    history = registry.champion_history(name)
    assert [entry.generation for entry in history.changes] == list(range(1, history.generation + 1))
    for before, after in itertools.pairwise(history.changes):
        assert after.previous == before.version
    assert not history.moved
    assert history.champion == (history.changes[-1].version if history.changes else None)


def test_a_model_is_registered_once(uri, client, make_model, name):
    registry, model = Registry(uri), make_model()
    assert registry.register(name, model, {"sweeps.a": "1"}) == 1
    assert registry.register(name, model, {"sweeps.a": "2"}) == 1
    version = client.get_model_version(name, "1")
    assert version.tags["sweeps.a"] == "2"
    registry.describe(name, 1, "a card")
    assert client.get_model_version(name, "1").description == "a card"
    assert version.tags["sweeps.standing"] == "candidate"
    assert client.get_registered_model(name).aliases == {"candidate": 1}
    assert registry.register(name, make_model(b"other"), {}) == 2
    assert client.get_registered_model(name).aliases == {"candidate": 2}


def test_registering_at_once_makes_one_version(uri, client, make_model, name):
    model, numbers = make_model(), []
    barrier = threading.Barrier(4)

    def work():
        registry = Registry(uri)
        barrier.wait()
        numbers.append(registry.register(name, model, {"sweeps.a": "1", "sweeps.b": "2"}))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = client.search_model_versions(f"name = '{name}'")
    assert len(found) == 1
    assert set(numbers) == {int(found[0].version)}
    # Each thread had its own store as MLflow's default one meanwhile.
    assert not mlflow.is_tracking_uri_set() and "MLFLOW_TRACKING_URI" not in os.environ


def test_a_change_of_champion_moves_the_alias_and_is_recorded(uri, client, make_model, name):
    registry = Registry(uri)
    for k in (1, 2):
        assert registry.register(name, make_model(b"%d" % k), {}) == k
    assert registry.champion_history(name).champion is None
    assert set_champion(registry, name, 1)
    assert set_champion(registry, name, 2)
    assert_sound(registry, name)
    standings = [client.get_model_version(name, n).tags["sweeps.standing"] for n in ("1", "2")]
    assert standings == ["former champion", "champion"]
    assert [entry.by for entry in registry.champion_history(name).changes] == ["somebody"] * 2
    assert name in registry.names()
    # The decision's vehicle is out of sight.
    visible = [e.name for e in client.search_experiments()]
    assert not [experiment for experiment in visible if name in experiment]


def test_of_two_promoted_at_once_one_becomes_champion(uri, make_model, name):
    registry = Registry(uri)
    for k in range(1, 5):
        registry.register(name, make_model(b"%d" % k), {})
    set_champion(registry, name, 1)
    barrier, won = threading.Barrier(3), []

    def work(version: int):
        mine = Registry(uri)
        compared_with = mine.champion_history(name)
        barrier.wait()
        if set_champion(mine, name, version, compared_with):
            won.append(version)

    threads = [threading.Thread(target=work, args=(version,)) for version in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1
    assert_sound(registry, name)
    assert [entry.version for entry in registry.champion_history(name).changes] == [1, won[0]]


def test_who_compared_with_a_former_champion_is_not_promoted(uri, make_model, name):
    registry = Registry(uri)
    for k in range(1, 4):
        registry.register(name, make_model(b"%d" % k), {})
    set_champion(registry, name, 1)
    compared_with = registry.champion_history(name)
    assert set_champion(registry, name, 2)
    assert not set_champion(registry, name, 3, compared_with)
    assert registry.champion_history(name).champion == 2
    assert set_champion(registry, name, 3)
    assert_sound(registry, name)


def test_the_same_version_twice_at_once_is_promoted_once(uri, make_model, name):
    registry = Registry(uri)
    registry.register(name, make_model(), {})
    before = registry.champion_history(name)
    assert set_champion(registry, name, 1, before)
    assert not set_champion(registry, name, 1, before)
    assert len(registry.champion_history(name).changes) == 1


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_call_leaves_something_that_the_next_one_finishes(
    uri, client, make_model, step
):
    """Registers and promotes, killed at the first call, the second, ... until nothing is killed."""
    for calls in range(1, 80, step):
        name, model, second = f"kill {step} {calls}", make_model(b"1"), make_model(b"2")
        Registry(uri).register(name, model, {})
        set_champion(Registry(uri), name, 1)
        mortal = Registry(uri)
        mortal._client = Mortal(client, calls)
        finished = True
        try:
            mortal.settle(name)
            history = mortal.champion_history(name)
            set_champion(mortal, name, mortal.register(name, second, {"sweeps.a": "b"}), history)
        except Killed:
            finished = False
        registry = Registry(uri)
        registry.settle(name)
        assert_sound(registry, name)
        # The same promotion again.
        assert registry.register(name, second, {"sweeps.a": "b"}) == 2
        if registry.champion_history(name).champion == 1:
            assert set_champion(registry, name, 2)
        assert_sound(registry, name)
        assert [entry.version for entry in registry.champion_history(name).changes] == [1, 2]
        assert len(client.search_model_versions(f"name = '{name}'")) == 2
        assert client.get_registered_model(name).aliases == {"champion": 2}
        if finished:
            assert calls > 15
            return
    raise AssertionError("a promotion of more than 80 calls")


def test_an_alias_that_was_moved_by_hand_stays(uri, client, make_model, name):
    registry = Registry(uri)
    for k in (1, 2, 3):
        registry.register(name, make_model(b"%d" % k), {})
    set_champion(registry, name, 1)
    client.set_registered_model_alias(name, "champion", "3")
    registry.settle(name)
    history = registry.champion_history(name)
    assert (history.champion, history.moved) == (3, True)
    assert set_champion(registry, name, 2)
    assert registry.champion_history(name).changes[-1].previous == 3
    assert registry.champion_history(name).champion == 2


def test_who_takes_the_alias_away_does_not_open_the_gate(uri, client, make_model, name):
    registry = Registry(uri)
    registry.register(name, make_model(), {})
    set_champion(registry, name, 1)
    client.delete_registered_model_alias(name, "champion")
    history = registry.champion_history(name)
    assert (history.alias, history.champion, history.moved) == (None, 1, True)


@pytest.mark.parametrize("call", ["champion_history", "settle", "names"])
def test_a_lost_store_is_no_missing_champion(uri, make_model, name, monkeypatch, call):
    registry = Registry(uri)
    registry.register(name, make_model(), {})
    set_champion(registry, name, 1)

    def lost(*_, **__):
        raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)

    for method in ("get_registered_model", "search_registered_models"):
        monkeypatch.setattr(registry._client, method, lost)
    with pytest.raises(MlflowException, match="locked"):
        getattr(registry, call)(*([] if call == "names" else [name]))
    store = ModelStore(uri)
    monkeypatch.setattr(store._client, "get_model_version_by_alias", lost)
    monkeypatch.setattr(store._client, "get_run", lost)
    for read in (lambda: store.registered(name), lambda: store.of_run("0" * 32)):
        with pytest.raises(MlflowException, match="locked"):
            read()


def test_a_model_may_be_registered_under_several_names(uri, client, make_model, name):
    registry, model = Registry(uri), make_model()
    for other in (name, f"{name} too", name):
        registry.register(other, model, {})
    links = json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"])
    assert links == [{"name": name, "version": 1}, {"name": f"{name} too", "version": 1}]


def test_a_refused_version_may_try_again_and_a_former_champion_stays_one(
    uri, client, make_model, name
):
    registry, first, second = Registry(uri), make_model(b"1"), make_model(b"2")

    def standing(number: str) -> str:
        return client.get_model_version(name, number).tags["sweeps.standing"]

    registry.register(name, first, {})
    registry.refuse(name, 1)
    assert standing("1") == "refused"
    registry.register(name, first, {})
    assert standing("1") == "candidate"
    set_champion(registry, name, 1)
    set_champion(registry, name, registry.register(name, second, {}))
    registry.register(name, first, {})
    assert client.get_registered_model(name).aliases == {"champion": 2, "candidate": 1}
    registry.refuse(name, 1)
    assert standing("1") == "former champion"


def test_a_model_that_is_made_anew_has_a_history_of_its_own(uri, client, make_model, name):
    registry = Registry(uri)
    registry.register(name, make_model(), {})
    set_champion(registry, name, 1)
    client.delete_registered_model(name)
    time.sleep(0.01)
    assert registry.champion_history(name) == ChampionHistory(None, ())
    registry.settle(name)
    registry.register(name, make_model(b"new"), {})
    assert set_champion(registry, name, 1)
    assert_sound(registry, name)


def test_a_version_is_fetched_verified_or_refused(uri, client, make_model, name, tmp_path):
    registry, store, model = Registry(uri), ModelStore(uri), make_model(b"the weights")
    registry.register(name, model, {})
    set_champion(registry, name, 1)
    for reference in (name, f"{name}@champion", f"{name}/1"):
        found = store.registered(reference)
        assert (found.model_id, found.version) == (model.model_id, 1)
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert store.fetch(found, folder).read_bytes() == b"the weights"
    location = client.get_logged_model(model.model_id).artifact_location.removeprefix("file://")
    Path(location, "data", "model.keras").write_bytes(b"other weights")
    with pytest.raises(InputError, match="was changed after it was logged"):
        store.fetch(found, folder)
    Path(location, "data", "model.keras").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        store.fetch(found, folder)


def test_a_foreign_version_is_refused(uri, client, make_model, name, tmp_path):
    registry, store = Registry(uri), ModelStore(uri)
    registry.register(name, make_model(), {})
    client.create_model_version(name, str(tmp_path))
    with pytest.raises(InputError, match="was not logged by keras-sweeps"):
        store.registered(f"{name}/2")
    bare = client.create_logged_model("0", name="model")
    with pytest.raises(InputError, match="was not logged by keras-sweeps"):
        store.fetch(StoredModel(bare.model_id, "run", {}), tmp_path)


def test_a_version_that_was_registered_by_hand_from_a_run_is_found(uri, client, make_model, name):
    model = make_model()
    client.log_outputs(model.run_id, [LoggedModelOutput(model.model_id, 0)])
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{model.run_id}/model", model.run_id)
    found = ModelStore(uri).registered(f"{name}/1")
    assert (found.model_id, found.version) == (model.model_id, 1)
    client.create_model_version(name, f"runs:/{'0' * 32}/model")
    with pytest.raises(ForeignModelError, match="version 2 is not loaded"):
        ModelStore(uri).registered(f"{name}/2")


def test_a_history_that_was_edited_by_hand_is_what_was_decided(uri, client, make_model, name):
    registry = Registry(uri)
    number = registry.register(name, make_model(), {})
    before = registry.champion_history(name)
    registry.set_champion(name, number, before, kind="promotion", by="me", why="good")
    history = registry.champion_history(name)
    client.set_registered_model_tag(name, "sweeps.champion.00001", "hello")
    assert registry.champion_history(name) == history
    client.set_registered_model_tag(name, "sweeps.champion.note", "hello")
    with pytest.raises(InputError, match="sweeps.champion.note of .* is none of keras-sweeps"):
        registry.champion_history(name)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("nothing@champion", "no registered model 'nothing@champion'"),
        ("a@b@c", "NAME@alias or NAME/VERSION"),
    ],
)
def test_a_name_that_is_not_there_is_refused(uri, reference, text):
    with pytest.raises(InputError, match=text):
        ModelStore(uri).registered(reference)


def test_the_aliases_that_there_are_are_named(uri, make_model, name):
    Registry(uri).register(name, make_model(), {})
    with pytest.raises(InputError, match=r"There are: .*@candidate \(version 1\), .*/1\."):
        ModelStore(uri).registered(f"{name}@champion")


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "x" * 101, "it's", " a"])
def test_names_that_break_addresses_are_refused(name):
    with pytest.raises(InputError, match="--model must be"):
        check_model_name(name)


def test_a_server_takes_it_all_as_well(tmp_path):
    from chaos import Server

    server = Server(tmp_path)
    server.start()
    server.wait()
    try:
        client, registry = MlflowClient(server.uri), Registry(server.uri)
        run = client.create_run("0")
        model = client.create_logged_model("0", name="m", source_run_id=run.info.run_id)
        stored = StoredModel(model.model_id, run.info.run_id, {})
        assert registry.register("served", stored, {"sweeps.a": "1"}) == 1
        assert set_champion(registry, "served", 1)
        assert not set_champion(registry, "served", 1, ChampionHistory(None, ()))
        assert_sound(registry, "served")
        assert ModelStore(server.uri).registered("served@champion").model_id == model.model_id
        with pytest.raises(InputError, match="There is no run"):
            ModelStore(server.uri).of_run("0" * 32)
        with pytest.raises(
            InputError, match="'served' has no such alias. Received: 'served@nobody'"
        ):
            ModelStore(server.uri).registered("served@nobody")
    finally:
        server.kill()


def test_mlflows_default_store_is_afterwards_what_it_was(uri, monkeypatch):
    """What runs next in this process may mean another one."""
    for chosen, variable in ((None, None), (None, "sqlite:///env.db"), ("sqlite:///own.db", None)):
        if variable is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
        if chosen is not None:
            mlflow.set_tracking_uri(chosen)
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        before = mlflow.is_tracking_uri_set(), mlflow.get_tracking_uri()
        try:
            with _as_default_store(uri):
                assert mlflow.get_tracking_uri() == uri
            assert (mlflow.is_tracking_uri_set(), mlflow.get_tracking_uri()) == before
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
            assert mlflow.is_tracking_uri_set() == (chosen is not None)
        finally:
            mlflow.set_tracking_uri(None)
